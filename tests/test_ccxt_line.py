"""The ccxt line against an exchange that plays scripts: what is missed is said at once, and the frames after it are right."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import ccxt
import pytest
from ccxt_fakes import FakeExchange, book, market

from procs.receiver.ccxt_line import CcxtLine, ccxt_exchange
from trading.venues.protocol import Item, Missed, Plain, Refused, Streams, Unknown, VenueError, VenueSymbol
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import W_KIND, W_LAST, W_PREV, read_plain_frame

BTC = VenueSymbol(0, "BTCUSDT", "BTC/USDT", "0.01", "0.00001")
ETH = VenueSymbol(1, "ETHUSDT", "ETHUSDT", "0.01", "0.0001")
NOW = 1_700_000_000_000_000_000
A, B, C = book([(100.0, 1.0)], [(101.0, 1.0)]), book([(100.5, 1.0)], [(101.0, 1.0)]), book([(100.5, 2.0)], [(101.0, 3.0)])
DEPTH_ONLY = Streams(trade=False, bbo=False)


class World:
    """A line, its exchange, and what they told, in order."""

    def __init__(self, exchange: FakeExchange, symbols: tuple[VenueSymbol, ...] = (BTC,), streams: Streams = DEPTH_ONLY) -> None:
        self.exchange, self.told, self.slept = exchange, [], []
        self.line = CcxtLine(
            "fake", symbols, self._item, self._line, streams=streams, exchange=exchange, rng=random.Random(7),
            clock=lambda: NOW, sleep=self._sleep, backoff_s=(0.25, 8.0),
        )  # fmt: skip

    def _item(self, item: Item, recv_ns: int) -> None:
        assert recv_ns == NOW
        self.told.append(item)

    def _line(self, symbol: int, up: bool) -> None:
        self.told.append((symbol, up))

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn

    async def play(self) -> None:
        """Run until every script is at its end, then stop."""
        running = asyncio.create_task(self.line.run())
        drained = asyncio.create_task(self.exchange.drained.wait())
        await asyncio.wait([running, drained], return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        await self.line.stop()
        await running

    def shown(self, symbol: int = 0) -> list[str]:
        """What was told of a symbol: frames by kind, line events, what was missed."""
        found = []
        for item in self.told:
            if isinstance(item, tuple):
                found += ["up" if item[1] else "down"] * (item[0] == symbol)
            elif isinstance(item, Plain):
                found += [FrameKind(int(read_plain_frame(item.frame)[0][W_KIND])).name] * (item.symbol == symbol)
            elif isinstance(item, Missed):
                found += ["missed"] * (symbol in item.symbols)
            else:
                found.append(type(item).__name__)
        return found


def run(main: Callable[[], Coroutine[Any, Any, World]]) -> World:
    """The world that `main` makes and plays, with 20 s of patience."""
    return asyncio.run(asyncio.wait_for(main(), 120))


def played(**how: Any) -> World:
    """Play scripts to their end. how: markets, symbols, streams, loading; books, trades, quotes: scripts by symbol."""

    async def main() -> World:
        kept = {k: how.pop(k) for k in ("symbols", "streams") if k in how}
        loading, has = how.pop("loading", []), how.pop("has", {})
        exchange = FakeExchange(how.pop("markets", ()), **how)
        exchange.loading.extend(loading)
        exchange.has.update(has)
        world = World(exchange, **kept)
        await world.play()
        return world

    return run(main)


def test_a_snapshot_then_what_changed() -> None:
    """The line is up with the first book; a book that changed nothing makes no frame; ids follow each other; the end is told."""
    world = played(books={"BTC/USDT": [A, A, B, C]})
    assert world.shown() == ["up", "SNAPSHOT", "DEPTH", "DEPTH", "down"]
    heads = [read_plain_frame(item.frame)[0] for item in world.told if isinstance(item, Plain)]
    assert [h[W_PREV] for h in heads[1:]] == [h[W_LAST] for h in heads[:-1]] and heads[0][W_LAST] == NOW // 1000 + 1
    assert world.line.counts.books == 4 and world.line.counts.frames == 3 and world.exchange.closed == 1


@pytest.mark.parametrize("error", [ccxt.ChecksumError("gap"), ccxt.NetworkError("reset"), ccxt.ExchangeError("odd"),
                                   ccxt.RateLimitExceeded("429")])  # fmt: skip
def test_a_gap_is_said_at_once_and_healed_by_a_snapshot(error: Exception) -> None:
    """Whatever ccxt raises: missed, down, a back-off, up, a snapshot; the other symbol hears nothing of it."""
    world = played(markets=[market(), market("ETH/USDT")], symbols=(BTC, ETH),
                   books={"BTC/USDT": [A, error, B], "ETH/USDT": [A, B, C]})  # fmt: skip
    assert world.shown() == ["up", "SNAPSHOT", "missed", "down", "up", "SNAPSHOT", "down"]
    assert world.shown(1) == ["up", "SNAPSHOT", "DEPTH", "DEPTH", "down"]
    counts = world.line.counts
    assert (counts.gaps, counts.errors) == ((1, 0) if isinstance(error, ccxt.ChecksumError) else (0, 1))


def test_back_off_grows_with_failures_in_a_row_and_ends_with_a_success() -> None:
    """Each wait lies between the least and twice the one before's bound, never above the greatest."""
    errors = [ccxt.NetworkError("down")] * 9
    world = played(books={"BTC/USDT": [*errors, A, *errors[:1], B]})
    bounds = [min(8.0, 0.25 * 2.0 ** (n + 1)) for n in range(9)] + [0.5]
    assert len(world.slept) == 10 and all(0.25 <= s <= b for s, b in zip(world.slept, bounds)) and max(world.slept) > 3.0


