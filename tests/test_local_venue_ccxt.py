"""The unmodified ccxt, REST and pro, works against the local venue with nothing changed but addresses, and has its exact book.

The feed's fold is given the very frames that ccxt.pro hears: its book is ccxt's at every update id.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt.async_support
import ccxt.pro
import pytest
from market_feed import SPOT_BTC, USDM_BTC
from venue_client import run, small_market

from sim.local_venue import LocalVenue, Market, recorded
from sim.local_venue.book import ASK, BID
from sim.worlds.feed import Feed
from trading.books import book as depth_book
from trading.books import fold

ROOT = Path(__file__).resolve().parents[1]
SYMBOLS = {"spot": "BTC/USDT", "usdm": "BTC/USDT:USDT"}


def pointed(exchange: Any, venue: LocalVenue) -> Any:
    """The exchange with the addresses of the local venue."""
    paths = {"public": "/api/v3", "private": "/api/v3", "sapi": "/sapi/v1", "fapiPublic": "/fapi/v1", "fapiPublicV2": "/fapi/v2",
             "fapiPrivate": "/fapi/v1", "fapiPrivateV2": "/fapi/v2", "fapiPrivateV3": "/fapi/v3", "dapiPublic": "/dapi/v1",
             "eapiPublic": "/eapi/v1"}  # fmt: skip
    for name, path in paths.items():
        exchange.urls["api"][name] = venue.rest_url + path
    if "ws" in exchange.urls["api"]:
        exchange.urls["api"]["ws"]["spot"] = venue.stream_url + "/stream/ws"
        exchange.urls["api"]["ws"]["linear"] = venue.usdm_stream_url + "/ws"
    return exchange


async def stepping(venue: LocalVenue, waiting: Awaitable[Any]) -> Any:
    """Move the venue's clock until the awaited thing is there."""
    task = asyncio.ensure_future(waiting)
    while not task.done():
        await venue.step(0.1)
        await asyncio.wait({task}, timeout=0.002)
    return task.result()


def same_book(book: Any, venue: LocalVenue, market: str, limit: int = 100) -> None:
    """ccxt's book is the venue's at the same update id."""
    truth = venue.market.find(market, "BTCUSDT")
    assert truth is not None
    then = truth.book.at_id(book["nonce"])
    for name, side in (("bids", BID), ("asks", ASK)):
        assert [list(level[:2]) for level in book[name]][:limit] == [
            [float(price), float(qty)] for price, qty in then.side(side)
        ][:limit]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Have the fold's kernels before any clock runs."""
    feed = Feed(SPOT_BTC)
    feed.send("{}")
    depth_book.next_key(feed.state[0], 0, 0)
    depth_book.lots_at(feed.state[0], 0, 0)


class Beside:
    """Our fold beside a ccxt.pro exchange: it gets each depth frame and each snapshot that the exchange gets, at that moment."""

    def __init__(self, exchange: Any, market: str) -> None:
        self.instrument = SPOT_BTC if market == "spot" else USDM_BTC
        self.feed = Feed(self.instrument)
        self.compared: set[int] = set()
        on_diff, on_answer = exchange.handle_order_book, exchange.on_rest_response

        def diff(client: Any, message: Any) -> None:
            self.feed.send(message)
            on_diff(client, message)

        def answer(code: Any, reason: Any, url: str, method: Any, headers: Any, body: str, *rest: Any) -> Any:
            if "/depth?" in url:
                self.feed.send(body)
            return on_answer(code, reason, url, method, headers, body, *rest)

        exchange.handle_order_book, exchange.on_rest_response = diff, answer

    def side(self, side: int, limit: int) -> list[list[float]]:
        """Our best levels as ccxt has them."""
        st, found = self.feed.state[0], []
        tick, lot = Decimal(self.instrument.tick_size), Decimal(self.instrument.lot_size)
        key = int(st["best"][side])
        while key != depth_book.NO_KEY and len(found) < limit:
            found.append([float(abs(key) * tick), float(int(depth_book.lots_at(st, side, key)) * lot)])
            key = int(depth_book.next_key(st, side, key + 1))
        return found

    def same(self, book: Any, limit: int = 100) -> None:
        """Where both stand at the same update id, the best levels of both are the same; neither may be ahead of the other."""
        st = self.feed.state[0]
        if st["phase"] != fold.SYNCED:
            return
        assert int(st["last_id"]) == book["nonce"]
        for name, side in (("bids", 0), ("asks", 1)):
            assert self.side(side, limit) == [list(level[:2]) for level in book[name]][:limit]
        self.compared.add(book["nonce"])


