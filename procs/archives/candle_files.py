"""Candles as a table, Parquet or CSV by the file's ending: from a source's own candles, or from the trades of a recording.

    symbol, open_time_ns, size_ns, open, high, low, close, volume, quote_volume, buy_volume, trades, incomplete

volume and buy_volume (of trades whose aggressor bought) are in the base currency. A figure that the source does not have is null.
incomplete: trades of the candle may be missing, as at the beginning and the end of a recording. Candles hold no book and no
prints: no signal is computed of them and no order is simulated on them.
"""

from __future__ import annotations

import contextlib
import csv
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.archives.events import Bar, Told
from procs.recordings.folding import Folded
from procs.recordings.output import RecordingsError
from procs.recordings.parquet import arrow
from trading.candles import CandleError, CandleFlag, candles_of, notional, parse_size, size_name
from trading.records import Flag, Kind

FLOATS: Final = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume")
NUMBERS: Final = (*FLOATS, "trades")
COLUMNS: Final = ("symbol", "open_time_ns", "size_ns", *FLOATS, "trades", "incomplete")
SUFFIXES: Final = (".parquet", ".csv")
_ROWS: Final = 1 << 16
Table = dict[str, Any]
"""Arrays of one length by column; numbers that are not known are NaN."""


def size_of(text: str) -> int:
    """A `--size`, in ns."""
    try:
        return parse_size(text)
    except CandleError as error:
        raise RecordingsError(f"--size {error}") from None


