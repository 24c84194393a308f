"""The diffs that a symbol keeps while its book cannot take them: sorted by last id, each once, in a bounded room.

They wait for a snapshot, or for the diff that is missing before them. Holes among them are allowed: late copies and a second
line's messages fill them in any order. Whether the rest is whole is asked when it matters (`whole_from`).

What this module is not: it changes no book but in `apply_kept`, and it decides nothing.
"""

from __future__ import annotations

from typing import Any, Final

from trading.books import book
from trading.books.state import (
    HEAD,
    P_CHECKSUM,
    P_FIRST,
    P_FLAGS,
    P_LAST,
    P_LEVELS,
    P_PREV,
    PENDING_WORDS,
    State,
)
from trading.books.sync_rules import connects, follows, is_older
from trading.books.told import depth_record
from trading.jit import Recs, kernel
from trading.records import Flag, Kind

_ASK: Final = int(Flag.ASK)
_VALID: Final = int(Flag.BOOK_VALID)
_LAST: Final = int(Flag.LAST)

KEPT: Final = 1
KNOWN: Final = 0
DROPPED: Final = -1


@kernel
def forget_kept(st: State) -> None:
    """Keep nothing; the next diff begins anew."""
    st.pending_used = 0
    st.pending_last = 0


@kernel
def _size(st: State, at: int) -> int:
    return HEAD + 2 * st.pending[at + P_LEVELS]


@kernel
def drop_front(st: State, at: int) -> None:
    """Drop what stands before word `at`."""
    if at > 0:
        for i in range(at, st.pending_used):
            st.pending[i - at] = st.pending[i]
        st.pending_used -= at


@kernel
def _make_room(st: State, need: int) -> bool:
    """Let the oldest go until `need` words fit, half of the room at once so that the moving is rare; False if any went."""
    if st.pending_used + need <= PENDING_WORDS:
        return True
    at = 0
    while at < st.pending_used and (at < PENDING_WORDS // 2 or st.pending_used - at + need > PENDING_WORDS):
        at += _size(st, at)
        st.pending_dropped += 1
    drop_front(st, at)
    return False


@kernel
def keep(st: State, g: Any, rows: Recs) -> int:
    """Put the diff in the rows among those kept. KNOWN: it was there; DROPPED: older ones, or it itself, had to go for room."""
    at = st.pending_used
    if st.pending_last != 0:
        if g.last_id <= st.pending_last:
            at = 0
            while at < st.pending_used and st.pending[at + P_LAST] < g.last_id:
                at += _size(st, at)
            if at < st.pending_used and st.pending[at + P_LAST] == g.last_id:
                st.duplicates += 1
                return KNOWN
        elif not follows(g.rule, g.first_id, g.prev_id, st.pending_last):
            st.gaps += 1
    need = HEAD + 2 * g.n_levels
    if need > PENDING_WORDS:
        forget_kept(st)
        st.pending_dropped += 1
        return DROPPED
    whole = _make_room(st, need)
    if not whole:
        at = 0
        while at < st.pending_used and st.pending[at + P_LAST] < g.last_id:
            at += _size(st, at)
    i = st.pending_used - 1
    while i >= at:
        st.pending[i + need] = st.pending[i]
        i -= 1
    st.pending_used += need
    st.pending_last = max(st.pending_last, g.last_id)
    st.pending[at + P_FIRST] = g.first_id
    st.pending[at + P_LAST] = g.last_id
    st.pending[at + P_PREV] = g.prev_id
    st.pending[at + P_FLAGS] = g.plain_flags
    st.pending[at + P_CHECKSUM] = g.checksum
    st.pending[at + P_LEVELS] = g.n_levels
    at += HEAD
    for k in range(g.n_levels):
        st.pending[at] = 2 * rows[k].price_ticks + (1 if rows[k].flags & _ASK != 0 else 0)
        st.pending[at + 1] = rows[k].qty_lots
        at += 2
    return KEPT if whole else DROPPED


@kernel
def whole_from(st: State, snapshot_id: int, rule: int) -> int:
    """The first kept diff that a snapshot does not contain, if it connects and no hole comes after it; -1 if not so.

    `pending_used` where the snapshot contains them all.
    """
    at = 0
    while at < st.pending_used and is_older(rule, st.pending[at + P_LAST], snapshot_id):
        at += _size(st, at)
    if at == st.pending_used:
        return at
    if not connects(rule, st.pending[at + P_FIRST], st.pending[at + P_PREV], snapshot_id):
        return -1
    last = st.pending[at + P_LAST]
    i = at + _size(st, at)
    while i < st.pending_used:
        if not follows(rule, st.pending[i + P_FIRST], st.pending[i + P_PREV], last):
            return -1
        last = st.pending[i + P_LAST]
        i += _size(st, i)
    return at


@kernel
def newest_run(st: State, rule: int) -> int:
    """First id after the last hole among those kept: a snapshot from before it is of no use. 0: nothing is kept."""
    first = 0
    last = 0
    at = 0
    while at < st.pending_used:
        if first == 0 or not follows(rule, st.pending[at + P_FIRST], st.pending[at + P_PREV], last):
            first = st.pending[at + P_FIRST]
        last = st.pending[at + P_LAST]
        at += _size(st, at)
    return first


@kernel
def apply_kept(st: State, g: Any, at: int, n: int, out: Recs) -> int:
    """Bring the book forward by the kept diff at word `at`; told in out[n:], n < 0: not told. Answers the next free row."""
    st.first_id = st.pending[at + P_FIRST]
    st.last_id = st.pending[at + P_LAST]
    count = st.pending[at + P_LEVELS]
    at += HEAD
    for i in range(count):
        side = st.pending[at] & 1
        price = st.pending[at] >> 1
        lots = st.pending[at + 1]
        book.set_level(st, side, price if side == book.ASK else -price, lots)
        if n >= 0:
            flags = _VALID | (_ASK if side == book.ASK else 0) | (_LAST if i == count - 1 else 0)
            depth_record(out[n], g, Kind.DEPTH, flags, price, lots, st.last_id)
            n += 1
        at += 2
    book.follow(st)
    return n
