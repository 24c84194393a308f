"""Plain clients of the local venue for its tests: a wire that reads exactly what was sent, and a book kept by Binance's rules.

The book client knows nothing of the project: it is written from the venue's documents.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from sim.local_venue import LocalVenue, Market, generated

ONE = ("BTCUSDT",)


def small_market(**wishes: Any) -> Market:
    """One generated symbol on both markets, unless wished otherwise."""
    return Market(generated(wishes.pop("symbols", ONE), wishes.pop("markets", ("spot", "usdm")), **wishes))


def run(test: Callable[[], Any]) -> None:
    """Run a test's coroutine; it may not take longer than a minute."""
    asyncio.run(asyncio.wait_for(test(), 120))


class Wire:
    """One stream connection; `number` is its place among all that the venue has seen."""

    def __init__(self, venue: LocalVenue, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.venue, self.socket = venue, socket
        self.number = venue.stats.connections
        self.raw: list[str] = []
        self.pings: list[bytes] = []
        self.close_code: int | None = None

    async def read(self, step_s: float = 0.0, *, pong: bool = True) -> list[Any]:
        """Step the venue, then take everything that it has sent on this connection; bodies as JSON."""
        await self.venue.step(step_s)
        ours = next((one for one in self.venue.connections if one.number == self.number), None)
        found = []
        while ours is not None and len(self.raw) < ours.sent:
            message = await self.receive(pong=pong)
            if message is None:
                break
            found.append(message)
        return [json.loads(text) for text in found]

    async def receive(self, *, pong: bool = True) -> str | None:
        """The next text message; None when the connection is over."""
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self.raw.append(message.data)
                return str(message.data)
            if message.type is aiohttp.WSMsgType.PING:
                self.pings.append(bytes(message.data))
                if pong:
                    await self.socket.pong(message.data)
                continue
            self.close_code = int(message.data) if message.type is aiohttp.WSMsgType.CLOSE else self.socket.close_code
            return None

    async def ask(self, request: Any) -> Any:
        """Send a control message (text as it is, else as JSON) and return the first reply that is no event."""
        await self.socket.send_str(request if isinstance(request, str) else json.dumps(request))
        while (text := await self.receive()) is not None:
            reply = json.loads(text)
            if "result" in reply or "error" in reply:
                return reply
        return None


@asynccontextmanager
async def wire(venue: LocalVenue, path: str) -> AsyncIterator[Wire]:
    """A connection to `path` of the venue; pings are answered by `receive`."""
    async with aiohttp.ClientSession() as session, session.ws_connect(venue.stream_url + path, autoping=False) as socket:
        yield Wire(venue, socket)


async def get(venue: LocalVenue, path: str, **headers: str) -> tuple[int, Any, Any]:
    """(status, JSON, headers) of a GET."""
    async with aiohttp.ClientSession() as session, session.get(venue.rest_url + path, headers=headers) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if answer.content_type == "application/json" else text, answer.headers


class GapError(Exception):
    """An event does not follow the one before."""


class BookClient:
    """A local book as Binance's documents tell to keep it, spot or USD-M."""

    def __init__(self, market: str) -> None:
        self.usdm = market == "usdm"
        self.buffer: list[dict[str, Any]] = []
        self.last_id: int | None = None
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}
        self._first = True

    def snapshot(self, body: dict[str, Any]) -> bool:
        """Begin with a REST snapshot; False: it is older than the buffer, fetch another."""
        last_id = body["lastUpdateId"]
        if self.buffer and last_id < self.buffer[0]["U"]:
            return False
        self.bids, self.asks = dict(body["bids"]), dict(body["asks"])
        self.last_id, self._first = last_id, True
        buffered, self.buffer = self.buffer, []
        for event in buffered:
            self.event(event)
        return True

    def event(self, event: dict[str, Any]) -> bool:
        """Take a depthUpdate; True when the book has moved. Raises GapError."""
        if self.last_id is None:
            self.buffer.append(event)
            return False
        if event["u"] < self.last_id or (not self.usdm and event["u"] == self.last_id):
            return False
        if self._first and self.usdm:
            fits = event["U"] <= self.last_id <= event["u"] or event["pu"] == self.last_id
        elif self._first:
            fits = event["U"] <= self.last_id + 1 <= event["u"]
        else:
            fits = event["pu"] == self.last_id if self.usdm else event["U"] == self.last_id + 1
        if not fits:
            raise GapError(f"{event['U']}..{event['u']} after {self.last_id}")
        self._first = False
        self.last_id = event["u"]
        for side, levels in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, qty in levels:
                if float(qty) == 0.0:
                    side.pop(price, None)
                else:
                    side[price] = qty
        return True

    @property
    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask."""
        return bool(self.bids and self.asks) and max(map(float, self.bids)) >= min(map(float, self.asks))
