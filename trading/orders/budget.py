"""How many messages may leave: asked by risk and by the router alike.

What this module is not: a limit of the user's; those are in `trading.risk.limits`.
"""

from __future__ import annotations

from typing import Final

from trading.jit import Recs, kernel
from trading.settings import Risk

BUDGET_NS: Final = 1_000_000_000
"""Allowance that can be saved up: one second's worth of messages may leave at once."""

BUDGET_FIELDS: Final = (
    ("budget_ns", "i8"),  # nanoseconds of allowance saved up
    ("budget_ts_ns", "i8"),
)
"""Fields that a GLOBAL record needs for the kernels below."""

BUDGET_PARAMS: Final = (("message_cost_ns", "i8"),)
"""Settings that they need."""


def message_cost_ns(risk: Risk) -> int:
    """What one message takes from the budget."""
    return BUDGET_NS // risk.max_orders_per_s


@kernel
def refill(glob: Recs, ts_ns: int) -> None:
    """Let the message budget grow with time, up to BUDGET_NS."""
    g = glob[0]
    if ts_ns > g.budget_ts_ns:
        g.budget_ns = min(BUDGET_NS, g.budget_ns + min(ts_ns - g.budget_ts_ns, 2 * BUDGET_NS))
        g.budget_ts_ns = ts_ns


@kernel
def has_budget(glob: Recs, params: Recs, ts_ns: int) -> bool:
    """Whether one more new order may leave now."""
    refill(glob, ts_ns)
    return glob[0].budget_ns >= params[0].message_cost_ns


@kernel
def spend(glob: Recs, params: Recs, ts_ns: int) -> None:
    """Book one message. Cancels are booked without asking, so the budget may go below zero, by a second's worth at most."""
    refill(glob, ts_ns)
    glob[0].budget_ns = max(glob[0].budget_ns - params[0].message_cost_ns, -BUDGET_NS)
