"""Avellaneda and Stoikov (2008, Quantitative Finance 8:3), "High-frequency trading in a limit order book", eq. 29 and 30.

Reservation price `r = s - q g sigma^2 tau`, whole spread `g sigma^2 tau + (2/g) ln(1 + g/k)`, set around r. Orders at the
distance d from the fair value are taken at the rate `A exp(-k d)`; A cancels out of this approximation.

Units: q in orders of the usual size, tau in seconds; prices and distances in any unit that all figures share, sigma in it by the
square root of a second, k and g (risk aversion, by order too) by it. The quoter's unit is a basis point of the mid.
"""

from __future__ import annotations

import math

from trading.jit import kernel


@kernel
def reservation_skew(q: float, gamma: float, sigma: float, tau: float) -> float:
    """How far the reservation price lies below the fair value."""
    return q * gamma * sigma * sigma * tau


@kernel
def spread(gamma: float, k: float, sigma: float, tau: float) -> float:
    """The whole spread around the reservation price."""
    return gamma * sigma * sigma * tau + 2.0 / gamma * math.log(1.0 + gamma / k)
