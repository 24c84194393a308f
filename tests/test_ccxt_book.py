"""ccxt's floats and whole books as exact integer frames: applied in order, the frames give the book that ccxt showed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from ccxt_fakes import market
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.venues import ccxt_market as cm
from trading.venues.ccxt_book import CcxtBook
from trading.venues.names import LINEAR
from trading.venues.protocol import VenueError, VenueSymbol
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import (
    HAS_CHECKSUM,
    IN_BAND,
    UNCHECKED,
    W_FIRST,
    W_FLAGS,
    W_KIND,
    W_LAST,
    W_PREV,
    W_SYMBOL,
    W_TS,
    read_plain_frame,
)  # fmt: skip

BTC = VenueSymbol(3, "BTCUSDT", "BTC/USDT", "0.01", "0.00001")


def applied(sides: tuple[dict[int, int], dict[int, int]], raw: bytes) -> None:
    """Apply a depth or snapshot frame to plain dicts."""
    head, levels = read_plain_frame(raw)
    if head[W_KIND] == FrameKind.SNAPSHOT:
        sides[0].clear()
        sides[1].clear()
    for key, lots in levels.tolist():
        if lots:
            sides[key & 1][key >> 1] = lots
        else:
            assert sides[key & 1].pop(key >> 1, None) is not None, "removes a level that is not there"


_side = st.dictionaries(st.integers(1, 10**7), st.integers(0, 10**12), max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(_side, _side, st.booleans()), min_size=1, max_size=8), st.integers(1, 12))
def test_frames_applied_in_order_are_the_book(steps: list[tuple[dict[int, int], dict[int, int], bool]], depth: int) -> None:
    """Whatever books ccxt shows in turn, within `depth` the frames reproduce them; each diff names the id before it; a book that
    was forgotten begins with a snapshot and ids go on."""
    maker, sides, last = CcxtBook(BTC, depth=depth, first_id=1000), ({}, {}), 1000
    forgotten = True
    for bids, asks, forget in steps:
        shown = [[(float(Decimal(t) * Decimal("0.01")), float(Decimal(q) * Decimal("0.00001"))) for t, q in sorted(side.items())]
                 for side in (bids, asks)]  # fmt: skip
        shown[0].reverse()
        if forget:
            maker.forget()
            forgotten = True
        raw = maker.book(*shown, 1_700_000_000_123)
        wanted = (
            {t: q for t, q in sorted(bids.items(), reverse=True)[:depth] if q},
            {t: q for t, q in sorted(asks.items())[:depth] if q},
        )
        if raw is None:
            assert sides == wanted
            continue
        head, _ = read_plain_frame(raw)
        assert head[W_KIND] == (FrameKind.SNAPSHOT if forgotten else FrameKind.DEPTH) and head[W_SYMBOL] == 3
        assert head[W_FLAGS] == (IN_BAND if forgotten else 0) and not head[W_FLAGS] & HAS_CHECKSUM
        assert head[W_LAST] == head[W_FIRST] == last + 1 and head[W_PREV] == (UNCHECKED if forgotten else last)
        assert head[W_TS] == 1_700_000_000_123_000_000
        last, forgotten = last + 1, False
        applied(sides, raw)
        assert sides == wanted


def test_a_number_that_is_no_whole_tick_or_lot_is_refused_and_changes_nothing() -> None:
    """The sentence names symbol, value and remedy; the frames after it go on from the book before."""
    maker = CcxtBook(BTC)
    assert maker.book([(100.01, 1.0)], [(100.02, 2.0)]) is not None
    for bids in ([(100.015, 1.0)], [(100.0, 0.000001)], [(float("nan"), 1.0)], [(-1.0, 1.0)], [(0.0, 1.0)], [("x", 1.0)]):
        with pytest.raises(VenueError):
            maker.book(bids, [(100.02, 2.0)])
    with pytest.raises(VenueError, match="BTCUSDT: price 100.015 is no multiple of 0.01: correct tick_size"):
        maker.book([(100.015, 1.0)], [])
    _, levels = read_plain_frame(maker.book([(100.01, 1.5)], [(100.02, 2.0)]) or b"")
    assert levels.tolist() == [[10001 * 2, 150_000]]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**15 - 1), st.integers(0, 12))
def test_fifteen_digits_come_back_exactly(count: int, decimals: int) -> None:
    """Any decimal of up to 15 significant digits, through ccxt's float and back, is the same whole number of units."""
    unit = Decimal(1).scaleb(-decimals)
    assert cm.units(float(count * unit), unit, "price") == count


