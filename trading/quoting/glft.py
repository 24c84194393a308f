"""Gueant, Lehalle and Fernandez-Tapia in its stationary form (Gueant 2016, arXiv 1605.01862, eq. 4.6 and 4.7).

`c1 = ln(1 + x D/k) / (x D)`, `c2 = sqrt(g/(2 A D k) (1 + x D/k)^(k/(x D) + 1))` with D = 1 order and x = g, then
`bid distance = c1 + sigma c2/2 + q sigma c2`, `ask distance = c1 + sigma c2/2 - q sigma c2`. There is no horizon: a market that
never closes. Orders at the distance d are taken at the rate `A exp(-k d)`; each side may have an A and a k of its own.

Units as in trading.quoting.avellaneda_stoikov; A a second.
"""

from __future__ import annotations

import math

from trading.jit import kernel


@kernel
def c1(gamma: float, k: float) -> float:
    """The distance that one order alone would have."""
    return math.log(1.0 + gamma / k) / gamma


@kernel
def c2(gamma: float, a: float, k: float) -> float:
    """What a unit of sigma adds for each order held."""
    return math.sqrt(gamma / (2.0 * a * k) * (1.0 + gamma / k) ** (k / gamma + 1.0))


@kernel
def distance(q: float, gamma: float, a: float, k: float, sigma: float) -> float:
    """Of a quote from the fair value; q is the inventory in orders as this side adds to it: the ask's is negated."""
    slope = sigma * c2(gamma, a, k)
    return c1(gamma, k) + 0.5 * slope + q * slope
