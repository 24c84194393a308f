"""The supervisor's decision table: histories of events, and what must come of each. No process, no clock."""

from __future__ import annotations

import itertools
import random
import signal
from dataclasses import replace

import pytest

from procs.supervision.table import (
    FREE_RESTARTS,
    MS,
    Abandon,
    Action,
    Actual,
    Died,
    Event,
    Kill,
    Observed,
    Paused,
    Policy,
    Requested,
    Restart,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    State,
    Stop,
    Tick,
    Trip,
    Wanted,
    backoff_ns,
    end_in_words,
    next_deadline_ns,
    step,
)

POLICY = Policy(
    max_restarts=5,
    window_ns=10_000 * MS,
    backoff_min_ns=100 * MS,
    backoff_max_ns=1_000 * MS,
    heartbeat_ns=500 * MS,
    answer_ns=200 * MS,
    start_ns=1_000 * MS,
    term_ns=300 * MS,
)

UP: list[tuple[int, Event]] = [(0, Start()), (0, Requested(1)), (1, Spawned(100, 1)), (5, Observed(1, True))]
"""A stage that came up: times in milliseconds."""


def play(history: list[tuple[int, Event]], policy: Policy = POLICY) -> tuple[State, list[Action]]:
    """The state after a history, and all actions in order."""
    state, done = State("risk", policy), []
    for ms, event in history:
        state, actions = step(state, event, ms * MS)
        done += actions
    return state, done


def kinds(actions: list[Action]) -> list[str]:
    """Actions in short: spawn:2, SIGTERM, SIGKILL, abandon, trip."""
    short = {Abandon: "abandon", Trip: "trip"}
    return [
        f"spawn:{a.incarnation}"
        if isinstance(a, Spawn)
        else signal.Signals(a.signum).name
        if isinstance(a, Kill)
        else short[type(a)]
        for a in actions
    ]


