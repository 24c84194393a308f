"""Recordings of any venue become a spool: wire files, and our own one-symbol files where the venue is not Binance.

sim.recordings.venue_recording decodes them; what it finds is kept as plain frames, Binance's own bytes, and notices of the lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from sim.recordings import recording
from sim.recordings.recording import Progress
from sim.recordings.spool import (
    FRAME_HEADER,
    RecordingError,
    StagedRecording,
    StagedSymbol,
    notice_of,
    pack,
)
from sim.recordings.spool_file import describe, spool_file
from sim.recordings.venue_recording import FoundFrame, VenueRecording, found_frame, venue_of
from sim.recordings.wire_files import WireItem, WireKind, event_of, read_wire_file
from trading.instruments import Market
from trading.venues.decimals import Inexact, decimals_of, units
from trading.venues.protocol import Ignored, Item, Missed, Plain, Unknown, VenueSymbol

__all__ = ["Decoded", "FoundFrame", "VenueRecording", "decode_wire_files", "stage_any", "stage_wire", "venue_of"]

_PACK_FRAMES: Final = 4096
MOST_TOLD: Final = 10_000
"""Sentences held of frames that were not understood, and of messages that are missing; all are counted."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """All of some recordings. `counts`: items by kind ("Plain", "Ignored heartbeat", ...); `unknown`, `missed`: sentences,
    MOST_TOLD at most."""

    market: Market
    symbols: tuple[VenueSymbol, ...]
    steps: tuple[str, ...]
    counts: Counter[str]
    frames: tuple[FoundFrame, ...]
    unknown: tuple[str, ...]
    missed: tuple[str, ...]


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
    events: int = 0
    lost: int = 0

    def frames(self, item: WireItem, found: Sequence[Item], raw: FoundFrame | None) -> Iterator[FoundFrame]:
        """Count what a line held, and yield its frames for the feed."""
        if item.kind is WireKind.EVENT:
            self.events += 1
            self.lost += event_of(item).scalper == "lost"
        if raw is not None:
            self.counts["Notice" if raw.notice else "Raw"] += 1
            yield raw
        for it in found:
            self.counts[f"Ignored {it.what}" if isinstance(it, Ignored) else type(it).__name__] += 1
            if isinstance(it, Plain):
                yield found_frame(item, it.symbol, it.frame)
            elif isinstance(it, Unknown | Missed):
                told = self.unknown if isinstance(it, Unknown) else self.missed
                if len(told) < MOST_TOLD:
                    told.append(f"{item.path}:{item.line}: {it.why}")


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
    with spool_file(out) as file:
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
            notes=(*_notes(tally), *source.cut),
            events=tally.events,
            lost=tally.lost,
            notices=tally.counts["Notice"],
            stamps=source.stamps,
        )
        describe(file, staged)
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
    """`stage_wire`, but for our own recordings of Binance `sim.recordings.recording.stage`, which needs no second pass. Raises
    RecordingError."""
    if all(_may_be_ours(Path(path)) for path in paths):
        # whatever is wrong with such a file is said as of a recording of our own
        found = [venue] if venue is not None else [_venue_or_none(Path(path)) for path in paths]
        if all(market is None or market.facts.native for market in found):
            try:
                return recording.stage(paths, out, allow_truncated=allow_truncated, progress=progress)
            except recording.NoMarketFrame:
                if venue is None:
                    for path in paths:
                        venue_of(Path(path))  # says so where it is of no venue that is known here
                raise
    return stage_wire(paths, out, venue, allow_truncated=allow_truncated, progress=progress)


def _may_be_ours(path: Path) -> bool:
    """Whether the file is no wire capture by its first item: its lines are, or should be, `<recv_ns> {frame}`."""
    try:
        first = next(iter(read_wire_file(path, allow_truncated=True)), None)
    except RecordingError:
        return True
    return first is None or first.own


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
        contract=source.contracts[index][0],
        contract_size=source.contracts[index][1],
        said=source.said[index],
    )


def _notes(tally: _Tally) -> tuple[str, ...]:
    unknown, missed = tally.counts["Unknown"], tally.counts["Missed"]
    notes = [f"{unknown} frames were not understood, the first at {tally.unknown[0]}"] if unknown else []
    return (*notes, *([f"{missed} messages are missing, the first at {tally.missed[0]}"] if missed else []))


def _packed(batch: Sequence[FoundFrame]) -> bytes:
    text = np.frombuffer(b"".join(it.frame for it in batch), np.uint8)
    recv = np.array([it.recv_ns for it in batch], np.int64)
    length = np.array([len(it.frame) for it in batch], np.int64)
    start = np.cumsum(length) - length
    symbol = np.array([notice_of(it.symbol, it.notice, it.line) for it in batch], np.int64)
    out = np.empty(int(((length + 7) & -8).sum()) + FRAME_HEADER * len(batch), np.uint8)
    pack(text, recv, start, length, symbol, np.arange(len(batch), dtype=np.int64), out)
    return out.tobytes()
