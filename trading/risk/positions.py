"""From fills to position, cash, fees and profit, in exact integers.

Money is in 1e-8 of the quote currency. The open position carries its cost (the notional at which it was opened); closing
a part releases the same part of the cost, rounded down, so that at every moment, exactly,

    realised_e8 - sign(position) * cost_e8 == -(sum of side * notional of all fills)

and nothing is lost to rounding. `cash_e8` is that sum less fees. Equity of a symbol is cash plus the position at the mid.

What this module is not: it knows no order, no limit, and takes each fill once (trading.orders.fills tells repeats apart).
"""

from __future__ import annotations

from typing import Any, Final

from trading.instruments import mul_div, notional_e8, times
from trading.jit import Recs, kernel
from trading.orders.fills import TRADE_WINDOW
from trading.ranges import SATURATED

POSITION_FIELDS: Final = (
    ("position_lots", "i8"),  # signed
    ("cost_e8", "i8"),  # notional at which the open position was entered, >= 0
    ("realised_e8", "i8"),  # before fees
    ("unrealised_e8", "i8"),  # at the last mark
    ("fees_e8", "i8"),
    ("cash_e8", "i8"),  # since the start, fees included
    ("equity_e8", "i8"),  # cash_e8 + value of the position at the last mark
    ("turnover_e8", "i8"),  # stays at SATURATED once it is there
    ("n_fills", "i8"),
    ("trades", TRADE_WINDOW, 1),
)
"""Fields of a per-symbol state record that the kernels below use."""


@kernel
def apply_fill(state: Recs, instruments: Recs, rec: Any) -> None:
    """Take the fill of a REPORT_RECORD into its symbol: `last_lots` (> 0) at `last_ticks`; a `fee_e8` below 0 is a rebate."""
    s, side, price_ticks, lots = rec.symbol, rec.side, rec.last_ticks, rec.last_lots
    p = state[s]
    value = notional_e8(instruments, s, price_ticks, lots)
    held = abs(p.position_lots)
    closing = 0
    if p.position_lots * side < 0:
        closing = min(lots, held)
        close_value = value if closing == lots else notional_e8(instruments, s, price_ticks, closing)
        released = p.cost_e8 if closing == held else mul_div(p.cost_e8, closing, held)
        p.realised_e8 += -side * (close_value - released)
        p.cost_e8 -= released
        value_left = value - close_value
    else:
        value_left = value
    if lots > closing:
        p.cost_e8 += value_left
    p.position_lots += side * lots
    p.cash_e8 -= side * value + rec.fee_e8
    p.fees_e8 += rec.fee_e8
    p.turnover_e8 = min(p.turnover_e8, SATURATED - value) + value
    p.n_fills += 1


@kernel
def mark(state: Recs, s: int, instruments: Recs, bid_ticks: int, ask_ticks: int) -> int:
    """Value symbol `s` at the mid of bid and ask; returns how much its equity changed (1e-8 of the quote currency)."""
    p = state[s]
    it = instruments[s]
    value = times(mul_div(bid_ticks + ask_ticks, p.position_lots, 2 * it.notional_div), it.notional_mul)
    before = p.equity_e8
    p.equity_e8 = p.cash_e8 + value
    cost = p.cost_e8 if p.position_lots >= 0 else -p.cost_e8
    p.unrealised_e8 = value - cost
    return p.equity_e8 - before


@kernel
def average_entry_ticks(state: Recs, s: int, instruments: Recs) -> float:
    """Average entry price of the open position in ticks, 0.0 when flat. For people and reports; nothing decides on it."""
    p = state[s]
    if p.position_lots == 0:
        return 0.0
    it = instruments[s]
    return float(p.cost_e8) * float(it.notional_div) / float(it.notional_mul) / float(abs(p.position_lots))