def table_of(bars: Iterable[Bar], told: Told, symbol: str, wanted_ns: int) -> Table:
    """A source's candles, checked, in columns; several joined to one where `wanted_ns`, unless 0, is a multiple of their size.

    Raises RecordingsError for candles that cannot be true."""
    place = told.source.place
    columns = _columns(bars, told)
    times = columns["open_time_ns"]
    if not len(times):
        raise RecordingsError(f"{place}: holds no candle; nothing to convert")
    steps = np.diff(times)
    size = int(steps.min()) if steps.size else wanted_ns
    if not size:
        raise RecordingsError(f"{place}: holds one candle, which does not say its size; give it with --size")
    if ((times - times[0]) % size).any():
        raise RecordingsError(f"{place}: the candles stand at no even distance; give files of one size")
    _check(columns, told)
    if missing := int((steps // size - 1).sum()):
        told.words.append(f"{missing:,} candles are missing between the first and the last")
    columns["incomplete"] = np.zeros(len(times), bool)
    if wanted_ns and wanted_ns != size:
        if wanted_ns % size:
            own = size_name(size)
            raise RecordingsError(f"--size {size_name(wanted_ns)} is no multiple of the candles' own {own}; give another")
        columns, size = _joined(columns, size, wanted_ns), wanted_ns
    n = len(columns["open_time_ns"])
    return columns | {"symbol": np.full(n, symbol, object), "size_ns": np.full(n, size, np.int64)}


def _columns(bars: Iterable[Bar], told: Told) -> Table:
    """Numbers by column in the order of time, NaN for what is not said; a candle that stands twice is taken once."""
    times, values = array("q"), {name: array("d") for name in NUMBERS}
    for bar in bars:
        times.append(bar.open_time_ns)
        for name, column in values.items():
            text = getattr(bar, name)
            try:
                column.append(float(text) if text else math.nan)
            except ValueError:
                raise RecordingsError(f"{told.source.place}: {name} {text[:40]!r} is no number; mend the file") from None
    stamps = np.array(times, np.int64)
    order = np.argsort(stamps, kind="stable")
    found: Table = {"open_time_ns": stamps[order]} | {name: np.array(column)[order] for name, column in values.items()}
    again = np.flatnonzero(np.diff(found["open_time_ns"]) == 0) + 1
    for name in ("open", "high", "low", "close", "volume"):
        odd = again[found[name][again] != found[name][again - 1]]
        if odd.size:
            at = int(found["open_time_ns"][odd[0]])
            raise RecordingsError(f"{told.source.place}: two different candles begin at {at} ns; mend the file")
    if again.size:
        told.left_out["candles that stand twice"] += int(again.size)
        found = {name: np.delete(column, again) for name, column in found.items()}
    return found


def _check(values: Table, told: Told) -> None:
    """No candle that cannot be true."""
    low, high, volume = values["low"], values["high"], values["volume"]
    good = (low > 0) & (volume >= 0) & np.isfinite(high) & np.isfinite(volume)
    for name in ("open", "close"):
        good &= (low <= values[name]) & (values[name] <= high)
    if not good.all():
        at = int(np.argmin(good))
        shown = " ".join(f"{values[name][at]:.15g}" for name in ("open", "high", "low", "close"))
        raise RecordingsError(
            f"{told.source.place}: the candle at {int(values['open_time_ns'][at])} ns cannot be true (open, high, low, close "
            f"{shown}, volume {volume[at]:.15g}); mend the file"
        )


def _joined(columns: Table, size: int, wanted: int) -> Table:
    starts = columns["open_time_ns"] // wanted * wanted
    first = np.flatnonzero(np.append(True, np.diff(starts) != 0))
    last = np.append(first[1:], len(starts)) - 1
    sums = {name: np.add.reduceat(columns[name], first) for name in ("volume", "quote_volume", "buy_volume", "trades")}
    return sums | {
        "incomplete": (last - first + 1) * size < wanted, "open_time_ns": starts[first],
        "open": columns["open"][first], "close": columns["close"][last],
        "high": np.maximum.reduceat(columns["high"], first), "low": np.minimum.reduceat(columns["low"], first),
    }  # fmt: skip


def tables_of(folded: Folded, size: int) -> list[Table]:
    """The candles of a recording's trades, a table a symbol; symbols without a trade have none."""
    kept: list[Any] = []
    for chunk in folded.chunks():
        kept.append(chunk.market[chunk.market["kind"] == Kind.TRADE])
    recs: Any = np.concatenate(kept) if kept else np.zeros(0)
    tables = []
    for index, (instrument, row) in enumerate(zip(folded.instruments, folded.table, strict=True)):
        own = recs[recs["symbol"] == index] if len(recs) else recs
        if not len(own):
            continue
        sells = (own["flags"] & int(Flag.AGGRESSOR_SELL)) != 0
        rows = candles_of(
            own["ts_exchange_ns"], own["update_id"], own["price_ticks"], own["qty_lots"], sells, [size],
            counts_ids=instrument.market.facts.gapless_ids,
        )[size]  # fmt: skip
        unit = int(row["tick_units"])
        price_scale, qty_scale = 10.0 ** int(row["price_decimals"]), 10.0 ** int(row["qty_decimals"])
        doubtful = int(CandleFlag.INCOMPLETE | CandleFlag.OVERFLOW | CandleFlag.OPEN)
        prices = {name: rows[f"{name}_ticks"] * unit / price_scale for name in ("open", "high", "low", "close")}
        quote = np.array([notional(it) for it in rows], np.float64) * unit / (price_scale * qty_scale)
        tables.append({
            "symbol": np.full(len(rows), instrument.name, object), "open_time_ns": rows["open_time_ns"],
            "size_ns": np.full(len(rows), size, np.int64), **prices, "volume": rows["volume_lots"] / qty_scale,
            "quote_volume": quote, "buy_volume": rows["buy_volume_lots"] / qty_scale, "trades": rows["trades"].astype(np.float64),
            "incomplete": (rows["flags"] & doubtful) != 0,
        })  # fmt: skip
    return tables


def write(tables: Sequence[Table], path: Path, form: str) -> int:
    """All tables as one file of `form`, a suffix; how many candles."""
    rows = 0
    with contextlib.ExitStack() as stack:
        put = _csv(stack, path) if form == ".csv" else _parquet(stack, path)
        for table in tables:
            for at in range(0, len(table["symbol"]), _ROWS):
                put({name: _listed(name, table[name][at : at + _ROWS]) for name in COLUMNS})
            rows += len(table["symbol"])
    return rows


def _listed(name: str, column: Any) -> list[Any]:
    if name not in NUMBERS:
        found: list[Any] = column.tolist()
        return found
    as_int = name == "trades"
    return [None if math.isnan(value) else int(value) if as_int else value for value in column.tolist()]


def _csv(stack: contextlib.ExitStack, path: Path) -> Callable[[dict[str, list[Any]]], None]:
    writer = csv.writer(stack.enter_context(path.open("w", newline="", encoding="utf-8")), lineterminator="\n")
    writer.writerow(COLUMNS)

    def put(columns: dict[str, list[Any]]) -> None:
        for *values, incomplete in zip(*columns.values(), strict=True):
            writer.writerow([*("" if value is None else value for value in values), str(incomplete).lower()])

    return put


def _parquet(stack: contextlib.ExitStack, path: Path) -> Callable[[dict[str, list[Any]]], None]:
    pa, pq = arrow()
    kinds = {name: pa.float64() for name in FLOATS} | {name: pa.int64() for name in ("open_time_ns", "size_ns", "trades")}
    kinds |= {"symbol": pa.string(), "incomplete": pa.bool_()}
    schema = pa.schema([(name, kinds[name]) for name in COLUMNS])
    writer = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
    return lambda columns: writer.write_table(pa.table(columns, schema))
