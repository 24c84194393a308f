"""When a signal-opened position is closed: the initial stop and the time exit.

A symbol has one net position, made of two parts: the *leg* (what signals opened: the sum of ENTRY and EXIT fills) and
the quote inventory (the rest). Exits apply to the leg alone. The stop stands a fixed distance from the leg's average entry
and is compared with the mid: the touch would set it off by a wide spread alone, before the market has moved.

A reason to exit is latched until the leg is closed: a stop that was hit is not taken back when the price returns.

What this module is not: it sends no order, and it is not a trailing stop or a target.
"""

from __future__ import annotations

import math
from typing import Any, Final

from trading.jit import Recs, kernel
from trading.records import Purpose
from trading.settings import Strategy

LEG_FIELDS: Final = (
    ("leg_lots", "i8"),  # signed
    ("leg_entry_lots", "i8"),  # entered since the leg was last flat ...
    ("leg_entry_value", "f8"),  # ... and its sum of ticks * lots (a price, no money), which need not fit an int64
    ("leg_opened_ns", "i8"),
    ("leg_closed_ns", "i8"),
    ("stop_ticks", "i8"),
    ("stop_distance", "f8"),  # ticks, of the last entry
    ("exit_purpose", "i8"),  # latched Purpose, 0: none is due
)

EXIT_PARAMS: Final = (("max_hold_ns", "i8"),)


def set_params(p: Any, strategy: Strategy) -> None:
    """Put EXIT_PARAMS of a strategy into a RISK_PARAMS record."""
    p["max_hold_ns"] = round(strategy.execution.max_hold_minutes * 60e9)


@kernel
def close_leg(state: Recs, s: int, lots: int, ts_ns: int) -> None:
    """`lots` of the leg are closed (an EXIT filled, or it was netted against quote inventory)."""
    st = state[s]
    if st.leg_lots > 0:
        st.leg_lots = max(st.leg_lots - lots, 0)
    else:
        st.leg_lots = min(st.leg_lots + lots, 0)
    if st.leg_lots == 0:
        st.exit_purpose = 0
        st.leg_closed_ns = ts_ns


@kernel
def enter_leg(state: Recs, s: int, side: int, price_ticks: int, lots: int, ts_ns: int) -> None:
    """An ENTRY filled: add it to the leg and put the stop where the average entry says."""
    st = state[s]
    if st.leg_lots * side < 0:  # a late fill of an entry on the other side: it closes first
        closing = min(lots, abs(st.leg_lots))
        close_leg(state, s, closing, ts_ns)
        lots -= closing
        if lots == 0:
            return
    if st.leg_lots == 0:
        st.leg_opened_ns, st.leg_entry_lots, st.leg_entry_value = ts_ns, 0, 0.0
    st.leg_lots += side * lots
    st.leg_entry_lots += lots
    st.leg_entry_value += float(price_ticks) * float(lots)
    average = st.leg_entry_value / float(st.leg_entry_lots)
    if side > 0:
        st.stop_ticks = int(math.floor(average - st.stop_distance))
    else:
        st.stop_ticks = int(math.ceil(average + st.stop_distance))


@kernel
def due(state: Recs, s: int, ts_ns: int, params: Recs) -> int:
    """Purpose of the exit that is due now, NONE if none. Needs a valid book in the state."""
    st = state[s]
    if st.exit_purpose != 0 or st.leg_lots == 0:
        return st.exit_purpose
    twice_mid = st.bid_ticks[0] + st.ask_ticks[0]
    if (st.leg_lots > 0 and twice_mid <= 2 * st.stop_ticks) or (st.leg_lots < 0 and twice_mid >= 2 * st.stop_ticks):
        return Purpose.EXIT_STOP
    if ts_ns - st.leg_opened_ns >= params[0].max_hold_ns:
        return Purpose.EXIT_TIME
    return Purpose.NONE
