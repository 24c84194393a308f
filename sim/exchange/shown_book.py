"""What the simulated venue shows: the full-depth book, a fresher touch over it, and what we have taken from it.

Depth messages come every 100 ms, best bid/offer messages at once. While the last of these is newer than the book it
overrides the book's top: levels better than the touch are gone, the touch has the quantity it says.

What our own taking removed is not in the recording. It is remembered per level and subtracted, until a message
changes that level's quantity: the same liquidity is not sold to us twice.

Sides and keys are those of trading.books.book: bid keys are negated prices, a better level has the smaller key.
"""

from __future__ import annotations

from typing import Any, Final

from trading.books.book import BOOK_FIELDS, NO_KEY, lots_at, next_far, next_near
from trading.jit import kernel

TAKEN: Final = 64
"""Levels whose taking is remembered; beyond that the oldest is forgotten."""
FIRST_KEY: Final = -(2**61)

VENUE_BOOK_FIELDS: Final = (
    *BOOK_FIELDS,
    ("book_id", "i8"),  # update id of the last complete depth message
    ("touch_id", "i8"),  # of the last best bid/offer message; 0: none
    ("touch_key", "i8", 2),  # NO_KEY: the side is empty
    ("touch_lots", "i8", 2),
    ("n_taken", "i8"),
    ("taken_side", "i8", TAKEN),
    ("taken_key", "i8", TAKEN),
    ("taken_lots", "i8", TAKEN),
)

Symbol = Any
"""One EXCH_STATE record."""


@kernel
def touch_rules(st: Symbol) -> bool:
    """Whether the last best bid/offer message is newer than the book."""
    return st.touch_id > st.book_id


@kernel
def displayed(st: Symbol, side: int, key: int) -> int:
    """Lots that the venue shows at a key."""
    if touch_rules(st):
        if key < st.touch_key[side]:
            return 0
        if key == st.touch_key[side]:
            return st.touch_lots[side]
    return lots_at(st, side, key)


@kernel
def next_displayed(st: Symbol, side: int, key: int) -> int:
    """The first level at or after `key` that the venue shows; NO_KEY if there is none, or none known up to the book's edge."""
    if touch_rules(st):
        if key <= st.touch_key[side]:
            return st.touch_key[side]
    if st.best[side] == NO_KEY:
        return NO_KEY
    found = next_near(st, side, max(key, st.base[side]))
    if found == NO_KEY:
        found = next_far(st, side, key)
    return found if found <= st.edge[side] else NO_KEY


@kernel
def taken(st: Symbol, side: int, key: int) -> int:
    """Lots that we took from a level since it changed last."""
    for i in range(st.n_taken):
        if st.taken_key[i] == key and st.taken_side[i] == side:
            return st.taken_lots[i]
    return 0


@kernel
def forget_taken(st: Symbol, side: int, key: int) -> None:
    """The level's quantity has changed: what it shows now is new."""
    for i in range(st.n_taken):
        if st.taken_key[i] == key and st.taken_side[i] == side:
            _drop(st, i)
            return


@kernel
def _drop(st: Symbol, index: int) -> None:
    st.n_taken -= 1
    for i in range(index, st.n_taken):
        st.taken_key[i] = st.taken_key[i + 1]
        st.taken_side[i] = st.taken_side[i + 1]
        st.taken_lots[i] = st.taken_lots[i + 1]


@kernel
def remember_taken(st: Symbol, side: int, key: int, lots: int) -> None:
    """We took `lots` from the level."""
    for i in range(st.n_taken):
        if st.taken_key[i] == key and st.taken_side[i] == side:
            st.taken_lots[i] += lots
            return
    if st.n_taken == TAKEN:
        _drop(st, 0)
    n = st.n_taken
    st.taken_side[n] = side
    st.taken_key[n] = key
    st.taken_lots[n] = lots
    st.n_taken = n + 1


@kernel
def available(st: Symbol, side: int, key: int, share: float) -> int:
    """Lots at a level that an order of ours can get: the share of what is shown, less what we took."""
    shown = displayed(st, side, key)
    if share < 1.0:
        shown = int(float(shown) * share)
    return max(0, shown - taken(st, side, key))


@kernel
def next_available(st: Symbol, side: int, key: int, share: float) -> int:
    """The first level at or after `key` with something left for us; NO_KEY if there is none."""
    found = next_displayed(st, side, key)
    while found != NO_KEY and available(st, side, found, share) == 0:
        found = next_displayed(st, side, found + 1)
    return found


@kernel
def set_touch(st: Symbol, update_id: int, bid_key: int, bid_lots: int, ask_key: int, ask_lots: int) -> bool:
    """A best bid/offer message; False when the book or an earlier one is newer. Keys are NO_KEY for an empty side."""
    if update_id <= st.book_id or update_id < st.touch_id:
        return False
    for side in range(2):
        key = bid_key if side == 0 else ask_key
        lots = bid_lots if side == 0 else ask_lots
        if key != NO_KEY and displayed(st, side, key) != lots:
            forget_taken(st, side, key)
    st.touch_id = update_id
    st.touch_key[0], st.touch_lots[0] = bid_key, bid_lots
    st.touch_key[1], st.touch_lots[1] = ask_key, ask_lots
    return True
