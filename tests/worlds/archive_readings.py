"""How the tests of others' files read what came out of a conversion, and the samples of each kind of prints and candles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import archive_files as af
import pytest
from archive_files import MS, SYMBOL, Step, Trade, put

from procs.cli.main import main
from procs.cli.outcome import OK
from procs.recordings import files
from procs.recordings.checking import staged
from procs.recordings.folding import Folded
from trading.records import Flag, Kind

TICK, LOT = 0.1, 0.001


def run(*words: Any) -> int:
    """`scalperctl` in this process."""
    return main([str(word) for word in words])


def converted(out: Path, *paths: Path, more: tuple[str, ...] = ()) -> Path:
    """A recording made of the files."""
    assert run("data", "convert", *paths, "--to", "recording", "--out", out, *more) == OK
    return out


def folded(path: Path, folder: Path) -> Folded:
    """A recording, staged in `folder`."""
    (chain,) = files.chains([path])
    recording, _ = staged(chain, folder / f"{path.name}.spool")
    return Folded(folder / f"{path.name}.spool", recording)


def units(fold: Folded) -> tuple[float, float]:
    """(prices, quantities of `archive_files`) a tick and a lot of the fold."""
    row = fold.table[0]
    return int(row["tick_units"]) / 10 ** int(row["price_decimals"]) / TICK, 10 ** -int(row["qty_decimals"]) / LOT


def books(fold: Folded) -> Iterator[tuple[int, int, dict[int, int], dict[int, int]]]:
    """(receive time, update id, bids, asks) behind each frame that told of the book."""
    tick, lot = units(fold)
    sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for chunk in fold.chunks():
        at = 0
        for count in chunk.counts[:, 1].tolist():
            rows = chunk.depth[at : at + count]
            at += count
            for row in rows:
                if row["kind"] == Kind.SNAPSHOT:
                    sides = ({}, {})
                elif row["kind"] == Kind.DEPTH:
                    side = sides[1 if row["flags"] & int(Flag.ASK) else 0]
                    price = round(int(row["price_ticks"]) * tick)
                    side.pop(price, None)
                    if row["qty_lots"]:
                        side[price] = round(int(row["qty_lots"]) * lot)
            if count:
                yield int(rows[-1]["ts_ns"]), int(rows[-1]["update_id"]), dict(sides[0]), dict(sides[1])


def prints(fold: Folded) -> list[Trade]:
    """The trades of a fold; `number` is the id that the recording has."""
    tick, lot = units(fold)
    found = []
    for chunk in fold.chunks():
        for row in chunk.market[chunk.market["kind"] == Kind.TRADE]:
            seller = bool(row["flags"] & int(Flag.AGGRESSOR_SELL))
            price, lots = round(int(row["price_ticks"]) * tick), round(int(row["qty_lots"]) * lot)
            found.append(Trade(int(row["ts_exchange_ns"]), int(row["update_id"]), price, lots, seller))
    return found


def without_ids(trades: list[Trade]) -> list[tuple[int, int, int, bool]]:
    """What every source has of a trade."""
    return [(t.ts_ns, t.price, t.lots, t.seller) for t in trades]


def t_depth(folder: Path, steps: list[Step], *, snapshot: int = 3, pu: bool = True, gap: int = 0) -> list[Path]:
    """The two files of a day."""
    update = af.depth_updates(steps, pu=pu)
    if gap:
        first = f",{1000 + 10 * gap},"
        update = "".join(line for line in update.splitlines(keepends=True) if first not in line)
    return [
        put(folder / f"{SYMBOL}_T_DEPTH_2024-01-01_depth_update.csv", update),
        put(folder / f"{SYMBOL}_T_DEPTH_2024-01-01_depth_snap.csv.gz", af.depth_snapshot(steps, snapshot, pu=pu)),
    ]


def feather(rows: list[list[Any]], names: list[str], path: Path) -> Path:
    """Rows as freqtrade keeps them."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table(dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True)))
    if "date" in names:
        date = pa.array([row[0] * MS for row in rows], pa.timestamp("ns", "UTC"))
        table = table.set_column(0, "date", date)
    if path.suffix == ".feather":
        pytest.importorskip("pyarrow.feather").write_feather(table, path, compression="lz4")
    else:
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    return path


