"""Tardis-like CSV (plain or .gz), to a recording and from one. Times are microseconds, other units are known by their size and
told; decimals are kept as they are printed.

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
from typing import Any, Final

import numpy as np

from procs.recordings.folding import Folded
from procs.recordings.output import RecordingsError
from procs.recordings.wire_text import ASK, BID, FrameWriter, decimals_of, units_of_text
from procs.recordings.words import Stamps, aggressor, book_side, truth
from sim.recordings import bounded
from sim.recordings.spool import decimal_text
from trading.records import Flag, Kind
from trading.venues.names import VENUES

_KEY: Final = ("exchange", "symbol", "timestamp", "local_timestamp")
UNIT: Final = "microseconds"
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
"""Cells by column, and under LINE the number of the line."""
LINE: Final = "#"
LONGEST_ROW: Final = 1 << 20
"""Bytes; a row takes some hundred."""
MOST_ROWS: Final = 1 << 17
"""Rows of one message; the deepest books have some ten thousand levels."""
_AT_ONCE: Final = 1 << 14
"""Texts of numbers held while their decimals are looked for."""


def _texts(path: Path) -> Iterator[str]:
    """The lines of a file that say something, as text; a byte order mark is none of it."""
    for number, line in bounded.lines(path, LONGEST_ROW):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        # a reader of CSV counts lines by what it is given: a blank one is a line, not a row
        yield text if text.strip() else "\n"


def rows_of(path: Path) -> tuple[str, Iterator[Row]]:
    """(kind, its rows). Raises RecordingsError, RecordingError."""
    try:
        reader = csv.reader(_texts(path))
        header = tuple(name.strip().lower() for name in next(reader, ()))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise RecordingsError(f"{path}: cannot be read as CSV ({error}); fetch the file again") from None
    kind = next((kind for kind, columns in COLUMNS.items() if set(columns) <= set(header)), "")
    if not kind:
        raise RecordingsError(
            f"{path}: its columns {','.join(header)[:120]!r} are of no kind known; wanted trades, incremental_book_L2 or quotes"
        )

    def rows() -> Iterator[Row]:
        try:
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise RecordingsError(
                        f"{path}:{reader.line_num}: {len(cells)} columns in place of {len(header)}; fetch the file again"
                    )
                row = dict(zip(header, cells, strict=True))
                row[LINE] = str(reader.line_num)
                yield row
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            raise RecordingsError(f"{path}:{reader.line_num}: ends in the middle ({error}); fetch the file again") from None

    return kind, rows()


def survey(path: Path) -> Table:
    """One pass over a file: whose it is, and how finely it prints."""
    kind, rows = rows_of(path)
    columns = (("ask_price", "bid_price"), ("ask_amount", "bid_amount")) if kind == "quotes" else (("price",), ("amount",))
    texts: tuple[set[str], set[str]] = (set(), set())
    most = [0, 0]
    exchange = symbol = moment = ""
    alike = 0

    def look() -> None:
        for k, what in enumerate(("price", "amount")):
            most[k] = max(most[k], decimals_of(texts[k], what))
            texts[k].clear()

    for row in rows:
        if not symbol:
            exchange, symbol = row["exchange"], row["symbol"]
        elif row["symbol"] != symbol:
            raise RecordingsError(f"{path}: holds {symbol} and {row['symbol']}; give each symbol its own file")
        alike = alike + 1 if row["local_timestamp"] == moment else 1
        moment = row["local_timestamp"]
        if alike > MOST_ROWS:
            raise RecordingsError(f"{path}:{row[LINE]}: more than {MOST_ROWS:,} rows of one local time; no message is that long")
        for found, names in zip(texts, columns, strict=True):
            found.update(row[name] for name in names)
        if max(map(len, texts)) > _AT_ONCE:
            look()
    if not symbol:
        raise RecordingsError(f"{path}: holds no row; leave it out")
    look()
    return Table(path, kind, exchange, symbol, *most)


@dataclass(slots=True)
class _Stream:
    """One table's messages in the order of the file, and what was odd about it."""

    table: Table
    kind: int
    number: int
    local: Stamps
    exchange: Stamps
    backwards: int = 0
    sideless: int = 0

    def messages(self) -> Iterator[tuple[int, tuple[int, int], _Stream, list[Row]]]:
        """(local ns, (kind, table), itself, rows of one message)."""
        _, rows = rows_of(self.table.path)
        last = 0
        for _, group in itertools.groupby(rows, _message):
            found = list(group)  # MOST_ROWS at most, as the survey saw
            stamp = self.local.ns(found[0]["local_timestamp"], int(found[0][LINE]))
            if not stamp:
                raise RecordingsError(f"{self.place(found[0])}: no local_timestamp; leave the row out")
            self.backwards += stamp < last
            last = max(last, stamp)
            yield last, (self.kind, self.number), self, found

    def place(self, row: Row) -> str:
        """Where a row stands."""
        return f"{self.table.path}:{row[LINE]}"

    def happened(self, row: Row) -> int:
        """Exchange time of a row in ns, 0 for none."""
        return self.exchange.ns(row["timestamp"], int(row[LINE]))

    def notes(self) -> list[str]:
        """What is to be told, a sentence each."""
        path = self.table.path
        found = [*self.local.said(UNIT), *self.exchange.said(UNIT)]
        if self.backwards:
            found.append(f"{path}: {self.backwards:,} local times went backwards and were raised to the one before")
        if self.sideless:
            found.append(f"{path}: {self.sideless:,} trades of unknown side were left out")
        return found


