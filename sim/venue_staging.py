"""Recordings of any venue become a spool: wire files, and our own one-symbol files where the venue is not Binance.

Two passes over the files. The first surveys what symbols and numbers there are (sim.venue_survey) and reads the instrument lists
among the REST answers: from both come ticks and lots. The second decodes with the venue's own decoder, one a connection as
when live, and keeps plain frames; Binance's market frames and REST snapshots stay as they are, for the compiled scanner.

What this is not: it checks no sequence and no checksum. That is the feed's, on replay.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np

from sim import recording
from sim.recording import Progress
from sim.spool import (
    DATA_OFFSET,
    FRAME_HEADER,
    MAX_SYMBOLS,
    RecordingError,
    StagedRecording,
    StagedSymbol,
    header_bytes,
    pack,
)
from sim.venue_survey import Printed, rows
from sim.wire_files import WireItem, WireKind, read_wire_file, read_wire_files
from trading.instruments import NAME_BYTES, Market
from trading.venues.decimals import Inexact, decimals_of, units
from trading.venues.protocol import (
    Decoder,
    Ignored,
    InstrumentRules,
    Item,
    Missed,
    Plain,
    Streams,
    Unknown,
    VenueError,
    VenueSymbol,
)
from trading.venues.registry import VENUES, make_venue

_PACK_FRAMES: Final = 4096
_HEAD_ITEMS: Final = 40
"""Lines looked at to guess a file's venue."""

_BY_NAME: Final = (
    ("BINANCE_FUTURES", Market.BINANCE_USDM),
    ("BINANCE_USDM", Market.BINANCE_USDM),
    ("USDM_", Market.BINANCE_USDM),
    ("BINANCE", Market.BINANCE_SPOT),
    ("SPOT_", Market.BINANCE_SPOT),
    ("BYBIT", Market.BYBIT),
    ("OKX", Market.OKX),
    ("KRAKEN", Market.KRAKEN),
    ("COINBASE", Market.COINBASE),
    ("DERIBIT", Market.DERIBIT),
)
_BY_HOST: Final = (
    ("fapi.binance", Market.BINANCE_USDM),
    ("fstream.binance", Market.BINANCE_USDM),
    ("binance", Market.BINANCE_SPOT),
    ("bybit", Market.BYBIT),
    ("okx", Market.OKX),
    ("okex", Market.OKX),
    ("kraken", Market.KRAKEN),
    ("coinbase", Market.COINBASE),
    ("deribit", Market.DERIBIT),
)
_EVENTS: Final = frozenset({"depthUpdate", "trade", "aggTrade", "bookTicker", "markPriceUpdate"})


