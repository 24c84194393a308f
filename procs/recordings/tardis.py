"""Tardis-like CSV (plain or .gz), to a recording and from one. Times are microseconds, decimals are kept as they are printed.

    incremental_book_L2   exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount
    trades                exchange,symbol,timestamp,local_timestamp,id,side,price,amount
    quotes, book_ticker   exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount

The kind of a file is told by its columns. Book rows of one local time are one message; the first snapshot row after others begins
the book anew. Files of one symbol are merged by local time; at the same time trades go before the book, which already
has them in its quantities, and the book before quotes.
"""

from __future__ import annotations

import csv
import gzip
import heapq
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from procs.recordings.folding import Folded
from procs.recordings.output import RecordingsError
from procs.recordings.wire_text import ASK, BID, FrameWriter, decimals_of, units_of_text
from sim.recordings.spool import decimal_text
from trading.records import Flag, Kind
from trading.venues.names import VENUES

_KEY: Final = ("exchange", "symbol", "timestamp", "local_timestamp")
COLUMNS: Final = {
    "trades": (*_KEY, "id", "side", "price", "amount"),
    "incremental_book_L2": (*_KEY, "is_snapshot", "side", "price", "amount"),
    "quotes": (*_KEY, "ask_amount", "ask_price", "bid_price", "bid_amount"),
}
"""In the order in which messages of the same time are taken."""
EXCHANGES: Final = {it.label: it.facts.tardis for it in VENUES if it.facts.tardis}
"""What Tardis calls venues, where it calls them otherwise than we do."""


@dataclass(frozen=True, slots=True)
class Table:
    """One CSV file: its kind, whose it is, and the decimals that it needs."""

    path: Path
    kind: str
    exchange: str
    symbol: str
    price_decimals: int
    qty_decimals: int


Row = dict[str, str]


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", newline="") if zipped else path.open("r", newline="")


def rows_of(path: Path) -> tuple[str, Iterator[Row]]:
    """(kind, its rows). Raises RecordingsError."""
    try:
        file = _opened(path)
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise RecordingsError(f"{path}: cannot be read ({error}); fetch the file again") from None
    kind = next((kind for kind, columns in COLUMNS.items() if set(columns) <= set(header)), "")
    if not kind:
        raise RecordingsError(
            f"{path}: its columns {','.join(header)[:120]!r} are of no kind known; wanted trades, incremental_book_L2 or quotes"
        )

    def rows() -> Iterator[Row]:
        with file:
            try:
                for cells in reader:
                    if len(cells) != len(header):
                        raise RecordingsError(
                            f"{path}:{reader.line_num}: {len(cells)} columns in place of {len(header)}; fetch the file again"
                        )
                    yield dict(zip(header, cells, strict=True))
            except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
                raise RecordingsError(f"{path}:{reader.line_num}: ends in the middle ({error}); fetch the file again") from None

    return kind, rows()


def survey(path: Path) -> Table:
    """One pass over a file: whose it is, and how finely it prints."""
    kind, rows = rows_of(path)
    prices: set[str] = set()
    amounts: set[str] = set()
    exchange = symbol = ""
    for row in rows:
        if not symbol:
            exchange, symbol = row["exchange"], row["symbol"]
        elif row["symbol"] != symbol:
            raise RecordingsError(f"{path}: holds {symbol} and {row['symbol']}; give each symbol its own file")
        if kind == "quotes":
            prices.update((row["ask_price"], row["bid_price"]))
            amounts.update((row["ask_amount"], row["bid_amount"]))
        else:
            prices.add(row["price"])
            amounts.add(row["amount"])
    if not symbol:
        raise RecordingsError(f"{path}: holds no row; leave it out")
    return Table(path, kind, exchange, symbol, decimals_of(prices, "price"), decimals_of(amounts, "amount"))


def write_frames(
    tables: Sequence[Table], out: Callable[[bytes], Any], symbol: str, usdm: bool, progress: Callable[[int], None] | None = None
) -> FrameWriter:
    """All tables of one symbol as frames, in the order of their local times."""
    price_decimals, qty_decimals = max(t.price_decimals for t in tables), max(t.qty_decimals for t in tables)
    writer = FrameWriter(out, symbol, usdm, price_decimals, qty_decimals)
    order = list(COLUMNS)
    streams = [_messages(table, order.index(table.kind), n) for n, table in enumerate(tables)]
    in_snapshot = False

    def price(row: Row, name: str = "price") -> int:
        return units_of_text(row[name] or "0", price_decimals, "price")

    def amount(row: Row, name: str = "amount") -> int:
        return units_of_text(row[name] or "0", qty_decimals, "amount")

    for count, (local_us, _, kind, rows) in enumerate(heapq.merge(*streams, key=lambda message: message[:2])):
        recv = local_us * 1000
        first = rows[0]
        exchange = int(first["timestamp"] or 0) * 1000
        if kind == 0:
            for row in rows:
                number = int(row["id"]) if row["id"].isdigit() and len(row["id"]) < 18 else 0
                writer.trade(recv, int(row["timestamp"] or 0) * 1000, price(row), amount(row), row["side"] == "sell", number)
        elif kind == 1:
            levels = [(ASK if row["side"] in ("ask", "sell") else BID, price(row), amount(row)) for row in rows]
            if first["is_snapshot"].lower() != "true":
                in_snapshot = False
                writer.change(recv, exchange, levels)
            else:
                book: tuple[dict[int, int], dict[int, int]] = ({}, {})
                if in_snapshot:  # a snapshot that goes on
                    book = (dict(writer.book[BID]), dict(writer.book[ASK]))
                in_snapshot = True
                for side, level, qty in levels:
                    if qty:
                        book[side][level] = qty
                writer.replace(recv, exchange, *book)
        else:
            for row in rows:
                bid, ask = (
                    (price(row, f"{side}_price"), amount(row, f"{side}_amount")) for side in ("bid", "ask")
                )
                writer.bbo(
                    recv, int(row["timestamp"] or 0) * 1000, bid if all(bid) else (0, 0), ask if all(ask) else (0, 0)
                )  # fmt: skip
        if progress is not None and count % 4096 == 0:
            progress(count)
    return writer


