"""Binance's public data: prints, candles and the historical order books of the futures. Their ids are the venue's own, so what is
made of them can be proved by its rules.

    aggTrades   spot     id,price,qty,first id,last id,time,buyer is maker,best match          no header
                futures  agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker
    trades      spot     id,price,qty,quote qty,time,buyer is maker,best match                 no header
                futures  id,price,qty,quote_qty,time,is_buyer_maker
    klines      12 columns, with a header (futures) or without
    T_DEPTH     symbol,timestamp[,trans_id],first_update_id,last_update_id,side,update_type,price,qty[,pu]
                `_depth_snap` holds snapshots (snap), `_depth_update` the changes (set), one row a level

Futures' files from before 2023 have no header either: the columns tell. A file does not say its symbol unless it is T_DEPTH: the
name does (BTCUSDT-aggTrades-2024-01-01.zip). There is one clock, the venue's: receive time is exchange time. A snapshot of
T_DEPTH is put behind the first change that reaches it: its own time does not say between which changes it belongs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from procs.archives.events import Bar, Frame, Numbers, Told
from procs.archives.sources import Source
from procs.recordings.frame_log_format import head_of
from procs.recordings.words import truth
from trading.wire.binance_layout import MAX_SNAPSHOT_LEVELS

SPOT, USDM, COINM = "binance_spot", "binance_usdm", "binance_coinm"
_AGG_HEAD: Final = ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", "is_buyer_maker")
_TRADE_HEAD: Final = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker")
_TRADE_HEAD_COINM: Final = ("id", "price", "qty", "base_qty", "time", "is_buyer_maker")
_KLINE_HEAD: Final = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
                      "taker_buy_volume", "taker_buy_quote_volume", "ignore")  # fmt: skip
_DEPTH_HEAD: Final = {"symbol", "timestamp", "first_update_id", "last_update_id", "side", "update_type", "price", "qty"}
_NAME: Final = re.compile(r"^([A-Z0-9]{2,20}(?:_[A-Z0-9]+)?)-(?:aggTrades|trades|\d+(?:s|m|h|d|w|mo))-\d{4}")
_COINM: Final = re.compile(r"^[A-Z0-9]+USD_(?:PERP|\d{6})$")
_SIDES: Final = {"a": "a", "b": "b", "ask": "a", "bid": "b"}


def _number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _is_word(text: str) -> bool:
    return text.lower() in ("true", "false")


def is_agg_trades(source: Source) -> bool:
    """By the header, or by the columns of the first row."""
    cells = source.columns
    if cells[:7] == _AGG_HEAD:
        return True
    return len(cells) in (7, 8) and all(map(_number, cells[:6])) and "." not in "".join(cells[3:6]) and _is_word(cells[6])


def is_trades(source: Source) -> bool:
    """As `is_agg_trades`."""
    cells = source.columns
    if cells[:6] in (_TRADE_HEAD, _TRADE_HEAD_COINM):
        return True
    return len(cells) in (6, 7) and all(map(_number, cells[:5])) and _is_word(cells[5])


def is_klines(source: Source) -> bool:
    """As `is_agg_trades`."""
    cells = source.columns
    return cells == _KLINE_HEAD or (len(cells) == 12 and all(map(_number, cells)) and cells[0].isdigit() and cells[6].isdigit())


def is_depth(source: Source) -> bool:
    """T_DEPTH: by the header."""
    return set(source.columns) >= _DEPTH_HEAD


def symbol_of(source: Source) -> str:
    """By the table, else by the file's name; empty where neither tells."""
    if "symbol" in source.columns:
        return source.second.decode("utf-8", "replace").split(",")[source.columns.index("symbol")].strip('"')
    for name in (source.name, source.path.name):
        if found := _NAME.match(name):
            return found[1]
    return ""


def market_of(source: Source) -> str:
    """Whose frames they were, where the columns or the symbol tell; else empty."""
    if _COINM.match(symbol_of(source)):
        return COINM
    if is_depth(source):
        return USDM
    cells = source.columns
    if is_klines(source):
        return ""
    spot = len(cells) == (8 if is_agg_trades(source) else 7)
    return SPOT if spot else USDM


def _without_header(source: Source) -> Iterator[tuple[int, list[str]]]:
    for number, cells in source.rows():
        if number > 1 or cells[0].strip('"').isdigit():
            yield number, cells


def head(sources: Sequence[Source], symbol: str, market: str, tick: str, lot: str) -> list[bytes]:
    """The line that begins a recording of prints alone: they do not tell whose they are. Reads all sources once."""
    numbers = Numbers()
    for source in sources:
        for _, cells in _without_header(source):
            numbers.price(cells[1])
            numbers.amount(cells[2])
    tick, lot = numbers.steps(sources[0].place, tick, lot)
    return [head_of(symbol, market, symbol, tick, lot, lot, 0)]


def agg_trades(source: Source, told: Told, symbol: str) -> Iterator[Frame]:
    """As the stream `aggTrade` would have sent them."""
    stream = f"{symbol.lower()}@aggTrade"
    for number, (_id, price, qty, first, last, time, maker, *_) in _without_header(source):
        told.rows += 1
        exch_ns = told.stamp(time, number)
        seller = truth(maker, told.place(number))
        stamp = _time(exch_ns)
        said = {"e": "aggTrade", "E": stamp, "s": symbol, "a": _whole(told, _id, number), "p": price, "q": qty}
        said |= {"f": _whole(told, first, number), "l": _whole(told, last, number), "T": stamp, "m": seller}
        yield Frame(told.in_order(exch_ns), _stream(stream, said))


