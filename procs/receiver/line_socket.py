"""Hears one connection of one line; `on_frame` is the receiver's hot path.

What this is not: it decides nothing. What is no market frame, and every event, goes to procs.receiver.link.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trading.venues.protocol import STREAMS

if TYPE_CHECKING:
    from procs.receiver import transport
    from procs.receiver.lines import Line
    from procs.receiver.link import VenueLink
    from trading.venues.protocol import Decoder


@dataclass(slots=True)
class LineCounts:
    """What one line has brought, over all its connections."""

    messages: int = 0
    bytes: int = 0
    plain: int = 0
    unknown: int = 0
    refused: int = 0
    lost: int = 0  # frames for which there was no room; bytes that were to be kept count too
    gaps: int = 0  # symbols of which LOST was told
    ignored: dict[str, int] = field(default_factory=dict)


class Socket:
    """Hears one connection of one line."""

    __slots__ = (
        "connection", "connection_number", "counts", "dead", "decoder", "frame", "heard", "last", "last_ns", "line", "link",
        "number", "opening", "stream_code",
    )  # fmt: skip

    def __init__(self, link: VenueLink, line: Line) -> None:
        self.link: Final = link
        self.line: Final = line
        self.number: Final = line.number
        self.counts: Final = link.counts[line.number]
        self.frame: Final = link.writer.frame
        self.stream_code: Final = link.venue.stream_code if link.venue.native else _no_stream
        self.heard: Final = link.watch.heard[line.number]
        self.decoder: Final[Decoder] = link.venue.decoder_for(line.plan)
        link.connections += 1
        self.connection_number: Final = link.connections
        self.connection: transport.Connection | None = None
        self.opening: asyncio.Task[None] | None = None
        self.dead = False
        self.last = b""
        self.last_ns = 0

    def on_open(self, connection: transport.Connection) -> None:
        """The upgrade is done."""
        self.connection = connection
        if self.dead:
            connection.abort()
        else:
            self.link.perform(self.link.lines.opened(self.number, time.monotonic_ns()))

    def on_frame(self, payload: bytes) -> None:
        """One message."""
        if self.dead:
            return
        origin = time.monotonic_ns()
        now = time.time_ns()
        self.line.seen_ns = origin
        counts = self.counts
        counts.messages += 1
        counts.bytes += len(payload)
        code = self.stream_code(payload)
        if code < 0:
            self.link.decoded(self, payload, origin, now)
            return
        self.heard[code] = origin
        symbol = code // STREAMS
        self.last, self.last_ns = payload, now
        if self.frame(payload, symbol, self.number, counts.messages, origin, now) < 0:
            self.link.dropped(self.number, (symbol,), now, len(payload))

    def on_ping(self, payload: bytes) -> None:
        """The venue pings."""
        self.line.seen_ns = now = time.monotonic_ns()
        if not self.dead:
            self.link.perform(self.link.lines.ping(self.number, payload, now))

    def on_alive(self) -> None:
        """A pong."""
        self.line.seen_ns = time.monotonic_ns()

    def on_close(self, code: int, reason: str) -> None:
        """The end."""
        self.link.ended(self, f"closed with {code}{': ' + reason if reason else ''}")


def _no_stream(payload: bytes) -> int:
    return -1
