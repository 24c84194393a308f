"""PriceSource with scripted sources and a clock to turn: the cache, one request for many callers, each step of the fallbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

import pytest
from prices_venue import Clock

from procs.prices.answer import (
    AllSourcesFailed,
    BadAnswer,
    BudgetSpent,
    Candle,
    PriceError,
    SourceFailed,
    UnknownSymbol,
    UnknownTimeframe,
)
from procs.prices.budget import Budgets, RequestBudget
from procs.prices.endpoints import Ticker
from procs.prices.source import PriceSource
from procs.prices.trades import SymbolTrades, TradeCandles, np

S = 1_000_000_000


class Scripted:
    """An endpoint that answers with what stands in `answers` (the last for ever); an exception is raised."""

    def __init__(self, name: str, clock: Clock, *answers: Any) -> None:
        self.name, self._clock, self.answers, self.calls = name, clock, list(answers) or [100], 0
        self.gate: asyncio.Event | None = None
        self.inside = self.most_inside = self.closed = 0

    async def _next(self) -> Any:
        self.calls += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            if self.gate is not None:
                await self.gate.wait()
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, BaseException):
                raise answer
            return Decimal(answer)
        finally:
            self.inside -= 1

    async def ticker(self, symbol: str) -> Ticker:
        """A price of now."""
        return Ticker(await self._next(), None, None, self._clock())

    async def ohlcv(self, symbol: str, timeframe: str, limit: int) -> tuple[Candle, ...]:
        """Two minutes, the second still open."""
        p = await self._next()
        start = self._clock() // (60 * S) * 60 * S
        return tuple(Candle(start - k * 60 * S, p, p, p, p, Decimal(1), open_ended=k == 0) for k in (1, 0))

    async def close(self) -> None:
        """Count it."""
        self.closed += 1


class OwnTrades:
    """A source of three BTCUSDT trades, the last one at the clock's start."""

    name = "own trades"

    def __init__(self, clock: Clock) -> None:
        self.last_ns = clock()

    def trades(self, symbol: str) -> SymbolTrades:
        """Those of BTCUSDT."""
        if symbol != "BTCUSDT":
            raise UnknownSymbol(f"no {symbol} here")
        ts = np.array([self.last_ns - 130 * S, self.last_ns - 5 * S, self.last_ns])
        return SymbolTrades(ts, np.array([1, 2, 3]), np.array([5000, 5200, 5100]), np.array([10, 20, 30]), np.array([0, 1, 0]),
                            Decimal("0.01"), Decimal("0.001"), gapless=True)  # fmt: skip


