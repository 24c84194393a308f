"""The venue's sequence rules as histories: what each makes of the book, and what the rings are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from market_feed import SPOT_BTC, SPOT_ETH, USDM_BTC

from sim.worlds.feed import Feed, diff, snapshot, synced, ticker
from trading.books import book
from trading.books import fold as market
from trading.books.state import PENDING_WORDS
from trading.records import Flag, Kind


def _send(feed: Feed, *frames: Any) -> list[Kind]:
    """Fold the frames; the kinds of all market records that come out."""
    kinds: list[Kind] = []
    for frame in frames:
        rows, depth = feed.send(frame)
        kinds += [Kind(int(r["kind"])) for r in rows]
        for row in depth:
            assert row["ts_ns"] == feed.now and row["symbol"] == 0
    return kinds


def _bid(feed: Feed) -> tuple[int, int]:
    return int(feed.state[0]["top_ticks"][0, 0]), int(feed.state[0]["top_lots"][0, 0])


def test_spot_first_diff_must_bracket_the_snapshot() -> None:
    """Spot: diffs with u <= lastUpdateId go; the first kept has U <= lastUpdateId + 1 <= u; then the book is valid."""
    for first, last, good in [
        (100, 101, True),
        (101, 101, True),
        (99, 150, True),
        (102, 103, False),
        (90, 99, None),
        (90, 100, None),
    ]:
        feed = Feed(SPOT_BTC)
        kinds = _send(feed, diff(first, last, [("99", "2")]), snapshot(100, [("99", "1")], [("101", "1")]))
        assert kinds == ([Kind.SNAPSHOT] if good else []), (first, last)
        phase = {True: market.SYNCED, False: market.WAITING, None: market.LOADED}[good]
        assert feed.count("phase") == phase and feed.count("snapshots_too_old") == (good is False)
        if good:
            assert _bid(feed) == (9900, 2 * 10**8) and feed.count("last_id") == last


def test_usdm_first_diff_must_bracket_the_snapshot() -> None:
    """USD-M: diffs with u < lastUpdateId go; the first kept has U <= lastUpdateId <= u."""
    for first, last, good in [(100, 101, True), (100, 100, True), (90, 100, True), (101, 103, False), (90, 99, None)]:
        feed = Feed(USDM_BTC)
        kinds = _send(feed, diff(first, last, [("99", "2")], prev=80), snapshot(100, [("99", "1")], [("101", "1")]))
        assert kinds == ([Kind.SNAPSHOT] if good else []), (first, last)
        assert feed.count("phase") == {True: market.SYNCED, False: market.WAITING, None: market.LOADED}[good]


def test_a_snapshot_alone_is_not_shown() -> None:
    """A snapshot with no diff to connect to yields no record; the first diff that brackets it makes the book valid, and only then
    are its levels told: the marker, all levels, the diff."""
    feed = Feed(SPOT_BTC)
    assert _send(feed, snapshot(100, [("99", "1"), ("98", "3")], [("101", "1")])) == []
    trade = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 1, "p": "100", "q": "1", "T": 1, "m": False}
    rows, _ = feed.send(trade)
    assert not rows[0]["flags"] & Flag.BOOK_VALID
    rows, depth = feed.send(diff(101, 102, [("98", "0")], [("102", "4")], ms=77))
    assert [int(r["kind"]) for r in rows] == [Kind.SNAPSHOT] and rows[0]["flags"] == Flag.BOOK_VALID
    assert rows[0]["ts_exchange_ns"] == 77_000_000 and rows[0]["update_id"] == 102
    e8 = 10**8
    assert [tuple(int(r[f]) for f in ("kind", "flags", "price_ticks", "qty_lots", "update_id")) for r in depth] == [
        (Kind.SNAPSHOT, Flag.BOOK_VALID, 0, 0, 100),
        (Kind.DEPTH, Flag.BOOK_VALID, 9900, e8, 100),
        (Kind.DEPTH, Flag.BOOK_VALID, 9800, 3 * e8, 100),
        (Kind.DEPTH, Flag.BOOK_VALID | Flag.ASK | Flag.LAST, 10100, e8, 100),
        (Kind.DEPTH, Flag.BOOK_VALID, 9800, 0, 102),
        (Kind.DEPTH, Flag.BOOK_VALID | Flag.ASK | Flag.LAST, 10200, 4 * e8, 102),
    ]


def test_every_later_diff_must_follow_spot() -> None:
    """Spot: U == previous u + 1, else the book is stale at once, told on both rings, and stays so until the missing diff or a
    snapshot that the diffs kept since then bracket; one that is too old, or no newer than the book, is asked for again."""
    for first in (102, 100, 105):
        feed = Feed(SPOT_BTC)
        synced(feed, 100)
        rows, depth = feed.send(diff(first, 110, [("99", "5")]))
        assert [int(r["kind"]) for r in rows] == [Kind.STALE] and rows[0]["flags"] == 0 and rows[0]["update_id"] == 100
        assert [int(r["kind"]) for r in depth] == [Kind.STALE]
        assert feed.count("gaps") == 1 and feed.count("phase") == market.HELD
        assert not rows[0]["bid_ticks"].any() and not rows[0]["ask_lots"].any()
        assert _send(feed, diff(111, 112, [("98", "1")])) == []
        assert _send(feed, snapshot(first - 2, [("99", "1")])) == []
        assert feed.count("snapshots_too_old") + feed.count("snapshots_ignored") == 1
        assert feed.glob[0]["want_reason"] == market.Want.TOO_OLD and feed.glob[0]["want_symbol"] == 0
        assert _send(feed, snapshot(109, [("97", "1")], [("101", "1")])) == [Kind.SNAPSHOT]
        assert _bid(feed) == (9900, 5 * 10**8) and feed.count("last_id") == 112 and feed.count("resyncs") == 2


def test_every_later_diff_must_follow_usdm() -> None:
    """USD-M: pu == previous u, whatever U is; else stale."""
    feed = Feed(USDM_BTC)
    _send(feed, diff(90, 100, prev=80), snapshot(95, [("99", "1")], [("101", "1")]))
    assert _send(feed, diff(150, 160, [("99", "2")], prev=100)) == [Kind.DEPTH]
    assert _send(feed, diff(161, 170, [("99", "3")], prev=159)) == [Kind.STALE]
    assert feed.count("gaps") == 1


def test_the_same_diff_twice_is_ignored() -> None:
    """A diff repeated at once changes nothing and is counted, synced or not; so does an older one, a late copy."""
    feed = Feed(SPOT_BTC)
    _send(feed, diff(100, 101), diff(100, 101))
    assert feed.count("duplicates") == 1 and feed.count("gaps") == 0
    assert _send(feed, snapshot(100, [("99", "1")], [("101", "1")])) == [Kind.SNAPSHOT]
    assert _send(feed, diff(102, 103, [("98", "1")])) == [Kind.DEPTH]
    assert _send(feed, diff(102, 103, [("98", "1")])) == [] and feed.count("duplicates") == 2
    assert _send(feed, diff(100, 101)) == [] and (feed.count("late"), feed.count("gaps")) == (1, 0)


def test_a_crossed_book_is_stale() -> None:
    """Best bid >= best ask after a diff makes the book stale, and the crossing levels are not told."""
    for price in ("101", "102"):
        feed = Feed(SPOT_BTC)
        synced(feed, 100)
        rows, depth = feed.send(diff(101, 101, [(price, "1")]))
        assert [int(r["kind"]) for r in rows] == [int(r["kind"]) for r in depth] == [Kind.STALE]
        assert feed.count("crossed") == 1 and feed.count("phase") == market.WAITING
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    assert _send(feed, diff(101, 101, [("101", "1")], [("101", "0"), ("103", "1")])) == [
        Kind.DEPTH
    ]  # only crossed within the message


def test_a_crossed_snapshot_is_no_book() -> None:
    """A snapshot that is crossed, or becomes so by the diffs kept, is not shown."""
    feed = Feed(SPOT_BTC)
    assert _send(feed, diff(100, 100), snapshot(99, [("101", "1")], [("101", "1")])) == []
    assert _send(feed, snapshot(98, [("98", "1")], [("101", "1")])) == [] and feed.count("snapshots_too_old") == 1
    feed = Feed(SPOT_BTC)
    assert _send(feed, diff(100, 100, [("102", "1")]), snapshot(99, [("98", "1")], [("101", "1")])) == []
    assert feed.count("crossed") == 1 and feed.count("phase") == market.WAITING


def test_a_malformed_diff_is_stale_but_other_malformed_frames_are_not() -> None:
    """A diff with a price off the tick, a quantity finer than a lot or a field missing has changed the venue's book and not
    ours: stale. Malformed trades and tickers only count."""
    for change in (
        [("99.001", "1")],
        [("99", "0.000000001")],
        [("99", "x")],
        [("99",)],
        [("0", "1")],
        [("99", "1e3")],
        [("-1", "1")],
    ):
        feed = Feed(SPOT_BTC)
        synced(feed, 100)
        assert _send(feed, diff(101, 101, change)) == [Kind.STALE], change
        assert feed.count("malformed") == 1 and feed.glob[0]["malformed"] == 1 and feed.count("gaps") == 0
    frame = diff(101, 101)
    del frame["data"]["U"]
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    assert _send(feed, frame) == [Kind.STALE]
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    assert _send(feed, ticker(101, "99.001", "1", "100", "1")) == [] and feed.count("phase") == market.SYNCED
    assert _send(feed, {"e": "trade", "s": "BTCUSDT", "t": 1, "p": "99.001", "q": "1", "T": 1, "m": True}) == []
    assert feed.count("malformed") == 2 and feed.count("phase") == market.SYNCED


def test_a_zero_in_the_far_decimals_is_not_malformed() -> None:
    """Decimals past the tick are accepted when they are zeros."""
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    assert _send(feed, diff(101, 101, [("99.5000000000", "1.500000000000")])) == [Kind.DEPTH]
    assert _bid(feed) == (9950, 150_000_000)


def test_a_newer_snapshot_replaces_the_book_once_connected() -> None:
    """A snapshot newer than a synced book means a cut that nobody told: stale, then valid with the next bracketing diff.
    One that is no newer is ignored."""
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    assert _send(feed, snapshot(100, [("50", "1")], [("60", "1")])) == [] and feed.count("snapshots_ignored") == 1
    assert _send(feed, snapshot(500, [("50", "1")], [("60", "1")])) == [Kind.STALE]
    assert _send(feed, diff(499, 500)) == []
    assert _send(feed, diff(501, 501, [("51", "1")])) == [Kind.SNAPSHOT]
    assert _bid(feed) == (5100, 10**8) and feed.count("gaps") == 0


def test_a_hole_among_kept_diffs_is_never_bridged() -> None:
    """Diffs kept before a hole are thrown away: a snapshot from before the hole is too old, one from after it connects."""
    feed = Feed(SPOT_BTC)
    _send(feed, diff(100, 101, [("90", "1")]), diff(105, 106, [("91", "1")]))
    assert feed.count("gaps") == 1
    assert _send(feed, snapshot(100, [("99", "1")], [("101", "1")])) == [] and feed.count("snapshots_too_old") == 1
    assert _send(feed, snapshot(104, [("99", "1")], [("101", "1")])) == [Kind.SNAPSHOT]
    assert feed.state[0]["near_count"][0] == 2  # 99 and 91, not 90


def test_kept_diffs_are_bounded() -> None:
    """More diffs than there is room for: the oldest go and are counted, what is left still connects; a diff that is larger than
    the room begins a new chain."""
    feed = Feed(SPOT_BTC)
    levels = [(str(1000 + i), "1") for i in range(100)]
    n = 3 * PENDING_WORDS // 200
    for i in range(n):
        _send(feed, diff(100 + i, 100 + i, levels))
    dropped = feed.count("pending_dropped")
    assert 0 < dropped < n and feed.count("pending_used") <= PENDING_WORDS
    assert _send(feed, snapshot(100 + dropped - 2, [("9", "1")], [("9999", "1")])) == []
    assert _send(feed, snapshot(100 + dropped - 1, [("9", "1")], [("9999", "1")])) == [Kind.SNAPSHOT]
    feed = Feed(SPOT_BTC)
    _send(feed, diff(100, 100), diff(101, 101, [(str(1000 + i), "1") for i in range(PENDING_WORDS // 2)]), diff(102, 102))
    assert feed.count("pending_dropped") == 1
    assert _send(feed, snapshot(99, [("9", "1")])) == [] and feed.count("phase") == market.WAITING
    assert _send(feed, snapshot(101, [("9", "1")])) == [Kind.SNAPSHOT]


def test_a_snapshot_of_5000_levels_a_side_fits_however_thin() -> None:
    """5000 levels a side, each 1 000 000 ticks from the next, are all told and all kept, with both edges; 5001 are refused."""
    bids = [(str(100_000_000 - 10_000 * i), "1") for i in range(5000)]
    asks = [(str(100_010_000 + 10_000 * i), "2") for i in range(5000)]
    feed = Feed(SPOT_BTC)
    _send(feed, diff(100, 100))
    _, depth = feed.send(snapshot(99, bids, asks))
    assert len(depth) == 10_003 and feed.count("levels_dropped") == 0 and feed.count("phase") == market.SYNCED
    assert np.all(np.diff(depth["price_ticks"][3:5003]) == -1_000_000) and np.all(
        np.diff(depth["price_ticks"][5003:]) == 1_000_000
    )
    feed = Feed(SPOT_BTC)
    _send(feed, diff(100, 100), snapshot(99, [*bids, ("1", "1")], asks))
    assert feed.count("phase") == market.WAITING and feed.count("malformed") == 1


def test_disconnect_is_stale_at_once() -> None:
    """`on_disconnect` takes a synced book out of use and forgets diffs kept; without a book it says nothing."""
    feed = Feed(SPOT_BTC, SPOT_ETH)
    synced(feed, 100)

    def cut() -> int:
        return int(market.on_disconnect(0, 5, 4, feed.state, feed.glob, feed.params, feed.out, feed.rows))

    assert cut() == 1 and feed.out[0]["kind"] == Kind.STALE and feed.glob[0]["n_depth"] == 1
    assert cut() == 0 and feed.glob[0]["n_depth"] == 0
    _send(feed, diff(101, 101))
    cut()
    assert _send(feed, snapshot(100, [("99", "1")])) == [] and feed.count("phase") == market.LOADED


def test_a_newer_ticker_covers_the_top() -> None:
    """Levels better than a newer bookTicker are dropped, its own stands in front, levels behind it stay; one no newer
    than the book changes nothing; the next diff past it takes it away."""
    feed = Feed(SPOT_BTC)
    synced(feed, 100, [("99", "1"), ("98", "2"), ("97", "3")], [("101", "1"), ("102", "2")])

    def top(frame: Any) -> tuple[list[int], list[int], list[int], list[int]]:
        rows, _ = feed.send(frame)
        r = rows[0]
        assert r["flags"] & Flag.BOOK_VALID
        e8 = 10**8
        return (
            (r["bid_ticks"] // 100).tolist(), (r["bid_lots"] // e8).tolist(),
            (r["ask_ticks"] // 100).tolist(), (r["ask_lots"] // e8).tolist(),
        )  # fmt: skip

    plain = ([99, 98, 97, 0, 0], [1, 2, 3, 0, 0], [101, 102, 0, 0, 0], [1, 2, 0, 0, 0])
    assert top(ticker(99, "98", "7", "103", "8")) == plain  # no newer than the book
    assert top(ticker(105, "98", "7", "103", "8")) == ([98, 97, 0, 0, 0], [7, 3, 0, 0, 0], [103, 0, 0, 0, 0], [8, 0, 0, 0, 0])
    assert len(feed.send(ticker(104, "99", "9", "100", "9"))[0]) == 0 and feed.count("bbos_late") == 1
    assert top(ticker(106, "98", "5", "100", "8"))[:2] == ([98, 97, 0, 0, 0], [5, 3, 0, 0, 0])
    assert top(ticker(107, "99.5", "5", "100", "8"))[0] == [99, 99, 98, 97, 0]
    assert top(ticker(108, "0", "0", "100", "8")) == ([0] * 5, [0] * 5, [100, 101, 102, 0, 0], [8, 1, 2, 0, 0])
    assert top(diff(101, 109)) == plain


def test_the_oracle_meets_in_either_order_and_sees_a_wrong_book() -> None:
    """Depth book and bookTicker are compared once at each shared update id, whichever comes first; a differing quantity counts
    as checked and not as equal: the book is stale at once, and a snapshot is wanted."""
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    _send(feed, ticker(101, "99", "1", "101", "1"), diff(101, 101))
    assert (feed.count("oracle_checked"), feed.count("oracle_equal")) == (1, 1)
    _send(feed, diff(102, 102), ticker(102, "99", "1", "101", "1"))
    assert (feed.count("oracle_checked"), feed.count("oracle_equal")) == (2, 2)
    _send(feed, ticker(102, "99", "1", "101", "1"))
    assert feed.count("oracle_checked") == 2
    _send(feed, ticker(103, "99", "1", "101", "1"), ticker(104, "99", "1", "101", "2"), ticker(105, "99", "1", "101", "1"))
    assert feed.count("phase") == market.SYNCED
    ((record,), _) = feed.send(diff(103, 104))
    assert (feed.count("oracle_checked"), feed.count("oracle_equal")) == (3, 2)
    assert record["kind"] == Kind.STALE and not record["flags"] & Flag.BOOK_VALID
    assert feed.glob[0]["want_reason"] == market.Want.ORACLE and feed.glob[0]["want_symbol"] == 0
    feed.send(snapshot(104, [("99", "1")], [("101", "2")]))
    ((record,), _) = feed.send(diff(105, 106))
    assert record["flags"] & Flag.BOOK_VALID and feed.count("resyncs") == 2
    ((record,), depth) = feed.send(ticker(106, "99", "1", "101", "3"))
    assert record["kind"] == Kind.STALE and [row["kind"] for row in depth] == [Kind.STALE]
    assert feed.glob[0]["want_reason"] == market.Want.ORACLE and feed.glob[0]["want_update_id"] == 106
    off = Feed(SPOT_BTC, oracle=False)
    synced(off, 100)
    _send(off, diff(101, 101), ticker(101, "99", "1", "101", "1"))
    assert off.count("oracle_checked") == 0


def test_spot_and_futures_of_one_name() -> None:
    """A table with BTCUSDT twice: the hint's market decides whose frame it is."""
    feed = Feed(SPOT_BTC, USDM_BTC, SPOT_ETH)
    feed.send(ticker(1, "99", "1", "101", "1"), hint=1)
    feed.send(ticker(1, "99", "1", "101", "1"), hint=2)
    feed.send(ticker(1, "9", "1", "11", "1", symbol="ETHUSDT"), hint=0)
    feed.send(ticker(2, "9", "1", "11", "1", symbol="ETHUSDT"), hint=-1)
    assert [feed.count("bbos", i) for i in range(3)] == [1, 1, 2]