def test_a_book_with_an_impossible_price_is_not_told() -> None:
    """What is no whole tick is shown as unknown, the book is missed, and the next right one is a snapshot."""
    world = played(books={"BTC/USDT": [A, book([(100.005, 1.0)], []), B]})
    assert world.shown() == ["up", "SNAPSHOT", "Unknown", "missed", "down", "up", "SNAPSHOT", "down"]
    (unknown,) = [item for item in world.told if isinstance(item, Unknown)]
    assert "no multiple of 0.01" in unknown.why and world.line.counts.odd == 1


def test_trades_and_quotes_come_once_and_their_errors_leave_the_book_alone() -> None:
    """Repeated trades are dropped, an odd one is shown and costs no other; a broken trade stream is not a missed book."""
    one, two = ({"id": n, "price": 100.0, "amount": 1.0, "side": "buy", "timestamp": 5} for n in ("1", "2"))
    world = played(
        streams=Streams(), books={"BTC/USDT": [A]}, quotes={"BTC/USDT": [{"BTC/USDT": {"bid": 1.0, "bidVolume": 2.0}}, {}]},
        trades={"BTC/USDT": [[one], [{**one, "id": "x", "amount": 1e-9}, two, one], ccxt.NetworkError("lost"), [two]]},
    )  # fmt: skip
    shown = world.shown()
    assert sorted(shown) == sorted(["up", "SNAPSHOT", "BBO", "TRADE", "TRADE", "Unknown", "Refused", "down"])
    assert world.line.counts.repeated_trades == 2


def test_markets_are_asked_for_until_they_come() -> None:
    """A venue that cannot be reached at the start is tried again; each failure is told."""
    world = played(loading=[ccxt.NetworkError("no route")] * 3, books={"BTC/USDT": [A]})
    assert world.shown() == ["Refused"] * 3 + ["up", "SNAPSHOT", "down"] and world.exchange.loads == 4 and len(world.slept) == 3
    assert [i.text for i in world.told if isinstance(i, Refused)][0] == "ccxt:fake: NetworkError: no route"


