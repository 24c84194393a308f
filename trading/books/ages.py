"""The age of each stream of a symbol: a stream that dies alone, while others of the symbol go on, is noticed by what they show.

A venue owes no depth message while its book does not change, so time alone proves nothing. What the other streams show does:

    owes   because                                                                       until
    depth  a best bid/offer differs from the book's (and is of a newer id, if it has one)  depth reaches that id, or they agree
    depth  PROOFS prints beyond the book's best prices                                     depth speaks, or they agree
    bbo    the book's best differs from what the best bid/offer stream said last           it speaks, or they agree
    bbo    a print has come (of venues whose BestRule is PRINTS)                           it speaks

That they agree again pays nothing once the best bid/offer has moved away MOVES times while depth was silent for longer than the
limit: the levels behind the best are old, whatever the best is. Once or twice it may have been back before depth was due.

What is owed for longer than `owed_limit_ns` and is still owed CONFIRM_NS after that was first seen makes the stream dead: a
process that was stopped finds everything at once, and what it owes is paid within moments. A dead stream of depth takes the
book with it; while depth or best bid/offer are dead, records carry Flag.STREAM_DEAD instead of BOOK_VALID.

Nothing proves that prints are missing. They are called dead when they have been silent for `silence_ns` and LONGER times the
longest gap of the last USUAL_NS or so, while other streams of the symbol go on: Flag.PRINTS_DEAD. The same holds for mark prices,
of which nothing else depends.

Time is the record's. A symbol of which nothing at all comes is the receiver's to notice: here nothing happens then.

What this module is not: it changes no book (`trading.books.fold` does) and subscribes nothing (procs.receiver.stream_watch).
"""

from __future__ import annotations

from typing import Any, Final

from trading.books import book
from trading.books.state import STREAMS, SYNCED, State
from trading.instruments import by_market
from trading.jit import Recs, kernel
from trading.records import Flag, Stream
from trading.venues.names import BestRule

CONFIRM_NS: Final = 250_000_000
PROOFS: Final = 3
"""Prints beyond the book since its last message: one may be a block trade that the book never knew."""
MOVES: Final = 4
LONGER: Final = 3
USUAL_NS: Final = 600_000_000_000
_MS: Final = 1_000_000
_DEPTH: Final = int(Stream.DEPTH)
_BBO: Final = int(Stream.BBO)
_PRINTS: Final = int(Stream.PRINTS)
_BOOKS: Final = 1 << Stream.DEPTH | 1 << Stream.BBO
_VALID: Final = int(Flag.BOOK_VALID | Flag.BEYOND_EDGE)
_STREAM_DEAD: Final = int(Flag.STREAM_DEAD)
_PRINTS_DEAD: Final = int(Flag.PRINTS_DEAD)
_PRICES: Final = int(BestRule.PRICES)
_WITH_PRINTS: Final = int(BestRule.PRINTS)
_NEVER: Final = int(BestRule.NEVER)
_BEST_RULES: Final = by_market(lambda facts: facts.best, _NEVER)


@kernel
def forget_ages(st: State) -> None:
    """The lines are down: what comes next begins anew. How often prints came is still known."""
    st.dead = 0
    for stream in range(STREAMS):
        st.heard_ns[stream] = 0
        st.owed_ns[stream] = 0
        st.late_ns[stream] = 0
    st.owed_id = 0
    st.moves = 0
    st.beyond = 0


