"""An order command as it goes from hand to hand: from risk's intent to the orders ring, from there to the wire.

What this module is not: it decides nothing about a command.
"""

from __future__ import annotations

from typing import Any

from trading.jit import kernel


@kernel
def copy_command(to: Any, rec: Any) -> None:
    """Copy what an ORDER_RECORD says into another: all but cause, stamps and sequence, which are the stage's."""
    to.ts_ns, to.kind, to.symbol, to.flags = rec.ts_ns, rec.kind, rec.symbol, rec.flags
    to.order_id, to.target_order_id = rec.order_id, rec.target_order_id
    to.side, to.order_type, to.time_in_force, to.purpose = rec.side, rec.order_type, rec.time_in_force, rec.purpose
    to.price_ticks, to.qty_lots, to.decision_ticks = rec.price_ticks, rec.qty_lots, rec.decision_ticks
    to.refusal, to.approved = rec.refusal, rec.approved