def _messages(table: Table, kind: int, number: int) -> Iterator[tuple[int, tuple[int, int], int, list[Row]]]:
    """(local us, (kind, table), kind, rows of one message)."""
    _, rows = rows_of(table.path)

    def key(row: Row) -> tuple[str, str, str]:
        return row["local_timestamp"], row.get("is_snapshot", ""), row["timestamp"]

    last = 0
    for _, group in itertools.groupby(rows, key):
        found = list(group)
        stamp = found[0]["local_timestamp"]
        if not stamp.isdigit():
            raise RecordingsError(f"{table.path}: local_timestamp {stamp!r} is no time in microseconds; fetch the file again")
        last = max(last, int(stamp))
        yield last, (kind, number), kind, found


# ---- from a recording


def save(
    folded: Folded, folder: Path, exchange: str, symbol: int = 0, progress: Callable[[int], None] | None = None
) -> list[str]:
    """One symbol's three tables as `<kind>_<SYMBOL>.csv.gz` in `folder`; those without a row are left out. Returns the names."""
    row = folded.table[symbol]
    tick, price_decimals, qty_decimals = int(row["tick_units"]), int(row["price_decimals"]), int(row["qty_decimals"])
    name = folded.instruments[symbol].name

    def price(ticks: int) -> str:
        return decimal_text(ticks * tick, price_decimals)

    def amount(lots: int) -> str:
        return decimal_text(lots, qty_decimals)

    files = {kind: gzip.open(folder / f"{kind}_{name}.csv.gz", "wt", newline="", compresslevel=6) for kind in COLUMNS}
    rows = dict.fromkeys(COLUMNS, 0)
    done = 0
    try:
        for kind, file in files.items():
            file.write(",".join(COLUMNS[kind]) + "\n")
        for chunk in folded.chunks():
            stamps = _stamps(chunk.market)
            _write_book(files["incremental_book_L2"], chunk, stamps, symbol, (exchange, name), price, amount, rows)
            picked = np.isin(chunk.market["kind"], (Kind.TRADE, Kind.BBO)) & (chunk.market["symbol"] == symbol)
            for index in np.flatnonzero(picked).tolist():
                record = chunk.market[index]
                key = f"{exchange},{name},{stamps[index]},{int(record['ts_recv_ns']) // 1000}"
                if record["kind"] == Kind.TRADE:
                    side = "sell" if int(record["flags"]) & Flag.AGGRESSOR_SELL else "buy"
                    text = f"{key},{record['update_id']},{side},{price(int(record['price_ticks']))}"
                    files["trades"].write(f"{text},{amount(int(record['qty_lots']))}\n")
                    rows["trades"] += 1
                else:
                    ask, bid = (
                        (int(record[f"{side}_ticks"][0]), int(record[f"{side}_lots"][0])) for side in ("ask", "bid")
                    )
                    text = f"{key},{amount(ask[1])},{price(ask[0])},{price(bid[0])},{amount(bid[1])}\n"
                    files["quotes"].write(text)
                    rows["quotes"] += 1
            done += len(chunk.counts)
            if progress is not None:
                progress(done)
    finally:
        for file in files.values():
            file.close()
    kept = []
    for kind in COLUMNS:
        path = folder / f"{kind}_{name}.csv.gz"
        if rows[kind]:
            kept.append(path.name)
        else:
            path.unlink()
    return kept


def _stamps(recs: Any) -> list[int]:
    """Exchange time in us of each record; the receive time where the venue sends none, as the vendor does."""
    found: list[int] = (np.where(recs["ts_exchange_ns"] != 0, recs["ts_exchange_ns"], recs["ts_recv_ns"]) // 1000).tolist()
    return found


def _write_book(
    file: Any, chunk: Any, stamps: list[int], symbol: int, key: tuple[str, str],
    price: Callable[[int], str], amount: Callable[[int], str], rows: dict[str, int],
) -> None:  # fmt: skip
    """The depth records of a chunk: a frame's market record has their exchange time."""
    frames = np.arange(len(chunk.counts))
    record_of = np.cumsum(chunk.counts[:, 0]) - 1
    of = np.repeat(frames, chunk.counts[:, 1])
    depth = chunk.depth
    keep = (depth["symbol"] == symbol) & ((depth["kind"] == Kind.DEPTH) | (depth["kind"] == Kind.SNAPSHOT))
    columns = (depth[name][keep].tolist() for name in ("kind", "ts_ns", "flags", "price_ticks", "qty_lots", "update_id"))
    snapshot_id, snapshot_frame = -1, -1
    for frame, kind, ts_ns, flags, ticks, lots, update_id in zip(of[keep].tolist(), *columns, strict=True):
        if kind == Kind.SNAPSHOT:
            snapshot_id, snapshot_frame = update_id, frame
            continue
        whole = "true" if frame == snapshot_frame and update_id == snapshot_id else "false"
        side = "ask" if flags & Flag.ASK else "bid"
        stamp = stamps[int(record_of[frame])]
        file.write(f"{key[0]},{key[1]},{stamp},{ts_ns // 1000},{whole},{side},{price(ticks)},{amount(lots)}\n")
        rows["incremental_book_L2"] += 1
