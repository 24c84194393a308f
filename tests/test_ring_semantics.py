"""What a ring promises, at capacities small enough that every corner is met: wrap, full, several readers, laps, batches."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numba import njit
from ring_heap import NO_IDENTITY, REC64, REC128, content, ends, fresh, pop, push, reopen

from ringbuf import batch, layout, ring, waiting
from ringbuf.layout import (
    ARMED_READERS,
    CAPACITY,
    CURSOR,
    GATING,
    OVERRUNS,
    READERS,
    RECORD_WORDS,
    TAIL,
    WATERMARK,
    WRITER_DOORBELL,
    RingLayoutError,
    reader_line,
)
from ringbuf.ring import I_HEAD, I_RELEASED, O_DIVERGED, O_KNOWN, O_TAIL
from trading.records import CONTROL_RECORD, layout_hash


@pytest.mark.parametrize("capacity,record,readers", [*product((2, 4, 8), (REC64, REC128), (1, 2, 3))])
def test_every_interleaving_of_fills_and_drains(capacity: int, record: np.dtype, readers: int) -> None:
    """Push i, drain j with each reader, over all i, j up to the capacity and several wraps: order, words and room are exact."""
    words = fresh(capacity, record, (True,) * readers)
    out, ins = ends(words, record, readers)
    heads = [0] * readers
    tail = 0
    for i, j in product(range(capacity + 2), repeat=2):
        for _ in range(i):
            full = tail - min(heads) == capacity
            assert push(out, words) is not full
            tail += not full
        assert words[TAIL] == tail
        for r, end in enumerate(ins):
            for _ in range(max(j - r, 0)):
                there = heads[r] < tail
                assert pop(end, words) is there
                heads[r] += there
        assert ring.room(out.ctl, out.loc, capacity) == capacity - (tail - min(heads))
        assert ring.smallest_cursor(out.ctl) == min(heads)
    assert tail > capacity


@pytest.mark.parametrize("capacity", (2, 4, 8))
def test_unreleased_records_hold_the_writer_back(capacity: int) -> None:
    """Reading alone frees nothing: a slot is reused only after release."""
    words = fresh(capacity)
    out, (end,) = ends(words, REC64, 1)
    for _ in range(capacity):
        assert push(out, words) and pop(end, words, release=False)
    assert not push(out, words)
    ring.release(end.ctl, end.loc, ring.own_doorbells(words))
    assert push(out, words)


@pytest.mark.parametrize("capacity", (2, 4, 8))
def test_a_reader_that_does_not_gate_never_stops_the_writer(capacity: int) -> None:
    """With no gating reader, or on a lossy ring, room is always the whole ring."""
    for words in (fresh(capacity, gating=(False,)), fresh(capacity, lossy=True)):
        out, _ = ends(words, REC64, 1)
        for _ in range(5 * capacity):
            assert push(out, words)


@pytest.mark.parametrize("capacity,ahead", [*product((2, 4, 8), range(20))])
def test_a_lapped_reader_knows_exactly_what_it_lost(capacity: int, ahead: int) -> None:
    """However far the writer ran ahead, an observing reader gets whole records in order, and got + lost = published."""
    words = fresh(capacity, lossy=True)
    out, (end,) = ends(words, REC64, 1)
    into = np.zeros((4, 8), np.int64)
    got, lost = [], 0
    for step in (1, ahead, 3, 2 * ahead, 1):
        for _ in range(step):
            push(out, words)
        while True:
            count, gone = batch.observe_rows(end.ctl, end.words, end.loc, into, 4)
            lost += gone
            for row in into[:count]:
                assert (row == content(int(row[-1]) - 1, 8)).all()
                got.append(int(row[-1]) - 1)
            if count == 0:
                break
    assert got == sorted(set(got)) and len(got) + lost == int(out.loc[O_TAIL]) == int(end.loc[I_HEAD])
    assert got[-1] == int(out.loc[O_TAIL]) - 1
    ring.count_overrun(end.ctl, 0, lost)
    assert words[reader_line(0) + OVERRUNS] == lost


def test_a_record_overwritten_in_the_middle_of_a_copy_is_not_delivered() -> None:
    """An opened slot (sequence 0) is neither readable nor taken for one not yet written once TAIL has passed it."""
    words = fresh(4, lossy=True)
    out, (end,) = ends(words, REC64, 1)
    into = np.zeros(8, np.int64)
    assert ring.copy_observed(end.ctl, end.words, 0, into) == 0
    for _ in range(4):
        push(out, words)
    row = ring.begin(out)
    out.words[row, 0] = -1
    assert ring.copy_observed(end.ctl, end.words, 0, into) == -1
    assert ring.copy_observed(end.ctl, end.words, 4, into) == 0
    assert ring.copy_observed(end.ctl, end.words, 1, into) == 1 and (into == content(1, 8)).all()


def test_a_record_published_between_two_looks_is_not_lost() -> None:
    """TAIL past a slot whose sequence an observer has just seen unwritten means: look again. Here with TAIL behind the slots."""
    words = fresh(4, lossy=True)
    out, (end,) = ends(words, REC64, 1)
    into = np.zeros(8, np.int64)
    push(out, words, flush=False)  # published, not shown
    assert words[TAIL] == 0
    assert ring.copy_observed(end.ctl, end.words, 0, into) == 1 and ring.copy_observed(end.ctl, end.words, 1, into) == 0


@pytest.mark.parametrize("capacity,unflushed", [*product((2, 4, 8), range(20))])
def test_a_new_writer_finds_the_tail_however_lazily_it_was_shown(capacity: int, unflushed: int) -> None:
    """published_tail is exact for any number of unflushed records, with or without an opened slot, on gated and free rings."""
    for lossy, opened in product((False, True), repeat=2):
        words = fresh(capacity, lossy=lossy)
        out, (end,) = ends(words, REC64, 1)
        for _ in range(3):
            assert push(out, words) and pop(end, words)
        for _ in range(unflushed):
            assert push(out, words, flush=False) and pop(end, words)
        if opened:
            ring.begin(out)
        assert ring.published_tail(out.ctl, out.words, 0) == 3 + unflushed
        assert ring.published_tail(out.ctl, out.words, 3) == 3 + unflushed


def test_a_stray_sequence_is_not_a_tail() -> None:
    """A sequence word that cannot stand in its slot, or that no gating reader would have let through, is passed over."""
    words = fresh(4)
    out, _ = ends(words, REC64, 1)
    push(out, words)
    out.words[2, -1] = 6  # would belong to row 1
    out.words[3, -1] = (1 << 50) + 4
    assert ring.published_tail(out.ctl, out.words, 0) == 1


@pytest.mark.parametrize("capacity,done,published", [*product((2, 4, 8), range(4), range(5))])
def test_a_recomputing_writer_publishes_nothing_twice(capacity: int, done: int, published: int) -> None:
    """From a checkpoint `done`, with `published` more out already: those are compared, the next one is published."""
    words = fresh(capacity)
    out, (end,) = ends(words, REC64, 1)
    published = min(published, capacity)
    for n in range(done + published):
        assert push(out, words) and pop(end, words, release=n < done)
    known = int(out.loc[O_TAIL])
    again = reopen(words, REC64)
    again.loc[O_TAIL] = done
    before = out.words[:capacity].copy()
    while int(again.loc[O_TAIL]) < known:
        assert push(again, words)
    assert (out.words[:capacity] == before).all() and again.loc[O_DIVERGED] == 0
    assert push(again, words) is (published < capacity) and ring.ready(out.ctl, out.words, known) is (published < capacity)


def test_a_recomputed_difference_is_counted() -> None:
    """A recomputed record that differs in an identity word is one divergence; in another word none."""
    for word, expected in ((2, 1), (5, 0)):
        words = fresh(4)
        out, _ = ends(words, REC64, 1)
        push(out, words)
        again = reopen(words, REC64)._replace(identity=np.array([0, 1, 2], np.int64))
        again.loc[O_TAIL] = 0
        row = ring.begin(again)
        again.words[row] = content(0, 8)
        again.words[row, word] += 1
        ring.commit(again)
        assert again.loc[O_DIVERGED] == expected


@pytest.mark.parametrize("capacity,wanted", [*product((2, 4, 8), (1, 2, 3, 9))])
def test_batches_move_what_fits(capacity: int, wanted: int) -> None:
    """push_rows and take_rows move as many as there is room or records for, across the wrap, in order."""
    words = fresh(capacity)
    out, (end,) = ends(words, REC64, 1)
    bells = ring.own_doorbells(words)
    into = np.zeros((wanted, 8), np.int64)
    sent = taken = 0
    for _ in range(4 * capacity):
        rows = np.array([content(sent + i, 8) for i in range(wanted)])
        most = min(wanted, capacity - (sent - taken))
        assert batch.push_rows(out.ctl, out.words, out.loc, rows, wanted, NO_IDENTITY, bells) == most
        sent += most
        expected = min(wanted, sent - taken)
        assert batch.take_rows(end.ctl, end.words, end.loc, into, wanted) == expected
        for i in range(expected):
            assert (into[i] == content(taken + i, 8)).all()
        taken += expected
        ring.release(end.ctl, end.loc, bells)


@pytest.mark.parametrize("record", [REC64, REC128])
def test_records_stored_by_the_line_are_seen_one_by_one(record: np.dtype) -> None:
    """Between open_at and publish_at nobody sees the record, an observer calls the old one lost; after it all see it whole.

    Three laps of a small ring, filled with store_line and compared with load_line; the tail moves with step alone.
    """
    width = record.itemsize // 8
    words = fresh(4, record, gating=(True, False))
    out, (end, seer) = ends(words, record, 2)
    bells, into = ring.own_doorbells(words), np.zeros(width, np.int64)

    @njit
    def store(slots: np.ndarray, row: int, wanted: np.ndarray) -> None:
        for line in range(wanted.size // 8):
            w = wanted[8 * line : 8 * line + 8]
            batch.store_line(slots, row, line, (w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]))

    @njit
    def load(slots: np.ndarray, row: int, found: np.ndarray) -> None:
        for line in range(found.size // 8):
            w = batch.load_line(slots, row, line)
            for k in range(8):
                found[8 * line + k] = w[k]

    for first in range(0, 12, 2):
        assert ring.room(out.ctl, out.loc, 2) >= 2 and not batch.recomputing(out.loc)
        batch.fetch_slots(out.words, first, 2)
        for n in (first, first + 1):
            row = ring.open_at(out.words, n)
            assert row == n % 4
            opened = content(n, width)
            opened[-1] = 0
            store(out.words, row, opened)
            assert not ring.ready(end.ctl, end.words, n)
            assert n < 4 or ring.copy_observed(seer.ctl, seer.words, n - 4, into) == -1
            ring.publish_at(out.words, n)
            assert ring.copy_observed(seer.ctl, seer.words, n, into) == 1 and (into == content(n, width)).all()
        assert int(out.loc[O_TAIL]) == first
        ring.step(out.loc, 2)
        ring.flush(out.ctl, out.loc, 0, bells)
        assert int(out.ctl[TAIL]) == int(out.loc[O_TAIL]) == first + 2
        for n in (first, first + 1):
            assert ring.ready(end.ctl, end.words, n)
            into[:] = 0
            load(end.words, n % 4, into)
            assert (into == content(n, width)).all()
            end.loc[I_HEAD] = n + 1
        ring.release(end.ctl, end.loc, bells)


def test_a_reader_stays_behind_while_it_is_patient() -> None:
    """readable_behind gives all or nothing while patient, what there is when not; across the wrap."""
    words = fresh(16)
    out, (end,) = ends(words, REC64, 1)
    for start in range(0, 32, 8):
        for there in range(1, 9):
            assert push(out, words)
            head = start
            assert batch.readable_behind(end.words, head, 4, 4, True) == (4 if there == 8 else 0)
            assert batch.readable_behind(end.words, head, 4, 4, False) == (4 if there >= 4 else 2 if there >= 2 else 1)
        for _ in range(8):
            assert pop(end, words)
        assert batch.readable_behind(end.words, start + 8, 4, 4, False) == 0


@pytest.mark.parametrize("known", [0, 1, 3, 5, 9])
def test_a_batch_may_begin_with_what_had_been_published(known: int) -> None:
    """push_rows after a restart: what a dead writer published is compared, not doubled; the rest is published whole."""
    words = fresh(8)
    out, (end,) = ends(words, REC64, 1)
    for _ in range(min(known, 8)):
        assert push(out, words)
    again, _ = ends(words, REC64, 0)
    again.loc[O_KNOWN] = known = min(known, 8)
    rows = np.array([content(n, 8) for n in range(8)])
    rows[:, -1] = 1 << 40
    assert batch.push_rows(again.ctl, again.words, again.loc, rows, 8, again.identity, ring.own_doorbells(words)) == 8
    assert int(again.loc[O_DIVERGED]) == 0 and int(again.loc[O_TAIL]) == 8 and known <= 8
    into = np.zeros((8, 8), np.int64)
    assert batch.take_rows(end.ctl, end.words, end.loc, into, 8) == 8
    assert (into == np.array([content(n, 8) for n in range(8)])).all()


def test_claimed_slots_are_unreadable_until_published() -> None:
    """open_rows gives what lies in one piece; readers see nothing before publish_rows, then all of it."""
    words = fresh(8)
    out, (end,) = ends(words, REC64, 1)
    bells = ring.own_doorbells(words)
    for _ in range(5):
        assert push(out, words) and pop(end, words)
    assert batch.open_rows(out.ctl, out.words, out.loc, 8) == 3
    for n in range(3):
        out.words[5 + n, :-1] = content(5 + n, 8)[:-1]
    assert batch.count_readable(end.ctl, end.words, 5, 8) == 0
    batch.publish_rows(out.ctl, out.words, out.loc, 2, NO_IDENTITY, bells)
    assert batch.count_readable(end.ctl, end.words, 5, 8) == 2
    assert pop(end, words) and pop(end, words) and not pop(end, words)


def test_watermark_never_falls() -> None:
    """flush shows the greatest watermark given so far."""
    words = fresh(4)
    out, _ = ends(words, REC64, 1)
    bells = ring.own_doorbells(words)
    for given, shown in ((5, 5), (3, 5), (9, 9), (0, 9)):
        ring.flush(out.ctl, out.loc, given, bells)
        assert words[WATERMARK] == shown


def test_flush_rings_for_armed_readers_once() -> None:
    """A flush that shows something disarms every reader and rings each armed one's bell; one that shows nothing does not."""
    words = fresh(4, gating=(True, True, False))
    out, _ = ends(words, REC64, 3)
    bells = ring.own_doorbells(words)
    words[ARMED_READERS] = 0b101
    ring.flush(out.ctl, out.loc, 0, bells)
    assert words[ARMED_READERS] == 0b101
    push(out, words)
    assert words[ARMED_READERS] == 0 and list(bells[:3]) == [1, 0, 1]
    push(out, words)
    assert list(bells[:3]) == [1, 0, 1]


