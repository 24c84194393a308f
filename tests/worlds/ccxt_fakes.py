"""An exchange with ccxt.pro's interface that plays scripts: what the tests of the ccxt line stand on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any


def market(name: str = "BTC/USDT", **other: Any) -> dict[str, Any]:
    """A spot market as ccxt describes one, tick 0.01, step 0.00001, prints to 1e-8."""
    base, quote = name.split("/")
    return {
        "id": base + quote, "symbol": name, "base": base, "quote": quote, "spot": True, "active": True, "contractSize": None,
        "precision": {"price": 0.01, "amount": 1e-05, "base": 1e-08},
        "limits": {"amount": {"min": 1e-05, "max": 9000.0}, "cost": {"min": 5.0}}, **other,
    }  # fmt: skip


def book(
    bids: Iterable[tuple[float, float]], asks: Iterable[tuple[float, float]], ms: int | None = 1_700_000_000_000
) -> dict[str, Any]:
    """An order book as ccxt shows one."""
    return {"bids": [list(b) for b in bids], "asks": [list(a) for a in asks], "timestamp": ms, "nonce": None}


class FakeExchange:
    """Each watch method plays its script for a symbol: values are returned, exceptions raised; at its end it waits for ever.

    `drained` is set when every script that was ever asked for has been played to its end.
    """

    def __init__(self, markets: Iterable[dict[str, Any]] = (), **scripts: dict[str, list[Any]]) -> None:
        self.markets = {m["symbol"]: m for m in markets or (market(),)}
        self.precisionMode = 4
        self.has = {"watchOrderBook": True, "watchTrades": True, "watchBidsAsks": True}
        self.scripts = {(kind, name): deque(items) for kind, of in scripts.items() for name, items in of.items()}
        self.loading: deque[Any] = deque()
        self.loads = self.closed = 0
        self.drained = asyncio.Event()

    async def load_markets(self) -> dict[str, Any]:
        """The markets, after as many errors as `loading` holds."""
        self.loads += 1
        if self.loading:
            raise self.loading.popleft()
        return self.markets

    async def _play(self, kind: str, name: str) -> Any:
        script = self.scripts.get((kind, name))
        if not script:
            if not any(self.scripts.values()):
                self.drained.set()
            await asyncio.get_running_loop().create_future()
        item = script.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    async def watch_order_book(self, name: str, limit: int | None = None) -> Any:
        """The next book."""
        return await self._play("books", name)

    async def watch_trades(self, name: str) -> Any:
        """The next trades."""
        return await self._play("trades", name)

    async def watch_bids_asks(self, names: list[str]) -> Any:
        """The next quotes."""
        return await self._play("quotes", names[0])

    async def close(self) -> None:
        """Count it."""
        self.closed += 1
