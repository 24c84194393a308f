"""Independent plain decoders of the recorded venues: standard JSON and Decimal to (kind, ...) tuples. They share nothing with
trading.venues.

A frame becomes a list of tuples, [] where it holds nothing for a book:

    ("book" | "diff", symbol name, exchange ns or None, {(side, price): qty}, prev id or None, id or None, checksum or None)
    ("trade", symbol name, exchange ns, price, qty, seller took, id)
    ("bbo", symbol name, bid price, bid qty, ask price, ask qty)
"""

from __future__ import annotations

import json
from calendar import timegm
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import orjson

from trading.venues.protocol import Plain, VenueSymbol
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import (
    HAS_CHECKSUM,
    W_CHECKSUM,
    W_FIRST,
    W_FLAGS,
    W_KIND,
    W_LAST,
    W_PREV,
    W_SYMBOL,
    W_TS,
    read_plain_frame,
)

Found = tuple[Any, ...]


def _iso(text: str) -> int:
    whole, _, fraction = text.rstrip("Z").partition(".")
    return timegm(datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").timetuple()) * 10**9 + int(fraction.ljust(9, "0") or 0)


def _sides(bids: Any, asks: Any) -> dict[tuple[int, Decimal], Decimal]:
    levels = {(0, Decimal(str(p))): Decimal(str(q)) for p, q in bids}
    return levels | {(1, Decimal(str(p))): Decimal(str(q)) for p, q in asks}


def okx(raw: bytes) -> list[Found]:
    """v5 of 2022: no sequence yet."""
    frame = orjson.loads(raw)
    if "data" not in frame:
        return []
    name, channel, out = frame["arg"]["instId"], frame["arg"]["channel"], []
    for it in frame["data"]:
        ts = int(it["ts"]) * 10**6
        if channel == "books":
            levels = _sides([row[:2] for row in it["bids"]], [row[:2] for row in it["asks"]])
            kind = "book" if frame["action"] == "snapshot" else "diff"
            out.append((kind, name, ts, levels, None, None, it["checksum"] % 2**32))
        elif channel == "trades":
            out.append(("trade", name, ts, Decimal(it["px"]), Decimal(it["sz"]), it["side"] == "sell", int(it["tradeId"])))
        elif channel == "tickers":
            out.append(("bbo", name, *(Decimal(it[key]) for key in ("bidPx", "bidSz", "askPx", "askSz"))))
    return out


def kraken(raw: bytes) -> list[Found]:
    """v1."""
    frame = orjson.loads(raw)
    if isinstance(frame, dict):
        return []
    name, channel, bodies = frame[-1], frame[-2], frame[1:-2]
    if channel == "trade":
        return [
            ("trade", name, int(Decimal(t) * 10**9), Decimal(p), Decimal(q), side == "s", 0) for p, q, t, side, *_ in bodies[0]
        ]
    if channel == "ticker":
        body = bodies[0]
        return [("bbo", name, *(Decimal(body[side][i]) for side in "ba" for i in (0, 2)))]
    merged: dict[str, Any] = {}
    for body in bodies:
        merged |= body
    bids, asks = merged.get("bs", merged.get("b", [])), merged.get("as", merged.get("a", []))
    ts = max(int(Decimal(row[2]) * 10**9) for row in bids + asks)
    levels = _sides([row[:2] for row in bids], [row[:2] for row in asks])
    checksum = int(merged["c"]) if "c" in merged else None
    return [("book" if "as" in merged else "diff", name, ts, levels, None, None, checksum)]


def coinbase(raw: bytes) -> list[Found]:
    """The feed before Advanced Trade."""
    frame = orjson.loads(raw)
    name = frame.get("product_id")
    if frame["type"] == "snapshot":
        return [("book", name, None, _sides(frame["bids"], frame["asks"]), None, None, None)]
    if frame["type"] == "l2update":
        levels = {(int(side == "sell"), Decimal(p)): Decimal(q) for side, p, q in frame["changes"]}
        return [("diff", name, _iso(frame["time"]), levels, None, None, None)]
    if frame["type"] == "match":
        took = frame["side"] == "buy"  # the maker's side
        return [("trade", name, _iso(frame["time"]), Decimal(frame["price"]), Decimal(frame["size"]), took, frame["trade_id"])]
    return []


def deribit(raw: bytes) -> list[Found]:
    """JSON numbers: only the standard parser hands their text to Decimal."""
    frame = json.loads(raw, parse_float=Decimal)
    if "params" not in frame:
        return []
    channel, it = frame["params"]["channel"].split(".")[0], frame["params"]["data"]
    if channel == "ticker":
        sides = [(it[f"best_{side}_price"], it[f"best_{side}_amount"]) for side in ("bid", "ask")]
        bid, ask = ((Decimal(p), Decimal(q)) if q else (Decimal(0), Decimal(0)) for p, q in sides)
        return [("bbo", it["instrument_name"], *bid, *ask)]
    bids, asks = ([(p, 0 if what == "delete" else q) for what, p, q in it[side]] for side in ("bids", "asks"))
    kind = "book" if it["type"] == "snapshot" else "diff"
    prev = it.get("prev_change_id")
    return [(kind, it["instrument_name"], it["timestamp"] * 10**6, _sides(bids, asks), prev, it["change_id"], None)]


def bybit(raw: bytes) -> list[Found]:
    """Before v5."""
    frame = json.loads(raw, parse_float=Decimal)
    topic, _, name = frame.get("topic", "").partition(".")
    body = frame.get("data")
    if topic == "trade":
        return [
            ("trade", it["symbol"], int(it["trade_time_ms"]) * 10**6, Decimal(it["price"]), Decimal(it["size"]),
             it["side"] == "Sell", 0) for it in body
        ]  # fmt: skip
    if not topic:
        return []
    if frame["type"] == "snapshot":
        rows = body["order_book"] if isinstance(body, dict) else body
    else:
        rows = [{**it, "size": 0} for it in body["delete"]] + body["update"] + body["insert"]
    levels = {(int(it["side"] == "Sell"), Decimal(it["price"])): Decimal(it["size"]) for it in rows}
    kind = "book" if frame["type"] == "snapshot" else "diff"
    return [(kind, name, int(frame["timestamp_e6"]) * 1000, levels, None, int(frame["cross_seq"]), None)]


def as_found(item: Plain, symbols: tuple[VenueSymbol, ...]) -> Found:
    """A plain frame in the oracle's form; ids that a venue does not send are left as they are."""
    head, levels = read_plain_frame(item.frame)
    symbol = symbols[item.symbol]
    assert head[W_SYMBOL] == item.symbol
    tick, lot = Decimal(symbol.tick_size), Decimal(symbol.lot_size)
    rows = [(int(key) & 1, (int(key) >> 1) * tick, int(lots) * lot) for key, lots in levels]
    kind, ts = FrameKind(int(head[W_KIND])), int(head[W_TS])
    if kind in (FrameKind.TRADE, FrameKind.AGG_TRADE):
        ((side, price, qty),) = rows
        return ("trade", symbol.venue_name, ts, price, qty, side == 0, int(head[W_LAST]))
    if kind is FrameKind.BBO:
        return ("bbo", symbol.venue_name, *(value for _, price, qty in rows for value in (price, qty)))
    checksum = int(head[W_CHECKSUM]) if head[W_FLAGS] & HAS_CHECKSUM else None
    name = "book" if kind is FrameKind.SNAPSHOT else "diff"
    changed = {(side, price): qty for side, price, qty in rows}
    return (name, symbol.venue_name, ts, changed, int(head[W_PREV]), int(head[W_LAST]), checksum, int(head[W_FIRST]))


def same(ours: Found, plain: Found) -> bool:
    """Whether a decoded item is what the oracle says; what the oracle does not know (None) is not compared."""
    return len(ours) >= len(plain) and all(want is None or got == want for got, want in zip(ours, plain, strict=False))


class DecimalBook:
    """A book in a dict, from plain frames; the strings for checksums come from integers of the printed place."""

    def __init__(self) -> None:
        self.sides: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def apply(self, frame: bytes) -> None:
        """Take in a SNAPSHOT or DEPTH frame, and let fall what the venue no longer speaks of."""
        head, levels = read_plain_frame(frame)
        if head[W_KIND] == FrameKind.SNAPSHOT:
            self.sides[0].clear()
            self.sides[1].clear()
            self.depth = int(head[W_FIRST])
        for key, lots in np.asarray(levels).tolist():
            if lots:
                self.sides[key & 1][key >> 1] = lots
            else:
                self.sides[key & 1].pop(key >> 1, None)
        if self.depth:
            for side in (0, 1):
                for price in self.best(side, 10**9)[self.depth :]:
                    del self.sides[side][price]

    def best(self, side: int, n: int) -> list[int]:
        """The n best prices in ticks."""
        return sorted(self.sides[side], reverse=side == 0)[:n]
