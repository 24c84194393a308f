"""The line of any venue that ccxt.pro speaks to (`venue: ccxt:<id>`): its books, trades and quotes as plain frames.

One task a symbol and stream watches; `trading.venues.ccxt_book` turns what it sees into frames. When ccxt reports a gap or a
checksum error, or the connection breaks, the symbol's book is declared missed at once, the line is told down for that symbol
alone, and the task watches again after a jittered back-off; the next book is a snapshot. ccxt answers the venue's pings and
notices a dead connection itself (a missed pong raises), and keeps its requests within the venue's rate limit.

What this module is not: it has no second line, no REST of its own and no say over subscriptions; venues with a decoder have that.
"""

from __future__ import annotations

import asyncio
import difflib
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from procs.pacing import backoff
from trading.venues.ccxt_book import CcxtBook
from trading.venues.ccxt_market import find_market, refuse_contracts, replaced_addresses, rules_of
from trading.venues.names import LINEAR, SPOT, Market
from trading.venues.protocol import InstrumentRules, Item, Missed, Plain, Refused, Streams, Unknown, VenueError, VenueSymbol

Emit = Callable[[Item, int], None]
"""(what was found, when it was received: Unix ns)"""
TellLine = Callable[[int, bool], None]
"""(symbol, whether its streams stand)"""

DEPTH: Final = "depth"
TRADE: Final = "trade"
QUOTE: Final = "quote"


@dataclass(slots=True)
class LineCounts:
    """What happened on the line, for its statistics."""

    books: int = 0  # books seen, changed or not
    frames: int = 0
    gaps: int = 0  # ccxt's ChecksumError: the venue's sequence or checksum did not hold
    errors: int = 0  # connections lost, requests refused
    odd: int = 0  # numbers that are no whole ticks or lots, messages without what they need
    repeated_trades: int = 0
    tries: dict[int, int] = field(default_factory=dict)  # failures in a row, by symbol


