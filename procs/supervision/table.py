"""The supervisor's decisions as a pure table: (state, event, now) -> (state, actions).

No processes, clocks or files here: procs.supervision.supervisor turns the world into events and actions into system calls, so
that every history (crash loops, a hang while stopping, a supervisor that was itself paused) is a line in a test.

What is *wanted* (UP, DOWN) and what is (*actual*) are kept apart; `ready` is a third thing, said by the process itself:

              Start                    Spawned           Ready
    STOPPED ---------> STARTING ---------------> (pid) --------> RUNNING --- Died(0, finished) ---> EXITED
       ^                 ^   |                                     |
       |        Tick     |   | SpawnFailed, Died                   | Died, else
       | Died            |   v                                     v
    STOPPING          BACKOFF <------ crash, the window not full --+---- window full ---> FATAL (Trip)
       ^                                                           |
       +------------ Stop, Restart, Hang (Kill) -------------------+

A crash is any end that nobody asked for. The first FREE_RESTARTS crashes within the window restart at once (a fold
loses nothing, so waiting would only cost latency); after that the delay doubles from `backoff_min_ns` to
`backoff_max_ns`, with a jitter that depends on name and incarnation alone. More than `max_restarts` crashes within
`window_ns` are a crash loop: FATAL, the kill switch, and a person's Restart to leave it.
"""

from __future__ import annotations

import signal
import zlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from procs.pacing import backoff

FREE_RESTARTS: Final = 3
MS: Final = 1_000_000


class Actual(StrEnum):
    """What a process is, as far as the supervisor knows."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"


class Wanted(StrEnum):
    """What the operator asked for."""

    UP = "UP"
    DOWN = "DOWN"


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits, in nanoseconds. `heartbeat_ns` 0 means that the process has no heartbeat (the zygote)."""

    max_restarts: int = 10
    window_ns: int = 60_000 * MS
    backoff_min_ns: int = 100 * MS
    backoff_max_ns: int = 5_000 * MS
    heartbeat_ns: int = 2_000 * MS
    answer_ns: int = 2_000 * MS  # from the spawn request to its answer
    start_ns: int = 20_000 * MS  # from the answer to readiness
    term_ns: int = 1_000 * MS  # from SIGTERM to SIGKILL

    def __post_init__(self) -> None:
        assert self.max_restarts >= 0 and self.window_ns > 0 and self.start_ns > 0 and self.term_ns >= 0
        assert 0 <= self.backoff_min_ns <= self.backoff_max_ns and self.heartbeat_ns >= 0


@dataclass(frozen=True, slots=True)
class State:
    """One process under supervision. Times are the caller's monotonic nanoseconds."""

    name: str
    policy: Policy
    wanted: Wanted = Wanted.DOWN
    actual: Actual = Actual.STOPPED
    ready: bool = False
    pid: int = 0  # 0 while none is known to live
    incarnation: int = 0  # of the last spawn asked for; the first is 1
    since_ns: int = 0  # of `actual`
    deadline_ns: int = 0  # of BACKOFF (spawn), STARTING (give up) and STOPPING (SIGKILL, or no answer); 0 is none
    crashes: tuple[int, ...] = ()  # times of those within the window
    crash_count: int = 0  # of all time
    heartbeat: int = -1
    heartbeat_ns: int = 0  # when it was last seen to move
    hung: bool = False  # STOPPING because it hung: its end is a crash
    last_end: str = ""  # how the last incarnation ended, in words


# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The process is wanted up."""


@dataclass(frozen=True, slots=True)
class Requested:
    """The zygote was asked for a child (nobody can be while there is none): the limit for its answer runs.

    `withdrawn`: it is dead, and the next one is asked when it is there.
    """

    incarnation: int
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Spawned:
    """The incarnation that was asked for lives as `pid`. It has `start_ns` to become ready, where the policy's is not meant."""

    pid: int
    incarnation: int
    start_ns: int = 0


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """It could not be started."""

    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Observed:
    """A look at the board: its heartbeat counter and whether it says that it is ready."""

    heartbeat: int
    ready: bool


@dataclass(frozen=True, slots=True)
class Died:
    """The process `pid` is gone and reaped. `code` is its exit code, or minus the signal; `finished`: its work is done."""

    pid: int
    code: int
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """The process is wanted down: SIGTERM, and SIGKILL when it does not go."""


@dataclass(frozen=True, slots=True)
class Restart:
    """An operator wants a new incarnation; leaves FATAL and BACKOFF with a clean record."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The supervisor itself did not run for `gap_ns`: nobody's silence in that time counts."""

    gap_ns: int


