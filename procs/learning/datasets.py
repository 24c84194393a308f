"""Data sets: the records of one symbol from a recording or a market journal, their feature rows and their labels.

Rows are taken from the very kernels that run in the pipeline (trading.scoring.batch), on a grid of time, so that a quiet minute
weighs as much as a wild one, and only where at least model_vote.LEAST_READY features are ready. They are computed with the GARCH
and the microprice table that the strategy names, as the pipeline does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from procs.journal.file import JournalReader
from procs.learning import install
from procs.learning.extras import LearningError
from procs.learning.labels import barrier_labels, horizon_labels
from procs.recordings import files
from procs.recordings.checking import staged
from procs.recordings.folding import Folded
from procs.recordings.instruments import noted
from trading.features import vector as feature_vector
from trading.instruments import Instrument
from trading.jit import Floats, Recs, Words, kernel
from trading.models.online import DOWN, UP
from trading.models.vote import LEAST_READY
from trading.records import MARKET_RECORD, Kind
from trading.scoring.batch import Pass
from trading.settings import SignalFiles, Strategy

JOURNAL = ".journal"
CHUNK = 1 << 15
"""Records whose features are computed at a time: bounds the memory, changes no figure."""


@dataclass(frozen=True, slots=True)
class History:
    """All market records of one symbol (as symbol 0), in order."""

    symbol: str
    source: str
    recs: Recs


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows of one or more symbols: features (n, N_FEATURES), when seen, the label and when it was known, mid in ticks."""

    x: Floats
    ts: Words
    label: Words
    ended: Words
    mid: Floats
    symbols: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def told(self) -> npt.NDArray[np.bool_]:
        """Rows with a move beyond costs: those that a direction can be learned from."""
        return (self.label == UP) | (self.label == DOWN)

    def of(self, rows: npt.NDArray[np.bool_]) -> DataSet:
        """These rows alone."""
        return DataSet(
            self.x[rows], self.ts[rows], self.label[rows], self.ended[rows], self.mid[rows], self.symbols, self.sources
        )

    @property
    def y(self) -> Floats:
        """1 for up, 0 for everything else."""
        return (self.label == UP).astype(np.float64)


def histories(places: Sequence[str | Path], tell: Callable[[str], None] = lambda _: None) -> list[History]:
    """The symbols of recordings (files of one symbol are joined) and of market journals. Raises LearningError."""
    found: list[History] = []
    for chain in files.chains(files.gathered(places, tell)):
        title = files.title(chain)
        tell(f"reading {title}")
        if chain[0].path.suffix == JOURNAL:
            found += [h for one in chain for h in _of_journal(one.path)]
            continue
        with tempfile.TemporaryDirectory(prefix="scalper-model-") as folder:
            spool = Path(folder) / "spool"
            folded = Folded(spool, staged(chain, spool)[0])
            recs = np.concatenate([chunk.market for chunk in folded.chunks()])
        found += split(recs, [instrument.name for instrument in folded.instruments], title)
    if not found:
        raise LearningError(f"no recording or market journal among {', '.join(map(str, places))[:200]}: name some that hold one")
    return found


def _of_journal(path: Path) -> list[History]:
    reader = JournalReader(path)
    if reader.header.ring != "market":
        return []
    JournalReader(path, MARKET_RECORD)  # refuses another version's layout
    recs = np.array(reader.records())
    names = [instrument.name for instrument in noted(path.parent)]
    return split(recs[recs["kind"] != Kind.END], names, path.name)


def split(recs: Recs, names: Sequence[str], source: str) -> list[History]:
    """Records of several symbols, by symbol; `names` by symbol index."""
    found = []
    for symbol in np.unique(recs["symbol"]).tolist():
        own = recs[recs["symbol"] == symbol].copy()
        own["symbol"] = 0
        found.append(History(names[symbol] if 0 <= symbol < len(names) else f"S{symbol}", source, own))
    return found


@kernel
def _grid(ts: Words, usable: npt.NDArray[np.bool_], step: int, due: int, rows: Words) -> int:
    n = 0
    for i in range(len(ts)):
        if usable[i] and ts[i] >= due:
            rows[n] = i
            n += 1
            due = ts[i] + step
    return n


def one_pass(history: History, strategy: Strategy, *, models: bool = False) -> Pass:
    """A pass over one symbol, with the GARCH and the microprice of the strategy; models that vote are off unless asked for."""
    plain = msgspec.structs.replace(strategy, signals=SignalFiles())
    if not models:
        plain = msgspec.structs.replace(plain, ml=msgspec.structs.replace(strategy.ml, enabled=False))
    return Pass([Instrument(history.symbol)], plain, start=install.features_alone(strategy, history.symbol))


def mids(history: History, strategy: Strategy) -> Floats:
    """The mid after each record in ticks, (n,); 0 where the book is not usable."""
    passed, n = one_pass(history, strategy), len(history.recs)
    return np.concatenate([passed.signals(history.recs[k : k + CHUNK])["mid"] for k in range(0, n, CHUNK)] or [np.zeros(0)])


def _rows(history: History, strategy: Strategy, step_ns: int) -> tuple[Floats, Words, Floats]:
    """(mid after each record (n,), indices of the rows (m,), their features (m, N_FEATURES))."""
    passed, due = one_pass(history, strategy), 0
    mid, rows, x = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros((0, len(feature_vector.NAMES)))]
    for at in range(0, len(history.recs), CHUNK):
        recs = history.recs[at : at + CHUNK]
        said, matrix, ready = passed.all(recs)
        mid.append(np.array(said["mid"]))
        ts, kept = np.ascontiguousarray(recs["ts_ns"]), np.zeros(len(recs), np.int64)
        kept = kept[: _grid(ts, (mid[-1] > 0.0) & (ready.sum(1) >= LEAST_READY), step_ns, due, kept)]
        if len(kept):
            due = int(ts[kept[-1]]) + step_ns
        rows.append(at + kept)
        x.append(matrix[kept])
    return np.concatenate(mid), np.concatenate(rows), np.concatenate(x)


def data_set(history: History, strategy: Strategy, *, barrier: bool = False) -> DataSet:
    """Rows, a quarter of a horizon apart or more, with their labels by `ml.horizon_ms` and `ml.cost_bps`.

    `barrier` takes the triple barrier with both distances at the costs instead of the mid at the horizon.
    """
    ml = strategy.ml
    horizon_ns, cost = ml.horizon_ms * 1_000_000, 1e-4 * ml.cost_bps
    ts = np.ascontiguousarray(history.recs["ts_ns"])
    mid, rows, x = _rows(history, strategy, horizon_ns // 4)
    if barrier:
        label, ended = barrier_labels(ts, mid, rows, horizon_ns, cost, cost)
    else:
        label, ended = horizon_labels(ts, mid, rows, horizon_ns, cost)
    return DataSet(x, ts[rows], label, ended, mid[rows], (history.symbol,), (history.source,))


def joined(sets: Sequence[DataSet]) -> DataSet:
    """The rows of several symbols in the order of time."""
    ts = np.concatenate([s.ts for s in sets])
    order = np.argsort(ts, kind="stable")
    x, label, ended, mid = (np.concatenate([getattr(s, key) for s in sets])[order] for key in ("x", "label", "ended", "mid"))
    symbols, sources = (tuple(dict.fromkeys(v for s in sets for v in getattr(s, key))) for key in ("symbols", "sources"))
    return DataSet(x, ts[order], label, ended, mid, symbols, sources)
