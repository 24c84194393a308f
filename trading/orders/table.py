"""The order table and the order state machine, shared by risk (what may be live) and the router (what the venue said).

The machine is one table, status x event -> status. It is a *join*: the outcome of a set of events does not depend on
their order or repetition, because a status only moves up (live < REJECTED < EXPIRED < CANCELED < FILLED) and the
filled quantity is the sum over a set of trades. FILLED means that sum reached the order's quantity, never that a report
said so. An event that no sane venue sends in a status is *counted* (`n_illegal`) and still lands somewhere definite.

A table is a fixed number of rows inside its owner's GLOBAL record. A row is found by probing from `order_id % ORDER_ROWS`;
ids come from one counter, so the first probe nearly always hits. A final row stays, for late fills, until its place is
wanted again.

What this module is not: it decides nothing, and knows no position, limit or wire.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np

from trading.jit import Recs, kernel
from trading.records import ExecType, OrderStatus

ORDER_ROWS: Final = 512
"""Rows of a table, a power of two."""
MAX_LIVE: Final = 312
"""Orders that may be live at once: the rest of the rows are final ones, kept for late fills."""
assert ORDER_ROWS & (ORDER_ROWS - 1) == 0
assert MAX_LIVE < ORDER_ROWS


class Event(IntEnum):
    """What can happen to an order: the venue's words (as ExecType, with FILL in two) and two of our own."""

    NONE = 0
    ACK = 1
    REJECT = 2
    FILL_PART = 3
    CANCELED = 4
    CANCEL_REJECT = 5
    EXPIRED = 6
    FILL_ALL = 7
    CANCEL_SENT = 8  # we asked for the cancel
    LOST = 9  # its fate is unknown: time-out, disconnect, restart


for _e in ExecType:
    assert _e == ExecType.FILL or Event[_e.name] == int(_e), _e

EVENTS: Final = len(Event)
STATUSES: Final = len(OrderStatus)

_LIVE: Final = (
    OrderStatus.PENDING_NEW,
    OrderStatus.OPEN,
    OrderStatus.PARTIAL,
    OrderStatus.PENDING_CANCEL,
    OrderStatus.UNKNOWN,
)

ILLEGAL: Final = 100
"""Added to an entry of TRANSITIONS that no sane venue takes: the status is entered all the same, and counted."""

_TABLE: Final = """
                ACK   REJECT     FILL_PART  CANCELED   CANCEL_REJECT  EXPIRED   FILL_ALL  CANCEL_SENT     LOST
PENDING_NEW     OPEN  REJECTED   PARTIAL    CANCELED   .!             EXPIRED   FILLED    PENDING_CANCEL  UNKNOWN
OPEN            .     REJECTED!  PARTIAL    CANCELED   .!             EXPIRED   FILLED    PENDING_CANCEL  UNKNOWN
PARTIAL         .     REJECTED!  .          CANCELED   .!             EXPIRED   FILLED    PENDING_CANCEL  UNKNOWN
PENDING_CANCEL  .     REJECTED   .          CANCELED   OPEN           EXPIRED   FILLED    .               UNKNOWN
UNKNOWN         OPEN  REJECTED   PARTIAL    CANCELED   .              EXPIRED   FILLED    .               .
FILLED          .     .!         .!         .          .              .         .!        .               .
CANCELED        .     .!         .          .          .              .!        FILLED    .               .
EXPIRED         .     .!         .          CANCELED!  .              .         FILLED    .               .
REJECTED        .!    .          .!         CANCELED!  .              EXPIRED!  FILLED!   .               .
NONE            .!    .!         .!         .!         .!             .!        .!        .!              .!
"""
"""The machine: a row for each status, a column for each event, in the cell the status after it.

`.` stays as it is; `!` is ILLEGAL. A refused cancel (PENDING_CANCEL, CANCEL_REJECT) leaves a live order: `step` makes OPEN
PARTIAL when something is filled. "No such order" to a cancel (UNKNOWN, CANCEL_REJECT) proves nothing: only the venue's own
word about the order does. Event.NONE changes no status and is always ILLEGAL.
"""


def _transitions() -> np.ndarray:
    """_TABLE as numbers, (STATUSES, EVENTS) int64; entries of ILLEGAL and more are the counted ones."""
    head, *rows = _TABLE.strip().splitlines()
    table = np.empty((STATUSES, EVENTS), np.int64)
    for row in rows:
        status, *cells = row.split()
        before = OrderStatus[status]
        table[before, Event.NONE] = before + ILLEGAL
        for event, cell in zip(head.split(), cells, strict=True):
            after = cell.rstrip("!")
            table[before, Event[event]] = (before if after == "." else OrderStatus[after]) + ILLEGAL * cell.endswith("!")
    return table