def test_rooms_too_small_are_refused_untouched() -> None:
    """Output arrays below MAX_MARKET_OUT or MAX_DEPTH_OUT: -1, and no state changes."""
    feed = Feed(SPOT_BTC)
    buf = np.zeros(8, np.uint8)
    args = (buf, 0, 8, 1, 1, 0, feed.state, feed.glob, feed.params, feed.table)
    assert market.on_frame(*args, feed.out[:0], feed.rows) == -1
    assert market.on_frame(*args, feed.out, feed.rows[1:]) == -1
    assert feed.glob[0]["frames"] == 0


def test_init_refuses_arrays_that_do_not_fit() -> None:
    """One state a symbol, one glob, one params, or a ValueError that says so."""
    feed = Feed(SPOT_BTC, SPOT_ETH)
    with pytest.raises(ValueError, match="one state a symbol"):
        market.init(feed.state[:1], feed.glob, feed.table, feed.params)


def test_state_is_plain_words() -> None:
    """Every field of state, globals and params is int64 words, and a symbol's state stays under 512 KB."""
    for dtype in (market.FEED_STATE, market.FEED_GLOBAL, market.FEED_PARAMS, book.BOOK):
        assert all(dtype[name].base == np.dtype("i8") for name in dtype.names or ())
    assert market.FEED_STATE.itemsize <= 512 * 1024


