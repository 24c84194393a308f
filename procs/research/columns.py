"""Every signal and feature as a column: over a recording, or over a data frame (polars or pandas in, the same kind out).

The figures are the pipeline's own: the same kernels, record by record, so that row i knows nothing of what comes after it. A
value that is not warm is null (NaN in pandas). A signal of the user's that fails, or does not come back, is off from that record
on, as in the pipeline; that, and answers that were no finite number, are told by a warning (`say` hears them where it is given).

    score = features_of(frame)                         a frame with one row a market record
    values = signal_values("day1.gz", "my.py", "mine") the test kit: what a signal of one's own says, with its state's fields

polars, pandas and pyarrow are imported only when they are needed.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from procs.learning import install
from procs.recordings.columns import KINDS
from procs.recordings.folding import Folded
from procs.recordings.output import RecordingsError
from procs.research.signal_files import load
from procs.research.watched import WatchedPass
from sim.recordings.venue_staging import stage_any
from trading.features.vector import FEATURES, NAMES
from trading.instruments import Instrument, instrument_table
from trading.jit import Recs
from trading.own_signals.guard import complaints
from trading.records import LEVELS, MARKET_RECORD, Flag, Kind, Side
from trading.scoring import batch
from trading.scoring.batch import Pass
from trading.scoring.ensemble import Gate
from trading.settings import SignalFiles, Strategy, UserSignal
from trading.user_signals import UserSignals, signal_table

Columns = dict[str, Any]
"""Column name -> numpy array, all of one length; text as arrays of str objects."""

Progress = Callable[[int, int], None]
Say = Callable[[str], None]
Instruments = Instrument | Mapping[str, Instrument] | None
"""Ticks and lots: one for all symbols, or one each by name; None: those of a spot market in dollars."""

MAX_WHOLE: Final = 9e18
_KIND_OF: Final = {text: int(kind) for kind, text in KINDS.items()}
_SIDES: Final = {int(side): side.name for side in Side}
_GATES: Final = {int(gate): gate.name for gate in Gate}


def _texts(values: Any, words: Mapping[int, str]) -> Any:
    names = np.full(max(words) - min(words) + 1, "", object)
    for value, word in words.items():
        names[value - min(words)] = word
    return names[np.asarray(values) - min(words)]


def _signal_columns(market: Recs, answers: Recs, instruments: Sequence[Instrument], strategy: Strategy) -> Columns:
    """One row a record: what it was, what was decided, and the strength of each signal."""
    table = instrument_table(instruments)
    tick = table["tick_size"][market["symbol"]]
    valid = (answers["flags"] & int(Flag.BOOK_VALID)) != 0
    found: Columns = {
        "ts_ns": market["ts_ns"].copy(),
        "symbol": _texts(market["symbol"], dict(enumerate(it.name for it in instruments))),
        "kind": _texts(market["kind"], {int(kind): text for kind, text in KINDS.items()}),
        "valid": valid,
        "mid": np.where(valid, answers["mid"] * tick, np.nan),
        "microprice": np.where(valid, answers["microprice"] * tick, np.nan),
        "score": answers["score"].copy(),
        "confidence": answers["confidence"].copy(),
        "urgency": answers["urgency"].copy(),
        "side": _texts(answers["side"], _SIDES),
        "gate": _texts(answers["gate"], _GATES),
    }
    for spec in signal_table(strategy):
        ready = (answers["ready_mask"] >> spec.signal) & 1 == 1
        found[f"signal_{spec.key}"] = np.where(ready, answers["strength"][:, spec.signal].astype(np.float64), np.nan)
    return found


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def _all_columns(passed: WatchedPass, market: Recs, instruments: Sequence[Instrument], strategy: Strategy) -> Columns:
    market = market[np.isin(market["kind"], list(_KIND_OF.values()))]
    answers, matrix, ready = passed(lambda one: one.all(market))
    found = _signal_columns(market, answers, instruments, strategy)
    for k, name in enumerate(NAMES):
        found[name] = np.where(ready[:, k], matrix[:, k], np.nan)
    return found


def _settled(strategy: Strategy | None) -> tuple[Strategy, UserSignals]:
    """The strategy with what its user's files declare, and their compiled functions."""
    strategy = strategy or Strategy()
    user = load(strategy)
    return msgspec.structs.replace(strategy, signals=SignalFiles(user=user.settings)), user


def recording_columns(
    files: Sequence[str | Path],
    strategy: Strategy | None = None,
    progress: Progress | None = None,
    say: Say = _warn,
) -> Iterator[Columns]:
    """Every signal and feature over recorded frames, some thousand rows at a time; the files' symbols side by side in time.

    `say` hears, at the end, what went wrong in signals of the user's.

    Raises sim.recordings.spool.RecordingError, trading.user_signals.SignalError, trading.scoring.params.StrategyError.
    """
    settled, user = _settled(strategy)
    found: list[str] = []
    for instruments, passed, market in _passes(files, settled, user, progress):
        yield _all_columns(passed, market, instruments, settled)
        found = complaints(passed.health())
    for text in found:
        say(f"user signal {text}")


