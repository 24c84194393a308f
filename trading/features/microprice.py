"""The microprice (Stoikov 2018): where the mid is going, given spread and imbalance of the best; fitted offline.

`microprice = mid + g(imbalance, spread)`, g a table of MICRO_SPREADS spreads (1, 2, .. ticks) by MICRO_IMBALANCES bins of
`I = qb/(qb + qa)`. States of the book form a Markov chain, seen at its changes: Q moves between states while the mid stands,
T is where it goes when the mid moves, r the expected move. Then `G1 = (1 - Q)^-1 r`, `B = (1 - Q)^-1 T`, `g = sum B^k G1`.
The data are made symmetric (each move also mirrored), without which the sum does not converge.

Without a table (none was fitted and set) and at spreads beyond it the microprice is the weighted mid `I Pa + (1 - I) Pb`.

What this module is not: it reads no file; the fit takes market records of one symbol.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.features.bars import Fields, Rec
from trading.features.model_layout import MICRO_IMBALANCES, MICRO_SPREADS
from trading.jit import Floats, Recs, lean
from trading.records import Flag, Kind

STATES: Final = MICRO_SPREADS * MICRO_IMBALANCES
ROUNDS: Final = 200
"""Terms of the sum at most; it ends earlier when a term is below 1e-12 ticks."""

FIELDS: Final[Fields] = (
    ("micro_fitted", "i8"),
    ("micro_table", "f8", MICRO_SPREADS * MICRO_IMBALANCES),  # microprice less mid, ticks
)
"""What is kept per symbol."""


@lean
def weighted_mid_gap(book: Rec) -> float:
    """`I Pa + (1 - I) Pb` of the best in `book`, less the mid, ticks: half the spread times the imbalance."""
    bid_lots, ask_lots = book.bid_lots[0], book.ask_lots[0]
    return 0.5 * (book.ask_ticks[0] - book.bid_ticks[0]) * ((bid_lots - ask_lots) / float(bid_lots + ask_lots))


@lean
def state_of(spread_ticks: int, bid_lots: int, ask_lots: int) -> int:
    """Place in the table; -1 for a spread beyond it."""
    if spread_ticks > MICRO_SPREADS:
        return -1
    share = bid_lots / float(bid_lots + ask_lots)
    return (spread_ticks - 1) * MICRO_IMBALANCES + min(MICRO_IMBALANCES - 1, int(share * MICRO_IMBALANCES))


@lean
def gap(s: Rec, book: Rec) -> float:
    """The microprice of the best in `book`, less the mid, ticks; `s` has the FIELDS."""
    if s.micro_fitted != 0:
        at = state_of(book.ask_ticks[0] - book.bid_ticks[0], book.bid_lots[0], book.ask_lots[0])
        if at >= 0:
            return s.micro_table[at]
    return weighted_mid_gap(book)


@lean
def _count(recs: Recs, stay: Floats, move: Floats, drift: Floats) -> int:
    """Count transitions between usable neighbours; symmetric: each also mirrored. Returns how often the mid moved."""
    before = -1
    twice = 0
    moves = 0
    for i in range(len(recs)):
        rec = recs[i]
        if rec.kind == Kind.TRADE or rec.kind == Kind.MARK:
            continue
        if not rec.flags & _VALID or rec.bid_lots[0] <= 0 or rec.ask_lots[0] <= 0 or rec.ask_ticks[0] <= rec.bid_ticks[0]:
            before = -1
            continue
        now = state_of(rec.ask_ticks[0] - rec.bid_ticks[0], rec.bid_lots[0], rec.ask_lots[0])
        change = rec.bid_ticks[0] + rec.ask_ticks[0] - twice
        twice += change
        if before >= 0 and now >= 0:
            other_before = _mirrored(before)
            other_now = _mirrored(now)
            if change == 0:
                stay[before, now] += 1.0
                stay[other_before, other_now] += 1.0
            else:
                move[before, now] += 1.0
                move[other_before, other_now] += 1.0
                drift[before] += 0.5 * change
                drift[other_before] -= 0.5 * change
                moves += 1
        before = now
    return moves


@lean
def _mirrored(state: int) -> int:
    imbalance = state % MICRO_IMBALANCES
    return state - imbalance + MICRO_IMBALANCES - 1 - imbalance


_VALID: Final = int(Flag.BOOK_VALID)


def fit_microprice(market: Recs) -> Floats:
    """Table g, ticks, shape (MICRO_SPREADS, MICRO_IMBALANCES), from MARKET_RECORDs of one symbol in their order.

    States that never occur have g 0. Raises ValueError if the mid never moves between states of the table.
    """
    stay, move, drift = np.zeros((STATES, STATES)), np.zeros((STATES, STATES)), np.zeros(STATES)
    if _count(market, stay, move, drift) == 0:
        raise ValueError("the mid never moves in these records: give a longer recording of one symbol")
    total = stay.sum(1) + move.sum(1)
    seen = (total > 0) & ((stay + move).sum(0) > 0)
    index = np.flatnonzero(seen)
    scale = total[index][:, None]
    q, t, r = stay[np.ix_(index, index)] / scale, move[np.ix_(index, index)] / scale, drift[index] / scale[:, 0]
    # a state that never leads to a move would make 1 - Q singular: the smallest leak bounds its inverse
    inverse = np.linalg.inv(np.eye(len(index)) * (1.0 + 1e-9) - q)
    term = inverse @ r
    b = inverse @ t
    g = term.copy()
    for _ in range(ROUNDS):
        term = b @ term
        g += term
        if np.abs(term).max() < 1e-12:
            break
    table = np.zeros(STATES)
    table[index] = g
    return table.reshape(MICRO_SPREADS, MICRO_IMBALANCES)


def set_microprice(state: Recs, symbol: int, table: Floats) -> None:
    """Use a fitted table for a symbol from its next record on. Raises ValueError on another shape and on figures not finite."""
    if table.shape != (MICRO_SPREADS, MICRO_IMBALANCES) or not np.isfinite(table).all():
        raise ValueError(f"a microprice table is {MICRO_SPREADS} x {MICRO_IMBALANCES} finite figures; fit_microprice makes one")
    state["micro_table"][symbol] = table.reshape(-1)
    state["micro_fitted"][symbol] = 1
