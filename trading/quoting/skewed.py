"""The `skewed` rule: a spread by volatility around the fair value, both sides moved against the inventory.

`half = max(min_spread_bps/1e4, volatility_weight * vol) * mid / 2`, `skew = inventory/max_inventory * skew * mid`
(FORMULAS, market making). `vol` is the realised volatility over one minute as a fraction.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from trading.features import bars
from trading.jit import kernel

SKEW: Final = 0.001
"""Fraction of the mid by which one unit of inventory moves both quotes in `calculate_optimal_quotes`."""


class Quotes(NamedTuple):
    """Prices of both sides, and what they were made of, all in the unit of the mid."""

    bid: float
    ask: float
    half_spread: float
    skew: float


@kernel
def minute_volatility(volatility: float) -> float:
    """A deviation a second as one a minute, both fractions."""
    return volatility * math.sqrt(bars.SECONDS_PER_MINUTE)


@kernel
def half_spread(mid: float, volatility: float, min_spread: float, volatility_weight: float) -> float:
    """Half of the quoted spread in the unit of `mid`; `volatility` is a fraction per minute (see the module)."""
    return max(min_spread, volatility_weight * volatility) * mid * 0.5


def calculate_optimal_quotes(mid: float, volatility: float, inventory: float, min_spread_bps: float = 2.0) -> Quotes:
    """Both quotes around `mid`: `base = max(min_spread_bps/1e4, 0.1*vol)`, `skew = inventory*0.001`, as parts of the mid.

    `volatility`: realised over one minute, a fraction; `inventory`: signed, 1.0 is all that may be held. The bid is
    `mid * (1 - base/2 - skew)`, the ask `mid * (1 + base/2 - skew)`; nothing is rounded to ticks. ValueError for a mid
    that is not above 0, a negative volatility or spread, and for what is not finite.
    """
    if not (math.isfinite(mid) and mid > 0.0):
        raise ValueError(f"mid is {mid}: give a price above 0")
    for name, value in (("volatility", volatility), ("min_spread_bps", min_spread_bps)):
        if not (math.isfinite(value) and value >= 0.0):
            raise ValueError(f"{name} is {value}: give 0 or more")
    if not math.isfinite(inventory):
        raise ValueError(f"inventory is {inventory}: give a number, 1.0 being all that may be held")
    half = max(min_spread_bps / 1e4, 0.1 * volatility) * mid / 2.0
    skew = inventory * SKEW * mid
    return Quotes(mid - half - skew, mid + half - skew, half, skew)
