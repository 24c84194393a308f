"""What falls due in risk though no record comes: when a symbol is to be looked at next.

    an unfilled entry is cancelled       its age, `execution.order_max_age_ms`
    a leg that is held too long          `execution.max_hold_minutes` after it was opened
    an exit that is not done yet         EXIT_RETRY_NS after the last try; at once when what stood in its way has ended
    orders that should be gone           every SWEEP_NS while any order lives

A due time is part of the fold's state and follows from the records alone. The stage acts at exactly that time in virtual time
(trading.risk.fold.on_due), so it does not matter whether the market speaks then. `glob.due_ns` is never later than the earliest
of all: one that has become void is found out when it comes.

What this module is not: it acts on nothing.
"""

from __future__ import annotations

from typing import Final

from trading.jit import lean
from trading.orders import table as orders
from trading.records import TS_END, OrderStatus, Refusal
from trading.risk import limits
from trading.risk.arrays import RiskArrays
from trading.risk.layout import NS_PER_MS

EXIT_RETRY_NS: Final = 250 * NS_PER_MS
"""A refused exit is tried again after this."""
SWEEP_NS: Final = 250 * NS_PER_MS
"""How often orders whose cancel the venue refused are cancelled again, while they should be gone."""


@lean
def note_due(risk: RiskArrays, s: int, ts_ns: int, wait_ns: int) -> None:
    """Work out when the symbol is due, from its state at `ts_ns`. An exit that is under way waits at least `wait_ns`."""
    st, g, due = risk.state[s], risk.glob[0], TS_END
    if st.entry_id != 0:
        slot = orders.find(risk.glob, st.entry_id)
        if slot >= 0 and g.orders[slot].status != OrderStatus.PENDING_CANCEL:
            aged = g.orders[slot].ts_new_ns + risk.params[0].max_age_ns
            due = aged if aged > ts_ns else ts_ns + SWEEP_NS  # its cancel was refused
    if st.leg_lots != 0 and st.exit_id == 0 and limits.check_trading(risk.state, risk.glob, s, ts_ns) == Refusal.NONE:
        if st.exit_purpose == 0:
            due = min(due, max(ts_ns, st.leg_opened_ns + risk.params[0].max_hold_ns))
        else:
            due = min(due, max(ts_ns + wait_ns, st.exit_try_ns + EXIT_RETRY_NS))
    st.due_ns = due if g.ended == 0 else TS_END
    g.due_ns = min(g.due_ns, st.due_ns)
    note_sweep(risk, ts_ns)


@lean
def note_sweep(risk: RiskArrays, ts_ns: int) -> None:
    """Orders live: the next sweep falls due."""
    g = risk.glob[0]
    if g.n_live > 0 and g.ended == 0:
        g.due_ns = min(g.due_ns, max(g.sweep_ns, ts_ns))


@lean
def find_due(risk: RiskArrays, ts_ns: int) -> None:
    """Work out the earliest due time of all, exactly."""
    g = risk.glob[0]
    g.due_ns = TS_END
    for s in range(len(risk.state)):
        g.due_ns = min(g.due_ns, risk.state[s].due_ns)
    note_sweep(risk, ts_ns)