def test_a_damaged_doorbell_number_rings_nothing() -> None:
    """A doorbell number outside of the array is not used as an address."""
    words = fresh(4)
    before = words.copy()
    for number in (-1, 16, 1 << 40):
        ring.ring_doorbell(ring.own_doorbells(words), number)
    assert (words == before).all()


def test_waits_answer_at_once_when_there_is_nothing_to_wait_for() -> None:
    """Every strategy sees a record, or room, that is there; with no time left it says that there is none; none stays armed."""
    words = fresh(2)
    out, (end,) = ends(words, REC64, 1)
    bells = ring.own_doorbells(words)
    for strategy in (waiting.SPIN, waiting.YIELD, waiting.BLOCK):
        for limit in (0, 1):
            assert not waiting.wait_readable(end.ctl, end.words, 0, 0, bells, strategy, 1, limit)
            assert waiting.wait_room(out.ctl, out.loc, 2, bells, strategy, 1, limit)
    push(out, words)
    push(out, words)
    for strategy in (waiting.SPIN, waiting.YIELD, waiting.BLOCK):
        for limit in (0, 1):
            assert waiting.wait_readable(end.ctl, end.words, 0, 0, bells, strategy, 0, limit)
            assert not waiting.wait_room(out.ctl, out.loc, 1, bells, strategy, 0, limit)
    assert not words[ARMED_READERS] and not words[layout.ARMED_WRITER]


