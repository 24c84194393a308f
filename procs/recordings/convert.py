"""From one form into another: which reader, which writer, and a result that appears whole or not at all.

    recording, wire capture  ->  parquet | npz | csv          what a row of READERS takes  ->  recording
    journals                 ->  parquet | csv

What was made a recording is checked as `data check` does before it appears under its name.
"""

from __future__ import annotations

import gzip
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.journal.file import JournalReader
from procs.journal.format import SUFFIX as JOURNAL
from procs.journal.names import Names, time_text
from procs.recordings import files, hftbacktest, instruments, tardis
from procs.recordings.checking import check, staged
from procs.recordings.columns import CsvWriter
from procs.recordings.folding import Folded
from procs.recordings.output import RecordingsError, names_in, new_file, new_files
from procs.recordings.parquet import ParquetWriter, arrow
from procs.recordings.wire_text import FrameWriter, step_of
from procs.recordings.words import plain_name
from sim.recordings.spool import RecordingError
from trading.instruments import Instrument, Market

TARGETS: Final = ("parquet", "npz", "csv", "recording")
CHUNK_ROWS: Final = 1 << 16
FUTURES: Final = (Market.BINANCE_USDM.label, Market.BINANCE_COINM.label)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make. after: files before the inputs whose books these go on with; they are folded, not converted. venue: of
    captures, where it shall not be guessed."""

    to: str
    out: Path
    force: bool = False
    symbol: str = ""
    market: str = ""
    tick: str = ""
    lot: str = ""
    base_latency_ns: int = 0
    after: tuple[Path, ...] = ()
    said: list[str] = field(default_factory=list)  # filled with what was recognised of the inputs, a sentence each
    venue: Market | None = None

    @property
    def usdm(self) -> bool:
        """Whether the recording is to have a futures market's frames."""
        return self.market in FUTURES


@dataclass(frozen=True, slots=True)
class Reader:
    """A form of data from elsewhere that becomes a recording: how it is known, by its name and the first bytes of its text, and
    what writes its frames. `write` gets the files, the wish, where the lines go, and whom to tell of its progress; it may raise
    RecordingsError and RecordingError."""

    name: str
    what: str
    takes: Callable[[Path, bytes], bool]
    write: Callable[[Sequence[Path], Wish, Callable[[bytes], Any], Tell], FrameWriter]


def _write_npz(paths: Sequence[Path], wish: Wish, out: Callable[[bytes], Any], tell: Tell) -> FrameWriter:
    tick = step_of(wish.tick, "--tick") if wish.tick else None
    lot = step_of(wish.lot, "--lot") if wish.lot else None
    loaded = [(path, hftbacktest.received(hftbacktest.load(path))) for path in paths]
    if not wish.symbol:
        raise RecordingsError("an npz does not say its symbol; give --symbol, e.g. --symbol BTCUSDT")
    silent = [str(path) for path, events in loaded if not len(events)]
    if silent:
        raise RecordingsError(f"{silent[0]}: holds no event that was received (flag LOCAL); leave it out")
    judged = [hftbacktest.usable(path, events) for path, events in loaded]
    events = np.concatenate([events for events, _ in judged])
    events = events[np.argsort(events["local_ts"], kind="stable")]
    writer = hftbacktest.write_frames(
        events, out, plain_name(wish.symbol), wish.usdm, tick, lot,
        lambda done: tell(f"{done * 100 // max(len(events), 1)}%"),
    )  # fmt: skip
    writer.notes += [note for _, notes in judged for note in notes]
    return writer


def _write_csv(paths: Sequence[Path], wish: Wish, out: Callable[[bytes], Any], tell: Tell) -> FrameWriter:
    tables = [tardis.survey(path) for path in paths]
    names = {table.symbol for table in tables}
    if len(names) > 1:
        raise RecordingsError(f"the files hold {', '.join(sorted(names))}; convert one symbol at a time")
    usdm = wish.usdm or (not wish.market and tables[0].exchange in [tardis.EXCHANGES[it] for it in FUTURES])
    symbol = plain_name(wish.symbol or tables[0].symbol)
    return tardis.write_frames(tables, out, symbol, usdm, lambda done: tell(f"{done:,} messages"))


def _is_csv(path: Path, head: bytes) -> bool:
    """By its columns; a name with .csv in it is refused by the reader, which knows what it misses."""
    return ".csv" in path.suffixes or b"local_timestamp" in head.partition(b"\n")[0].lower()


READERS: Final = (
    Reader("npz", "hftbacktest's npz", lambda path, _: path.suffix in (".npz", ".npy"), _write_npz),
    Reader("csv", "tardis-like CSV", _is_csv, _write_csv),
)
"""The first row that takes a file reads it. A form of data is a row here and a module that writes its frames."""
_SEEN: Final = (
    (b"PK\x03\x04", "a zip archive"), (b"ARROW1", "a feather file"), (b"PAR1", "a Parquet file"),
    (b"\x28\xb5\x2f\xfd", "zstd data"), (b"\xfd7zXZ", "xz data"), (b"BZh", "bzip2 data"), (b"\x89HDF", "an HDF5 file"),
    (b"SQLite", "a SQLite file"),
    (b"{", "JSON"), (b"[", "JSON"),
)  # fmt: skip


