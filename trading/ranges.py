"""How large and how small the figures of an instrument may be, stated once, and the lot that lets its quantities fit.

docs/ranges.md tells users the same figures, and what becomes of what is beyond them. A lot is fine where quantities are small and
coarser where they are large, so that a level stays within LEVEL_LOTS: sums over a book or a window then fit as well.

What this module is not: it knows no venue and no file.
"""

from __future__ import annotations

from typing import Final

MAX_UNITS: Final = 2**59
"""No scanned number of ticks or lots is greater: ten times that, and a digit, still fits into int64."""
MAX_SYMBOLS: Final = 64
"""Symbols of one run, whatever its source."""
MAX_MONEY: Final = 2e10
"""Money that a setting may name: 2e18 in units of 1e-8, which leaves room for four times that in an int64."""
SATURATED: Final = 2**62
"""Where a product ends that an int64 cannot hold; above every limit, so that whatever is compared with one is refused."""
LEVEL_LOTS: Final = 2**53
"""Lots of one level up to which a venue's usual lot is kept: a float counts them, and a thousand of them fit an int64."""
FINER: Final = 2
"""Decimals by which the lot of a cheap coin is finer than the step of its orders."""


class RangeError(ValueError):
    """Quantities need more digits than fit; the message names both."""


def lot_decimals(usual: int, needed: int, largest: int) -> int:
    """Decimals of a symbol's lot: the usual ones of its venue where its largest quantity fits, else those that it needs.

    `needed`: decimals that its quantities use, zeros at the end not counted; `largest`: its greatest quantity, rounded up to
    whole coins. Nothing is rounded. Raises RangeError where not even `needed` fit.
    """
    if needed <= usual and largest * 10**usual <= LEVEL_LOTS:
        return usual
    if largest * 10**needed > MAX_UNITS:
        raise RangeError(
            f"quantities of up to {largest} with {needed} decimals do not fit (at most {MAX_UNITS} units of 1e-{needed}): "
            "leave this symbol out"
        )
    return needed


def lot_decimals_of_rules(usual: int, step: int, max_qty: int) -> int:
    """Decimals of a lot where a venue states its rules: the usual ones where ten orders of `max_qty` coins are within LEVEL_LOTS,
    else two more than `step`, those of an order's step. Never coarser than the step."""
    if 10 * max_qty * 10**usual <= LEVEL_LOTS:
        return max(usual, step)
    return max(min(usual, step + FINER), step)
