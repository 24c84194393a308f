"""Conditional promises in the merge by time: no schedule of the stages may change a record, also where the market is silent
for longer than an order needs to the venue and its answer back. Between two market records whole conversations take place
there; a reader that runs ahead on a promise that its own next report breaks would miss them."""

from __future__ import annotations

import numpy as np
import pytest
from fold_world import LOGS, STAGES, Session, identities, small_market

from procs import topology
from procs.fold.assembly import LoopSettings
from procs.fold.block import R_SINCE
from procs.fold.checkpoint import save
from procs.fold.plan import Plan
from ringbuf.layout import PROMISE, WATERMARK, views

SPARSE = {
    "generator.events_per_s": 12.0,
    "exchange.latency.entry_min_ms": 0.5,
    "exchange.latency.entry_max_ms": 3.0,
    "exchange.latency.response_min_ms": 0.5,
    "exchange.latency.response_max_ms": 3.0,
    "execution.order_max_age_ms": 500,
}
SECONDS = 40.0


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A market with gaps of many latencies between its records."""
    return small_market(SECONDS, **SPARSE)


def run_in_turn(session: Session, order: tuple[str, ...]) -> dict[str, object]:
    """Poll the stages in a fixed order until all have ended; what every ring but the intake logs carried."""
    idle = 0
    while not all(session.done(name) for name in STAGES):
        work = 0
        for name in order:
            done = session.poll(name)
            session.settle(name, done)
            work += done
        session.record()
        idle = 0 if work else idle + 1
        assert idle < 5000, "nobody can go on"
    return outcome(session)


def outcome(session: Session) -> dict[str, object]:
    """Digest of every ring; the order of every intake log."""
    for name in STAGES:
        save(session.stages[name].block)
    session.record()
    return identities(session.kept())


@pytest.fixture(scope="module")
def careful(plan: Plan) -> dict[str, object]:
    """The records when all promises are cut down to the exchange's own watermark, and records are taken one by one.

    Nothing that the exchange still writes can then break a promise, so this order is right whatever the merge relies on.
    """
    session = Session(plan, LoopSettings(batch=1))
    executions = session.world.rings["executions"]
    session.poll("feed")
    first = int(views(session.world.rings["market"], topology.RING["market"].record)[2]["ts_ns"][0])
    for entry in topology.RINGS:  # nothing happens before the first frame; creeping there from 1970 would take for ever
        if entry.writer != "feed":
            session.world.rings[entry.name][WATERMARK] = first
    idle = 0
    while not all(session.done(name) for name in STAGES):
        work = 0
        for name in STAGES:
            done = session.poll(name)
            for entry in topology.outputs(name):
                words = session.world.rings[entry.name]
                words[PROMISE] = min(words[PROMISE], executions[WATERMARK])
            if not done and session.stages[name].registers[R_SINCE] > 0:
                save(session.stages[name].block)
            work += done
        session.record()
        idle = 0 if work else idle + 1
        assert idle < 100_000, "nobody can go on"
    return outcome(session)


@pytest.mark.parametrize("turn", [STAGES, tuple(reversed(STAGES))])
def test_the_order_of_polling_changes_no_record(plan: Plan, careful: dict[str, object], turn: tuple[str, ...]) -> None:
    """Full batches, first stage first or last stage first: the same records on every ring, the same order of intake."""
    assert run_in_turn(Session(plan, LoopSettings(batch=64)), turn) == careful


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_random_schedule_changes_no_record(plan: Plan, careful: dict[str, object], seed: int) -> None:
    """Stages that run much more often than others, batches of any size."""
    rng = np.random.default_rng(seed)
    session = Session(plan, LoopSettings(checkpoint_every=int(rng.integers(1, 600)), batch=int(rng.integers(1, 65))))
    weights = rng.random(len(STAGES)) ** 3 + 0.02
    weights /= weights.sum()
    idle = 0
    while not all(session.done(name) for name in STAGES):
        name = STAGES[rng.choice(len(STAGES), p=weights)]
        work = session.poll(name)
        session.settle(name, work)
        if rng.random() < 0.5:
            session.record()
        idle = 0 if work else idle + 1
        assert idle < 100_000, "nobody can go on"
    assert outcome(session) == careful
    assert set(LOGS) <= set(careful)
