"""The fault matrix: every fault, in every position, seeded: the book exact or marked stale at every record, the other symbols
undisturbed, recovered in time, the request weight kept."""

from __future__ import annotations

import random
from functools import cache

import pytest
from fault_world import TARGET, Plan, Rest, World

from sim.worlds.faults import DEPTH_MS, END_MS, NAMES, SNAPSHOT_MS, Frame, Truth, bent, deliveries, truth_of
from trading.books import fold as market

FAULTS = (
    "drop", "duplicate", "reorder", "stall", "gap", "corrupt", "disconnect", "refuse", "429", "418", "slow snapshot",
    "old snapshot", "damaged snapshot", "no snapshot", "wrong clock", "slow consumer",
)  # fmt: skip
SHARED = ("429", "418", "slow consumer")
"""Faults that all symbols feel."""
POSITIONS = ("sync", "steady", "resync")
ROUND = len(FAULTS) * len(POSITIONS) * 2
RECOVERY_MS = {"429": 2_000, "418": 2_500, "refuse": 1_900}
"""After the fault: the rest of the venue's Retry-After (1 s, 1.5 s) or of the client's pause, then what any fault needs."""
RECOVERY = 1_500
"""A snapshot that was under way and missed, another, backing off in between."""
_STEADY_MS = 2_000.0
_TRUTHS = 8


def _rest(fault: str, start: float, end: float, rng: random.Random) -> Rest:
    def on(at: float) -> bool:
        return start <= at < end

    def on_target(at: float, symbol: int) -> bool:
        return symbol == TARGET and on(at)

    rest = Rest()
    if fault == "refuse":
        rest.refused = on_target
    elif fault in ("429", "418"):
        rest.limited = lambda at: int(fault) if on(at) else 0
    elif fault == "slow snapshot":
        slow = rng.uniform(400, 900)
        rest.delay_ms = lambda at, symbol: slow if on_target(at, symbol) else SNAPSHOT_MS
    elif fault == "old snapshot":
        age = rng.uniform(150, 1500)
        rest.age_ms = lambda at, symbol: age if on_target(at, symbol) else 0.0
    elif fault == "damaged snapshot":
        rest.damage = lambda at, symbol, raw: raw[: rng.randrange(len(raw))] if on_target(at, symbol) else raw
    elif fault == "no snapshot":
        said = rng.choice((b"{}", b'{"code":0,"msg":"under maintenance"}', b"[]"))
        rest.damage = lambda at, symbol, raw: said if on_target(at, symbol) else raw
    return rest