def convert(paths: Sequence[Path], wish: Wish, tell: Tell) -> dict[str, Any]:
    """Do it; what was made. Raises RecordingsError, sim.recordings.spool.RecordingError, JournalError."""
    if not paths:
        raise RecordingsError("nothing to convert; name at least one file")
    sources = {source_of(path) for path in paths}
    if len(sources) > 1:
        raise RecordingsError(f"the inputs are of several forms ({', '.join(sorted(sources))}); convert one form at a time")
    source = sources.pop()
    reader = next((row for row in READERS if row.name == source), None)
    if wish.to == "recording" and reader is not None:
        return _to_recording(paths, reader, wish, tell)
    if source == "journal" and wish.to in ("parquet", "csv"):
        return _from_journals(paths, wish, tell)
    if source == "recording" and wish.to != "recording":
        return _from_recording(paths, wish, tell) | {"said": wish.said}
    possible = {"journal": "parquet or csv", "recording": "parquet, npz or csv"}.get(source, "a recording")
    raise RecordingsError(f"{paths[0]}: a file of the form {source} can be made {possible}, not {wish.to}; go by way of that")


def is_known(path: Path) -> bool:
    """Whether `convert` can take a file."""
    try:
        return bool(source_of(path))
    except RecordingsError:
        return False


def source_of(path: Path) -> str:
    """`journal`, `recording`, or the name of the reader that takes the file. Raises RecordingsError for what none knows."""
    if path.suffix == JOURNAL:
        return "journal"
    head = files.head_of(path)
    for reader in READERS:
        if reader.takes(path, head):
            return reader.name
    if files.look(path) is not None:
        return "recording"
    text = head.lstrip(b"\xef\xbb\xbf \r\n")
    seen = next((what for begin, what in _SEEN if text.startswith(begin)), f"text that begins {text[:40]!r}" if text else "empty")
    known = ", ".join(row.what for row in READERS)
    raise RecordingsError(
        f"{path}: is {seen}, of no form known here; known are recordings, captures, journals, {known}: give one of these"
    )


# ---- from a recording


def _from_recording(paths: Sequence[Path], wish: Wish, tell: Tell) -> dict[str, Any]:
    if wish.to == "parquet":
        arrow()  # before the work, not after it
    chains = files.chains([*wish.after, *paths])
    wanted = {path.resolve() for path in paths}
    chains = [chain for chain in chains if any(found.path.resolve() in wanted for found in chain)]
    if wish.to == "npz" and len(chains) > 1:
        names = ", ".join(files.title(chain) for chain in chains)
        raise RecordingsError(f"an npz holds one symbol's recording, these are several: {names}; convert one at a time")
    if wish.to == "npz":
        return _to_npz(chains[0], wish, tell)
    if wish.to == "csv":
        with new_files(wish.out, force=wish.force) as folder:
            made = [name for chain in chains for name in _to_csv(chain, folder, wish, tell)]
        return {"out": str(wish.out), "files": made}
    with new_files(wish.out, force=wish.force) as folder:
        rows: Counter[str] = Counter()
        for chain in chains:
            rows.update(_to_parquet(chain, wanted, folder, wish, tell))
        return {"out": str(wish.out), "rows": dict(rows), "files": names_in(folder)}


def _fold(chain: Sequence[files.Found], spool: Path, wish: Wish, tell: Tell) -> Folded:
    tell(f"reading {files.title(chain)}")
    recording, _ = staged(
        chain, spool, lambda done, total: tell(f"reading {files.title(chain)}: {done * 100 // max(total, 1)}%"), wish.venue
    )
    wish.said.extend(recording.said())
    return Folded(spool, recording, [_sized(symbol.instrument(), wish) for symbol in recording.symbols])


def _sized(instrument: Instrument, wish: Wish) -> Instrument:
    """With the tick and lot that the user gave."""
    if wish.tick:
        instrument = replace(instrument, tick_size=str(step_of(wish.tick, "--tick")))
    if wish.lot:
        lot = str(step_of(wish.lot, "--lot"))
        instrument = replace(instrument, lot_size=lot, step_size=lot, min_qty=lot)
    return instrument


def _symbol_in(folded: Folded, wish: Wish) -> int:
    names = [instrument.name for instrument in folded.instruments]
    if wish.symbol:
        if wish.symbol not in names:
            raise RecordingsError(f"no symbol {wish.symbol} in the recording; it holds {', '.join(names)}")
        return names.index(wish.symbol)
    if len(names) > 1:
        raise RecordingsError(f"the recording holds {', '.join(names)}; say which with --symbol")
    return 0


