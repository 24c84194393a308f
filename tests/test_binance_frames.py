"""The frame decoder: numbers exact or refused, keys in any order, every frame kind, times, names."""

from __future__ import annotations

import json
import random
import re
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_feed import SPOT_BTC, USDM_BTC

from sim.worlds.feed import Feed, diff, snapshot, synced, ticker
from trading.books import fold as market
from trading.instruments import Instrument
from trading.jit import kernel
from trading.records import Flag, Kind
from trading.wire.binance_layout import Aside
from trading.wire.scan import MAX_UNITS, address_of, scan_decimal, scan_integer, skip_value


@kernel
def decimal(buf: Any, n: int, decimals: int) -> tuple[int, int]:
    """scan_decimal over buf[:n]; the place relative to the start, -1 refused."""
    base = address_of(buf)
    value, p = scan_decimal(base, base + n, decimals)
    return value, (p - base if p > 0 else -1)


@kernel
def integer(buf: Any, n: int) -> tuple[int, int]:
    """scan_integer over buf[:n]."""
    base = address_of(buf)
    value, p = scan_integer(base, base + n)
    return value, (p - base if p > 0 else -1)


@kernel
def skipped(buf: Any, n: int) -> int:
    """skip_value over buf[:n]."""
    base = address_of(buf)
    p = skip_value(base, base + n)
    return p - base if p > 0 else -1


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).copy()


_DIGITS = st.text("0123456789", min_size=1, max_size=22)


@settings(max_examples=700, deadline=None, derandomize=True)
@given(_DIGITS, st.one_of(st.none(), _DIGITS), st.integers(0, 18), st.sampled_from(["", '"', '",' + "7" * 30]))
def test_a_decimal_is_exact_or_refused(whole: str, fraction: str | None, decimals: int, after: str) -> None:
    """Any decimal, at the end of the bytes or with more behind: the exact count of units, or refused when it has none."""
    text = whole if fraction is None else f"{whole}.{fraction}"
    units = Decimal(text).scaleb(decimals)
    buf = _bytes(text + after)
    value, p = decimal(buf, len(buf), decimals)
    if units == units.to_integral_value() and units <= MAX_UNITS:
        assert (value, p) == (int(units), len(text))
    else:
        assert p == -1


@pytest.mark.parametrize("text", ["", ".", ".5", "5.", "-1", "+1", "x", '"', "1.x"])
@pytest.mark.parametrize("after", ["", '"' + " " * 30])
def test_what_is_no_decimal_is_refused(text: str, after: str) -> None:
    """No digit before or after the point: refused, close to the end of the bytes or not."""
    buf = _bytes(text + after)
    assert decimal(buf, len(buf), 8)[1] == -1


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text("0123456789", max_size=25), st.sampled_from(["", ",", "}" + " " * 20]))
def test_an_integer_has_at_most_18_digits(text: str, after: str) -> None:
    """1 to 18 digits are read exactly; none or more are refused, and zeros before others, which JSON has not."""
    buf = _bytes(text + after)
    wanted = (int(text), len(text)) if 1 <= len(text) <= 18 and (text[0] != "0" or text == "0") else (0, -1)
    got = integer(buf, len(buf))
    assert got == wanted or (got[1] == -1 and wanted[1] == -1)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_JSON, st.booleans(), st.integers(0, 200), st.binary(max_size=3), st.integers(0, 6))
def test_what_is_stepped_over_is_json(value: Any, ascii_only: bool, at: int, piece: bytes, gone: int) -> None:
    """Damaged in one place, a value is stepped over to its end only if an independent parser takes it as JSON."""
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    at = min(at, len(raw))
    raw = raw[:at] + piece + raw[at + gone :]
    buf = np.frombuffer(raw + b",1", np.uint8).copy()
    n = skipped(buf, len(buf))
    if n >= 0:
        orjson.loads(raw[:n])


