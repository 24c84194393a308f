"""Tardis' `book_snapshot_5` and `book_snapshot_25` (any depth), its trades and quotes beside them. A row is the top of a book.

exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount,asks[1].price,...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from procs.archives.events import Print, Quote, Told, Window
from procs.archives.sources import Source
from procs.recordings.tardis import COLUMNS, EXCHANGES

_FIRST: Final = ("asks[0].price", "asks[0].amount", "bids[0].price", "bids[0].amount", "local_timestamp")


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


def _rows(source: Source, told: Told, wanted: Sequence[str]) -> Iterator[tuple[int, list[str], int, int]]:
    """(line, the cells wanted, receive time, exchange time or 0) of each row."""
    own = symbol_of(source)
    at = {name: k for k, name in enumerate(source.columns)}
    symbol_at, recv_at, exch_at = at.get("symbol"), at["local_timestamp"], at.get("timestamp")
    picked = [at[name] for name in wanted]
    for number, cells in source.rows():
        if number == 1:
            continue
        told.rows += 1
        if symbol_at is not None and cells[symbol_at] != own:
            raise told.wrong(number, f"holds {cells[symbol_at][:40]!r} after {own!r}, and each symbol needs its own file")
        recv_ns = told.in_order(told.stamp(cells[recv_at], number))
        exchange = cells[exch_at] if exch_at is not None else ""
        yield number, [cells[k] for k in picked], recv_ns, told.stamp(exchange, number) if exchange else 0


def windows(source: Source, told: Told, symbol: str) -> Iterator[Window]:
    """One a row. A level without a price is none."""
    depth = 0
    while {f"{side}[{depth}].{what}" for side in ("bids", "asks") for what in ("price", "amount")} <= set(source.columns):
        depth += 1
    wanted = [f"{side}[{k}].{what}" for what in ("price", "amount") for side in ("bids", "asks") for k in range(depth)]
    for _, cells, recv_ns, exch_ns in _rows(source, told, wanted):
        levels = list(zip(cells[: 2 * depth], cells[2 * depth :], strict=True))
        if not all(cells) or "n" in "".join(cells[: 2 * depth]).lower():
            levels = [("", "") if not p or not q or "n" in p.lower() else (p, q) for p, q in levels]
        bids, asks = ([level for level in side if level[0]] for side in (levels[:depth], levels[depth:]))
        if bids and asks and float(bids[0][0]) >= float(asks[0][0]):
            told.left_out["rows with bid at or above ask"] += 1
            continue
        yield Window(recv_ns, exch_ns, depth, bids, asks)


def trades(source: Source, told: Told, symbol: str) -> Iterator[Print]:
    """One a row."""
    for number, (side, price, amount), recv_ns, exch_ns in _rows(source, told, ("side", "price", "amount")):
        seller = told.side(side, number)
        if seller is not None:
            yield Print(recv_ns, exch_ns, price, amount, seller)


def quotes(source: Source, told: Told, symbol: str) -> Iterator[Quote]:
    """One a row."""
    for _, cells, recv_ns, exch_ns in _rows(source, told, ("bid_price", "bid_amount", "ask_price", "ask_amount")):
        yield Quote(recv_ns, exch_ns, *cells)