def venue_of(path: Path) -> Market:
    """The venue of a recording: by the addresses in its first lines, else by what its frames look like, else by its name.

    Raises RecordingError where none of the three tells.
    """
    seen: Counter[Market] = Counter()
    for count, item in enumerate(read_wire_file(path, allow_truncated=True)):
        if count == _HEAD_ITEMS:
            break
        host = urlsplit(item.connection).hostname or ""
        for part, market in _BY_HOST:
            if part in host:
                return market
        if item.kind is WireKind.FRAME:
            seen.update(market for market in VENUES if market is not Market.BINANCE_USDM and rows(market, item.body))
            if b'"pu":' in item.body:
                seen[Market.BINANCE_USDM] += 1000
    if seen:
        return max(seen, key=lambda market: seen[market])
    for name in [path.name.upper(), *(part.upper() for part in reversed(path.parts[:-1]))]:
        for part, market in _BY_NAME:
            if name.startswith(part):
                return market
    raise RecordingError(
        f"{path}: cannot tell which venue this is of; name it ({', '.join(market.name.lower() for market in VENUES)})"
    )


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """A frame for the feed: a plain frame, or Binance's own bytes. `origin`: file and line that it came from."""

    recv_ns: int
    symbol: int
    frame: bytes
    origin: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """All of some recordings. `counts`: items by kind ("Plain", "Ignored heartbeat", ...); `unknown`, `missed`: a sentence
    each."""

    market: Market
    symbols: tuple[VenueSymbol, ...]
    steps: tuple[str, ...]
    counts: Counter[str]
    frames: tuple[FoundFrame, ...]
    unknown: tuple[str, ...]
    missed: tuple[str, ...]


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
            names = ", ".join(sorted(it.name.lower() for it in markets))
            raise RecordingError(f"{paths[0]}: the files are of several venues ({names}); replay those of one at a time")
        self.market = markets.pop()
        if self.market not in VENUES:
            raise RecordingError(f"{paths[0]}: {self.market.name.lower()} has no decoder that reads recordings")
        self._paths = [Path(path) for path in paths]
        self._allow_truncated = allow_truncated
        printed, listed = self._survey()
        if not printed:
            raise RecordingError(f"{paths[0]}: holds no market frame of {self.market.name.lower()}; name another venue or file")
        if len(printed) > MAX_SYMBOLS:
            raise RecordingError(f"{paths[0]}: {len(printed)} symbols are more than the {MAX_SYMBOLS} that a spool holds")
        self.symbols: tuple[VenueSymbol, ...] = ()
        self.steps: tuple[str, ...] = ()
        for name, seen in printed.items():
            tick, lot, step = seen.sizes(self.market, listed.get(name))
            self.symbols += (VenueSymbol(len(self.symbols), _plain_name(name), name, tick, lot),)
            self.steps += (step,)
        if len({it.name for it in self.symbols}) < len(self.symbols):
            raise RecordingError(f"{paths[0]}: two symbols have the same letters and digits; replay them one at a time")
        self._index = {it.venue_name: it.index for it in self.symbols}
        try:
            self.venue = make_venue(self.market, self.symbols, Streams())
        except VenueError as error:
            raise RecordingError(f"{paths[0]}: {error}") from None

    def _survey(self) -> tuple[dict[str, Printed], dict[str, InstrumentRules]]:
        printed: dict[str, Printed] = {}
        listed: dict[str, InstrumentRules] = {}
        reader = VENUES[self.market]((), Streams())
        for path in self._paths:
            for item in read_wire_file(path, allow_truncated=self._allow_truncated):
                if item.kind is WireKind.FRAME:
                    for name, price, qty in rows(self.market, item.body):
                        printed.setdefault(name, Printed()).add(price, qty)
                elif item.kind is WireKind.ANSWER and not _is_depth(item):
                    try:
                        rules = reader.parse_instruments(item.body)
                    except VenueError:
                        continue  # another answer than the list
                    for name, it in rules.items():
                        listed[name.rpartition(":")[2] if self.market is Market.BYBIT else name] = it
        for path in self._paths:  # snapshots may print finer numbers than the frames
            for item in read_wire_file(path, allow_truncated=self._allow_truncated) if self._native else ():
                name = _depth_symbol(item)
                if item.kind is WireKind.ANSWER and name in printed:
                    for _, price, qty in rows(self.market, _as_diff(item.body, name)):
                        printed[name].add(price, qty)
        return printed, listed

    @property
    def _native(self) -> bool:
        return VENUES[self.market].native

    def decoded(self) -> Iterator[tuple[WireItem, Sequence[Item], FoundFrame | None]]:
        """(line, what the decoder found, a raw frame of Binance's) for every frame and snapshot, in the order of time."""
        decoders: dict[tuple[Path, str], Decoder] = {}
        for item in read_wire_files(self._paths, allow_truncated=self._allow_truncated):
            key = item.path, item.connection
            if item.kind is WireKind.CONNECT:
                decoders[key] = self.venue.decoder()
            elif item.kind is WireKind.FRAME:
                symbol = self._native_symbol(item.body) if self._native else -1
                if symbol >= 0:
                    yield item, (), _found(item, symbol, item.body)
                else:
                    if key not in decoders:
                        decoders[key] = self.venue.decoder()
                    yield item, decoders[key].decode(item.body, item.recv_ns), None
            elif item.kind is WireKind.ANSWER and self._native and _depth_symbol(item) in self._index:
                yield item, (), _found(item, self._index[_depth_symbol(item)], item.body)

    def _native_symbol(self, raw: bytes) -> int:
        """Index of the symbol of a frame that the compiled scanner reads; -1 for others. REST snapshots of our own files name
        none."""
        try:
            frame = msgspec.json.decode(raw, type=_BinanceFrame)
        except (msgspec.MsgspecError, RecursionError):
            return -1
        if raw.startswith(b'{"lastUpdateId"') and len(self.symbols) == 1:
            return 0
        event, name = frame.data.e or frame.e, frame.data.s or frame.s
        partial = re.search(r"@depth\d", frame.stream)
        if (event in _EVENTS and not partial) or (not event and frame.stream.endswith("@bookTicker")):
            return self._index.get(name, -1)
        return -1


