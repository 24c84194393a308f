"""Where a resting order stands in the queue at its price, guessed from level quantities and prints.

The model is hftbacktest's ProbQueueModel with PowerProbQueueFunc3 (its documentation, "Order Fill: Queue Models"):

- on arrival all displayed quantity is ahead;
- a print at the price takes from the front;
- a decrease that no print explains was cancelled behind us with probability `1 - (ahead / (ahead + behind))**power`
  and ahead of us otherwise: the expected share moves us forward;
- an increase joins behind.

One thing is ours. The model assumes that a print comes before the level change that it caused; Binance spot sends
bookTicker first. So the last unexplained decrease is remembered, and a print within RECENT_NS explains it after the fact:
what it moved us too little is added, instead of counting the same quantity twice.

Quantities are lots (int64); the only float is the probability, and its product is rounded down: the same inputs give
the same queue. What this is not: a fill. The exchange fills when `ahead` has been used up.
"""

from __future__ import annotations

from typing import Final

from trading.jit import kernel

RECENT_NS: Final = 50_000_000


@kernel
def moved_ahead(ahead: int, level: int, decrease: int, power: float) -> int:
    """How many of `decrease` lots cancelled at a level of `level` lots stood ahead of us; 0..min(ahead, decrease)."""
    behind = level - ahead
    if ahead <= 0 or decrease <= 0:
        return 0
    if behind <= 0:
        return min(ahead, decrease)
    p_ahead = (float(ahead) / float(ahead + behind)) ** power
    from_ahead = int(p_ahead * float(decrease))
    # what cannot have been behind was ahead
    return min(ahead, max(from_ahead, decrease - behind))


@kernel
def on_level(ahead: int, level: int, printed: int, new: int, power: float) -> tuple[int, int, int]:
    """The level went from `level` to `new` lots, `printed` of which prints have taken already.

    Returns (ahead afterwards, decrease that no print explains, how much of it moved us forward).
    """
    decrease = level - new - printed
    if decrease <= 0:
        return min(ahead, new), 0, 0
    moved = moved_ahead(ahead, max(level - printed, ahead), decrease, power)
    return min(ahead - moved, new), decrease, moved


@kernel
def on_print(ahead: int, printed: int, unexplained: int, moved: int, lots: int) -> tuple[int, int, int, int]:
    """`lots` traded at the price; `unexplained` lots were seen leaving shortly before, of which `moved` moved us.

    Returns (ahead, printed, unexplained, moved); a negative `ahead` is what reached our order.
    """
    late = min(lots, unexplained)
    if late > 0:
        # in floats, because the product of two quantities in lots does not fit 63 bits
        share = moved if late == unexplained else min(moved, late, int(float(moved) / float(unexplained) * float(late)))
        ahead -= late - share
        unexplained -= late
        moved -= share
    return ahead - (lots - late), printed + lots - late, unexplained, moved