@settings(max_examples=250, deadline=None, derandomize=True)
@given(_JSON, st.booleans())
def test_any_json_value_is_stepped_over_exactly(value: Any, ascii_only: bool) -> None:
    """Whatever the value (escapes, nesting, non-ASCII), the scanner stops right behind it; cut short, it says so."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    buf = _bytes(text + ",1")
    assert skipped(buf, len(buf)) == len(text.encode())
    if isinstance(value, (str, list, dict)):
        assert skipped(buf, len(text.encode()) - 1) == -1


_STRANGE: list[Any] = [None, [1, {"b": [["x"]]}], {"u": 5, "s": "NO"}, 'q"\\', -1.5e3]


def _shuffled(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    items = [(k, _shuffled(v, rng)) for k, v in value.items()]
    items += [
        ("zz" + str(i), rng.choice([None, [1, {"b": [["x"]]}], {"u": 5, "s": "NO"}, 'q"\\', -1.5e3]))
        for i in range(rng.randint(0, 3))
    ]
    rng.shuffle(items)
    return dict(items)


def _samples() -> list[Any]:
    trade = {"e": "trade", "E": 6, "s": "BTCUSDT", "t": 12, "p": "100.01", "q": "0.5", "T": 5, "m": True, "M": True}
    agg = {"e": "aggTrade", "E": 6, "s": "BTCUSDT", "a": 9, "p": "100.01", "q": "0.5", "f": 1, "l": 2, "T": 5, "m": False}
    levels = [(f"{90 + i / 4:.8f}", f"{i}.00000001") for i in range(1, 30)]
    return [
        diff(101, 101, levels, [("101.50", "2"), ("150", "0")]),
        diff(101, 101),
        {"stream": "btcusdt@trade", "data": trade},
        trade,
        agg,
        ticker(105, "99.5", "1", "100", "2"),
        ticker(105, "99.5", "1", "100", "2")["data"],
        diff(101, 101, levels)["data"],
    ]


@pytest.mark.parametrize("seed", range(30))
def test_key_order_blanks_and_unknown_keys_do_not_matter(seed: int) -> None:
    """Each frame kind, its keys shuffled at both levels, blanks strewn in and unknown keys added: the same records."""
    rng = random.Random(seed)
    for frame in _samples():
        plain, other = Feed(SPOT_BTC), Feed(SPOT_BTC)
        synced(plain, 100)
        synced(other, 100)
        rows, depth = plain.send(frame)
        text = json.dumps(
            _shuffled(frame, rng), separators=rng.choice([(",", ":"), (" ,\n", "\t: ")]), indent=rng.choice([None, 2])
        )
        rows2, depth2 = other.send(text)
        assert len(rows) == 1 and rows.tobytes() == rows2.tobytes(), text
        # bids and asks may have changed places in the message: LAST moves with them
        for d in (depth, depth2):
            d["flags"] &= ~int(Flag.LAST)
        assert sorted(d.tobytes() for d in depth) == sorted(d.tobytes() for d in depth2)


def test_a_snapshot_in_any_key_order() -> None:
    """A REST snapshot with asks first, blanks and E/T loads like any other."""
    feed = Feed(USDM_BTC)
    feed.send(diff(100, 101, prev=90))
    rows, _ = feed.send('{ "asks":[ ["101.0" , "1"] ],"T":5,"bids" :[["99.9","2.000"]], "E":6, "lastUpdateId": 100 }\n')
    assert rows[0]["kind"] == Kind.SNAPSHOT and rows[0]["ts_exchange_ns"] == 5_000_000
    assert (rows[0]["bid_ticks"][0], rows[0]["bid_lots"][0], rows[0]["ask_ticks"][0]) == (999, 2000, 1010)


def test_trades_say_side_price_and_id() -> None:
    """m=true: the seller was the aggressor. update_id is the trade id, ts_exchange_ns the trade time; aggTrade's id is "a"."""
    feed = Feed(SPOT_BTC)
    for frame, trade_id, flags in [(_samples()[2], 12, Flag.AGGRESSOR_SELL), (_samples()[4], 9, 0)]:
        rows, depth = feed.send(frame)
        r = rows[0]
        assert (r["kind"], r["update_id"], r["flags"], r["price_ticks"], r["qty_lots"]) == (
            Kind.TRADE,
            trade_id,
            flags,
            10001,
            50_000_000,
        )
        assert r["ts_exchange_ns"] == 5_000_000 and len(depth) == 0 and r["ts_ns"] == feed.now and r["ts_recv_ns"] == feed.now - 1