def decode_wire_files(paths: Sequence[Path], venue: Market | None = None, *, allow_truncated: bool = False) -> Decoded:
    """Decode recordings of one venue (`venue`: where it shall not be guessed). Raises RecordingError."""
    source = VenueRecording(paths, venue, allow_truncated=allow_truncated)
    tally = _Tally()
    frames = tuple(found for entry in source.decoded() for found in tally.frames(*entry))
    return Decoded(
        source.market, source.symbols, source.steps, tally.counts, frames, tuple(tally.unknown), tuple(tally.missed)
    )  # fmt: skip


@dataclass(slots=True)
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def frames(self, item: WireItem, found: Sequence[Item], raw: FoundFrame | None) -> Iterator[FoundFrame]:
        """Count what a line held, and yield its frames for the feed."""
        if raw is not None:
            self.counts["Raw"] += 1
            yield raw
        for it in found:
            self.counts[f"Ignored {it.what}" if isinstance(it, Ignored) else type(it).__name__] += 1
            if isinstance(it, Plain):
                yield _found(item, it.symbol, it.frame)
            elif isinstance(it, Unknown):
                self.unknown.append(f"{item.path}:{item.line}: {it.why}")
            elif isinstance(it, Missed):
                self.missed.append(f"{item.path}:{item.line}: {it.why}")


