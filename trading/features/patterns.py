"""Price-action patterns on bars of mid: which ones the bar that closed last completes, and what they ask for.

What this module is not: it keeps no bars; `trading.features.bar_signals` passes them in.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

from trading.jit import lean


class Pattern(IntFlag):
    """Bits of `patterns` in the signal record."""

    NONE = 0
    ENGULFING_UP = 1  # a body that covers the opposite one before it
    ENGULFING_DOWN = 2
    PIN_UP = 4  # at least two thirds of the range are the wick below
    PIN_DOWN = 8
    INSIDE = 16  # within the range before it: no side of its own
    THRUST_UP = 32  # three closes in a row beyond the one before, each bar its own way
    THRUST_DOWN = 64
    BREAKOUT_UP = 128  # closed beyond the range of the last `pattern_bars`
    BREAKOUT_DOWN = 256


BODY_WEIGHT: Final = 0.5
BREAKOUT_WEIGHT: Final = 0.75

_ENG_UP, _ENG_DOWN, _PIN_UP, _PIN_DOWN = 1, 2, 4, 8
_INSIDE, _THRUST_UP, _THRUST_DOWN, _OUT_UP, _OUT_DOWN = 16, 32, 64, 128, 256


@lean
def of_bar(open_: float, high: float, low: float, close: float) -> int:
    """Patterns that one bar makes."""
    size = high - low
    if size <= 0.0 or 3.0 * abs(close - open_) > size:
        return 0
    bits = 0
    if 3.0 * (min(open_, close) - low) >= 2.0 * size:
        bits |= _PIN_UP
    if 3.0 * (high - max(open_, close)) >= 2.0 * size:
        bits |= _PIN_DOWN
    return bits


@lean
def of_two(
    open_1: float, high_1: float, low_1: float, close_1: float, open_: float, high: float, low: float, close: float
) -> int:
    """Patterns that a bar makes with the one before it (`_1`)."""
    bits = 0
    if close_1 < open_1 and close > open_1 and open_ <= close_1:
        bits |= _ENG_UP
    if close_1 > open_1 and close < open_1 and open_ >= close_1:
        bits |= _ENG_DOWN
    if high <= high_1 and low >= low_1 and high - low < high_1 - low_1:
        bits |= _INSIDE
    return bits


@lean
def of_three(open_2: float, close_2: float, open_1: float, close_1: float, open_: float, close: float) -> int:
    """Three-bar thrusts."""
    if close_2 > open_2 and close_1 > open_1 and close > open_ and close > close_1 and close_1 > close_2:
        return _THRUST_UP
    if close_2 < open_2 and close_1 < open_1 and close < open_ and close < close_1 and close_1 < close_2:
        return _THRUST_DOWN
    return 0


@lean
def breakout(close: float, highest: float, lowest: float) -> int:
    """A close beyond the range of the bars before."""
    if close > highest:
        return _OUT_UP
    return _OUT_DOWN if close < lowest else 0


@lean
def strength(bits: int) -> float:
    """Sum of what the patterns ask for, in [-1, 1]: half for a shape, three quarters for a break-out."""
    total = 0.0
    if bits & (_ENG_UP | _PIN_UP | _THRUST_UP | _OUT_UP):
        total += BODY_WEIGHT * (((bits & _ENG_UP) != 0) + ((bits & _PIN_UP) != 0) + ((bits & _THRUST_UP) != 0))
        total += BREAKOUT_WEIGHT * ((bits & _OUT_UP) != 0)
    if bits & (_ENG_DOWN | _PIN_DOWN | _THRUST_DOWN | _OUT_DOWN):
        total -= BODY_WEIGHT * (((bits & _ENG_DOWN) != 0) + ((bits & _PIN_DOWN) != 0) + ((bits & _THRUST_DOWN) != 0))
        total -= BREAKOUT_WEIGHT * ((bits & _OUT_DOWN) != 0)
    return min(1.0, max(-1.0, total))


def names(bits: int) -> list[str]:
    """The patterns of a bit set in words: ["break-out up", "inside bar"]."""
    words = {Pattern.INSIDE: "inside bar", Pattern.BREAKOUT_UP: "break-out up", Pattern.BREAKOUT_DOWN: "break-out down"}
    return [words.get(p, p.name.lower().replace("_", " ")) for p in Pattern if p and p.name and bits & p]
