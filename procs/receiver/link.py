"""One venue at work: its sockets, its decoders, its snapshots and its clock, tied to the state machine that decides.

A `Socket` hears one connection. Its `on_frame` is the receiver's hot path: market frames of a native venue are copied into the
arena as they are; frames of other venues are decoded into plain frames. All else (replies, notices, odd things) is decided by
procs.receiver.venue_lines, whose actions are performed here.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from procs.config import LiveSettings
from procs.frame_log_format import Came, raw_flags
from procs.receiver import transport
from procs.receiver.budget import SECOND, ConnectBudget, WeightBudget
from procs.receiver.clock import ClockEstimate
from procs.receiver.frames import NOWHERE, FrameWriter
from procs.receiver.lines import Action, Close, Connect, Down, Gap, Line, Ping, Send, Up, policy_of
from procs.receiver.rest import Answered, RestClient
from procs.receiver.resync import ResyncDesk
from procs.receiver.say import Say
from procs.receiver.venue_lines import VenueLines
from trading.binance_layout import FrameKind
from trading.plain_frame import W_KIND, W_TS
from trading.records import Kind
from trading.venues.protocol import (
    Closing,
    Decoder,
    Ignored,
    Item,
    Missed,
    Plain,
    Refused,
    Subscribed,
    Unknown,
    Venue,
    VenueError,
)
from trading.venues.protocol import Send as Reply

RAW: Final = int(Kind.RAW)
_EVENT_TIME: Final = re.compile(rb'"E":(\d{13,16})\b')  # Binance's; ms, or us where asked for
_LAST_ID: Final = re.compile(rb'"lastUpdateId":\s*(\d{1,19})\b')


@dataclass(slots=True)
class LineCounts:
    """What one line has brought, over all its connections."""

    messages: int = 0
    bytes: int = 0
    plain: int = 0
    unknown: int = 0
    refused: int = 0
    lost: int = 0  # frames for which there was no room
    gaps: int = 0  # symbols of which LOST was told
    ignored: dict[str, int] = field(default_factory=dict)


class Socket:
    """Hears one connection of one line."""

    __slots__ = (
        "connection", "connection_number", "counts", "dead", "decoder", "frame", "last", "last_ns", "line", "link", "number",
        "opening", "symbol_of",
    )  # fmt: skip

    def __init__(self, link: VenueLink, line: Line) -> None:
        self.link: Final = link
        self.line: Final = line
        self.number: Final = line.number
        self.counts: Final = link.counts[line.number]
        self.frame: Final = link.writer.frame
        self.symbol_of: Final = link.venue.symbol_of if link.venue.native else _no_symbol
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
        symbol = self.symbol_of(payload)
        if symbol < 0:
            self.link.decoded(self, payload, origin, now)
            return
        self.last, self.last_ns = payload, now
        if self.frame(payload, symbol, self.number, counts.messages, origin, now) < 0:
            self.link.dropped(self.number, (symbol,), now)

    def on_alive(self) -> None:
        """A ping or pong."""
        self.line.seen_ns = time.monotonic_ns()

    def on_close(self, code: int, reason: str) -> None:
        """The end."""
        self.link.ended(self, f"closed with {code}{': ' + reason if reason else ''}")


def _no_symbol(payload: bytes) -> int:
    return -1


class VenueLink:
    """One venue's part of the receiver. Everything happens in one event loop."""

    def __init__(
        self,
        venue: Venue,
        live: LiveSettings,
        writer: FrameWriter,
        say: Say,
        rng: random.Random,
        *,
        name: str,
        stream_url: str = "",
        rest_url: str = "",
        raw: bool = False,
        state_dir: Path | None = None,
        first_line: int = 0,
    ) -> None:
        now = time.monotonic_ns()
        limits = venue.limits
        self.venue: Final = venue
        self.name: Final = name
        self.writer: Final = writer
        self.say: Final = say
        self.transport: Final = transport.choose(live.transport)
        self.stream_url: Final = (stream_url or venue.stream_url).rstrip("/")
        self._raw: Final = raw
        self._clock_interval_s: Final = live.clock_interval_s
        self.policy: Final = policy_of(
            limits,
            backoff_min_ms=live.backoff_min_ms,
            backoff_max_ms=live.backoff_max_ms,
            silence_timeout_s=live.silence_timeout_s,
            rotate_hours=live.rotate_hours,
        )
        file = None if state_dir is None else state_dir / f"connects-{name.replace(':', '-')}.json"
        connects = ConnectBudget(
            limits.connects_per_window, int(limits.connect_window_s * SECOND), file=file, wall_ns=time.time_ns, now_ns=now
        )
        copies = live.lines if venue.arbitrates else 1
        self.lines: Final = VenueLines(venue.connections(), copies, self.policy, connects, rng, first_line)
        self.counts: Final = {number: LineCounts() for number in self.lines.lines}
        budget = WeightBudget(limits.rest_weight_per_minute, live.rest_weight_share)
        self.rest: Final = RestClient(rest_url or venue.rest_url, budget, rng)
        self.desk: Final = ResyncDesk(live.resyncs_per_minute, rng)
        self.clock: Final = ClockEstimate()
        self.sockets: Final[dict[int, Socket]] = {}
        self.symbols: Final = tuple(symbol.index for symbol in venue.symbols)
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._odd: Final = venue.decoder_for(next(iter(self.lines.lines.values())).plan)
        self._speaker: Final[dict[int, int]] = {}
        self._turn = 0
        self.connections = 0  # so far
        self.odd_frames = 0

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """All lines are told down (a feed that outlived us must not believe in our predecessor's), then begin."""
        now = time.time_ns()
        for line in self.lines.lines.values():
            self.writer.line_down(line.number, line.plan.symbols, now)
        self.perform(self.lines.start(time.monotonic_ns()))
        if self.venue.time_request() is not None:
            self._spawn(self._ask_time())

    def tick(self) -> None:
        """Whatever is due; some times a second."""
        now = time.monotonic_ns()
        self.perform(self.lines.tick(now))
        if self.desk.waiting:
            for symbol in self.desk.due(now, self.lines.covered):
                self._resync(symbol)

    def sample(self) -> None:
        """Once a second: the stream's word on the venue's clock."""
        for socket in self.sockets.values():
            if socket.last_ns and (found := _EVENT_TIME.search(socket.last)):
                digits = found[1]
                self.clock.event(int(digits) * 10 ** (19 - len(digits)), socket.last_ns)
                socket.last_ns = 0

    async def stop(self, within_s: float = 0.4) -> None:
        """Close everything; what does not close in time is cut."""
        self.perform(self.lines.stop(time.monotonic_ns()))
        deadline = asyncio.get_running_loop().time() + within_s
        while self.sockets and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.005)
        for socket in list(self.sockets.values()):
            if socket.connection is not None:
                socket.connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.rest.close()

    def want(self, symbol: int, update_id: int) -> None:
        """The feed wants a snapshot."""
        self.desk.want(symbol, update_id, time.monotonic_ns())

    def odd(self, payload: bytes, line: int) -> None:
        """The feed made nothing of this frame: what does the typed decoder say?"""
        self.odd_frames += 1
        for item in self._odd.decode(payload, time.time_ns()):
            what = type(item).__name__.lower()
            why = getattr(item, "why", "") or getattr(item, "what", "") or getattr(item, "text", "")
            text = f"line {line}: the feed made nothing of a frame; the typed decoder says {what} {why}"
            self.say(f"{text}: {payload[:200]!r}", f"odd {what} {why}"[:64])
            if isinstance(item, Unknown):
                self.counts[line].unknown += 1

    # --- frames -------------------------------------------------------------------------------------------------------

    def decoded(self, socket: Socket, payload: bytes, origin: int, now: int) -> None:
        """A message that does not go to the feed as it is."""
        venue, line = self.venue, socket.number
        if venue.native and venue.is_market_frame(payload):  # of a symbol that is not ours to name: the scanner finds it
            if self.writer.frame(payload, -1, line, socket.counts.messages, origin, now) == NOWHERE:
                self.dropped(line, socket.line.plan.symbols, now)
            return
        heard = items = socket.decoder.decode(payload, now)
        if not venue.arbitrates:
            heard = [item for item in items if type(item) is not Plain or self._speaks(item, line)]
        for item in items:
            if type(item) is Missed:  # before the frame that shows it, for the feed as for a recording's reader
                self._heard(socket, item, payload, now)
        if self._raw:
            self._record(socket, payload, items, heard, origin, now)
        for item in heard:
            if type(item) is Plain:
                socket.counts.plain += 1
                if self.writer.frame(item.frame, item.symbol, line, socket.counts.messages, origin, now) == NOWHERE:
                    self.dropped(line, (item.symbol,), now)
                else:
                    event = int.from_bytes(item.frame[8 * W_TS : 8 * W_TS + 8], "little")
                    if event:
                        self.clock.event(event, now)
            elif type(item) is not Missed:
                self._heard(socket, item, payload, now)

    def _record(
        self, socket: Socket, payload: bytes, items: Sequence[Item], heard: Sequence[Item], origin: int, now: int
    ) -> None:
        """The venue's bytes for the recorder, once for each symbol that they tell of, with the connection that they came by."""
        spoken = {item.symbol for item in heard if type(item) is Plain}
        for symbol in dict.fromkeys(item.symbol for item in items if type(item) is Plain) or (-1,):
            came = Came(socket.number, socket.connection_number, symbol >= 0 and symbol not in spoken)
            self.writer.frame(payload, symbol, raw_flags(came), socket.counts.messages, origin, now, RAW)

    def _speaks(self, item: Plain, line: int) -> bool:
        """Of two connections without ids in common, whether this one speaks for the symbol: the one with the newest snapshot."""
        if item.frame[8 * W_KIND] == FrameKind.SNAPSHOT or self._speaker.get(item.symbol, line) not in self.sockets:
            self._speaker[item.symbol] = line
        return self._speaker.setdefault(item.symbol, line) == line

    def dropped(self, line: int, symbols: Sequence[int], now: int) -> None:
        """There was no room for a frame of these symbols."""
        counts = self.counts[line]
        counts.lost += 1
        self._tell_lost(line, symbols, now)
        self.say(f"line {line}: a frame was dropped, frames ring or arena are full (see live.arena_mb)", "no room")

    def _tell_lost(self, line: int, symbols: Sequence[int], now: int) -> None:
        self.counts[line].gaps += len(symbols)
        self.writer.lost(line, symbols, now)

    def _heard(self, socket: Socket, item: Item, payload: bytes, now: int) -> None:
        mono, line, lines = time.monotonic_ns(), socket.number, self.lines
        if isinstance(item, Subscribed):
            self.perform(lines.subscribed(line, item, mono))
        elif isinstance(item, Refused):
            socket.counts.refused += 1
            self.perform(lines.refused(line, item, mono))
        elif isinstance(item, Reply):
            self.perform(lines.send(line, [item.message], mono, first=True))
        elif isinstance(item, Missed):
            self._tell_lost(line, item.symbols, now)
            self.say(f"line {line}: {item.why}", f"missed {line}")
        elif isinstance(item, Closing):
            self.perform(lines.closing(line, item.text, mono))
        elif isinstance(item, Ignored):
            ignored = socket.counts.ignored
            key = item.what if item.what in ignored or len(ignored) < 64 else "other"
            ignored[key] = ignored.get(key, 0) + 1
        elif isinstance(item, Unknown):
            socket.counts.unknown += 1
            self.say(f"line {line}: not understood ({item.why}): {payload[:200]!r}", f"unknown {item.why}"[:64])

    # --- sockets ------------------------------------------------------------------------------------------------------

    def perform(self, actions: Sequence[Action]) -> None:
        """Do what the state machine decided."""
        for action in actions:
            if isinstance(action, Connect):
                socket = self.sockets[action.line] = Socket(self, self.lines.lines[action.line])
                socket.opening = self._spawn(self._open(socket, self.stream_url + action.path))
            elif isinstance(action, Up):
                self.writer.line_up(action.line, action.symbols, time.time_ns())
                self.say(f"line {action.line}: {self._names(action.symbols)} up")
            elif isinstance(action, Down):
                self.writer.line_down(action.line, action.symbols, time.time_ns())
                self.say(f"line {action.line}: {self._names(action.symbols)} down ({action.why})")
            elif isinstance(action, Gap):
                self._tell_lost(action.line, action.symbols, time.time_ns())
            elif isinstance(action, Close):
                self._close(action)
            elif isinstance(action, Send | Ping):
                self._send(action)
            else:
                self.say(f"line {action.line}: {action.text}", f"note {action.line} {action.text}"[:64])

    def _send(self, action: Send | Ping) -> None:
        socket = self.sockets.get(action.line)
        if socket is None or socket.connection is None:
            return
        message = action.message if isinstance(action, Send) else self.venue.ping_message(time.time_ns())
        if message is None:
            socket.connection.ping()
        else:
            socket.connection.send(message)

    def _close(self, action: Close) -> None:
        socket = self.sockets.get(action.line)
        if socket is None:
            return
        socket.dead = True
        if socket.connection is None:
            if socket.opening is not None:
                socket.opening.cancel()
        elif action.abort:
            socket.connection.abort()
        else:
            socket.connection.close()

    async def _open(self, socket: Socket, url: str) -> None:
        limit_s = self.policy.connect_ns / SECOND
        try:
            await transport.connect(url, socket, self.transport, limit_s)
        except asyncio.CancelledError:
            self.ended(socket, "given up")
            raise
        except transport.UpgradeRefused as error:
            self.ended(socket, str(error), error.retry_after_s)
        except TimeoutError:
            self.ended(socket, f"no connection within {limit_s:g} s")
        except Exception as error:  # a line must survive whatever a client library raises
            self.ended(socket, f"{type(error).__name__}: {error}"[:200])

    def ended(self, socket: Socket, why: str, retry_after_s: float = 0.0) -> None:
        """A socket is gone, or could not be opened."""
        socket.dead = True
        if self.sockets.get(socket.number) is not socket:
            return
        del self.sockets[socket.number]
        if socket.connection is None and not self.lines.stopping:
            wait = f"; the venue wants to be left alone for {retry_after_s:.0f} s" if retry_after_s else ""
            self.say(f"line {socket.number}: cannot connect to {self.stream_url}: {why}{wait}", f"connect {why}"[:64])
        self.perform(self.lines.closed(socket.number, why, time.monotonic_ns(), retry_after_s))

    # --- snapshots and the clock --------------------------------------------------------------------------------------

    def _resync(self, symbol: int) -> None:
        request = self.venue.snapshot_request(symbol)
        if request is not None:
            self._spawn(self._fetch_snapshot(symbol))
            return
        messages = self.venue.resubscribe(symbol)
        up = self.lines.up_lines(symbol)
        now = time.monotonic_ns()
        if not up or not messages:
            self.desk.failed(symbol, now)
            return
        self._turn += 1  # the next time by another line
        self.perform(self.lines.send(up[self._turn % len(up)], messages, now))
        self.desk.delivered(symbol, None, now)

    async def _fetch_snapshot(self, symbol: int) -> None:
        request = self.venue.snapshot_request(symbol)
        assert request is not None
        outcome = await self.rest.get(request)
        mono, now = time.monotonic_ns(), time.time_ns()
        if not isinstance(outcome, Answered):
            self.say(f"no snapshot of {self._names((symbol,))}: {outcome}", f"snapshot {symbol}")
            self.desk.failed(symbol, mono)
            return
        line = next(iter(self.lines.up_lines(symbol)), min(self.lines.lines))
        if self.venue.native:
            frames = [outcome.body]
        else:
            decoder = self.venue.decoder_for(self.lines.lines[line].plan)
            frames = [item.frame for item in decoder.decode(outcome.body, now) if isinstance(item, Plain)]
            if self._raw:
                self.writer.frame(outcome.body, symbol, line, 0, mono, now, RAW)
        put = [self.writer.frame(frame, symbol, line, 0, mono, now) != NOWHERE for frame in frames]
        if not put or not all(put):
            self.desk.failed(symbol, mono)
            return
        found = _LAST_ID.search(outcome.body)
        self.desk.delivered(symbol, int(found[1]) if found else None, mono)

    async def _ask_time(self) -> None:
        while True:
            request = self.venue.time_request()
            outcome = await self.rest.get(request) if request is not None else None
            if isinstance(outcome, Answered):
                try:
                    self.clock.answer(outcome.sent_ns, self.venue.parse_time(outcome.body), outcome.received_ns)
                except VenueError as error:
                    self.say(str(error), "time")
            await asyncio.sleep(self._clock_interval_s)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _names(self, symbols: Sequence[int]) -> str:
        known = {symbol.index: symbol.name for symbol in self.venue.symbols}
        names = [known.get(symbol, str(symbol)) for symbol in symbols]
        return " ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.say(f"a task failed: {type(error).__name__}: {error}", f"task {type(error).__name__}")
