"""Stages are exact folds: thrown away at any point and rebuilt, they go on to the very same records."""

from __future__ import annotations

import numpy as np
import pytest
from fold_world import LOGS, STAGES, Session, identities, intake_order, small_market, undisturbed

from procs import topology
from procs.fold.assembly import LoopSettings
from procs.fold.checkpoint import ACTIVE, HEAD_WORDS, restore, save
from procs.fold.plan import Plan
from trading.records import Kind

MARKET_SECONDS = 24.0


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A small generated market."""
    return small_market(MARKET_SECONDS)


@pytest.fixture(scope="module")
def expected(plan: Plan) -> dict[str, object]:
    """What a plain backtest of it publishes."""
    kept = undisturbed(plan)
    assert len(kept["orders"]) > 100 and len(kept["reports"]) > 100, "a market in which nothing happens proves nothing"
    return identities(kept)


def run_disturbed(session: Session, rng: np.random.Generator, crash_share: float, told_share: float = 0.0) -> None:
    """Poll stages in random order; after a share of the polls the stage is dead, with part of its poll's output published.
    Before a share of them an operator halts or resumes."""
    idle = 0
    words, said = (Kind.HALT, Kind.RESUME), 0
    stages = tuple(session.stages)
    while not all(session.done(name) for name in stages):
        session.between(rng)
        name = stages[rng.integers(len(stages))]
        if told_share and rng.random() < told_share and session.tell(words[said % 2]):
            said += 1
        dies = rng.random() < crash_share
        before = {ring: (session.tail(ring), page) for ring, page in session.shown(name).items()} if dies else {}
        work = session.poll(name)
        if dies:
            kind = rng.integers(4)
            for ring in session.outputs[name]:
                old, page = before[ring]
                now = session.tail(ring)
                if kind == 0 or (kind == 1 and ring in LOGS) or now == old:
                    continue  # 0: dead after the poll. 1: the log is ahead of all that followed from it
                if kind == 2 and ring in LOGS:
                    upto = int(rng.integers(old, now + 1))  # 2: nothing followed yet, some was logged
                else:
                    upto = old if kind == 2 else int(rng.integers(old, now + 1))
                if kind == 3 and ring in LOGS:
                    continue
                session.take_back(ring, upto, page, rng)
            session.crash(name)
        else:
            session.settle(name, work)
        if rng.random() < 0.2:
            session.record()
        idle = 0 if work else idle + 1
        assert idle < 5000, "nobody can go on"
    for name in stages:
        save(session.stages[name].block)
    session.record()


def one_by_default(seeds: range) -> pytest.MarkDecorator:
    """A test of many seeds: the first by default, the others with the slow tests."""
    others = [pytest.param(seed, marks=pytest.mark.slow) for seed in seeds[1:]]
    return pytest.mark.parametrize("seed", [seeds[0], *others])


@one_by_default(range(3))
def test_hundreds_of_crashes_change_no_record(plan: Plan, expected: dict[str, object], seed: int) -> None:
    """Random stages die at random points, some in the middle of what they publish, some again while they recover: every ring
    carries the same records as without, the intake logs the same order, nothing diverges and every reader ends at the tail."""
    rng = np.random.default_rng(seed)
    loop = LoopSettings(checkpoint_every=int(rng.integers(1, 600)), batch=int(rng.integers(1, 65)), look=seed % 2 == 0)
    session = Session(plan, loop)
    run_disturbed(session, rng, 0.03)
    assert session.crashes >= 500
    assert session.diverged() == 0
    assert identities(session.kept()) == expected
    assert list(session.unread()) == []


@one_by_default(range(20, 22))
def test_crashes_between_an_operator_s_words_lose_none(plan: Plan, seed: int) -> None:
    """Halts and resumes come at no time of their own; the log keeps the one they got, so a crash moves none: nothing diverges,
    each is taken once, every reader ends at the tail."""
    rng = np.random.default_rng(seed)
    session = Session(plan, LoopSettings(checkpoint_every=int(rng.integers(1, 600)), look=seed % 2 == 0))
    run_disturbed(session, rng, 0.03, 0.003)
    assert session.crashes >= 500
    assert session.diverged() == 0
    assert list(session.unread()) == []
    kept = session.kept()
    taken = [at for ring, at in intake_order(kept["intake.risk"]) if ring == 0]
    assert len(taken) >= 20 and taken == list(range(len(kept["control"])))


@one_by_default(range(10, 13))
def test_no_schedule_changes_a_record(plan: Plan, expected: dict[str, object], seed: int) -> None:
    """Who is polled when, how large batches are and how often checkpoints are made is without effect on any record."""
    rng = np.random.default_rng(seed)
    loop = LoopSettings(checkpoint_every=int(rng.integers(1, 1000)), batch=int(rng.integers(1, 65)), look=seed % 2 == 0)
    session = Session(plan, loop)
    run_disturbed(session, rng, 0.0)
    assert session.crashes == 0
    assert identities(session.kept()) == expected


def test_the_same_plan_twice_gives_the_same_records(plan: Plan, expected: dict[str, object]) -> None:
    """Two backtests of one plan agree in every ring."""
    assert identities(undisturbed(plan)) == expected


def test_another_seed_gives_other_records(expected: dict[str, object]) -> None:
    """The digests have teeth: another market differs in every ring that carries records."""
    other = identities(undisturbed(small_market(MARKET_SECONDS, **{"generator.seed": 8})))
    for name in ("market", "depth", "signals", "orders", "wire", "executions", "reports"):
        assert other[name] != expected[name], name


def test_a_checkpoint_cut_before_its_flip_is_not_used(plan: Plan) -> None:
    """The buffer that is not active may hold anything: recovery reads the active one; the flip is what makes a copy count."""
    session = Session(plan, LoopSettings(checkpoint_every=1 << 30))
    for _ in range(6):
        for name in STAGES:
            session.poll(name)
            save(session.stages[name].block)
        session.record()
    for name in STAGES:
        bound = session.stages[name]
        save(bound.block)
        kept = bound.arena.copy()
        words = session.world.checkpoints[name]
        active = int(words[ACTIVE])
        assert active in (1, 2)
        other = HEAD_WORDS + (2 - active) * kept.size
        words[other : other + kept.size // 2] = 0x5A5A5A5A  # a copy that was cut
        session.crash(name)
        state = slice(32 + 16 * (len(topology.inputs(name)) + len(topology.outputs(name)) + 1), None)
        assert np.array_equal(session.stages[name].arena[state], kept[state]), name
        save(session.stages[name].block)
        assert int(words[ACTIVE]) == 3 - active, "the next checkpoint goes into the other buffer"


def test_recovery_again_and_again_is_recovery_once(plan: Plan) -> None:
    """A stage that dies while it recovers, many times, stands where one recovery would have put it."""
    session = Session(plan, LoopSettings(checkpoint_every=1 << 30))
    for _ in range(4):
        for name in STAGES:
            session.poll(name)
            save(session.stages[name].block)
        session.record()
    for name in STAGES:
        session.poll(name)
    for name in STAGES:
        session.crash(name)
        once = session.stages[name].arena.copy()
        for _ in range(5):
            session.crash(name)
            restore(session.stages[name].block)
        assert np.array_equal(session.stages[name].arena, once), name


@pytest.mark.parametrize("torn", ["both ends", "depth only", "neither"])
def test_a_feed_that_dies_while_it_ends_a_drained_stream_ends_it_at_the_same_frame(plan: Plan, torn: str) -> None:
    """Told to end, the feed says END and dies before its checkpoint: the next one adds no frame behind an END."""
    rng = np.random.default_rng(5)
    session = Session(plan, LoopSettings(checkpoint_every=1 << 30))
    session.poll("feed")
    save(session.stages["feed"].block)
    for _ in range(3):
        for name in STAGES[1:]:
            session.poll(name)
            save(session.stages[name].block)
        session.record()
    session.poll("feed")
    before = session.shown("feed")
    session.drain()
    session.poll("feed")
    assert session.done("feed")
    ends = {ring: session.tail(ring) for ring in before}
    frames = int(session.stages["feed"].state["source"][0]["frames"])
    if torn != "both ends":
        session.take_back("market", ends["market"] - 1, before["market"], rng)
    if torn == "neither":
        session.take_back("depth", ends["depth"] - 1, before["depth"], rng)
    session.crash("feed")
    while not session.done("feed"):
        session.poll("feed")
    assert int(session.stages["feed"].state["source"][0]["frames"]) == frames
    assert {ring: session.tail(ring) for ring in ends} == ends
    save(session.stages["feed"].block)
    while not all(session.done(name) for name in STAGES):
        for name in STAGES[1:]:
            session.settle(name, session.poll(name))
        session.record()
    for name in STAGES:
        save(session.stages[name].block)
    session.record()
    assert session.diverged() == 0
    assert list(session.unread()) == []
    kept = session.kept()
    for ring in ("market", "depth", "signals", "orders", "wire", "executions", "reports"):
        assert int(np.count_nonzero(kept[ring]["kind"] == Kind.END)) == 1 and kept[ring][-1]["kind"] == Kind.END, ring
