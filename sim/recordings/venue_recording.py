"""Recordings of one venue, read as its receiver would have read them: its symbols first, then every line in the order of time.

A survey tells what symbols and numbers there are (sim.recordings.venue_survey) and reads the instrument lists among the REST
answers: from both come ticks and lots. Then each frame goes to the venue's own decoder, one a connection as when live; Binance's
market frames and REST snapshots stay as they are, for the compiled scanner.

Our own files say what the symbol is, by which connection each frame came, and what befell its lines: they are decoded as the
receiver decoded them, connection by connection through all files of a run, and lines and losses come out as notices.

What this is not: it checks no sequence and no checksum. That is the feed's, on replay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from sim.recordings.spool import (
    RecordingError,
)
from sim.recordings.venue_survey import Printed, rows, rows_and_kind, rows_of_snapshot, venues_of
from sim.recordings.wire_files import Event, WireItem, WireKind, event_of, read_wire_file, read_wire_files
from trading.instruments import Market
from trading.ranges import MAX_SYMBOLS, RangeError
from trading.records import Kind
from trading.stamps import units_text
from trading.symbol_names import SymbolNameError, symbol_name
from trading.venues.names import FILE_MARKS, HOST_MARKS, VENUES
from trading.venues.protocol import (
    Decoder,
    Ignored,
    InstrumentRules,
    Item,
    Missed,
    Plain,
    Streams,
    Venue,
    VenueError,
    VenueSymbol,
)
from trading.venues.registry import make_venue

_PACK_FRAMES: Final = 4096
_HEAD_ITEMS: Final = 40
"""Lines looked at to tell a file's venue ..."""
_MOST_ITEMS: Final = 4000
"""... and where those tell nothing."""
_UNTOLD: Final = Event("on")
"""A recording from before the recorder told the connections."""
_EVENTS: Final = frozenset({"depthUpdate", "trade", "aggTrade", "bookTicker", "markPriceUpdate"})


def venue_of(path: Path) -> Market:
    """The venue of a recording: by what its frames have, else by the addresses in its lines, else by its name.

    Raises RecordingError where none of the three tells.
    """
    seen: Counter[Market] = Counter()
    hosts: list[Market] = []
    first = b""
    for count, item in enumerate(read_wire_file(path, allow_truncated=True)):
        if count >= (_HEAD_ITEMS if seen else _MOST_ITEMS):
            break
        host = f".{urlsplit(item.connection).hostname or ''}"
        hosts += [market for part, market in HOST_MARKS if f".{part}" in host][:1]
        if item.kind is WireKind.EVENT and (head := event_of(item)).scalper == "file":
            return _market_of(item, head)
        if item.kind is WireKind.FRAME:
            first = first or item.body
            seen.update(venues_of(item.body))
    if seen:
        most = max(seen.values())  # of venues whose frames look alike the one that the address tells, else the first
        return next(market for market in [*hosts, *seen] if seen[market] == most)
    if hosts:
        return hosts[0]
    for name in [path.name.upper(), *(part.upper() for part in reversed(path.parts[:-1]))]:
        for part, market in FILE_MARKS:
            if name.startswith(part) and (part.endswith("_") or not re.match("_?[A-Z]", name[len(part) :])):
                return market
    shown = f", the first {first[:80].decode('latin-1')!r}" if first else ""
    raise RecordingError(
        f"{path}: its frames are of no venue that is known here{shown}; known are {', '.join(it.label for it in VENUES)}: "
        "if it is one of them, try `scalperctl data check --venue NAME`"
    )


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """A frame for the feed: a plain frame, or Binance's own bytes; or a `notice` (a Kind) of what befell the symbol's `line`.
    `origin`: file and line that it came from."""

    recv_ns: int
    symbol: int
    frame: bytes
    origin: str
    notice: int = 0
    line: int = 0


class _BinanceBody(msgspec.Struct, frozen=True):
    e: str = ""
    s: str = ""


class _BinanceFrame(msgspec.Struct, frozen=True):
    stream: str = ""
    data: _BinanceBody = _BinanceBody()
    e: str = ""
    s: str = ""


