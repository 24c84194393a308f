"""Traded volume by price: the point of control, the value area, and where the price stands against them.

PROFILE_BINS bins of equal width in ticks (set by the first print: `profile_bin_bps` of its price); the window of
prices is centred anew when a print falls outside, and what it leaves is forgotten. A print outside from which the book's mid is
farther than half a window is an error or a deal made elsewhere: it is not counted, and moves nothing. A print's weight halves
every `profile_half_life_trades` prints: instead of shrinking all bins the weight of the next print grows, so the heaviest bin
can be kept without a search. The value area is grown from it to the heavier neighbour (the upper one of equals), once a second.

What this module is not: it is no session profile; it forgets by prints.
"""

from __future__ import annotations

from typing import Final

from trading.features.bars import Fields, Rec, keep_of
from trading.features.rolling_rank import MOST_GAIN
from trading.jit import Recs, lean
from trading.settings import Features

PROFILE_BINS: Final = 64

HALF: Final = PROFILE_BINS // 2
_MASK: Final = PROFILE_BINS - 1

FIELDS: Final[Fields] = (
    ("profile_width", "i8"),  # ticks a bin; 0: no print yet
    ("profile_low", "i8"),  # the lowest bin of the window
    ("profile_poc", "i8"),
    ("profile_gain", "f8"),  # weight of the next print
    ("profile_total", "f8"),
    ("profile_lots", "f8", PROFILE_BINS),
    ("value_low", "i8"),  # bins of the value area, at the last second
    ("value_high", "i8"),
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("profile_bin_bps", "f8"),
    ("profile_growth", "f8"),
    ("value_area", "f8"),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["profile_bin_bps"], p["value_area"] = f.profile_bin_bps, f.value_area
    p["profile_growth"] = 1.0 / keep_of(f.profile_half_life_trades)


@lean
def _find_control(s: Rec) -> None:
    """Search total and heaviest bin (the lowest of equals)."""
    s.profile_total = 0.0
    s.profile_poc = s.profile_low
    for b in range(s.profile_low, s.profile_low + PROFILE_BINS):
        lots = s.profile_lots[b & _MASK]
        s.profile_total += lots
        if lots > s.profile_lots[s.profile_poc & _MASK]:
            s.profile_poc = b


@lean
def _centre(s: Rec, at: int) -> None:
    """Move the window so that bin `at` is in its middle."""
    low = max(0, at - HALF)
    old = s.profile_low
    for b in range(old, old + PROFILE_BINS):
        if b < low or b >= low + PROFILE_BINS:
            s.profile_lots[b & _MASK] = 0.0
    s.profile_low = low
    s.value_low = min(max(s.value_low, low), low + PROFILE_BINS - 1)
    s.value_high = min(max(s.value_high, low), low + PROFILE_BINS - 1)
    _find_control(s)


@lean
def take(s: Rec, p: Rec, price: int, lots: int) -> None:
    """Add a print; `s.mid` is the book's before it, 0 where none is known."""
    if s.profile_width == 0:
        s.profile_width = max(1, int(1e-4 * p.profile_bin_bps * price))
        s.profile_gain = 1.0
        s.profile_poc = price // s.profile_width
        s.profile_low = max(0, s.profile_poc - HALF)
        s.value_low = s.value_high = s.profile_poc
    at = price // s.profile_width
    if at < s.profile_low or at >= s.profile_low + PROFILE_BINS:
        if s.mid > 0.0 and abs(at - int(s.mid) // s.profile_width) > HALF:
            return
        _centre(s, at)
    if s.profile_gain > MOST_GAIN:
        for b in range(PROFILE_BINS):
            s.profile_lots[b] *= 1.0 / s.profile_gain
        s.profile_total *= 1.0 / s.profile_gain
        s.profile_gain = 1.0
    weight = s.profile_gain * lots
    s.profile_lots[at & _MASK] += weight
    s.profile_total += weight
    s.profile_gain *= p.profile_growth
    if s.profile_lots[at & _MASK] > s.profile_lots[s.profile_poc & _MASK]:
        s.profile_poc = at


@lean
def find_value_area(s: Rec, p: Rec) -> None:
    """Grow the value area from the point of control until it holds `value_area` of the volume."""
    if s.profile_width == 0:
        return
    low = high = s.profile_poc
    held = s.profile_lots[low & _MASK]
    wanted = p.value_area * s.profile_total
    last = s.profile_low + PROFILE_BINS - 1
    while held < wanted and (low > s.profile_low or high < last):
        above = s.profile_lots[(high + 1) & _MASK] if high < last else -1.0
        below = s.profile_lots[(low - 1) & _MASK] if low > s.profile_low else -1.0
        if above >= below:
            high += 1
            held += above
        else:
            low -= 1
            held += below
    s.value_low, s.value_high = low, high


@lean
def control_price(s: Rec) -> float:
    """Middle of the heaviest bin, ticks."""
    return s.profile_width * s.profile_poc + 0.5 * (s.profile_width - 1)


@lean
def value_score(s: Rec, mid: float) -> float:
    """Where the mid stands: 0 at the point of control, -1 and 1 at the value area's edges and beyond."""
    gap = mid - control_price(s)
    if gap >= 0.0:
        room = s.profile_width * (s.value_high + 1) - 0.5 - control_price(s)
        return min(1.0, gap / room) if room > 0.0 else 1.0
    room = control_price(s) - (s.profile_width * s.value_low - 0.5)
    return max(-1.0, gap / room) if room > 0.0 else -1.0
