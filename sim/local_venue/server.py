"""The server: HTTP and WebSocket on one port, all markets at once, the market's clock driven by the real one or by hand.

    async with LocalVenue(Market(generated()), port=0) as venue:
        ...  # venue.rest_url, venue.stream_url

With `speed` the market follows the real clock, that many times as fast; with `speed=None` it stands still until `step` is
awaited, which also is the clock of pings, limits and faults then: a test waits for what happens, never for time to pass.

Paths: `/api /fapi /sapi /dapi /eapi` for REST; `/ws`, `/ws/<stream>/...` and `/stream?streams=a/b` for streams. Where several
markets are served, plain stream paths mean spot; USD-M's are `/public /market /private` before them, or any path after
`/usdm`, COIN-M's any path after `/coinm`. `/stream/ws` is the same as `/ws`, because ccxt knows spot by `/stream` in the address.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, cast

import msgspec
from aiohttp import web

from sim.local_venue import rest
from sim.local_venue.connection import Connection
from sim.local_venue.faults import Fault, Faults
from sim.local_venue.limits import Budget, Limits, Verdict
from sim.local_venue.market import Market
from sim.local_venue.rest import Ask, Endpoint, RestError
from sim.local_venue.stream_names import MARKETS, MarketName, parse_stream

LOOPBACK: Final = "127.0.0.1"
MS: Final = 1_000_000
CHUNK_NS: Final = 50 * MS
"""The clock is moved by at most this much before clients get a turn."""
BACKLOG_BYTES: Final = 1 << 20
LONGEST_WAIT_S: Final = 0.02
SHORTEST_WAIT_S: Final = 0.001
_CATEGORIES: Final[dict[str, tuple[str, ...]]] = {
    "public": ("depth", "partial", "bookTicker", "trade"),
    "market": ("trade", "aggTrade", "kline", "miniTicker", "ticker", "markPrice"),
    "private": (),
}
"""Which kinds USD-M's hosts carry."""
_encode: Final = msgspec.json.Encoder().encode


class VenueError(RuntimeError):
    """The venue cannot listen; the message names address and remedy."""


@dataclass(slots=True)
class Stats:
    """What happened since the start."""

    requests: Counter[str] = field(default_factory=Counter)
    """By path."""
    statuses: Counter[int] = field(default_factory=Counter)
    """HTTP answers by status, refused upgrades among them."""
    connections: int = 0
    """Opened."""
    open: int = 0
    closed: Counter[str] = field(default_factory=Counter)
    """Connections that the venue ended, by reason."""
    messages: int = 0
    """Events handed to connections."""