def test_more_digits_than_a_float_has_are_refused() -> None:
    """A float of 10**15 lots or more may stand for several decimals."""
    with pytest.raises(VenueError, match="coarser lot_size"):
        cm.units(1e15, Decimal(1), "quantity")
    assert cm.units("1000000000000001", Decimal(1), "quantity") == 10**15 + 1


def trade(number: object, price: float = 100.0, amount: float = 1.0, side: str | None = "buy", ms: int = 5) -> dict[str, object]:
    """A trade as ccxt shows one."""
    return {"id": number, "price": price, "amount": amount, "side": side, "timestamp": ms}


def ids(maker: CcxtBook, *trades: dict[str, object]) -> list[int | None]:
    """The id of each trade's frame."""
    return [int(read_plain_frame(raw)[0][W_LAST]) if (raw := maker.trade(t)) else None for t in trades]


def test_trades_are_told_once_with_ids_that_never_go_back() -> None:
    """The venue's numbers where they count up; one more than the last for text, for none, and for numbers that go back."""
    assert ids(CcxtBook(BTC), trade("7"), trade("7"), trade("9"), trade("8"), trade("8"), trade("12")) == [
        7,
        None,
        9,
        10,
        None,
        12,
    ]
    assert ids(CcxtBook(BTC), trade("a-1"), trade("b-2"), trade("a-1"), trade("9" * 30)) == [1, 2, None, 3]
    assert ids(CcxtBook(BTC), trade(None), trade(None), trade(None, ms=4), trade("", ms=6)) == [1, 2, None, 3]


def test_the_side_of_a_trade_is_the_makers() -> None:
    """An aggressive seller hits a bid; without a side the price against the mid decides, and it is counted."""
    maker = CcxtBook(BTC)
    maker.book([(99.0, 1.0)], [(101.0, 1.0)])

    def side(**of: object) -> int:
        return int(read_plain_frame(maker.trade({**trade(None, ms=9), **of}) or b"")[1][0, 0]) & 1

    assert (side(side="sell"), side(side="buy")) == (0, 1) and maker.trades_without_side == 0
    assert (side(side=None, price=99.0), side(side=None, price=100.0), side(side=None, price=100.5)) == (0, 0, 1)
    assert maker.trades_without_side == 3
    for wrong in ({"amount": 0.0}, {"price": None}, {"amount": None}, {"price": 0.0}):
        with pytest.raises(VenueError):
            side(**wrong)


def test_quotes_have_no_place_in_the_sequence() -> None:
    """Both sides in integers, an absent one as 0; the id is 0; neither side: no frame."""
    maker = CcxtBook(BTC)
    head, levels = read_plain_frame(maker.quote({"bid": 99.5, "bidVolume": 2.0, "ask": None, "askVolume": None}) or b"")
    assert head[W_KIND] == FrameKind.BBO and head[W_LAST] == 0
    assert levels.tolist() == [[9950 * 2, 200_000], [1, 0]]
    assert maker.quote({"bid": None, "ask": None}) is None and maker.last_id == 0


