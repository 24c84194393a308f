"""Market and depth records as Parquet, partitioned for every engine that reads such folders:

    <out>/<table>/venue=<venue>/symbol=<SYMBOL>/date=<YYYY-MM-DD>/<part>.parquet     table: market or depth; date: UTC

Prices and quantities stand as floats beside the integers that they are made of; tick and lot are in the file's metadata. Needs
pyarrow, which comes with the extra `research`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.recordings.output import RecordingsError
from trading.instruments import Instrument, instrument_table
from trading.records import LEVELS, Flag, Kind

DAY_NS: Final = 86_400 * 10**9
KINDS: Final = {Kind.DEPTH: "depth", Kind.TRADE: "trade", Kind.BBO: "bbo", Kind.SNAPSHOT: "snapshot", Kind.STALE: "stale",
                Kind.MARK: "mark", Kind.EDGE: "edge"}  # fmt: skip


def arrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet). Raises RecordingsError where it is not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise RecordingsError("Parquet needs pyarrow: install the extra with `pip install 'scalper[research]'`") from None


@dataclass(slots=True)
class ParquetWriter:
    """Writes records below `folder`; `part` names the files. Use as a context manager."""

    folder: Path
    venues: Sequence[str]
    instruments: Sequence[Instrument]
    part: str = "part-0"
    rows: dict[str, int] = field(default_factory=lambda: {"market": 0, "depth": 0})
    _open: dict[tuple[str, int, int], Any] = field(default_factory=dict)
    _table: Any = None
    _modules: tuple[Any, Any] = (None, None)

    def __enter__(self) -> ParquetWriter:
        self._modules = arrow()
        self._table = instrument_table(self.instruments)
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            writer.close()
        self._open.clear()

    def market(self, recs: Any) -> None:
        """Append MARKET_RECORDs."""
        self._append("market", recs, "ts_recv_ns", self._market_columns)

    def depth(self, recs: Any) -> None:
        """Append DEPTH_RECORDs."""
        self._append("depth", recs, "ts_ns", self._depth_columns)

    def _append(self, name: str, recs: Any, stamp: str, columns: Any) -> None:
        recs = recs[np.isin(recs["kind"], list(KINDS)) & (recs["symbol"] >= 0) & (recs["symbol"] < len(self.instruments))]
        days = recs[stamp] // DAY_NS
        for symbol in np.unique(recs["symbol"]).tolist():
            own = recs["symbol"] == symbol
            for day in np.unique(days[own]).tolist():
                self._write(name, symbol, day, columns(recs[own & (days == day)], self._table[symbol]))
        self.rows[name] += len(recs)

    def _write(self, name: str, symbol: int, day: int, columns: dict[str, Any]) -> None:
        pa, pq = self._modules
        batch = pa.table({
            key: pa.array(value.tolist(), pa.string()) if value.dtype == object else pa.array(value)
            for key, value in columns.items()
        })  # fmt: skip
        writer = self._open.get((name, symbol, day))
        if writer is None:
            for old in [key for key in self._open if key[:2] == (name, symbol) and key[2] < day]:
                self._open.pop(old).close()
            it = self.instruments[symbol]
            date = time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))
            where = self.folder / name / f"venue={self.venues[symbol]}" / f"symbol={it.name}" / f"date={date}"
            where.mkdir(parents=True, exist_ok=True)
            schema = batch.schema.with_metadata({"tick_size": it.tick_size, "lot_size": it.lot_size})
            writer = pq.ParquetWriter(where / f"{self.part}.parquet", schema, compression="zstd")
            self._open[(name, symbol, day)] = writer
        writer.write_table(batch)

    @staticmethod
    def _price(ticks: Any, it: Any) -> Any:
        return ticks * int(it["tick_units"]) / 10.0 ** int(it["price_decimals"])

    @staticmethod
    def _qty(lots: Any, it: Any) -> Any:
        return lots / 10.0 ** int(it["qty_decimals"])

    def _market_columns(self, recs: Any, it: Any) -> dict[str, Any]:
        found = {name: np.ascontiguousarray(recs[name]) for name in ("ts_ns", "ts_exchange_ns", "ts_recv_ns", "update_id")}
        found["kind"] = _kinds(recs)
        found["valid"] = (recs["flags"] & int(Flag.BOOK_VALID)) != 0
        trade = recs["kind"] == Kind.TRADE
        seller = (recs["flags"] & int(Flag.AGGRESSOR_SELL)) != 0
        found["aggressor_side"] = np.full(len(recs), None, object)
        found["aggressor_side"][trade & seller] = "sell"
        found["aggressor_side"][trade & ~seller] = "buy"
        mark = recs["kind"] == Kind.MARK  # prices of 1e-8
        found["price"] = np.where(mark, recs["price_ticks"] / 1e8, self._price(recs["price_ticks"], it))
        found["qty"] = np.where(mark, recs["qty_lots"] / 1e8, self._qty(recs["qty_lots"], it))
        found["price_ticks"], found["qty_lots"] = (np.ascontiguousarray(recs[n]) for n in ("price_ticks", "qty_lots"))
        for level in range(LEVELS):
            for side in ("bid", "ask"):
                found[f"{side}_price_{level + 1}"] = self._price(recs[f"{side}_ticks"][:, level], it)
                found[f"{side}_qty_{level + 1}"] = self._qty(recs[f"{side}_lots"][:, level], it)
        return found

    def _depth_columns(self, recs: Any, it: Any) -> dict[str, Any]:
        found = {name: np.ascontiguousarray(recs[name]) for name in ("ts_ns", "update_id", "price_ticks", "qty_lots")}
        found["kind"] = _kinds(recs)
        found["side"] = np.where((recs["flags"] & int(Flag.ASK)) != 0, "ask", "bid").astype(object)
        found["last"] = (recs["flags"] & int(Flag.LAST)) != 0
        found["price"], found["qty"] = self._price(recs["price_ticks"], it), self._qty(recs["qty_lots"], it)
        return found


def _kinds(recs: Any) -> Any:
    names = np.full(max(KINDS) + 1, "", dtype=object)
    for kind, name in KINDS.items():
        names[kind] = name
    return names[recs["kind"]]


def write_chunks(writer: ParquetWriter, chunks: Iterable[Any], *, from_ns: int = 0) -> None:
    """All chunks of a fold; of records before `from_ns` none."""
    for chunk in chunks:
        writer.market(chunk.market[chunk.market["ts_ns"] >= from_ns])
        writer.depth(chunk.depth[chunk.depth["ts_ns"] >= from_ns])
