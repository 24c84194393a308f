"""A small seeded market, and the files that other programs and venues' download pages would have of it.

Prices are units of 0.1, quantities of 0.001; times are ns, whole milliseconds.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

T0: Final = 1_704_067_200_123_000_000
"""2024-01-01T00:00:00.123Z"""
MS: Final = 1_000_000
SYMBOL: Final = "BTCUSDT"
DEPTH: Final = 60


@dataclass(frozen=True)
class Step:
    """The book after a change: price -> lots of bids and of asks, and what changed: (side "b" or "a", price, lots)."""

    ts_ns: int
    bids: dict[int, int]
    asks: dict[int, int]
    changes: list[tuple[str, int, int]]

    def best(self, n: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The n best levels of a side, best first."""
        return sorted(self.bids.items(), reverse=True)[:n], sorted(self.asks.items())[:n]


@dataclass(frozen=True)
class Trade:
    """seller: the aggressor sold."""

    ts_ns: int
    number: int
    price: int
    lots: int
    seller: bool


def market(seed: int = 1, steps: int = 400) -> tuple[list[Step], list[Trade]]:
    """A walk of the mid with DEPTH levels a side, some changed at each step, and a trade behind every second one."""
    draw = random.Random(seed)
    mid, ts_ns = 423_000, T0
    bids = {mid - k: draw.randrange(1, 9000) for k in range(1, DEPTH + 1)}
    asks = {mid + k: draw.randrange(1, 9000) for k in range(1, DEPTH + 1)}
    found, trades = [Step(ts_ns, dict(bids), dict(asks), [])], []
    for number in range(steps):
        ts_ns += draw.randrange(20, 300) * MS
        mid += draw.choice((-7, -2, -1, 0, 0, 1, 2, 7))
        changes: list[tuple[str, int, int]] = []
        for side, book, sign in (("b", bids, -1), ("a", asks, 1)):
            wanted = {mid + sign * k for k in range(1, DEPTH + 1)}
            for price in [price for price in book if price not in wanted]:
                del book[price]
                changes.append((side, price, 0))
            for price in sorted(wanted):
                if price not in book or draw.random() < 0.05:
                    book[price] = draw.randrange(1, 9000)
                    changes.append((side, price, book[price]))
        found.append(Step(ts_ns, dict(bids), dict(asks), changes))
        if number % 2:
            seller = draw.random() < 0.5
            price = mid + (-1 if seller else 1)
            trades.append(Trade(ts_ns + 5 * MS, 5_000_000 + len(trades), price, draw.randrange(1, 900), seller))
    return found, trades


def p(price: int) -> str:
    """As text."""
    return f"{price // 10}.{price % 10}"


def q(lots: int) -> str:
    """As text."""
    return f"{lots // 1000}.{lots % 1000:03d}"


def csv_text(rows: list[list[Any]], header: list[str] | None = None) -> str:
    """Lines of CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows] if header else rows)
    return out.getvalue()


def put(path: Path, text: str) -> Path:
    """The text as a file: .gz and .zip by the name."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.stem if "." in path.stem else f"{path.stem}.csv", text)
    else:
        path.write_text(text)
    return path


# ---- tardis


