"""Prices spend from the same request weight as the receiver: what ccxt's units cost of a venue's budget, and who else spends it.

What this module is not: the budget. procs.receiver.weight keeps it, in a file that all processes of this machine share.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from procs.prices.answer import BudgetSpent
from procs.prices.budget import Clock, Sleep
from procs.receiver.budget import WeightBudget
from procs.receiver.markets import venue_of
from procs.receiver.weight import weight_budget
from trading.venues.names import NAMES
from trading.venues.protocol import Streams

SHARE: Final = 0.5
"""As `live.rest_weight_share` has it by default."""
USED: Final = "x-mbx-used-weight-1m"


class SharedUnits:
    """One address's budget. `weight_per_unit`: of the venue's weight for one unit of ccxt's."""

    def __init__(
        self, budget: WeightBudget, weight_per_unit: float, *, max_wait_s: float = 5.0, clock: Clock = time.monotonic_ns,
        sleep: Sleep = asyncio.sleep,
    ) -> None:  # fmt: skip
        self.budget: Final = budget
        self._weight: Final = weight_per_unit
        self._max_wait_s, self._clock, self._sleep = max_wait_s, clock, sleep

    async def spend(self, cost: float) -> None:
        """Wait until a request of this cost may go out, and count it. Raises BudgetSpent where that is too far away."""
        while (wait := self.budget.admit(self._clock(), max(1, math.ceil(cost * self._weight)))) > 0:
            if wait > self._max_wait_s * 1e9:
                text = f"not asked: this machine may ask the venue again in {wait / 1e9:.1f} s"
                raise BudgetSpent(text, wait / 1e9)
            await self._sleep(wait / 1e9)

    def observe(self, headers: Mapping[str, str]) -> None:
        """What the venue says was used."""
        for name, value in headers.items():
            if name.lower() == USED and value.isascii() and value.isdigit():
                self.budget.observe(self._clock(), int(value))


def shared_units(venue: str, rest: str, rate_limit_ms: float, folder: Path | None) -> SharedUnits | None:
    """Of a venue that the receiver knows, at its own address or at `rest`; None for others, and without a folder to share.

    `rate_limit_ms`: ccxt's, ms for each unit; ccxt's whole rate is the venue's whole weight.
    """
    if folder is None or venue not in NAMES:
        return None
    known = venue_of(venue, (), Streams())
    limit = known.limits.rest_weight_per_minute
    budget = weight_budget(rest or known.rest_url, limit, SHARE, folder, time.monotonic_ns())
    return SharedUnits(budget, budget.limit * max(rate_limit_ms, 1.0) / 60_000.0)
