"""What the candle tests stand on: trades of the recordings, read without the project's decoder, and a naive group-by of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trading import candles as cd


class Trade(NamedTuple):
    """One trade, in the order of add_trade's arguments."""

    ts_ns: int
    trade_id: int
    ticks: int
    lots: int
    sell: bool


def recorded_trades(folder: Path, names: Iterable[str], tick: str, lot: str) -> list[Trade]:
    """All trades of these files, by json and decimal alone."""
    found = []
    for name in names:
        with gzip.open(folder / "hftbacktest_binance" / f"{name}.gz", "rt") as file:
            for line in file:
                if '"e":"trade"' not in line:
                    continue
                d = json.loads(line.split(" ", 1)[1])["data"]
                ticks, lots = Decimal(d["p"]) / Decimal(tick), Decimal(d["q"]) / Decimal(lot)
                assert ticks == int(ticks) and lots == int(lots)
                found.append(Trade(d["T"] * 1_000_000, d["t"], int(ticks), int(lots), d["m"]))
    return found


def naive(trades: Iterable[Trade], size_ns: int) -> list[dict[str, int]]:
    """Group by bucket, then ask each group: nothing incremental, no numpy."""
    buckets: dict[int, list[Trade]] = {}
    for trade in sorted(trades):
        buckets.setdefault(trade.ts_ns // size_ns, []).append(trade)
    return [
        {
            "open_time_ns": number * size_ns,
            "size_ns": size_ns,
            "open_ticks": group[0].ticks,
            "high_ticks": max(t.ticks for t in group),
            "low_ticks": min(t.ticks for t in group),
            "close_ticks": group[-1].ticks,
            "volume_lots": sum(t.lots for t in group),
            "buy_volume_lots": sum(t.lots for t in group if not t.sell),
            "trades": len(group),
            "first_trade_id": group[0].trade_id,
            "last_trade_id": group[-1].trade_id,
            "first_ts_ns": group[0].ts_ns,
            "last_ts_ns": group[-1].ts_ns,
            "notional": sum(t.ticks * t.lots for t in group),
        }
        for number, group in sorted(buckets.items())
    ]


def shown(candles: np.ndarray) -> list[dict[str, int]]:
    """Candles as `naive` shows them (no flags)."""
    names = [n for n in candles.dtype.names if n not in ("flags", "notional_high", "notional_low")]
    return [{**{n: int(c[n]) for n in names}, "notional": cd.notional(c)} for c in candles]


def streamed(pieces: Iterable[list[Trade]], sizes: list[int], ring: int = 512, counts_ids: bool = False) -> cd.Candles:
    """The state after these trades, one call of add_trades a piece."""
    state = cd.make_candles(1, sizes, ring=ring, counts_ids=[counts_ids])
    for piece in pieces:
        columns = [np.array(c, np.int64) for c in zip(*piece)] if piece else [np.zeros(0, np.int64)] * 5
        cd.add_trades(state, 0, *columns[:4], columns[4].astype(np.bool_))
    return state


def all_candles(state: cd.Candles, size: int) -> np.ndarray:
    """Closed ones, then the open one."""
    return np.concatenate([cd.closed_candles(state, 0, size), cd.open_candle(state, 0, size)])