def book_snapshot(steps: list[Step], depth: int) -> str:
    """A row a step: the `depth` best levels."""
    header = ["exchange", "symbol", "timestamp", "local_timestamp"]
    for k in range(depth):
        header += [f"asks[{k}].price", f"asks[{k}].amount", f"bids[{k}].price", f"bids[{k}].amount"]
    rows = []
    for step in steps:
        bids, asks = step.best(depth)
        row: list[Any] = ["binance-futures", SYMBOL, step.ts_ns // 1000, step.ts_ns // 1000 + 1500]
        for k in range(depth):
            for side in (asks, bids):
                row += [p(side[k][0]), q(side[k][1])] if k < len(side) else ["", ""]
        rows.append(row)
    return csv_text(rows, header)


def tardis_trades(trades: list[Trade]) -> str:
    """Tardis' trades."""
    rows = [["binance-futures", SYMBOL, t.ts_ns // 1000, t.ts_ns // 1000 + 1500, t.number, "sell" if t.seller else "buy",
             p(t.price), q(t.lots)] for t in trades]  # fmt: skip
    return csv_text(rows, ["exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount"])


# ---- Binance's public data

AGG_HEADER: Final = ["agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", "is_buyer_maker"]
TRADE_HEADER: Final = ["id", "price", "qty", "quote_qty", "time", "is_buyer_maker"]
KLINE_HEADER: Final = ["open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
                       "taker_buy_volume", "taker_buy_quote_volume", "ignore"]  # fmt: skip


def agg_trades(trades: list[Trade], *, spot: bool = False, header: bool = False, unit: int = MS) -> str:
    """Spot has a column more; times in `unit` ns."""
    rows = [[t.number, p(t.price), q(t.lots), t.number, t.number, t.ts_ns // unit, str(t.seller).lower(), *(["True"] * spot)]
            for t in trades]  # fmt: skip
    return csv_text(rows, AGG_HEADER if header else None)


def binance_trades(trades: list[Trade], *, spot: bool = False, header: bool = False, unit: int = MS) -> str:
    """As `agg_trades`."""
    rows = [[t.number, p(t.price), q(t.lots), f"{t.price * t.lots / 1e4:.4f}", t.ts_ns // unit, str(t.seller).lower(),
             *(["True"] * spot)] for t in trades]  # fmt: skip
    return csv_text(rows, TRADE_HEADER if header else None)


def candles_of(trades: list[Trade], size_ns: int) -> list[list[Any]]:
    """Plain dictionaries: open time, open, high, low, close, volume, quote volume, count, bought volume, in units."""
    found: dict[int, list[Any]] = {}
    for t in trades:
        start = t.ts_ns // size_ns * size_ns
        row = found.setdefault(start, [start, t.price, t.price, t.price, t.price, 0, 0, 0, 0])
        row[2], row[3], row[4] = max(row[2], t.price), min(row[3], t.price), t.price
        row[5] += t.lots
        row[6] += t.lots * t.price
        row[7] += 1
        row[8] += 0 if t.seller else t.lots
    return [found[start] for start in sorted(found)]


def klines(trades: list[Trade], *, header: bool = False, unit: int = MS, size_ns: int = 1_000 * MS) -> str:
    """Binance's candles of the trades."""
    rows = [
        [start // unit, p(o), p(h), p(low), p(c), q(v), (start + size_ns) // unit - 1, f"{quote / 1e4:.4f}", n, q(bought), "0", 0]
        for start, o, h, low, c, v, quote, n, bought in candles_of(trades, size_ns)
    ]
    return csv_text(rows, KLINE_HEADER if header else None)


DEPTH_HEADER: Final = ["symbol", "timestamp", "first_update_id", "last_update_id", "side", "update_type", "price", "qty", "pu"]


def depth_updates(steps: list[Step], *, pu: bool = True) -> str:
    """T_DEPTH's changes: step k has the ids 1000 + 10 k to 1005 + 10 k."""
    rows = [
        [SYMBOL, step.ts_ns // MS, 1000 + 10 * k, 1005 + 10 * k, side, "set", p(price), q(lots), *([995 + 10 * k] * pu)]
        for k, step in enumerate(steps) if k for side, price, lots in step.changes
    ]  # fmt: skip
    return csv_text(rows, DEPTH_HEADER if pu else DEPTH_HEADER[:-1])


def depth_snapshot(steps: list[Step], k: int, *, pu: bool = True) -> str:
    """T_DEPTH's snapshot after step k."""
    step = steps[k]
    rows = [[SYMBOL, step.ts_ns // MS, 1005 + 10 * k, 1005 + 10 * k, side, "snap", p(price), q(lots), *([-1] * pu)]
            for side, book in (("b", step.bids), ("a", step.asks)) for price, lots in book.items()]  # fmt: skip
    return csv_text(rows, DEPTH_HEADER if pu else DEPTH_HEADER[:-1])


# ---- Bybit


def ob500(steps: list[Step], *, leave_out: int = -1) -> str:
    """A snapshot and deltas; `leave_out`: the message that is missing."""
    lines = []
    for k, step in enumerate(steps):
        if k == leave_out:
            continue
        whole = [("b", *level) for level in step.best(DEPTH)[0]] + [("a", *level) for level in step.best(DEPTH)[1]]
        told = step.changes if k else whole
        levels = {side: [[p(price), q(lots)] for of, price, lots in told if of == side] for side in ("b", "a")}
        said = {"topic": f"orderbook.500.{SYMBOL}", "type": "delta" if k else "snapshot", "ts": step.ts_ns // MS + 2}
        said |= {"data": {"s": SYMBOL, **levels, "u": 3_360_159 + k, "seq": 113_816_269_385 + 7 * k}, "cts": step.ts_ns // MS}
        lines.append(json.dumps(said, separators=(",", ":")))
    return "\n".join(lines) + "\n"


def bybit_trades(trades: list[Trade]) -> str:
    """Contracts': seconds with a fraction."""
    header = ["timestamp", "symbol", "side", "size", "price", "tickDirection", "trdMatchID", "grossValue", "homeNotional",
              "foreignNotional"]  # fmt: skip
    rows = [[f"{t.ts_ns // 10**9}.{t.ts_ns % 10**9 // 100_000:04d}", SYMBOL, "Sell" if t.seller else "Buy", q(t.lots), p(t.price),
             "PlusTick", f"id-{t.number}", 0, q(t.lots), 0] for t in trades]  # fmt: skip
    return csv_text(rows, header)


def bybit_spot_trades(trades: list[Trade]) -> str:
    """Spot's: milliseconds."""
    rows = [[t.number, t.ts_ns // MS, p(t.price), q(t.lots), "sell" if t.seller else "buy"] for t in trades]
    return csv_text(rows, ["id", "timestamp", "price", "volume", "side"])


# ---- freqtrade


def freqtrade_trades(trades: list[Trade]) -> list[list[Any]]:
    """Rows of its json and feather."""
    return [[t.ts_ns // MS, str(t.number), None, "sell" if t.seller else "buy", t.price / 10, t.lots / 1000,
             t.price * t.lots / 1e4] for t in trades]  # fmt: skip


def freqtrade_candles(trades: list[Trade], size_ns: int = 1_000 * MS) -> list[list[Any]]:
    """Rows of its json."""
    return [[start // MS, o / 10, h / 10, low / 10, c / 10, v / 1000]
            for start, o, h, low, c, v, *_ in candles_of(trades, size_ns)]  # fmt: skip
