"""A server on loopback with the few REST calls of Binance spot that prices need and failures on demand; and a clock to turn."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

T0_MS = 1_723_161_240_000
MINUTE_MS = 60_000


class Clock:
    """Time that stands still unless it is turned, or slept through."""

    def __init__(self, ns: int = (T0_MS + 30_000) * 1_000_000) -> None:
        self.ns = ns
        self.slept: list[float] = []

    def __call__(self) -> int:
        """Unix time, ns."""
        return self.ns

    def turn(self, seconds: float) -> None:
        """Go on."""
        self.ns += int(seconds * 1e9)

    async def sleep(self, seconds: float) -> None:
        """Go on instead of waiting."""
        self.slept.append(seconds)
        self.turn(seconds)


def _symbol(name: str) -> dict[str, Any]:
    return {
        "symbol": name, "status": "TRADING", "baseAsset": name[:-4], "quoteAsset": name[-4:], "baseAssetPrecision": 8,
        "quotePrecision": 8, "quoteAssetPrecision": 8, "isSpotTradingAllowed": True, "permissions": ["SPOT"],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
        ],
    }  # fmt: skip


class SmallVenue:
    """`status` other than 200 is answered to klines and tickers; `body` instead of theirs; `calls` counts by path."""

    def __init__(self, clock: Clock, symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")) -> None:
        self.clock, self.symbols = clock, symbols
        self.status, self.body, self.headers = 200, "", {}
        self.calls: dict[str, int] = {}
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> SmallVenue:
        app = web.Application()
        app.router.add_get("/api/v3/{call:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        call = request.match_info["call"]
        self.calls[call] = self.calls.get(call, 0) + 1
        if self.status != 200:
            code = -1003 if self.status in (418, 429) else -1000
            return web.Response(status=self.status, text=json.dumps({"code": code, "msg": "no"}), headers=self.headers)
        if call == "exchangeInfo":
            return web.json_response(
                {"timezone": "UTC", "serverTime": T0_MS, "rateLimits": [], "symbols": [_symbol(s) for s in self.symbols]}
            )
        if self.body:
            return web.Response(text=self.body, content_type="application/json")
        if call == "klines":
            now, n = self.clock() // 1_000_000, int(request.query["limit"])
            last = now // MINUTE_MS * MINUTE_MS
            return web.Response(text=json.dumps([self._kline(last - k * MINUTE_MS) for k in reversed(range(n))]))
        if call == "ticker/24hr":
            return web.json_response(
                {"symbol": request.query["symbol"], "lastPrice": "61837.63000000", "bidPrice": "61837.63000000", "bidQty": "1",
                 "askPrice": "61837.64000000", "askQty": "2", "closeTime": self.clock() // 1_000_000}, headers=self.headers
            )  # fmt: skip
        return web.Response(status=404, text='{"code":-1121,"msg":"Invalid symbol."}')

    @staticmethod
    def _kline(start: int) -> list[Any]:
        low = 60000 + start // MINUTE_MS % 100
        return [start, f"{low}.10000000", f"{low + 9}.00000000", f"{low}.00000000", f"{low + 5}.55000000", "12.34567000",
                start + MINUTE_MS - 1, "1", 1, "1", "1", "0"]  # fmt: skip