BROKEN = [
    (CAPACITY, 3, "power of two"), (CAPACITY, 0, "power of two"), (CAPACITY, 1 << 40, "power of two"),
    (CAPACITY, 8, "segment has"), (RECORD_WORDS, 16, "128 bytes"), (RECORD_WORDS, -1, "bytes"),
    (READERS, 9, "9 readers"), (READERS, -1, "-1 readers"),
]  # fmt: skip


@pytest.mark.parametrize("word,value,says", BROKEN)
def test_a_ring_whose_sizes_contradict_is_refused(word: int, value: int, says: str) -> None:
    """No word that an address is made of is used unchecked."""
    words = fresh(4)
    words[word] = value
    with pytest.raises(RingLayoutError, match=says):
        layout.views(words, REC64)


@pytest.mark.parametrize(
    "word,value,says",
    [(TAIL, -1, "tail"), (TAIL, 1 << 62, "tail"), (TAIL, 5, "cursor"), (reader_line(0) + CURSOR, -3, "cursor"),
     (WRITER_DOORBELL, 16, "doorbells="), (layout.READER_DOORBELL, -1, "doorbell")],
)  # fmt: skip
def test_a_ring_whose_state_contradicts_is_refused(word: int, value: int, says: str) -> None:
    """Tail, cursors and doorbells are checked before an end is opened."""
    words = fresh(4)
    layout.check_state(words, 16)
    words[word] = value
    with pytest.raises(RingLayoutError, match=says):
        layout.check_state(words, 16)