HISTORIES: list[tuple[str, list[tuple[int, Event]], Actual, list[str]]] = [
    ("nothing asked", [], Actual.STOPPED, []),
    ("start", [(0, Start())], Actual.STARTING, ["spawn:1"]),
    ("started twice", [(0, Start()), (1, Start())], Actual.STARTING, ["spawn:1"]),
    ("up", UP, Actual.RUNNING, ["spawn:1"]),
    ("answer for another incarnation", [(0, Start()), (0, Requested(1)), (1, Spawned(7, 9))], Actual.STARTING, ["spawn:1"]),
    ("no zygote: waits without limit", [(0, Start()), (99_999, Tick())], Actual.STARTING, ["spawn:1"]),
    ("no answer", [(0, Start()), (0, Requested(1)), (200, Tick())], Actual.STARTING, ["spawn:1", "abandon", "spawn:2"]),
    ("answer before its limit", [(0, Start()), (0, Requested(1)), (199, Tick())], Actual.STARTING, ["spawn:1"]),
    ("spawn failed", [(0, Start()), (0, SpawnFailed(1, "no memory"))], Actual.STARTING, ["spawn:1", "spawn:2"]),
    ("old spawn failed", [*UP, (9, SpawnFailed(1, "late"))], Actual.RUNNING, ["spawn:1"]),
    ("not ready in time", [*UP[:3], (1001, Tick())], Actual.STOPPING, ["spawn:1", "SIGKILL"]),
    (
        "not ready, killed, again",
        [*UP[:3], (1001, Tick()), (1002, Died(100, -9))],
        Actual.STARTING,
        ["spawn:1", "SIGKILL", "spawn:2"],
    ),
    ("crash", [*UP, (9, Died(100, -11))], Actual.STARTING, ["spawn:1", "spawn:2"]),
    ("death told twice", [*UP, (9, Died(100, -9)), (9, Died(100, -9))], Actual.STARTING, ["spawn:1", "spawn:2"]),
    ("death of a stranger", [*UP, (9, Died(101, -9))], Actual.RUNNING, ["spawn:1"]),
    ("work done", [*UP, (9, Died(100, 0, True))], Actual.EXITED, ["spawn:1"]),
    ("killed after its work", [*UP, (9, Died(100, -9, True))], Actual.STARTING, ["spawn:1", "spawn:2"]),
    ("left without its work", [*UP, (9, Died(100, 0))], Actual.STARTING, ["spawn:1", "spawn:2"]),
    ("died before it was ready", [*UP[:3], (2, Died(100, 1))], Actual.STARTING, ["spawn:1", "spawn:2"]),
    ("beats", [*UP, (400, Observed(2, True)), (800, Observed(3, True))], Actual.RUNNING, ["spawn:1"]),
    ("silent at the limit", [*UP, (505, Observed(1, True))], Actual.RUNNING, ["spawn:1"]),
    ("silent beyond it", [*UP, (506, Observed(1, True))], Actual.STOPPING, ["spawn:1", "SIGKILL"]),
    (
        "hang, dead, again",
        [*UP, (506, Observed(1, True)), (507, Died(100, -9))],
        Actual.STARTING,
        ["spawn:1", "SIGKILL", "spawn:2"],
    ),
    ("we slept, not it", [*UP, (9000, Paused(8990 * MS)), (9001, Observed(1, True))], Actual.RUNNING, ["spawn:1"]),
    (
        "we slept, then it hung",
        [*UP, (9000, Paused(8990 * MS)), (9600, Observed(1, True))],
        Actual.STOPPING,
        ["spawn:1", "SIGKILL"],
    ),
    ("stop", [*UP, (9, Stop())], Actual.STOPPING, ["spawn:1", "SIGTERM"]),
    ("stop, gone", [*UP, (9, Stop()), (10, Died(100, 143))], Actual.STOPPED, ["spawn:1", "SIGTERM"]),
    ("stop twice", [*UP, (9, Stop()), (10, Stop())], Actual.STOPPING, ["spawn:1", "SIGTERM"]),
    ("stop, stubborn", [*UP, (9, Stop()), (309, Tick())], Actual.STOPPING, ["spawn:1", "SIGTERM", "SIGKILL"]),
    (
        "stop, stubborn, many ticks",
        [*UP, (9, Stop()), (309, Tick()), (999, Tick()), (9999, Tick())],
        Actual.STOPPING,
        ["spawn:1", "SIGTERM", "SIGKILL"],
    ),
    (
        "stop while hung",
        [*UP, (506, Observed(1, True)), (507, Stop()), (508, Died(100, -9))],
        Actual.STOPPED,
        ["spawn:1", "SIGKILL"],
    ),
    ("stop before the request", [(0, Start()), (1, Stop())], Actual.STOPPED, ["spawn:1"]),
    (
        "stop before the answer",
        [(0, Start()), (0, Requested(1)), (1, Stop()), (2, Spawned(100, 1)), (3, Died(100, -9))],
        Actual.STOPPED,
        ["spawn:1", "SIGKILL"],
    ),
    (
        "stop, and no answer ever",
        [(0, Start()), (0, Requested(1)), (1, Stop()), (200, Tick())],
        Actual.STOPPED,
        ["spawn:1", "abandon"],
    ),
    ("stop when stopped", [(0, Stop())], Actual.STOPPED, []),
    ("stop when done", [*UP, (9, Died(100, 0, True)), (10, Stop())], Actual.EXITED, ["spawn:1"]),
    ("restart", [*UP, (9, Restart()), (10, Died(100, 143))], Actual.STARTING, ["spawn:1", "SIGTERM", "spawn:2"]),
    (
        "restart, stubborn",
        [*UP, (9, Restart()), (309, Tick()), (310, Died(100, -9))],
        Actual.STARTING,
        ["spawn:1", "SIGTERM", "SIGKILL", "spawn:2"],
    ),
    ("restart, then stop", [*UP, (9, Restart()), (10, Stop()), (11, Died(100, 0))], Actual.STOPPED, ["spawn:1", "SIGTERM"]),
    ("restart when done", [*UP, (9, Died(100, 0, True)), (10, Restart())], Actual.EXITED, ["spawn:1"]),
    ("unready again", [*UP, (9, Observed(2, False))], Actual.RUNNING, ["spawn:1"]),
]


@pytest.mark.parametrize(("name", "history", "actual", "actions"), HISTORIES, ids=[h[0] for h in HISTORIES])
def test_history(name: str, history: list[tuple[int, Event]], actual: Actual, actions: list[str]) -> None:
    """Each history ends in this state after these actions."""
    state, done = play(history)
    assert (state.actual, kinds(done)) == (actual, actions)


def crash_history(n: int, apart_ms: int) -> list[tuple[int, Event]]:
    """`n` crashes, `apart_ms` from each other, each right after the incarnation came up; back-off waited out by a Tick."""
    history: list[tuple[int, Event]] = [(0, Start())]
    for i in range(1, n + 1):
        ms = i * apart_ms
        history += [(ms, Tick()), (ms, Requested(i)), (ms, Spawned(100 + i, i)), (ms, Observed(1, True)), (ms, Died(100 + i, -6))]
    return history


def test_first_crashes_restart_at_once_then_wait() -> None:
    """The first FREE_RESTARTS crashes of a window spawn at once, the next waits, and its deadline spawns."""
    state, done = play(crash_history(FREE_RESTARTS, 10))
    assert state.actual is Actual.STARTING and len(done) == FREE_RESTARTS + 1
    state, done = play(crash_history(FREE_RESTARTS + 1, 10))
    assert state.actual is Actual.BACKOFF and len(done) == FREE_RESTARTS + 1
    assert 50 * MS <= next_deadline_ns(state) - state.since_ns <= 100 * MS
    early, actions = step(state, Tick(), state.deadline_ns - 1)
    assert early is state and not actions
    late, actions = step(state, Tick(), state.deadline_ns)
    assert late.actual is Actual.STARTING and kinds(list(actions)) == ["spawn:5"]


