"""Binance: connection plans, what is a market frame, what everything else is, snapshot requests and their weights."""

from __future__ import annotations

import json

import pytest

from trading.instruments import Market
from trading.venues.protocol import Closing, Ignored, Refused, Streams, Subscribed, Unknown, Venue, VenueError, VenueSymbol
from trading.venues.registry import make_venue


def venue(market: Market = Market.BINANCE_SPOT, n: int = 2, **streams: object) -> Venue:
    """A venue with symbols C0USDT, C1USDT, ..., indices from 10."""
    symbols = [VenueSymbol(10 + i, f"C{i}USDT", f"C{i}USDT") for i in range(n)]
    return make_venue(market, symbols, Streams(**streams))  # type: ignore[arg-type]


def streams_of(path: str, messages: tuple[bytes, ...]) -> list[str]:
    """All streams that a plan subscribes, by its URL and its messages."""
    named = path.partition("streams=")[2].split("/")
    for message in messages:
        body = json.loads(message)
        assert body["method"] == "SUBSCRIBE"
        assert len(body["params"]) <= 100
        named += body["params"]
    return named


def test_spot_plan() -> None:
    """Few streams stand in the URL, and no message is needed."""
    (plan,) = venue().connections()
    assert plan.path == (
        "/stream?streams=c0usdt@depth@100ms/c0usdt@bookTicker/c0usdt@trade/c1usdt@depth@100ms/c1usdt@bookTicker/c1usdt@trade"
    )
    assert plan.messages == () and plan.symbols == (10, 11)
    (plan,) = venue(n=1, depth_interval_ms=1000, bbo=False, trade=False, mark=True).connections()
    assert plan.path == "/stream?streams=c0usdt@depth"


def test_usdm_hosts_are_split_by_kind() -> None:
    """Depth and bookTicker come from /public, prints and mark prices from /market; depth intervals as the venue names them."""
    public, market = venue(Market.BINANCE_USDM, 1, mark=True).connections()
    assert public.path == "/public/stream?streams=c0usdt@depth@100ms/c0usdt@bookTicker"
    assert market.path == "/market/stream?streams=c0usdt@aggTrade/c0usdt@markPrice@1s"
    for wanted, suffix in ((0, "@depth@0ms"), (250, "@depth"), (500, "@depth@500ms"), (1000, "@depth@500ms")):
        (plan,) = venue(Market.BINANCE_USDM, 1, bbo=False, trade=False, depth_interval_ms=wanted).connections()
        assert plan.path == f"/public/stream?streams=c0usdt{suffix}"


def test_coinm_is_one_host() -> None:
    """All streams of COIN-M are on one connection of at most 200; prints are aggregates, as on USD-M."""
    (plan,) = venue(Market.BINANCE_COINM, 1, mark=True).connections()
    assert plan.path == "/stream?streams=c0usdt@depth@100ms/c0usdt@bookTicker/c0usdt@aggTrade/c0usdt@markPrice@1s" and plan.book
    one = make_venue(Market.BINANCE_COINM, [VenueSymbol(3, "BTCUSD_PERP", "BTCUSD_PERP")], Streams())
    assert (one.stream_url, one.rest_url) == ("wss://dstream.binance.com", "https://dapi.binance.com")
    assert one.symbol_of(b'{"stream":"btcusd_perp@depth@100ms","data":{"e":"depthUpdate","ps":"BTCUSD"}}') == 3
    request = one.snapshot_request(3)
    assert request is not None and (request.path, request.params, request.weight) == (
        "/dapi/v1/depth", {"symbol": "BTCUSD_PERP", "limit": "1000"}, 20,
    )  # fmt: skip
    assert (one.instruments_request().path, one.instruments_request().weight) == ("/dapi/v1/exchangeInfo", 1)
    clock = one.time_request()
    assert clock is not None and clock.path == "/dapi/v1/time"
    assert (one.limits.streams_per_connection, one.limits.rest_weight_per_minute) == (200, 2400)


@pytest.mark.parametrize("market", [Market.BINANCE_SPOT, Market.BINANCE_USDM, Market.BINANCE_COINM])
def test_many_streams_are_split(market: Market) -> None:
    """1,000 symbols: each stream once, at most 1024 a connection, short URLs, the rest by messages; symbols stay whole."""
    many = venue(market, 1000, mark=True)
    seen: list[str] = []
    for plan in many.connections():
        assert len(plan.path) < 2100
        named = streams_of(plan.path, plan.messages)
        assert len(named) <= many.limits.streams_per_connection
        assert {int(name.partition("usdt@")[0][1:]) + 10 for name in named} == set(plan.symbols)
        assert [json.loads(message)["id"] for message in plan.messages] == list(range(1, len(plan.messages) + 1))
        seen += named
    assert len(seen) == len(set(seen)) == (3 if market is Market.BINANCE_SPOT else 4) * 1000


