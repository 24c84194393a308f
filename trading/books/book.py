"""One order book as plain int64 arrays: every price level, best first, without allocation.

A side is kept by *key*: the price in ticks for asks, minus the price for bids, so that on both sides the best level is
the smallest key and one code serves both. Near the best, quantities stand in a dense window of WINDOW keys, used as
a ring (slot = key mod WINDOW: moving the window copies nothing), with a bitmap of three levels to find the next one:

    lots  [ .  .  7  .  2  .  . ...  ]   one word a key, meaningful only where its bit is set
    bits0 one bit a key      bits1 one bit a word of bits0      bits2 one bit a word of bits1

Levels beyond the window are kept in `far`, sorted worst first. Far out the same prices come and go over and over, so a
removed level stays there with 0 lots, a dead entry: its return moves nothing, a new level takes the place of a dead
neighbour if it has one, and at worst moves the levels up to the nearest dead one, or the tail behind it.

Invariants: every level with key < base + WINDOW is in the window, none lies below `base`; `best` is the smallest key
(NO_KEY: the side is empty); of `far_used` far entries `far_count` are alive, the last of them always. When FAR levels
are alive there, the worst is forgotten for a better one and counted in `levels_dropped`.

What is known: up to key `edge`, by side, every level of the venue stands here; beyond it single levels may stand, and others
may be missing (beyond a venue's snapshot, or forgotten for want of room). NO_KEY: the whole side is known.

What this module is not: it knows no message, sequence or venue; whether the book is right is the feed fold's business.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from trading.jit import kernel, lowest_bit
from trading.records import LEVELS

BID: Final = 0
ASK: Final = 1

WINDOW: Final = 16384
FAR: Final = 5120
NO_KEY: Final = 2**62
_MASK: Final = WINDOW - 1
_MARGIN: Final = WINDOW // 8  # keys kept free before the best level when the window is placed
_DRIFT: Final = WINDOW // 4  # the window follows when the best level has gone further than this from its base
_WORDS0: Final = WINDOW // 64
_WORDS1: Final = _WORDS0 // 64
_REACH: Final = 48  # entries looked at on either side for a dead one, before the tail is moved instead

assert WINDOW & _MASK == 0 and 1 <= _WORDS1 <= 64, "the bitmap has three levels of 64 bits"
assert FAR >= 5000, "a snapshot of 5000 levels a side must fit however thin the book is"

BOOK_FIELDS: Final[tuple[Any, ...]] = (
    ("base", "i8", 2),  # first key of the window, by side
    ("best", "i8", 2),  # smallest key or NO_KEY
    ("edge", "i8", 2),  # largest key up to which no level is missing; NO_KEY: none is
    ("near_count", "i8", 2),  # levels in the window
    ("far_count", "i8", 2),  # levels beyond the window
    ("far_used", "i8", 2),  # entries there, dead ones among them
    ("levels_dropped", "i8"),
    ("window_moves", "i8"),
    ("top_ticks", "i8", (2, LEVELS)),  # what `fill_top` was last asked for; 0: no such level
    ("top_lots", "i8", (2, LEVELS)),
    ("bits2", "i8", 2),
    ("bits1", "i8", (2, _WORDS1)),
    ("bits0", "i8", (2, _WORDS0)),
    ("lots", "i8", (2, WINDOW)),
    ("far_key", "i8", (2, FAR)),
    ("far_lots", "i8", (2, FAR)),
)
"""Fields of a book's state, to stand in a larger state record. Kernels take such a record (`book = state[i]`)."""

BOOK: Final = np.dtype(list(BOOK_FIELDS), align=True)

Book = Any
"""A numba record that has BOOK_FIELDS."""


