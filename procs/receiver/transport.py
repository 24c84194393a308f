"""WebSocket clients behind one small interface: picows (15 times the rate of websockets, measured), websockets as the fallback.

    await connect(url, listener, ...)      raises UpgradeRefused, OSError, TimeoutError
    listener.on_open(connection)           before any frame
    listener.on_frame(payload)             one whole message; fragments are put together here
    listener.on_ping(payload)              the venue pings: the listener answers (connection.pong)
    listener.on_alive()                    a pong came
    listener.on_close(code, reason)        exactly once after on_open, whoever closed; nothing follows

No compression is offered, so a compressed message is a protocol error and ends the connection, as does one of more than
`MOST_BYTES`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import urllib.parse
import urllib.request
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol

from procs.receiver.rest import retry_after_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MOST_BYTES: Final = 16 << 20
ABNORMAL: Final = 1006
TOO_BIG: Final = 1009
PROTOCOL_ERROR: Final = 1002


class UpgradeRefused(ConnectionError):
    """The venue answered the upgrade with another status than 101; `retry_after_s` > 0: leave it alone for so long."""

    def __init__(self, status: int, retry_after: float, text: str) -> None:
        super().__init__(f"HTTP {status} to the upgrade{': ' + text if text else ''}")
        self.status = status
        self.retry_after_s = retry_after


class Listener(Protocol):
    """Who hears what a connection brings."""

    def on_open(self, connection: Connection) -> None:
        """It stands."""

    def on_frame(self, payload: bytes) -> None:
        """One whole message."""

    def on_ping(self, payload: bytes) -> None:
        """A ping, to be answered."""

    def on_alive(self) -> None:
        """A pong."""

    def on_close(self, code: int, reason: str) -> None:
        """The end."""


class Connection(Protocol):
    """An open connection."""

    def send(self, message: bytes) -> None:
        """Send a text message."""

    def ping(self) -> None:
        """Send a WebSocket ping."""

    def pong(self, payload: bytes) -> None:
        """Answer a ping."""

    def close(self) -> None:
        """Close in order."""

    def abort(self) -> None:
        """Close at once."""


def choose(transport: str) -> str:
    """`auto` resolved: picows if it can be imported. Raises ValueError for one that is not installed."""
    if transport == "auto":
        return "picows" if find_spec("picows") is not None else "websockets"
    if find_spec(transport) is None:
        raise ValueError(f"live.transport {transport}: the package is not installed; install it, or write transport: auto")
    return transport


def proxy_of(url: str) -> str | None:
    """The proxy that the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY) names for this address; never one for this machine."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if here or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get("https" if parts.scheme in ("wss", "https") else "http") or proxies.get("all")


async def connect(
    url: str, listener: Listener, transport: str, timeout_s: float, context: ssl.SSLContext | None = None
) -> None:
    """Open `url` (ws:// or wss://). `transport`: picows or websockets; `context`: instead of the system's trusted roots."""
    if url.startswith("wss:") and context is None:
        context = ssl.create_default_context()
    if not url.startswith("wss:"):
        context = None
    opened = _connect_picows if transport == "picows" else _connect_websockets
    await asyncio.wait_for(opened(url, listener, timeout_s, context), timeout_s)


def _retry_after(status: int, headers: Mapping[str, str]) -> float:
    return retry_after_s(status, headers.get("Retry-After", ""))


# ---- picows