@pytest.mark.parametrize(
    ("stamp", "nanoseconds"),
    [
        (1723161255343, 1723161255343000000),
        (1723161255343123, 1723161255343123000),
        (0, 0),
        (9223372036854, 9223372036854000000),
        (9223372036855, None),
        (999999999999999, None),
        (9223372036854775, 9223372036854775000),
        (9223372036854776, None),
    ],
)
def test_times_are_milliseconds_or_microseconds(stamp: int, nanoseconds: int | None) -> None:
    """13 digits are ms, 16 digits us; what fits neither or overflows int64 nanoseconds is malformed."""
    feed = Feed(SPOT_BTC)
    rows, _ = feed.send({"e": "trade", "s": "BTCUSDT", "t": 1, "p": "1", "q": "1", "T": stamp, "m": True})
    assert [int(r["ts_exchange_ns"]) for r in rows] == ([] if nanoseconds is None else [nanoseconds])
    assert feed.count("malformed") == (nanoseconds is None)


@pytest.mark.parametrize(
    "frame",
    [
        {"result": None, "id": 1},
        {},
        {"e": "kline", "s": "BTCUSDT", "k": {"t": 1, "o": "1"}},
        {"e": "serverShutdown", "E": 1},
        {"e": "markPriceUpdateX", "E": 1, "s": "BTCUSDT", "p": "1", "r": "0", "T": 1},
        {"stream": "btcusdt@depth5@100ms", "data": {"lastUpdateId": 160, "bids": [["1", "1"]], "asks": [["2", "1"]]}},
        {
            "stream": "btcusdt@depth20@100ms",
            "data": {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": 1, "u": 2, "b": [], "a": []},
        },
        {"e": "trade", "s": "NOSUCH", "t": 1, "p": "1", "q": "1", "T": 1, "m": True},
        {"e": "trade", "s": "BTCUSDTX", "t": 1, "p": "1", "q": "1", "T": 1, "m": True},
        {"e": "trade", "s": "BTCUSDT", "t": 1, "p": "0", "q": "0", "T": 1, "m": True},
        {"e": "tradeX", "s": "BTCUSDT", "t": 1, "p": "1", "q": "1", "T": 1, "m": True},
    ],
)
def test_frames_that_are_not_ours_are_unknown(frame: Any) -> None:
    """Answers, other events, partial depth, other symbols, placeholders of trades: no record, counted, book untouched."""
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    rows, depth = feed.send(frame)
    assert len(rows) == len(depth) == 0 and feed.glob[0]["unknown"] == 1 and feed.glob[0]["malformed"] == 0
    assert feed.count("phase") == market.SYNCED


@pytest.mark.parametrize(
    ("origin", "aside"),
    [("INSURANCE_FUND", Aside.INSURANCE_FUND), ("ADL", Aside.ADL), ("NA", Aside.NA), ("", Aside.OTHER), ("MARKETS", Aside.OTHER)],
)
def test_a_futures_print_that_is_no_trade_is_counted_and_set_aside(origin: str, aside: Aside) -> None:
    """Whatever `X` says but MARKET: no record, even at a price off the tick; its id is passed over, so that none is missed; a
    copy counts once. MARKET and no `X` at all are trades."""
    feed = Feed(USDM_BTC)
    body = {"e": "trade", "s": "BTCUSDT", "p": "100.0", "q": "1", "T": 1_723_161_255_300, "m": True}
    assert len(feed.send(body | {"t": 7, "X": "MARKET"})[0]) == 1
    odd = body | {"t": 8, "p": "99.123456789", "X": origin}
    assert len(feed.send(odd)[0]) == len(feed.send(odd)[0]) == 0
    assert len(feed.send(body | {"t": 9})[0]) == 1
    assert [int(n) for n in feed.state[0]["aside"]] == [int(kind == aside) for kind in Aside]
    assert (feed.count("trades"), feed.count("trade_gaps"), feed.count("malformed")) == (2, 0, 0)
    assert feed.glob[0]["unknown"] == feed.glob[0]["malformed"] == 0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(10**12, 4 * 10**12), st.integers(0, 999), st.data())
