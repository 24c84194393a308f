"""A local venue in a thread of its own, and its own books to hold a client against.

It is fed by the embedded market or by a recording (`ServedVenue(recorded("spot_btcusdt_20240808.gz"))`), so that a program that
knows nothing of asyncio can be tested against it: a live pipeline, a client of ccxt, a script. What the venue's book was after
every update is noted, independent of all that its clients do.

What this is not: the venue itself (sim.local_venue), which says what it speaks.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from sim.local_venue import Faults, Limits, LocalVenue, Market, Source
from sim.local_venue.book import ASK, BID, units_of
from sim.local_venue.connection import Connection

PLACES: Final = 20
"""Levels a side that are noted."""
Top = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
"""(price, quantity) in 1e-8, bids and asks, best first."""
Key = tuple[str, str]
"""(market, symbol), the market as profiles write it."""
T = TypeVar("T")


class VenueTruth:
    """What the venue's own books were after each update (`tops`, by update id), and which prints there were (`trades`, by id)."""

    def __init__(self) -> None:
        self.tops: dict[Key, dict[int, Top]] = {}
        self.trades: dict[Key, list[int]] = {}

    @staticmethod
    def key(symbol: Any) -> Key:
        """The profile's names of it."""
        return f"binance_{symbol.spec.market}", symbol.spec.name

    def on_diff(self, symbol: Any, diff: Any) -> None:
        """Note the book."""
        sides = (tuple((units_of(p), units_of(q)) for p, q in symbol.book.side(side, PLACES)) for side in (BID, ASK))
        bids, asks = sides
        self.tops.setdefault(self.key(symbol), {})[diff.last_id] = (bids, asks)

    def on_trade(self, symbol: Any, trade: Any) -> None:
        """Note the print."""
        self.trades.setdefault(self.key(symbol), []).append(trade.id)

    def on_bbo(self, symbol: Any) -> None:
        """Said by the book as well."""

    def on_agg(self, symbol: Any, trade: Any) -> None:
        """Said by the prints as well."""


class ServedVenue:
    """A context that serves until it is left; `venue` has the addresses, `truth` what it showed, `hits` the faults that struck.

    `faults` are texts as `scalperctl venue --fault` takes them; `speed` is how fast the market goes, and with
    `loop` a recording begins anew.
    """

    def __init__(
        self, source: Source, *, faults: Sequence[str] = (), seed: int = 1, speed: float = 1.0, limits: Limits | None = None,
        loop: bool = False,
    ) -> None:  # fmt: skip
        self.truth = VenueTruth()
        self.hits: dict[str, int] = {}
        market = Market(source, start_ns=time.time_ns, loop=loop)
        for symbol in market.symbols.values():
            symbol.listeners.insert(0, self.truth)  # before the market, which tells the streams
        self.venue = LocalVenue(market, faults=Faults(faults, seed), speed=speed, limits=limits)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="venue", daemon=True)

    def __enter__(self) -> ServedVenue:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.venue.start(), self._loop).result(60)
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self.venue.close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def call(self, what: Callable[[], T]) -> T:
        """Do something in the venue's thread: nothing of it may be touched from another."""

        async def run() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def endpoints(self) -> list[dict[str, str]]:
        """What a profile has as `live.endpoints`."""
        venue = self.venue
        streams = venue.stream_urls
        return [{"venue": f"binance_{m}", "stream": streams[m], "rest": venue.rest_url} for m in venue.market.markets]

    def no_more_faults(self) -> None:
        """From here on the venue behaves; what was held comes."""

        def stop() -> None:
            self.hits = dict(self.venue.faults.hits)
            self.venue.faults = Faults(())

        self.call(stop)

    def begin_faults(self, schedule: Sequence[str], seed: int) -> None:
        """From here on it misbehaves; times of the schedule count from now."""
        venue = self.venue

        def begin() -> None:
            venue.faults = Faults(schedule, seed)
            venue._started_ns = venue.now_ns

        self.call(begin)

    def both_listen(self, streams: int) -> bool:
        """Whether connections that hear so many streams in all stand."""
        return self.call(lambda: sum(len(c.streams) for c in self.venue.connections if c._ending is None)) >= streams

    def cut(self, rng: random.Random) -> bool:
        """End a random connection of those that stand, if at least two do; whether it was done."""

        def do() -> bool:
            standing: list[Connection] = [c for c in self.venue.connections if c.streams]
            if len(standing) < 2:
                return False
            chosen = rng.choice(standing)
            chosen.end(rng.choice(("abort", "close")))
            return True

        return self.call(do)