class LocalVenue:
    """A venue on loopback. `port` 0 takes a free one; `faults` is a schedule (or its lines), seeded by `seed`."""

    def __init__(
        self,
        market: Market,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        faults: Faults | Sequence[Fault | str] = (),
        seed: int = 1,
        limits: Limits | None = None,
        speed: float | None = 1.0,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ValueError(f"speed {speed} is not above 0; None is a clock that `step` moves")
        self.market = market
        self.limits = limits if limits is not None else Limits()
        self.faults = faults if isinstance(faults, Faults) else Faults(faults, seed)
        self.stats = Stats()
        self.host, self.port = host, port
        self.budget = Budget(self.limits)
        self._speed = speed
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()
        self._started_ns = self.now_ns
        self._connections: dict[int, Connection] = {}
        self._listeners: dict[tuple[str, str], dict[int, Connection]] = {}
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._slow: set[int] = set()
        self._runner: web.ServerRunner | None = None
        self._pump: asyncio.Task[None] | None = None
        self._real_start_ns = 0

    @property
    def rest_url(self) -> str:
        """Base of REST addresses: `rest_url + "/api/v3/time"`, `rest_url + "/fapi/v1/time"`."""
        return f"http://{self.host}:{self.port}"

    @property
    def stream_url(self) -> str:
        """Base of stream addresses: `stream_url + "/ws"`; plain paths are spot's, or the first market's that is served."""
        return f"ws://{self.host}:{self.port}"

    @property
    def usdm_stream_url(self) -> str:
        """Base of USD-M's stream addresses, with and without `/public`, `/market`, `/private`."""
        return f"{self.stream_url}/usdm"

    @property
    def coinm_stream_url(self) -> str:
        """Base of COIN-M's stream addresses."""
        return f"{self.stream_url}/coinm"

    @property
    def stream_urls(self) -> dict[MarketName, str]:
        """Bases of stream addresses by market."""
        return {"spot": self.stream_url, "usdm": self.usdm_stream_url, "coinm": self.coinm_stream_url}

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that stand, oldest first."""
        return tuple(self._connections.values())

    @property
    def now_ns(self) -> int:
        """The clock of pings, limits and faults: the real one, or the market's where `step` drives it."""
        return self.market.now_ns if self._speed is None else time.monotonic_ns() + self._wall_offset_ns

    @property
    def started_ns(self) -> int:
        """When it began, by that clock: times of faults count from here."""
        return self._started_ns

    @property
    def venue_ns(self) -> int:
        """The venue's own clock, which its server time and events show."""
        if self._speed is None or not self._real_start_ns:
            return self.market.now_ns
        return max(self.market.now_ns, self._due_ns())

    def _due_ns(self) -> int:
        assert self._speed is not None
        return self.market.started_ns + round((time.monotonic_ns() - self._real_start_ns) * self._speed)

    async def __aenter__(self) -> LocalVenue:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen, and let the clock run. Raises VenueError when the port cannot be had."""
        quiet = logging.getLogger("sim.local_venue.http")
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None, logger=quiet), shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=512, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            if error.errno == errno.EADDRINUSE:
                raise VenueError(
                    f"port {self.port} on {self.host} is taken by another program; choose another port, or 0 for any free one"
                ) from None
            raise VenueError(f"cannot listen on {self.host}:{self.port} ({error.strerror}); choose another address") from error
        addresses = self._runner.addresses
        self.port = int(addresses[0][1])
        self._started_ns = self.now_ns
        if self._speed is not None:
            # the market's present becomes now: waiting between its making and the start does not count
            self._real_start_ns = time.monotonic_ns()
            self._pump = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Tell the clients, end their connections, free the port."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            self._pump = None
        for connection in list(self._connections.values()):
            connection.tell_shutdown(self.now_ns)
            connection.close(1001)
        for _, _, waiter in self._waiters:
            waiter.cancel()
        self._waiters.clear()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await asyncio.sleep(0)
            await runner.cleanup()

    async def _run(self) -> None:
        while True:
            due = self._due_ns()
            while self.market.now_ns < due:
                self._advance(min(due, self.market.now_ns + CHUNK_NS))
                self._look()
                await asyncio.sleep(0)
                if self._speed is not None and self._speed > 1.0:
                    await self._drain(BACKLOG_BYTES)  # nobody can blame readers for a market made faster than the wire
            self._look()
            coming = self.market.next_ns
            wait_s = LONGEST_WAIT_S
            if coming is not None and self._speed is not None:
                wait_s = min(wait_s, (coming - self.venue_ns) / 1e9 / self._speed)
            await asyncio.sleep(max(SHORTEST_WAIT_S, wait_s))

    def _advance(self, until_ns: int) -> None:
        """Move the market and hand out what it says."""
        by_hand = self._speed is None
        since_ns = 0 if by_hand else self.now_ns - self._started_ns
        listeners = self._listeners
        for message in self.market.step(until_ns):
            hearing = listeners.get((message.market, message.stream))
            if hearing:
                at_ns = message.at_ns - self._started_ns if by_hand else since_ns
                self.stats.messages += len(hearing)
                for connection in tuple(hearing.values()):
                    connection.hear(message, at_ns)

    def _look(self) -> None:
        now_ns = self.now_ns
        for connection in list(self._connections.values()):
            connection.look(now_ns, now_ns - self._started_ns)
        while self._waiters and self._waiters[0][0] <= now_ns:
            _, _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                waiter.set_result(None)

    async def step(self, seconds: float) -> None:
        """Move the clock of a venue with `speed=None`; returns when all that was said is in the clients' sockets.

        A client that does not read for a quarter of a second is not waited for again.
        """
        if self._speed is not None:
            raise RuntimeError("this venue follows the real clock; make it with speed=None to step it")
        end_ns = self.market.now_ns + round(seconds * 1e9)
        while True:
            self._advance(min(end_ns, self.market.now_ns + CHUNK_NS))
            self._look()
            await asyncio.sleep(0)
            await self._drain(0)
            if self.market.now_ns >= end_ns:
                return

    async def _drain(self, queued_bytes: int) -> None:
        """Wait for the sockets of connections for which more than this is queued, unless they were waited for in vain."""
        for connection in self.connections:
            if connection.queued_bytes > queued_bytes and connection.number not in self._slow:
                try:
                    await asyncio.wait_for(connection.drained(), 0.25)
                except TimeoutError:
                    self._slow.add(connection.number)

    async def until(self, now_ns: int) -> None:
        """Wait for a time of the clock of faults."""
        if self._speed is not None:
            await asyncio.sleep(max(0.0, (now_ns - self.now_ns) / 1e9))
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (now_ns, id(waiter), waiter))
        await waiter

    def listen(self, connection: Connection, name: str) -> None:
        """A connection wants this stream."""
        stream = parse_stream(connection.market, name)
        if stream is None or (connection.category and stream.kind not in _CATEGORIES[connection.category]):
            return
        self.market.subscribe(connection.market, name)
        self._listeners.setdefault((connection.market, name), {})[connection.number] = connection

    def leave(self, connection: Connection, name: str) -> None:
        """A connection wants this stream no more."""
        hearing = self._listeners.get((connection.market, name), {})
        if hearing.pop(connection.number, None) is not None:
            self.market.unsubscribe(connection.market, name)
            if not hearing:
                del self._listeners[connection.market, name]

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        forced: MarketName | None = None
        for name in MARKETS:
            if path.startswith(f"/{name}/"):
                forced, path = name, path[len(name) + 1 :]
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._stream(request, path, forced)
        return await self._rest(request, path)

    def _refusal(self, status: int, text: str) -> web.Response:
        self.stats.statuses[status] += 1
        return web.Response(status=status, text=text)

    async def _stream(self, request: web.BaseRequest, path: str, forced: MarketName | None) -> web.StreamResponse:
        parts = [part for part in path.split("/") if part]
        category = ""
        market: MarketName = forced or self.market.markets[0]
        if parts and parts[0] in _CATEGORIES and forced != "coinm":
            category, parts, market = parts[0], parts[1:], "usdm"
        if parts[:2] == ["stream", "ws"]:
            parts = parts[1:]
        if not parts or parts[0] not in ("ws", "stream"):
            return self._refusal(404, "streams are at /ws and /stream")
        now_ns = self.now_ns
        status = self.faults.refused(market, now_ns - self._started_ns)
        if status:
            return self._refusal(status, "refused by a fault")
        address = request.remote or ""
        if not self.budget.may_connect(address, now_ns):
            return self._refusal(429, "too many connection attempts within 5 minutes")
        combined = parts[0] == "stream"
        streams = [*parts[1:], *filter(None, request.query.get("streams", "").split("/"))]
        if len(set(streams)) > self.limits.streams_per_connection:
            return self._refusal(400, f"more than {self.limits.streams_per_connection} streams")
        micro = request.query.get("timeUnit", "").upper() == "MICROSECOND"
        self.stats.connections += 1
        number = self.stats.connections
        connection = Connection(self, market, number, address, combined=combined, micro=micro, category=category)
        self.faults.opened(number, now_ns - self._started_ns)
        self._connections[number] = connection
        self.stats.open += 1
        try:
            return await connection.serve(cast(web.Request, request), streams)
        finally:
            del self._connections[number]
            self.stats.open -= 1
            self.faults.closed(number)

    async def _rest(self, request: web.BaseRequest, path: str) -> web.Response:
        endpoint = rest.endpoint_of(request.method, path, self.market.markets)
        self.stats.requests[path] += 1
        if endpoint is None or endpoint.market not in self.market.markets:
            return self._refusal(404, "<html><body><h1>404 Not found</h1></body></html>")
        now_ns = self.now_ns
        since_ns = now_ns - self._started_ns
        address = request.remote or ""
        verdict = self._judge(endpoint, request, address, now_ns, since_ns)
        headers = {"X-MBX-USED-WEIGHT": str(verdict.used), "X-MBX-USED-WEIGHT-1M": str(verdict.used)}
        if verdict.status != 200:
            headers["Retry-After"] = str(verdict.retry_after_s)
            return self._json(verdict.status, self._too_much(endpoint.market, verdict, now_ns), headers)
        symbol = request.query.get("symbol", "")
        shift_ms = self.faults.clock_shift_ms(since_ns, 0, endpoint.market, symbol)
        ask = Ask(endpoint.market, self.market, self.limits, request.query, self.venue_ns // MS + shift_ms, shift_ms)
        delay_ns = 0
        if path.endswith("/depth"):
            ask.age_ns, delay_ns = self.faults.snapshot(endpoint.market, symbol, since_ns)
        try:
            body = rest.answer(endpoint, ask, request.headers.get("X-MBX-APIKEY", ""))
        except RestError as error:
            return self._json(error.status, error.body, headers)
        if delay_ns:
            content = _encode(body)
            await self.until(now_ns + delay_ns)
            body = msgspec.Raw(content)
        return self._json(200, body, headers)

    def _judge(self, endpoint: Endpoint, request: web.BaseRequest, address: str, now_ns: int, since_ns: int) -> Verdict:
        status, wait_ns = self.faults.limited(endpoint.market, since_ns)
        if status == 418:
            return self.budget.ban(endpoint.market, address, now_ns)
        if status:
            return self.budget.refuse(endpoint.market, address, wait_ns, now_ns)
        return self.budget.spend(endpoint.market, address, endpoint.cost(request.query), now_ns)

    def _too_much(self, market: MarketName, verdict: Verdict, now_ns: int) -> dict[str, Any]:
        if verdict.status == 418:
            until_ms = (self.venue_ns + verdict.banned_until_ns - now_ns) // MS
            text = f"Way too much request weight used; IP banned until {until_ms}. "
            text += "Please use WebSocket Streams for live updates to avoid bans."
        else:
            limit = self.limits.weight_per_minute[market]
            text = f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
            text += "Please use WebSocket Streams for live updates to avoid polling the API."
        return {"code": -1003, "msg": text}

    def _json(self, status: int, body: Any, headers: dict[str, str]) -> web.Response:
        self.stats.statuses[status] += 1
        return web.Response(status=status, body=_encode(body), content_type="application/json", charset="UTF-8", headers=headers)