def _to_npz(chain: Sequence[files.Found], wish: Wish, tell: Tell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="scalper-convert-") as spools, new_file(wish.out, force=wish.force) as partial:
        folded = _fold(chain, Path(spools) / "spool", wish, tell)
        symbol = _symbol_in(folded, wish)
        events = hftbacktest.events_of(folded, symbol, lambda done: tell(f"{done:,} frames"))
        final = hftbacktest.corrected(events, wish.base_latency_ns)
        tell(f"writing {len(final):,} events")
        hftbacktest.save(final, partial)
    return {"out": str(wish.out), "symbol": folded.instruments[symbol].name, "events": len(events), "rows": len(final)}


def _to_csv(chain: Sequence[files.Found], folder: Path, wish: Wish, tell: Tell) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="scalper-convert-") as spools:
        folded = _fold(chain, Path(spools) / "spool", wish, tell)
        exchange = tardis.EXCHANGES.get(chain[0].venue, chain[0].venue)
        return tardis.save(folded, folder, exchange, _symbol_in(folded, wish), lambda done: tell(f"{done:,} frames"))


def _to_parquet(
    chain: Sequence[files.Found], wanted: set[Path], folder: Path, wish: Wish, tell: Tell
) -> dict[str, int]:
    own = [found for found in chain if found.path.resolve() in wanted]
    part = own[0].path.name.split(".")[0]
    # records before the first wanted file's first frame were made by the files that it goes on with
    from_ns = own[0].first_ns if own[0] is not chain[0] else 0
    with tempfile.TemporaryDirectory(prefix="scalper-convert-") as spools:
        folded = _fold(chain, Path(spools) / "spool", wish, tell)
        with ParquetWriter(folder, Names(folded.instruments), part) as writer:
            for chunk in folded.chunks():
                writer.append("market", chunk.market[chunk.market["ts_ns"] >= from_ns])
                writer.append("depth", chunk.depth[chunk.depth["ts_ns"] >= from_ns])
        return writer.rows


# ---- from journals


def _from_journals(paths: Sequence[Path], wish: Wish, tell: Tell) -> dict[str, Any]:
    known = [_sized(instrument, wish) for instrument in instruments.noted(paths[0].parent)]
    if not known:
        raise RecordingsError(
            f"{paths[0].parent}: no {instruments.FILE} says what a tick was; convert the raw recording instead"
        )
    names = Names(known, instruments.own_signals(paths[0].parent))
    part = paths[0].parent.resolve().name or "part-0"
    with new_files(wish.out, force=wish.force) as folder:
        writer = ParquetWriter(folder, names, part) if wish.to == "parquet" else CsvWriter(folder, names)
        with writer:
            for path in paths:
                reader = JournalReader(path)
                recs = reader.records()
                for at in range(0, len(recs), CHUNK_ROWS):
                    tell(f"{path.name}: {at * 100 // len(recs)}%")
                    writer.append(reader.header.ring, np.array(recs[at : at + CHUNK_ROWS]))
        return {"out": str(wish.out), "rows": writer.rows, "files": names_in(folder)}


# ---- to a recording


def _to_recording(paths: Sequence[Path], reader: Reader, wish: Wish, tell: Tell) -> dict[str, Any]:
    with new_file(wish.out, force=wish.force) as partial:
        with partial.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as out:
            writer = reader.write(paths, wish, out.write, tell)
        if not writer.frames:
            told = "".join(f"; {note}" for note in writer.notes)
            raise RecordingsError(f"{paths[0]}: holds no event; nothing to convert{told}")
        tell("checking what was made")
        notes = [*writer.notes, *_proved(partial, wish.out)]
    return {
        "out": str(wish.out), "frames": writer.frames, "crossed_quotes_left_out": writer.crossed_bbos, "notes": notes,
    }  # fmt: skip


def _proved(made: Path, out: Path) -> list[str]:
    """Check a recording that was made, before it gets its name; what is to be told of it. Raises RecordingsError."""
    found = files.look(made)
    try:
        if found is None:
            raise RecordingsError(f"{made}: its lines are none of a recording")
        verdict = check([found])
    except (RecordingsError, RecordingError) as error:
        said = str(error).replace(str(made), str(out))
        raise RecordingsError(f"what was made of it cannot be read back, so nothing was kept: {said}") from None
    wrong = replace(verdict, trade_gaps=0).wrong
    if wrong:
        place = f", first at {time_text(verdict.first_stale_ns)}" if verdict.first_stale_ns else ""
        raise RecordingsError(f"{out}: what was made of it is not sound, so nothing was kept: {'; '.join(wrong)}{place}")
    return [f"{verdict.trade_gaps:,} numbers are missing among the trade ids of the source"] if verdict.trade_gaps else []
