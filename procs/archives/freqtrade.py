"""freqtrade's downloads: trades and candles, as json, json.gz, feather or Parquet.

    BTC_USDT-trades.json.gz     [[ms, id, type, side, price, amount, cost], ...]
    BTC_USDT-1m.json            [[ms, open, high, low, close, volume], ...]
    BTC_USDT_USDT-1h-futures.feather     date, open, high, low, close, volume

The pair is in the file's name alone. Prices are floats: each stands for the shortest decimal that reads back as it. Trades have
no receive time: it is the exchange time. Their ids are the exchange's own kind and are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from procs.archives.events import Bar, Print, Told
from procs.archives.sources import LONGEST_LINE, Source
from procs.recordings.wire_text import plain_text

_TRADES: Final = ("timestamp", "id", "type", "side", "price", "amount", "cost")
_BARS: Final = ("date", "open", "high", "low", "close", "volume")
_NAME: Final = re.compile(r"^([A-Z0-9]{1,12})_([A-Z0-9]{2,12})(?:_[A-Z0-9]+)?-(?:trades|\d+[smhdwM])(?:-[a-z]+)?\.")
_rows: Final = msgspec.json.Decoder(list[list[msgspec.Raw]]).decode


def _width(source: Source) -> int:
    """Values of the first row of a JSON list of lists; 0 for anything else."""
    head = re.match(rb"\[\s*\[([^\]\[]{1,400})\]", source.first[:500])
    return head[1].count(b",") + 1 if head else 0


def is_trades(source: Source) -> bool:
    """By the first row or the columns."""
    return set(source.columns) >= set(_TRADES) if source.arrow else _width(source) == len(_TRADES)


def is_bars(source: Source) -> bool:
    """By the first row or the columns."""
    return set(source.columns) >= set(_BARS) if source.arrow else _width(source) == len(_BARS)


def symbol_of(source: Source) -> str:
    """BTCUSDT of BTC_USDT-1m.json; empty where the name is another."""
    found = _NAME.match(source.name)
    return found[1] + found[2] if found else ""


def trades(source: Source, told: Told, symbol: str) -> Iterator[Print]:
    """One a row."""
    for number, (time, _id, _kind, side, price, amount, *_) in _values(source, told, _TRADES):
        told.rows += 1
        exch_ns = told.stamp(time, number)
        seller = told.side(side, number)
        if seller is not None:
            yield Print(told.in_order(exch_ns), exch_ns, plain_text(price, "price"), plain_text(amount, "amount"), seller)


def bars(source: Source, told: Told, symbol: str) -> Iterator[Bar]:
    """One a row."""
    for number, (time, *prices) in _values(source, told, _BARS):
        told.rows += 1
        opened, high, low, close, volume = (plain_text(text, "number") for text in prices[:5])
        yield Bar(told.stamp(time, number), opened, high, low, close, volume)


def _values(source: Source, told: Told, names: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """(row from 1, its values as texts)."""
    if source.arrow:
        for number, row in source.table():
            yield number, ["" if row[name] is None else _text(row[name]) for name in names]
        return
    number = 0
    for values in _json_rows(source, told):
        number += 1
        if len(values) < len(names):
            raise told.wrong(number, f"the row has {len(values)} values in place of {len(names)}")
        yield number, values


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _json_rows(source: Source, told: Told) -> Iterator[list[str]]:
    """A list of lists of any length, of which only some rows are held."""
    rest, begun, number = b"", False, 0
    for piece in source.pieces():
        rest += piece
        if not begun:
            rest, begun = rest.lstrip()[1:], True
        end = rest.rfind(b"]", 0, rest.rfind(b"[") + 1)  # behind the last row that another one follows
        if end > 0:
            for row in _decoded(rest[: end + 1], told, number):
                number += 1
                yield row
            rest = rest[end + 1 :].lstrip(b", \t\r\n")
        if len(rest) > 2 * LONGEST_LINE:
            raise told.wrong(number + 1, "a row is longer than 1 MB")
    rest = rest.strip()
    if not rest.endswith(b"]"):
        raise told.wrong(number + 1, "the list ends in the middle")
    rest = rest[:-1].rstrip()
    if rest:
        yield from _decoded(rest, told, number)


def _decoded(text: bytes, told: Told, number: int) -> list[list[str]]:
    try:
        rows = _rows(b"[" + text + b"]")
        return [["" if bytes(value) == b"null" else bytes(value).decode().strip('"') for value in row] for row in rows]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise told.wrong(number + 1, f"the rows behind it are no list of lists ({error})") from None
