"""Records of every ring as Parquet, partitioned for every engine that reads such folders:

    <out>/<ring>/venue=<venue>/symbol=<SYMBOL>/date=<YYYY-MM-DD>/<part>.parquet     date: UTC; - for records about no symbol

Tick and lot are in the file's metadata. Needs pyarrow, which comes with the extra `parquet`.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.journal.names import Names
from procs.recordings.columns import Columns, columns_of, parts_of
from procs.recordings.output import RecordingsError

DAY_NS: Final = 86_400 * 10**9


def arrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet). Raises RecordingsError where it is not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise RecordingsError("Parquet needs pyarrow: install the extra with `pip install 'scalper[parquet]'`") from None


class ParquetWriter:
    """Writes records below `folder`; `part` names the files. Use as a context manager."""

    def __init__(self, folder: Path, names: Names, part: str = "part-0") -> None:
        self._folder, self._names, self._part = folder, names, part
        self.rows: dict[str, int] = {}
        self._open: dict[tuple[str, int, int], Any] = {}
        self._modules = arrow()

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            writer.close()
        self._open.clear()

    def append(self, ring: str, recs: Any) -> None:
        """Write these records of a ring."""
        for symbol, own in parts_of(ring, recs):
            days = own["ts_recv_ns" if ring == "market" else "ts_ns"] // DAY_NS
            for day in np.unique(days).tolist():
                self._write(ring, symbol, day, columns_of(ring, symbol, own[days == day], self._names))
            self.rows[ring] = self.rows.get(ring, 0) + len(own)

    def _write(self, ring: str, symbol: int, day: int, columns: Columns) -> None:
        pa, pq = self._modules
        batch = pa.table({
            key: pa.array(value.tolist(), pa.string()) if value.dtype == object else pa.array(value)
            for key, value in columns.items()
        })  # fmt: skip
        writer = self._open.get((ring, symbol, day))
        if writer is None:
            for old in [key for key in self._open if key[:2] == (ring, symbol) and key[2] < day]:
                self._open.pop(old).close()
            names = self._names
            date = time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))
            where = self._folder / ring / f"venue={names.venue(symbol)}" / f"symbol={names.symbol(symbol)}" / f"date={date}"
            where.mkdir(parents=True, exist_ok=True)
            it = names.known[symbol] if names.has(symbol) else None
            sizes = {} if it is None else {"tick_size": it.tick_size, "lot_size": it.lot_size}
            writer = pq.ParquetWriter(where / f"{self._part}.parquet", batch.schema.with_metadata(sizes), compression="zstd")
            self._open[(ring, symbol, day)] = writer
        writer.write_table(batch)