class VenueRecording:
    """Recordings of one venue after the survey: their symbols, and their frames decoded one after another."""

    def __init__(self, paths: Sequence[Path], market: Market | None = None, *, allow_truncated: bool = False) -> None:
        if not paths:
            raise RecordingError("no recording given; name at least one file")
        markets = {market or venue_of(path) for path in paths}
        if len(markets) > 1:
            names = ", ".join(sorted(it.label for it in markets))
            raise RecordingError(f"{paths[0]}: the files are of several venues ({names}); replay those of one at a time")
        self.market = markets.pop()
        if self.market not in VENUES:
            raise RecordingError(f"{paths[0]}: {self.market.label} has no decoder that reads recordings")
        self._paths = [Path(path) for path in paths]
        self._allow_truncated = allow_truncated
        self.cut: list[str] = []
        self._heads: dict[Path, Event] = {}
        self._units: Counter[str] = Counter()
        printed, listed, beside = self._survey()
        named = {head.s: head for head in self._heads.values()}
        if not printed and not named:
            raise RecordingError(f"{paths[0]}: holds no market frame of {self.market.label}; name another venue or file")
        if len(printed) + len(named) > MAX_SYMBOLS:
            raise RecordingError(
                f"{paths[0]}: {len(printed) + len(named)} symbols are more than the {MAX_SYMBOLS} that a spool holds"
            )
        self.symbols: tuple[VenueSymbol, ...] = ()
        self.steps: tuple[str, ...] = ()
        self.contracts: tuple[tuple[str, str], ...] = ()  # contract and its size, "" where the recording does not say
        self.said: tuple[str, ...] = ()
        for head in named.values():
            self.symbols += (VenueSymbol(len(self.symbols), head.s, head.venue_name, head.tick, head.lot),)
            self.steps += (head.step,)
            self.contracts += ((head.contract, head.contract_size),)
            self.said += (f"tick {head.tick} and lot {head.lot} by the recorder's word",)
        for name, seen in printed.items():
            try:
                tick, lot, step = seen.sizes(self.market, listed.get(name))
            except RangeError as error:
                raise RecordingError(f"{paths[0]}: {name}: {error}") from None
            self.symbols += (VenueSymbol(len(self.symbols), _plain_name(name), name, tick, lot),)
            self.steps += (step,)
            rule = listed.get(name)
            self.contracts += ((rule.contract, rule.contract_size) if rule is not None else ("", ""),)
            self.said += (seen.said,)
        if len({it.name for it in self.symbols}) < len(self.symbols):
            raise RecordingError(f"{paths[0]}: two symbols differ by the signs in their names alone; replay them one at a time")
        self._index = {it.venue_name: it.index for it in self.symbols}
        self._by_name = {it.name: it.index for it in self.symbols}
        known = {it.venue_name for it in self.symbols}
        all_symbols = list(self.symbols)
        for name in [name for name in beside if name not in known]:
            try:
                tick, lot, _ = beside[name].sizes(self.market, None)
            except RangeError:  # told of beside those that are asked for: it has no book here
                continue
            all_symbols.append(VenueSymbol(len(all_symbols), _plain_name(name), name, tick, lot))
        levels = {head.levels for head in self._heads.values()} | {Streams().snapshot_levels}
        try:
            self._venues = {most: make_venue(self.market, all_symbols, Streams(snapshot_levels=most)) for most in levels}
        except VenueError as error:
            raise RecordingError(f"{paths[0]}: {error}") from None
        self.venue = self._venues[Streams().snapshot_levels]

    def _survey(self) -> tuple[dict[str, Printed], dict[str, InstrumentRules], dict[str, Printed]]:
        """What was printed by symbol, the rules that were listed, and what was printed of symbols beside a file's own."""
        printed: dict[str, Printed] = {}
        listed: dict[str, InstrumentRules] = {}
        beside: dict[str, Printed] = {}
        reader = make_venue(self.market, (), Streams())
        for path in self._paths:
            for item in read_wire_file(path, allow_truncated=self._allow_truncated, cut=self.cut):
                if item.kind is WireKind.EVENT:
                    if (event := event_of(item)).scalper == "file":
                        self._take_head(item, event)
                elif item.kind is WireKind.FRAME and path in self._heads:
                    if self.market.facts.many_in_one:
                        own = self._heads[path].venue_name
                        for name, price, qty in rows(self.market, item.body):
                            if name != own:
                                beside.setdefault(name, Printed()).add(price, qty)
                elif item.kind is WireKind.FRAME:
                    found, is_print = rows_and_kind(self.market, item.body)
                    for name, price, qty in found:
                        printed.setdefault(name, Printed()).add(price, qty, is_print)
                    self._units.update([item.unit] if item.unit else ())
                elif item.kind is WireKind.ANSWER and not _is_depth(item):
                    try:
                        rules = reader.parse_instruments(item.body)
                    except VenueError:
                        continue  # another answer than the list
                    for name, it in rules.items():
                        listed[reader.printed_name(name)] = it
        for path in self._paths:  # snapshots may print finer numbers than the frames
            for item in read_wire_file(path, allow_truncated=self._allow_truncated) if self.market.facts.native else ():
                name = _depth_symbol(item)
                if item.kind is WireKind.ANSWER and name in printed:
                    for _, price, qty in rows_of_snapshot(self.market, _as_diff(item.body, name)):
                        printed[name].add(price, qty)
        return printed, listed, beside

    @property
    def stamps(self) -> str:
        """The unit of the receive times, where it was told by magnitude."""
        return units_text(self._units)

    def _take_head(self, item: WireItem, head: Event) -> None:
        """Note what a file of ours is of; all files of a symbol must agree."""
        if _market_of(item, head) is not self.market or not (head.s and head.venue_name and head.tick and head.lot and head.step):
            raise RecordingError(
                f"{item.path}:{item.line}: the line that says what the file is of is none of {self.market.label}; "
                "replay files of one venue at a time, as they were recorded"
            )
        for other in self._heads.values():
            if other.s == head.s and (other.venue_name, other.tick, other.lot) != (head.venue_name, head.tick, head.lot):
                raise RecordingError(
                    f"{item.path}:{item.line}: {head.s} is {head.venue_name} with tick {head.tick} and lot {head.lot} here, and "
                    f"{other.venue_name} with {other.tick} and {other.lot} in another file; replay them apart"
                )
        self._heads[item.path] = head

    def decoded(self) -> Iterator[tuple[WireItem, Sequence[Item], FoundFrame | None]]:
        """(line, what the decoder found, a raw frame of Binance's or a notice) for every frame, snapshot, and word of the
        recorder's, in the order of time."""
        decoders: dict[tuple[Path, str], Decoder] = {}
        own = _Excerpts(self)
        for item in read_wire_files(self._paths, allow_truncated=self._allow_truncated):
            key = item.path, item.connection
            if item.kind is WireKind.CONNECT:
                decoders[key] = self.venue.decoder()
            elif item.kind is WireKind.EVENT:
                yield item, (), own.on_event(item)
            elif item.kind is WireKind.FRAME:
                symbol = self._native_symbol(item.body) if self.market.facts.native else -1
                if symbol >= 0:
                    yield item, (), found_frame(item, symbol, item.body)
                elif item.own:
                    yield item, own.decode(item), None
                else:
                    if key not in decoders:
                        decoders[key] = self.venue.decoder()
                    yield item, decoders[key].decode(item.body, item.recv_ns), None
            elif item.kind is WireKind.ANSWER and self.market.facts.native and _depth_symbol(item) in self._index:
                yield item, (), found_frame(item, self._index[_depth_symbol(item)], item.body)

    def symbol_of(self, path: Path, name: str = "") -> int:
        """Index of the symbol that a file of ours is of, or that is so named; -1 where neither tells."""
        head = self._heads.get(path)
        found = self._by_name.get(head.s if head is not None else name, -1)
        return 0 if found < 0 and name and len(self.symbols) == 1 else found

    def decoder_of(self, path: Path) -> Decoder:
        """A decoder for a connection of which this file has one symbol's share."""
        head = self._heads.get(path)
        venue: Venue = self.venue if head is None else self._venues[head.levels]
        plans = [] if head is None else venue.connections()
        plan = next((plan for plan in plans if self._by_name[head.s] in plan.symbols), None) if head is not None else None
        decoder = venue.decoder() if plan is None else venue.decoder_for(plan)
        decoder.excerpt = True
        return decoder

    def _native_symbol(self, raw: bytes) -> int:
        """Index of the symbol of a frame that the compiled scanner reads; -1 for others. REST snapshots of our own files name
        none."""
        try:
            frame = msgspec.json.decode(raw, type=_BinanceFrame)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return -1
        if raw.startswith(b'{"lastUpdateId"') and len(self.symbols) == 1:
            return 0
        event, name = frame.data.e or frame.e, frame.data.s or frame.s
        partial = re.search(r"@depth\d", frame.stream)
        if (event in _EVENTS and not partial) or (not event and frame.stream.endswith("@bookTicker")):
            return self._index.get(name, -1)
        return -1


