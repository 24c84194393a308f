"""A client that keeps its book by Binance's rules has the local venue's exact book, at every update id, on both markets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from venue_client import BookClient, GapError, get, run, small_market, wire

from sim.local_venue import LocalVenue, Market, SourceError, recorded
from sim.local_venue.book import ASK, BID, VenueBook, text_of, units_of
from sim.local_venue.symbol_market import SymbolMarket

RECORDED = {
    "spot": ("spot_btcusdt_20240808.gz", "BTCUSDT", 5000),
    "usdm": ("usdm_ethusdt_20240808.gz", "ETHUSDT", 1000),
}
DEPTH_PATH = {"spot": "/api/v3/depth", "usdm": "/fapi/v1/depth"}


def same_book(client: BookClient, truth: SymbolMarket, known: tuple[float, float]) -> None:
    """The client's book is the venue's at the client's update id, within the prices that its snapshot reached."""
    assert client.last_id is not None
    book = truth.book.at_id(client.last_id)
    for mine, side in ((client.bids, BID), (client.asks, ASK)):
        theirs = book.quantities(side)
        assert {price: qty for price, qty in theirs.items() if known[0] <= float(price) <= known[1]} == {
            price: qty for price, qty in mine.items() if known[0] <= float(price) <= known[1]
        }
        assert mine.items() <= theirs.items()


def reach(body: dict[str, Any], limit: int) -> tuple[float, float]:
    """The lowest and the highest price that a snapshot of so many levels says everything about."""
    lowest = min(float(level[0]) for level in body["bids"]) if len(body["bids"]) == limit else 0.0
    highest = max(float(level[0]) for level in body["asks"]) if len(body["asks"]) == limit else 1e18
    return lowest, highest


async def follow(venue: LocalVenue, market: str, symbol: str, stream: str, seconds: float, limit: int) -> int:
    """Keep a book for so many seconds of the venue's time; returns how many update ids were compared."""
    base = "/usdm/public/ws/" if market == "usdm" else "/ws/"
    client = BookClient(market)
    truth = venue.market.find(market, symbol)
    assert truth is not None
    compared = 0
    known = (0.0, 1e18)
    async with wire(venue, base + symbol.lower() + "@" + stream) as line:
        spent = 0.0
        while spent < seconds:
            spent += 0.25
            for event in await line.read(0.25):
                if client.event(event):
                    same_book(client, truth, known)
                    assert not client.crossed
                    compared += 1
            if client.last_id is None and client.buffer:
                _, body, _ = await get(venue, f"{DEPTH_PATH[market]}?symbol={symbol}&limit={limit}")
                known = reach(body, limit)
                assert client.snapshot(body)
                same_book(client, truth, known)
    return compared


@pytest.mark.parametrize(("market", "stream"), [
    ("spot", "depth@100ms"), ("spot", "depth"), ("usdm", "depth@0ms"), ("usdm", "depth@100ms"), ("usdm", "depth@500ms"),
])  # fmt: skip
def test_generated_book_is_exact_at_every_update(market: str, stream: str) -> None:
    """From the embedded market, at each interval, every update id of the stream gives the venue's book."""

    async def test() -> None:
        async with LocalVenue(small_market(), speed=None) as venue:
            assert await follow(venue, market, "BTCUSDT", stream, 20, 1000) >= 15

    run(test)


@pytest.mark.recordings
@pytest.mark.parametrize(("market", "stream"), [
    ("spot", "depth@100ms"), ("spot", "depth"), ("usdm", "depth@0ms"), ("usdm", "depth"),
])  # fmt: skip
def test_recorded_book_is_exact_at_every_update(market: str, stream: str, recordings: Path) -> None:
    """From a recording, with its own update ids, full depth on spot and 1000 levels on USD-M."""
    name, symbol, limit = RECORDED[market]

    async def test() -> None:
        source = Market(recorded(recordings / "hftbacktest_binance" / name))
        async with LocalVenue(source, speed=None) as venue:
            assert await follow(venue, market, symbol, stream, 20, limit) >= 15
            assert source.find(market, symbol).source_gaps == 0  # type: ignore[union-attr]

    run(test)


