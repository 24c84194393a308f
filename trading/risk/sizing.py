"""How much an entry may buy or sell: a fixed fraction of equity at risk, bounded by the limits.

Quantity = equity * base_risk_pct / 100 / stop distance, with stop distance = max(atr_stop_multiplier * ATR,
min_stop_bps of the mid) (FORMULAS, "Sizing and risk"); then no more than one order may be worth, no more than the position
limit has room for at worst, and rounded down to the venue's step.

What this module is not: it refuses nothing (trading.risk.limits does) and places no stop (trading.risk.exits does).
"""

from __future__ import annotations

from typing import Final

from trading.jit import Recs, kernel
from trading.risk.limits import value_ticks, worst_lots

SIZING_PARAMS: Final = (
    ("risk_share", "f8"),  # of equity, a trade
    ("atr_multiplier", "f8"),
    ("min_stop_share", "f8"),  # of the mid
)


@kernel
def stop_distance_ticks(params: Recs, mid_ticks: float, atr_ticks: float) -> float:
    """Distance from entry to the initial stop in ticks, at least 1."""
    p = params[0]
    return max(p.atr_multiplier * atr_ticks, p.min_stop_share * mid_ticks, 1.0)


@kernel
def lots_worth(instruments: Recs, s: int, price_ticks: int, value_e8: int) -> int:
    """Greatest quantity that is worth no more than `value_e8` at `price_ticks` (both > 0), rounded down to the step."""
    it = instruments[s]
    # floor twice: lots whose ticks * lots // div * mul cannot exceed value_e8
    lots = (value_e8 // it.notional_mul) * it.notional_div // price_ticks
    lots = min(lots, it.max_qty_lots)
    return max(lots - lots % it.step_lots, 0)


@kernel
def room_lots(state: Recs, params: Recs, instruments: Recs, s: int, side: int) -> int:
    """How much of `side` the position limit still has room for when all open orders of that side fill; >= 0."""
    limit = lots_worth(instruments, s, value_ticks(state, s), params[0].max_position_e8)
    room = limit - side * worst_lots(state, s, side)
    return max(room - room % instruments[s].step_lots, 0)


@kernel
def entry_lots(
    state: Recs, params: Recs, instruments: Recs, s: int, side: int, price_ticks: int, distance_ticks: float, equity_e8: int
) -> int:
    """Quantity of an entry at `price_ticks` with a stop `distance_ticks` away; 0 when the limits leave no room."""
    it = instruments[s]
    if equity_e8 <= 0 or price_ticks <= 0:
        return 0
    loss_per_lot_e8 = distance_ticks * float(it.notional_mul) / float(it.notional_div)
    wanted = float(equity_e8) * params[0].risk_share / loss_per_lot_e8
    lots = int(min(wanted, float(it.max_qty_lots)))
    lots = min(lots, lots_worth(instruments, s, price_ticks, params[0].max_order_e8))
    lots = min(lots, room_lots(state, params, instruments, s, side))
    return max(lots - lots % it.step_lots, 0)
