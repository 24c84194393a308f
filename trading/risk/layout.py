"""The risk fold's state, settings and bounds: layout here, algorithm in trading.risk.fold.

What this module is not: it has no kernel and decides nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.jit import Recs
from trading.orders import budget
from trading.orders import table as orders
from trading.records import Refusal
from trading.risk import exits, limits, positions, sizing
from trading.settings import Strategy

NS_PER_MS: Final = 1_000_000
DAY_NS: Final = 86_400_000_000_000
NEVER_NS: Final = -(2**61)
MAX_ORDERS_OUT: Final = 320
"""Rows that `orders_out` needs: every live order cancelled, and the few new ones of one call."""
MAX_REFUSALS_OUT: Final = 8
"""Rows that `refusals_out` needs."""
assert orders.MAX_LIVE + 4 <= MAX_ORDERS_OUT
REASONS: Final = 128
"""Length of the count of refusals by reason."""
assert max(Refusal) < REASONS

RISK_STATE: Final = np.dtype(
    [
        *limits.BOOK_FIELDS,
        *positions.POSITION_FIELDS,
        *exits.LEG_FIELDS,
        ("entry_id", "i8"),  # live entry order, 0: none
        ("entry_ts_ns", "i8"),  # when an entry was last decided, refused ones too
        ("exit_id", "i8"),
        ("exit_try_ns", "i8"),
        ("bid_id", "i8"),  # working quote order of each side
        ("ask_id", "i8"),
        ("target_ts_ns", "i8"),  # the last target quote ...
        ("target_bid_ticks", "i8"),
        ("target_bid_lots", "i8"),
        ("target_ask_ticks", "i8"),
        ("target_ask_lots", "i8"),
        ("retry_bid", "i8"),  # ... and 1 where an order of ours that is dying stood in its way
        ("retry_ask", "i8"),
    ],
    align=True,
)
"""What is kept per symbol."""

RISK_GLOBAL: Final = np.dtype(
    [
        *limits.LIMIT_FIELDS,
        *orders.TABLE_FIELDS,
        ("next_order_id", "i8"),
        ("n_orders", "i8"),  # written by this call
        ("n_refusals", "i8"),  # written by this call
        ("start_e8", "i8"),
        ("peak_e8", "i8"),
        ("day", "i8"),  # UTC day of the last record
        ("day_start_e8", "i8"),
        ("sweep_ns", "i8"),  # the next sweep
        ("new_count", "i8"),
        ("cancel_count", "i8"),
        ("fill_count", "i8"),
        ("repeat_count", "i8"),  # fills that had been seen
        ("foreign_count", "i8"),  # reports about orders that are not in the table, or of no known symbol
        ("dust_count", "i8"),  # legs that ended in a rest too small to sell
        ("refused_count", "i8", REASONS),
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


def make_params(strategy: Strategy, instruments: Recs) -> Recs:
    """RISK_PARAMS (shape (1,)) of a strategy's `risk` and `execution` sections.

    Raises ValueError when a symbol is so finely divided that the position limit does not fit in ticks * lots.
    """
    risk, execution = strategy.risk, strategy.execution
    params = np.zeros(1, RISK_PARAMS)
    p = params[0]
    p["collar_bps"] = risk.price_collar_bps
    p["max_order_e8"] = round(risk.max_order_notional * 1e8)
    p["max_position_e8"] = round(risk.max_position_notional * 1e8)
    p["max_open_orders"] = risk.max_open_orders
    p["max_heat"] = risk.max_portfolio_heat
    p["message_cost_ns"] = budget.BUDGET_NS // risk.max_orders_per_s
    p["risk_share"] = risk.base_risk_pct / 100.0
    p["atr_multiplier"] = execution.atr_stop_multiplier
    p["min_stop_share"] = execution.min_stop_bps / 1e4
    p["max_hold_ns"] = round(execution.max_hold_minutes * 60e9)
    p["equity_e8"] = round(risk.equity * 1e8)
    p["max_daily_loss"] = risk.max_daily_loss_pct / 100.0
    p["max_drawdown"] = risk.max_drawdown_pct / 100.0
    p["market_urgency"] = execution.market_urgency_threshold
    p["post_only_below"] = execution.post_only_below
    p["cooldown_ns"] = execution.entry_cooldown_ms * NS_PER_MS
    p["max_age_ns"] = execution.order_max_age_ms * NS_PER_MS
    largest = max(int(p["max_position_e8"]), int(p["max_order_e8"]))
    for it in instruments:
        if largest // int(it["notional_mul"]) * int(it["notional_div"]) > budget.OVERFLOW:
            name = bytes(it["name"]).rstrip(b"\0").decode("ascii")
            raise ValueError(
                f"{name}: risk.max_position_notional and risk.max_order_notional are too large for its tick and lot sizes;"
                " lower them or give the symbol a coarser lot_size"
            )
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