def test_rules_of_a_market_in_both_of_ccxts_precisions() -> None:
    """Tick, step and lot as decimals, the lot the finest quantity printed; missing limits are wide, a missing tick is refused."""
    rules = cm.rules_of(market(), cm.TICK_SIZE)
    assert (rules.tick_size, rules.step_size, rules.lot_size) == ("0.01", "0.00001", "0.00000001")
    assert (rules.min_qty, rules.max_qty, rules.min_notional, rules.trading) == ("0.00001", "9000", "5", True)
    places = market(precision={"price": 2, "amount": 5}, limits={}, active=False)
    rules = cm.rules_of(places, cm.DECIMAL_PLACES)
    assert (rules.tick_size, rules.step_size, rules.lot_size) == ("0.01", "0.00001", "0.00001")
    assert (rules.min_qty, rules.max_qty, rules.min_notional, rules.trading) == ("0.00001", "10000000000", "0", False)
    assert cm.rules_of(market(precision={"price": 0.5, "amount": 25.0}), cm.TICK_SIZE).lot_size == "1"
    for wrong, mode in ((market(precision={"price": None, "amount": 1}), 4), (market(), 3), (market(contractSize=0.01), 4),
                        (market(inverse=True), 4)):  # fmt: skip
        with pytest.raises(VenueError, match="BTC/USDT"):
            cm.rules_of(wrong, mode)


def test_a_symbol_is_found_as_people_write_it() -> None:
    """ccxt's name, the venue's id in any case, base and quote in one word; spot unless asked; what is not there gets hints."""
    swap = market(symbol="BTC/USDT:USDT", spot=False, swap=True, linear=True)
    dated = market(symbol="BTC/USDT:USDT-270101", id="BTCUSDT_270101", spot=False, future=True, linear=True)
    xbt = market("ETH/EUR", id="XETHZEUR")
    markets = {m["symbol"]: m for m in (dated, swap, market(), xbt)}
    found = {name: cm.find_market(markets, name)["symbol"] for name in ("BTC/USDT", "BTCUSDT", "btcusdt", "ETHEUR", "XETHZEUR")}
    assert found == {
        "BTC/USDT": "BTC/USDT",
        "BTCUSDT": "BTC/USDT",
        "btcusdt": "BTC/USDT",
        "ETHEUR": "ETH/EUR",
        "XETHZEUR": "ETH/EUR",
    }
    assert cm.find_market(markets, "BTCUSDT", LINEAR)["symbol"] == "BTC/USDT:USDT"
    with pytest.raises(VenueError, match="did you mean BTCUSDT"):
        cm.find_market(markets, "BTCUSD")
    with pytest.raises(VenueError, match="it lists 4 others, such as BTC/USDT"):
        cm.find_market(markets, "@@@")


def test_addresses_are_replaced_by_scheme_and_paths_stay() -> None:
    """Nested addresses, templates among them; Binance's spot streams keep the mark by which ccxt knows them."""
    urls = {
        "public": "https://api.binance.com/api/v3",
        "t": "https://api.{hostname}/v5",
        "n": None,
        "ws": {"spot": "wss://stream.binance.com:9443/ws", "linear": "wss://fstream.binance.com/ws", "l": ["wss://a.b/c?d=1"]},
    }
    got = cm.replaced_addresses(urls, "http://127.0.0.1:80/", "ws://127.0.0.1:81")
    assert got == {
        "public": "http://127.0.0.1:80/api/v3",
        "t": "http://127.0.0.1:80/v5",
        "n": None,
        "ws": {"spot": "ws://127.0.0.1:81/stream/ws", "linear": "ws://127.0.0.1:81/ws", "l": ["ws://127.0.0.1:81/c?d=1"]},
    }
    assert cm.replaced_addresses(urls) == urls


def test_venues_of_a_profile_have_an_id_of_ccxt() -> None:
    """Every name that a profile takes; others are refused with the choice."""
    assert cm.ccxt_id("binance_usdm") == "binanceusdm" and cm.ccxt_id("ccxt:gate") == "gate"
    for wrong in ("gate", "ccxt:", ""):
        with pytest.raises(VenueError, match="ccxt:<id>"):
            cm.ccxt_id(wrong)