def schedule(seed: int) -> tuple[str, str, Truth, Plan]:
    """(fault, position, truth, plan) of a seed; ROUND seeds walk through all faults and positions on either market."""
    rng = random.Random(seed)
    fault, position = FAULTS[seed % len(FAULTS)], POSITIONS[seed // len(FAULTS) % len(POSITIONS)]
    truth = truth_of(rng.randrange(_TRUTHS), bool(seed // len(FAULTS) // len(POSITIONS) % 2))
    lines = 2 if rng.random() < 0.3 else 1
    limit = 9 if rng.random() < 0.5 else 0
    arriving = deliveries(truth, lines)
    length = rng.uniform(100, 900)
    start = {"sync": rng.uniform(0, 2.0 * SNAPSHOT_MS), "steady": _STEADY_MS}.get(position, _STEADY_MS + rng.uniform(20, 250))
    if position == "resync":
        # a message that no line brings: a snapshot is wanted when the next one comes
        lost = next(f for f in truth.frames if f.symbol == TARGET and f.kind == "depth" and f.at_ms >= _STEADY_MS - DEPTH_MS)
        arriving = [d for d in arriving if d.frame is not lost]
    end = start + length
    line = rng.randrange(lines)
    bent_ones = bent(arriving, fault, start, end, rng, TARGET, line)
    plan = Plan(bent_ones, lines=lines, rest=_rest(fault, start, end, rng), limit=limit)
    plan.faults_end_ms = end + (350 if fault in ("duplicate", "reorder") else 0) + (900 if fault == "slow snapshot" else 0)
    if fault == "slow consumer":
        plan.slow = (start, end)
    if fault == "disconnect":
        plan.events = [(start, line, 0), (end, line, 1)]
    if fault == "wrong clock":
        off = rng.choice((-1270.0, -3_600_000.0, 5_000.0, 86_400_000.0))
        plan.clock_ms = lambda at: at + off if start <= at < end else at
    plan.resilient = lines == 2 and position == "steady" and fault not in ("corrupt", "slow consumer")
    return fault, position, truth, plan


@cache
def undisturbed(seed: int, usdm: bool, lines: int, limit: int) -> tuple[tuple[bytes, ...], ...]:
    """The records of each symbol in a run without any fault."""
    truth = truth_of(seed, usdm)
    world = World(truth, Plan(deliveries(truth, lines), lines=lines, limit=limit))
    world.run()
    assert all(len(s) == 0 for s in world.stale) and all(v is not None for v in world.valid_since)
    assert len(world.rest.asked) == len(NAMES) + int(world.feed.state["edge_wants"].sum())
    return tuple(tuple(r) for r in world.records)


def _play(seed: int) -> World:
    """Run one schedule and judge it."""
    fault, position, truth, plan = schedule(seed)
    world = World(truth, plan)
    world.run()
    where = f"seed {seed}: {fault} during {position}, {plan.lines} lines"
    recovered_ms = plan.faults_end_ms + RECOVERY_MS.get(fault, RECOVERY)
    assert recovered_ms < END_MS - 2 * DEPTH_MS, where
    source = next(s for s in range(_TRUTHS) if truth_of(s, truth.usdm) is truth)
    clean = undisturbed(source, truth.usdm, plan.lines, plan.limit)
    for symbol in range(len(NAMES)):
        if symbol != TARGET and fault not in SHARED:
            assert tuple(world.records[symbol]) == clean[symbol], f"{where}: symbol {symbol} disturbed"
        since = world.valid_since[symbol]
        assert since is not None and since <= recovered_ms, f"{where}: symbol {symbol} valid since {since}"
        assert len(set(world.trades[symbol])) == len(world.trades[symbol]), f"{where}: a trade came twice"
    assert world.worst_minute() <= world.budget.own.limit and world.desk.waiting <= len(NAMES), where
    if plan.resilient:
        assert world.stale[TARGET] == [], f"{where}: stale although the other line had all"
        sent = [f.trade_id for f in truth.frames if f.symbol == TARGET and f.kind == "trade"]
        assert sorted(world.trades[TARGET]) == sent, where
    state = world.feed.state
    assert (state["oracle_checked"] == state["oracle_equal"]).all() and (state["crossed"] == 0).all()
    return world


def _play_many(seeds: range, often: int) -> None:
    reasons: set[int] = set()
    healed = lost = limited = deepened = 0
    for seed in seeds:
        world = _play(seed)
        reasons |= {reason for _, _, reason in world.wants}
        healed += int(world.feed.state["healed"].sum())
        deepened += int(world.feed.state["deepened"].sum())
        lost += world.lost
        limited += world.client.limited
    wanted = {market.Want.START, market.Want.GAP, market.Want.MALFORMED, market.Want.TOO_OLD, market.Want.DISCONNECTED,
              market.Want.LOST, market.Want.EDGE}  # fmt: skip
    assert wanted <= reasons and min(healed, lost, limited, deepened) >= often, "the schedules did not reach what they are to try"


@pytest.mark.parametrize("part", range(3))
def test_every_fault_in_every_position(part: int) -> None:
    """Three seeded schedules of each fault in each position on each market, in parts (see `_play` for what is checked)."""
    _play_many(range(ROUND * part, ROUND * (part + 1)), 1)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_every_fault_in_every_position_at_length(part: int) -> None:
    """Sixty more of each, 5,760 in all."""
    _play_many(range(ROUND * (3 + 6 * part), ROUND * (9 + 6 * part)), 5)


def test_a_storm_of_gaps_keeps_to_the_weight_and_recovers_a_minute_later() -> None:
    """Every third depth message of every symbol lost for twenty seconds: requests stop at the weight of a minute, books stay
    stale until weight is free again, then all are valid."""
    end_ms = 75_000
    truth = truth_of(1, False, end_ms)
    plan = Plan([
        d for i, d in enumerate(deliveries(truth)) if d.frame.kind != "depth" or i % 3 or not 1_000 < d.at_ms < 21_000
    ])  # fmt: skip
    world = World(truth, plan, weight=600)
    world.run(end_ms)
    assert world.worst_minute() == 600 and len(world.rest.asked) > 600 // world.request(TARGET).weight
    assert all(since is not None and since < 66_000 for since in world.valid_since)


def test_the_check_has_teeth() -> None:
    """A diff whose quantity was altered on the way, and nothing else, is found by the world's comparison."""
    truth = truth_of(0, False)
    arriving = deliveries(truth)
    for d in arriving:
        if d.frame.symbol == TARGET and d.frame.kind == "depth" and d.at_ms > _STEADY_MS and b'.1' in d.raw:
            at = d.raw.rindex(b'"]')
            d.raw = d.raw[: at - 1] + (b"1" if d.raw[at - 1 : at] != b"1" else b"2") + d.raw[at:]
            break
    with pytest.raises(AssertionError):
        World(truth, Plan(arriving)).run()


def test_frames_of_the_truth_are_whole() -> None:
    """The generator's own promise: no symbol's book is ever crossed and every message changes it."""
    for seed in range(_TRUTHS):
        for books in truth_of(seed, True).books:
            for levels in books.values():
                assert max(p for s, p in levels if s == 0) < min(p for s, p in levels if s == 1)
    assert isinstance(truth_of(0, True).frames[0], Frame)
