"""Whether a recording is right: sequences, checksums, crossed books, the venue's own best bid/offer, trade ids, clocks."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.recordings.files import WIRE, Found, title
from procs.recordings.folding import Folded
from procs.recordings.output import RecordingsError
from sim.recordings.recording import stage
from sim.recordings.spool import StagedRecording
from trading.records import Kind, Stream
from trading.venues.names import NATIVE, Market
from trading.wire.binance_layout import Aside

MOST_SAMPLES: Final = 4_000_000
"""Clock offsets kept for the median; of longer recordings every k-th."""

WIRE_STAGING: Final = "sim.recordings.venue_staging"
"""Where captures of venues with Python decoders become spools of plain frames."""

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Verdict:
    """What a chain of files holds. Times in ns; `wrong` names what is not as it must be, a clause each."""

    title: str
    files: list[str]
    venue: str
    symbols: list[str]
    frames: int = 0
    first_ns: int = 0
    last_ns: int = 0
    gaps: int = 0
    duplicates: int = 0
    crossed: int = 0
    malformed: int = 0
    unknown: int = 0
    resyncs: int = 0
    snapshots: int = 0
    depth_messages: int = 0
    trades: int = 0
    bbos: int = 0
    trade_gaps: int = 0
    oracle_checked: int = 0
    oracle_equal: int = 0
    beyond_edge: int = 0  # records whose five levels a side may not be all: the market went beyond what the snapshots told
    checksums_checked: int = 0
    checksums_equal: int = 0
    books_valid: int = 0
    clock_offset_min_ns: int | None = None
    clock_offset_median_ns: int | None = None
    events: int = 0
    lost: int = 0
    aside: dict[str, int] = field(default_factory=dict)  # prints that are no trades, by what their venue calls them
    said: list[str] = field(default_factory=list)  # what was recognised: ticks, lots, units; a clause each
    stream_deaths: int = 0  # of depth and best bid/offer
    first_stale_ns: int = 0  # when a book that was right was first not to be used any more; 0: never
    notes: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """Empty for a sound recording."""
        found = [
            f"{value:,} {what}"
            for value, what in (
                (self.gaps, "sequence gaps"),
                (self.crossed, "crossed books"),
                (self.malformed, "malformed frames"),
                (self.unknown, "unknown frames"),
                (self.trade_gaps, "gaps in trade ids"),
                (self.oracle_checked - self.oracle_equal, "times book and best bid/offer differed"),
                (self.checksums_checked - self.checksums_equal, "checksums wrong"),
                (self.lost, "places where frames were declared lost"),
                (self.stream_deaths, "times depth or best bid/offer stopped while the other went on"),
            )
            if value
        ]
        if self.depth_messages and not self.resyncs:
            found.append("the book never became valid (no snapshot fits the depth messages)")
        return found + self.notes


def staged(
    chain: Sequence[Found], out: Path, progress: Progress | None = None, venue: Market | None = None
) -> tuple[StagedRecording, int]:
    """The chain as a spool at `out`, and the frames in it that its venue's decoder did not know. venue: where it shall not be
    guessed.

    Raises sim.recordings.spool.RecordingError, RecordingsError.
    """
    paths = [found.path for found in chain]
    if chain[0].form != WIRE and (chain[0].venue in NATIVE if venue is None else venue.facts.native):
        return stage(paths, out, allow_truncated=True, progress=progress), 0
    try:
        staging = importlib.import_module(WIRE_STAGING)
    except ModuleNotFoundError:
        raise RecordingsError(
            f"{paths[0]}: this version has no decoders for captures of {chain[0].venue}; check Binance recordings only"
        ) from None
    make = staging.stage_any if chain[0].venue == "?" and chain[0].form != WIRE else staging.stage_wire
    named = {} if venue is None else {"venue": venue}
    found: Any = make(paths, out, allow_truncated=True, progress=progress, **named)
    return found, int(getattr(found, "unknown", 0))


def check(chain: Sequence[Found], progress: Progress | None = None, venue: Market | None = None) -> Verdict:
    """Fold the chain and judge it. Raises as `staged` does."""
    with tempfile.TemporaryDirectory(prefix="scalper-check-") as folder:
        path = Path(folder) / "spool"
        recording, unknown = staged(chain, path, progress, venue)
        folded = Folded(path, recording)
        offsets = _Offsets(recording.n_frames)
        stale_ns = 0
        for chunk in folded.chunks():
            offsets.add(chunk.market["ts_recv_ns"], chunk.market["ts_exchange_ns"])
            stale = chunk.market[chunk.market["kind"] == Kind.STALE]
            stale_ns = stale_ns or (int(stale[0]["ts_ns"]) if len(stale) else 0)
    verdict = Verdict(
        title=title(chain),
        files=[str(found.path) for found in chain],
        venue=venue.label if venue is not None else _venue_of(chain[0], recording),
        symbols=[symbol.name for symbol in recording.symbols],
        frames=recording.n_frames - recording.notices,
        first_ns=recording.first_recv_ns,
        last_ns=recording.last_recv_ns,
        events=recording.events,
        lost=recording.lost,
        first_stale_ns=stale_ns,
        notes=[*recording.notes, *(note for found in chain for note in _damage(found.path))],
        said=recording.said(),
        aside=aside_of(folded.state),
        unknown=int(folded.glob[0]["unknown"]) + unknown,
        malformed=int(folded.glob[0]["malformed"]),
        books_valid=int((folded.state["phase"] == 2).sum()),
    )
    for name in (
        "gaps", "duplicates", "crossed", "resyncs", "snapshots", "depth_messages", "trades", "bbos", "trade_gaps",
        "oracle_checked", "oracle_equal", "beyond_edge",
    ):  # fmt: skip
        setattr(verdict, name, folded.count(name))
    verdict.duplicates += folded.count("late")
    verdict.stream_deaths = int(folded.state["deaths"][:, [Stream.DEPTH, Stream.BBO]].sum())
    verdict.checksums_checked = folded.count("checksum_checked")
    verdict.checksums_equal = verdict.checksums_checked - folded.count("checksum_failed")
    verdict.clock_offset_min_ns, verdict.clock_offset_median_ns = offsets.figures()
    return verdict


def aside_of(state: Any) -> dict[str, int]:
    """Prints that were no trades, of all symbols of a FEED_STATE, by what they are: {"INSURANCE_FUND": 3}."""
    counts = state["aside"].sum(axis=0)
    return {kind.name: int(counts[kind]) for kind in Aside if counts[kind]}


def aside_text(counts: Mapping[str, int]) -> str:
    """The same as a clause."""
    return f"{sum(counts.values()):,} prints that are no trades ({', '.join(f'{n:,} {kind}' for kind, n in counts.items())})"


def _venue_of(found: Found, recording: StagedRecording) -> str:
    return recording.symbols[0].market.label if found.venue == "?" else found.venue


def _damage(path: Path) -> list[str]:
    """What the recorder set aside of a file, a sentence each."""
    parts = sorted(path.parent.glob(f"{path.name}.damaged-*"))
    return [f"{path}: {part.stat().st_size:,} bytes were damaged; they lie in {part.name}" for part in parts]


class _Offsets:
    """Receive time less exchange time of the messages that carry one."""

    def __init__(self, frames: int) -> None:
        self._step = max(1, -(-frames // MOST_SAMPLES))
        self._kept: list[Any] = []
        self._least: int | None = None

    def add(self, recv: Any, exchange: Any) -> None:
        """Take a chunk's stamps."""
        said = exchange != 0
        found = recv[said] - exchange[said]
        if found.size:
            least = int(found.min())
            self._least = least if self._least is None else min(self._least, least)
            self._kept.append(found[:: self._step].copy())

    def figures(self) -> tuple[int | None, int | None]:
        """(least, median)."""
        return self._least, int(np.median(np.concatenate(self._kept))) if self._kept else None