@pytest.mark.parametrize(("how", "sentence"), [
    ({"symbols": (VenueSymbol(0, "BTCUSD", "BTCUSD"),)}, "ccxt:fake: the venue has no symbol 'BTCUSD': did you mean BTCUSDT"),
    ({"has": {"watchOrderBook": False}}, "watches no order books there"),
    ({"markets": [market(contractSize=0.01)]}, "contracts"),
])  # fmt: skip
def test_what_cannot_be_watched_at_all_is_refused_with_a_sentence(how: dict[str, Any], sentence: str) -> None:
    """No symbol, no order books, contracts: run raises, and the exchange is closed."""
    with pytest.raises(VenueError, match=sentence):
        played(**how)


def test_a_venue_without_trade_streams_still_gives_books() -> None:
    """What ccxt.pro does not offer there is not waited for."""
    world = played(streams=Streams(), has={"watchTrades": False, "watchBidsAsks": None}, books={"BTC/USDT": [A]})
    assert world.shown() == ["up", "SNAPSHOT", "down"]


def test_a_defect_is_raised_not_tried_again() -> None:
    """An error that is not ccxt's ends the line with its own traceback."""
    with pytest.raises(ZeroDivisionError):
        played(books={"BTC/USDT": [A, ZeroDivisionError()]})


def test_stop_while_the_venue_does_not_answer() -> None:
    """run ends when stopped, wherever it waits, and closes the exchange."""

    async def main() -> World:
        exchange = FakeExchange()
        asked = asyncio.Event()

        async def never() -> dict[str, Any]:
            asked.set()
            return await asyncio.get_running_loop().create_future()

        exchange.load_markets = never  # type: ignore[method-assign]
        world = World(exchange)
        running = asyncio.create_task(world.line.run())
        await asked.wait()
        await world.line.stop()
        await running
        return world

    assert run(main).exchange.closed == 1


@pytest.mark.parametrize("leaves", [True, False])
def test_a_dead_stream_is_subscribed_anew(leaves: bool) -> None:
    """Where ccxt can leave a stream it leaves that one, by the market's name; elsewhere its connections are closed, which ends
    the watching of all with an error. The book's next frame is whole. What ccxt last told of each stream is known."""

    async def main() -> World:
        exchange = FakeExchange(books={"BTC/USDT": [A, B]})
        left: list[Any] = []
        exchange.has["unWatchOrderBook"] = leaves

        async def un_watch_order_book(name: str) -> None:
            left.append(name)

        exchange.un_watch_order_book = un_watch_order_book  # type: ignore[attr-defined]
        world = World(exchange)
        await world.line.again(0, "depth")
        assert left == [] and exchange.closed == 0, "nothing is watched yet"
        world.line._names_of = {0: "BTC/USDT"}
        await world.line.again(0, "depth")
        assert (left, exchange.closed) == ((["BTC/USDT"], 0) if leaves else ([], 1))
        await world.play()
        assert world.line.heard == {(0, "depth"): NOW}
        return world

    assert run(main).shown()[:2] == ["up", "SNAPSHOT"]


def test_rules_come_from_the_markets() -> None:
    """By the name that the profile gives."""

    async def main() -> World:
        world = World(FakeExchange([market("ETH/USDT")]), (ETH,))
        rules = await world.line.fetch_rules()
        assert rules["ETHUSDT"].tick_size == "0.01" and rules["ETHUSDT"].venue_name == "ETHUSDT"
        return world

    run(main)


def test_the_real_ccxt_is_set_up_for_public_data_elsewhere() -> None:
    """ccxt.pro's binance asks one host for spot markets alone; an unknown id is refused with a hint."""

    async def main() -> World:
        exchange = ccxt_exchange("binance", "http://127.0.0.1:1", "ws://127.0.0.1:2")
        assert exchange.urls["api"]["public"] == "http://127.0.0.1:1/api/v3"
        assert exchange.urls["api"]["ws"]["spot"] == "ws://127.0.0.1:2/stream/ws"
        assert exchange.options["fetchMarkets"]["types"] == ["spot"]
        await exchange.close()
        return World(FakeExchange())

    run(main)
    with pytest.raises(VenueError, match="did you mean binance"):
        ccxt_exchange("binanc")