def stage_wire(
    paths: Sequence[Path],
    out: Path,
    venue: Market | None = None,
    *,
    allow_truncated: bool = False,
    progress: Progress | None = None,
) -> StagedRecording:
    """Write the recordings of one venue as a spool at `out` and describe it. Raises RecordingError; `out` is then as it was.

    `progress` is told the bytes of the files twice: at the begin and when all is done.
    """
    source = VenueRecording(paths, venue, allow_truncated=allow_truncated)
    total = sum(path.stat().st_size for path in map(Path, paths))
    if progress is not None:
        progress(0, total)
    tally = _Tally()
    shares = [_Share() for _ in source.symbols]
    partial: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            partial = Path(file.name)
            file.write(bytes(DATA_OFFSET))
            n_bytes = 0
            batch: list[FoundFrame] = []
            for entry in source.decoded():
                for found in tally.frames(*entry):
                    shares[found.symbol].add(found)
                    batch.append(found)
                if len(batch) >= _PACK_FRAMES:
                    n_bytes += file.write(_packed(batch))
                    batch.clear()
            if batch:
                n_bytes += file.write(_packed(batch))
            if not n_bytes:
                raise RecordingError(f"{paths[0]}: nothing in it is for the feed")
            staged = StagedRecording(
                path=out,
                symbols=tuple(_staged(source, index, share) for index, share in enumerate(shares)),
                n_frames=sum(share.n_frames for share in shares),
                n_bytes=n_bytes,
                first_recv_ns=min(share.first_ns for share in shares if share.n_frames),
                last_recv_ns=max(share.last_ns for share in shares),
                clamped=0,
                notes=_notes(tally),
            )
            file.seek(0)
            file.write(header_bytes(staged))
        os.replace(partial, out)
        partial = None
    except OSError as error:
        raise RecordingError(
            f"{out}: {error.strerror}; the spool needs a folder that can be written, with room for it"
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
    if progress is not None:
        progress(total, total)
    return staged


def stage_any(
    paths: Sequence[Path],
    out: Path,
    venue: Market | None = None,
    *,
    allow_truncated: bool = False,
    progress: Progress | None = None,
) -> StagedRecording:
    """`stage_wire`, but for our own recordings of Binance `sim.recording.stage`, which needs no second pass. Raises
    RecordingError."""
    binance = (Market.BINANCE_SPOT, Market.BINANCE_USDM)
    if all(_may_be_ours(Path(path)) for path in paths):
        # whatever is wrong with such a file is said as of a recording of our own
        if venue in binance or venue is None and all(_venue_or_none(Path(path)) in (*binance, None) for path in paths):
            return recording.stage(paths, out, allow_truncated=allow_truncated, progress=progress)
    return stage_wire(paths, out, venue, allow_truncated=allow_truncated, progress=progress)


def _may_be_ours(path: Path) -> bool:
    """Whether the file is no wire capture by its first item: its lines are, or should be, `<recv_ns> {frame}`."""
    try:
        first = next(iter(read_wire_file(path, allow_truncated=True)), None)
    except RecordingError:
        return True
    return first is None or (first.kind is WireKind.FRAME and first.connection == str(path))


def _venue_or_none(path: Path) -> Market | None:
    try:
        return venue_of(path)
    except RecordingError:
        return None


@dataclass(slots=True)
class _Share:
    n_frames: int = 0
    n_bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def add(self, found: FoundFrame) -> None:
        if self.n_frames == 0:
            self.first_ns = found.recv_ns
        self.n_frames += 1
        self.n_bytes += len(found.frame)
        self.last_ns = found.recv_ns


def _staged(source: VenueRecording, index: int, share: _Share) -> StagedSymbol:
    symbol = source.symbols[index]
    price_decimals, qty_decimals = decimals_of(symbol.tick_size), decimals_of(symbol.lot_size)
    try:
        step = min(decimals_of(source.steps[index]), qty_decimals)
    except Inexact:
        step = qty_decimals
    return StagedSymbol(
        name=symbol.name,
        market=source.market,
        n_frames=share.n_frames,
        n_bytes=share.n_bytes,
        first_recv_ns=share.first_ns,
        last_recv_ns=share.last_ns,
        price_decimals=price_decimals,
        tick_units=units(symbol.tick_size, price_decimals),
        qty_decimals=qty_decimals,
        step_decimals=step,
    )


def _notes(tally: _Tally) -> tuple[str, ...]:
    notes = [f"{len(tally.unknown)} frames were not understood, the first at {tally.unknown[0]}"] if tally.unknown else []
    return (*notes, *([f"{len(tally.missed)} messages are missing, the first at {tally.missed[0]}"] if tally.missed else []))


def _packed(batch: Sequence[FoundFrame]) -> bytes:
    text = np.frombuffer(b"".join(it.frame for it in batch), np.uint8)
    recv = np.array([it.recv_ns for it in batch], np.int64)
    length = np.array([len(it.frame) for it in batch], np.int64)
    start = np.cumsum(length) - length
    symbol = np.array([it.symbol for it in batch], np.int64)
    out = np.empty(int(((length + 7) & -8).sum()) + FRAME_HEADER * len(batch), np.uint8)
    pack(text, recv, start, length, symbol, np.arange(len(batch), dtype=np.int64), out)
    return out.tobytes()


def _found(item: WireItem, symbol: int, frame: bytes) -> FoundFrame:
    return FoundFrame(item.recv_ns, symbol, frame, f"{item.path}:{item.line}")


def _plain_name(venue_name: str) -> str:
    name = "".join(c for c in venue_name.upper() if c.isascii() and c.isalnum())
    if not 0 < len(name) <= NAME_BYTES:
        raise RecordingError(f"symbol {venue_name!r} has no name of 1 to {NAME_BYTES} letters and digits")
    return name


def _is_depth(item: WireItem) -> bool:
    return urlsplit(item.connection).path.endswith("/depth")


def _depth_symbol(item: WireItem) -> str:
    return parse_qs(urlsplit(item.connection).query).get("symbol", [""])[0] if _is_depth(item) else ""


def _as_diff(body: bytes, name: str) -> bytes:
    """A REST snapshot in the form of a diff, for the survey alone."""
    return body.replace(b'"bids"', b'"b"', 1).replace(b'"asks"', b'"a"', 1).replace(b"{", b'{"s":"' + name.encode() + b'",', 1)