FREQ_TRADES = ["timestamp", "id", "type", "side", "price", "amount", "cost"]
FREQ_BARS = ["date", "open", "high", "low", "close", "volume"]
Maker = Callable[[Path, list[Trade]], Path]
PRINTS: dict[str, Maker] = {
    "aggTrades of spot, zip": lambda d, t: put(d / f"{SYMBOL}-aggTrades-2024-01-01.zip", af.agg_trades(t, spot=True)),
    "aggTrades of spot in us": lambda d, t: put(d / f"{SYMBOL}-aggTrades-2025-01-01.csv", af.agg_trades(t, spot=True, unit=1000)),
    "aggTrades of futures": lambda d, t: put(d / f"{SYMBOL}-aggTrades-2024-01-01.csv.gz", af.agg_trades(t, header=True)),
    "aggTrades of futures, bare": lambda d, t: put(d / f"{SYMBOL}-aggTrades-2022-01-01.csv", af.agg_trades(t)),
    "trades of spot": lambda d, t: put(d / f"{SYMBOL}-trades-2024-01-01.csv", af.binance_trades(t, spot=True)),
    "trades of futures": lambda d, t: put(d / f"{SYMBOL}-trades-2024-01-01.zip", af.binance_trades(t, header=True)),
    "trades of futures, bare": lambda d, t: put(d / f"{SYMBOL}-trades-2022-01-01.csv", af.binance_trades(t)),
    "Bybit contract": lambda d, t: put(d / "BTCUSDT2024-01-01.csv.gz", af.bybit_trades(t)),
    "Bybit spot": lambda d, t: put(d / "BTCUSDT_2024-01-01.csv.gz", af.bybit_spot_trades(t)),
    "freqtrade json": lambda d, t: put(d / "BTC_USDT-trades.json", json.dumps(af.freqtrade_trades(t))),
    "freqtrade json.gz": lambda d, t: put(d / "BTC_USDT_USDT-trades-futures.json.gz", json.dumps(af.freqtrade_trades(t))),
    "freqtrade feather": lambda d, t: feather(af.freqtrade_trades(t), FREQ_TRADES, d / "BTC_USDT-trades.feather"),
    "freqtrade Parquet": lambda d, t: feather(af.freqtrade_trades(t), FREQ_TRADES, d / "BTC_USDT-trades.parquet"),
}


def table(path: Path) -> dict[str, list[Any]]:
    """A candle file's columns, read by polars."""
    pl = pytest.importorskip("polars")
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    return {name: frame[name].to_list() for name in frame.columns}


def assert_candles(found: dict[str, list[Any]], trades: list[Trade], size_ns: int) -> None:
    """The table is what plain dictionaries make of the trades."""
    rows = af.candles_of(trades, size_ns)
    assert found["open_time_ns"] == [row[0] for row in rows] and set(found["size_ns"]) == {size_ns}
    for k, name in enumerate(("open", "high", "low", "close"), 1):
        assert found[name] == pytest.approx([row[k] * TICK for row in rows], rel=1e-12)
    assert found["volume"] == pytest.approx([row[5] * LOT for row in rows], rel=1e-12)


BARS: dict[str, Maker] = {
    "klines": lambda d, t: put(d / f"{SYMBOL}-1s-2024-01-01.zip", af.klines(t)),
    "klines with a header": lambda d, t: put(d / f"{SYMBOL}-1s-2024-01-01.csv", af.klines(t, header=True)),
    "klines in us": lambda d, t: put(d / f"{SYMBOL}-1s-2025-01-01.csv", af.klines(t, unit=1000)),
    "freqtrade json": lambda d, t: put(d / "BTC_USDT-1s.json.gz", json.dumps(af.freqtrade_candles(t))),
    "freqtrade feather": lambda d, t: feather(af.freqtrade_candles(t), FREQ_BARS, d / "BTC_USDT-1s.feather"),
    "freqtrade Parquet": lambda d, t: feather(af.freqtrade_candles(t), FREQ_BARS, d / "BTC_USDT-1s.parquet"),
    "CSV": lambda d, t: put(d / "BTCUSDT.csv", af.csv_text(af.freqtrade_candles(t), ["timestamp", *FREQ_BARS[1:]])),
    "Lean": lambda d, t: put(d / "20240101_btcusdt_second_trade.csv", af.csv_text(
        [[ms - af.T0 // MS // 86_400_000 * 86_400_000, *rest] for ms, *rest in af.freqtrade_candles(t)])),
}  # fmt: skip
