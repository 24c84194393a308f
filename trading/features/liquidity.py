"""What the book in the state offers: pressure, depth near the mid, its slope, and how fast it refills after a sweep.

All of it as far as LEVELS levels a side tell: depth "within 25 bps" is what the carried levels hold there.

What this module is not: it does not know the full book.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.features.bars import Fields, Rec
from trading.jit import Recs, lean
from trading.records import LEVELS
from trading.settings import Features

PRESSURE_TICKS: Final = 1024
"""Levels further behind the best than this weigh nothing in the pressure."""

SWEPT: Final = 0.5
"""A side is swept when it holds less than this share of its average (half of both sides' average depth) ..."""

REFILLED: Final = 0.9
"""... and has refilled when it holds this share again."""

DEPTH_BPS: Final = (5.0, 10.0, 25.0)

REFILL_KEEP: Final = 0.5 ** (1.0 / 20.0)
WARM_REFILLS: Final = 5

FIELDS: Final[Fields] = (
    ("sweep_ns", "i8", 2),  # when a side was swept; 0: it stands
    ("refills", "i8"),
    ("refill_sum", "f8"),  # seconds
    ("refill_weight", "f8"),
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("pressure_weight", "f8", PRESSURE_TICKS),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["pressure_weight"] = np.exp(-f.pressure_decay * np.arange(PRESSURE_TICKS))


@lean
def _side_refill(s: Rec, side: int, lots: float, average: float, ts_ns: int) -> None:
    """`lots` and `average` in the same unit, whichever."""
    if s.sweep_ns[side] == 0:
        if lots < SWEPT * average:
            s.sweep_ns[side] = ts_ns
    elif lots >= REFILLED * average:
        s.refill_sum = s.refill_sum * REFILL_KEEP + (1.0 - REFILL_KEEP) * 1e-9 * (ts_ns - s.sweep_ns[side])
        s.refill_weight = s.refill_weight * REFILL_KEEP + (1.0 - REFILL_KEEP)
        s.refills += 1
        s.sweep_ns[side] = 0


@lean
def take_refill(s: Rec, p: Rec, ts_ns: int) -> None:
    """After a book change: note sweeps and refills of both sides."""
    if s.book_changes < p.warm_book:
        return
    average = 0.5 * s.depth_sum
    _side_refill(s, 0, s.bids * s.book_weight, average, ts_ns)
    _side_refill(s, 1, s.asks * s.book_weight, average, ts_ns)


@lean
def pressure(s: Rec, p: Rec) -> float:
    """Bid-ask pressure `(B - A)/(B + A)` of depth weighted by `exp(-k |p - mid|)`, p in ticks.

    Distances are measured from each side's best: half the spread is common to both and falls out of the quotient.
    """
    bids = asks = 0.0
    best_bid, best_ask = s.bid_ticks[0], s.ask_ticks[0]
    # looked up always and then chosen, for how far levels lie apart is not to be predicted; a missing level has no lots
    for k in range(LEVELS):
        behind = best_bid - s.bid_ticks[k]
        weighted = p.pressure_weight[behind & (PRESSURE_TICKS - 1)] * s.bid_lots[k]
        bids += weighted if behind < PRESSURE_TICKS else 0.0
        behind = s.ask_ticks[k] - best_ask
        weighted = p.pressure_weight[behind & (PRESSURE_TICKS - 1)] * s.ask_lots[k]
        asks += weighted if behind < PRESSURE_TICKS else 0.0
    return (bids - asks) / (bids + asks)


@lean
def _depth_within(s: Rec, bps: float) -> float:
    """Lots of both sides at most this far from the mid."""
    room = 2e-4 * bps * s.mid
    twice = s.twice_mid
    lots = 0
    for k in range(LEVELS):
        lots += s.bid_lots[k] if twice - 2 * s.bid_ticks[k] <= room else 0
        lots += s.ask_lots[k] if 2 * s.ask_ticks[k] - twice <= room else 0
    return float(lots)


@lean
def depths(s: Rec) -> tuple[float, float, float, float]:
    """(lots of both sides within each of DEPTH_BPS of the mid, and the depth's slope).

    The slope is lots per bps from the mid to the farthest level carried, the mean of the two sides.
    """
    twice = s.twice_mid
    bids = asks = farthest = 0
    bid, ask = s.bid_ticks[0], s.ask_ticks[0]
    for k in range(LEVELS):
        lots, ticks = s.bid_lots[k], s.bid_ticks[k]
        bids += lots
        bid = ticks if lots > 0 else bid
        farthest = max(farthest, twice - 2 * ticks if lots > 0 else 0)
        lots, ticks = s.ask_lots[k], s.ask_ticks[k]
        asks += lots
        ask = ticks if lots > 0 else ask
        farthest = max(farthest, 2 * ticks - twice if lots > 0 else 0)
    slope = 0.5e-4 * s.mid * (bids / (s.mid - bid) + asks / (ask - s.mid))
    if farthest <= 2e-4 * DEPTH_BPS[0] * s.mid:  # where ticks are fine: all that is carried is near
        all_lots = float(bids + asks)
        return all_lots, all_lots, all_lots, slope
    return _depth_within(s, DEPTH_BPS[0]), _depth_within(s, DEPTH_BPS[1]), _depth_within(s, DEPTH_BPS[2]), slope


@lean
def top_imbalance(s: Rec) -> float:
    """`(qb - qa)/(qb + qa)` at the best."""
    return float(s.bid_lots[0] - s.ask_lots[0]) / float(s.bid_lots[0] + s.ask_lots[0])
