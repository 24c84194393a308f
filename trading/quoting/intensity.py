"""How often, and how deep, prints reach into the book: A and k of `rate(d) = A exp(-k d)`, a side each, as they are now.

A sweep is what one aggressor took: prints of one side at one time of the venue. It counts where it reaches the distance h: that
of the best price as it was before, or of the first price at least `beyond` from the mid. Its depth is how many whole ticks it
went beyond that. Depths are geometric where the rate is exponential, so the likelihood is greatest at

    k = ln(1 + sweeps/depth)                     depth: the sum of all sweeps' depths, ticks
    A = sweeps/seconds * exp(k h)                h: its mean over the same time, ticks

with the errors `e = (1 - e^-k)/sqrt(sweeps e^-k)` of k and `A sqrt(1/sweeps + (h e)^2)` of A. Sweeps and seconds lose half of
their weight in `half_life_s`. One distance alone says nothing of k: until BEYOND sweeps a side went deeper there is no fit.
Most prints take the touch and no more, so a fit from there says little of quotes that stand deeper: `beyond` leaves them out.

What this module is not: it makes no quote.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from trading.features.bars import Fields, Rec
from trading.jit import lean
from trading.records import Flag, Kind

BEYOND: Final = 10.0
"""Sweeps of a side that went beyond h, by their weight, before a fit is one."""

FIELDS: Final[Fields] = (
    ("sweep_side", "i8"),  # 0: the bid is hit, 1: the ask; -1: there is none
    ("sweep_at_ns", "i8"),  # the venue's time of it
    ("sweep_depth", "i8"),  # ticks beyond where it counts; below 0: it does not
    ("sweep_from", "i8"),  # the price at which it counts
    ("seen_to_ns", "i8"),  # up to when time was counted; 0: nothing is being seen
    ("new_s", "f8"),  # seconds since sums were last aged
    ("new_h", "f8"),  # h times these seconds
    ("seen_s", "f8"),  # aged sums: seconds
    ("seen_h", "f8"),  # h times seconds
    ("sweeps", "f8", 2),  # by side
    ("beyond", "f8", 2),  # of them those that went deeper than h
    ("depth", "f8", 2),  # ticks of all of them
)
"""What is kept per symbol."""

_SELL: Final = int(Flag.AGGRESSOR_SELL)


@lean
def start(s: Rec) -> None:
    """Put the fields of a zeroed state record into their start state."""
    s.sweep_side = -1


@lean
def _pass_time(s: Rec, ts_ns: int, h: float) -> None:
    if s.seen_to_ns > 0 and ts_ns > s.seen_to_ns:
        seconds = (ts_ns - s.seen_to_ns) * 1e-9
        s.new_s += seconds
        s.new_h += seconds * h
    s.seen_to_ns = max(s.seen_to_ns, ts_ns)


@lean
def _age(s: Rec, half_life_s: float) -> None:
    kept = 0.5 ** (s.new_s / half_life_s) if half_life_s > 0.0 else 1.0
    s.seen_s = s.seen_s * kept + s.new_s
    s.seen_h = s.seen_h * kept + s.new_h
    for side in range(2):
        s.sweeps[side] *= kept
        s.beyond[side] *= kept
        s.depth[side] *= kept
    s.new_s = s.new_h = 0.0


@lean
def close_sweep(s: Rec, half_life_s: float) -> int:
    """Count the sweep that is open; returns its depth in ticks, -1 where none was that counts."""
    side = s.sweep_side
    s.sweep_side = -1
    if side < 0 or s.sweep_depth < 0:
        return -1
    _age(s, half_life_s)
    s.sweeps[side] += 1.0
    s.depth[side] += s.sweep_depth
    if s.sweep_depth > 0:
        s.beyond[side] += 1.0
    return int(s.sweep_depth)


@lean
def interrupt(s: Rec) -> None:
    """The book is not usable: no time passes, and the open sweep is not known to be whole."""
    s.sweep_side = -1
    s.seen_to_ns = 0


@lean
def on_record(s: Rec, rec: Rec, best_bid: int, best_ask: int, beyond: float, half_life_s: float) -> int:
    """Take a market record with a usable book; `best_*`: ticks as they were before it, 0 where they were not usable.

    `beyond`: distance from the mid in ticks; `half_life_s` 0: nothing is aged. Returns the depth of the sweep that this record
    ends, -1 where it ends none that counts.
    """
    if best_bid <= 0:
        interrupt(s)
        s.seen_to_ns = rec.ts_ns
        return -1
    half = 0.5 * (best_ask - best_bid)
    more = int(math.ceil(max(0.0, beyond - half)))
    _pass_time(s, rec.ts_ns, half + more)
    if rec.kind != Kind.TRADE:
        return -1
    side = 0 if rec.flags & _SELL else 1
    ended = -1
    if s.sweep_side != side or s.sweep_at_ns != rec.ts_exchange_ns:
        ended = close_sweep(s, half_life_s)
        s.sweep_side, s.sweep_at_ns, s.sweep_depth = side, rec.ts_exchange_ns, -1
        s.sweep_from = best_bid - more if side == 0 else best_ask + more
        if more == 0:
            s.sweep_depth = 0  # a print took the touch, whatever the book said of its price
    depth = s.sweep_from - rec.price_ticks if side == 0 else rec.price_ticks - s.sweep_from
    s.sweep_depth = max(s.sweep_depth, depth)
    return ended


@lean
def is_fit(s: Rec, side: int, least: float) -> bool:
    """Whether enough sweeps of a side, `least` by their weight, and enough deep ones were seen."""
    return bool(s.sweeps[side] >= least and s.beyond[side] >= BEYOND and s.seen_s > 0.0)


@lean
def k_of(s: Rec, side: int) -> float:
    """k a tick; the side must be fit."""
    return math.log(1.0 + s.sweeps[side] / s.depth[side])


@lean
def a_of(s: Rec, side: int) -> float:
    """A a second; the side must be fit."""
    return s.sweeps[side] / s.seen_s * math.exp(k_of(s, side) * s.seen_h / s.seen_s)


@lean
def k_error(s: Rec, side: int) -> float:
    """Standard error of k: the likelihood of geometric depths (Cramer-Rao)."""
    p = math.exp(-k_of(s, side))
    return (1.0 - p) / math.sqrt(s.sweeps[side] * p)


@lean
def a_error(s: Rec, side: int) -> float:
    """Standard error of A: of the count of sweeps, and of k over the half spread."""
    of_k = s.seen_h / s.seen_s * k_error(s, side)
    return a_of(s, side) * math.sqrt(1.0 / s.sweeps[side] + of_k * of_k)


STATE: Final = np.dtype([*FIELDS], align=True)
"""The fields alone, for who looks at a recording without a quoter."""
