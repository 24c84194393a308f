"""How far the venue's clock is from ours: the estimate and how wrong it can be.

Two sources. A time request (as NTP does it): the venue's answer lies between our sending and our receiving, so

    offset = venue - (sent + received) / 2        |error| <= (received - sent) / 2

and of the last requests the one with the smallest error is believed. And the stream: a message cannot arrive before it was made,
so `event time - receive time` is never above the offset: the largest of a while is a lower bound, free of charge.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

SAMPLES: Final = 8
FLOOR_NS: Final = 120 * 1_000_000_000
"""How long a lower bound counts: clocks drift."""


@dataclass(frozen=True, slots=True)
class Offset:
    """Venue's clock minus ours, and its error bound, ns."""

    offset_ns: int
    error_ns: int
    at_ns: int


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
