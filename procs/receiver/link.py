"""One venue at work: its sockets, its decoders, its snapshots and its clock, tied to the state machine that decides.

A `Socket` (procs.receiver.line_socket) hears one connection. Market frames of a native venue are copied into the arena as they
are; frames of other venues are decoded into plain frames. All else (replies, notices, odd things) is decided by
procs.receiver.venue_lines, whose actions are performed here.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from procs.memory.arena import LARGEST_SHARE
from procs.pacing import SECOND
from procs.profiles.schema import LiveSettings
from procs.receiver import transport
from procs.receiver.budget import ConnectBudget
from procs.receiver.clock import ClockEstimate
from procs.receiver.frames import NOWHERE, FrameWriter
from procs.receiver.line_socket import LineCounts, Socket
from procs.receiver.line_table import PROVED, SILENT
from procs.receiver.lines import Action, Close, Connect, Down, Gap, Ping, Pong, Send, Up, policy_of
from procs.receiver.rest import Answered, RestClient
from procs.receiver.resync import ANSWER_NS, ResyncDesk
from procs.receiver.say import Say
from procs.receiver.stream_watch import STREAM_OF, StreamWatch
from procs.receiver.venue_lines import VenueLines
from procs.receiver.weight import weight_budget
from procs.recordings.frame_log_format import Came, raw_flags
from trading.books.state import Want
from trading.records import Kind, Stream
from trading.venues.protocol import (
    RESUBSCRIBE,
    STREAMS,
    Closing,
    Ignored,
    Item,
    Missed,
    Plain,
    Refused,
    Subscribed,
    Unknown,
    Venue,
    VenueError,
    code_of,
)
from trading.venues.protocol import Send as Reply
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import W_KIND, W_TS

RAW: Final = int(Kind.RAW)
NOBODY: Final = -1
"""The symbol of a LOST that concerns no book: what is missing is missing from the recording, or is no book's."""
OF_NO_USE: Final = frozenset({Want.CROSSED, Want.MALFORMED, Want.CHECKSUM, Want.TOO_OLD})
"""Reasons of the feed's that a snapshot can have given."""
LOOK_NS: Final = SECOND
"""How often the streams' ages are looked at."""
_EVENT_TIME: Final = re.compile(rb'"E":(\d{13,16})\b')  # Binance's; ms, or us where asked for


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
        venues_dir: Path | None = None,
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
        self.watch: Final = StreamWatch(venue, self.lines.lines, self.policy.silence_ns, rng)
        self._look_ns = 0
        self._untold: set[int] = set()  # symbols of which nothing comes, and their books know
        self.counts: Final = {number: LineCounts() for number in self.lines.lines}
        rest_url = rest_url or venue.rest_url
        budget = weight_budget(rest_url, limits.rest_weight_per_minute, live.rest_weight_share, venues_dir, now)
        self.rest: Final = RestClient(rest_url, budget, rng)
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
        if copies < live.lines:
            say(f"live.lines is {live.lines}, but two lines of {name} cannot be put together: it takes one")

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
            for symbol in self.desk.due(now, self._may_ask):
                self._resync(symbol)
        self._watch_streams(now)

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

    def want(self, symbol: int, reason: int) -> None:
        """The feed wants a snapshot; `reason` is a Want."""
        self.desk.want(symbol, time.monotonic_ns(), again=reason in OF_NO_USE)

    def want_streams(self, symbol: int, mask: int) -> None:
        """The feed has found these streams of the symbol dead (bit i: Stream i)."""
        for code in (code_of(symbol, stream) for stream in Stream if mask >> stream & 1):
            if self.watch.want(code, PROVED, time.monotonic_ns()):
                self._wanted(code, PROVED)

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
                self.dropped(line, socket.line.plan.symbols, now, len(payload))
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
                socket.heard[code_of(item.symbol, STREAM_OF[item.frame[8 * W_KIND]])] = origin
                if self.writer.frame(item.frame, item.symbol, line, socket.counts.messages, origin, now) == NOWHERE:
                    self.dropped(line, (item.symbol,), now, len(item.frame))
                else:
                    if self.desk.waiting and item.frame[8 * W_KIND] == FrameKind.SNAPSHOT:
                        self.desk.delivered(item.symbol)
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
            self._keep(payload, symbol, came, socket.counts.messages, origin, now)

    def _speaks(self, item: Plain, line: int) -> bool:
        """Of two connections without ids in common, whether this one speaks for the symbol: the one with the newest snapshot."""
        if item.frame[8 * W_KIND] == FrameKind.SNAPSHOT or self._speaker.get(item.symbol, line) not in self.sockets:
            self._speaker[item.symbol] = line
        return self._speaker.setdefault(item.symbol, line) == line

    def _keep(self, payload: bytes, symbol: int, came: Came, count: int, origin: int, now: int) -> None:
        """The venue's own bytes, for the recording. Without room for them the recording is told so, and the books live on."""
        if self.writer.frame(payload, symbol, raw_flags(came), count, origin, now, RAW) == NOWHERE:
            self.counts[came.line].lost += 1
            self.writer.lost(came.line, (NOBODY,), now)
            self._say_no_room(came.line, len(payload))

    def dropped(self, line: int, symbols: Sequence[int], now: int, length: int = 0) -> None:
        """There was no room for a frame of these symbols."""
        self.counts[line].lost += 1
        self._tell_lost(line, symbols, now)
        self._say_no_room(line, length)

    def _say_no_room(self, line: int, length: int) -> None:
        if length > self.writer.largest:
            need = -(-length * LARGEST_SHARE // (1 << 20))
            why = f"of {length:,} bytes was dropped, a frame may take a quarter of the arena: set live.arena_mb to {need} or more"
            self.say(f"line {line}: a frame {why}", "too large")
        else:
            self.say(f"line {line}: a frame was dropped, frames ring or arena are full (see live.arena_mb)", "no room")

    def _tell_lost(self, line: int, symbols: Sequence[int], now: int) -> None:
        """Of a line that carries no book nothing is missing from one: only the recording is told."""
        if not self.lines.lines[line].plan.book:
            symbols = (NOBODY,)
        else:
            self.counts[line].gaps += len(symbols)
        self.writer.lost(line, symbols, now)

    def _heard(self, socket: Socket, item: Item, payload: bytes, now: int) -> None:
        mono, line, lines = time.monotonic_ns(), socket.number, self.lines
        if isinstance(item, Subscribed):
            self.perform(lines.subscribed(line, item, mono))
        elif isinstance(item, Refused):
            socket.counts.refused += 1
            self.desk.failed(item.request_id - RESUBSCRIBE, mono)
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
                self.watch.up(action.line, action.symbols, time.monotonic_ns())
                self.writer.line_up(action.line, action.symbols, time.time_ns())
                self.say(f"line {action.line}: {self._names(action.symbols)} up")
            elif isinstance(action, Down):
                self.desk.line_ended(action.line, time.monotonic_ns())
                self.watch.down(action.line, action.symbols)
                self.writer.line_down(action.line, action.symbols, time.time_ns())
                self.say(f"line {action.line}: {self._names(action.symbols)} down ({action.why})")
            elif isinstance(action, Gap):
                self._tell_lost(action.line, action.symbols, time.time_ns())
            elif isinstance(action, Close):
                self._close(action)
            elif isinstance(action, Send | Ping | Pong):
                self._send(action)
            else:
                self.say(f"line {action.line}: {action.text}", f"note {action.line} {action.text}"[:64])

    def _send(self, action: Send | Ping | Pong) -> None:
        socket = self.sockets.get(action.line)
        if socket is None or socket.connection is None:
            return
        if isinstance(action, Pong):
            socket.connection.pong(action.payload)
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

    def _may_ask(self, symbol: int) -> bool:
        """Whether a snapshot of the symbol can be asked for now.

        A line whose requests are used up for the hour is replaced: a new connection has its own, and begins with snapshots.
        """
        if not self.lines.covered(symbol):
            return False
        count = len(self.venue.resubscribe(symbol))
        if count == 0:
            return True
        now = time.monotonic_ns()
        up = self.lines.up_lines(symbol)
        if any(self.lines.lines[number].bears(count, now) for number in up):
            return True
        for number in up:
            if self.lines.lines[number].used_up(count, now):
                self.perform(self.lines.closing(number, "its requests of the hour are used up", now))
        return False

    def _resync(self, symbol: int) -> None:
        messages = self.venue.resubscribe(symbol)
        if not messages:
            self._spawn(self._fetch_snapshot(symbol))
            return
        now, lines = time.monotonic_ns(), self.lines.lines
        able = [number for number in self.lines.up_lines(symbol) if lines[number].bears(len(messages), now)]
        if not able:
            self.desk.failed(symbol, now)
            return
        self._turn += 1  # the next time by another line
        line = able[self._turn % len(able)]
        self.perform(self.lines.send(line, messages, now))
        self.desk.sent(symbol, line, now + lines[line].queued_ns() + ANSWER_NS)

    def _watch_streams(self, now: int) -> None:
        """Look at the streams' ages, and subscribe anew what is due."""
        if now - self._look_ns >= LOOK_NS:
            self._look_ns = now
            for code, why in self.watch.look(now):
                self._wanted(code, why)
        for line, code, give_up in self.watch.due(now):
            symbol, stream = divmod(code, STREAMS)
            messages = self.venue.stream_messages(symbol, Stream(stream))
            if give_up:
                self.perform(self.lines.closing(line, f"{self._stream_name(code)} does not come back", now))
            elif messages and self.lines.lines[line].bears(len(messages), now):
                self.perform(self.lines.send(line, messages, now))
            if stream == Stream.DEPTH and symbol not in self._untold and self._unanswered(symbol):
                self._untold.add(symbol)  # even its snapshot does not come: the book is worth nothing
                self._tell_lost(line, (symbol,), time.time_ns())

    def _unanswered(self, symbol: int) -> bool:
        """Whether nothing has come of a silent symbol that was subscribed anew twice; of books by REST: no snapshot either."""
        return self.watch.unanswered(symbol) and (bool(self.venue.resubscribe(symbol)) or self.desk.is_wanted(symbol))

    def _wanted(self, code: int, why: str) -> None:
        """A stream is to be subscribed anew, which was not wanted before."""
        symbol, stream = divmod(code, STREAMS)
        self.say(f"{self._stream_name(code)} is subscribed anew: {why}", f"dead {code}")
        if stream == Stream.DEPTH and why is SILENT:
            self._untold.discard(symbol)
            if not self.venue.resubscribe(symbol):
                self.desk.want(symbol, time.monotonic_ns(), again=True)  # is the venue's book still ours?

    def _stream_name(self, code: int) -> str:
        symbol, stream = divmod(code, STREAMS)
        return f"{self._names((symbol,))}: {Stream(stream).name.lower()}"

    async def _fetch_snapshot(self, symbol: int) -> None:
        try:
            await self._fetch(symbol)
        except Exception:
            self.desk.failed(symbol, time.monotonic_ns())  # or the wish would be in flight for ever
            raise

    async def _fetch(self, symbol: int) -> None:
        request = self.venue.snapshot_request(symbol)
        if request is None:
            raise VenueError(f"{self.name}: neither sends snapshots in the stream nor gives them by REST")
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
                self._keep(outcome.body, symbol, Came(line, 0, False), 0, mono, now)
        for frame in frames:
            if self.writer.frame(frame, symbol, line, 0, mono, now) == NOWHERE:
                self._say_no_room(line, len(frame))
                frames = []
        if frames:
            self.desk.delivered(symbol)
        else:
            self.desk.failed(symbol, mono)

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
