"""How a venue's diffs follow each other and connect to a snapshot: the sequence rules, one function each.

    rule    a diff follows the book        a diff is in the snapshot already   the first one after a snapshot
    SPOT    U == last u + 1                u <= lastUpdateId                   U <= lastUpdateId + 1
    USDM    pu == last u                   u < lastUpdateId                    U <= lastUpdateId
    PLAIN   prev_id == last id, or no      last_id <= the snapshot's           prev_id <= the snapshot's
            sequence is sent (UNCHECKED)

What this module is not: it keeps no state.
"""

from __future__ import annotations

from typing import Final

from trading.instruments import Market
from trading.jit import kernel
from trading.wire.plain_frame import UNCHECKED

SPOT: Final = 0
USDM: Final = 1
PLAIN: Final = 2


@kernel
def native_rule(market: int) -> int:
    """The rule of a raw Binance frame."""
    return USDM if market == Market.BINANCE_USDM else SPOT


@kernel
def follows(rule: int, first_id: int, prev_id: int, book_id: int) -> bool:
    """Whether nothing lies between the book and the diff."""
    if rule == SPOT:
        return first_id == book_id + 1
    return prev_id == book_id or (rule == PLAIN and prev_id == UNCHECKED)


@kernel
def is_older(rule: int, last_id: int, snapshot_id: int) -> bool:
    """Whether the snapshot contains the diff."""
    return last_id < snapshot_id if rule == USDM else last_id <= snapshot_id


@kernel
def connects(rule: int, first_id: int, prev_id: int, snapshot_id: int) -> bool:
    """Whether nothing lies between the snapshot and the first diff that is not older."""
    if rule == PLAIN:
        return prev_id <= snapshot_id
    return first_id <= (snapshot_id if rule == USDM else snapshot_id + 1)
