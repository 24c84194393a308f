"""How much an entry may buy or sell: a fixed fraction of equity at risk, bounded by the limits.

Quantity = equity * base_risk_pct / 100 / stop distance, with stop distance = max(atr_stop_multiplier * ATR,
min_stop_bps of the mid) (FORMULAS, "Sizing and risk"); then no more than one order may be worth, no more than the position
limit has room for at worst, and rounded down to the venue's step.

What this module is not: it refuses nothing (trading.risk.limits does) and places no stop (trading.risk.exits does).
"""

from __future__ import annotations

from typing import Any, Final

from trading.instruments import loss_e8, mul_div
from trading.jit import Recs, kernel, lean
from trading.risk.arrays import RiskArrays
from trading.risk.limits import value_ticks, worst_lots
from trading.settings import Strategy

SIZING_PARAMS: Final = (
    ("risk_share", "f8"),  # of equity, a trade
    ("atr_multiplier", "f8"),
    ("min_stop_share", "f8"),  # of the mid
)


def set_params(p: Any, strategy: Strategy) -> None:
    """Put SIZING_PARAMS of a strategy into a RISK_PARAMS record."""
    p["risk_share"] = strategy.risk.base_risk_pct / 100.0
    p["atr_multiplier"] = strategy.execution.atr_stop_multiplier
    p["min_stop_share"] = strategy.execution.min_stop_bps / 1e4


@kernel
def stop_distance_ticks(params: Recs, mid_ticks: float, atr_ticks: float) -> float:
    """Distance from entry to the initial stop in ticks, at least 1."""
    p = params[0]
    return max(p.atr_multiplier * atr_ticks, p.min_stop_share * mid_ticks, 1.0)


@kernel
def lots_worth(instruments: Recs, s: int, price_ticks: int, value_e8: int) -> int:
    """Greatest quantity that is worth no more than `value_e8` at `price_ticks` (both > 0), rounded down to the step."""
    it = instruments[s]
    if it.inverse != 0:
        lots = min((value_e8 // it.notional_mul) * it.notional_div, it.max_qty_lots)
        return max(lots - lots % it.step_lots, 0)
    # floor twice: lots whose ticks * lots // div * mul cannot exceed value_e8
    lots = mul_div(value_e8 // it.notional_mul, it.notional_div, price_ticks)
    lots = min(lots, it.max_qty_lots)
    return max(lots - lots % it.step_lots, 0)


@lean
def room_lots(risk: RiskArrays, s: int, side: int) -> int:
    """How much of `side` the position limit still has room for when all open orders of that side fill; >= 0."""
    limit = lots_worth(risk.instruments, s, value_ticks(risk.state, s), risk.params[0].max_position_e8)
    room = limit - side * worst_lots(risk.state, s, side)
    return max(room - room % risk.instruments[s].step_lots, 0)


@lean
def entry_lots(risk: RiskArrays, s: int, side: int, price_ticks: int, distance_ticks: float) -> int:
    """Quantity of an entry at `price_ticks` with a stop `distance_ticks` away; 0 when equity or limits leave no room."""
    it, p, equity_e8 = risk.instruments[s], risk.params[0], risk.glob[0].portfolio_e8
    if equity_e8 <= 0 or price_ticks <= 0:
        return 0
    loss_per_lot_e8 = loss_e8(risk.instruments, s, float(price_ticks), 1.0, distance_ticks)
    wanted = float(equity_e8) * p.risk_share / loss_per_lot_e8
    lots = int(min(wanted, float(it.max_qty_lots)))
    lots = min(lots, lots_worth(risk.instruments, s, price_ticks, p.max_order_e8))
    lots = min(lots, room_lots(risk, s, side))
    return max(lots - lots % it.step_lots, 0)