@kernel
def hear(st: State, stream: int, ts_ns: int) -> None:
    """A message of the stream has come."""
    before = st.heard_ns[stream]
    if stream >= _PRINTS and before != 0:
        gap = (ts_ns - before) // _MS  # in ms, so that the product below has room
        usual = st.usual_ns[stream] // _MS
        st.usual_ns[stream] = max(gap, usual - usual * min(gap, USUAL_NS // _MS) // (USUAL_NS // _MS)) * _MS
    st.heard_ns[stream] = ts_ns
    if stream != _DEPTH:
        st.owed_ns[stream] = 0
        st.late_ns[stream] = 0
        st.dead &= ~(1 << stream)


@kernel
def _pay_depth(st: State) -> None:
    st.owed_ns[_DEPTH] = 0
    st.late_ns[_DEPTH] = 0
    st.owed_id = 0


@kernel
def revive(st: State) -> None:
    """The book has become valid: its stream lives, and neither owes anything yet."""
    st.dead &= ~(1 << _DEPTH)
    st.owed_ns[_BBO] = 0
    st.late_ns[_BBO] = 0
    st.beyond = 0
    st.moves = 0
    _pay_depth(st)


@kernel
def _agrees(st: State, prices_alone: bool) -> bool:
    """Whether the last best bid/offer message says what stands in the depth book."""
    for side in range(2):
        ticks = st.told_best[2 * side]
        key = book.NO_KEY if ticks == 0 else (ticks if side == book.ASK else -ticks)
        best = st.best[side]
        if key != best:
            return False
        if not prices_alone and best != book.NO_KEY and book.lots_at(st, side, best) != st.told_best[2 * side + 1]:
            return False
    return True


@kernel
def after_depth(st: State, ts_ns: int, market: int) -> None:
    """A message of the depth stream has become the book, which is SYNCED."""
    st.beyond = 0
    st.moves = 0
    if st.owed_id == 0 or st.last_id >= st.owed_id:
        _pay_depth(st)
        if st.bbo_id > st.last_id and st.bbos_late_run == 0 and not _agrees(st, False):
            st.owed_ns[_DEPTH] = ts_ns
            st.owed_id = st.bbo_id
    rule = _BEST_RULES[market]
    if rule >= _WITH_PRINTS or st.heard_ns[_BBO] == 0:
        return
    if st.bbo_id >= st.last_id or _agrees(st, rule == _PRICES):
        st.owed_ns[_BBO] = 0
        st.late_ns[_BBO] = 0
    elif st.owed_ns[_BBO] == 0:
        st.owed_ns[_BBO] = ts_ns


@kernel
def after_bbo(st: State, g: Any, owed_limit_ns: int, market: int) -> None:
    """A best bid/offer message is dealt with; its figures stand in FEED_GLOBAL."""
    changed = False
    for side in range(2):
        if st.told_best[2 * side] != g.bbo_ticks[side] or st.told_best[2 * side + 1] != g.bbo_lots[side]:
            changed = True
        st.told_best[2 * side] = g.bbo_ticks[side]
        st.told_best[2 * side + 1] = g.bbo_lots[side]
    if st.phase != SYNCED:
        return
    known = 0 < g.last_id <= st.last_id
    if known or _agrees(st, _BEST_RULES[market] != BestRule.CHANGES):
        if st.moves < MOVES and (not known or st.owed_id == 0):
            _pay_depth(st)  # what was owed came to nothing, and prints that spoke against the book were none of its
            st.beyond = 0
        return
    if st.owed_ns[_DEPTH] == 0:
        st.owed_ns[_DEPTH] = g.ts_ns
    if st.owed_id == 0:
        st.owed_id = g.last_id
    if changed and g.ts_ns - st.heard_ns[_DEPTH] > owed_limit_ns:
        st.moves += 1  # this is no message that came late: the venue's best has moved, and depth did not say so


@kernel
def before_print(st: State, g: Any, market: int) -> None:
    """A print is in hand; its price stands in FEED_GLOBAL."""
    if st.phase != SYNCED:
        return
    price = g.bbo_ticks[0]
    ask = st.best[book.ASK]
    bid = st.best[book.BID]
    if (ask != book.NO_KEY and price > ask) or (bid != book.NO_KEY and price < -bid):
        st.beyond += 1
        if st.beyond >= PROOFS and st.owed_ns[_DEPTH] == 0:
            st.owed_ns[_DEPTH] = g.ts_ns
    if _BEST_RULES[market] == _WITH_PRINTS and st.heard_ns[_BBO] != 0 and st.owed_ns[_BBO] == 0:
        st.owed_ns[_BBO] = g.ts_ns


@kernel
def died(st: State, ts_ns: int, owed_limit_ns: int, silence_ns: int) -> int:
    """Streams that are found dead now, a bit each; counts them. Most often 0."""
    found = 0
    for stream in range(STREAMS):
        if (st.dead >> stream) & 1 != 0:
            continue
        if stream < _PRINTS:
            since = st.owed_ns[stream]
            most = owed_limit_ns
            if st.phase != SYNCED:
                continue
        else:
            since = st.heard_ns[stream]
            most = silence_ns + LONGER * st.usual_ns[stream]
        if since == 0 or ts_ns - since <= most:
            continue
        if st.late_ns[stream] == 0:
            st.late_ns[stream] = ts_ns
        elif ts_ns - st.late_ns[stream] >= CONFIRM_NS:
            found |= 1 << stream
            st.deaths[stream] += 1
    st.dead |= found
    return found


@kernel
def flags_of(st: State, flags: int) -> int:
    """The flags of a market record, with what its dead streams take from them and add."""
    if st.dead & _BOOKS != 0:
        flags = (flags & ~_VALID) | _STREAM_DEAD
    if (st.dead >> _PRINTS) & 1 != 0:
        flags |= _PRINTS_DEAD
    return flags


@kernel
def amend(st: State, m: int, market_out: Recs) -> None:
    """Put into a record that is written already what is known since."""
    if m > 0:
        market_out[0].flags = flags_of(st, market_out[0].flags)
