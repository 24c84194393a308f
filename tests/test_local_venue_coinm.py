"""The local venue serves COIN-M and futures with a delivery date: rules, books, prints, and prices through ccxt."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from venue_client import BookClient, get, run, small_market, wire

from procs.cli.venue import described
from procs.prices.endpoints import CcxtEndpoint
from sim.local_venue import LocalVenue, Market, SourceError, generated, recorded
from sim.local_venue.book import ASK, BID
from sim.local_venue.source import coinm_name
from trading.instruments import Market as Place
from trading.venues.protocol import Streams
from trading.venues.registry import make_venue

NAMES = ("BTCUSDT", "BTCUSDT_241227")
DELIVERED_MS = 1_735_286_400_000
"""2024-12-27 08:00 UTC."""


def futures() -> Market:
    """A perpetual and a dated contract on both futures markets."""
    return small_market(symbols=NAMES, markets=("usdm", "coinm"))


def test_rules_of_contracts_are_read_by_the_venues_class() -> None:
    """exchangeInfo of COIN-M has sizes, states and delivery dates as documented; its rules are those of whole contracts."""

    async def test() -> None:
        async with LocalVenue(futures(), speed=None) as venue:
            status, info, headers = await get(venue, "/dapi/v1/exchangeInfo")
            assert status == 200 and headers["X-MBX-USED-WEIGHT-1M"] == "1"
            rows = {row["symbol"]: row for row in info["symbols"]}
            assert list(rows) == ["BTCUSD_PERP", "BTCUSD_241227"]
            told = [(r["pair"], r["contractStatus"], r["contractSize"], r["marginAsset"], r["quoteAsset"]) for r in rows.values()]
            assert told == [("BTCUSD", "TRADING", 100, "BTC", "USD")] * 2
            assert rows["BTCUSD_241227"]["deliveryDate"] == DELIVERED_MS < rows["BTCUSD_PERP"]["deliveryDate"]
            assert [row["contractType"] for row in rows.values()] == ["PERPETUAL", "CURRENT_QUARTER"]
            reader = make_venue(Place.BINANCE_COINM, (), Streams())
            rules = reader.parse_instruments(json.dumps(info).encode())["BTCUSD_PERP"]
            assert (rules.lot_size, rules.step_size, rules.contract_size, rules.trading) == ("1", "1", "100", True)
            assert reader.rest_weight_limit(json.dumps(info).encode()) == 2400
            _, usdm, _ = await get(venue, "/fapi/v1/exchangeInfo")
            assert [(r["symbol"], r["pair"]) for r in usdm["symbols"]] == [("BTCUSDT", "BTCUSDT"), ("BTCUSDT_241227", "BTCUSDT")]

    run(test)


@pytest.mark.parametrize(("market", "symbol"), [("coinm", "BTCUSD_PERP"), ("coinm", "BTCUSD_241227"), ("usdm", "BTCUSDT_241227")])
def test_a_book_kept_by_the_rules_is_the_venues(market: str, symbol: str) -> None:
    """Snapshot and diffs lead to the venue's exact book at every update id; COIN-M says the pair in depth, best prices and
    snapshot, and not in prints."""

    async def test() -> None:
        async with LocalVenue(futures(), speed=None) as venue:
            truth = venue.market.find(market, symbol)
            assert truth is not None
            client, compared, api = BookClient("usdm"), 0, {"usdm": "fapi", "coinm": "dapi"}[market]
            seen: dict[str, dict[str, Any]] = {}
            streams = "/".join(f"{symbol.lower()}@{kind}" for kind in ("depth@100ms", "bookTicker", "trade", "aggTrade"))
            async with wire(venue, f"/{market}/stream?streams={streams}") as line:
                for _ in range(40):
                    for event in await line.read(0.25):
                        body = event["data"]
                        seen[body["e"]] = body
                        if body["e"] == "depthUpdate" and client.event(body):
                            book = truth.book.at_id(body["u"])
                            assert (client.bids, client.asks) == (book.quantities(BID), book.quantities(ASK))
                            compared += 1
                    if client.last_id is None and client.buffer:
                        _, snapshot, _ = await get(venue, f"/{api}/v1/depth?symbol={symbol}&limit=1000")
                        said = (snapshot.get("symbol"), snapshot.get("pair"))
                        assert said == ((symbol, "BTCUSD") if api == "dapi" else (None, None))
                        client.snapshot(snapshot)
            assert compared > 50 and set(seen) == {"depthUpdate", "bookTicker", "trade", "aggTrade"}
            pairs = {kind: body.get("ps") for kind, body in seen.items()}
            pair = "BTCUSD" if market == "coinm" else None
            assert pairs == {"depthUpdate": pair, "bookTicker": pair, "trade": None, "aggTrade": None}
            assert "T" in seen["depthUpdate"] and "pu" in seen["depthUpdate"] and seen["trade"]["X"] == "MARKET"

    run(test)


def test_prices_of_coinm_through_ccxt() -> None:
    """The last price and candles of a COIN-M perpetual are the local venue's; a symbol that is none is refused by name."""

    async def test() -> None:
        async with LocalVenue(futures(), speed=None) as venue:
            await venue.step(70.0)
            endpoint = CcxtEndpoint("binance_coinm", venue.rest_url, timeout_s=60.0)
            try:
                ticker = await endpoint.ticker("BTCUSD_PERP")
                truth = venue.market.find("coinm", "BTCUSD_PERP")
                assert truth is not None and str(ticker.last) == str(truth.trades[-1].price).rstrip("0").rstrip(".")
                candles = await endpoint.ohlcv("BTCUSD_PERP", "1m", 5)
                assert candles[-1].low <= ticker.last <= candles[-1].high
            finally:
                await endpoint.close()

    run(test)


