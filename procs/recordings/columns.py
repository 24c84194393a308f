"""Records of every ring as columns, and these as CSV. docs/recording.md lists them.

Prices and quantities stand as floats beside the integers that they are made of; numbers that stand for words are words; what is
not warm is NaN.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from procs.journal.names import FLOAT_PRICES, MASKS, SWITCHES, Names, whole_name
from procs.recordings.frame_log_format import came_of
from trading.features.vector import NAMES as FEATURES
from trading.records import LEVELS, Flag, Kind

Columns = dict[str, Any]
"""Name -> array, shape (n,); words as arrays of str objects."""
Size = tuple[float, float]
"""A tick or a lot: to multiply with, and then to divide by."""

KINDS: Final = {Kind.DEPTH: "depth", Kind.TRADE: "trade", Kind.BBO: "bbo", Kind.SNAPSHOT: "snapshot", Kind.STALE: "stale",
                Kind.MARK: "mark", Kind.EDGE: "edge"}  # fmt: skip
"""Of market and depth records."""
_NO_SYMBOL: Final = ("control", "intake")
_PASSED_OVER: Final = ("spare", "seq", "symbol", "flags", "strength", "values", "warm_mask", "version")


def parts_of(ring: str, recs: Any) -> list[tuple[int, Any]]:
    """(symbol, its records) for each symbol, -1 for records about none; what only ends a ring is left out."""
    recs = recs[~np.isin(recs["kind"], (int(Kind.NONE), int(Kind.END)))]
    if ring.partition(".")[0] in _NO_SYMBOL:
        return [(-1, recs)] if len(recs) else []
    return [(symbol, recs[recs["symbol"] == symbol]) for symbol in np.unique(recs["symbol"]).tolist()]


def columns_of(ring: str, symbol: int, recs: Any, names: Names) -> Columns:
    """The columns of records of one symbol."""
    if ring in ("market", "depth"):
        return (market_columns if ring == "market" else depth_columns)(recs, *_sizes(names, symbol))
    return _other_columns(ring, symbol, recs, names)


def _sizes(names: Names, symbol: int) -> tuple[Size, Size]:
    """(tick, lot); NaN where nobody knows them."""
    if names.table is None or not names.has(symbol):
        return (math.nan, 1.0), (math.nan, 1.0)
    it = names.table[symbol]
    return (int(it["tick_units"]), 10.0 ** int(it["price_decimals"])), (1, 10.0 ** int(it["qty_decimals"]))


def _times(count: Any, size: Size) -> Any:
    """Ticks or lots as decimals: the float nearest to each."""
    return count * size[0] / size[1]


def market_columns(recs: Any, tick: Size, lot: Size) -> Columns:
    """Of MARKET_RECORDs."""
    found = {name: np.ascontiguousarray(recs[name]) for name in ("ts_ns", "ts_exchange_ns", "ts_recv_ns", "update_id")}
    found["kind"] = _words(recs["kind"], {int(kind): text for kind, text in KINDS.items()})
    found["valid"] = (recs["flags"] & int(Flag.BOOK_VALID)) != 0
    trade = recs["kind"] == Kind.TRADE
    seller = (recs["flags"] & int(Flag.AGGRESSOR_SELL)) != 0
    found["aggressor_side"] = np.full(len(recs), None, object)
    found["aggressor_side"][trade & seller] = "sell"
    found["aggressor_side"][trade & ~seller] = "buy"
    mark = recs["kind"] == Kind.MARK  # prices of 1e-8
    found["price"] = np.where(mark, recs["price_ticks"] / 1e8, _times(recs["price_ticks"], tick))
    found["qty"] = np.where(mark, recs["qty_lots"] / 1e8, _times(recs["qty_lots"], lot))
    found["price_ticks"], found["qty_lots"] = (np.ascontiguousarray(recs[n]) for n in ("price_ticks", "qty_lots"))
    for level in range(LEVELS):
        for side in ("bid", "ask"):
            found[f"{side}_price_{level + 1}"] = _times(recs[f"{side}_ticks"][:, level], tick)
            found[f"{side}_qty_{level + 1}"] = _times(recs[f"{side}_lots"][:, level], lot)
    return found


def depth_columns(recs: Any, tick: Size, lot: Size) -> Columns:
    """Of DEPTH_RECORDs."""
    found = {name: np.ascontiguousarray(recs[name]) for name in ("ts_ns", "update_id", "price_ticks", "qty_lots")}
    found["kind"] = _words(recs["kind"], {int(kind): text for kind, text in KINDS.items()})
    found["side"] = np.where((recs["flags"] & int(Flag.ASK)) != 0, "ask", "bid").astype(object)
    found["last"] = (recs["flags"] & int(Flag.LAST)) != 0
    found["price"], found["qty"] = _times(recs["price_ticks"], tick), _times(recs["qty_lots"], lot)
    return found


def _other_columns(ring: str, symbol: int, recs: Any, names: Names) -> Columns:
    tick, lot = _sizes(names, symbol)
    found: Columns = {}
    for name in recs.dtype.names:
        value = recs[name]
        if name in _PASSED_OVER:
            continue
        codes = names.codes(ring, name)
        if codes is not None:
            found[name] = _words(value, codes)
        elif name in MASKS:
            found[name.removesuffix("_mask")] = _each(value, lambda mask, field=name: " ".join(names.bits(field, mask)))
        elif name in SWITCHES:
            found[name] = value != 0
        elif name in FLOAT_PRICES:
            found[FLOAT_PRICES[name]] = _times(value, tick)
        elif name == "fee_e8":
            found["fee"], found[name] = value / 1e8, np.ascontiguousarray(value)
        else:
            if as_decimal := whole_name(name):
                found[as_decimal] = _times(value, tick if name.endswith("_ticks") else lot)
            found[name] = np.ascontiguousarray(value)
    found["sequence"] = recs["seq"] - 1
    if ring == "signals":
        for k, key in enumerate(names.signals):
            found[f"signal_{key}"] = np.where(recs["ready_mask"] >> k & 1, recs["strength"][:, k].astype(float), np.nan)
    elif ring == "vectors":
        found["valid"] = (recs["flags"] & int(Flag.BOOK_VALID)) != 0
        found["version"] = np.ascontiguousarray(recs["version"])
        for k, key in enumerate(FEATURES):
            found[key] = np.where(recs["warm_mask"] >> k & 1, recs["values"][:, k], np.nan)
    elif ring == "frames":
        raw = recs["kind"] == Kind.RAW
        found["line"] = np.where(raw, recs["flags"] & 0xFF, recs["flags"])
        found["connection"] = np.where(raw, _each(recs["flags"], lambda flags: came_of(flags).connection).astype(np.int64), -1)
    return found


def _each(values: Any, word: Callable[..., Any]) -> Any:
    """A word for each value, made once for each that occurs."""
    unique, where = np.unique(values, return_inverse=True)
    made = np.empty(len(unique), object)
    made[:] = [word(int(value)) for value in unique]
    return made[where.reshape(-1)]


def _words(values: Any, codes: dict[int, str]) -> Any:
    return _each(values, lambda value: codes.get(value, str(value)))


class CsvWriter:
    """Writes records below `folder`, a file `<ring>.csv.gz` a ring, with columns `venue` and `symbol` first. Use as a context
    manager."""

    def __init__(self, folder: Path, names: Names) -> None:
        self._folder, self._names = folder, names
        self.rows: dict[str, int] = {}
        self._open: dict[str, TextIO] = {}

    def __enter__(self) -> CsvWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def append(self, ring: str, recs: Any) -> None:
        """Write these records of a ring; those of one symbol stand together."""
        for symbol, own in parts_of(ring, recs):
            columns = columns_of(ring, symbol, own, self._names)
            file = self._open.get(ring)
            writer = csv.writer(file, lineterminator="\n") if file is not None else None
            if writer is None:
                file = self._open[ring] = gzip.open(self._folder / f"{ring}.csv.gz", "wt", newline="", compresslevel=6)
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("venue", "symbol", *columns))
            key = (self._names.venue(symbol), self._names.symbol(symbol))
            cells = [["" if value != value else value for value in column.tolist()] for column in columns.values()]
            writer.writerows((*key, *row) for row in zip(*cells, strict=True))
            self.rows[ring] = self.rows.get(ring, 0) + len(own)