@pytest.mark.parametrize(("market", "kind"), [("spot", "binance"), ("usdm", "binanceusdm")])
def test_rest_of_ccxt(market: str, kind: str) -> None:
    """load_markets and every fetch of market data have sensible answers; the book is the venue's."""

    async def test() -> None:
        async with LocalVenue(small_market(), speed=None) as venue:
            exchange = pointed(getattr(ccxt.async_support, kind)(), venue)
            try:
                await venue.step(70.0)
                symbol = SYMBOLS[market]
                assert symbol in await exchange.load_markets()
                assert exchange.markets[symbol]["precision"]["price"] == {"spot": 0.01, "usdm": 0.1}[market]
                same_book(await exchange.fetch_order_book(symbol, 100), venue, market)
                trades = await exchange.fetch_trades(symbol)
                ticker = await exchange.fetch_ticker(symbol)
                truth = venue.market.find(market, "BTCUSDT")
                assert truth is not None
                assert ticker["last"] == float(truth.trades[-1].price)
                assert trades[-1]["price"] == float(truth.aggregates[-1].price)
                candles = await exchange.fetch_ohlcv(symbol, "1m")
                assert len(candles) >= 2
                assert sum(row[5] for row in candles) == pytest.approx(ticker["baseVolume"])
                assert await exchange.fetch_time() == venue.market.now_ms
                with pytest.raises(ccxt.AuthenticationError):
                    exchange.apiKey, exchange.secret = "k" * 64, "s" * 64
                    await exchange.fetch_balance()
            finally:
                await exchange.close()

    run(test)


@pytest.mark.parametrize(("market", "kind"), [("spot", "binance"), ("usdm", "binanceusdm")])
def test_streams_of_ccxt(market: str, kind: str) -> None:
    """watch_order_book, _trades, _ticker and _ohlcv of ccxt.pro speak; its book equals the venue's and our fold's at every update
    id seen."""

    async def test() -> None:
        async with LocalVenue(small_market(), speed=None) as venue:
            exchange = pointed(getattr(ccxt.pro, kind)(), venue)
            try:
                symbol = SYMBOLS[market]
                await exchange.load_markets()
                seen = set()
                ours = Beside(exchange, market)
                for _ in range(20):
                    book = await stepping(venue, exchange.watch_order_book(symbol))
                    same_book(book, venue, market)
                    ours.same(book)
                    seen.add(book["nonce"])
                assert len(seen) >= 15 and len(ours.compared) >= 15
                trade = (await stepping(venue, exchange.watch_trades(symbol)))[-1]
                truth = venue.market.find(market, "BTCUSDT")
                assert truth is not None
                assert int(trade["id"]) in {one.id for one in truth.trades}
                assert (await stepping(venue, exchange.watch_ticker(symbol)))["last"] > 0
                (candle, *_) = await stepping(venue, exchange.watch_ohlcv(symbol, "1m"))
                assert candle[2] >= candle[3] > 0
            finally:
                await exchange.close()

    run(test)


@pytest.mark.recordings
@pytest.mark.parametrize(("market", "kind", "file"), [
    ("spot", "binance", "spot_btcusdt_20240808.gz"), ("usdm", "binanceusdm", "usdm_btcusdt_20240808.gz"),
])  # fmt: skip
def test_book_of_ccxt_on_a_recording(market: str, kind: str, file: str, recordings: Path) -> None:
    """On recorded markets too, the best 100 levels of ccxt's book are the venue's and our fold's at the same update id."""

    async def test() -> None:
        source = Market(recorded(recordings / "hftbacktest_binance" / file))
        async with LocalVenue(source, speed=None) as venue:
            exchange = pointed(getattr(ccxt.pro, kind)(), venue)
            exchange.options["fetchMarkets"] = {"types": ["spot" if market == "spot" else "linear"]}
            try:
                await exchange.load_markets()
                ours = Beside(exchange, market)
                for _ in range(50):
                    book = await stepping(venue, exchange.watch_order_book(SYMBOLS[market]))
                    same_book(book, venue, market)
                    ours.same(book)
                assert len(ours.compared) >= 40
            finally:
                await exchange.close()

    run(test)


def test_ccxt_sees_a_gap() -> None:
    """A gap fault makes ccxt drop its book and raise ChecksumError, as against the venue; watching again heals it."""

    async def test() -> None:
        async with LocalVenue(small_market(), speed=None, faults=["gap:at=3s,n=2"]) as venue:
            exchange = pointed(ccxt.pro.binance(), venue)
            try:
                await exchange.load_markets()
                with pytest.raises(ccxt.ChecksumError):
                    while True:
                        await stepping(venue, exchange.watch_order_book("BTC/USDT"))
                same_book(await stepping(venue, exchange.watch_order_book("BTC/USDT")), venue, "spot")
                assert venue.faults.hits["gap"] == 2
            finally:
                await exchange.close()

    run(test)


def test_the_snippet_of_the_documentation_runs(tmp_path: Path) -> None:
    """The ccxt example of docs/local-venue.md does what it says, as it stands there."""
    text = (ROOT / "docs" / "local-venue.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "ccxt" in block)
    file = tmp_path / "snippet.py"
    file.write_text(snippet, encoding="utf-8")
    ended = subprocess.run([sys.executable, str(file)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
                           capture_output=True, text=True, timeout=120)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 4, ended.stdout
