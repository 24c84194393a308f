"""The merge: one order of intake whatever the timing, and no promise is ever broken."""

from __future__ import annotations

import numpy as np
import pytest
from fold_world import LOGS, STAGES, Session, intake_order, small_market

from procs import topology
from procs.fold import block
from procs.fold.assembly import Bound, LoopSettings, assemble, heap_world
from procs.fold.checkpoint import save
from procs.fold.loop import taken
from procs.fold.merge import flush_outputs, next_run
from ringbuf.layout import CAPACITY, PROMISE, PROMISE_GIVEN, TAIL, WATERMARK, views
from trading.records import TS_END, Kind

WIRE_SHIFT = 700
PROMISERS = {"quoter": "quotes", "risk": "orders", "router": "wire"}
FEEDBACK = {"quoter": 0, "risk": 1, "router": 0}


class Writer:
    """Publishes a ring's records and watermarks one by one, as a writer in another process would."""

    def __init__(self, words: np.ndarray, record: np.dtype, times: np.ndarray) -> None:
        self.ctl, self.slots, _ = views(words, record)
        self.times, self.tail = times, 0

    def step(self, rng: np.random.Generator) -> None:
        """Publish a few records, or only promise."""
        for _ in range(int(rng.integers(0, 6))):
            if self.tail == len(self.times):
                break
            row = self.tail & (int(self.ctl[CAPACITY]) - 1)
            self.slots[row, -1] = 0
            self.slots[row, 0] = self.times[self.tail]
            self.tail += 1
            self.slots[row, -1] = self.tail
        following = int(self.times[self.tail]) if self.tail < len(self.times) else TS_END
        low = int(self.ctl[WATERMARK])
        if rng.random() < 0.7:  # any promise up to the next record's time is true
            self.ctl[WATERMARK] = max(
                low, min(following, int(rng.integers(low, low + 5000))) if rng.random() < 0.8 else following
            )
        self.ctl[TAIL] = self.tail


def take(bound: Bound, into: list[tuple[int, int]], most: int) -> None:
    """What a stage's poll does, without the decisions."""
    for _ in range(most):
        ring, count = next_run(bound.block)
        flush_outputs(bound.block)
        if count == 0:
            break
        for _ in range(count):
            into.append((ring, int(block.in_loc(bound.block, ring)[0])))
            taken(bound.block, ring)


@pytest.mark.parametrize("seed", range(12))
def test_the_order_of_intake_is_a_function_of_the_records(seed: int) -> None:
    """Three streams with many equal times, published in random steps with random promises, are taken in the order of
    (time + shift, input, place in the stream), whatever was published when and whatever the batch."""
    rng = np.random.default_rng(seed)
    entries = topology.inputs("exchange")
    shifts = (0, 0, WIRE_SHIFT)
    streams = [np.sort(rng.integers(0, 20_000, int(rng.integers(1, 900)))) for _ in entries]
    expected = sorted((int(t) + shifts[r], r, n) for r, stream in enumerate(streams) for n, t in enumerate(stream))
    for _ in range(3):
        world = heap_world({"exchange": ()})
        loop = LoopSettings(batch=int(rng.integers(1, 65)))
        bound = assemble("exchange", world, (), loop, shifts={"wire": WIRE_SHIFT})
        writers = [Writer(world.rings[e.name], e.record, stream) for e, stream in zip(entries, streams)]
        got: list[tuple[int, int]] = []
        steps = 0
        while len(got) < len(expected) and steps < 100_000:
            steps += 1
            writers[rng.integers(3)].step(rng)
            if rng.random() < 0.6:
                take(bound, got, int(rng.integers(1, 20)))
            if rng.random() < 0.1:
                save(bound.block)
        assert got == [(r, n) for _, r, n in expected]
        (log,) = [entry for entry in topology.outputs("exchange") if entry.name in LOGS]
        _, _, recs = views(world.rings[log.name], log.record)
        tail = int(world.rings[log.name][TAIL])
        assert intake_order(recs[:tail]) == got, "the log says what was taken"


def _reports_read(order: list[tuple[int, int]], feedback: int) -> dict[tuple[int, int], int]:
    """How many feedback records had been read once (input, sequence) was taken."""
    read, found = 0, {}
    for ring, at in order:
        read += ring == feedback
        found[ring, at] = read
    return found


@pytest.mark.parametrize("told", [False, True], ids=["undisturbed", "halted and resumed"])
@pytest.mark.parametrize("seed", range(2))
def test_no_record_breaks_a_promise(seed: int, told: bool) -> None:
    """Over a whole session in random schedule, also while an operator halts and resumes at random: no record is earlier than a
    watermark shown before it, and none is earlier than a conditional promise shown before it whose condition held when its
    cause was read."""
    rng = np.random.default_rng(seed)
    loop = LoopSettings(checkpoint_every=256, batch=int(rng.integers(1, 65)), look=bool(seed))
    session = Session(small_market(20.0), loop)
    words, said = (Kind.HALT, Kind.RESUME), 0
    shown: list[tuple[str, str, int, int, int, int]] = []  # stage, ring, tail then, watermark, given, promise
    idle = 0
    while not all(session.done(name) for name in STAGES):
        name = STAGES[rng.integers(len(STAGES))]
        if told and rng.random() < 0.002 and session.tell(words[said % 2]):
            said += 1
        work = session.poll(name)
        session.settle(name, work)
        session.record()
        for ring in session.outputs[name] if work else ():
            if ring not in LOGS:
                ctl = session.world.rings[ring]
                page = (int(ctl[WATERMARK]), int(ctl[PROMISE_GIVEN]), int(ctl[PROMISE]))
                shown.append((name, ring, session.tail(ring), *page))
        idle = 0 if work else idle + 1
        assert idle < 5000
    session.record()
    kept = session.kept()
    assert len(kept["control"]) == said and bool(said) == told
    ids = {entry.ring_id: entry.name for entry in topology.RINGS}
    read: dict[str, np.ndarray] = {}
    for name, ring in PROMISERS.items():
        reads = _reports_read(intake_order(kept[f"intake.{name}"]), FEEDBACK[name])
        inputs = {entry.name: r for r, entry in enumerate(topology.inputs(name))}
        recs = kept[ring]
        read[ring] = np.array(
            [reads[inputs[ids[int(c)]], int(s)] for c, s in zip(recs["cause_ring"], recs["cause_seq"])], np.int64
        )
    times = {ring: kept[ring]["ts_ns"].astype(np.int64) for ring in kept if ring not in (*LOGS, "control")}
    conditional = 0
    for name, ring, tail, watermark, given, promise in shown:
        later = times[ring][tail:]
        if later.size == 0:
            continue
        assert later.min() >= watermark, f"{ring}: a record {watermark - int(later.min())} ns before the watermark"
        if ring in read and given and promise > watermark:
            feedback = times[topology.inputs(name)[FEEDBACK[name]].name]
            holds = read[ring][tail:] <= given - 1
            if holds.any():
                conditional += 1
                assert later[holds].min() >= promise, f"{ring}: earlier than promised"
            if not holds.all():  # then the first record that was not read moves them, at its own time
                assert later[~holds].min() >= min(promise, int(feedback[given - 1]))
    assert conditional > 50, "no promise was put to the test"
    for ring, stamps in times.items():
        assert np.all(np.diff(stamps) >= 0), f"{ring}: time runs backwards"
