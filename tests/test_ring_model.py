"""The ring against a plain list, driven at random by hypothesis: any order of pushes, pops, releases, crashes and recoveries."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ringbuf import batch, layout, ring
from ringbuf.layout import CURSOR, GATING, READERS, TAIL, reader_line
from ringbuf.ring import I_HEAD, I_READER, I_RELEASED, LOC_WORDS, O_FLUSHED, O_GATE, O_KNOWN, O_TAIL

REC = np.dtype([("ts_ns", "i8"), ("body", "i8", 6), ("seq", "i8")])
NO_IDENTITY = np.zeros(0, np.int64)


def body(n: int) -> np.ndarray:
    """The seven words of record n."""
    return np.arange(7, dtype=np.int64) + n * 104_729


class RingMachine(RuleBasedStateMachine):
    """One writer, two gating readers, one observer. The model: how many records were published, read, released."""

    @initialize(capacity=st.sampled_from((2, 4, 8)))
    def start(self, capacity: int) -> None:
        """A fresh ring."""
        self.capacity = capacity
        self.words = np.zeros(layout.payload_bytes(capacity, REC) // 8, np.int64)
        layout.format_ring(self.words, REC, capacity, gating=(True, True, False))
        self.bells = ring.own_doorbells(self.words)
        self.out = ring.output(self.words, REC, np.zeros(LOC_WORDS, np.int64), NO_IDENTITY)
        self.ins = [ring.input_(self.words, REC, np.zeros(LOC_WORDS, np.int64), r) for r in range(3)]
        self.published = self.claimed = self.lost = 0
        self.head, self.cursor, self.gates = [0, 0, 0], [0, 0], [True, True]

    def free(self) -> int:
        """Room that the model sees."""
        gating = [c for c, gates in zip(self.cursor, self.gates, strict=True) if gates]
        return self.capacity - (self.published - min(gating, default=self.published))

    @rule(flush=st.booleans())
    def push(self, flush: bool) -> None:
        """Push one, shown or not."""
        self.claimed = 0
        assert (ring.room(self.out.ctl, self.out.loc, 1) >= 1) is (self.free() >= 1)
        if self.free() >= 1:
            row = ring.begin(self.out)
            self.out.words[row, :7] = body(self.published)
            assert ring.commit(self.out) == self.published
            self.published += 1
        if flush:
            ring.flush(self.out.ctl, self.out.loc, 0, self.bells)

    @rule(count=st.integers(0, 10))
    def push_batch(self, count: int) -> None:
        """Push many."""
        self.claimed = 0
        rows = np.zeros((count, 8), np.int64)
        for k in range(count):
            rows[k, :7] = body(self.published + k)
        done = batch.push_rows(self.out.ctl, self.out.words, self.out.loc, rows, count, NO_IDENTITY, self.bells)
        assert done == min(count, self.free())
        self.published += done

    @rule(count=st.integers(1, 10))
    def claim(self, count: int) -> None:
        """Open slots; what is in them is garbage until sealed."""
        row = self.published & (self.capacity - 1)
        self.claimed = int(batch.open_rows(self.out.ctl, self.out.words, self.out.loc, count))
        assert self.claimed == min(count, self.free(), self.capacity - row)
        self.out.words[row : row + self.claimed, :7] = -1

    @precondition(lambda self: getattr(self, "claimed", 0))
    @rule(count=st.integers(1, 10))
    def publish(self, count: int) -> None:
        """Fill and publish claimed slots, perhaps not all of them."""
        done = min(count, self.claimed)
        for k in range(done):
            self.out.words[(self.published + k) & (self.capacity - 1), :7] = body(self.published + k)
        batch.publish_rows(self.out.ctl, self.out.words, self.out.loc, done, NO_IDENTITY, self.bells)
        self.published += done
        self.claimed -= done

    @rule(reader=st.integers(0, 1), most=st.integers(1, 9))
    def take(self, reader: int, most: int) -> None:
        """Read, without releasing."""
        end = self.ins[reader]
        if not self.gates[reader]:
            return
        into = np.zeros((most, 8), np.int64)
        ahead = batch.readable_ahead(end.words, self.head[reader], 8)
        there = self.published - self.head[reader]
        assert ahead <= there and (ahead == 8 or 2 * ahead > there or there == 0)
        count = batch.take_rows(end.ctl, end.words, end.loc, into, most)
        assert count == min(most, self.published - self.head[reader])
        for k in range(count):
            assert (into[k, :7] == body(self.head[reader] + k)).all() and into[k, 7] == self.head[reader] + k + 1
        self.head[reader] += count

    @rule(reader=st.integers(0, 1))
    def release(self, reader: int) -> None:
        """Publish the cursor."""
        end = self.ins[reader]
        if self.gates[reader]:
            ring.release(end.ctl, end.loc, self.bells)
            self.cursor[reader] = self.head[reader]

    @rule()
    def writer_dies(self) -> None:
        """Its private words are gone; a new one finds the tail in the slots."""
        self.claimed = 0
        self.out = ring.output(self.words, REC, np.zeros(LOC_WORDS, np.int64), NO_IDENTITY)
        loc = self.out.loc
        loc[O_TAIL] = loc[O_KNOWN] = ring.published_tail(self.out.ctl, self.out.words, 0)
        loc[O_GATE] = min(ring.smallest_cursor(self.out.ctl), int(loc[O_TAIL]))
        loc[O_FLUSHED] = -1

    @rule(reader=st.integers(0, 1))
    def reader_dies(self, reader: int) -> None:
        """A new one starts at the released cursor and sees what had been read but not released again."""
        end = self.ins[reader]
        end.loc[:] = 0
        end.loc[I_READER], end.loc[I_RELEASED] = reader, -1
        end.loc[I_HEAD] = end.ctl[reader_line(reader) + CURSOR]
        self.head[reader] = self.cursor[reader]

    @rule(reader=st.integers(0, 1))
    def fence(self, reader: int) -> None:
        """A dead gating reader is taken out of the writer's way, for good in this model."""
        self.words[reader_line(reader) + GATING] = 0
        self.gates[reader] = False

    @rule(most=st.integers(1, 9))
    def observe(self, most: int) -> None:
        """The observer gets whole records in order; what it missed is exactly what was overwritten."""
        end = self.ins[2]
        into = np.zeros((most, 8), np.int64)
        count, lost = batch.observe_rows(end.ctl, end.words, end.loc, into, most)
        numbers = into[:count, 7] - 1
        assert (np.diff(numbers) > 0).all()
        for row in into[:count]:
            assert (row[:7] == body(int(row[7]) - 1)).all()
        assert int(end.loc[I_HEAD]) == self.head[2] + count + lost <= self.published
        self.head[2] += count + lost
        self.lost += lost

    @invariant()
    def nothing_runs_ahead(self) -> None:
        """The shown tail never passes the published one; no gating reader's unread record is ever overwritten."""
        if not hasattr(self, "published"):
            return
        assert self.words[TAIL] <= self.published == int(self.out.loc[O_TAIL])
        assert self.words[READERS] == 3
        for reader, gates in enumerate(self.gates):
            for n in range(self.cursor[reader] if gates else self.published, self.published):
                assert (self.out.words[n & (self.capacity - 1), :7] == body(n)).all()


RingMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)


class TestRing(RingMachine.TestCase):
    """Collected by pytest: no sequence of rules breaks the model."""