Event = Start | Requested | Spawned | SpawnFailed | Observed | Died | Stop | Restart | Tick | Paused


# Actions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start this incarnation."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send a signal to a process that is ours and not reaped."""

    name: str
    pid: int
    signum: int
    reason: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """A spawn was asked for and never answered: whoever spawns is stuck."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Trip:
    """A crash loop: trip the kill switch."""

    name: str
    reason: str


Action = Spawn | Kill | Abandon | Trip
Step = tuple[State, tuple[Action, ...]]


def end_in_words(code: int) -> str:
    """`exit 1`, or `SIGKILL`."""
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def backoff_ns(state: State, crashes: int) -> int:
    """Delay before the restart after the `crashes`-th crash of the window: 0, then doubling, jitter 50..100 %."""
    if crashes <= FREE_RESTARTS:
        return 0
    policy = state.policy
    draw = zlib.crc32(f"{state.name}:{state.incarnation}".encode()) % 1024 / 1024
    return int(backoff(crashes - FREE_RESTARTS, policy.backoff_min_ns, policy.backoff_max_ns, draw))


def next_deadline_ns(state: State) -> int:
    """When a Tick may change this state; 0 if only an event can."""
    return state.deadline_ns if state.actual in (Actual.BACKOFF, Actual.STARTING, Actual.STOPPING) else 0


def step(state: State, event: Event, now_ns: int) -> Step:
    """The state after `event` at `now_ns`, and what must be done. An event that means nothing here changes nothing."""
    match event:
        case Start():
            if state.actual in (Actual.STOPPED, Actual.EXITED):
                return _spawn(replace(state, wanted=Wanted.UP), now_ns)
            return replace(state, wanted=Wanted.UP), ()
        case Requested():
            if event.incarnation != state.incarnation or state.pid or state.actual is not Actual.STARTING:
                return state, ()
            return replace(state, deadline_ns=0 if event.withdrawn else now_ns + state.policy.answer_ns), ()
        case Spawned():
            return _on_spawned(state, event, now_ns)
        case SpawnFailed():
            if state.actual is Actual.STOPPING and not state.pid:
                return _after_stop(replace(state, last_end=event.reason), now_ns)
            if event.incarnation != state.incarnation or state.pid or state.actual is not Actual.STARTING:
                return state, ()
            return _crashed(state, event.reason, now_ns)
        case Observed():
            return _on_observed(state, event, now_ns)
        case Died():
            return _on_died(state, event, now_ns)
        case Stop():
            return _on_stop(state, now_ns)
        case Restart():
            return _on_restart(state, now_ns)
        case Tick():
            return _on_tick(state, now_ns)
        case Paused():
            deadline = state.deadline_ns + event.gap_ns if state.deadline_ns else 0
            return replace(state, heartbeat_ns=state.heartbeat_ns + event.gap_ns, deadline_ns=deadline), ()


def _enter(state: State, actual: Actual, now_ns: int, deadline_ns: int = 0) -> State:
    return replace(state, actual=actual, since_ns=now_ns, deadline_ns=deadline_ns)


def _spawn(state: State, now_ns: int) -> Step:
    state = replace(state, incarnation=state.incarnation + 1, pid=0, ready=False, hung=False, heartbeat=-1, heartbeat_ns=now_ns)
    state = _enter(state, Actual.STARTING, now_ns)
    return state, (Spawn(state.name, state.incarnation),)


def _kill(state: State, signum: int, reason: str, now_ns: int) -> Step:
    """STOPPING by a signal; SIGKILL has no deadline after it, a process cannot refuse it."""
    deadline = 0 if signum == signal.SIGKILL else now_ns + state.policy.term_ns
    return _enter(replace(state, ready=False), Actual.STOPPING, now_ns, deadline), (Kill(state.name, state.pid, signum, reason),)


def _on_spawned(state: State, event: Spawned, now_ns: int) -> Step:
    if event.incarnation != state.incarnation or state.pid:
        return state, ()
    if state.actual is Actual.STARTING:
        deadline = now_ns + (event.start_ns or state.policy.start_ns)
        return replace(state, pid=event.pid, heartbeat_ns=now_ns, deadline_ns=deadline), ()
    # asked for, then no longer wanted (or given up) before the answer came
    return _kill(replace(state, pid=event.pid), signal.SIGKILL, "no longer wanted", now_ns)


def _on_observed(state: State, event: Observed, now_ns: int) -> Step:
    if not state.pid or state.actual not in (Actual.STARTING, Actual.RUNNING):
        return state, ()
    if event.heartbeat != state.heartbeat:
        state = replace(state, heartbeat=event.heartbeat, heartbeat_ns=now_ns)
    if state.actual is Actual.STARTING:
        if event.ready:
            return _enter(replace(state, ready=True, heartbeat_ns=now_ns), Actual.RUNNING, now_ns), ()
        return state, ()
    if event.ready != state.ready:
        state = replace(state, ready=event.ready)
    silent = now_ns - state.heartbeat_ns
    if state.policy.heartbeat_ns and silent > state.policy.heartbeat_ns:
        return _hang(state, f"no heartbeat for {silent // MS} ms", now_ns)
    return state, ()


def _hang(state: State, reason: str, now_ns: int) -> Step:
    """A hang counts as a crash; the restart follows from its death."""
    return _kill(replace(state, hung=True, last_end=reason), signal.SIGKILL, reason, now_ns)


def _on_died(state: State, event: Died, now_ns: int) -> Step:
    if not state.pid or event.pid != state.pid:
        return state, ()
    words = end_in_words(event.code)
    hung = state.hung and state.wanted is Wanted.UP
    state = replace(state, pid=0, ready=False, hung=False)
    if hung:
        return _crashed(state, state.last_end, now_ns)
    state = replace(state, last_end=words)
    if state.actual is Actual.STOPPING:
        return _after_stop(state, now_ns)
    if event.code == 0 and event.finished:
        return _enter(state, Actual.EXITED, now_ns), ()
    if state.wanted is Wanted.DOWN:
        return _enter(state, Actual.STOPPED, now_ns), ()
    return _crashed(state, words, now_ns)


def _after_stop(state: State, now_ns: int) -> Step:
    if state.wanted is Wanted.UP:
        return _spawn(state, now_ns)
    return _enter(state, Actual.STOPPED, now_ns), ()


def _crashed(state: State, reason: str, now_ns: int) -> Step:
    policy = state.policy
    crashes = (*(t for t in state.crashes if now_ns - t < policy.window_ns), now_ns)
    state = replace(state, pid=0, ready=False, crashes=crashes, crash_count=state.crash_count + 1, last_end=reason)
    if len(crashes) > policy.max_restarts:
        text = f"{state.name} ended {len(crashes)} times within {policy.window_ns / 1e9:g} s, last by {reason}"
        return _enter(state, Actual.FATAL, now_ns), (Trip(state.name, text),)
    delay = backoff_ns(state, len(crashes))
    if delay == 0:
        return _spawn(state, now_ns)
    return _enter(state, Actual.BACKOFF, now_ns, now_ns + delay), ()


def _on_stop(state: State, now_ns: int) -> Step:
    state = replace(state, wanted=Wanted.DOWN)
    match state.actual:
        case Actual.STARTING | Actual.RUNNING if state.pid:
            return _kill(state, signal.SIGTERM, "stop", now_ns)
        case Actual.STARTING if state.deadline_ns:  # asked for: the answer names the process to kill
            return _enter(state, Actual.STOPPING, now_ns, state.deadline_ns), ()
        case Actual.STARTING | Actual.BACKOFF:
            return _enter(state, Actual.STOPPED, now_ns), ()
        case _:
            return state, ()


def _on_restart(state: State, now_ns: int) -> Step:
    state = replace(state, wanted=Wanted.UP, crashes=())
    match state.actual:
        case Actual.RUNNING | Actual.STARTING if state.pid:
            return _kill(state, signal.SIGTERM, "restart", now_ns)
        case Actual.STOPPED | Actual.BACKOFF | Actual.FATAL:
            return _spawn(state, now_ns)
        case _:
            return state, ()  # EXITED has nothing left to do; STARTING and STOPPING come up by themselves


def _on_tick(state: State, now_ns: int) -> Step:
    if not state.deadline_ns or now_ns < state.deadline_ns:
        return state, ()
    match state.actual:
        case Actual.BACKOFF:
            return _spawn(state, now_ns)
        case Actual.STARTING if state.pid:
            return _hang(state, f"no readiness within {(now_ns - state.since_ns) // MS} ms", now_ns)
        case Actual.STARTING:
            failed, actions = _crashed(state, "no answer to the spawn request", now_ns)
            return failed, (Abandon(state.name, state.incarnation), *actions)
        case Actual.STOPPING if state.pid:
            return _kill(state, signal.SIGKILL, f"still there {state.policy.term_ns // MS} ms after SIGTERM", now_ns)
        case Actual.STOPPING:
            stopped, actions = _after_stop(state, now_ns)
            return stopped, (Abandon(state.name, state.incarnation), *actions)
        case _:
            return replace(state, deadline_ns=0), ()