def _passes(
    files: Sequence[str | Path], strategy: Strategy, user: UserSignals, progress: Progress | None = None
) -> Iterator[tuple[Sequence[Instrument], WatchedPass, Recs]]:
    with tempfile.TemporaryDirectory(prefix="scalper-features-") as folder:
        spool = Path(folder) / "spool"
        folded = Folded(spool, stage_any([Path(file) for file in files], spool, progress=progress))
        start = install.start(strategy, [instrument.name for instrument in folded.instruments])
        passed = WatchedPass(Pass(folded.instruments, strategy, user=user, start=start))
        for chunk in folded.chunks():
            if len(chunk.market):
                yield folded.instruments, passed, chunk.market


def signal_values(
    files: str | Path | Sequence[str | Path],
    file: str | Path,
    name: str,
    params: Mapping[str, float] | None = None,
    *,
    strategy: Strategy | None = None,
) -> Columns:
    """The test kit: a signal of the user's over a recording, one row a market record, with its fields after each.

    Columns: ts_ns, symbol, kind, valid, mid, `strength` (null while not ready), and `state.<field>` for each field that is
    one number. The values are the pipeline's. Raises SignalError with the place of a mistake, or where the signal was switched
    off on the way: its code failed, or did not come back.
    """
    mine = UserSignal(file=str(Path(file).resolve()), name=name, params=dict(params or {}))
    settled, user = _settled(msgspec.structs.replace(strategy or Strategy(), signals=SignalFiles(user=(mine,))))
    pieces: list[Columns] = []
    many = [files] if isinstance(files, str | Path) else files
    for instruments, passed, market in _passes(many, settled, user):
        answers, rows = passed(lambda one, market=market: one.user_rows(market))  # type: ignore[misc]
        columns = _signal_columns(market, answers, instruments, settled)
        piece = {key: columns[key] for key in ("ts_ns", "symbol", "kind", "valid", "mid")}
        piece["strength"] = columns[f"signal_{name}"]
        fields = rows[name]
        piece |= {f"state.{key}": fields[key].copy() for key in fields.dtype.names or () if fields[key].ndim == 1}
        pieces.append(piece)
        health = passed.health()[name]
        if health.off_from:
            raise user.failure(0, health)
    if pieces and health.sentence:
        _warn(f"user signal {name}: {health.sentence}")
    return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]} if pieces else {}


# ---- data frames ------------------------------------------------------------------------------------------------------


def frame_of(columns: Columns, library: str = "polars") -> Any:
    """The columns as a polars or pandas DataFrame. Raises RecordingsError where that is not installed."""
    try:
        module: Any = importlib.import_module(library)
    except ImportError:
        raise RecordingsError(f"{library} is not installed: `pip install {library}`") from None
    if library == "polars":
        plain = {key: value.tolist() if value.dtype == object else value for key, value in columns.items()}
        return module.DataFrame(plain, nan_to_null=True)
    return module.DataFrame(columns)


def _library_of(frame: Any) -> str:
    library = type(frame).__module__.partition(".")[0]
    if library not in ("polars", "pandas"):
        raise RecordingsError(f"a polars or pandas DataFrame is wanted, this is a {type(frame).__name__}")
    return library


def _instruments(names: Sequence[str], given: Instruments) -> tuple[Instrument, ...]:
    """One for each name. Raises RecordingsError for a name without any."""
    if not isinstance(given, Mapping):
        return tuple(replace(given or Instrument(""), name=name) for name in names)
    without = [name for name in names if name not in given]
    if without:
        raise RecordingsError(f"no instrument for {', '.join(without)}: there are {', '.join(given) or 'none'}")
    return tuple(replace(given[name], name=name) for name in names)


def _whole(frame: Any, column: str, unit: Any, text: str, what: str) -> Any:
    """A column in whole units (one a row, or one for all). Raises RecordingsError for the first value that is none."""
    values = np.nan_to_num(np.asarray(frame[column].to_numpy(), np.float64))
    exact = values / unit
    found = np.rint(exact)
    # a decimal becomes a float, and a float of 1e13 lots is known to some hundredths of one
    wrong = np.flatnonzero((np.abs(exact - found) > 1e-6 + 1e-15 * np.abs(exact)) | (np.abs(exact) > MAX_WHOLE))
    if wrong.size:
        row = int(wrong[0])
        step = np.broadcast_to(unit, values.shape)[row]
        raise RecordingsError(
            f"row {row}: {column} {values[row]:.15g} is no whole number of {what}s of {step:.15g}: give the instrument with its "
            f'{text}, such as Instrument("BTCUSDT", {text}="{_step_of(values[row])}"), or one for each symbol by name'
        )
    return found.astype(np.int64)


def _step_of(value: float) -> str:
    """The power of ten of which a value is a whole number."""
    digits = np.format_float_positional(abs(value), trim="-").partition(".")[2]
    return f"0.{'0' * (len(digits) - 1)}1" if digits else "1"