def test_stop_in_back_off_starts_nothing() -> None:
    """A stop during the wait: STOPPED, and the deadline that had been set spawns nothing."""
    state, _ = play(crash_history(FREE_RESTARTS + 1, 10))
    stopped, actions = step(state, Stop(), state.since_ns + 1)
    assert stopped.actual is Actual.STOPPED and not actions
    assert step(stopped, Tick(), 99_000 * MS) == (stopped, ())


def test_crash_loop_is_fatal_and_trips_once() -> None:
    """One crash more than max_restarts within the window: FATAL, Trip, and only a person's Restart leaves it, clean."""
    state, done = play(crash_history(POLICY.max_restarts + 1, 1000))
    assert state.actual is Actual.FATAL and kinds(done)[-1] == "trip" and kinds(done).count("trip") == 1
    assert "6 times within 10 s" in done[-1].reason  # type: ignore[union-attr]
    for event in (Tick(), Start(), Stop(), Observed(1, True), Died(100, 0), Paused(5)):
        after, actions = step(state, event, 99_000 * MS)
        assert after.actual is Actual.FATAL and not actions
    after, actions = step(state, Restart(), 99_000 * MS)
    assert after.actual is Actual.STARTING and after.crashes == () and kinds(list(actions)) == ["spawn:7"]


def test_crashes_leave_the_window() -> None:
    """Any number of crashes, if far enough apart, is no crash loop."""
    state, done = play(crash_history(50, 2001))
    assert state.actual is not Actual.FATAL and state.crash_count == 50 and "trip" not in kinds(done)


def test_no_restarts_allowed() -> None:
    """max_restarts 0: the first crash is fatal."""
    state, done = play(crash_history(1, 1), replace(POLICY, max_restarts=0))
    assert state.actual is Actual.FATAL and kinds(done) == ["spawn:1", "trip"]


def test_backoff_doubles_to_its_limit_with_a_jitter_that_repeats() -> None:
    """Delays: 0 for the free ones, then within 50..100 % of min * 2^k up to max; the same state gives the same delay."""
    state = State("risk", POLICY, incarnation=7)
    delays = [backoff_ns(state, n) for n in range(1, 60)]
    assert delays[:FREE_RESTARTS] == [0] * FREE_RESTARTS
    for k, delay in enumerate(delays[FREE_RESTARTS:]):
        full = min(1000 * MS, 100 * MS * 2**k)
        assert full // 2 <= delay <= full
    assert delays == [backoff_ns(state, n) for n in range(1, 60)]
    assert len({backoff_ns(replace(state, name=n), 9) for n in ("feed", "risk", "router", "quoter")}) > 1


def test_words_of_an_end() -> None:
    """Exit codes and signals in words; an unknown signal too."""
    assert [end_in_words(c) for c in (0, 3, -9, -15, -250)] == ["exit 0", "exit 3", "SIGKILL", "SIGTERM", "signal 250"]


@pytest.mark.parametrize("seed", range(40))
def test_any_history_keeps_the_invariants(seed: int) -> None:
    """Random events: at most one incarnation lives, none is signalled that is not ours, spawns count up by one."""
    rng = random.Random(seed)
    state, now, pids = State("x", POLICY), 0, itertools.count(1000)
    living: int | None = None
    asked: int | None = None
    spawned = 0
    for _ in range(800):
        now += rng.choice((0, 1, 20, 200, 600, 3000)) * MS
        choices: list[Event] = [Start(), Tick(), Stop(), Restart(), Paused(5), Observed(rng.randrange(3), rng.random() < 0.7)]
        if asked is not None:
            choices += [Requested(asked), Spawned(next(pids), asked), SpawnFailed(asked, "x")]
        if living is not None:
            choices += [Died(living, rng.choice((0, 1, -9)), rng.random() < 0.1)] * 3
        event = rng.choice(choices)
        if isinstance(event, Spawned):
            living, asked = event.pid, None
        elif isinstance(event, SpawnFailed):
            asked = None
        elif isinstance(event, Died):
            living = None
        state, actions = step(state, event, now)
        for action in actions:
            match action:
                case Spawn():
                    assert living is None, "two incarnations"
                    assert action.incarnation == spawned + 1
                    spawned, asked = action.incarnation, action.incarnation
                case Kill():
                    assert action.pid == living
                case Abandon():
                    asked = None if asked == action.incarnation else asked
                case Trip():
                    assert state.actual is Actual.FATAL
        if state.actual is Actual.RUNNING:
            assert state.pid == living
        if state.actual in (Actual.STOPPED, Actual.EXITED, Actual.FATAL, Actual.BACKOFF):
            assert state.pid == 0 and not state.ready and living is None
        if state.actual is Actual.STOPPED:
            assert state.wanted is Wanted.DOWN
        if state.ready:
            assert state.pid
