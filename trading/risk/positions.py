"""From fills to position, cash, fees and profit, in exact integers.

Money is in 1e-8 of what the symbol is settled in: the quote currency, or the coin of an inverse contract, whose value
falls when the price rises. The open position carries its cost (the value at which it was opened); closing a part releases the
same part of the cost, rounded down, so that at every moment, exactly,

    realised_e8 - gain * sign(position) * cost_e8 == -gain * (sum of side * value of all fills)

with gain -1 for an inverse contract, else 1 (trading.instruments.gain_sign), and nothing is lost to rounding but each fill's own,
at most half of 1e-8. `cash_e8` is that sum less fees. Equity of a symbol is cash plus the position at the mid. Only `quoted_e8`,
the equity at the mid in the quote currency, may be added to other symbols'.

What this module is not: it knows no order, no limit, and takes each fill once (trading.orders.fills tells repeats apart).
"""

from __future__ import annotations

from typing import Any, Final

from trading.instruments import coin_e8, gain_sign, mul_div, notional_e8, quoted_e8, settled_e8, times
from trading.jit import Recs, kernel
from trading.orders.fills import TRADE_WINDOW
from trading.ranges import SATURATED

POSITION_FIELDS: Final = (
    ("position_lots", "i8"),  # signed
    ("cost_e8", "i8"),  # value at which the open position was entered, >= 0
    ("realised_e8", "i8"),  # before fees
    ("unrealised_e8", "i8"),  # at the last mark
    ("fees_e8", "i8"),
    ("cash_e8", "i8"),  # since the start, fees included
    ("equity_e8", "i8"),  # cash_e8 + value of the position at the last mark
    ("quoted_e8", "i8"),  # equity_e8 in the quote currency at the last mark
    ("twice_mark_ticks", "i8"),  # bid + ask at the last mark
    ("turnover_e8", "i8"),  # notional, in the quote currency; stays at SATURATED once it is there
    ("n_fills", "i8"),
    ("trades", TRADE_WINDOW, 1),
)
"""Fields of a per-symbol state record that the kernels below use."""


@kernel
def apply_fill(state: Recs, instruments: Recs, rec: Any) -> None:
    """Take the fill of a REPORT_RECORD into its symbol: `last_lots` (> 0) at `last_ticks`; a `fee_e8` below 0 is a rebate."""
    s, side, price_ticks, lots = rec.symbol, rec.side, rec.last_ticks, rec.last_lots
    p = state[s]
    value, gain = settled_e8(instruments, s, price_ticks, lots), gain_sign(instruments, s)
    held = abs(p.position_lots)
    closing = 0
    if p.position_lots * side < 0:
        closing = min(lots, held)
        close_value = value if closing == lots else settled_e8(instruments, s, price_ticks, closing)
        released = p.cost_e8 if closing == held else mul_div(p.cost_e8, closing, held)
        p.realised_e8 += -side * gain * (close_value - released)
        p.cost_e8 -= released
        value_left = value - close_value
    else:
        value_left = value
    if lots > closing:
        p.cost_e8 += value_left
    p.position_lots += side * lots
    p.cash_e8 -= side * gain * value + rec.fee_e8
    p.fees_e8 += rec.fee_e8
    notional = notional_e8(instruments, s, price_ticks, lots)
    p.turnover_e8 = min(p.turnover_e8, SATURATED - notional) + notional
    p.n_fills += 1


@kernel
def mark(state: Recs, s: int, instruments: Recs, bid_ticks: int, ask_ticks: int) -> int:
    """Value symbol `s` at the mid of bid and ask; returns how much its equity changed, in 1e-8 of the quote currency, the change
    of what its coins are worth included."""
    p = state[s]
    it = instruments[s]
    if bid_ticks > 0 and ask_ticks > 0:
        p.twice_mark_ticks = bid_ticks + ask_ticks
    if it.inverse == 0:
        value = times(mul_div(bid_ticks + ask_ticks, p.position_lots, 2 * it.notional_div), it.notional_mul)
        cost = p.cost_e8 if p.position_lots >= 0 else -p.cost_e8
    else:
        value = -coin_e8(instruments, s, p.twice_mark_ticks, 2, abs(p.position_lots))
        cost = -p.cost_e8
        if p.position_lots < 0:
            value, cost = -value, -cost
    before = p.quoted_e8
    p.equity_e8 = p.cash_e8 + value
    p.quoted_e8 = quoted_e8(instruments, s, p.equity_e8, p.twice_mark_ticks)
    p.unrealised_e8 = value - cost
    return p.quoted_e8 - before


@kernel
def average_entry_ticks(state: Recs, s: int, instruments: Recs) -> float:
    """Average entry price of the open position in ticks, 0.0 when flat. For people and reports; nothing decides on it."""
    p = state[s]
    if p.position_lots == 0:
        return 0.0
    it = instruments[s]
    if it.inverse != 0:
        return float(it.coin_mul) * float(abs(p.position_lots)) / (float(it.coin_div) * float(max(p.cost_e8, 1)))
    return float(p.cost_e8) * float(it.notional_div) / float(it.notional_mul) / float(abs(p.position_lots))
