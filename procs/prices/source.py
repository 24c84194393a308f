"""PriceSource: candles and last prices, from the first source that can give them, asked once for all callers, kept for a while.

The order: what was fetched less than `ttl_s` ago; the endpoints in turn (one that failed is left alone for a while); candles
built from trades that we have; what was known last, marked stale. If nothing was ever known, AllSourcesFailed with each source's
reason. A value is never made up, and each answer names its source and age.

Only endpoints' answers are kept for `ttl_s`: what stands in for them is given as it is at that moment, so the venue counts again
as soon as it answers. An unknown symbol is final when the first endpoint says so: another venue's market of that name has another
price.

What this module is not: it knows no venue and no ccxt; procs.prices.endpoints does.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from procs.prices.answer import (
    AllSourcesFailed,
    Answer,
    BadAnswer,
    BudgetSpent,
    Ohlcv,
    Price,
    PriceError,
    Reason,
    SourceFailed,
    UnknownSymbol,
    UnknownTimeframe,
    checked_candles,
)
from procs.prices.budget import Hold
from procs.prices.endpoints import Endpoint
from procs.prices.trades import TradeCandles

MOST_CANDLES: Final = 1000
KEPT: Final = 4096
"""Answers remembered for staleness; the one that was used longest ago goes first."""
A = TypeVar("A", bound=Answer)
Key = tuple[str, ...]


class PriceSource:
    """See the module. `now_ns` is Unix time; `stale_after_s` is the age from which an answer counts as stale (a candle's begins
    at its end). Use `async with`, or close it."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        trades: Sequence[TradeCandles] = (),
        *,
        ttl_s: float = 20.0,
        stale_after_s: float = 60.0,
        most_at_once: int = 4,
        now_ns: Callable[[], int] = time.time_ns,
        hold_s: tuple[float, float] = (1.0, 60.0),
    ) -> None:
        if not 0 <= ttl_s <= 3600 or not 0 < stale_after_s or not 1 <= most_at_once <= 64:
            raise ValueError(
                f"ttl_s {ttl_s} (0..3600), stale_after_s {stale_after_s} (above 0), most_at_once {most_at_once} (1..64)"
            )
        self.endpoints: Final = tuple(endpoints)
        self.trades: Final = tuple(trades)
        self._ttl_ns, self._stale_after_s, self._now_ns = int(ttl_s * 1e9), stale_after_s, now_ns
        self._holds = [Hold(*hold_s, clock=now_ns) for _ in self.endpoints]
        self._kept: OrderedDict[Key, Answer] = OrderedDict()
        self._asking: dict[Key, asyncio.Task[Any]] = {}
        self._gate = asyncio.Semaphore(most_at_once)

    async def __aenter__(self) -> PriceSource:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what is being asked, and let go of connections."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.close()

    async def ohlcv(self, symbol: str, timeframe: str = "1m", limit: int = 100) -> Ohlcv:
        """The last candles, at most `limit` (1..1000). Raises PriceError."""
        if not 1 <= limit <= MOST_CANDLES:
            raise PriceError(f"{limit} candles are asked for: ask for 1 to {MOST_CANDLES}")

        async def fetched(endpoint: Endpoint) -> Ohlcv:
            candles = checked_candles(await endpoint.ohlcv(symbol, timeframe, limit))
            return self._ohlcv(symbol, timeframe, candles, endpoint.name, 0)

        def built(source: TradeCandles) -> Ohlcv:
            candles = checked_candles(source.ohlcv(symbol, timeframe, limit))
            return self._ohlcv(symbol, timeframe, candles, source.name, source.last_ns(symbol))

        what = f"{timeframe} candles of {symbol}"
        return await self._one(("ohlcv", symbol, timeframe, str(limit)), what, fetched, built)

    def _ohlcv(self, symbol: str, timeframe: str, candles: Any, source: str, as_of_ns: int) -> Ohlcv:
        now = self._now_ns()
        if not as_of_ns:  # a candle that has ended speaks of its end, one in the making of now
            ends = [b.open_time_ns - a.open_time_ns for a, b in zip(candles, candles[1:])]
            size = min(ends) if ends else _size_ns(timeframe)
            as_of_ns = now if candles[-1].open_ended else min(candles[-1].open_time_ns + size, now)
        return Ohlcv(symbol=symbol, timeframe=timeframe, candles=candles, source=source, fetched_ns=now, as_of_ns=as_of_ns)

    async def ticker(self, symbol: str) -> Price:
        """The last price. Raises PriceError."""

        def price(found: Any, source: str) -> Price:
            now = self._now_ns()
            as_of = min(found.as_of_ns, now) or now
            return Price(
                symbol=symbol, last=found.last, bid=found.bid, ask=found.ask, source=source, fetched_ns=now, as_of_ns=as_of
            )

        async def fetched(endpoint: Endpoint) -> Price:
            return price(await endpoint.ticker(symbol), endpoint.name)

        def built(source: TradeCandles) -> Price:
            return price(source.ticker(symbol), source.name)

        return await self._one(("ticker", symbol), f"a price of {symbol}", fetched, built)

    async def prices(self, symbols: Sequence[str]) -> dict[str, Price | PriceError]:
        """Last prices of many symbols, a few asked at once; one that cannot be had is its error."""

        async def one(symbol: str) -> Price | PriceError:
            try:
                return await self.ticker(symbol)
            except PriceError as error:
                return error

        names = list(dict.fromkeys(symbols))
        return dict(zip(names, await asyncio.gather(*(one(name) for name in names))))

    # ---- one answer ------------------------------------------------------------------------------------------------------

    async def _one(
        self, key: Key, what: str, fetched: Callable[[Endpoint], Coroutine[Any, Any, A]], built: Callable[[TradeCandles], A]
    ) -> A:
        """From the cache, from the request that is under way, or from a new one, which outlives a caller that gives up."""
        kept: Any = self._kept.get(key)
        if kept is not None and 0 <= self._now_ns() - kept.fetched_ns < self._ttl_ns:
            self._kept.move_to_end(key)
            return self._given(kept, cached=True)
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, what, fetched, built))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return self._given(await asyncio.shield(task))

    def _asked(self, key: Key, task: asyncio.Task[Any]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # its callers may be gone: nobody else would look

    def _given(self, answer: A, *, cached: bool = False) -> A:
        return answer.at(self._now_ns(), cached=cached or answer.cached, stale_after_s=self._stale_after_s)

    async def _ask(
        self, key: Key, what: str, fetched: Callable[[Endpoint], Coroutine[Any, Any, A]], built: Callable[[TradeCandles], A]
    ) -> A:
        reasons: list[tuple[Reason, PriceError]] = []
        for number, endpoint in enumerate(self.endpoints):
            hold = self._holds[number]
            try:
                hold.check()
            except SourceFailed as error:
                reasons.append(((endpoint.name, str(error)), error))
                continue
            try:
                async with self._gate:
                    answer = await fetched(endpoint)
            except UnknownSymbol as error:
                hold.succeeded()  # it answered
                if number == 0:
                    raise
                reasons.append(((endpoint.name, str(error)), error))
            except UnknownTimeframe as error:
                hold.succeeded()
                reasons.append(((endpoint.name, str(error)), error))
            except SourceFailed as error:
                if not isinstance(error, (BadAnswer, BudgetSpent)):  # these are one symbol's, or our own affair
                    hold.failed(error)
                reasons.append(((endpoint.name, str(error)), error))
            else:
                hold.succeeded()
                answer = _with(answer, failed=tuple(r for r, _ in reasons))
                self._keep(key, answer)
                return answer
        for source in self.trades:
            try:
                return _with(built(source), failed=tuple(r for r, _ in reasons))
            except (SourceFailed, UnknownSymbol, UnknownTimeframe) as error:
                reasons.append(((source.name, str(error)), error))
        kept: Any = self._kept.get(key)
        if kept is not None:
            return _with(kept, failed=tuple(r for r, _ in reasons), stale=True, cached=True)
        for kind in (UnknownTimeframe, UnknownSymbol):
            if reasons and all(isinstance(error, kind) for _, error in reasons):
                raise kind("; ".join(dict.fromkeys(text for (_, text), _ in reasons)))
        raise AllSourcesFailed(what, [reason for reason, _ in reasons])

    def _keep(self, key: Key, answer: Answer) -> None:
        self._kept[key] = answer
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _with(answer: A, **changes: Any) -> A:
    return replace(answer, **changes)


def _size_ns(timeframe: str) -> int:
    """Length of a candle; 0 for weeks and months, which begin by the calendar."""
    from trading.candles import CandleError, parse_size

    try:
        return parse_size(timeframe)
    except CandleError:
        return 0