class _Excerpts:
    """The decoders of our own files: one for each connection and symbol, through all files of the symbol."""

    def __init__(self, recording: VenueRecording) -> None:
        self._recording: Final = recording
        self._decoders: dict[tuple[str, int, int], Decoder] = {}
        self._came: dict[str, Event] = {}  # by which connection the frames of a place come

    def _place(self, path: Path) -> str:
        """Files of one place go on with one another."""
        symbol = self._recording.symbol_of(path)
        return str(path.parent) if symbol < 0 else str(symbol)

    def on_event(self, item: WireItem) -> FoundFrame | None:
        """Note what it means for the frames to come; a notice for the feed, if it is one."""
        event, place = event_of(item), self._place(item.path)
        if event.scalper == "on":
            self._came[place] = event
        symbol = self._recording.symbol_of(item.path, event.s)
        if event.scalper not in ("line", "lost") or symbol < 0:
            return None
        if event.scalper == "lost":
            return found_frame(item, symbol, b"", Kind.LOST, max(event.line, 0))
        if not event.up:  # whatever comes by this line later is of another connection
            for key in [key for key in self._decoders if key[0] == place and key[1] in (event.line, -1)]:
                del self._decoders[key]
        return found_frame(item, symbol, b"", Kind.LINE_UP if event.up else Kind.LINE_DOWN, max(event.line, 0))

    def decode(self, item: WireItem) -> Sequence[Item]:
        """What the feed was given of this frame."""
        place = self._place(item.path)
        came = self._came.get(place, _UNTOLD)
        key = place, came.line, came.connection
        if key not in self._decoders:
            self._decoders[key] = self._recording.decoder_of(item.path)
        found = self._decoders[key].decode(item.body, item.recv_ns)
        symbol = self._recording.symbol_of(item.path)
        if came.aside:
            return (Ignored("of a connection that did not speak"),)
        # the receiver's losses are told by lines of their own; other symbols' shares are in their own files
        foreign = [it for it in found if isinstance(it, Plain) and symbol >= 0 and it.symbol != symbol]
        return [it for it in found if not isinstance(it, Missed) and it not in foreign]