@pytest.mark.recordings
def test_book_ticker_equals_the_book_at_the_same_update_id(recordings: Path) -> None:
    """The recordings' own proof holds of the venue too: bookTicker and book agree wherever their update ids meet."""
    market = Market(recorded(recordings / "hftbacktest_binance" / "spot_btcusdt_20240808.gz"))
    truth = market.find("spot", "BTCUSDT")
    assert truth is not None
    for stream in ("btcusdt@bookTicker", "btcusdt@depth@100ms"):
        market.subscribe("spot", stream)
    tickers: dict[int, dict[str, Any]] = {}
    met = 0
    while not market.ended:
        for message in market.run(1.0):
            assert isinstance(message.body, dict)
            if message.kind == "bookTicker":
                tickers[message.body["u"]] = message.body
            elif message.body["u"] in tickers:
                ticker = tickers[message.body["u"]]
                book = truth.book.at_id(message.body["u"])
                assert (book.best(BID), book.best(ASK)) == ((ticker["b"], ticker["B"]), (ticker["a"], ticker["A"]))
                met += 1
    assert met > 300


@pytest.mark.recordings
def test_a_recording_that_begins_anew_stays_in_sequence(recordings: Path) -> None:
    """With loop, ids and times rise over the seam, and the client's book stays exact without a new snapshot."""
    market = Market(recorded(recordings / "hftbacktest_binance" / "usdm_btcusdt_20240718.gz"), loop=True)
    truth = market.find("usdm", "BTCUSDT")
    assert truth is not None
    market.subscribe("usdm", "btcusdt@depth@0ms")
    market.subscribe("usdm", "btcusdt@trade")
    market.run(60.0)
    client = BookClient("usdm")
    client.snapshot({"lastUpdateId": truth.book.last_id, "bids": truth.book.side(BID), "asks": truth.book.side(ASK)})
    last_trade = last_ms = events = 0
    while market.rounds < 2 or not client.last_id or market.frames < 30_000:
        for message in market.run(5.0):
            body = message.body
            assert isinstance(body, dict)
            assert body["E"] >= last_ms - 2000
            last_ms = max(last_ms, body["E"])
            if message.kind == "trade":
                assert body["t"] > last_trade
                last_trade = body["t"]
            else:
                client.event(body)
                events += 1
                if events % 50 == 0:
                    same_book(client, truth, (0.0, 1e18))
    assert truth.source_gaps == 0


def test_snapshot_older_than_the_buffer_is_refused_and_a_missing_event_is_seen() -> None:
    """The rules have teeth: a gap raises, a snapshot from before the first event does not fit."""
    client = BookClient("spot")
    client.event({"U": 10, "u": 12, "b": [], "a": []})
    assert not client.snapshot({"lastUpdateId": 8, "bids": [], "asks": []})
    assert client.snapshot({"lastUpdateId": 11, "bids": [], "asks": []})
    with pytest.raises(GapError):
        client.event({"U": 14, "u": 15, "b": [], "a": []})


def test_a_recording_without_a_snapshot_is_refused(tmp_path: Path) -> None:
    """Without a REST snapshot no book is known: one sentence names the symbol and the remedy."""
    file = tmp_path / "day.txt"
    event = '{"e":"depthUpdate","E":1,"s":"ABCUSDT","U":1,"u":2,"b":[["1.0","2.0"]],"a":[]}'
    file.write_text(f'1723000000000000000 {{"stream":"abcusdt@depth@100ms","data":{event}}}\n')
    with pytest.raises(SourceError, match="ABCUSDT holds no REST snapshot"):
        Market(recorded(file))
    file.write_text("1000 {broken\n")
    with pytest.raises(SourceError, match="day.txt:1"):
        Market(recorded(file))


def test_book_can_be_had_back_as_it_was() -> None:
    """Updates are taken back one by one, by id and by time; an id between two updates is none."""
    book = VenueBook()
    book.seed([("10", "1"), ("9", "2")], [("11", "1")], 5, 100)
    states = {5: (book.side(BID), book.side(ASK))}
    for n, (bids, asks) in enumerate([([("10", "0")], []), ([("10", "3"), ("9.5", "1")], [("11", "0.0")]), ([], [("12", "7")])]):
        book.apply(bids, asks, 10 * (n + 1), 200 + n)
        states[10 * (n + 1)] = (book.side(BID), book.side(ASK))
    for update_id, state in states.items():
        old = book.at_id(update_id)
        assert (old.side(BID), old.side(ASK)) == state
    with pytest.raises(KeyError):
        book.at_id(15)
    assert book.at_time(201).last_id == 20
    bids, asks = book.difference([("8", "1")], [("12", "7")])
    book.apply(bids, asks, 99)
    assert (book.side(BID), book.side(ASK)) == ([("8", "1")], [("12", "7")])


@pytest.mark.parametrize("text", ["0", "1", "61837.63000000", "0.00000001", "123456789.5"])
def test_decimal_text_is_exact_both_ways(text: str) -> None:
    """A decimal is the same after a round through 1e-8 units."""
    decimals = len(text.partition(".")[2])
    assert text_of(units_of(text), decimals) == text