def test_market_frames_are_known_by_their_stream() -> None:
    """Frames of our streams, and no others, are market frames; the symbol is told by the stream."""
    one = venue()
    mine = b'{"stream":"c1usdt@depth@100ms","data":{"e":"depthUpdate"}}'
    assert one.is_market_frame(mine) and one.symbol_of(mine) == 11
    assert one.symbol_of(b'\n{ "stream" : "c1usdt@depth@100ms", "data": {}}') == 11  # blanks between its words
    for other in (
        b'{"stream":"c1usdt@depth5@100ms","data":{}}', b'{"stream":"c9usdt@trade","data":{}}', b'{"result":null,"id":1}',
        b'{"e":"trade"}', b'{"stream":"', b'{"stream":"c1usdt@trade', b"", b'{"stream":"' + b"x" * 5000,
        b' {"stream":"c1usdt@trade', b' {"data":{"stream":"c1usdt@trade"}}',
    ):  # fmt: skip
        assert not one.is_market_frame(other)
        assert one.symbol_of(other) == -1


def test_snapshot_weights() -> None:
    """The documented weights by limit; USD-M knows seven limits only."""
    spot = {5: 5, 100: 5, 101: 25, 500: 25, 501: 50, 1000: 50, 1001: 250, 5000: 250}
    for levels, weight in spot.items():
        request = venue(snapshot_levels=levels).snapshot_request(11)
        assert request is not None
        assert (request.path, request.params, request.weight) == (
            "/api/v3/depth",
            {"symbol": "C1USDT", "limit": str(levels)},
            weight,
        )
    usdm = {5: (5, 2), 6: (10, 2), 21: (50, 2), 100: (100, 5), 101: (500, 10), 501: (1000, 20), 5000: (1000, 20)}
    for levels, (limit, weight) in usdm.items():
        request = venue(Market.BINANCE_USDM, snapshot_levels=levels).snapshot_request(10)
        assert request is not None
        assert (request.path, request.params["limit"], request.weight) == ("/fapi/v1/depth", str(limit), weight)


@pytest.mark.parametrize(("raw", "want"), [
    ('{"result":null,"id":1}', Subscribed(1)),
    ('{"id":"7","result":null}', Subscribed(7)),
    ('{"error":{"code":2,"msg":"Invalid request: unknown variant"},"id":3}', Refused("2: Invalid request: unknown variant", 3)),
    ('{"code":0,"msg":"Unknown property","id":"5"}', Refused("0: Unknown property", 5)),
    ('{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}', Closing("serverShutdown")),
    ('{"e":"serverShutdown","E":1770123456789}', Closing("serverShutdown")),
    ('{"stream":"c0usdt@kline_1m","data":{"e":"kline","E":1,"s":"C0USDT","k":{}}}', Ignored("kline")),
    ('{"stream":"!ticker@arr","data":[{"e":"24hrTicker","s":"A"},{"e":"24hrTicker","s":"B"}]}', Ignored("24hrTicker")),
    ('{"stream":"c0usdt@forceOrder","data":{"e":"forceOrder","o":{}}}', Ignored("forceOrder")),
    ('{"stream":"c0usdt@depth20@100ms","data":{"lastUpdateId":160,"bids":[],"asks":[]}}', Ignored("partial depth")),
    ('{"stream":"c0usdt@depth5","data":{"e":"depthUpdate","U":1,"u":2,"b":[],"a":[]}}', Ignored("partial depth")),
])  # fmt: skip
def test_control_frames(raw: str, want: object) -> None:
    """Replies, errors, shutdown, and streams of no use."""
    assert venue().decoder().decode(raw.encode(), 0) == (want,)


@pytest.mark.parametrize(
    "raw", ["", "[]", "{}", '{"id":1}', '{"stream":"a@b","data":{"e":"new"}}', '{"e":"trade","s":"C0USDT"}', "{" * 9999]
)
def test_the_rest_is_unknown(raw: str) -> None:
    """New events, market frames without their stream, no sense at all: kept as Unknown."""
    (item,) = venue().decoder().decode(raw.encode(), 0)
    assert isinstance(item, Unknown)


def test_a_symbol_is_named_once() -> None:
    """Two indices for one symbol would take each other's frames."""
    with pytest.raises(VenueError, match="twice"):
        make_venue(Market.BINANCE_SPOT, [VenueSymbol(0, "A", "BTCUSDT"), VenueSymbol(1, "B", "BTCUSDT")], Streams())