def found_frame(item: WireItem, symbol: int, frame: bytes, notice: int = 0, line: int = 0) -> FoundFrame:
    """What a line holds for the feed."""
    return FoundFrame(item.recv_ns, symbol, frame, f"{item.path}:{item.line}", int(notice), line)


def _market_of(item: WireItem, head: Event) -> Market:
    try:
        return Market.of(head.market)
    except KeyError:
        raise RecordingError(
            f"{item.path}:{item.line}: no venue {head.market!r} is known; replay it with the version that made it"
        ) from None


def _plain_name(venue_name: str) -> str:
    try:
        return symbol_name(venue_name)
    except SymbolNameError as error:
        raise RecordingError(f"{error}; it cannot be replayed") from None


def _is_depth(item: WireItem) -> bool:
    return urlsplit(item.connection).path.endswith("/depth")


def _depth_symbol(item: WireItem) -> str:
    return parse_qs(urlsplit(item.connection).query).get("symbol", [""])[0] if _is_depth(item) else ""


def _as_diff(body: bytes, name: str) -> bytes:
    """A REST snapshot in the form of a diff, for the survey alone."""
    return body.replace(b'"bids"', b'"b"', 1).replace(b'"asks"', b'"a"', 1).replace(b"{", b'{"s":"' + name.encode() + b'",', 1)