def test_times_in_microseconds_and_blanks_change_nothing(ms: int, us: int, data: st.DataObject) -> None:
    """A depth message says the same with its times in ms or us, and with any of JSON's blanks between its words."""
    blanks = st.text(" \t\n\r", max_size=3)
    body = {"e": "depthUpdate", "E": ms, "s": "BTCUSDT", "U": 101, "u": 102, "b": [["99.5", "2"]], "a": [["100.5", "0.5"]]}
    pieces = []
    for word in re.findall(r'"[^"]*"|[{}\[\]:,]|[0-9]+', json.dumps({"stream": "btcusdt@depth@100ms", "data": body})):
        pieces += [data.draw(blanks), word.replace(str(ms), f"{ms}{us:03}")]
    plain, spread = Feed(SPOT_BTC), Feed(SPOT_BTC)
    for feed in (plain, spread):
        feed.send(diff(100, 100))
        feed.send(snapshot(99, [("99", "1")], [("101", "1")]))
    (one, levels), (other, same) = plain.send(body), spread.send("".join(pieces) + data.draw(blanks))
    assert len(one) == len(other) == 1 and spread.glob[0]["malformed"] == 0
    assert int(other[0]["ts_exchange_ns"]) - int(one[0]["ts_exchange_ns"]) == us * 1000
    for name in ("price_ticks", "qty_lots", "flags", "update_id"):
        assert levels[name].tolist() == same[name].tolist()


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{", "}", "[]", "null", "{}}", '{"a":1,}', '{"a" 1}', '{a:1}', '{,"a":1}', '{"a":1 "b":2}', '{"a":}',
        '{"u":1.5}',
        '{"a":[}', '{"a":"', '{"a":[{]}', '{"u":1234567890123456789}', '{"u":1,"data":{"u":1}}x', '{"stream":"x","data":{"u":1}',
        '{"u":1,"u":2,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}',
        '{"u":1,"s":"BTCUSDT","b":"2","B":"1","a":"2","A":"1"}',
        '{"u":1,"s":"BTCUSDT","b":"1","B":"0","a":"2","A":"1"}',
        '{"u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2"}',
        '{"e":"trade","s":"BTCUSDT","t":1,"p":"1","q":"1","T":1,"m":trux}',
        '{"a":' + "[" * 100 + "]" * 100 + "}",
    ],
)  # fmt: skip
def test_malformed_frames_count_and_say_nothing(text: str) -> None:
    """No JSON object, said twice, something missing, crossed or half-empty tickers, absurd nesting: counted, no record."""
    feed = Feed(SPOT_BTC)
    rows, depth = feed.send(text)
    assert len(rows) == len(depth) == 0 and feed.glob[0]["malformed"] == 1


def test_a_tick_that_is_no_power_of_ten() -> None:
    """With a tick of 0.5 a price is counted in halves; one between them is refused."""
    feed = Feed(Instrument("BTCUSDT", tick_size="0.5", lot_size="0.001", step_size="0.001", min_qty="0.001"))
    rows, _ = feed.send(ticker(1, "99.50", "1", "100.0", "0.001"))
    assert (rows[0]["bid_ticks"][0], rows[0]["ask_ticks"][0], rows[0]["ask_lots"][0]) == (199, 200, 1)
    assert len(feed.send(ticker(2, "99.4", "1", "100.0", "1"))[0]) == 0 and feed.count("malformed") == 1


def test_a_frame_may_lie_anywhere_in_the_buffer() -> None:
    """Only buf[start:end] is read; bounds beyond the buffer are cut to it."""
    frame = json.dumps(ticker(105, "99.5", "1", "100", "2")).encode()
    feed = Feed(SPOT_BTC)
    buf = np.frombuffer(b'{"u":' + frame + b"}", np.uint8).copy()
    rest = (1, 1, 0, feed.state, feed.glob, feed.params, feed.table, feed.out, feed.rows)
    assert market.on_frame(buf, 5, 5 + len(frame), *rest) == 1
    feed.state[0]["bbo_id"] = 0
    assert market.on_frame(buf[5 : 5 + len(frame)], -3, 10**9, *rest) == 1
    assert market.on_frame(buf, 9, 3, *rest) == 0 and market.on_frame(buf, 10**9, 10**9 + 5, *rest) == 0


def test_snapshot_without_a_hint_is_unknown() -> None:
    """A REST snapshot names no symbol: without a hint it belongs to nobody."""
    feed = Feed(SPOT_BTC)
    for hint in (-1, 1):
        feed.send(snapshot(5, [("1", "1")]), hint=hint)
    assert feed.glob[0]["unknown"] == 2