def _message(row: Row) -> tuple[str, str, str]:
    return row["local_timestamp"], row.get("is_snapshot", ""), row["timestamp"]


def write_frames(
    tables: Sequence[Table], out: Callable[[bytes], Any], symbol: str, usdm: bool, progress: Callable[[int], None] | None = None
) -> FrameWriter:
    """All tables of one symbol as frames, in the order of their local times."""
    price_decimals, qty_decimals = max(t.price_decimals for t in tables), max(t.qty_decimals for t in tables)
    writer = FrameWriter(out, symbol, usdm, price_decimals, qty_decimals)
    order = list(COLUMNS)
    streams = [
        _Stream(table, order.index(table.kind), n, Stamps(table.path, "local_timestamp"), Stamps(table.path, "timestamp"))
        for n, table in enumerate(tables)
    ]
    in_snapshot = False

    def price(row: Row, name: str = "price") -> int:
        return units_of_text(row[name] or "0", price_decimals, "price")

    def amount(row: Row, name: str = "amount") -> int:
        return units_of_text(row[name] or "0", qty_decimals, "amount")

    merged = heapq.merge(*(stream.messages() for stream in streams), key=lambda message: message[:2])
    for count, (recv, (kind, _), stream, rows) in enumerate(merged):
        first = rows[0]
        if kind == 0:
            for row in rows:
                seller = aggressor(row["side"], stream.place(row))
                if seller is None:
                    stream.sideless += 1
                    continue
                number = int(row["id"]) if row["id"].isdigit() and len(row["id"]) < 18 else 0
                writer.trade(recv, stream.happened(row), price(row), amount(row), seller, number)
        elif kind == 1:
            levels = [(book_side(row["side"], stream.place(row)), price(row), amount(row)) for row in rows]
            if not truth(first["is_snapshot"], stream.place(first)):
                in_snapshot = False
                writer.change(recv, stream.happened(first), levels)
            else:
                book: tuple[dict[int, int], dict[int, int]] = ({}, {})
                if in_snapshot:  # a snapshot that goes on
                    book = (dict(writer.book[BID]), dict(writer.book[ASK]))
                in_snapshot = True
                for side, level, qty in levels:
                    if qty:
                        book[side][level] = qty
                writer.replace(recv, stream.happened(first), *book)
        else:
            for row in rows:
                bid, ask = (
                    (price(row, f"{side}_price"), amount(row, f"{side}_amount")) for side in ("bid", "ask")
                )
                writer.bbo(
                    recv, stream.happened(row), bid if all(bid) else (0, 0), ask if all(ask) else (0, 0)
                )  # fmt: skip
        if progress is not None and count % 4096 == 0:
            progress(count)
    writer.notes += [note for stream in streams for note in stream.notes()]
    return writer


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