def test_nothing_of_a_message_is_left_for_the_next() -> None:
    """The words that hold the message in hand are set when it begins: with rubbish in them before every call the fold says the
    same, of diffs, snapshots, gaps, healing, tickers, trades, frames that cannot be read or name nobody, and lines."""
    feed, spoilt = Feed(SPOT_BTC, SPOT_ETH), Feed(SPOT_BTC, SPOT_ETH)
    frames = [
        diff(100, 100), {}, snapshot(99, [("99", "1")], [("101", "1")]), ticker(101, "99", "2", "101", "1"),
        diff(101, 101, [("99", "2")]), diff(103, 103, [("98", "1")]),
        diff(102, 102, [("97", "1")]), diff(110, 110, symbol="ETHUSDT"), "no frame",
        {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 7, "p": "100", "q": "1", "T": 1, "m": True},
        {"e": "markPriceUpdate", "E": 1, "s": "BTCUSDT", "p": "100", "r": "", "T": 1}, diff(104, 104, [("101", "1")]),
        diff(105, 105, [("99", "x")]), diff(106, 106), snapshot(105, [("99", "1")], [("101", "1")]),
    ]  # fmt: skip
    kinds = set()
    for frame in frames:
        for name in ("ts_ns", "recv_ns", "book_symbol", "rule"):
            spoilt.glob[name] = 77
        said, again = feed.send(frame), spoilt.send(frame)
        kinds |= {Kind(int(kind)) for kind in said[0]["kind"]}
        assert all((a == b).all() for a, b in zip(said, again, strict=True)), frame
        wants = ["want_symbol", "want_reason", "want_update_id"]
        assert feed.glob[wants] == spoilt.glob[wants] and (feed.state == spoilt.state).all()
    assert kinds == {Kind.SNAPSHOT, Kind.BBO, Kind.DEPTH, Kind.STALE, Kind.TRADE, Kind.MARK}
    for line_event in (market.on_lost, market.on_disconnect):
        for f in (feed, spoilt):
            line_event(0, 5, 4, f.state, f.glob, f.params, f.out, f.rows)
        assert feed.out == spoilt.out and feed.rows[0] == spoilt.rows[0] and feed.out["ts_ns"] == 5
