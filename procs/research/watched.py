"""A user's signal that does not come back is cut off in batch too: features over recordings and frames, test kit, backtest.

Compiled code cannot be interrupted, so what may call a user's is run by a thread of its own and watched through the guard
(trading.own_signals.guard). Where one call has used more processor time than any sound one could, that thread is left behind, put
to sleep for good, and the caller computes the same again, from a copy of the state before, with the signal stopped from that
record on: the same values as a pipeline gives, whose supervisor ends the process instead. Processor time, not time: a busy
machine is no endless loop.

Where no signal of the user's is named, nothing is watched and nothing costs.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from trading.own_signals.guard import RECORD, RUNNING, STOP_FROM, Health
from trading.scoring.batch import Pass
from trading.settings import Strategy

Found = TypeVar("Found")

LIMIT_S: Final = 2.0
"""Processor seconds of one call; a sound one takes less than a microsecond."""

LOOK_S: Final = 0.05
PARK: Final = signal.SIGRTMAX - 3
"""Puts a thread that was left behind to sleep."""


class Stuck(Exception):
    """A call of signal `k` at record `record` did not come back."""

    def __init__(self, k: int, record: int) -> None:
        super().__init__(f"signal {k} did not come back at record {record}")
        self.k, self.record = k, record


def watched(act: Callable[[], Found], guard: Any, limit_s: float = LIMIT_S) -> Found:
    """What `act` returns or raises; Stuck where one call of a user's signal has used `limit_s` processor seconds."""
    found: list[Found] = []
    raised: list[BaseException] = []
    clocks: list[int] = []

    def run() -> None:
        clocks.append(time.pthread_getcpuclockid(threading.get_ident()))  # from outside it may be gone already
        try:
            found.append(act())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="user's signals", daemon=True)
    thread.start()
    seen, used_before = (0, 0), 0.0
    while thread.is_alive():
        thread.join(LOOK_S)
        now = int(guard[RUNNING]), int(guard[RECORD])
        used = 0.0
        with contextlib.suppress(OSError, IndexError):  # it has just ended, or not begun
            used = time.clock_gettime(clocks[0])
        if now != seen or now[0] == 0:
            seen, used_before = now, used
        elif used - used_before > limit_s and thread.is_alive():
            _park(thread)
            raise Stuck(now[0] - 1, now[1])
    if raised:
        raise raised[0]
    return found[0]


def cut_off(
    begin: Callable[[], tuple[Any, Callable[[], Found]]], strategy: Strategy, stopped: Mapping[int, int] | None = None
) -> Found:
    """What comes of a run whose calls of a user's signals come back: one that does not is off from that record on.

    `begin` makes a run anew: its guard, and what does it. `stopped`: record by signal, of those that were cut off before.
    """
    stops = dict(stopped or {})
    while True:
        guard, act = begin()
        for k, record in stops.items():
            guard[STOP_FROM + k] = record
        if not strategy.signals.user:
            return act()
        try:
            return watched(act, guard)
        except Stuck as stuck:
            stops[stuck.k] = stuck.record


def _park(thread: threading.Thread) -> None:
    """Make the thread wait for ever: it would compute till the process ends, and nothing can end it alone.

    It is inside a user's compiled code, which neither holds the interpreter's lock nor asks for it.
    """
    libc = ctypes.CDLL(None)
    libc.signal(int(PARK), ctypes.cast(libc.pause, ctypes.c_void_p))  # its handler never returns
    with contextlib.suppress(OSError):
        signal.pthread_kill(thread.ident or 0, PARK)


class WatchedPass:
    """A Pass whose calls come back: a signal of the user's that does not is off from that record on, as in the pipeline."""

    def __init__(self, passed: Pass, limit_s: float = LIMIT_S) -> None:
        self.now = passed
        self._limit_s = limit_s

    def __call__(self, act: Callable[[Pass], Found]) -> Found:
        """What `act` makes of the pass; it may be asked again, with a copy."""
        if not self.now.user.settings:
            return act(self.now)
        while True:
            passed, before = self.now, self.now.twin()
            try:
                return watched(lambda passed=passed: act(passed), passed.guard, self._limit_s)  # type: ignore[misc]
            except Stuck as stuck:
                before.guard[STOP_FROM + stuck.k] = stuck.record
                self.now = before

    def health(self) -> dict[str, Health]:
        """What became of each of the user's signals, by name."""
        return self.now.health()
