"""Bybit's public downloads: its order book archives and its trades, as a recording of Bybit's own frames.

    2024-01-01_BTCUSDT_ob500.data.zip   a line a message: {"topic":"orderbook.500.BTCUSDT","type":"delta","ts":..,"data":..}
    BTCUSDT2024-01-01.csv.gz            timestamp,symbol,side,size,price,...    (contracts; seconds with a fraction)
    BTCUSDT_2024-01-01.csv.gz           id,timestamp,price,volume,side          (spot; milliseconds)

Messages of the book go into the recording as they are: their `u` proves the sequence. Trades become messages of the stream
publicTrade, with times to the millisecond and, as cross sequence, the microsecond of the trade: the archives have none. Receive
time is the time at which Bybit made the message. A book archive does not say whether it is of the contract or of spot: it is
taken for the contract, unless spot's trades are given along or a folder of its path is called spot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from procs.archives.events import Frame, Numbers, Told
from procs.archives.sources import Source
from procs.recordings.frame_log_format import Came, head_of, mark_of

_CONTRACT: Final = ("timestamp", "symbol", "side", "size", "price")
_SPOT: Final = ("id", "timestamp", "price", "volume", "side")
_NAME: Final = re.compile(r"^(?:\d{4}-\d\d-\d\d_)?([A-Z0-9]{2,24}?)(?:_?\d{4}-\d\d(?:-\d\d)?)?(?:_ob\d+)?\.")
_PAIRS: Final = re.compile(rb'\[\s*"([0-9.]+)"\s*,\s*"([0-9.]+)"\s*\]')
LEVELS: Final = 1000


class _Data(msgspec.Struct):
    s: str = ""


class _Message(msgspec.Struct):
    topic: str
    ts: int
    type: str = ""
    data: _Data = msgspec.field(default_factory=_Data)


_message: Final = msgspec.json.Decoder(_Message).decode


def is_book(source: Source) -> bool:
    """By the first line."""
    return source.first.startswith(b"{") and re.search(rb'"topic"\s*:\s*"orderbook\.', source.first[:4096]) is not None


def is_contract_trades(source: Source) -> bool:
    """By the header."""
    return source.columns[:5] == _CONTRACT


def is_spot_trades(source: Source) -> bool:
    """By the header."""
    return source.columns[:5] == _SPOT


def symbol_of(source: Source) -> str:
    """By the first message or row, else by the file's name."""
    if is_book(source):
        try:
            message = _message(source.first)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return ""
        return message.data.s or message.topic.rpartition(".")[2]
    if is_contract_trades(source):
        return source.second.decode("utf-8", "replace").split(",")[1].strip('"')
    found = _NAME.match(source.name)
    return found[1] if found else ""


def book(source: Source, told: Told, symbol: str) -> Iterator[Frame]:
    """The lines as they are."""
    for number, line in source.lines():
        told.rows += 1
        try:
            message = _message(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise told.wrong(number, f"is no message of Bybit's ({error})") from None
        if not message.topic.startswith("orderbook.") or message.type not in ("snapshot", "delta"):
            raise told.wrong(number, f"topic {message.topic[:40]!r} of type {message.type[:20]!r} is no message of an order book")
        if message.data.s not in ("", symbol):
            raise told.wrong(number, f"holds {message.data.s[:40]!r} after {symbol!r}, and each symbol needs its own file")
        yield Frame(told.in_order(told.stamp(str(message.ts), number)), line)


def contract_trades(source: Source, told: Told, symbol: str) -> Iterator[Frame]:
    """One message a trade."""
    for number, (time, name, side, qty, price, *_) in source.rows():
        if number > 1:
            if name != symbol:
                raise told.wrong(number, f"holds {name[:40]!r} after {symbol!r}, and each symbol needs its own file")
            yield from _trade(told, symbol, number, time, side, price, qty)


def spot_trades(source: Source, told: Told, symbol: str) -> Iterator[Frame]:
    """One message a trade."""
    for number, (_, time, price, qty, side, *_) in source.rows():
        if number > 1:
            yield from _trade(told, symbol, number, time, side, price, qty)


def _trade(told: Told, symbol: str, number: int, time: str, side: str, price: str, qty: str) -> Iterator[Frame]:
    told.rows += 1
    exch_ns = told.stamp(time, number)
    seller = told.side(side, number)
    if seller is None:
        return
    recv_ns, ms = told.in_order(exch_ns), exch_ns // 1_000_000
    said = {"T": ms, "s": symbol, "S": "Sell" if seller else "Buy", "v": qty, "p": price, "seq": recv_ns // 1000}
    message = {"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": ms, "data": [said]}
    yield Frame(recv_ns, json.dumps(message, separators=(",", ":")).encode())


def head(sources: Sequence[Source], symbol: str, name: str, tick: str, lot: str) -> list[bytes]:
    """The recorder's own lines that begin a file of Bybit's frames: what a reader must know to decode them.

    symbol: as Bybit writes it; name: as recordings do. Reads all sources once. Raises RecordingsError."""
    numbers = Numbers()
    for source in sources:
        if is_book(source):
            for _, line in source.lines():
                for price, qty in _PAIRS.findall(line):
                    numbers.price(price.decode())
                    numbers.amount(qty.decode())
        else:
            price_at, qty_at = (4, 3) if is_contract_trades(source) else (2, 3)
            for number, cells in source.rows():
                if number > 1:
                    numbers.price(cells[price_at])
                    numbers.amount(cells[qty_at])
    tick, lot = numbers.steps(sources[0].place, tick, lot)
    spot = any(is_spot_trades(source) for source in sources) or any("spot" in source.path.parts for source in sources)
    category = "spot" if spot else "linear"
    return [head_of(name, "bybit", f"{category}:{symbol}", tick, lot, lot, LEVELS), mark_of(Came(0, 1, False), name)]
