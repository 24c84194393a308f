"""How often we may: the limits of rate that outsiders set us, and the pauses after failures.

    SlidingWindow    at most so many within any window of time: what a venue counts by, where a ban follows
    Pace             evenly, with a burst at most: where messages are only to be spread, or somebody waits for his turn
    backoff          how long to wait after the nth failure in a row

Time is an argument everywhere, so that every rule is a line in a test. What this module is not: it waits for nothing and keeps
no file; who may not act now is told how long not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
MOST_DOUBLINGS: Final = 40


def backoff(failures: int, least: float, most: float, draw: float = 1.0) -> float:
    """The pause after this many failures in a row (from 1), in the unit of `least` and `most`: it doubles from one to the other.

    draw: 0 to 1, of a random half: with 1 all of the pause is waited, with less up to a half is taken off, so that what failed
    together does not come back together.
    """
    longest = min(least * 2.0 ** min(max(failures - 1, 0), MOST_DOUBLINGS), most)
    return longest * (0.5 + 0.5 * draw)


class SlidingWindow:
    """At most `limit` units within any `window_ns`. Units are counted when they are taken, whatever came of them."""

    def __init__(self, limit: int, window_ns: int) -> None:
        if limit < 1 or window_ns < 1:
            raise ValueError(f"a budget of {limit} within {window_ns} ns: both must be at least 1")
        self.limit: Final = limit
        self.window_ns: Final = window_ns
        self._taken: deque[tuple[int, int]] = deque()
        self._sum = 0

    def used(self, now_ns: int) -> int:
        """Units within the window that ends now."""
        while self._taken and self._taken[0][0] <= now_ns - self.window_ns:
            self._sum -= self._taken.popleft()[1]
        return self._sum

    def wait_ns(self, now_ns: int, units: int = 1) -> int:
        """How long until `units` may be taken; 0: now. More than the whole limit is let through when the window is empty."""
        left = self.used(now_ns) + min(units, self.limit) - self.limit
        if left <= 0:
            return 0
        for at, count in self._taken:
            left -= count
            if left <= 0:
                return at + self.window_ns - now_ns
        return self.window_ns

    def take(self, now_ns: int, units: int = 1) -> None:
        """Count `units`; the caller has asked `wait_ns`."""
        self.used(now_ns)
        self._taken.append((now_ns, units))
        self._sum += units

    def times(self) -> list[int]:
        """When units were taken, oldest first."""
        return [at for at, _ in self._taken]

    def entries(self) -> list[tuple[int, int]]:
        """(when, units) of what was taken, oldest first."""
        return list(self._taken)

    def replace(self, entries: Iterable[tuple[int, int]]) -> None:
        """These, in the order of their times, are what was taken."""
        self._taken = deque(entries)
        self._sum = sum(units for _, units in self._taken)


class Pace:
    """A unit every `gap_ns`, `burst` of them at once. The generic cell rate algorithm: one number is all its state."""

    def __init__(self, gap_ns: float, burst: float = 1) -> None:
        self.gap_ns: Final = gap_ns
        self._burst_ns: Final = burst * gap_ns
        self._paid_ns: float = 0  # the time by which all that was taken is earned

    def wait_ns(self, now_ns: int, units: float = 1) -> float:
        """How long until `units` may be taken; 0: now. More than a whole burst waits until everything is earned back."""
        room_ns = max(self._burst_ns - units * self.gap_ns, 0)
        return max(self._paid_ns - room_ns - now_ns, 0)

    def take(self, now_ns: int, units: float = 1) -> None:
        """Count `units`, also those whose wait is still to come: callers are served in the order in which they take."""
        self._paid_ns = max(self._paid_ns, now_ns) + units * self.gap_ns