@intrinsic
def _shift(typingctx: Any, words: Any, to: Any, start: Any, count: Any) -> Any:
    """memmove within a contiguous int64 array: words[to:to + count] = words[start:start + count]. Bounds are the caller's."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        target = builder.gep(array.data, [args[1]])
        source = builder.gep(array.data, [args[2]])
        cgutils.raw_memmove(builder, target, source, args[3], 8)
        return context.get_dummy_value()

    if isinstance(words, types.Array) and words.dtype == types.int64 and words.ndim == 1:
        return types.none(words, types.int64, types.int64, types.int64), codegen
    return None


@kernel
def _shift_far(book: Book, side: int, to: int, start: int, count: int) -> None:
    """Move `count` far levels from index `start` to index `to`."""
    if count > 0:
        _shift(book.far_key[side], to, start, count)
        _shift(book.far_lots[side], to, start, count)


@kernel
def clear(book: Book) -> None:
    """Forget all levels. Quantities stay behind in the arrays; without their bit they mean nothing."""
    for side in range(2):
        book.base[side] = 0
        book.best[side] = NO_KEY
        book.edge[side] = NO_KEY
        book.near_count[side] = 0
        book.far_count[side] = 0
        book.far_used[side] = 0
        book.bits2[side] = 0
        for i in range(_WORDS1):
            book.bits1[side, i] = 0
        for i in range(_WORDS0):
            book.bits0[side, i] = 0


@kernel
def _next_slot(book: Book, side: int, slot: int) -> int:
    """The first occupied slot at or after `slot`, -1 if there is none up to the end of the ring."""
    w = slot >> 6
    found = book.bits0[side, w] & (-1 << (slot & 63))
    if found != 0:
        return (w << 6) | lowest_bit(found)
    w += 1
    if w >= _WORDS0:
        return -1
    v = w >> 6
    found = book.bits1[side, v] & (-1 << (w & 63))
    if found == 0:
        v += 1
        if v >= _WORDS1:
            return -1
        found = book.bits2[side] & (-1 << v)
        if found == 0:
            return -1
        v = lowest_bit(found)
        found = book.bits1[side, v]
    w = (v << 6) | lowest_bit(found)
    return (w << 6) | lowest_bit(book.bits0[side, w])


@kernel
def next_near(book: Book, side: int, key: int) -> int:
    """The smallest occupied key of the window at or after `key` (>= base), NO_KEY if there is none."""
    limit = book.base[side] + WINDOW
    if key >= limit:
        return NO_KEY
    slot = key & _MASK
    found = _next_slot(book, side, slot)
    if found < 0:
        found = _next_slot(book, side, 0) + WINDOW
        if found < WINDOW:
            return NO_KEY
    key += found - slot
    return key if key < limit else NO_KEY


@kernel
def _occupy(book: Book, side: int, key: int, lots: int) -> None:
    """Set a level within the window; `lots` > 0."""
    slot = key & _MASK
    book.lots[side, slot] = lots
    w = slot >> 6
    bit = 1 << (slot & 63)
    word = book.bits0[side, w]
    if word & bit != 0:
        return
    book.bits0[side, w] = word | bit
    book.near_count[side] += 1
    if word == 0:
        v = w >> 6
        book.bits1[side, v] |= 1 << (w & 63)
        book.bits2[side] |= 1 << v
    if key < book.best[side]:
        book.best[side] = key


@kernel
def _vacate(book: Book, side: int, key: int) -> bool:
    """Clear a level within the window; whether there was one. Leaves `best` alone."""
    slot = key & _MASK
    w = slot >> 6
    bit = 1 << (slot & 63)
    word = book.bits0[side, w]
    if word & bit == 0:
        return False
    word ^= bit
    book.bits0[side, w] = word
    book.near_count[side] -= 1
    if word == 0:
        v = w >> 6
        book.bits1[side, v] ^= 1 << (w & 63)
        if book.bits1[side, v] == 0:
            book.bits2[side] ^= 1 << v
    return True


@kernel
def _far_place(book: Book, side: int, key: int) -> int:
    """Index of the first far entry whose key is <= `key` (they stand worst first), dead or alive."""
    low = 0
    n = book.far_used[side]
    if n == 0:
        return 0
    # halving without a branch that depends on the keys: the processor cannot guess those
    while n > 1:
        half = n >> 1
        low += half if book.far_key[side, low + half - 1] > key else 0
        n -= half
    return low + (1 if book.far_key[side, low] > key else 0)


@kernel
def next_far(book: Book, side: int, key: int) -> int:
    """The smallest far key at or after `key`; NO_KEY if there is none."""
    place = _far_place(book, side, key)  # at `key` itself, if it is there; else one past the next
    if place < book.far_used[side] and book.far_key[side, place] == key and book.far_lots[side, place] > 0:
        return key
    place -= 1
    while place >= 0 and book.far_lots[side, place] == 0:
        place -= 1
    return book.far_key[side, place] if place >= 0 else NO_KEY


@kernel
def worst_far(book: Book, side: int) -> int:
    """The largest far key; there is one (`far_count` > 0)."""
    place = 0
    while book.far_lots[side, place] == 0:
        place += 1
    return book.far_key[side, place]


@kernel
def _drop_dead_end(book: Book, side: int) -> None:
    """Let the last far entry be a live one."""
    used = book.far_used[side]
    while used > 0 and book.far_lots[side, used - 1] == 0:
        used -= 1
    book.far_used[side] = used


@kernel
def _drop_dead(book: Book, side: int) -> None:
    """Close up the far levels: no dead entries."""
    used = 0
    for i in range(book.far_used[side]):
        if book.far_lots[side, i] > 0:
            book.far_key[side, used] = book.far_key[side, i]
            book.far_lots[side, used] = book.far_lots[side, i]
            used += 1
    book.far_used[side] = used


@kernel
def _far_room(book: Book, side: int, place: int) -> int:
    """Make an entry free between those at `place - 1` and `place`, both alive; where it is. Some entry is free or dead."""
    used = book.far_used[side]
    reach = used if used == FAR else min(_REACH, used - place)
    for d in range(1, reach):
        if place + d < used and book.far_lots[side, place + d] == 0:
            _shift_far(book, side, place + 1, place, d)
            return place
        if place - 1 - d >= 0 and book.far_lots[side, place - 1 - d] == 0:
            _shift_far(book, side, place - 1 - d, place - d, d)
            return place - 1
    _shift_far(book, side, place + 1, place, used - place)
    book.far_used[side] = used + 1
    return place


@kernel
def _far_set(book: Book, side: int, key: int, lots: int) -> None:
    """Set (lots > 0) or remove (0) a level beyond the window."""
    used = book.far_used[side]
    place = _far_place(book, side, key)
    if place < used and book.far_key[side, place] == key:
        book.far_count[side] += (1 if lots > 0 else 0) - (1 if book.far_lots[side, place] > 0 else 0)
        book.far_lots[side, place] = lots
        if lots == 0 and place == used - 1:
            _drop_dead_end(book, side)
        return
    if lots == 0:
        return
    if book.far_count[side] == FAR:
        book.levels_dropped += 1
        if place == 0:
            book.edge[side] = min(book.edge[side], key - 1)
            return
        place -= 1
        book.edge[side] = min(book.edge[side], book.far_key[side, 0] - 1)
        _shift_far(book, side, 0, 1, place)
    else:
        book.far_count[side] += 1
        if place > 0 and book.far_lots[side, place - 1] == 0:
            place -= 1
        elif place == used or book.far_lots[side, place] > 0:
            place = _far_room(book, side, place)
    book.far_key[side, place] = key
    book.far_lots[side, place] = lots


@kernel
def _evict(book: Book, side: int, first: int) -> None:
    """Take all window levels with key >= `first` over to `far`, whose levels are all worse than these."""
    moved = 0
    key = next_near(book, side, first)
    while key != NO_KEY:
        moved += 1
        key = next_near(book, side, key + 1)
    _drop_dead(book, side)
    count = book.far_count[side]
    excess = max(0, count + moved - FAR)
    book.levels_dropped += excess
    if 0 < excess <= count:
        book.edge[side] = min(book.edge[side], book.far_key[side, excess - 1] - 1)
    _shift_far(book, side, 0, excess, count - excess)
    place = count + moved - excess  # the best of the evicted ends up last
    book.far_count[side] = place
    book.far_used[side] = place
    key = next_near(book, side, first)
    while key != NO_KEY:
        place -= 1
        if place >= 0:
            book.far_key[side, place] = key
            book.far_lots[side, place] = book.lots[side, key & _MASK]
        else:
            book.edge[side] = min(book.edge[side], key - 1)
        _vacate(book, side, key)
        key = next_near(book, side, key + 1)


@kernel
def _move_window(book: Book, side: int, base: int) -> None:
    """Let the window start at `base`, at or below the best level; levels change places with `far` as needed."""
    book.window_moves += 1
    old = book.base[side]
    if base < old:
        _evict(book, side, max(old, base + WINDOW))
        book.base[side] = base
        return
    book.base[side] = base
    used = book.far_used[side]
    while used > 0 and book.far_key[side, used - 1] < base + WINDOW:
        used -= 1
        if book.far_lots[side, used] > 0:
            _occupy(book, side, book.far_key[side, used], book.far_lots[side, used])
            book.far_count[side] -= 1
    book.far_used[side] = used
    _drop_dead_end(book, side)


@kernel
def _best_is_gone(book: Book, side: int) -> None:
    """Find the next best level behind the one that has been removed; the window moves to it if it lies beyond."""
    best = next_near(book, side, book.best[side] + 1)
    if best == NO_KEY and book.far_count[side] > 0:
        best = book.far_key[side, book.far_used[side] - 1]
        book.best[side] = best
        _move_window(book, side, best - _MARGIN)
    book.best[side] = best


@kernel
def _set_near(book: Book, side: int, key: int, lots: int) -> None:
    """Set or remove a level within the window of a side that has levels.

    Whether a level comes, changes or goes is what the processor cannot guess: no branch depends on it but where the levels'
    own bits make a difference, the last of a word and the best.
    """
    slot = key & _MASK
    w = slot >> 6
    place = slot & 63
    word = book.bits0[side, w]
    on = 1 if lots > 0 else 0
    changed = (word & ~(1 << place)) | (on << place)
    book.bits0[side, w] = changed
    book.lots[side, slot] = lots
    book.near_count[side] += on - ((word >> place) & 1)
    if (word == 0) != (changed == 0):
        v = w >> 6
        book.bits1[side, v] ^= 1 << (w & 63)
        if book.bits1[side, v] == 0:
            book.bits2[side] &= ~(1 << v)
        else:
            book.bits2[side] |= 1 << v
    if key <= book.best[side]:
        if on != 0:
            book.best[side] = key
        elif key == book.best[side]:
            _best_is_gone(book, side)


@kernel
def set_level(book: Book, side: int, key: int, lots: int) -> None:
    """The level at `key` (asks: price in ticks, bids: minus that) now has `lots`; 0 removes it. |key| < 2**61."""
    offset = key - book.base[side]
    if book.best[side] == NO_KEY:
        if lots > 0:
            book.base[side] = key - _MARGIN
            _occupy(book, side, key, lots)
    elif 0 <= offset < WINDOW:
        _set_near(book, side, key, lots)
    elif offset >= WINDOW:
        _far_set(book, side, key, lots)
    elif lots > 0:
        _move_window(book, side, key - _MARGIN)
        book.best[side] = key
        _occupy(book, side, key, lots)


@kernel
def follow(book: Book) -> None:
    """Move each window after its best level if that has drifted; call it once a message."""
    for side in range(2):
        best = book.best[side]
        if best != NO_KEY and best - book.base[side] > _DRIFT:
            _move_window(book, side, best - _MARGIN)


@kernel
def widen(book: Book) -> None:
    """What the other side proves: at or through its best price nothing stands, so that nothing can be missing there."""
    book.edge[BID] = max(book.edge[BID], -book.best[ASK])
    book.edge[ASK] = max(book.edge[ASK], -book.best[BID])


@kernel
def is_crossed(book: Book) -> bool:
    """Best bid >= best ask (a locked book counts as crossed); never so with an empty side."""
    return book.best[BID] != NO_KEY and book.best[ASK] != NO_KEY and book.best[BID] + book.best[ASK] <= 0


@kernel
def lots_at(book: Book, side: int, key: int) -> int:
    """Quantity at a key, 0 if there is no such level."""
    offset = key - book.base[side]
    if book.best[side] == NO_KEY or offset < 0:
        return 0
    if offset < WINDOW:
        slot = key & _MASK
        return book.lots[side, slot] if book.bits0[side, slot >> 6] & (1 << (slot & 63)) != 0 else 0
    place = _far_place(book, side, key)
    if place < book.far_used[side] and book.far_key[side, place] == key:
        return book.far_lots[side, place]
    return 0


@kernel
def next_key(book: Book, side: int, key: int) -> int:
    """The smallest occupied key at or after `key`, in the window or beyond; NO_KEY if there is none."""
    if book.best[side] == NO_KEY:
        return NO_KEY
    key = max(key, book.best[side])
    found = next_near(book, side, key)
    return found if found != NO_KEY or book.far_count[side] == 0 else next_far(book, side, key)


@kernel
def fill_top(book: Book, side: int, key: int, first: int) -> None:
    """Fill `top_ticks[side, first:]` and `top_lots` with the levels at or after `key`, best first, zeros when they run out."""
    i = first
    best = book.best[side]
    if best != NO_KEY:
        key = max(key, best)
        while i < LEVELS:
            found = next_near(book, side, key)
            if found != NO_KEY:
                lots = book.lots[side, found & _MASK]
            else:
                found = next_key(book, side, key)
                if found == NO_KEY:
                    break
                lots = lots_at(book, side, found)
            book.top_ticks[side, i] = found if side == ASK else -found
            book.top_lots[side, i] = lots
            key = found + 1
            i += 1
    while i < LEVELS:
        book.top_ticks[side, i] = 0
        book.top_lots[side, i] = 0
        i += 1


@kernel
def count_levels(book: Book, side: int) -> int:
    """Levels that this side knows."""
    return book.near_count[side] + book.far_count[side]
