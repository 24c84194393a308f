"""Which symbols need a snapshot, and when to ask for it: one request at a time a symbol, within a budget, until one is delivered.

The feed says what it wants, as often as it likes; wishes for the same symbol become one. A wish waits while the symbol's streams
are not all subscribed (a snapshot without diffs connects to nothing) and while the budget is used up, which is shared by all
symbols in turn. A snapshot older than what was wished for is fetched again.

What this module is not: it fetches nothing and knows no venue. Times are monotonic ns.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from procs.receiver.budget import MINUTE, SECOND, SlidingWindow

PAUSE_NS: Final = SECOND // 4
LONGEST_PAUSE_NS: Final = 10 * SECOND


@dataclass(slots=True)
class _Wish:
    """One symbol's."""

    not_older_than: int = 0
    not_before_ns: int = 0
    tries: int = 0
    in_flight: bool = False


class ResyncDesk:
    """The wishes of one venue's symbols."""

    def __init__(self, per_minute: int, rng: random.Random) -> None:
        self.budget: Final = SlidingWindow(per_minute, MINUTE)
        self._rng: Final = rng
        self._wishes: dict[int, _Wish] = {}  # in the order in which they came
        self.wanted = self.delivered_count = self.failed_count = 0

    def want(self, symbol: int, update_id: int, now: int) -> None:
        """The feed wants a snapshot of this symbol that is not older than `update_id`."""
        wish = self._wishes.get(symbol)
        if wish is None:
            self.wanted += 1
            wish = self._wishes[symbol] = _Wish(not_before_ns=now)
        wish.not_older_than = max(wish.not_older_than, update_id)

    def due(self, now: int, connected: Callable[[int], bool]) -> list[int]:
        """Symbols to ask for now; they count against the budget, and are in flight until delivered or failed."""
        found = []
        for symbol, wish in self._wishes.items():
            if wish.in_flight or now < wish.not_before_ns or not connected(symbol):
                continue
            if self.budget.wait_ns(now):
                break
            self.budget.take(now)
            wish.in_flight = True
            wish.tries += 1
            found.append(symbol)
        return found

    def delivered(self, symbol: int, update_id: int | None, now: int) -> bool:
        """A snapshot went out (`update_id` None: it does not say how old it is). Whether the wish is fulfilled."""
        wish = self._wishes.get(symbol)
        if wish is None:
            return True
        self.delivered_count += 1
        if update_id is not None and update_id < wish.not_older_than:
            self._again(symbol, wish, now)
            return False
        del self._wishes[symbol]
        return True

    def failed(self, symbol: int, now: int) -> None:
        """Nothing came of it: again after a pause, behind the other symbols."""
        wish = self._wishes.get(symbol)
        if wish is not None:
            self.failed_count += 1
            self._again(symbol, wish, now)

    @property
    def waiting(self) -> int:
        """Wishes that are not fulfilled."""
        return len(self._wishes)

    def _again(self, symbol: int, wish: _Wish, now: int) -> None:
        longest = min(PAUSE_NS << min(wish.tries - 1, 20), LONGEST_PAUSE_NS)
        wish.in_flight = False
        wish.not_before_ns = now + longest // 2 + self._rng.randrange(longest // 2 + 1)
        self._wishes[symbol] = self._wishes.pop(symbol)