def test_the_command_says_where_each_market_is() -> None:
    """`venue` prints the address of every market that it serves, as a profile takes it."""

    async def test() -> None:
        async with LocalVenue(futures(), speed=None) as venue:
            told = described(venue)
            assert told["streams"] == {"usdm": f"{venue.stream_url}/usdm", "coinm": f"{venue.stream_url}/coinm"}
            assert told["symbols"]["coinm"] == ["BTCUSD_PERP", "BTCUSD_241227"]
            ends = [(end["venue"], end["stream"]) for end in told["settings"]["live"]["endpoints"]]
            assert ends == [("binance_usdm", f"{venue.stream_url}/usdm"), ("binance_coinm", f"{venue.stream_url}/coinm")]

    run(test)


def test_coinm_is_there_only_where_it_is_served() -> None:
    """Without it clients of all markets find an empty list and no book; an embedded spot market refuses a future's name."""

    async def test() -> None:
        async with LocalVenue(small_market(), speed=None) as venue:
            assert (await get(venue, "/dapi/v1/exchangeInfo"))[1]["symbols"] == []
            assert (await get(venue, "/dapi/v1/depth?symbol=BTCUSD_PERP"))[0] == 404

    run(test)
    with pytest.raises(SourceError, match="spot has no BTCUSDT_241227"):
        generated(NAMES, ("spot",))
    with pytest.raises(SourceError, match="begins with"):
        generated(("_PERP",), ("coinm",))
    with pytest.raises(SourceError, match="two are the same coin on coinm; name one"):
        generated(("BTCUSDT", "BTCUSDC"), ("coinm",))
    assert [spec.base for spec in generated(("BNBUSDT", "DOTUSDT"), ("coinm",)).symbols] == ["BNB", "DOT"]
    names = [coinm_name(name) for name in ("BTCUSDT", "BTCUSD_PERP", "ETHBUSD_250328")]
    assert names == ["BTCUSD_PERP", "BTCUSD_PERP", "ETHUSD_250328"]


def test_a_recording_of_coinm_is_served_as_coinm(tmp_path: Path) -> None:
    """Frames with a pair are COIN-M's: the symbol, whole contracts and the native interval are told by the recording."""
    frames = (
        {"lastUpdateId": 10, "bids": [["99.0", "5"]], "asks": [["101.5", "7"]]},
        {"stream": "ethusd_perp@depth@100ms", "data": {"e": "depthUpdate", "E": 1_700_000_000_100, "T": 1_700_000_000_099,
         "s": "ETHUSD_PERP", "ps": "ETHUSD", "U": 9, "u": 11, "pu": 8, "b": [["98.5", "3"]], "a": []}},
    )  # fmt: skip
    path = tmp_path / "some.gz"
    lines = (f"{1_700_000_000_000_000_000 + n * 10**8} {json.dumps(frame)}\n" for n, frame in enumerate(frames))
    path.write_bytes(gzip.compress("".join(lines).encode()))
    (spec,) = recorded(path).symbols
    assert (spec.market, spec.name, spec.pair, spec.base, spec.quote) == ("coinm", "ETHUSD_PERP", "ETHUSD", "ETH", "USD")
    assert (spec.tick_size, spec.step_size, spec.native_ms, spec.contract_size) == ("0.5", "1", 100, 10)
