"""USD-M mark prices, by the scanner and as plain frames, against orjson and Decimal."""

from __future__ import annotations

import random
from decimal import Decimal

import numpy as np
import orjson
import pytest
from market_feed import USDM_BTC

from sim.worlds.feed import Feed
from trading.books import fold as market
from trading.records import Kind
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import plain_frame


def _frame(price: str, rate: str | None, funding_ms: int, event_ms: int = 1562305380000) -> bytes:
    body = {"e": "markPriceUpdate", "E": event_ms, "s": "BTCUSDT", "p": price, "i": "11784.62659091", "P": "11784.25641265"}
    if rate is not None:
        body["r"] = rate
    return orjson.dumps({"stream": "btcusdt@markPrice@1s", "data": body | {"T": funding_ms}})


def _plainly(raw: bytes) -> tuple[int, int, int, int]:
    """(price, rate, next funding ns, event ns) by orjson and Decimal."""
    body = orjson.loads(raw)["data"]
    price, rate = Decimal(body["p"]) * 10**8, Decimal(body.get("r") or "0") * 10**8
    assert price == int(price) and rate == int(rate)
    return int(price), int(rate), body["T"] * 1_000_000, body["E"] * 1_000_000


def test_every_field_equals_a_plain_decoder() -> None:
    """Price, signed rate (also empty or absent) and times, through the scanner and through a plain frame, over random figures;
    the book and its validity are untouched."""
    rng = random.Random(3)
    feed, plain = Feed(USDM_BTC), Feed(USDM_BTC)
    for _ in range(300):
        price = f"{rng.randrange(1, 10**13) / 10**8:.8f}"
        rate = rng.choice([None, "", "0", f"{rng.uniform(-0.03, 0.03):.8f}", "-0.00010000"])
        raw = _frame(price, rate, rng.choice([0, 1562306400000 + rng.randrange(10**6)]), 1562305380000 + rng.randrange(10**6))
        wanted = _plainly(raw)
        rows, depth = feed.send(raw)
        row = rows[0]
        assert (row["price_ticks"], row["qty_lots"], row["update_id"], row["ts_exchange_ns"]) == wanted
        assert row["kind"] == Kind.MARK and row["flags"] == 0 and len(depth) == 0
        levels = np.array([[2 * wanted[0], wanted[1]]], np.int64)
        same, _ = plain.send(plain_frame(FrameKind.MARK, 0, wanted[3], levels, last_id=wanted[2]))
        assert same.tobytes() == rows.tobytes()
    assert feed.count("marks") == 300 and feed.count("malformed") == 0 and feed.count("phase") == market.WAITING


@pytest.mark.parametrize(
    ("price", "rate"),
    [("0", "0"), ("-1", "0"), ("", "0"), ("1.000000001", "0"), ("1", "-"), ("1", "--1"), ("1", "0.1x"), ("1", "1e-4")],
)
def test_figures_that_are_none_are_malformed(price: str, rate: str) -> None:
    """A price or rate that is no exact number of 1e-8 gives no record and counts; no want comes of it."""
    feed = Feed(USDM_BTC)
    rows, _ = feed.send(_frame(price, rate, 1562306400000))
    assert len(rows) == 0 and feed.count("malformed") == 1 and feed.glob[0]["odd"] == 1 and feed.glob[0]["want_symbol"] == -1