def test_what_cannot_be_a_ring_is_refused() -> None:
    """Bad capacities, records that are no whole lines, too many readers, doorbells that do not match, too little room."""
    words = np.zeros(layout.payload_bytes(4, REC64) // 8, np.int64)
    for capacity in (0, 1, 3, -4, 1 << 27):
        with pytest.raises(RingLayoutError, match="power of two"):
            layout.format_ring(words, REC64, capacity)
    with pytest.raises(RingLayoutError, match="lines of 64"):
        layout.format_ring(words, np.dtype([("a", "i8", 9)]), 4)
    with pytest.raises(RingLayoutError, match="at most 8"):
        layout.format_ring(words, REC64, 4, gating=(True,) * 9)
    with pytest.raises(RingLayoutError, match="one each"):
        layout.format_ring(words, REC64, 4, reader_doorbells=(1, 2))
    with pytest.raises(RingLayoutError, match="too few"):
        layout.format_ring(words, REC64, 8)


def test_layout_hash_agrees_with_the_records() -> None:
    """Rings made by the pipeline and by endpoint.create_ring carry the same hash for the same record."""
    assert layout.record_hash(CONTROL_RECORD) == layout_hash(CONTROL_RECORD)


def test_release_is_idempotent_and_shows_position() -> None:
    """Releasing again changes nothing; POSITION follows the head."""
    words = fresh(4)
    out, (end,) = ends(words, REC64, 1)
    end.loc[I_RELEASED] = -1
    push(out, words)
    assert pop(end, words)
    for _ in range(2):
        ring.release(end.ctl, end.loc, ring.own_doorbells(words))
        assert words[reader_line(0) + CURSOR] == 1 == words[reader_line(0) + layout.POSITION]
    assert words[reader_line(0) + GATING] == 1
