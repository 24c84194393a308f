"""The order book of the embedded market: sorted levels a side, and which prices changed since the last depth frame.

Both sides use one code: a level's *key* is its price for bids and the negated price for asks, kept in ascending
order, so that the best level is the last one and changes at the touch move no memory. Side 0 is the bid, 1 the ask.

Only sim.market.generator writes it; it is never crossed because that one asks.
"""

from __future__ import annotations

from typing import Any, Final

from trading.jit import Words, kernel

BID: Final = 0
ASK: Final = 1
CAPACITY: Final = 160
"""Levels a side that there is room for; the market keeps about TARGET."""
TARGET: Final = 100
CHANGES: Final = 192
"""Changed prices a side between two depth frames; near the limit the frame is sent early."""

BOOK_FIELDS: Final = [
    ("update_id", "i8"),
    ("n", "i8", 2),
    ("keys", "i8", (2, CAPACITY)),  # ascending: the best is the last
    ("lots", "i8", (2, CAPACITY)),
    ("n_changed", "i8", 2),
    ("changed", "i8", (2, CHANGES)),  # keys, in the order of the first change
]
"""Fields that a state record has for these kernels."""

Market = Any
"""One GEN_STATE record."""


@kernel
def price_of(side: int, key: int) -> int:
    """The price in ticks behind a key, and the key behind a price."""
    return key if side == BID else -key


@kernel
def best(st: Market, side: int) -> int:
    """Key of the best level (the book always has one)."""
    return st.keys[side, st.n[side] - 1]


@kernel
def find(keys: Words, n: int, key: int) -> int:
    """Index of the first of `n` ascending keys that is not below `key`."""
    low, high = 0, n
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def note_change(st: Market, side: int, key: int) -> None:
    """Remember that the level is to be in the next depth frame, and count the update."""
    st.update_id += 1
    n = st.n_changed[side]
    changed = st.changed[side]
    for i in range(n):
        if changed[i] == key:
            return
    if n < CHANGES:
        changed[n] = key
        st.n_changed[side] = n + 1


@kernel
def remove_at(st: Market, side: int, index: int) -> None:
    """Take the level at `index` out."""
    n = st.n[side]
    keys, lots = st.keys[side], st.lots[side]
    note_change(st, side, keys[index])
    for i in range(index, n - 1):
        keys[i] = keys[i + 1]
        lots[i] = lots[i + 1]
    st.n[side] = n - 1


@kernel
def set_lots_at(st: Market, side: int, index: int, lots: int) -> None:
    """Give the level at `index` another quantity (> 0)."""
    st.lots[side, index] = lots
    note_change(st, side, st.keys[side, index])


@kernel
def insert(st: Market, side: int, key: int, lots: int) -> None:
    """Put a level in, or change its quantity where it exists; a full side loses its farthest level first."""
    keys, quantities = st.keys[side], st.lots[side]
    if st.n[side] == CAPACITY:
        remove_at(st, side, 0)
    n = st.n[side]
    at = find(keys, n, key)
    if at < n and keys[at] == key:
        set_lots_at(st, side, at, lots)
        return
    for i in range(n, at, -1):
        keys[i] = keys[i - 1]
        quantities[i] = quantities[i - 1]
    keys[at] = key
    quantities[at] = lots
    st.n[side] = n + 1
    note_change(st, side, key)


@kernel
def lots_at(st: Market, side: int, key: int) -> int:
    """Quantity at a key, 0 where there is no level."""
    n = st.n[side]
    at = find(st.keys[side], n, key)
    return st.lots[side, at] if at < n and st.keys[side, at] == key else 0


@kernel
def sort_changes(st: Market, side: int) -> None:
    """Order the changed keys from best to worst, as the venue prints them."""
    changed = st.changed[side]
    for i in range(1, st.n_changed[side]):
        key = changed[i]
        k = i - 1
        while k >= 0 and changed[k] < key:
            changed[k + 1] = changed[k]
            k -= 1
        changed[k + 1] = key


@kernel
def nearly_full(st: Market) -> bool:
    """Whether the next event might overflow the list of changes."""
    return max(st.n_changed[0], st.n_changed[1]) > CHANGES - 64
