"""The risk fold's state and settings: put together here from what each module of the room keeps and asks for.

What this module is not: it has no kernel and decides nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.jit import Recs
from trading.orders import budget
from trading.orders import table as orders
from trading.records import ORDER_RECORD, TS_END
from trading.risk import exits, limits, positions, quote_orders, sizing, submitting
from trading.risk.arrays import MAX_ORDERS_OUT, MAX_REFUSALS_OUT, RiskArrays
from trading.settings import Strategy

NS_PER_MS: Final = 1_000_000
DAY_NS: Final = 86_400_000_000_000
NEVER_NS: Final = -(2**61)

RISK_STATE: Final = np.dtype(
    [
        *limits.BOOK_FIELDS,
        *positions.POSITION_FIELDS,
        *exits.LEG_FIELDS,
        *quote_orders.QUOTE_FIELDS,
        ("entry_id", "i8"),  # live entry order, 0: none
        ("entry_ts_ns", "i8"),  # when an entry was last decided, refused ones too
        ("exit_id", "i8"),
        ("exit_try_ns", "i8"),
        ("due_ns", "i8"),  # when the symbol is to be looked at though no record comes; TS_END: not
    ],
    align=True,
)
"""What is kept per symbol."""

RISK_GLOBAL: Final = np.dtype(
    [
        *limits.LIMIT_FIELDS,
        *orders.TABLE_FIELDS,
        *submitting.OUTPUT_FIELDS,
        ("start_e8", "i8"),
        ("peak_e8", "i8"),
        ("day", "i8"),  # UTC day of the last record
        ("day_start_e8", "i8"),
        ("sweep_ns", "i8"),  # the next sweep
        ("due_ns", "i8"),  # nothing falls due before this
        ("fill_count", "i8"),
        ("repeat_count", "i8"),  # fills that had been seen
        ("foreign_count", "i8"),  # reports about orders that are not in the table, or of no known symbol
        ("dust_count", "i8"),  # legs that ended in a rest too small to sell
    ],
    align=True,
)
"""What is kept once."""

RISK_PARAMS: Final = np.dtype(
    [
        *limits.LIMIT_PARAMS,
        *sizing.SIZING_PARAMS,
        *exits.EXIT_PARAMS,
        ("equity_e8", "i8"),
        ("max_daily_loss", "f8"),  # share of the day's first equity
        ("max_drawdown", "f8"),  # share of peak equity
        ("market_urgency", "f8"),
        ("post_only_below", "f8"),
        ("cooldown_ns", "i8"),
        ("max_age_ns", "i8"),
    ],
    align=True,
)
"""Settings, in the units that the kernels use."""


def make_params(strategy: Strategy) -> Recs:
    """RISK_PARAMS (shape (1,)) of a strategy's `risk` and `execution` sections."""
    risk, execution = strategy.risk, strategy.execution
    params = np.zeros(1, RISK_PARAMS)
    p = params[0]
    for module in (limits, sizing, exits):
        module.set_params(p, strategy)
    p["equity_e8"] = round(risk.equity * 1e8)
    p["max_daily_loss"] = risk.max_daily_loss_pct / 100.0
    p["max_drawdown"] = risk.max_drawdown_pct / 100.0
    p["market_urgency"] = execution.market_urgency_threshold
    p["post_only_below"] = execution.post_only_below
    p["cooldown_ns"] = execution.entry_cooldown_ms * NS_PER_MS
    p["max_age_ns"] = execution.order_max_age_ms * NS_PER_MS
    return params


def init(state: Recs, glob: Recs, params: Recs, instruments: Recs) -> None:
    """Put zeroed state (n_symbols,) and glob (1,) into their start: flat, not halted, full message budget, first id 1."""
    assert len(state) == len(instruments)
    state["entry_ts_ns"] = state["exit_try_ns"] = state["leg_closed_ns"] = state["target_ts_ns"] = NEVER_NS
    g = glob[0]
    g["next_order_id"] = 1
    g["budget_ns"] = budget.BUDGET_NS
    for name in ("portfolio_e8", "start_e8", "peak_e8", "day_start_e8"):
        g[name] = params[0]["equity_e8"]
    g["day"] = -1
    state["due_ns"] = g["due_ns"] = TS_END


def outputs() -> tuple[Recs, Recs, Recs]:
    """The last three of RiskArrays: intent, orders_out, refusals_out."""
    return np.zeros(1, ORDER_RECORD), np.zeros(MAX_ORDERS_OUT, ORDER_RECORD), np.zeros(MAX_REFUSALS_OUT, ORDER_RECORD)


def at_start(strategy: Strategy, instruments: Recs) -> RiskArrays:
    """A risk fold of its own, at its start."""
    state, glob, params = np.zeros(len(instruments), RISK_STATE), np.zeros(1, RISK_GLOBAL), make_params(strategy)
    init(state, glob, params, instruments)
    return RiskArrays(state, glob, params, instruments, *outputs())
