"""From one form into another: which reader, which writer, and a result that appears whole or not at all.

    recording, wire capture  ->  parquet | npz | csv          npz, csv  ->  recording
    journals                 ->  parquet
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.journal.file import JournalReader
from procs.journal.format import SUFFIX as JOURNAL
from procs.recordings import files, hftbacktest, instruments, tardis
from procs.recordings.checking import staged
from procs.recordings.folding import Folded
from procs.recordings.output import RecordingsError, new_file, new_folder
from procs.recordings.parquet import ParquetWriter, arrow, write_chunks
from procs.recordings.wire_text import step_of
from trading.instruments import Instrument, Market
from trading.symbol_names import SymbolNameError, symbol_name

TARGETS: Final = ("parquet", "npz", "csv", "recording")
CHUNK_ROWS: Final = 1 << 16
FUTURES: Final = (Market.BINANCE_USDM.label, Market.BINANCE_COINM.label)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make. after: files before the inputs whose books these go on with; they are folded, not converted."""

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


def convert(paths: Sequence[Path], wish: Wish, tell: Tell) -> dict[str, Any]:
    """Do it; what was made. Raises RecordingsError, sim.recordings.spool.RecordingError, JournalError."""
    if not paths:
        raise RecordingsError("nothing to convert; name at least one file")
    sources = {_source_of(path) for path in paths}
    if len(sources) > 1:
        raise RecordingsError(f"the inputs are of several forms ({', '.join(sorted(sources))}); convert one form at a time")
    source = sources.pop()
    if wish.to == "recording" and source in ("npz", "csv"):
        return _to_recording(paths, source, wish, tell)
    if source == "journal" and wish.to == "parquet":
        return _journals_to_parquet(paths, wish, tell)
    if source == "recording" and wish.to != "recording":
        return _from_recording(paths, wish, tell) | {"said": wish.said}
    possible = {"npz": "recording", "csv": "recording", "journal": "parquet", "recording": "parquet, npz or csv"}[source]
    raise RecordingsError(f"{paths[0]}: a {source} can be made {possible}, not {wish.to}; go by way of that")


def _source_of(path: Path) -> str:
    if path.suffix in (".npz", ".npy"):
        return "npz"
    if path.suffix == JOURNAL:
        return "journal"
    if ".csv" in path.suffixes:
        return "csv"
    return "recording"


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
        with new_folder(wish.out, force=wish.force) as folder:
            made = [name for chain in chains for name in _to_csv(chain, folder, wish, tell)]
        return {"out": str(wish.out), "files": made}
    with _parts(wish) as folder:
        rows = {"market": 0, "depth": 0}
        for chain in chains:
            for name, count in _to_parquet(chain, wanted, Path(folder), wish, tell).items():
                rows[name] += count
        return {"out": str(wish.out), "rows": rows, "files": _put_parts(folder, wish)}


def _fold(chain: Sequence[files.Found], spool: Path, wish: Wish, tell: Tell) -> Folded:
    tell(f"reading {files.title(chain)}")
    recording, _ = staged(chain, spool, lambda done, total: tell(f"reading {files.title(chain)}: {done * 100 // max(total, 1)}%"))
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
        venues = [instrument.market.label for instrument in folded.instruments]
        with ParquetWriter(folder, venues, folded.instruments, part) as writer:
            write_chunks(writer, folded.chunks(), from_ns=from_ns)
        return writer.rows


def _parts(wish: Wish) -> tempfile.TemporaryDirectory[str]:
    """A folder beside the target, on its file system, for files that are renamed into it one by one."""
    if not wish.out.parent.is_dir():
        raise RecordingsError(f"{wish.out.parent} is no folder; make it first, or name another place with --out")
    return tempfile.TemporaryDirectory(prefix=f".{wish.out.name}.", suffix=".partial", dir=wish.out.parent)


def _put_parts(made: str | Path, wish: Wish) -> list[str]:
    """Move the finished files into the target; refused as a whole where one is there already."""
    found = sorted(path.relative_to(made) for path in Path(made).rglob("*.parquet"))
    there = [name for name in found if (wish.out / name).exists()]
    if there and not wish.force:
        raise RecordingsError(
            f"{wish.out / there[0]} exists already; name another place with --out, or write over it with --force"
        )
    for name in found:
        (wish.out / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(made) / name).replace(wish.out / name)
    return [str(name) for name in found]


# ---- from journals


def _journals_to_parquet(paths: Sequence[Path], wish: Wish, tell: Tell) -> dict[str, Any]:
    known = instruments.noted(paths[0].parent)
    if not known:
        raise RecordingsError(
            f"{paths[0].parent}: no {instruments.FILE} says what a tick was; convert the raw recording instead"
        )
    known = [_sized(instrument, wish) for instrument in known]
    with _parts(wish) as folder:
        with ParquetWriter(Path(folder), [it.market.label for it in known], known, paths[0].parent.name) as writer:
            for path in paths:
                reader = JournalReader(path)
                if reader.header.ring not in ("market", "depth"):
                    raise RecordingsError(f"{path}: is the journal of ring {reader.header.ring}; market and depth become Parquet")
                recs = reader.records()
                for at in range(0, len(recs), CHUNK_ROWS):
                    tell(f"{path.name}: {at * 100 // len(recs)}%")
                    getattr(writer, reader.header.ring)(np.array(recs[at : at + CHUNK_ROWS]))
        return {"out": str(wish.out), "rows": writer.rows, "files": _put_parts(folder, wish)}


# ---- to a recording


def _to_recording(paths: Sequence[Path], source: str, wish: Wish, tell: Tell) -> dict[str, Any]:
    with new_file(wish.out, force=wish.force) as partial:
        with partial.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as out:
            if source == "npz":
                tick = step_of(wish.tick, "--tick") if wish.tick else None
                lot = step_of(wish.lot, "--lot") if wish.lot else None
                events = hftbacktest.received(np.concatenate([hftbacktest.load(path) for path in paths]))
                if not wish.symbol:
                    raise RecordingsError("an npz does not say its symbol; give --symbol, e.g. --symbol BTCUSDT")
                writer = hftbacktest.write_frames(
                    events, out.write, _name(wish.symbol), wish.market in FUTURES, tick, lot,
                    lambda done: tell(f"{done * 100 // max(len(events), 1)}%"),
                )  # fmt: skip
            else:
                tables = [tardis.survey(path) for path in paths]
                names = {table.symbol for table in tables}
                if len(names) > 1:
                    raise RecordingsError(f"the files hold {', '.join(sorted(names))}; convert one symbol at a time")
                known = [tardis.EXCHANGES[it] for it in FUTURES]
                usdm = wish.market in FUTURES or (not wish.market and tables[0].exchange in known)
                writer = tardis.write_frames(
                    tables, out.write, _name(wish.symbol or tables[0].symbol), usdm, lambda done: tell(f"{done:,} messages")
                )
        if not writer.frames:
            raise RecordingsError(f"{paths[0]}: holds no event; nothing to convert")
    return {"out": str(wish.out), "frames": writer.frames, "crossed_quotes_left_out": writer.crossed_bbos}


def _name(text: str) -> str:
    """A symbol as recordings write it: BTC-USD becomes BTCUSD."""
    try:
        return symbol_name(text)
    except SymbolNameError as error:
        raise RecordingsError(f"{error}; give one with --symbol") from None