def market_of(frame: Any, instrument: Instruments = None) -> tuple[Recs, tuple[Instrument, ...]]:
    """MARKET_RECORDs of a data frame, and its symbols; ticks and lots are those of `instrument`, or by symbol name.

    Columns as `scalperctl data convert --to parquet` writes them: `ts_ns`, `kind`, `bid_price_1` .. `ask_qty_5` (at least
    level 1), for trades `price`, `qty` and `aggressor_side`; `symbol` and `valid` where there are any. Raises RecordingsError
    for one missing, and for a price or quantity that is no whole number of ticks or lots: nothing is rounded.
    """
    _library_of(frame)
    there = {str(name) for name in frame.columns}
    missing = {"ts_ns", "kind", "bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1"} - there
    if missing:
        raise RecordingsError(f"the frame has no column {', '.join(sorted(missing))}: see `scalperctl data convert --to parquet`")

    def texts(name: str) -> Any:
        return np.asarray(frame[name].to_numpy(), object)

    recs = np.zeros(len(frame), MARKET_RECORD)
    kinds = texts("kind")
    unknown = sorted({str(kind) for kind in kinds} - set(_KIND_OF))
    if unknown:
        raise RecordingsError(f"kind {unknown[0]!r} is not known: write {', '.join(_KIND_OF)}")
    recs["ts_ns"] = np.asarray(frame["ts_ns"].to_numpy(), np.int64)
    if len(recs) and (np.diff(recs["ts_ns"]) < 0).any():
        raise RecordingsError("ts_ns falls somewhere: sort the frame by time")
    recs["kind"] = [_KIND_OF[kind] for kind in kinds]
    lone = instrument.name if isinstance(instrument, Instrument) else next(iter(instrument or {}), "")
    names = list(dict.fromkeys(str(name) for name in texts("symbol"))) if "symbol" in there else [lone or "X"]
    if "symbol" in there:
        index = {name: k for k, name in enumerate(names)}
        recs["symbol"] = [index[str(name)] for name in texts("symbol")]
    instruments = _instruments(names, instrument)
    valid = np.asarray(frame["valid"].to_numpy(), bool) if "valid" in there else recs["kind"] != Kind.STALE
    recs["flags"] = np.where(valid, int(Flag.BOOK_VALID), 0)
    sides = texts("aggressor_side") if "aggressor_side" in there else np.full(len(recs), None, object)
    odd = np.flatnonzero((recs["kind"] == Kind.TRADE) & ~np.isin(sides.astype(str), ("buy", "sell")))
    if odd.size:
        raise RecordingsError(f"aggressor_side {sides[odd[0]]!r} of the trade in row {odd[0]} is neither buy nor sell")
    recs["flags"] |= np.where(sides == "sell", int(Flag.AGGRESSOR_SELL), 0).astype(np.int32)
    if not len(recs):
        return recs, instruments
    table = instrument_table(instruments)
    tick, lot = (table[name][recs["symbol"]] for name in ("tick_size", "lot_size"))

    def whole(column: str, unit: Any, text: str, what: str) -> Any:
        return _whole(frame, column, unit, text, what) if column in there else 0

    mark = recs["kind"] == Kind.MARK  # prices of 1e-8
    recs["price_ticks"] = whole("price", np.where(mark, 1e-8, tick), "tick_size", "tick")
    recs["qty_lots"] = whole("qty", np.where(mark, 1e-8, lot), "lot_size", "lot")
    for level in range(LEVELS):
        for side in ("bid", "ask"):
            recs[f"{side}_ticks"][:, level] = whole(f"{side}_price_{level + 1}", tick, "tick_size", "tick")
            recs[f"{side}_lots"][:, level] = whole(f"{side}_qty_{level + 1}", lot, "lot_size", "lot")
    return recs, instruments


def features_of(frame: Any, strategy: Strategy | None = None, instrument: Instruments = None, say: Say = _warn) -> Any:
    """Every signal and feature of a data frame of market records, one row each, as a frame of the same library."""
    market, instruments = market_of(frame, instrument)
    settled, user = _settled(strategy)
    start = install.start(settled, [instrument.name for instrument in instruments])
    passed = WatchedPass(Pass(instruments, settled, user=user, start=start))
    columns = _all_columns(passed, market, instruments, settled)
    for text in complaints(passed.health()):
        say(f"user signal {text}")
    return frame_of(columns, _library_of(frame))


def market_microstructure_score(history: Any, strategy: Strategy | None = None, instrument: Instruments = None) -> Any:
    """The microstructure score 0..100 after each record: of MARKET_RECORDs or of a data frame; float64, NaN where not warm."""
    market = history if isinstance(history, np.ndarray) else market_of(history, instrument)[0]
    return batch.market_microstructure_score(market, strategy)


def units() -> dict[str, str]:
    """The unit of every feature column."""
    return {feature.name: feature.unit for feature in FEATURES}
