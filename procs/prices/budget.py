"""How fast a venue may be asked: one budget for all who ask it, and a hold on a source that failed.

Units are what ccxt weighs requests in. What this module is not: it reads no headers of a venue; the endpoint does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from procs.pacing import Pace, backoff
from procs.prices.answer import BudgetSpent, SourceFailed

Clock = Callable[[], int]
"""ns; monotonic where nothing else is said."""
Sleep = Callable[[float], Awaitable[None]]


class RequestBudget:
    """`per_s` units a second, `burst` of them at once; who would wait longer than `max_wait_s` is refused at once.

    Callers are served in the order in which they come.
    """

    def __init__(
        self,
        per_s: float,
        burst: float,
        *,
        max_wait_s: float = 5.0,
        clock: Clock = time.monotonic_ns,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        assert per_s > 0 and burst > 0
        self._pace: Final = Pace(1e9 / per_s, burst)
        self._max_wait_s: Final = max_wait_s
        self._clock, self._sleep = clock, sleep
        self.spent = 0.0
        self.refused = 0

    async def spend(self, cost: float = 1.0) -> None:
        """Wait until `cost` units may be spent, and spend them. Raises BudgetSpent."""
        now = self._clock()
        wait_s = self._pace.wait_ns(now, cost) / 1e9
        if wait_s > self._max_wait_s:
            self.refused += 1
            raise BudgetSpent(f"not asked: the next request within its budget is {wait_s:.1f} s away", wait_s)
        self._pace.take(now, cost)
        self.spent += cost
        if wait_s > 0:
            await self._sleep(wait_s)


class Budgets:
    """One RequestBudget a venue. `share`: of the venue's own limit, since others of this address ask it too."""

    def __init__(
        self, share: float = 0.5, *, max_wait_s: float = 5.0, clock: Clock = time.monotonic_ns, sleep: Sleep = asyncio.sleep
    ) -> None:
        assert 0 < share <= 1
        self._share, self._max_wait_s, self._clock, self._sleep = share, max_wait_s, clock, sleep
        self._of: dict[str, RequestBudget] = {}

    def of(self, venue_id: str, rate_limit_ms: float) -> RequestBudget:
        """The venue's budget; `rate_limit_ms` is ccxt's: ms for each unit of weight."""
        if venue_id not in self._of:
            per_s = self._share * 1000.0 / max(rate_limit_ms, 1.0)
            self._of[venue_id] = RequestBudget(
                per_s, max(10.0 * per_s, 1.0), max_wait_s=self._max_wait_s, clock=self._clock, sleep=self._sleep
            )
        return self._of[venue_id]


class Hold:
    """Leaves a source alone after failures: 1, 2, 4 ... s up to `most_s`, or as long as it asked for. A success ends it."""

    def __init__(self, least_s: float = 1.0, most_s: float = 60.0, *, clock: Clock = time.monotonic_ns) -> None:
        self._least_s, self._most_s, self._clock = least_s, most_s, clock
        self._until_ns = 0
        self._why = ""
        self.failures = 0

    def check(self) -> None:
        """Raises SourceFailed while the source is to be left alone."""
        left_s = (self._until_ns - self._clock()) / 1e9
        if self.failures and left_s > 0:
            raise SourceFailed(f"left alone for another {left_s:.1f} s after {self.failures} failures, the last: {self._why}")

    def failed(self, error: SourceFailed) -> None:
        """Note a failure."""
        self.failures += 1
        self._why = str(error)
        wait_s = max(backoff(self.failures, self._least_s, self._most_s), error.hold_s)
        self._until_ns = self._clock() + int(wait_s * 1e9)

    def succeeded(self) -> None:
        """Note a success."""
        self.failures = 0
