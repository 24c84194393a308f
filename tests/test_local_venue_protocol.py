"""What a stream client sees of the local venue: paths, payloads, control messages, pings, limits and the end of connections."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from venue_client import get, run, small_market, wire

from sim.local_venue import Limits, LocalVenue, generated
from sim.local_venue.market import Market
from sim.local_venue.stream_names import parse_stream


def venue(**wishes: Any) -> LocalVenue:
    """A venue whose clock is stepped by hand."""
    return LocalVenue(small_market(), speed=None, **wishes)


FIELDS = {
    ("spot", "btcusdt@trade"): {"e", "E", "s", "t", "p", "q", "T", "m", "M"},
    ("spot", "btcusdt@aggTrade"): {"e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"},
    ("spot", "btcusdt@bookTicker"): {"u", "s", "b", "B", "a", "A"},
    ("spot", "btcusdt@depth@100ms"): {"e", "E", "s", "U", "u", "b", "a"},
    ("spot", "btcusdt@depth10"): {"lastUpdateId", "bids", "asks"},
    ("spot", "btcusdt@kline_1m"): {"e", "E", "s", "k"},
    ("spot", "btcusdt@miniTicker"): {"e", "E", "s", "c", "o", "h", "l", "v", "q"},
    ("spot", "btcusdt@ticker"): {*"eEspPwxcQbBaAohlvqOCFLn"},
    ("spot", "btcusdt@ticker_1h"): {*"eEspPwcohlvqOCFLn"},
    ("spot", "btcusdt@avgPrice"): {"e", "E", "s", "i", "w", "T"},
    ("usdm", "btcusdt@trade"): {"e", "E", "T", "s", "t", "p", "q", "X", "m"},
    ("usdm", "btcusdt@aggTrade"): {"e", "E", "s", "a", "p", "q", "f", "l", "T", "m"},
    ("usdm", "btcusdt@bookTicker"): {"e", "u", "s", "b", "B", "a", "A", "T", "E"},
    ("usdm", "btcusdt@depth@0ms"): {"e", "E", "T", "s", "U", "u", "pu", "b", "a"},
    ("usdm", "btcusdt@depth5@100ms"): {"e", "E", "T", "s", "U", "u", "pu", "b", "a"},
    ("usdm", "btcusdt@ticker"): {*"eEspPwcQohlvqOCFLn"},
    ("usdm", "btcusdt@markPrice@1s"): {"e", "E", "s", "p", "i", "P", "r", "T"},
}
"""Documented fields of each stream's payload."""


@pytest.mark.parametrize(("market", "stream"), FIELDS)
def test_payload_has_the_documented_fields(market: str, stream: str) -> None:
    """Each stream speaks within some seconds, and its payload has exactly the documented fields."""

    async def test() -> None:
        async with venue() as server, wire(server, f"/{market}/ws/{stream}") as line:
            bodies = await line.read(6.0)
            assert bodies
            assert {frozenset(body) for body in bodies} == {frozenset(FIELDS[market, stream])}

    run(test)


def test_combined_and_raw_payloads() -> None:
    """`/stream` wraps events, `/ws` does not, SET_PROPERTY changes it, and both say the same."""

    async def test() -> None:
        async with venue() as server:
            async with wire(server, "/stream?streams=btcusdt@trade/btcusdt@bookTicker") as both, wire(
                server, "/ws/btcusdt@trade/btcusdt@bookTicker"
            ) as raw:
                wrapped = await both.read(3.0)
                plain = await raw.read()
                assert [one["data"] for one in wrapped] == plain
                assert {one["stream"] for one in wrapped} == {"btcusdt@trade", "btcusdt@bookTicker"}
                reply = await raw.ask({"method": "SET_PROPERTY", "params": ["combined", True], "id": 1})
                assert reply == {"result": None, "id": 1}
                assert all(set(one) == {"stream", "data"} for one in await raw.read(2.0))

    run(test)


def test_microseconds() -> None:
    """`timeUnit=MICROSECOND` gives every time in microseconds, and nothing else changes."""

    async def test() -> None:
        async with venue() as server:
            path = "/stream?streams=btcusdt@trade/btcusdt@kline_1s"
            async with wire(server, path + "&timeUnit=MICROSECOND") as fine, wire(server, path) as coarse:
                micro, milli = await fine.read(3.0), await coarse.read()
                for a, b in zip(micro, milli, strict=True):
                    assert a["data"]["E"] == b["data"]["E"] * 1000
                    if "k" in a["data"]:
                        assert a["data"]["k"]["t"] == b["data"]["k"]["t"] * 1000
                        assert a["data"]["k"]["T"] == b["data"]["k"]["T"] * 1000 + 999
                        assert a["data"]["k"]["c"] == b["data"]["k"]["c"]

    run(test)