def ccxt_exchange(venue_id: str, rest: str = "", stream: str = "") -> Any:
    """A ccxt.pro exchange for public data, with scheme and host of its addresses replaced. VenueError for an unknown id."""
    import ccxt.pro  # 0.5 s and 110 MB: only a process that has such a venue pays

    if venue_id not in ccxt.pro.exchanges:
        close = difflib.get_close_matches(venue_id, ccxt.pro.exchanges, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "its documentation lists those that it knows"
        raise VenueError(f"ccxt.pro knows no venue {venue_id!r}: {hint}")
    exchange = getattr(ccxt.pro, venue_id)({"enableRateLimit": True})
    exchange.urls["api"] = replaced_addresses(exchange.urls["api"], rest, stream)
    kinds = exchange.options.get("fetchMarkets")
    if venue_id == "binance" and isinstance(kinds, dict):
        kinds["types"] = ["spot"]  # else it also asks for two futures lists, at other hosts
    return exchange


class CcxtLine:
    """Watches `symbols` on one ccxt venue until `stop`.

    `rest`, `stream`: scheme and host to use instead of the venue's. `exchange`: an object with ccxt.pro's interface, instead of
    ccxt's own (tests, or one that is set up already). `clock` gives Unix ns, `sleep` waits seconds, `rng` jitters the back-off.
    """

    def __init__(
        self,
        venue_id: str,
        symbols: Sequence[VenueSymbol],
        emit: Emit,
        tell_line: TellLine,
        *,
        streams: Streams | None = None,
        depth: int = 100,
        rest: str = "",
        stream: str = "",
        exchange: Any = None,
        rng: random.Random | None = None,
        clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        backoff_s: tuple[float, float] = (0.25, 30.0),
    ) -> None:
        self.venue_id: Final = venue_id
        self.symbols: Final = tuple(symbols)
        self.counts: Final = LineCounts()
        self._streams = streams or Streams()
        self._emit, self._tell_line = emit, tell_line
        self._rng, self._clock, self._sleep = rng or random.Random(), clock, sleep
        self._backoff_s = backoff_s
        self._addresses = (rest, stream)
        self._exchange = exchange
        first_id = clock() // 1000
        self._books = {s.index: CcxtBook(s, depth=depth, first_id=first_id) for s in self.symbols}
        self.heard: Final[dict[tuple[int, str], int]] = {}  # (symbol, stream) -> when ccxt last told of it, Unix ns
        self._up: set[int] = set()
        self._names_of: dict[int, str] = {}
        self._tasks: Sequence[asyncio.Task[Any]] = ()
        self._stopping = False

    @property
    def exchange(self) -> Any:
        """The ccxt exchange; made at the first use."""
        if self._exchange is None:
            self._exchange = ccxt_exchange(self.venue_id, *self._addresses)
        return self._exchange

    async def fetch_rules(self) -> Mapping[str, InstrumentRules]:
        """The rules of the symbols, by VenueSymbol.venue_name. Raises VenueError, or ccxt's own error: it tries once."""
        await self.exchange.load_markets()
        mode = int(self.exchange.precisionMode)
        return {s.venue_name: rules_of(self._market(s), mode) for s in self.symbols}

    def _market(self, symbol: VenueSymbol) -> Mapping[str, Any]:
        kind = LINEAR if self.venue_id == Market.BINANCE_USDM.facts.ccxt else SPOT
        try:
            return find_market(self.exchange.markets, symbol.venue_name or symbol.name, kind)
        except VenueError as error:
            raise VenueError(f"ccxt:{self.venue_id}: {error}") from None

    async def run(self) -> None:
        """Watch until `stop`. Raises VenueError where a symbol cannot be watched here at all; all else is tried again."""
        try:
            loading = asyncio.create_task(self._names(), name=f"markets of {self.venue_id}")
            self._tasks = [loading]
            await asyncio.wait(self._tasks)
            if loading.cancelled() or self._stopping:
                return
            names = self._names_of = loading.result()
            wanted = [(DEPTH, self._streams.depth), (TRADE, self._streams.trade), (QUOTE, self._streams.bbo)]
            self._tasks = [
                asyncio.create_task(self._watch(kind, symbol, names[symbol.index]), name=f"{kind} {symbol.name}")
                for symbol in self.symbols
                for kind, chosen in wanted if chosen and self._offers(kind)
            ]  # fmt: skip
            if self._tasks:
                done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    if not task.cancelled():
                        task.result()
        finally:
            await self._end()

    def want(self, symbol: int) -> None:
        """The feed wants the symbol's book anew: its next message is a whole one."""
        self._books[symbol].forget()

    async def again(self, symbol: int, kind: str) -> None:
        """Subscribe one stream (DEPTH, TRADE or QUOTE) anew: ccxt leaves it where it can, else its connections are closed.

        The watchers find themselves without, and watch again after their pause.
        """
        name = self._names_of.get(symbol)
        if name is None or self._stopping:
            return
        method, what = {
            DEPTH: ("unWatchOrderBook", name), TRADE: ("unWatchTrades", name), QUOTE: ("unWatchBidsAsks", [name]),
        }[kind]  # fmt: skip
        if kind == DEPTH:
            self._books[symbol].forget()
        try:
            if self.exchange.has.get(method):
                snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in method)
                await getattr(self.exchange, snake)(what)
            else:
                await self.exchange.close()
        except Exception as error:
            if not self._is_ccxt(error):
                raise
            self._count(error)
            self._emit(Refused(f"ccxt:{self.venue_id}: {_sentence(error)}"), self._clock())

    async def stop(self) -> None:
        """End all watching; `run` returns."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for symbol in sorted(self._up):
            self._tell_line(symbol, False)
        self._up.clear()
        if self._exchange is not None:
            await self._exchange.close()

    def _offers(self, kind: str) -> bool:
        has = self.exchange.has
        method = {DEPTH: "watchOrderBook", TRADE: "watchTrades", QUOTE: "watchBidsAsks"}[kind]
        if has.get(method):
            return True
        if kind == DEPTH:
            raise VenueError(f"ccxt:{self.venue_id}: ccxt.pro watches no order books there: choose another venue")
        return False  # trades or quotes that a venue does not stream are not waited for

    async def _names(self) -> dict[int, str]:
        """ccxt's names of the symbols, when the venue has told its markets."""
        while True:
            try:
                await self.exchange.load_markets()
                break
            except Exception as error:
                if not self._is_ccxt(error):
                    raise
                self.counts.errors += 1
                self._emit(Refused(f"ccxt:{self.venue_id}: {_sentence(error)}"), self._clock())
                await self._wait(-1)
        self.counts.tries.clear()
        found = {}
        for symbol in self.symbols:
            market = self._market(symbol)
            refuse_contracts(market)
            found[symbol.index] = str(market["symbol"])
        return found

    async def _watch(self, kind: str, symbol: VenueSymbol, name: str) -> None:
        """Watch one stream of one symbol for ever."""
        take = {DEPTH: self._next_book, TRADE: self._next_trades, QUOTE: self._next_quote}[kind]
        key = symbol.index * 3 + (DEPTH, TRADE, QUOTE).index(kind)
        while not self._stopping:
            try:
                await take(symbol, name)
                self.counts.tries.pop(key, None)
            except VenueError as error:  # of a book: it cannot be told any more
                self._odd(error, self._clock())
                self._lost(kind, symbol, str(error))
                await self._wait(key)
            except Exception as error:
                if not self._is_ccxt(error):
                    raise
                if self._stopping:
                    return
                self._count(error)
                self._lost(kind, symbol, _sentence(error))
                await self._wait(key)

    async def _next_book(self, symbol: VenueSymbol, name: str) -> None:
        found = await self.exchange.watch_order_book(name)
        now = self.heard[symbol.index, DEPTH] = self._clock()
        book = self._books[symbol.index]
        self.counts.books += 1
        frame = book.book(found["bids"], found["asks"], found.get("timestamp"))
        if symbol.index not in self._up:
            self._up.add(symbol.index)
            self._tell_line(symbol.index, True)
        if frame is not None:
            self._send(symbol, frame, now)

    async def _next_trades(self, symbol: VenueSymbol, name: str) -> None:
        trades = await self.exchange.watch_trades(name)
        now = self.heard[symbol.index, TRADE] = self._clock()
        for trade in trades:
            try:
                frame = self._books[symbol.index].trade(trade)
            except VenueError as error:
                self._odd(error, now)
                continue
            if frame is None:
                self.counts.repeated_trades += 1
            else:
                self._send(symbol, frame, now)

    async def _next_quote(self, symbol: VenueSymbol, name: str) -> None:
        found = await self.exchange.watch_bids_asks([name])
        now = self._clock()
        if name not in found:
            return
        self.heard[symbol.index, QUOTE] = now
        try:
            frame = self._books[symbol.index].quote(found[name])
        except VenueError as error:
            self._odd(error, now)
            return
        if frame is not None:
            self._send(symbol, frame, now)

    def _odd(self, error: VenueError, now: int) -> None:
        self.counts.odd += 1
        self._emit(Unknown(str(error)), now)

    def _send(self, symbol: VenueSymbol, frame: bytes, now: int) -> None:
        self.counts.frames += 1
        self._emit(Plain(symbol.index, frame), now)

    def _lost(self, kind: str, symbol: VenueSymbol, why: str) -> None:
        """A stream of the symbol broke. Only the book's ends its trust: trades and quotes lose what they lose."""
        text = f"ccxt:{self.venue_id} {symbol.name} {kind}: {why}"
        if kind != DEPTH:
            self._emit(Refused(text), self._clock())
            return
        self._emit(Missed((symbol.index,), text), self._clock())
        self._books[symbol.index].forget()
        if symbol.index in self._up:
            self._up.discard(symbol.index)
            self._tell_line(symbol.index, False)

    async def _wait(self, key: int) -> None:
        """Full-jitter exponential back-off, each stream for itself."""
        low, high = self._backoff_s
        tries = self.counts.tries.get(key, 0)
        self.counts.tries[key] = tries + 1
        await self._sleep(self._rng.uniform(low, max(low, backoff(tries + 2, low, high))))

    def _count(self, error: BaseException) -> None:
        import ccxt

        if isinstance(error, ccxt.ChecksumError):
            self.counts.gaps += 1
        else:
            self.counts.errors += 1

    @staticmethod
    def _is_ccxt(error: BaseException) -> bool:
        """Whether ccxt says it of the venue; anything else is a defect and is raised."""
        import ccxt

        return isinstance(error, ccxt.BaseError)


def _sentence(error: BaseException) -> str:
    """The error on one line, not longer than a screen's."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
