"""One stream connection: its subscriptions, the control messages of its client, and the queue in front of its socket.

Events come from sim.local_venue.server, already chosen for this connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import deque
from socket import SO_SNDBUF, SOL_SOCKET
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import WSMsgType, web

from sim.local_venue.limits import MessageRate
from sim.local_venue.messages import Message
from sim.local_venue.stream_names import MarketName, parse_stream

if TYPE_CHECKING:
    from sim.local_venue.server import LocalVenue

METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
SECOND: Final = 1_000_000_000
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")
_POLICY: Final = 1008


class ControlError(Exception):
    """A control message that is answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Connection:
    """A client's connection, from the upgrade to its end. `number` counts openings from 1."""

    def __init__(
        self, venue: LocalVenue, market: MarketName, number: int, address: str, *, combined: bool, micro: bool, category: str
    ) -> None:
        self.venue, self.market, self.number, self.address = venue, market, number, address
        self.combined, self.micro, self.category = combined, micro, category
        self.streams: dict[str, None] = {}  # ordered
        self.sent = 0
        self.queued_bytes = 0
        self.socket = web.WebSocketResponse(autoping=False, autoclose=True, compress=False, max_msg_size=1 << 16, timeout=2.0)
        self.opened_ns = venue.now_ns
        self._rate = MessageRate(venue.limits.client_messages_per_s[market])
        self._queue: deque[tuple[bytes, WSMsgType]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending: int | None = None
        self._aborted = False
        self._last_ping_ns = self.opened_ns
        self._unanswered_ns = 0
        self._told = False
        self._request: web.Request | None = None
        self._queue_limit = venue.faults.queue_bytes(number, market, venue.limits.queue_bytes)

    async def serve(self, request: web.Request, streams: list[str]) -> web.WebSocketResponse:
        """Speak until one side ends it."""
        self._request = request
        await self.socket.prepare(request)
        if self._queue_limit < self.venue.limits.queue_bytes and request.transport is not None:
            # a fault that lets little wait means it: the kernel is not to hold megabytes
            line = request.transport.get_extra_info("socket")
            line.setsockopt(SOL_SOCKET, SO_SNDBUF, max(4096, self._queue_limit))
        self.subscribe(streams)
        writer = asyncio.create_task(self._write())
        try:
            while True:
                message = await self.socket.receive()
                if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                    break
                self._take(message.type, message.data)
            if self._ending is not None and not self._aborted:
                await asyncio.wait({writer}, timeout=5.0)  # it says goodbye
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            self._idle.set()
            self.unsubscribe(list(self.streams))
        return self.socket

    def _take(self, kind: WSMsgType, content: Any) -> None:
        if self._rate.exceeded(self.venue.now_ns):
            self.venue.stats.closed["too many messages"] += 1
            self.close(_POLICY)
        elif kind is WSMsgType.PING:
            self._put(bytes(content), WSMsgType.PONG)
        elif kind is WSMsgType.PONG:
            if bytes(content) == str(self._last_ping_ns // 1_000_000).encode():
                self._unanswered_ns = 0
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
            self._put(msgspec.json.encode(self._answer(content)), WSMsgType.TEXT)

    def _answer(self, content: str | bytes) -> dict[str, Any]:
        """The reply to a control message."""
        request_id: Any = None
        try:
            try:
                request = json.loads(content)
            except ValueError as error:
                line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
                raise ControlError(3, f"Invalid JSON: expected value at line {line} column {column}") from None
            if not isinstance(request, dict):
                raise ControlError(2, "Invalid request: expected an object")
            request_id = self._id_of(request)
            return {"result": self._do(request), "id": request_id}
        except ControlError as error:
            return {"error": {"code": error.code, "msg": error.text}, "id": request_id}

    def _id_of(self, request: dict[str, Any]) -> int | str | None:
        given = request.get("id")
        if self.market == "spot":
            if given is None or (isinstance(given, str) and _ID.fullmatch(given)):
                return given
            if isinstance(given, int) and not isinstance(given, bool) and -(2**63) <= given < 2**63:
                return given
        elif isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**64:
            return given
        raise ControlError(2, "Invalid request: request ID must be an unsigned integer")

    def _do(self, request: dict[str, Any]) -> Any:
        method = request.get("method")
        if method is None:
            raise ControlError(2, f"Invalid request: missing field `method` at line 1 column {len(json.dumps(request))}")
        if method not in METHODS:
            known = ", ".join(f"`{name}`" for name in METHODS)
            raise ControlError(2, f"Invalid request: unknown variant `{method}`, expected one of {known} at line 1 column 28")
        if set(request) - {"method", "params", "id"}:
            raise ControlError(2, "Invalid request: too many parameters")
        params = request.get("params", [])
        if not isinstance(params, list):
            raise ControlError(2, "Invalid request: invalid type for `params`, expected a sequence")
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.streams)
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not params or not all(isinstance(name, str) and name for name in params):
                raise ControlError(2, "Invalid request: invalid stream")
            if method == "UNSUBSCRIBE":
                self.unsubscribe(params)
            elif len({*self.streams, *params}) > self.venue.limits.streams_per_connection:
                raise ControlError(2, "Invalid request: too many streams")
            else:
                self.subscribe(params)
            return None
        if not params or not isinstance(params[0], str):
            raise ControlError(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise ControlError(0, "Unknown property")
        if method == "GET_PROPERTY":
            return self.combined
        if len(params) != 2 or not isinstance(params[1], bool):
            raise ControlError(1, "Invalid value type: expected Boolean")
        self.combined = params[1]
        return None

    def subscribe(self, names: list[str]) -> None:
        """Listen to these streams; those that it listens to already stay."""
        for name in names:
            if name not in self.streams:
                self.streams[name] = None
                self.venue.listen(self, name)
                stream = parse_stream(self.market, name)
                if stream is not None:
                    since_ns = self.venue.now_ns - self.venue.started_ns
                    self.venue.faults.subscribed(self.number, self.market, stream.symbol, stream.kind, since_ns)

    def unsubscribe(self, names: list[str]) -> None:
        """Listen to these no more."""
        for name in names:
            if name in self.streams:
                del self.streams[name]
                self.venue.leave(self, name)

    def hear(self, message: Message, since_ns: int) -> None:
        """An event of a stream that it listens to; `since_ns` since the venue's start."""
        if self._ending is not None:
            return
        faults = self.venue.faults
        shift_ms = faults.clock_shift_ms(since_ns, self.number, self.market, message.symbol, message.kind)
        if faults.holding:
            for one in faults.released(self.number, since_ns):
                self._put(one, WSMsgType.TEXT)
        text = message.text(self.combined, self.micro, shift_ms)
        chosen = faults.deliver(self.number, self.market, message.symbol, message.kind, text, since_ns)
        if chosen is None:
            self.end(faults.cut_way(self.number))
            return
        for one in chosen:
            self._put(one, WSMsgType.TEXT)

    def look(self, now_ns: int, since_ns: int) -> None:
        """Whatever is due by the clock: held messages, cuts, pings, the end of its life."""
        if self._ending is not None:
            return
        faults, limits = self.venue.faults, self.venue.limits
        for one in faults.released(self.number, since_ns):
            self._put(one, WSMsgType.TEXT)
        how = faults.cut(self.number, self.market, since_ns)
        age_s = (now_ns - self.opened_ns) / SECOND
        if how:
            self.end(how)
        elif self._unanswered_ns and now_ns - self._unanswered_ns >= limits.pong_timeout_s * SECOND:
            self.venue.stats.closed["no pong"] += 1
            self.close(_POLICY)
        elif age_s >= limits.lifetime_s:
            self.venue.stats.closed["end of life"] += 1
            self.close(1001)
        elif not self._told and age_s >= limits.lifetime_s - limits.shutdown_notice_s:
            self.tell_shutdown(now_ns)
        elif now_ns - self._last_ping_ns >= limits.ping_s * SECOND:
            self._last_ping_ns = now_ns
            self._unanswered_ns = self._unanswered_ns or now_ns
            self._put(str(now_ns // 1_000_000).encode(), WSMsgType.PING)

    def tell_shutdown(self, now_ns: int) -> None:
        """The event that comes before the server ends a connection."""
        self._told = True
        event: dict[str, Any] = {"e": "serverShutdown", "E": now_ns // (1000 if self.micro else 1_000_000)}
        if self.combined:
            event = {"stream": "!serverShutdown", "data": event}
        self._put(msgspec.json.encode(event), WSMsgType.TEXT)

    def end(self, how: str) -> None:
        """End it as a fault wants: "close" with a close frame, "abort" without a word."""
        self.venue.stats.closed["fault"] += 1
        if how == "close":
            self.close(1001)
        else:
            self.abort()

    def close(self, code: int) -> None:
        """Say goodbye after what is queued."""
        if self._ending is None:
            self._ending = code
            self._wake.set()

    def abort(self) -> None:
        """Cut the line at once."""
        self._aborted = True
        self._ending = self._ending or 1006
        self._queue.clear()
        self.queued_bytes = 0
        transport = self._request.transport if self._request is not None else None
        if transport is not None:
            transport.abort()
        self._idle.set()
        self._wake.set()

    def _put(self, text: bytes, kind: WSMsgType) -> None:
        if self._ending is not None:
            return
        self._queue.append((text, kind))
        self.queued_bytes += len(text)
        self._idle.clear()
        self._wake.set()
        if self.queued_bytes > self._queue_limit:
            self.venue.stats.closed["slow reader"] += 1
            self.venue.faults.hits["slow_consumer"] += self._queue_limit != self.venue.limits.queue_bytes
            self.abort()

    async def _write(self) -> None:
        socket, queue = self.socket, self._queue
        try:
            while True:
                while queue:
                    text, kind = queue.popleft()
                    await socket.send_frame(text, kind)
                    self.queued_bytes -= len(text)
                    self.sent += kind is WSMsgType.TEXT
                self._idle.set()
                if self._aborted:
                    return
                if self._ending is not None:
                    await socket.close(code=self._ending)
                    return
                self._wake.clear()
                await self._wake.wait()
        except (ConnectionError, RuntimeError):
            self._ending = self._ending or 1006
            queue.clear()
            self.queued_bytes = 0
            self._idle.set()

    async def drained(self) -> None:
        """Wait until nothing is queued."""
        await self._idle.wait()
