"""The arrays of one risk fold, in one tuple: every kernel that needs more than two of them takes all.

What this module is not: it knows no field of them; trading.risk.layout says what each holds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from trading.jit import Recs
from trading.orders.table import MAX_LIVE

MAX_ORDERS_OUT: Final = 320
"""Rows that `orders_out` needs: every live order cancelled, and the few new ones of one call."""
MAX_REFUSALS_OUT: Final = 8
"""Rows that `refusals_out` needs."""
assert MAX_LIVE + 4 <= MAX_ORDERS_OUT


class RiskArrays(NamedTuple):
    """Arrays of records; `state` and `glob` are the fold's state, what is in the last three does not outlive a call."""

    state: Recs  # RISK_STATE, shape (n_symbols,)
    glob: Recs  # RISK_GLOBAL, (1,)
    params: Recs  # RISK_PARAMS, (1,)
    instruments: Recs  # INSTRUMENT, (n_symbols,)
    intent: Recs  # ORDER_RECORD, (1,): the order that is being made; trading.risk.submitting says how
    orders_out: Recs  # ORDER_RECORD, (MAX_ORDERS_OUT,)
    refusals_out: Recs  # ORDER_RECORD, (MAX_REFUSALS_OUT,)
