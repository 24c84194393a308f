"""What one client may cost: uvicorn's protocol with a bound on everything that comes before an answer.

A head (and what little body a GET may have) has a size and a time; connections have a number. Where that number is reached, the
connection that has owed its request for longest makes room, so thousands of half-open ones keep nobody out: whoever sends a whole
request is answered. What is refused here is refused in the shape of all other errors.

Imported by the gateway's own process alone: it needs uvicorn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from procs.gateway.answers import Refused, refusal
from procs.gateway.front import HEADERS
from procs.pacing import MINUTE, SlidingWindow

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Uvicorns
except ImportError:  # httptools is not installed
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Uvicorns  # type: ignore[assignment]

MAX_REQUEST_BYTES: Final = 8192
"""Of a head, and of what follows it without an end of its own."""
REQUEST_S: Final = 5.0
"""From the opening of a connection, or a request's first byte, to its head's end."""
UNREAD_S: Final = 10.0
"""How long an answer may wait for a client that does not read."""
MAX_CONNECTIONS: Final = 256
KEEP_ALIVE_S: Final = 30
LOG_LINES: Final = 20
"""Of uvicorn's entries in a minute; the rest is counted."""
LOG_CHARS: Final = 300
HEAD_END: Final = b"\r\n\r\n"
REASONS: Final = {400: "Bad Request", 408: "Request Timeout", 413: "Content Too Large", 431: "Request Header Fields Too Large"}


def response(refused: Refused) -> bytes:
    """A refusal as HTTP, after which the connection is closed."""
    status, body = refusal(refused)
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\n"
        + "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in HEADERS)
        + f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


class BoundedProtocol(_Uvicorns):
    """One connection. `waiting` of all of them: those that owe a request, the longest first."""

    waiting: dict[BoundedProtocol, None]
    opened: set[BoundedProtocol]

    def connection_made(self, transport: Any) -> None:
        """Take the connection; where there are too many, the one that has owed its request for longest goes."""
        super().connection_made(transport)
        self._bytes, self._tail, self._requests = 0, b"", 0
        self._timer: asyncio.TimerHandle | None = None
        self.opened.add(self)
        self._owes(REQUEST_S)
        if len(self.opened) > MAX_CONNECTIONS:
            oldest = next(iter(self.waiting), self)
            oldest.transport.abort()
            oldest._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before a head's end; refuse what is too much, else let uvicorn parse it."""
        seen, began = self._tail + data, not self._bytes
        end = seen.rfind(HEAD_END)
        if end >= 0:
            first = seen.find(HEAD_END)
            largest = max(self._bytes + first + len(HEAD_END) - len(self._tail), len(seen) - end - len(HEAD_END))
            self._bytes = len(seen) - end - len(HEAD_END)
            self._tail = b"" if not self._bytes else seen[-3:]
        else:
            self._bytes += len(data)
            largest, self._tail = self._bytes, seen[-3:]
        if largest > MAX_REQUEST_BYTES:
            status = 413 if self._requests else 431
            what = f"a request is longer than {MAX_REQUEST_BYTES} bytes: this gateway takes a short head and no body"
            self._refuse(Refused(status, "long_request", what))
            return
        if end >= 0:
            self._requests += 1
            self.waiting.pop(self, None)
            self._stop_timer()
            if self._bytes:
                self._owes(REQUEST_S)
            else:
                self._timer = self.loop.call_later(UNREAD_S, self._unread)
        elif self._requests and began:
            self._owes(REQUEST_S)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Answered: the next request may take as long as a kept connection lasts."""
        super().on_response_complete()
        if not self._bytes and not self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self._owes(KEEP_ALIVE_S + 1)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn cannot parse, in the shape of all errors."""
        self._refuse(Refused(400, "bad_request", "this is no HTTP request that can be understood"))

    def _owes(self, seconds: float) -> None:
        self._stop_timer()
        self.waiting.pop(self, None)
        self.waiting[self] = None
        self._timer = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._refuse(Refused(408, "slow_request", f"no whole request came within {REQUEST_S:g} s"))

    def _unread(self) -> None:
        """The last answer should long be gone."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        elif not self.transport.is_closing():
            self._owes(KEEP_ALIVE_S)

    def _refuse(self, refused: Refused) -> None:
        self._forget()
        if not self.transport.is_closing():
            self.transport.write(response(refused))
            self.transport.close()
            self.loop.call_later(UNREAD_S, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget(self) -> None:
        self._stop_timer()
        self.waiting.pop(self, None)
        self.opened.discard(self)


def bounded() -> type[BoundedProtocol]:
    """The protocol of one server: its connections count for that server alone."""
    return type("ServersProtocol", (BoundedProtocol,), {"waiting": {}, "opened": set()})


class FewLines(logging.Filter):
    """Lets LOG_LINES entries a minute through, shortened; says how many it kept back with the next one."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        super().__init__()
        self._window, self._clock_ns, self.kept_back = SlidingWindow(LOG_LINES, MINUTE), clock_ns, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """False for one too many."""
        now_ns = self._clock_ns()
        if self._window.wait_ns(now_ns):
            self.kept_back += 1
            return False
        self._window.take(now_ns)
        more = f" (and {self.kept_back} entries like it before)" if self.kept_back else ""
        record.msg, record.args, self.kept_back = record.getMessage()[:LOG_CHARS] + more, (), 0
        return True
