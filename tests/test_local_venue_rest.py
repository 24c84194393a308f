"""The local venue's REST interface: answers, weights, documented errors, and what happens to who asks too much."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from venue_client import get, run, small_market, wire

from sim.local_venue import Limits, LocalVenue
from sim.local_venue.rest import ENDPOINTS, endpoint_of


def venue(**wishes: Any) -> LocalVenue:
    """A venue whose clock is stepped by hand."""
    return LocalVenue(small_market(), speed=None, **wishes)


MANDATORY = "Mandatory parameter '{}' was not sent, was empty/null, or malformed."
ERRORS: list[tuple[str, int, int, str]] = [
    ("/api/v3/depth", 400, -1102, MANDATORY.format("symbol")),
    ("/api/v3/depth?symbol=NOSUCH", 400, -1121, "Invalid symbol."),
    ("/api/v3/depth?symbol=btcusdt", 400, -1100, "Illegal characters found in parameter 'symbol'"),
    ("/api/v3/depth?symbol=BTCUSDT&limit=x", 400, -1100, "Illegal characters found in parameter 'limit'"),
    ("/api/v3/depth?symbol=BTCUSDT&limit=0", 400, -1130, "Data sent for parameter 'limit' is not valid."),
    ("/api/v3/depth?symbol=BTCUSDT&colour=red", 400, -1101, "Too many parameters"),
    ("/api/v3/klines?symbol=BTCUSDT", 400, -1102, MANDATORY.format("interval")),
    ("/api/v3/klines?symbol=BTCUSDT&interval=7m", 400, -1120, "Invalid interval."),
    ("/api/v3/exchangeInfo?symbol=NOSUCH", 400, -1121, "Invalid symbol."),
    ("/api/v3/ticker/24hr?symbol=BTCUSDT&symbols=[]", 400, -1128, "Combination of optional parameters invalid."),
    ("/api/v3/ticker/price?symbols=oops", 400, -1100, "Illegal characters found in parameter 'symbols'"),
    ("/api/v3/account", 401, -2014, "API-key format invalid."),
    ("/api/v3/openOrders", 401, -2014, "API-key format invalid."),
    ("/sapi/v1/asset/tradeFee", 401, -2014, "API-key format invalid."),
    ("/fapi/v1/depth?symbol=BTCUSDT&limit=7", 400, -4021, "'7' is not valid depth limit."),
    ("/fapi/v1/klines?symbol=BTCUSDT&interval=1s", 400, -1120, "Invalid interval."),
    ("/fapi/v1/premiumIndex?symbol=NOSUCH", 400, -1121, "Invalid symbol."),
    ("/fapi/v3/account", 401, -2014, "API-key format invalid."),
]


@pytest.mark.parametrize(("path", "status", "code", "text"), ERRORS)
def test_documented_errors(path: str, status: int, code: int, text: str) -> None:
    """Each mistake has its HTTP status, its code and its sentence."""

    async def test() -> None:
        async with venue() as server:
            found, body, _ = await get(server, path)
            assert (found, body["code"]) == (status, code)
            assert text in body["msg"]

    run(test)


def test_unknown_paths_and_keys() -> None:
    """An unknown path is 404; a signed one with a well-formed key is refused for the key."""

    async def test() -> None:
        async with venue() as server:
            assert (await get(server, "/api/v3/nothing"))[0] == 404
            status, body, _ = await get(server, "/api/v3/account", **{"X-MBX-APIKEY": "k" * 64})
            assert (status, body["code"]) == (401, -2015)

    run(test)


WEIGHTS: list[tuple[str, int]] = [
    ("/api/v3/ping", 1), ("/api/v3/time", 1), ("/api/v3/exchangeInfo", 20), ("/api/v3/depth?symbol=BTCUSDT", 5),
    ("/api/v3/depth?symbol=BTCUSDT&limit=100", 5), ("/api/v3/depth?symbol=BTCUSDT&limit=101", 25),
    ("/api/v3/depth?symbol=BTCUSDT&limit=1000", 50), ("/api/v3/depth?symbol=BTCUSDT&limit=5000", 250),
    ("/api/v3/trades?symbol=BTCUSDT", 25), ("/api/v3/aggTrades?symbol=BTCUSDT", 4),
    ("/api/v3/klines?symbol=BTCUSDT&interval=1m", 2), ("/api/v3/uiKlines?symbol=BTCUSDT&interval=1m", 2),
    ("/api/v3/avgPrice?symbol=BTCUSDT", 2), ("/api/v3/ticker/24hr?symbol=BTCUSDT", 2), ("/api/v3/ticker/24hr", 80),
    ("/api/v3/ticker/price?symbol=BTCUSDT", 2), ("/api/v3/ticker/price", 4), ("/api/v3/ticker/bookTicker", 4),
    ("/fapi/v1/time", 1), ("/fapi/v1/exchangeInfo", 1), ("/fapi/v1/depth?symbol=BTCUSDT&limit=50", 2),
    ("/fapi/v1/depth?symbol=BTCUSDT&limit=100", 5), ("/fapi/v1/depth?symbol=BTCUSDT", 10),
    ("/fapi/v1/depth?symbol=BTCUSDT&limit=1000", 20), ("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=99", 1),
    ("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1500", 10), ("/fapi/v1/aggTrades?symbol=BTCUSDT", 20),
    ("/fapi/v1/premiumIndex", 10), ("/fapi/v1/ticker/24hr", 40), ("/fapi/v1/ticker/bookTicker?symbol=BTCUSDT", 2),
    ("/fapi/v1/fundingRate?symbol=BTCUSDT", 0), ("/api/v3/depth?symbol=NOSUCH", 5),
]  # fmt: skip


def test_weights() -> None:
    """Every request adds its documented weight to the header of its market; an error costs as much as an answer."""

    async def test() -> None:
        async with venue(limits=Limits(weight_per_minute={"spot": 10**6, "usdm": 10**6})) as server:
            used = {"/api": 0, "/fap": 0}
            for path, weight in WEIGHTS:
                _, _, headers = await get(server, path)
                used[path[:4]] += weight
                assert int(headers["X-MBX-USED-WEIGHT-1M"]) == used[path[:4]], path
                assert headers["X-MBX-USED-WEIGHT"] == headers["X-MBX-USED-WEIGHT-1M"]
            assert server.budget.used_max == {"spot": used["/api"], "usdm": used["/fap"]}
            await server.step(60.0)
            assert (await get(server, "/api/v3/ping"))[2]["X-MBX-USED-WEIGHT-1M"] == "1"

    run(test)


def test_too_much_weight_then_a_ban_that_grows() -> None:
    """Over the limit 429 with Retry-After; who goes on gets 418, the second ban is twice as long; the markets are apart."""

    async def test() -> None:
        limits = Limits(weight_per_minute={"spot": 100, "usdm": 100}, ban_after=2, ban_s=120)
        async with venue(limits=limits) as server:
            banned_s = []
            for _ in range(2):
                statuses = []
                for _ in range(6):
                    status, body, headers = await get(server, "/api/v3/depth?symbol=BTCUSDT&limit=1000")
                    statuses.append(status)
                    if status == 429:
                        assert body["code"] == -1003
                        assert "current limit is 100 request weight per 1 MINUTE" in body["msg"]
                        assert 0 < int(headers["Retry-After"]) <= 60
                assert statuses == [200, 200, 429, 429, 418, 418]
                assert "IP banned until" in body["msg"]
                banned_s.append(int(headers["Retry-After"]))
                assert (await get(server, "/fapi/v1/ping"))[0] == 200
                assert (await get(server, "/api/v3/ping"))[0] == 418
                await server.step(banned_s[-1] + 1)
            assert banned_s == [120, 240]
            assert (await get(server, "/api/v3/ping"))[0] == 200

    run(test)


def test_market_data_agrees_with_the_streams() -> None:
    """Trades, aggregates, candles and tickers of REST are those that the streams have told."""

    async def test() -> None:
        async with venue() as server, wire(server, "/ws/btcusdt@trade/btcusdt@aggTrade/btcusdt@bookTicker") as line:
            heard = await line.read(20.0)
            trades = [one for one in heard if one.get("e") == "trade"]
            _, rest_trades, _ = await get(server, "/api/v3/trades?symbol=BTCUSDT&limit=1000")
            assert [row["id"] for row in rest_trades][-len(trades) :] == [one["t"] for one in trades]
            _, older, _ = await get(server, f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={trades[0]['t']}&limit=3")
            assert [row["id"] for row in older] == [trades[0]["t"] + n for n in range(3)]
            _, aggregates, _ = await get(server, "/api/v3/aggTrades?symbol=BTCUSDT&limit=1000")
            assert [one["a"] for one in heard if one.get("e") == "aggTrade"] == [row["a"] for row in aggregates]
            covered = [trade_id for row in aggregates for trade_id in range(row["f"], row["l"] + 1)]
            assert covered == [row["id"] for row in rest_trades][: len(covered)]
            assert sum(float(row["q"]) for row in aggregates) == pytest.approx(
                sum(float(row["qty"]) for row in rest_trades[: len(covered)])
            )
            _, candles, _ = await get(server, "/api/v3/klines?symbol=BTCUSDT&interval=1s&limit=1000")
            assert sum(float(row[5]) for row in candles) == pytest.approx(sum(float(row["qty"]) for row in rest_trades))
            assert [row[0] for row in candles] == list(range(candles[0][0], candles[-1][0] + 1, 1000))
            assert all(float(row[3]) <= float(row[1]) <= float(row[2]) and row[6] == row[0] + 999 for row in candles)
            _, minutes, _ = await get(server, "/api/v3/klines?symbol=BTCUSDT&interval=1m")
            assert sum(row[8] for row in minutes) == len(rest_trades)
            _, day, _ = await get(server, "/api/v3/ticker/24hr?symbol=BTCUSDT")
            assert (day["count"], day["lastPrice"]) == (len(rest_trades), rest_trades[-1]["price"])
            assert day["highPrice"] == max((row["price"] for row in rest_trades), key=float)
            _, touch, _ = await get(server, "/api/v3/ticker/bookTicker?symbol=BTCUSDT")
            last = [one for one in heard if "B" in one][-1]
            assert (touch["bidPrice"], touch["askQty"]) == (last["b"], last["A"])
            _, price, _ = await get(server, "/api/v3/ticker/price?symbols=[%22BTCUSDT%22]")
            assert price == [{"symbol": "BTCUSDT", "price": rest_trades[-1]["price"]}]
            _, average, _ = await get(server, "/api/v3/avgPrice?symbol=BTCUSDT")
            assert average["price"] == day["weightedAvgPrice"]

    run(test)


def test_usdm_figures() -> None:
    """USD-M's own endpoints: mark price at the mid, funding settled every eight hours of the venue's clock."""

    async def test() -> None:
        async with venue() as server:
            _, mark, _ = await get(server, "/fapi/v1/premiumIndex?symbol=BTCUSDT")
            truth = server.market.find("usdm", "BTCUSDT")
            assert truth is not None and float(mark["markPrice"]) * 1e8 == pytest.approx(truth.mid())
            assert (await get(server, "/fapi/v1/fundingRate?symbol=BTCUSDT"))[1] == []
            _, book, _ = await get(server, "/fapi/v1/depth?symbol=BTCUSDT&limit=5")
            assert set(book) == {"lastUpdateId", "E", "T", "bids", "asks"}
            assert len(book["bids"]) == len(book["asks"]) == 5
            _, info, _ = await get(server, "/fapi/v1/exchangeInfo")
            assert info["symbols"][0]["contractType"] == "PERPETUAL"
            assert (await get(server, "/dapi/v1/exchangeInfo"))[1]["symbols"] == []

    run(test)


def test_clock_and_filters() -> None:
    """Server time is the market's clock; prices and quantities fit the filters of exchangeInfo."""

    async def test() -> None:
        async with venue() as server:
            await server.step(3.5)
            assert (await get(server, "/api/v3/time"))[1] == {"serverTime": server.market.now_ms}
            for path in ("/api/v3", "/fapi/v1"):
                _, info, _ = await get(server, f"{path}/exchangeInfo")
                (symbol,) = info["symbols"]
                assert (symbol["baseAsset"], symbol["quoteAsset"]) == ("BTC", "USDT")
                filters = {one["filterType"]: one for one in symbol["filters"]}
                tick = float(filters["PRICE_FILTER"]["tickSize"])
                _, book, _ = await get(server, f"{path}/depth?symbol=BTCUSDT&limit=100")
                for price, _ in book["bids"] + book["asks"]:
                    assert float(price) / tick == pytest.approx(round(float(price) / tick), abs=1e-6)

    run(test)


def test_the_table_is_where_orders_will_go() -> None:
    """Signed endpoints are entries of the dispatch table without an answer, refused until they get one."""
    order = ENDPOINTS["POST", "/api/v3/order"]
    assert order.answer is None
    assert endpoint_of("POST", "/fapi/v1/countdownCancelAll") is not None
    assert endpoint_of("DELETE", "/api/v3/ping") is None


def test_many_clients_at_once() -> None:
    """Fifty clients ask at once and each has an answer; the statistics count them all."""

    async def test() -> None:
        async with venue() as server:
            answers = await asyncio.gather(*(get(server, "/api/v3/depth?symbol=BTCUSDT") for _ in range(50)))
            assert {status for status, _, _ in answers} == {200}
            assert server.stats.requests["/api/v3/depth"] == 50
            assert server.stats.statuses[200] == 50

    run(test)