TRANSITIONS: Final = _transitions()
_IS_LIVE: Final = np.array([status in _LIVE for status in OrderStatus], np.int64)

ORDER_ROW: Final = np.dtype(
    [
        ("order_id", "i8"),
        ("venue_order_id", "i8"),
        ("symbol", "i8"),
        ("side", "i8"),
        ("purpose", "i8"),
        ("order_type", "i8"),
        ("status", "i8"),
        ("price_ticks", "i8"),
        ("qty_lots", "i8"),
        ("cum_lots", "i8"),  # sum over the set of trades seen
        ("venue_cum_lots", "i8"),  # greatest filled quantity that any report claimed
        ("decision_ticks", "f8"),
        ("ts_new_ns", "i8"),
        ("seen", "i8"),  # bit per Event that has arrived
        ("live_at", "i8"),  # index into `live`
    ],
    align=True,
)
"""One order."""

TABLE_FIELDS: Final = (
    ("orders", ORDER_ROW, ORDER_ROWS),
    ("live", "i8", ORDER_ROWS),  # rows of the live orders; the first n_live count
    ("n_live", "i8"),
    ("n_illegal", "i8"),
)
"""Fields that a GLOBAL record needs for the kernels below."""


@kernel
def find(glob: Recs, order_id: int) -> int:
    """Row of an order, -1 when it is not (or no longer) in the table."""
    if order_id <= 0:
        return -1
    for j in range(ORDER_ROWS):
        slot = (order_id + j) & (ORDER_ROWS - 1)
        if glob[0].orders[slot].order_id == order_id:
            return slot
    return -1


@kernel
def is_live(glob: Recs, slot: int) -> bool:
    """Whether the order in this row may still trade (UNKNOWN may)."""
    return _IS_LIVE[glob[0].orders[slot].status] == 1


@kernel
def reserved_lots(glob: Recs, slot: int) -> int:
    """What may still fill, at worst: the rest of a live order; of a final one, fills that were claimed but not yet seen."""
    row = glob[0].orders[slot]
    if _IS_LIVE[row.status] == 1:
        return max(row.qty_lots - row.cum_lots, 0)
    return max(row.venue_cum_lots - row.cum_lots, 0)


@kernel
def insert(glob: Recs, command: Any) -> int:
    """Put the order of an ORDER_RECORD into the table, PENDING_NEW. Returns its row, -1 when MAX_LIVE orders are live already."""
    g = glob[0]
    if g.n_live >= MAX_LIVE:
        return -1
    for j in range(ORDER_ROWS):
        slot = (command.order_id + j) & (ORDER_ROWS - 1)
        row = g.orders[slot]
        if _IS_LIVE[row.status] == 1 or reserved_lots(glob, slot) > 0:
            continue
        row.order_id, row.venue_order_id = command.order_id, 0
        row.symbol, row.side, row.purpose, row.order_type = command.symbol, command.side, command.purpose, command.order_type
        row.status = OrderStatus.PENDING_NEW
        row.price_ticks, row.qty_lots, row.cum_lots, row.venue_cum_lots = command.price_ticks, command.qty_lots, 0, 0
        row.decision_ticks, row.ts_new_ns, row.seen = command.decision_ticks, command.ts_ns, 0
        row.live_at = g.n_live
        g.live[g.n_live] = slot
        g.n_live += 1
        return slot
    return -1


@kernel
def step(glob: Recs, slot: int, event: int, fill_lots: int, venue_cum_lots: int) -> int:
    """Apply one event; returns the status after it.

    `fill_lots` is the quantity of a trade seen for the first time (0 for any other event), `venue_cum_lots` what the report
    claims to be filled in all. The caller has dropped repeated trades.
    """
    g = glob[0]
    row = g.orders[slot]
    was_live = _IS_LIVE[row.status] == 1
    row.seen |= 1 << event
    if event == Event.FILL_PART:
        row.cum_lots += fill_lots
        if row.cum_lots >= row.qty_lots:
            event = Event.FILL_ALL
    if venue_cum_lots > row.venue_cum_lots:
        row.venue_cum_lots = min(venue_cum_lots, row.qty_lots)
    after = TRANSITIONS[row.status, event]
    if after >= ILLEGAL:
        after -= ILLEGAL
        g.n_illegal += 1
    if after == OrderStatus.OPEN and row.cum_lots > 0:
        after = OrderStatus.PARTIAL
    row.status = after
    if was_live and _IS_LIVE[after] == 0:
        # keep `live` dense: the last one takes the place of the one that ended
        g.n_live -= 1
        last = g.live[g.n_live]
        g.live[row.live_at] = last
        g.orders[last].live_at = row.live_at
    return after