def trades(source: Source, told: Told, symbol: str) -> Iterator[Frame]:
    """As the stream `trade` would have sent them."""
    stream, futures = f"{symbol.lower()}@trade", market_of(source) != SPOT
    for number, (_id, price, qty, _quote, time, maker, *_) in _without_header(source):
        told.rows += 1
        exch_ns = told.stamp(time, number)
        seller = truth(maker, told.place(number))
        stamp = _time(exch_ns)
        said = {"e": "trade", "E": stamp, "s": symbol, "t": _whole(told, _id, number), "p": price, "q": qty, "T": stamp}
        yield Frame(told.in_order(exch_ns), _stream(stream, said | {"m": seller} | ({"X": "MARKET"} if futures else {})))


def klines(source: Source, told: Told, symbol: str) -> Iterator[Bar]:
    """All columns but the close time and the quote volume bought."""
    for number, (opened, o, h, low, c, volume, _closed, quote, count, bought, *_) in _without_header(source):
        told.rows += 1
        yield Bar(told.stamp(opened, number), o, h, low, c, volume, quote, bought, count)


# ---- the historical order books


def depth(sources: Sequence[tuple[Source, Told]], symbol: str) -> Iterator[Frame]:
    """All files' as REST and the stream `depth` would have sent them: the changes in order, each snapshot behind the first change
    that reaches its id."""
    snapshots: list[tuple[int, Frame]] = []
    updates: list[tuple[Source, Told]] = []
    for source, told in sources:
        words = source.second.decode("utf-8", "replace").split(",")
        if words[source.columns.index("update_type")].strip('"') == "snap":
            snapshots += [(last_id, frame) for frame, last_id in _depth(source, told, symbol)]
        else:
            updates.append((source, told))
    snapshots.sort(key=lambda found: found[0])
    updates.sort(key=lambda pair: pair[0].second.split(b",")[pair[0].columns.index("timestamp")])
    newest = 0
    for source, told in updates:
        for frame, last_id in _depth(source, told, symbol):
            newest = max(newest, frame.recv_ns)
            yield Frame(newest, frame.frame)
            while snapshots and last_id >= snapshots[0][0]:
                yield Frame(newest, snapshots.pop(0)[1].frame)
    for _, frame in snapshots:
        newest = max(newest, frame.recv_ns)
        yield Frame(newest, frame.frame)


def _depth(source: Source, told: Told, symbol: str) -> Iterator[tuple[Frame, int]]:
    """(message, its last id). Rows of one message follow one another."""
    wanted = ("timestamp", "first_update_id", "last_update_id", "update_type", "side", "price", "qty")
    at = [source.columns.index(name) for name in wanted]
    pu_at = source.columns.index("pu") if "pu" in source.columns else -1
    symbol_at = source.columns.index("symbol")
    key: tuple[str, ...] = ()
    levels: dict[str, list[list[str]]] = {"a": [], "b": []}
    begun = before = 0
    unproved = False
    stream = f"{symbol.lower()}@depth@0ms"

    def message() -> tuple[Frame, int]:
        nonlocal unproved
        time, first, last, kind, pu = key
        exch_ns = told.stamp(time, begun)
        last_id = _whole(told, last, begun)
        if kind == "snap":
            sides = [sorted(levels[side], key=lambda level: float(level[0]), reverse=side == "b") for side in ("b", "a")]
            bids, asks = (side[:MAX_SNAPSHOT_LEVELS] for side in sides)
            text = json.dumps({"lastUpdateId": last_id, "bids": bids, "asks": asks}, separators=(",", ":")).encode()
            return Frame(told.in_order(exch_ns), text), last_id
        stamp = _time(exch_ns)
        said: dict[str, Any] = {"e": "depthUpdate", "E": stamp, "T": stamp, "s": symbol, "U": _whole(told, first, begun)}
        follows = pu.removesuffix(".0")
        told_pu = follows.isdigit()
        unproved = unproved or not told_pu
        said |= {"u": last_id, "pu": int(follows) if told_pu else before or last_id - 1}
        return Frame(told.in_order(exch_ns), _stream(stream, said | {"b": levels["b"], "a": levels["a"]})), last_id

    for number, cells in source.rows():
        if number == 1:
            continue
        told.rows += 1
        time, first, last, kind, side, price, qty = (cells[k] for k in at)
        if kind not in ("snap", "set", "delete"):
            raise told.wrong(number, f"update_type {kind[:40]!r} is not known; known are snap, set and delete")
        if side.lower() not in _SIDES:
            raise told.wrong(number, f"{side[:40]!r} is no side of a book; known are a and b")
        if cells[symbol_at] != symbol:
            raise told.wrong(number, f"holds {cells[symbol_at][:40]!r} after {symbol!r}, and each symbol needs its own file")
        now = (time, first, last, "snap" if kind == "snap" else "set", cells[pu_at] if pu_at >= 0 else "")
        if now != key:
            if key:
                done = message()
                before = done[1]
                yield done
            key, begun, levels = now, number, {"a": [], "b": []}
        levels[_SIDES[side.lower()]].append([price, "0" if kind == "delete" else qty])
    if key:
        yield message()
    if unproved:
        told.words.append("it does not say pu, so a gap in it cannot be seen")


# ---- pieces


def _whole(told: Told, text: str, number: int) -> int:
    text = text.strip().removesuffix(".0")
    if not text.isdigit() or len(text) > 18:
        raise told.wrong(number, f"{text[:40]!r} is no id")
    return int(text)


def _time(ns: int) -> int:
    return ns // 1_000_000 if ns % 1_000_000 == 0 else ns // 1000


def _stream(stream: str, said: dict[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": said}, separators=(",", ":")).encode()
