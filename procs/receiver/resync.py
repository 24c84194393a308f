"""Which symbols need a snapshot, and when to ask for it: one request at a time a symbol, within a budget, until one has come.

The feed says what it wants, as often as it likes; wishes for the same symbol become one. A wish waits while it cannot be asked
for (the symbol's streams are not all subscribed: a snapshot without diffs connects to nothing) and while the budget is used up. A
request that goes out over a line (a resubscription) is answered by the snapshot itself: where that does not come in time, or the
venue refuses, or the line ends, it has failed.

The first snapshot of a symbol is no resync and counts against no budget of them: many symbols begin as soon as the venue's own
limits let them.

Back-off is a symbol's own, and grows as long as what comes is no good: a snapshot that never arrives, or that the feed asks for
again at once because it could not be used. The symbol that has tried least is served first, then the one that was served longest
ago; who has failed several times leaves half of the budget to the others. So a symbol that can never be had starves nobody.

What this module is not: it fetches nothing, knows no venue, and does not judge a snapshot. Whether one connects to the diffs is
the feed's to say, by the venue's own rule; it asks again where it does not. Times are monotonic ns.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from procs.pacing import MINUTE, SECOND, SlidingWindow, backoff

PAUSE_NS: Final = SECOND // 4
LONGEST_PAUSE_NS: Final = 10 * SECOND
ANSWER_NS: Final = 10 * SECOND
"""From the last message of a resubscription to its snapshot."""
BY_REST: Final = -1
STUBBORN: Final = 3
"""So many tries in vain, and a symbol no longer has the whole budget."""


@dataclass(slots=True)
class _Symbol:
    """One symbol's wish, and what became of those before."""

    wanted: bool = False
    in_flight: bool = False
    line: int = BY_REST  # on which it is in flight
    deadline_ns: int = 0  # of what is in flight on a line
    tries: int = 0  # since the last one that was of use
    not_before_ns: int = 0
    served_ns: int = -1


class ResyncDesk:
    """The wishes of one venue's symbols."""

    def __init__(self, per_minute: int, rng: random.Random) -> None:
        self.budget: Final = SlidingWindow(per_minute, MINUTE)
        self._rng: Final = rng
        self._symbols: dict[int, _Symbol] = {}
        self.waiting = 0
        """Wishes that are not fulfilled."""
        self.wanted = self.delivered_count = self.failed_count = 0

    def want(self, symbol: int, now: int, *, again: bool = False) -> None:
        """The feed wants a snapshot of this symbol; `again`: because the one that came was of no use."""
        it = self._symbols.setdefault(symbol, _Symbol())
        if it.wanted:
            return
        self.wanted += 1
        self.waiting += 1
        it.wanted = True
        if again and it.tries and now - it.served_ns < MINUTE:
            it.not_before_ns = now + self._pause(it)
        else:
            it.tries, it.not_before_ns = 0, now

    def is_wanted(self, symbol: int) -> bool:
        """Whether a snapshot of the symbol is wanted and has not come."""
        it = self._symbols.get(symbol)
        return it is not None and it.wanted

    def due(self, now: int, ready: Callable[[int], bool]) -> list[int]:
        """Symbols to ask for now; but for the first time they count against the budget. In flight until delivered or failed.

        Gives up first what was to be answered by now.
        """
        for it in self._symbols.values():
            if it.in_flight and it.line != BY_REST and now >= it.deadline_ns:
                self._failed(it, now)
        open_ = [(it.tries, it.served_ns, n) for n, it in self._symbols.items() if it.wanted and not it.in_flight]
        found = []
        for tries, _, symbol in sorted(open_):
            it = self._symbols[symbol]
            if now < it.not_before_ns or not ready(symbol):
                continue
            if it.served_ns >= 0:
                if self.budget.wait_ns(now, 1 + (self.budget.limit // 2 if tries >= STUBBORN else 0)):
                    break  # those behind it have tried as often
                self.budget.take(now)
            it.in_flight, it.line, it.served_ns = True, BY_REST, now
            it.tries += 1
            found.append(symbol)
        return found

    def sent(self, symbol: int, line: int, deadline_ns: int) -> None:
        """What is in flight went out over this line; its snapshot is to come before the deadline."""
        it = self._symbols[symbol]
        it.line, it.deadline_ns = line, deadline_ns

    def delivered(self, symbol: int) -> None:
        """A snapshot of this symbol went to the feed, whoever asked for it."""
        it = self._symbols.get(symbol)
        if it is not None and it.wanted:
            self.delivered_count += 1
            self.waiting -= 1
            it.wanted = it.in_flight = False

    def failed(self, symbol: int, now: int) -> None:
        """Nothing came of what is in flight: again after a pause."""
        it = self._symbols.get(symbol)
        if it is not None and it.in_flight:
            self._failed(it, now)

    def line_ended(self, line: int, now: int) -> None:
        """What is in flight on this line will not be answered."""
        for it in self._symbols.values():
            if it.in_flight and it.line == line:
                self._failed(it, now)

    def _failed(self, it: _Symbol, now: int) -> None:
        self.failed_count += 1
        it.in_flight = False
        it.not_before_ns = now + self._pause(it)

    def _pause(self, it: _Symbol) -> int:
        return int(backoff(it.tries, PAUSE_NS, LONGEST_PAUSE_NS, self._rng.random()))