CONTROL: list[tuple[Any, Any]] = [
    ({"method": "LIST_SUBSCRIPTIONS", "id": 3}, {"result": ["btcusdt@trade"], "id": 3}),
    ({"method": "SUBSCRIBE", "params": ["btcusdt@depth"], "id": "abc-1"}, {"result": None, "id": "abc-1"}),
    ({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": None}, {"result": None, "id": None}),
    ({"method": "GET_PROPERTY", "params": ["combined"], "id": 2}, {"result": False, "id": 2}),
    ({"method": "GET_PROPERTY", "params": ["colour"], "id": 2}, (0, "Unknown property")),
    ({"method": "GET_PROPERTY", "params": [1], "id": 2}, (2, "Invalid request: property name must be a string")),
    ({"method": "GET_PROPERTY", "id": 2}, (2, "Invalid request: property name must be a string")),
    ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 2}, (1, "Invalid value type: expected Boolean")),
    ({"method": "SUBSCRIBE", "params": ["btcusdt@depth"], "id": 1.5}, (2, "request ID must be an unsigned integer")),
    ({"method": "SUBSCRIBE", "params": [7], "id": 1}, (2, "Invalid request: invalid stream")),
    ({"method": "SUBSCRIBE", "params": ["a@trade"], "id": 1, "x": 1}, (2, "Invalid request: too many parameters")),
    ({"method": "JOIN", "id": 1}, (2, "unknown variant `JOIN`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`")),
    ({"params": [], "id": 1}, (2, "missing field `method`")),
    ("{nonsense", (3, "Invalid JSON: expected value at line 1 column 2")),
]


@pytest.mark.parametrize(("request_", "wanted"), CONTROL)
def test_control_messages(request_: Any, wanted: Any) -> None:
    """Each control message has the documented reply, each mistake the documented code and text."""

    async def test() -> None:
        async with venue() as server, wire(server, "/ws/btcusdt@trade") as line:
            reply = await line.ask(request_)
            if isinstance(wanted, tuple):
                assert reply["error"]["code"] == wanted[0]
                assert wanted[1] in reply["error"]["msg"]
            else:
                assert reply == wanted

    run(test)


def test_subscribing_while_running() -> None:
    """SUBSCRIBE begins and UNSUBSCRIBE ends a stream; a name of nothing is taken and stays silent, as on the venue."""

    async def test() -> None:
        async with venue() as server, wire(server, "/ws") as line:
            assert await line.read(1.0) == []
            names = ["btcusdt@bookTicker", "nosuch@trade", "btcusdt@nothing", "BTCUSDT@trade"]
            assert (await line.ask({"method": "SUBSCRIBE", "params": names, "id": 1}))["result"] is None
            assert {tuple(body)[:2] for body in await line.read(1.0)} == {("u", "s")}
            assert (await line.ask({"method": "LIST_SUBSCRIPTIONS", "id": 2}))["result"] == names
            await line.ask({"method": "UNSUBSCRIBE", "params": names[:1], "id": 3})
            assert await line.read(1.0) == []

    run(test)


def test_usdm_hosts_carry_their_kinds_only() -> None:
    """Below /public, /market and /private USD-M carries only what belongs there; without a prefix everything."""

    async def test() -> None:
        async with venue() as server:
            for prefix, kinds in (("/public", {"bookTicker"}), ("/market", {"aggTrade"}), ("/private", set()),
                                  ("/usdm", {"bookTicker", "aggTrade"}), ("/usdm/public", {"bookTicker"})):  # fmt: skip
                async with wire(server, f"{prefix}/ws/btcusdt@aggTrade/btcusdt@bookTicker") as line:
                    assert {body["e"] for body in await line.read(3.0)} == kinds

    run(test)


def test_plain_paths_are_usdm_where_only_usdm_is_served() -> None:
    """A venue of USD-M alone answers plain paths, and has no spot."""

    async def test() -> None:
        async with LocalVenue(Market(generated(("ETHUSDT",), ("usdm",))), speed=None) as server:
            async with wire(server, "/ws/ethusdt@markPrice@1s") as line:
                assert (await line.read(2.0))[0]["e"] == "markPriceUpdate"
            assert (await get(server, "/api/v3/time"))[0] == 404

    run(test)


def test_all_market_streams() -> None:
    """The array streams hold every symbol that has changed."""

    async def test() -> None:
        source = small_market(symbols=("BTCUSDT", "ETHUSDT"))
        async with LocalVenue(source, speed=None) as server, wire(server, "/ws/!miniTicker@arr") as line, wire(
            server, "/usdm/market/ws/!markPrice@arr@1s"
        ) as marks:
            assert {one["s"] for body in await line.read(4.0) for one in body} == {"BTCUSDT", "ETHUSDT"}
            assert all(len(body) == 2 for body in await marks.read())

    run(test)


def test_pings_and_the_missing_pong() -> None:
    """A ping comes every 20 s; who echoes it stays, who does not is closed a minute later."""

    async def test() -> None:
        async with venue() as server, wire(server, "/ws") as good, wire(server, "/ws") as silent:
            for _ in range(10):
                reply = await good.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1})
                assert reply is not None
                await server.step(10.0)
            assert len(good.pings) >= 4
            assert await silent.receive(pong=False) is None
            assert silent.close_code == 1008
            assert len(silent.pings) >= 3
            assert server.stats.closed["no pong"] == 1
            assert (await good.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1})) is not None

    run(test)


