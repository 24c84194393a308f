"""Two clocks: a session's own, and how far the venue's is from ours.

A session's time is the wall clock's, but it never goes back and never stands still, for everything in a session falls due by
it. A wall clock that is set forward takes the session with it (a machine that slept has missed that time). One that is set back
leaves the session ahead: its time then goes by one part in SLEW slower than CLOCK_MONOTONIC until the wall clock has caught up.

How far the venue's clock is from ours: the estimate and how wrong it can be. Two sources. A time request (as NTP does it): the
venue's answer lies between our sending and our receiving, so

    offset = venue - (sent + received) / 2        |error| <= (received - sent) / 2

and of the last requests the one with the smallest error is believed. And the stream: a message cannot arrive before it was made,
so `event time - receive time` is never above the offset: the largest of a while is a lower bound, free of charge.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

SLEW: Final = 16
STEP_NS: Final = 200_000_000
"""A wall clock that gains or loses this between two looks was set."""
SAMPLES: Final = 8
FLOOR_NS: Final = 120 * 1_000_000_000
"""How long a lower bound counts: clocks drift."""


@dataclass(frozen=True, slots=True)
class Offset:
    """Venue's clock minus ours, and its error bound, ns."""

    offset_ns: int
    error_ns: int
    at_ns: int


class SessionClock:
    """A session's time. Attributes: offset_ns, what it is ahead of CLOCK_MONOTONIC, 0 before the first look; steps: times that
    the wall clock was set, as far as we saw."""

    def __init__(self, offset_ns: int = 0, lead_ns: int = 0, steps: int = 0) -> None:
        """Where an earlier receiver of the session left off; `lead_ns`: what its last look answered."""
        self.offset_ns, self.steps = offset_ns, steps
        self._wall = offset_ns - lead_ns
        self._before: tuple[int, int] | None = None  # wall clock less CLOCK_MONOTONIC, and the latter, at the last look

    def look(self, wall_ns: int, mono_ns: int) -> tuple[int, int]:
        """What the session's time is ahead of the wall clock (ns, never negative), and how much that was set since the last look.

        Between two looks the time of the session is the wall clock's and that lead.
        """
        wall, begun = wall_ns - mono_ns, self.offset_ns != 0
        before, since = self._before if self._before is not None else (self._wall if begun else wall, mono_ns)
        self._before = wall, mono_ns
        stepped = wall - before if abs(wall - before) >= STEP_NS else 0
        self.steps += stepped != 0
        if wall >= self.offset_ns or not begun:
            self.offset_ns = wall
        else:
            self.offset_ns -= min(self.offset_ns - wall, max(mono_ns - since, 0) // SLEW)
        return self.offset_ns - wall, stepped


class ClockEstimate:
    """The estimate for one venue. All times Unix ns of our clock unless they are called the venue's."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self._samples: deque[Offset] = deque(maxlen=samples)
        self._floor: int | None = None
        self._floor_at = 0

    def answer(self, sent_ns: int, venue_ns: int, received_ns: int) -> None:
        """A time request was answered. One during which our own clock was set back is passed over."""
        if received_ns < sent_ns:
            return
        round_trip = received_ns - sent_ns
        self._samples.append(Offset(venue_ns - (sent_ns + round_trip // 2), (round_trip + 1) // 2, received_ns))

    def event(self, event_ns: int, received_ns: int) -> None:
        """A message of the stream: made at `event_ns` by the venue's clock, received at `received_ns` by ours."""
        floor = event_ns - received_ns
        if self._floor is None or floor >= self._floor or received_ns - self._floor_at > FLOOR_NS:
            self._floor, self._floor_at = floor, received_ns

    @property
    def best(self) -> Offset | None:
        """The answer with the smallest error among the last; None before the first."""
        return min(self._samples, key=lambda sample: (sample.error_ns, -sample.at_ns), default=None)

    @property
    def floor_ns(self) -> int | None:
        """The offset is at least this, by the stream; None before its first message."""
        return self._floor
