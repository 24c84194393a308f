"""Each trade once: which of a symbol's newest trade ids have come, as a bitmap, so that copies from a second line are told apart.

An id older than the window counts as come: a copy that is 4,096 trades late is likelier than news. Ids of `trade` and of
`aggTrade` messages are two numberings, each with a window of its own.

What this module is not: it counts no gaps; trade ids of some venues have holes by nature.
"""

from __future__ import annotations

from typing import Final

from trading.books.state import LATE_LIMIT, TRADE_WINDOW, State
from trading.jit import kernel

_MASK: Final = TRADE_WINDOW - 1
_WORDS: Final = TRADE_WINDOW // 64


@kernel
def forget_trades(st: State) -> None:
    """No trade has come: the venue counts anew."""
    for which in range(2):
        st.trade_newest[which] = 0
        st.trade_late_run[which] = 0
        for i in range(_WORDS):
            st.trade_seen[which, i] = 0


@kernel
def is_new_trade(st: State, which: int, trade_id: int) -> bool:
    """Whether the trade with this id (> 0) comes for the first time; notes that it has come. `which`: 0 trade, 1 aggTrade."""
    newest = st.trade_newest[which]
    word = (trade_id & _MASK) >> 6
    bit = 1 << (trade_id & 63)
    if trade_id > newest:
        if trade_id - newest >= TRADE_WINDOW:
            for i in range(_WORDS):
                st.trade_seen[which, i] = 0
        else:
            for skipped in range(newest + 1, trade_id):
                st.trade_seen[which, (skipped & _MASK) >> 6] &= ~(1 << (skipped & 63))
        st.trade_newest[which] = trade_id
    elif newest - trade_id >= TRADE_WINDOW:
        st.trade_late_run[which] += 1
        if st.trade_late_run[which] < LATE_LIMIT:
            return False
        for i in range(_WORDS):
            st.trade_seen[which, i] = 0
        st.trade_newest[which] = trade_id
    elif st.trade_seen[which, word] & bit != 0:
        return False
    st.trade_seen[which, word] |= bit
    st.trade_late_run[which] = 0
    return True