@pytest.mark.parametrize(("market", "allowed"), [("spot", 5), ("usdm", 10)])
def test_too_many_client_messages(market: str, allowed: int) -> None:
    """The message over the limit of a second ends the connection; a second later there is room again."""

    async def test() -> None:
        async with venue() as server, wire(server, f"/{market}/ws") as line:
            for _ in range(2):
                for n in range(allowed):
                    assert await line.ask({"method": "LIST_SUBSCRIPTIONS", "id": n})
                await server.step(1.0)
            for _ in range(allowed + 1):
                await line.socket.send_str(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 1}))
            while await line.receive() is not None:
                pass
            assert line.close_code == 1008
            assert server.stats.closed["too many messages"] == 1

    run(test)


def test_a_connection_lives_for_a_day() -> None:
    """After 24 h (here: 60 s) the connection ends, and serverShutdown was said before."""

    async def test() -> None:
        async with venue(limits=Limits(lifetime_s=60.0)) as server, wire(server, "/ws") as line:
            assert await line.read(49.0) == []
            (event,) = await line.read(2.0)
            assert event["e"] == "serverShutdown"
            await server.step(10.0)
            assert await line.receive() is None
            assert line.close_code == 1001

    run(test)


def test_closing_the_venue_tells_its_clients() -> None:
    """When the venue stops, clients hear serverShutdown and a close frame, and the port is free again."""

    async def test() -> None:
        server = venue()
        await server.start()
        async with wire(server, "/stream") as line:
            port = server.port
            await server.close()
            assert json.loads(str(await line.receive()))["data"]["e"] == "serverShutdown"
            assert await line.receive() is None
            assert line.close_code == 1001
        async with venue(port=port) as again:
            assert again.port == port

    run(test)


def test_stream_and_connection_limits() -> None:
    """Over 1024 streams are refused by SUBSCRIBE; the 301st connection within five minutes is refused (here: smaller)."""

    async def test() -> None:
        limits = Limits(streams_per_connection=3, connects_per_5_minutes=2)
        async with venue(limits=limits) as server:
            async with wire(server, "/ws/a@trade/b@trade") as line:
                reply = await line.ask({"method": "SUBSCRIBE", "params": ["c@trade", "d@trade"], "id": 1})
                assert reply["error"] == {"code": 2, "msg": "Invalid request: too many streams"}
                assert (await line.ask({"method": "SUBSCRIBE", "params": ["c@trade", "a@trade"], "id": 2}))["result"] is None
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with wire(server, "/ws/a@trade/b@trade/c@trade/d@trade"):
                    pass
            assert refused.value.status == 400
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with wire(server, "/ws"):
                    pass
            assert refused.value.status == 429
            await server.step(301.0)
            async with wire(server, "/ws"):
                assert server.stats.open == 1

    run(test)


def test_klines_close_and_agree_with_trades() -> None:
    """Kline events: each closed candle comes once with x true, and its volume is that of the trades in it."""

    async def test() -> None:
        async with venue() as server, wire(server, "/stream?streams=btcusdt@kline_1s/btcusdt@trade") as line:
            events = [one["data"] for one in await line.read(20.0)]
            closed = [one["k"] for one in events if one["e"] == "kline" and one["k"]["x"]]
            starts = [k["t"] for k in closed]
            assert len(starts) >= 18
            assert starts == list(range(starts[0], starts[0] + 1000 * len(starts), 1000))
            trades = [one for one in events if one["e"] == "trade"]
            for k in closed:
                inside = [trade for trade in trades if k["t"] <= trade["T"] <= k["T"]]
                assert k["n"] == len(inside)
                assert float(k["v"]) == pytest.approx(sum(float(trade["q"]) for trade in inside))
                if inside:
                    assert (k["o"], k["c"]) == (inside[0]["p"], inside[-1]["p"])

    run(test)


@pytest.mark.parametrize(("market", "name", "known"), [
    ("spot", "btcusdt@depth", True), ("spot", "btcusdt@depth@250ms", False), ("spot", "btcusdt@depth20@100ms", True),
    ("spot", "btcusdt@depth15", False), ("spot", "btcusdt@kline_1s", True), ("usdm", "btcusdt@kline_1s", False),
    ("usdm", "btcusdt@depth@500ms", True), ("spot", "btcusdt@markPrice", False), ("spot", "BTCUSDT@trade", False),
    ("usdm", "!markPrice@arr", True), ("spot", "btcusdt", False), ("spot", "@trade", False),
])  # fmt: skip
def test_stream_names(market: Any, name: str, known: bool) -> None:
    """Only names that the market documents mean something."""
    assert (parse_stream(market, name) is not None) == known