async def _connect_picows(url: str, listener: Listener, timeout_s: float, context: ssl.SSLContext | None) -> None:
    import picows

    text, binary, continuation = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION
    ping, pong, close = picows.WSMsgType.PING, picows.WSMsgType.PONG, picows.WSMsgType.CLOSE

    class Hearing(picows.WSListener):  # type: ignore[misc,unused-ignore]  # a C type
        """Hands whole messages on."""

        def __init__(self) -> None:
            self.parts: bytearray | None = None
            self.why = (ABNORMAL, "connection lost")

        def on_ws_connected(self, transport: Any) -> None:
            """The upgrade is done."""
            listener.on_open(Open(transport))

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            """A frame: a message, a part of one, or control."""
            kind = frame.msg_type
            if (kind is text or kind is binary or kind == text or kind == binary) and frame.fin and not frame.rsv1:
                listener.on_frame(frame.get_payload_as_bytes())
            elif kind == ping:
                listener.on_ping(frame.get_payload_as_bytes())
            elif kind == pong:
                listener.on_alive()
            elif kind == close:
                self.why = (int(frame.get_close_code()), frame.get_close_reason() or "")
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            else:
                self.part(transport, frame, kind == continuation)

        def part(self, transport: Any, frame: Any, more: bool) -> None:
            """A part of a message, or something that was not agreed on."""
            if frame.rsv1 or frame.rsv2 or frame.rsv3:
                self.refuse(transport, PROTOCOL_ERROR, "a compressed message, though no compression was agreed on")
            elif more is (self.parts is None):
                self.refuse(transport, PROTOCOL_ERROR, "fragments out of order")
            else:
                self.parts = self.parts if self.parts is not None else bytearray()
                self.parts += frame.get_payload_as_bytes()
                if len(self.parts) > MOST_BYTES:
                    self.refuse(transport, TOO_BIG, f"a message of more than {MOST_BYTES} bytes")
                elif frame.fin:
                    whole, self.parts = bytes(self.parts), None
                    listener.on_frame(whole)

        def refuse(self, transport: Any, code: int, why: str) -> None:
            """End the connection for what the other side did."""
            self.why = (code, why)
            transport.send_close(picows.WSCloseCode(code))
            transport.disconnect(graceful=False)

        def on_ws_disconnected(self, transport: Any) -> None:
            """The end, by whomever."""
            listener.on_close(*self.why)

    class Open:
        """A picows transport as a Connection."""

        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def send(self, message: bytes) -> None:
            """A text message."""
            self.transport.send(text, message)

        def ping(self) -> None:
            """A ping."""
            self.transport.send_ping(b"")

        def pong(self, payload: bytes) -> None:
            """A pong."""
            self.transport.send_pong(payload)

        def close(self) -> None:
            """Say so, then go."""
            self.transport.send_close(picows.WSCloseCode.OK)
            self.transport.disconnect()

        def abort(self) -> None:
            """Go."""
            self.transport.disconnect(graceful=False)

    try:
        await picows.ws_connect(
            Hearing,
            url,
            ssl_context=context,
            websocket_handshake_timeout=timeout_s,
            enable_auto_pong=False,  # pongs count among our messages, so they are paced
            max_frame_size=MOST_BYTES,
            max_redirects=0,
            proxy=proxy_of(url),
        )
    except picows.WSHandshakeError as error:
        response = error.response
        if response is None:
            raise ConnectionError(f"upgrade failed: {error}") from None
        status = int(response.status)
        body = (error.raw_body or response.body or b"")[:200].decode("utf-8", "replace")
        raise UpgradeRefused(status, _retry_after(status, response.headers), body) from None
    except picows.WSError as error:
        raise ConnectionError(f"upgrade failed: {error}") from None


# ---- websockets


async def _connect_websockets(url: str, listener: Listener, timeout_s: float, context: ssl.SSLContext | None) -> None:
    from websockets.asyncio.client import ClientConnection
    from websockets.asyncio.client import connect as open_socket
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
    from websockets.frames import Frame, Opcode

    class Hearing(ClientConnection):
        """Hands pings on, and keeps websockets from answering them by itself."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.answering = False
            send_frame = self.protocol.send_frame

            def send(frame: Frame) -> None:
                if frame.opcode is not Opcode.PONG or self.answering:
                    send_frame(frame)

            self.protocol.send_frame = send  # type: ignore[method-assign]  # websockets has no option for it

        def process_event(self, event: Any) -> None:
            """One frame, or the answer to the upgrade."""
            super().process_event(event)
            if isinstance(event, Frame) and event.opcode is Opcode.PING:
                listener.on_ping(bytes(event.data))
            elif isinstance(event, Frame) and event.opcode is Opcode.PONG:
                listener.on_alive()

        async def answer(self, payload: bytes) -> None:
            """A pong of ours."""
            self.answering = True
            try:
                await self.pong(payload)
            finally:
                self.answering = False

    class Open:
        """A websockets connection as a Connection. What is sent is queued, so that nothing waits."""

        def __init__(self, socket: Hearing) -> None:
            self.socket = socket
            self.out: asyncio.Queue[Callable[[], Awaitable[Any]]] = asyncio.Queue()
            self.tasks = [asyncio.create_task(self.read()), asyncio.create_task(self.write())]

        async def read(self) -> None:
            """Hand on what comes until the end."""
            try:
                while True:
                    listener.on_frame(await self.socket.recv(decode=False))
            except ConnectionClosed as end:
                said = end.rcvd
                listener.on_close(said.code if said else ABNORMAL, said.reason if said else "connection lost")
            finally:
                self.tasks[1].cancel()

        async def write(self) -> None:
            """Send what is queued."""
            try:
                while True:
                    await (await self.out.get())()
            except ConnectionClosed:
                pass

        def send(self, message: bytes) -> None:
            """A text message."""
            self.out.put_nowait(lambda: self.socket.send(message, text=True))

        def ping(self) -> None:
            """A ping."""
            self.out.put_nowait(self.socket.ping)

        def pong(self, payload: bytes) -> None:
            """A pong."""
            self.out.put_nowait(lambda: self.socket.answer(payload))

        def close(self) -> None:
            """Say so, then go."""
            self.tasks.append(asyncio.create_task(self.socket.close()))

        def abort(self) -> None:
            """Go."""
            self.socket.transport.abort()

    try:
        socket = await open_socket(
            url,
            ssl=context,
            compression=None,
            open_timeout=timeout_s,
            ping_interval=None,
            close_timeout=1.0,
            max_size=MOST_BYTES,
            max_queue=None,
            create_connection=Hearing,
            proxy=proxy_of(url),
        )
    except InvalidStatus as error:
        status = error.response.status_code
        body = bytes(error.response.body or b"")[:200].decode("utf-8", "replace")
        raise UpgradeRefused(status, _retry_after(status, error.response.headers), body) from None
    except InvalidHandshake as error:
        raise ConnectionError(f"upgrade failed: {error}") from None
    assert isinstance(socket, Hearing)
    listener.on_open(Open(socket))
