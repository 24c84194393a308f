"""What book changes say: averages of spread, depth and imbalance, order-flow imbalance at five levels, acceleration.

OFI (Cont, Kukanov, Stoikov, arXiv 1011.6402) of a level, lots:
`e = 1[Pb>=Pb']qb - 1[Pb<=Pb']qb' - 1[Pa<=Pa']qa + 1[Pa>=Pa']qa'`, primes before, summed over a window of whole
seconds. A side that has no such level counts as price 0 (bid) or beyond all prices (ask) with no lots.

What this module is not: it knows no clock; `trading.features.time_slots` says when a second has passed.
"""

from __future__ import annotations

import math
from typing import Final

from trading.features import signals
from trading.features.bars import Fields, Rec, keep_of
from trading.features.signals import Signal
from trading.jit import Recs, lean
from trading.records import LEVELS
from trading.settings import Features

FLOW_SLOTS: Final = 16
"""Slots of one second for OFI and aggressor flow; settings.Features.flow_window_s is bounded by it."""

MIN_CHANGE_NS: Final = 1_000_000
"""Two mid changes count as at least a millisecond apart: stamps are no finer in their meaning."""

NO_ASK: Final = 2**62

FIELDS: Final[Fields] = (
    ("book_changes", "i8"),
    ("book_weight", "f8"),  # of the two sums below
    ("spread_sum", "f8"),  # bps
    ("depth_sum", "f8"),  # lots of both sides
    ("imbalance_changes", "i8"),
    ("imbalance_weight", "f8"),
    ("imbalance_sum", "f8"),
    ("imbalance", "f8"),  # their quotient
    ("ofi_share", "f8"),  # best-quote OFI over the average depth
    ("ofi", "f8", LEVELS),  # lots over the window
    ("ofi_slots", "f8", FLOW_SLOTS * LEVELS),
    ("flow_signed", "f8"),  # aggressors' lots over the window
    ("flow_lots", "f8"),
    ("flow_signed_slots", "f8", FLOW_SLOTS),
    ("flow_lots_slots", "f8", FLOW_SLOTS),
    ("flow_imbalance", "f8"),
    ("flow_seconds", "i8"),  # seconds seen since the start or the last outage
    # accelerations
    ("velocity", "f8"),  # ticks a second between the last two mid changes
    ("acceleration", "f8"),  # in its own deviations
    ("changed_ns", "i8"),
    ("changed_twice_mid", "i8"),
    ("velocities", "i8"),  # since the book was last unusable
    ("accelerations", "i8"),
    ("acceleration_sum", "f8"),  # of squares
    ("acceleration_weight", "f8"),
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("keep_book", "f8"),
    ("warm_book", "i8"),
    ("keep_imbalance", "f8"),
    ("warm_imbalance", "i8"),
    ("imbalance_threshold", "f8"),
    ("spread_compression", "f8"),
    ("spread_expansion", "f8"),
    ("keep_acceleration", "f8"),
    ("warm_acceleration", "i8"),
    ("acceleration_threshold", "f8"),
    ("flow_slots", "i8"),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["keep_book"], p["warm_book"] = keep_of(f.spread_half_life), math.ceil(f.spread_half_life)
    p["keep_imbalance"], p["warm_imbalance"] = keep_of(f.imbalance_half_life), math.ceil(f.imbalance_half_life)
    p["imbalance_threshold"] = f.imbalance_threshold
    p["spread_compression"], p["spread_expansion"] = f.spread_compression, f.spread_expansion
    p["keep_acceleration"], p["warm_acceleration"] = keep_of(f.acceleration_half_life), math.ceil(f.acceleration_half_life)
    p["acceleration_threshold"], p["flow_slots"] = f.acceleration_threshold, f.flow_window_s


@lean
def take_changes(s: Rec, rec: Rec) -> None:
    """Add the OFI of a new book against the one in the state, level by level; the caller then reads the new one."""
    at = (s.second_index & (FLOW_SLOTS - 1)) * LEVELS
    for k in range(LEVELS):
        bid, old_bid = rec.bid_ticks[k], s.bid_ticks[k]
        ask, old_ask = rec.ask_ticks[k], s.ask_ticks[k]
        ask = ask if ask > 0 else NO_ASK
        old_ask = old_ask if old_ask > 0 else NO_ASK
        e = rec.bid_lots[k] if bid >= old_bid else 0
        e -= s.bid_lots[k] if bid <= old_bid else 0
        e -= rec.ask_lots[k] if ask <= old_ask else 0
        e += s.ask_lots[k] if ask >= old_ask else 0
        s.ofi_slots[at + k] += float(e)
        s.ofi[k] += float(e)


@lean
def take_book(s: Rec, p: Rec) -> None:
    """Feed the averages by book change with the book in the state, and the signals that they make."""
    total = float(s.bids + s.asks)
    keep = p.keep_book
    s.spread_sum = s.spread_sum * keep + (1.0 - keep) * s.spread_bps
    s.depth_sum = s.depth_sum * keep + (1.0 - keep) * total
    s.book_weight = s.book_weight * keep + (1.0 - keep)
    s.book_changes += 1
    keep = p.keep_imbalance
    s.imbalance_sum = s.imbalance_sum * keep + (1.0 - keep) * float(s.bids - s.asks) / total
    s.imbalance_weight = s.imbalance_weight * keep + (1.0 - keep)
    s.imbalance = s.imbalance_sum / s.imbalance_weight
    s.imbalance_changes += 1
    if s.imbalance_changes >= p.warm_imbalance:
        signals.say(s, Signal.BOOK_IMBALANCE, signals.book_imbalance(s.imbalance, p.imbalance_threshold))
    if s.book_changes >= p.warm_book:
        average = s.spread_sum / s.book_weight
        signals.say(s, Signal.SPREAD, signals.spread(s.spread_bps, average, p.spread_compression, p.spread_expansion))


@lean
def evaluate(s: Rec, p: Rec) -> None:
    """The order_flow signal, after a print, a book change or a second that ended."""
    if s.book_changes >= p.warm_book and s.flow_seconds >= p.flow_slots:
        s.ofi_share = s.ofi[0] * s.book_weight / s.depth_sum
        signals.say(s, Signal.ORDER_FLOW, signals.order_flow(s.ofi_share, s.flow_imbalance))


@lean
def take_aggressor(s: Rec, sign: int, lots: int) -> None:
    """Put a print into the window of aggressors' volume."""
    at = s.second_index & (FLOW_SLOTS - 1)
    size = float(lots)
    s.flow_signed_slots[at] += sign * size
    s.flow_lots_slots[at] += size
    s.flow_signed += sign * size
    s.flow_lots += size
    s.flow_imbalance = s.flow_signed / s.flow_lots
    s.second_signed += sign * size


@lean
def move_window(s: Rec, p: Rec, passed: int) -> None:
    """`passed` seconds have ended: clear those that begin, and add the window up anew."""
    for k in range(1, min(passed, FLOW_SLOTS) + 1):
        new = (s.second_index + k) & (FLOW_SLOTS - 1)
        for level in range(LEVELS):
            s.ofi_slots[new * LEVELS + level] = 0.0
        s.flow_signed_slots[new] = s.flow_lots_slots[new] = 0.0
    for level in range(LEVELS):
        s.ofi[level] = 0.0
    s.flow_signed = s.flow_lots = 0.0
    for k in range(p.flow_slots):
        at = (s.second_index + passed - k) & (FLOW_SLOTS - 1)
        for level in range(LEVELS):
            s.ofi[level] += s.ofi_slots[at * LEVELS + level]
        s.flow_signed += s.flow_signed_slots[at]
        s.flow_lots += s.flow_lots_slots[at]
    s.flow_seconds += passed
    s.flow_imbalance = s.flow_signed / s.flow_lots if s.flow_lots > 0.0 else 0.0


@lean
def take_mid(s: Rec, p: Rec, ts_ns: int) -> None:
    """Velocity and acceleration, if the mid in the state is another than at the last change."""
    move = s.twice_mid - s.changed_twice_mid
    if s.changed_ns == 0:
        s.changed_ns, s.changed_twice_mid, s.velocities = ts_ns, s.twice_mid, 0
        return
    if move == 0:
        return
    velocity = 0.5e9 * move / max(ts_ns - s.changed_ns, MIN_CHANGE_NS)
    if s.velocities > 0:
        change = velocity - s.velocity
        keep = p.keep_acceleration
        s.acceleration_sum = s.acceleration_sum * keep + (1.0 - keep) * change * change
        s.acceleration_weight = s.acceleration_weight * keep + (1.0 - keep)
        s.accelerations += 1
        s.acceleration = 0.0
        if s.acceleration_sum > 0.0:
            s.acceleration = change / math.sqrt(s.acceleration_sum / s.acceleration_weight)
        if s.accelerations >= p.warm_acceleration:
            signals.say(s, Signal.ACCELERATION, signals.acceleration(s.acceleration, p.acceleration_threshold))
    s.velocity = velocity
    s.velocities += 1
    s.changed_ns, s.changed_twice_mid = ts_ns, s.twice_mid


@lean
def interrupt(s: Rec) -> None:
    """The book is not usable: forget the averaged imbalance and the last moves of the mid; the spread waits for a change."""
    s.imbalance_sum = s.imbalance_weight = s.imbalance = 0.0
    s.imbalance_changes = s.changed_ns = s.velocities = 0
    signals.hush(s, Signal.BOOK_IMBALANCE)
    signals.hush(s, Signal.ACCELERATION)
    signals.hush(s, Signal.SPREAD)


@lean
def restart(s: Rec) -> None:
    """An outage is over: empty the windows of seconds."""
    for k in range(len(s.ofi_slots)):
        s.ofi_slots[k] = 0.0
    for k in range(FLOW_SLOTS):
        s.flow_signed_slots[k] = s.flow_lots_slots[k] = 0.0
    for level in range(LEVELS):
        s.ofi[level] = 0.0
    s.flow_signed = s.flow_lots = s.flow_imbalance = s.ofi_share = s.second_signed = 0.0
    s.flow_seconds = 0
    signals.hush(s, Signal.ORDER_FLOW)
