"""Tardis' `book_snapshot_5` and `book_snapshot_25` (any depth), its trades and quotes beside them. A row is the top of a book.

exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount,asks[1].price,...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from procs.archives.events import SELLS, Print, Quote, Told, Window
from procs.archives.sources import Source
from procs.recordings.tardis import COLUMNS, EXCHANGES

_FIRST: Final = ("asks[0].price", "asks[0].amount", "bids[0].price", "bids[0].amount", "local_timestamp")
_BOOK_WORDS: Final = ("nan", "null", "none")


def is_windows(source: Source) -> bool:
    """By the header."""
    return set(source.columns) >= set(_FIRST)


def is_trades(source: Source) -> bool:
    """By the header; beside windows only, otherwise procs.recordings.tardis reads it."""
    return set(source.columns) >= set(COLUMNS["trades"]) and "is_snapshot" not in source.columns


def is_quotes(source: Source) -> bool:
    """As `is_trades`."""
    return set(source.columns) >= set(COLUMNS["quotes"])


def symbol_of(source: Source) -> str:
    """By the first row."""
    if "symbol" not in source.columns:
        return ""
    return source.second.decode("utf-8", "replace").split(",")[source.columns.index("symbol")].strip('"')


def market_of(source: Source) -> str:
    """By the first row's exchange."""
    if "exchange" not in source.columns:
        return ""
    exchange = source.second.decode("utf-8", "replace").split(",")[source.columns.index("exchange")].strip('"')
    return next((label for label, name in EXCHANGES.items() if name == exchange), "")


def _stamps(told: Told, row: dict[str, str], number: int) -> tuple[int, int]:
    recv_ns = told.in_order(told.stamp(row["local_timestamp"], number))
    exchange = row.get("timestamp", "")
    return recv_ns, told.stamp(exchange, number) if exchange else 0


def _rows(source: Source, told: Told, symbol: str) -> Iterator[tuple[int, dict[str, str]]]:
    own = symbol_of(source)
    for number, cells in source.rows():
        if number == 1:
            continue
        told.rows += 1
        row = dict(zip(source.columns, cells, strict=True))
        if row.get("symbol", own) != own:
            raise told.wrong(number, f"holds {row['symbol'][:40]!r} after {own!r}, and each symbol needs its own file")
        yield number, row


def windows(source: Source, told: Told, symbol: str) -> Iterator[Window]:
    """One a row. Levels without a price end a side."""
    depth = 0
    while f"asks[{depth}].price" in source.columns:
        depth += 1
    for number, row in _rows(source, told, symbol):
        sides = []
        for side in ("bids", "asks"):
            pairs = [(row.get(f"{side}[{k}].price", ""), row.get(f"{side}[{k}].amount", "")) for k in range(depth)]
            sides.append([(p, q) for p, q in pairs if p and q and p.lower() not in _BOOK_WORDS])
        bids, asks = sides
        if bids and asks and float(bids[0][0]) >= float(asks[0][0]):
            told.left_out["rows with bid at or above ask"] += 1
            continue
        yield Window(*_stamps(told, row, number), depth, bids, asks)


def trades(source: Source, told: Told, symbol: str) -> Iterator[Print]:
    """One a row."""
    for number, row in _rows(source, told, symbol):
        seller = told.side(row["side"], number, SELLS)
        if seller is not None:
            yield Print(*_stamps(told, row, number), row["price"], row["amount"], seller)


def quotes(source: Source, told: Told, symbol: str) -> Iterator[Quote]:
    """One a row."""
    for number, row in _rows(source, told, symbol):
        yield Quote(*_stamps(told, row, number), row["bid_price"], row["bid_amount"], row["ask_price"], row["ask_amount"])
