"""Budgets, the resync desk and the clock estimate, in virtual time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from procs.pacing import MINUTE, SECOND, Pace, SlidingWindow, backoff
from procs.receiver.budget import ConnectBudget, WeightBudget
from procs.receiver.clock import FLOOR_NS, ClockEstimate
from procs.receiver.resync import ANSWER_NS, ResyncDesk

S = SECOND


def test_sliding_window_holds_in_every_window() -> None:
    """Whoever waits as told never has more than the limit within any window, and does not wait longer than needed."""
    rng = random.Random(1)
    window = SlidingWindow(100, MINUTE)
    now, taken = 0, []
    for _ in range(3000):
        units = rng.choice([1, 5, 20, 50])
        wait = window.wait_ns(now, units)
        if wait:
            assert window.wait_ns(now + wait - 1, units) > 0
            now += wait
        assert window.wait_ns(now, units) == 0
        window.take(now, units)
        taken.append((now, units))
        assert sum(u for at, u in taken if at > now - MINUTE) <= 100
        now += rng.randrange(2 * S)


def test_backoff_doubles_between_its_bounds() -> None:
    """From the least to the most and no further, however many failures; a draw takes at most half of it off."""
    assert [backoff(n, 250, 2000) for n in (0, 1, 2, 3, 4, 5, 1000)] == [250, 250, 500, 1000, 2000, 2000, 2000]
    assert [backoff(3, 250, 2000, draw) for draw in (0.0, 0.5, 1.0)] == [500, 750, 1000]
    assert backoff(7, 0, 0) == 0


def test_a_pace_spreads_what_it_lets_through() -> None:
    """A unit every gap, a burst at once before that; what is dearer than a burst waits until all is earned back."""
    pace = Pace(10, burst=3)
    for _ in range(3):
        assert pace.wait_ns(0) == 0
        pace.take(0)
    assert (pace.wait_ns(0), pace.wait_ns(9), pace.wait_ns(10)) == (10, 1, 0)
    assert (pace.wait_ns(10, 3), pace.wait_ns(10, 50)) == (20, 20) and pace.wait_ns(30, 50) == 0
    even = Pace(7)
    even.take(100)
    assert (even.wait_ns(100), even.wait_ns(106), even.wait_ns(107)) == (7, 1, 0)


def test_more_than_the_whole_budget_goes_through_alone() -> None:
    """A request that costs more than our share is let through when nothing else is in the window, or it never would be."""
    window = SlidingWindow(10, MINUTE)
    assert window.wait_ns(0, 50) == 0
    window.take(0, 50)
    assert window.wait_ns(1, 1) == MINUTE - 1
    with pytest.raises(ValueError, match="at least 1"):
        SlidingWindow(0, 1)


def test_weight_counts_what_others_use_as_well() -> None:
    """Our share bounds us; what the venue says was used in all keeps us from going over the whole."""
    budget = WeightBudget(100, 0.5)
    for _ in range(5):
        assert budget.wait_ns(0, 10) == 0
        budget.take(0, 10)
    assert budget.wait_ns(0, 10) == MINUTE and budget.highest == 50
    other = WeightBudget(100, 1.0)
    other.take(0, 10)
    other.observe(0, 95)  # 85 by others at our address
    assert other.wait_ns(S, 10) == MINUTE - S and other.wait_ns(S, 5) == 0
    other.take(S, 5)
    assert other.wait_ns(S, 1) > 0 and other.wait_ns(MINUTE, 1) == 0


def test_connects_are_remembered_over_restarts(tmp_path: Path) -> None:
    """A receiver that is killed and restarted in a loop has the budget of one; a damaged file is an empty one."""
    file = tmp_path / "connects.json"
    wall = [10**18]
    now = 5 * S
    for n in range(10):
        budget = ConnectBudget(10, MINUTE, file=file, wall_ns=lambda: wall[0], now_ns=now)
        assert budget.used(now) == n and budget.wait_ns(now) == 0
        budget.take(now)
        wall[0] += S
        now = 7 * n * S  # each process has a monotonic clock of its own
    budget = ConnectBudget(10, MINUTE, file=file, wall_ns=lambda: wall[0], now_ns=0)
    assert budget.wait_ns(0) == 50 * S
    wall[0] -= 3600 * S
    assert ConnectBudget(10, MINUTE, file=file, wall_ns=lambda: wall[0]).wait_ns(0) > 0, "a clock set back frees nothing"
    for damage in (b"", b"{", b'"x"', b'[1, "a", null]', b"\xff\xfe"):
        file.write_bytes(damage)
        assert ConnectBudget(10, MINUTE, file=file, wall_ns=lambda: wall[0]).wait_ns(0) == 0
    lost = ConnectBudget(10, MINUTE, file=tmp_path / "no" / "where", wall_ns=lambda: wall[0])
    lost.take(0)
    assert lost.used(0) == 1


def test_wishes_for_one_symbol_become_one_request() -> None:
    """While a request is in flight no second one starts; after delivery the symbol may be wished for anew."""
    desk = ResyncDesk(30, random.Random(1))
    for _ in range(5):
        desk.want(3, 0)
    assert desk.due(0, lambda _: True) == [3] and desk.due(0, lambda _: True) == []
    desk.want(3, 1)
    assert desk.due(S, lambda _: True) == []
    desk.delivered(3)
    assert desk.waiting == 0 and desk.wanted == 1 and desk.delivered_count == 1
    desk.want(3, 2 * S)
    assert desk.due(2 * S, lambda _: True) == [3]


def test_a_snapshot_of_no_use_is_asked_for_more_and_more_slowly() -> None:
    """The feed asks again at once for what could not be used: each try waits longer, within its limit. The first trouble after a
    good while is served at once again."""
    desk = ResyncDesk(1000, random.Random(1))
    desk.want(0, 0)
    now, waits = 0, []
    assert desk.due(now, lambda _: True) == [0]
    for _ in range(12):
        desk.delivered(0)
        desk.want(0, now, again=True)
        start = now
        while not desk.due(now, lambda _: True):
            now += S // 100
        waits.append(now - start)
    for n, wait in enumerate(waits):
        longest = min(S // 4 << n, 10 * S)
        assert longest // 2 <= wait <= longest + S // 100
    desk.delivered(0)
    desk.want(0, now)
    assert desk.due(now, lambda _: True) == [0], "a new trouble, not the old one"
    desk.delivered(0)
    desk.want(0, now + MINUTE, again=True)
    assert desk.due(now + MINUTE, lambda _: True) == [0], "a checksum that fails after an hour is no fault of the snapshot"


def test_a_resubscription_is_over_when_its_snapshot_comes() -> None:
    """Sent is not delivered: refused, unanswered in time, or cut with its line, it is tried again, after a pause that grows."""
    desk = ResyncDesk(1000, random.Random(1))
    desk.want(5, 0)
    now = 0
    for trouble in ("silence", "refused", "cut", "silence"):
        while not desk.due(now, lambda _: True):
            now += S // 100
        desk.sent(5, 2, now + ANSWER_NS)
        assert desk.waiting == 1 and desk.due(now + ANSWER_NS - 1, lambda _: True) == []
        failed = desk.failed_count
        if trouble == "silence":
            now += ANSWER_NS
            desk.due(now, lambda _: True)
        elif trouble == "refused":
            desk.failed(5, now)
            desk.failed(9, now)  # a refusal of something else
        else:
            desk.line_ended(1, now)
            assert desk.failed_count == failed, "another line's end"
            desk.line_ended(2, now)
        assert desk.failed_count == failed + 1 and desk.waiting == 1
        assert desk.due(now + S // 10, lambda _: True) == []
    desk.delivered(5)
    assert desk.waiting == 0 and desk.due(now + MINUTE, lambda _: True) == []


def test_the_budget_is_shared_in_turn_and_symbols_without_streams_wait() -> None:
    """Over all symbols; one that fails goes behind the others; one whose line is down costs nothing. A symbol's first snapshot
    is no resync: it waits for no budget."""
    desk = ResyncDesk(2, random.Random(1))
    for symbol in range(4):
        desk.want(symbol, 0)
    assert desk.due(0, lambda symbol: symbol != 1) == [0, 2, 3]
    for symbol in (0, 2, 3):
        desk.failed(symbol, 0)
    assert desk.due(59 * S, lambda _: True) == [1, 0, 2]
    for symbol in (1, 0, 2):
        desk.failed(symbol, 59 * S)
    assert desk.due(118 * S, lambda _: True) == []
    assert desk.due(119 * S, lambda _: True) == [3, 1]
    desk.failed(9, 0)
    desk.delivered(9)
    assert desk.waiting == 4, "nobody asked: nothing to do"


def test_bad_symbols_starve_nobody() -> None:
    """Eight symbols whose snapshots are always malformed, an hour long, and a good one that loses its book now and then: it is
    served within a moment every time, and the budget is never overdrawn."""
    desk = ResyncDesk(30, random.Random(4))
    rng = random.Random(5)
    for symbol in range(1, 9):
        desk.want(symbol, 0)
    served: list[int] = []
    asked, waits = -1, []
    tenth = S // 10
    for now in range(0, 3600 * S, tenth):
        if asked < 0 and rng.random() < 0.005:
            desk.want(0, now)
            asked = now
        for symbol in desk.due(now, lambda _: True):
            served.append(now)
            desk.delivered(symbol)
            if symbol == 0:
                waits.append(now - asked)
                asked = -1
            else:
                desk.want(symbol, now, again=True)
    assert len(waits) > 100 and max(waits) == 0, "half of the budget is always there"
    assert len(served) - len(waits) > 500, "the bad ones are tried on"
    times = iter(range(len(served)))
    assert all(sum(at <= other < at + MINUTE for other in served[n : n + 40]) <= 30 for n, at in zip(times, served, strict=True))


def test_clock_offset_believes_the_shortest_round_trip() -> None:
    """The true offset lies within the bound of every estimate, whatever the delays; the stream's bound never exceeds it."""
    rng = random.Random(3)
    true = -1_270_000_000
    clock = ClockEstimate()
    assert clock.best is None and clock.floor_ns is None
    now = 10**18
    for _ in range(200):
        there, back = rng.randrange(1_000_000, 80_000_000), rng.randrange(1_000_000, 80_000_000)
        clock.answer(now, now + there + true, now + there + back)
        made = now + rng.randrange(10**9)
        clock.event(made + true, made + rng.randrange(1_000_000, 50_000_000))
        assert clock.best is not None and abs(clock.best.offset_ns - true) <= clock.best.error_ns
        assert clock.floor_ns is not None and clock.floor_ns <= true
        now += 2 * 10**9
    best, floor = clock.best, clock.floor_ns
    assert best is not None and floor is not None
    assert best.error_ns < 40_000_000 and true - floor < 10_000_000


def test_old_and_impossible_samples_do_not_count() -> None:
    """An answer before its question is passed over; a lower bound from before a drift is forgotten after a while."""
    clock = ClockEstimate(samples=2)
    clock.answer(100, 50, 90)
    assert clock.best is None
    clock.answer(0, 1000, 10)
    clock.answer(0, 2000, 100)
    clock.answer(0, 3000, 200)
    assert clock.best is not None and clock.best.error_ns == 50
    clock.event(500, 0)
    clock.event(100, 10)
    assert clock.floor_ns == 500
    clock.event(100, FLOOR_NS + 11)
    assert clock.floor_ns == 100 - FLOOR_NS - 11
