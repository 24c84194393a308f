"""Data sets: the records of one symbol from a recording or a market journal, their feature rows and their labels.

Rows are taken from the very kernels that run in the pipeline (trading.batch), on a grid of time, so that a quiet minute weighs
as much as a wild one, and only where at least model_vote.LEAST_READY features are ready.

What this module is not: it decodes nothing itself and trains nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from procs.journal import JournalReader
from procs.learning.extras import LearningError
from procs.learning.labels import barrier_labels, horizon_labels
from procs.recordings import files
from procs.recordings.checking import staged
from procs.recordings.folding import Folded
from procs.recordings.instruments import noted
from trading import batch
from trading.jit import Floats, Recs, Words, kernel
from trading.model_vote import LEAST_READY
from trading.online_model import DOWN, UP
from trading.records import MARKET_RECORD, Kind
from trading.settings import Strategy

JOURNAL = ".journal"


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
    for chain in files.chains(files.expand(places)):
        title = files.title(chain)
        tell(f"reading {title}")
        if chain[0].path.suffix == JOURNAL:
            found += [h for one in chain for h in _of_journal(one.path)]
            continue
        with tempfile.TemporaryDirectory(prefix="scalper-model-") as folder:
            spool = Path(folder) / "spool"
            folded = Folded(spool, staged(chain, spool)[0])
            recs = np.concatenate([chunk.market for chunk in folded.chunks()])
        found += _split(recs, [instrument.name for instrument in folded.instruments], title)
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
    return _split(recs[recs["kind"] != Kind.END], names, path.name)


def _split(recs: Recs, names: Sequence[str], source: str) -> list[History]:
    found = []
    for symbol in np.unique(recs["symbol"]).tolist():
        own = recs[recs["symbol"] == symbol].copy()
        own["symbol"] = 0
        found.append(History(names[symbol] if 0 <= symbol < len(names) else f"S{symbol}", source, own))
    return found


@kernel
def _grid(ts: Words, usable: npt.NDArray[np.bool_], step: int, rows: Words) -> int:
    n = 0
    due = 0
    for i in range(len(ts)):
        if usable[i] and ts[i] >= due:
            rows[n] = i
            n += 1
            due = ts[i] + step
    return n


def mids(history: History, strategy: Strategy) -> Floats:
    """The mid after each record in ticks, (n,); 0 where the book is not usable."""
    return np.ascontiguousarray(batch.signals_of(history.recs, strategy)["mid"])


def data_set(history: History, strategy: Strategy, *, barrier: bool = False) -> DataSet:
    """Rows, a quarter of a horizon apart or more, with their labels by `ml.horizon_ms` and `ml.cost_bps`.

    `barrier` takes the triple barrier with both distances at the costs instead of the mid at the horizon.
    """
    ml = strategy.ml
    horizon_ns, cost = ml.horizon_ms * 1_000_000, 1e-4 * ml.cost_bps
    ts, mid = np.ascontiguousarray(history.recs["ts_ns"]), mids(history, strategy)
    matrix, _, ready = batch.feature_matrix(history.recs, strategy)
    usable = (mid > 0.0) & (ready.sum(1) >= LEAST_READY)
    rows = np.zeros(len(ts), np.int64)
    rows = rows[: _grid(ts, usable, horizon_ns // 4, rows)]
    if barrier:
        label, ended = barrier_labels(ts, mid, rows, horizon_ns, cost, cost)
    else:
        label, ended = horizon_labels(ts, mid, rows, horizon_ns, cost)
    return DataSet(matrix[rows], ts[rows], label, ended, mid[rows], (history.symbol,), (history.source,))


def joined(sets: Sequence[DataSet]) -> DataSet:
    """The rows of several symbols in the order of time."""
    ts = np.concatenate([s.ts for s in sets])
    order = np.argsort(ts, kind="stable")
    x, label, ended, mid = (np.concatenate([getattr(s, key) for s in sets])[order] for key in ("x", "label", "ended", "mid"))
    symbols, sources = (tuple(dict.fromkeys(v for s in sets for v in getattr(s, key))) for key in ("symbols", "sources"))
    return DataSet(x, ts[order], label, ended, mid, symbols, sources)