def run(main: Callable[[Clock], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine with a clock, with 20 s of patience."""
    asyncio.run(asyncio.wait_for(main(Clock()), 120))


def test_an_answer_is_kept_for_its_time_and_grows_old() -> None:
    """Within the TTL nobody is asked again and the age is true; then the endpoint is; other symbols and sizes are other keys."""

    async def main(clock: Clock) -> None:
        first = Scripted("first", clock, 100, 101, 102)
        async with PriceSource([first], ttl_s=20, now_ns=clock) as source:
            one = await source.ticker("BTCUSDT")
            assert (one.last, one.source, one.age_s, one.cached, one.stale, one.failed) == (100, "first", 0.0, False, False, ())
            clock.turn(19.9)
            two = await source.ticker("BTCUSDT")
            assert (two.last, two.cached, two.age_s, two.stale) == (100, True, 19.9, False) and first.calls == 1
            clock.turn(0.1)
            assert (await source.ticker("BTCUSDT")).last == 101 and first.calls == 2
            assert (await source.ticker("ETHUSDT")).last == 102
            for call in (("BTCUSDT", "1m", 2), ("BTCUSDT", "1m", 3), ("BTCUSDT", "5m", 2), ("BTCUSDT", "1m", 2)):
                await source.ohlcv(*call)
            assert first.calls == 6
        assert first.closed == 1

    run(main)


def test_concurrent_callers_share_one_request() -> None:
    """A hundred callers, one request; one who gives up takes it from nobody; its error reaches all, and is not kept."""

    async def main(clock: Clock) -> None:
        first = Scripted("first", clock, 100)
        first.gate = asyncio.Event()
        async with PriceSource([first], now_ns=clock) as source:
            callers = [asyncio.create_task(source.ticker("BTCUSDT")) for _ in range(100)]
            while not first.calls:
                await asyncio.wait(callers, timeout=0)
            callers[0].cancel()
            await asyncio.wait(callers[:1])
            first.gate.set()
            answers = await asyncio.gather(*callers[1:])
            assert first.calls == 1 and {a.last for a in answers} == {100}
            first.answers = [SourceFailed("down")]
            found = await asyncio.gather(*(source.ticker("ETHUSDT") for _ in range(5)), return_exceptions=True)
            assert all(isinstance(e, AllSourcesFailed) for e in found) and first.calls == 2

    run(main)


def test_fallbacks_are_asked_in_order_and_each_answer_says_which() -> None:
    """First endpoint, second endpoint, own trades, last known: each step as the one before fails, and back when it answers."""

    async def main(clock: Clock) -> None:
        down = SourceFailed("503")
        first, second = Scripted("first", clock, 100, down), Scripted("second", clock, 200, down)
        source = PriceSource([first, second], [TradeCandles(OwnTrades(clock), now_ns=clock)], now_ns=clock)
        alone = PriceSource([Scripted("only", clock, 300, down)], now_ns=clock)
        known = await alone.ticker("BTCUSDT")
        assert (await source.ticker("BTCUSDT")).source == "first"
        clock.turn(21)
        answer = await source.ticker("BTCUSDT")
        assert (answer.last, answer.source, answer.failed, answer.stale) == (200, "second", (("first", "503"),), False)
        clock.turn(21)
        answer = await source.ticker("BTCUSDT")
        assert (answer.last, answer.source, answer.age_s, answer.stale) == (Decimal("51.00"), "own trades", 42.0, False)
        assert [name for name, _ in answer.failed] == ["first", "second"]
        clock.turn(21)
        assert (await source.ticker("BTCUSDT")).stale  # the trade is 63 s old by now
        stale = await alone.ticker("BTCUSDT")
        assert (stale.last, stale.stale, stale.cached, stale.age_s) == (known.last, True, True, 63.0)
        assert stale.source == "only" and stale.failed == (("only", "503"),)
        first.answers = [111]
        clock.turn(60)
        answer = await source.ticker("BTCUSDT")
        assert (answer.last, answer.source, answer.failed) == (111, "first", ())
        await source.close()

    run(main)


def test_without_any_source_every_reason_is_told() -> None:
    """Never known: the error lists who said what, with a remedy."""

    async def main(clock: Clock) -> None:
        endpoints = [Scripted("a", clock, SourceFailed("refused")), Scripted("b", clock, BadAnswer("nonsense"))]
        source = PriceSource(endpoints, [TradeCandles(OwnTrades(clock), now_ns=clock)], now_ns=clock)
        with pytest.raises(
            AllSourcesFailed, match="a: refused; b: nonsense; own trades: no ETHUSDT here; check the network"
        ) as caught:
            await source.ticker("ETHUSDT")
        assert [name for name, _ in caught.value.reasons] == ["a", "b", "own trades"]
        with pytest.raises(AllSourcesFailed, match="there is no source"):
            await PriceSource([], now_ns=clock).ohlcv("BTCUSDT")

    run(main)


def test_an_unknown_symbol_is_final_only_if_the_first_endpoint_says_so() -> None:
    """No other venue's price stands in for what the venue does not list; a second endpoint's word is one reason among others."""

    async def main(clock: Clock) -> None:
        first, second = Scripted("first", clock, UnknownSymbol("no such symbol")), Scripted("second", clock, 5)
        with pytest.raises(UnknownSymbol, match="no such symbol"):
            await PriceSource([first, second], now_ns=clock).ticker("BTCUSD")
        assert second.calls == 0
        other = [Scripted("x", clock, SourceFailed("down")), Scripted("y", clock, UnknownSymbol("not here"))]
        with pytest.raises(AllSourcesFailed, match="x: down; y: not here"):
            await PriceSource(other, now_ns=clock).ticker("BTCUSDT")

    run(main)


def test_a_size_that_no_endpoint_has_is_built_from_trades() -> None:
    """5 s candles from own trades, the doubtful ones marked; a size that nobody has is an error of its own."""

    async def main(clock: Clock) -> None:
        first = Scripted("first", clock, UnknownTimeframe("first has no 5s"))
        source = PriceSource([first], [TradeCandles(OwnTrades(clock), now_ns=clock)], now_ns=clock)
        found = await source.ohlcv("BTCUSDT", "5s", 10)
        assert [(c.open, c.volume, c.open_ended, c.incomplete) for c in found.candles] == [
            (Decimal("50.00"), Decimal("0.010"), False, True),
            (Decimal("52.00"), Decimal("0.020"), False, False),
            (Decimal("51.00"), Decimal("0.030"), True, True),
        ]
        assert found.partial and found.source == "own trades" and found.failed[0][0] == "first"
        minutes = await source.ohlcv("BTCUSDT", "1m", 2)
        assert [(c.open, c.high, c.low, c.close) for c in minutes.candles][-1] == tuple(
            map(Decimal, ("52.00", "52.00", "51.00", "51.00"))
        )
        with pytest.raises(UnknownTimeframe, match="'7x' is no candle size"):
            await source.ohlcv("BTCUSDT", "7x")

    run(main)


def test_a_failing_endpoint_is_left_alone_longer_each_time() -> None:
    """1, 2, 4 ... s, as long as it asks for itself; an impossible answer for one symbol does not count against the others."""

    async def main(clock: Clock) -> None:
        first = Scripted("first", clock, SourceFailed("down"))
        source = PriceSource([first], now_ns=clock, hold_s=(1.0, 8.0))
        asked = []
        for tenth in range(300):
            before = first.calls
            with pytest.raises(AllSourcesFailed):
                await source.ticker("BTCUSDT")
            if first.calls > before:
                asked.append(tenth / 10)
            clock.turn(0.1)
        assert asked == [0.0, 1.0, 3.0, 7.0, 15.0, 23.0]
        clock.turn(8)
        first.answers = [SourceFailed("429", 120.0), 100]
        for seconds in (0, 119.9):
            clock.turn(seconds)
            with pytest.raises(AllSourcesFailed, match="429"):
                await source.ticker("BTCUSDT")
        clock.turn(0.2)
        assert (await source.ticker("BTCUSDT")).last == 100
        first.answers = [BadAnswer("odd"), BudgetSpent("later"), 7]
        for symbol in ("A", "B"):
            with pytest.raises(AllSourcesFailed):
                await source.ticker(symbol)
        assert (await source.ticker("C")).last == 7

    run(main)


def test_impossible_candles_are_no_answer() -> None:
    """High below low, a price of 0, times that go back, none at all: the next source is asked."""

    async def main(clock: Clock) -> None:
        def candle(*values: int) -> Candle:
            return Candle(60 * S, *map(Decimal, values))

        good, tall, free, short = (
            candle(10, 12, 9, 11, 5),
            candle(10, 9, 9, 11, 5),
            candle(0, 1, 0, 1, 5),
            candle(10, 12, 9, 11, -1),
        )
        broken = [(), (good, good), (tall,), (free,), (short,)]
        for rows in broken:
            first, second = Scripted("first", clock), Scripted("second", clock)

            async def odd(*_: Any, rows: Any = rows) -> Any:
                return rows

            first.ohlcv = odd  # type: ignore[method-assign]
            found = await PriceSource([first, second], now_ns=clock).ohlcv("BTCUSDT")
            assert found.source == "second" and found.failed[0][0] == "first" and found.partial and not found.stale

    run(main)


def test_candles_that_ended_long_ago_are_stale() -> None:
    """An endpoint whose last candle is over since more than `stale_after_s` answers with old news, and that is said."""

    async def main(clock: Clock) -> None:
        first = Scripted("first", clock)
        row = Candle(clock() // (60 * S) * 60 * S - 180 * S, *map(Decimal, (10, 12, 9, 11, 5)))

        async def old(*_: Any) -> Any:
            return (row,)

        first.ohlcv = old  # type: ignore[method-assign]
        found = await PriceSource([first], now_ns=clock).ohlcv("BTCUSDT")
        assert found.stale and found.age_s == (clock() - row.open_time_ns) / 1e9 - 60 and not found.partial

    run(main)


def test_many_symbols_at_once_but_few_requests() -> None:
    """Never more than `most_at_once` requests; an error stands in its place; names are asked once."""

    async def main(clock: Clock) -> None:
        first = Scripted("first", clock)
        first.gate = asyncio.Event()
        source = PriceSource([first], now_ns=clock, most_at_once=3)
        batch = asyncio.create_task(source.prices([*(f"S{n}" for n in range(10)), "S1"]))
        while first.inside < 3:
            await asyncio.wait([batch], timeout=0)
        first.gate.set()
        found = await batch
        assert first.most_inside == 3 and first.calls == 10 == len(found)
        first.answers = [SourceFailed("down")]
        found = await source.prices(["S1", "new"])
        assert isinstance(found["new"], PriceError) and not isinstance(found["S1"], PriceError)

    run(main)


def test_the_budget_is_shared_and_never_exceeded() -> None:
    """In any stretch of time no more than burst + rate is spent; who would wait too long is refused at once, with the time."""

    async def main(clock: Clock) -> None:
        budget = RequestBudget(2.0, 4.0, max_wait_s=3.0, clock=clock, sleep=clock.sleep)
        started = clock()
        for _ in range(20):
            await budget.spend()
        assert (clock() - started) / 1e9 == pytest.approx((20 - 4) / 2.0)
        await budget.spend(10.0)  # dearer than a burst: when all is earned back
        with pytest.raises(BudgetSpent, match=r"within its budget is \d\.\d s away") as caught:
            await budget.spend()
        assert budget.refused == 1 and caught.value.hold_s > 3.0
        shared = Budgets(0.5, clock=clock, sleep=clock.sleep)
        assert shared.of("binance", 50) is shared.of("binance", 50) is not shared.of("kraken", 1000)

    run(main)


@pytest.mark.parametrize("wrong", [{"ttl_s": -1}, {"ttl_s": 4000}, {"stale_after_s": 0}, {"most_at_once": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """At construction, with the range."""
    with pytest.raises(ValueError, match="above 0"):
        PriceSource([], **wrong)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_the_number_of_candles_has_bounds(limit: int) -> None:
    """1 to 1000."""
    with pytest.raises(PriceError, match="1 to 1000"):
        asyncio.run(PriceSource([]).ohlcv("BTCUSDT", "1m", limit))
