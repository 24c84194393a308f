"""Candles as a table, Parquet or CSV by the file's ending: from a source's own candles, or from the trades of a recording.

    symbol, open_time_ns, size_ns, open, high, low, close, volume, quote_volume, buy_volume, trades, incomplete

volume and buy_volume (of trades whose aggressor bought) are in the base currency. A figure that the source does not have is null.
incomplete: trades of the candle may be missing, as at the beginning and the end of a recording. Candles hold no book and no
prints: no signal is computed of them and no order is simulated on them.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Sequence
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
COLUMNS: Final = ("symbol", "open_time_ns", "size_ns", *FLOATS, "trades", "incomplete")
SUFFIXES: Final = (".parquet", ".csv")
Table = dict[str, list[Any]]


def size_of(text: str) -> int:
    """A `--size`, in ns."""
    try:
        return parse_size(text)
    except CandleError as error:
        raise RecordingsError(f"--size {error}") from None


def table_of(bars: Sequence[Bar], told: Told, symbol: str, wanted_ns: int) -> Table:
    """A source's candles, checked, in columns; several joined to one where `wanted_ns`, unless 0, is a multiple of their size.

    Raises RecordingsError for candles that cannot be true."""
    found: list[Bar] = []
    for bar in sorted(bars, key=lambda it: it.open_time_ns):
        if found and bar.open_time_ns == found[-1].open_time_ns:
            if bar[1:6] != found[-1][1:6]:
                raise RecordingsError(f"{told.source.place}: two different candles begin at {bar.open_time_ns} ns; mend the file")
            told.left_out["candles that stand twice"] += 1
            continue
        found.append(bar)
    if not found:
        raise RecordingsError(f"{told.source.place}: holds no candle; nothing to convert")
    times = np.array([bar.open_time_ns for bar in found], np.int64)
    values = {name: _floats([getattr(bar, name) for bar in found], told, name) for name in FLOATS}
    _check(values, times, told)
    steps = np.diff(times)
    size = int(steps.min()) if steps.size else wanted_ns
    if not size:
        raise RecordingsError(f"{told.source.place}: holds one candle, which does not say its size; give it with --size")
    if ((times - times[0]) % size).any():
        raise RecordingsError(f"{told.source.place}: the candles stand at no even distance; give files of one size")
    if missing := int((steps // size - 1).sum()):
        told.words.append(f"{missing:,} candles are missing between the first and the last")
    counts = _floats([bar.trades for bar in found], told, "trades")
    columns: dict[str, Any] = values | {"trades": counts, "open_time_ns": times, "incomplete": np.zeros(len(times), bool)}
    if wanted_ns and wanted_ns != size:
        if wanted_ns % size:
            own = size_name(size)
            raise RecordingsError(f"--size {size_name(wanted_ns)} is no multiple of the candles' own {own}; give another")
        columns, size = _joined(columns, size, wanted_ns), wanted_ns
    n = len(columns["open_time_ns"])
    lists = {name: _nulls(columns[name]) for name in FLOATS}
    trades = [None if np.isnan(count) else int(count) for count in columns["trades"]]
    return {"symbol": [symbol] * n, "open_time_ns": columns["open_time_ns"].tolist(), "size_ns": [size] * n, **lists,
            "trades": trades, "incomplete": columns["incomplete"].tolist()}  # fmt: skip


def _floats(texts: Sequence[str], told: Told, name: str) -> Any:
    try:
        found = np.array([float(text) if text else np.nan for text in texts], np.float64)
    except ValueError:
        odd = next(text for text in texts if text and not _is_float(text))
        raise RecordingsError(f"{told.source.place}: {name} {odd[:40]!r} is no number; mend the file") from None
    if np.isinf(found).any():
        raise RecordingsError(f"{told.source.place}: a {name} is infinite; mend the file")
    return found


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check(values: dict[str, Any], times: Any, told: Told) -> None:
    """No candle that cannot be true."""
    low, high = values["low"], values["high"]
    good = (low > 0) & (values["volume"] >= 0)
    for name in ("open", "close"):
        good &= (low <= values[name]) & (values[name] <= high)
    if not good.all():
        at = int(np.argmin(good))
        shown = " ".join(f"{values[name][at]:.15g}" for name in ("open", "high", "low", "close"))
        raise RecordingsError(
            f"{told.source.place}: the candle at {int(times[at])} ns cannot be true (open, high, low, close {shown}, volume "
            f"{values['volume'][at]:.15g}); mend the file"
        )


def _joined(columns: dict[str, Any], size: int, wanted: int) -> dict[str, Any]:
    starts = columns["open_time_ns"] // wanted * wanted
    first = np.flatnonzero(np.append(True, np.diff(starts) != 0))
    last = np.append(first[1:], len(starts)) - 1
    sums = {name: np.add.reduceat(columns[name], first) for name in ("volume", "quote_volume", "buy_volume", "trades")}
    return sums | {
        "incomplete": (last - first + 1) * size < wanted, "open_time_ns": starts[first],
        "open": columns["open"][first], "close": columns["close"][last],
        "high": np.maximum.reduceat(columns["high"], first), "low": np.minimum.reduceat(columns["low"], first),
    }  # fmt: skip


def _nulls(values: Any) -> list[Any]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def tables_of(folded: Folded, size: int) -> list[Table]:
    """The candles of a recording's trades, a table a symbol; symbols without a trade have none."""
    kept: list[Any] = []
    for chunk in folded.chunks():
        kept.append(chunk.market[chunk.market["kind"] == Kind.TRADE])
    recs = np.concatenate(kept) if kept else np.zeros(0)
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
        prices = {name: (rows[f"{name}_ticks"] * unit / price_scale).tolist() for name in ("open", "high", "low", "close")}
        tables.append({
            "symbol": [instrument.name] * len(rows), "open_time_ns": rows["open_time_ns"].tolist(), "size_ns": [size] * len(rows),
            **prices, "volume": (rows["volume_lots"] / qty_scale).tolist(),
            "quote_volume": [notional(it) * unit / (price_scale * qty_scale) for it in rows],
            "buy_volume": (rows["buy_volume_lots"] / qty_scale).tolist(),
            "trades": rows["trades"].tolist(), "incomplete": ((rows["flags"] & doubtful) != 0).tolist(),
        })  # fmt: skip
    return tables


def _cell(value: Any) -> Any:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def write(tables: Sequence[Table], path: Path, form: str) -> int:
    """All tables as one file of `form`, a suffix; how many candles."""
    joined = {name: [value for table in tables for value in table[name]] for name in COLUMNS}
    if form == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in zip(*joined.values(), strict=True):
                writer.writerow([_cell(value) for value in row])
    else:
        pa, _ = arrow()
        kinds = {name: pa.float64() for name in FLOATS} | {name: pa.int64() for name in ("open_time_ns", "size_ns", "trades")}
        kinds |= {"symbol": pa.string(), "incomplete": pa.bool_()}
        table = pa.table({name: pa.array(values, kinds[name]) for name, values in joined.items()})
        importlib.import_module("pyarrow.parquet").write_table(table, path, compression="zstd")
    return len(joined["symbol"])
