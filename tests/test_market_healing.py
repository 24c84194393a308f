"""What two lines and a network do to a stream: copies, other orders, holes that fill, ids anew, and what is asked for."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from market_feed import SPOT_BTC, SPOT_ETH, USDM_BTC

from sim.worlds.feed import Feed, diff, snapshot, synced, ticker
from trading.books import fold as market
from trading.books.fold import Want
from trading.books.state import LATE_LIMIT, PATIENCE, TRADE_WINDOW
from trading.records import Flag, Kind


def _kinds(feed: Feed, *frames: Any) -> list[Kind]:
    return [Kind(int(r["kind"])) for frame in frames for r in feed.send(frame)[0]]


def _want(feed: Feed) -> tuple[Want, int] | None:
    g = feed.glob[0]
    return (Want(int(g["want_reason"])), int(g["want_update_id"])) if g["want_symbol"] >= 0 else None


def _call(feed: Feed, what: Any, *args: int) -> int:
    return int(what(*args, 5, 4, feed.state, feed.glob, feed.params, feed.out, feed.rows))


def _trade(trade_id: int, kind: str = "trade") -> Any:
    name = "a" if kind == "aggTrade" else "t"
    return {"e": kind, "E": 1, "s": "BTCUSDT", name: trade_id, "p": "100", "q": "1", "T": 1, "m": False}


@pytest.mark.parametrize("usdm", [False, True])
@pytest.mark.parametrize("order", [o for n in (2, 3, 4) for o in itertools.permutations(range(n)) if o != tuple(range(n))])
def test_any_order_heals(order: tuple[int, ...], usdm: bool) -> None:
    """Diffs in any other order than the venue's: stale at the first that does not follow, nothing shown meanwhile, valid again
    with the last one; the whole book is then told behind a marker, as it would be had the order been right."""

    def message(i: int) -> Any:
        return diff(101 + i, 101 + i, [(str(90 + i), str(i + 1))], prev=100 + i if usdm else None)

    feed, right = Feed(USDM_BTC if usdm else SPOT_BTC), Feed(USDM_BTC if usdm else SPOT_BTC)
    for f in (feed, right):
        f.send(diff(100, 100, prev=99 if usdm else None))
        f.send(snapshot(100 if usdm else 99, [("99", "1")], [("101", "1")]))
        assert f.count("phase") == market.SYNCED
    for i in range(len(order)):
        right.send(message(i))
    broken = False
    for position, i in enumerate(order):
        rows, depth = feed.send(message(i))
        done = sorted(order[: position + 1]) == list(range(position + 1))
        kinds = rows["kind"].tolist()
        if not broken and not done:
            broken = True
            assert kinds == [Kind.STALE] and rows[0]["flags"] == 0 and not rows[0]["bid_ticks"].any()
            assert _want(feed) == (Want.GAP, 101 + i)
        elif broken:
            assert kinds == ([Kind.SNAPSHOT] if done else []) and _want(feed) in (None, (Want.GAP, 101 + i))
            if done:
                assert depth[0]["kind"] == Kind.SNAPSHOT and rows[0]["flags"] == Flag.BOOK_VALID
                assert len(depth) == 1 + int(feed.state[0]["near_count"].sum()) and depth[-1]["flags"] & Flag.LAST
                broken = False
    assert feed.count("phase") == market.SYNCED and feed.count("healed") >= 1
    assert feed.state[0]["top_lots"].tolist() == right.state[0]["top_lots"].tolist()
    assert feed.count("last_id") == right.count("last_id")


def test_copies_from_a_second_line_say_nothing() -> None:
    """Each diff, ticker and trade twice, the second up to two messages late: one record each, no gap, counted."""
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    frames = [f for i in range(20) for f in (diff(101 + i, 101 + i), ticker(101 + i, "99", "1", "101", "1"), _trade(7 + i))]
    kinds = []
    for i, frame in enumerate(frames):
        kinds += _kinds(feed, frame, *frames[max(0, i - 2) : i + 1 : 2])
    assert kinds == [Kind.DEPTH, Kind.BBO, Kind.TRADE] * 20
    assert feed.count("gaps") == 0 and feed.count("late") + feed.count("duplicates") >= 20
    assert feed.count("bbos_late") >= 20 and feed.count("trade_copies") >= 20 and feed.count("trade_gaps") == 0


def test_trades_come_once_in_any_order() -> None:
    """Ids shuffled within the window and repeated: each once; `trade` and `aggTrade` ids do not meet; one from before the window
    is taken for a copy; after LATE_LIMIT of those in a row the ids have begun anew."""
    feed = Feed(SPOT_BTC)
    rng = np.random.default_rng(1)
    ids = np.concatenate([rng.permutation(np.arange(1 + 500 * k, 501 + 500 * k)) for k in range(12)])
    got = [int(r["update_id"]) for i in ids.tolist() for r in (*feed.send(_trade(i))[0], *feed.send(_trade(i))[0])]
    assert got == ids.tolist()
    assert _kinds(feed, _trade(5, "aggTrade"), _trade(5, "aggTrade")) == [Kind.TRADE]
    newest = int(ids.max())
    assert _kinds(feed, _trade(newest - TRADE_WINDOW), _trade(newest + 3 * TRADE_WINDOW)) == [Kind.TRADE]
    assert _kinds(feed, _trade(newest + 1), _trade(newest + 3 * TRADE_WINDOW - 1)) == [Kind.TRADE]
    assert _kinds(feed, *(_trade(i) for i in range(1, LATE_LIMIT))) == []
    assert _kinds(feed, _trade(LATE_LIMIT), _trade(LATE_LIMIT), _trade(LATE_LIMIT + 1)) == [Kind.TRADE] * 2


def test_ids_that_start_anew_are_noticed() -> None:
    """LATE_LIMIT diffs in a row from before the book: stale, a snapshot wanted, and the old ids are forgotten: it connects, and a
    ticker with a new small id counts."""
    feed = Feed(SPOT_BTC)
    synced(feed, 10**9)
    feed.send(ticker(10**9 + 5, "99", "1", "101", "1"))
    for i in range(1, LATE_LIMIT):
        assert _kinds(feed, diff(i, i)) == []
    assert _kinds(feed, diff(LATE_LIMIT, LATE_LIMIT)) == [Kind.STALE]
    assert _want(feed) == (Want.RESTARTED_IDS, LATE_LIMIT) and feed.count("gaps") == 0
    assert _kinds(feed, snapshot(LATE_LIMIT - 1, [("98", "1")], [("102", "1")])) == [Kind.SNAPSHOT]
    assert _kinds(feed, ticker(LATE_LIMIT + 1, "98", "1", "102", "1")) == [Kind.BBO]
    assert feed.state[0]["top_ticks"][0, 0] == 9800


@pytest.mark.parametrize("phase", [market.LOADED, market.HELD])
def test_ids_that_start_anew_are_noticed_without_a_book_too(phase: int) -> None:
    """The same while a snapshot or a held book waits for its diffs: the fold does not wait for ever."""
    feed = Feed(SPOT_BTC)
    if phase == market.HELD:
        synced(feed, 10**9)
        feed.send(diff(10**9 + 5, 10**9 + 5))
    else:
        feed.send(snapshot(10**9, [("99", "1")], [("101", "1")]))
    assert feed.count("phase") == phase
    for i in range(1, LATE_LIMIT + 1):
        feed.send(diff(i, i))
    assert feed.count("phase") == market.WAITING and feed.count("asked") == 1
    assert _kinds(feed, snapshot(LATE_LIMIT - 1, [("98", "1")], [("102", "1")])) == [Kind.SNAPSHOT]


def test_tickers_whose_ids_start_anew_are_noticed() -> None:
    """LATE_LIMIT tickers in a row with older ids: the next numbering begins."""
    feed = Feed(SPOT_BTC)
    feed.send(ticker(10**9, "99", "1", "101", "1"))
    assert _kinds(feed, *(ticker(i, "98", "1", "102", "1") for i in range(1, LATE_LIMIT))) == []
    assert _kinds(feed, *(ticker(LATE_LIMIT + i, "98", "1", "102", "1") for i in range(2))) == [Kind.BBO] * 2


def test_what_cannot_heal_is_forgotten() -> None:
    """After a crossed or malformed diff the missing one does not bring the book back; a snapshot does."""
    for bad, reason in ((diff(101, 101, [("101", "1")]), Want.CROSSED), (diff(101, 101, [("99", "x")]), Want.MALFORMED)):
        feed = Feed(SPOT_BTC)
        synced(feed, 100)
        assert _kinds(feed, bad) == [Kind.STALE] and feed.count("phase") == market.WAITING
        assert _want(feed) is not None and _want(feed)[0] == reason  # type: ignore[index]
        assert _kinds(feed, diff(101, 101), diff(102, 102)) == []
        assert _kinds(feed, snapshot(101, [("98", "1")], [("101", "1")])) == [Kind.SNAPSHOT]


def test_a_healed_book_that_crosses_is_not_shown() -> None:
    """The diffs that fill the hole cross the book: it is forgotten, never shown."""
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    assert _kinds(feed, diff(102, 102, [("101", "1")]), diff(101, 101)) == [Kind.STALE]
    assert feed.count("crossed") == 1 and feed.count("phase") == market.WAITING


def test_a_snapshot_is_asked_for_once_until_one_comes() -> None:
    """Start, gap, too old, malformed, disconnect, loss: one want each, with its reason, and none while one is under way."""
    feed = Feed(SPOT_BTC)
    feed.send(diff(100, 100))
    assert _want(feed) == (Want.START, 100)
    feed.send(diff(101, 101))
    assert _want(feed) is None
    feed.send(snapshot(90))
    assert _want(feed) == (Want.TOO_OLD, 100)
    feed.send('{"lastUpdateId":99,"bids":[["1"')
    assert _want(feed) == (Want.MALFORMED, 0)
    feed.send('{"lastUp')
    assert _want(feed) == (Want.MALFORMED, 0)
    assert _kinds(feed, snapshot(99, [("99", "1")], [("101", "1")])) == [Kind.SNAPSHOT] and _want(feed) is None
    feed.send('{"lastUp')
    assert _want(feed) is None
    feed.send(diff(105, 105))
    assert _want(feed) == (Want.GAP, 105)
    feed.send(diff(109, 109))
    assert _want(feed) is None
    feed.send(snapshot(104, [("99", "1")], [("101", "1")]))
    assert _want(feed) == (Want.TOO_OLD, 109) and feed.count("phase") == market.HELD
    assert _kinds(feed, snapshot(108, [("99", "1")], [("101", "1")])) == [Kind.SNAPSHOT]
    assert _call(feed, market.on_disconnect, 0) == 1 and _want(feed) is None
    feed.send(diff(120, 120))
    assert _want(feed) == (Want.DISCONNECTED, 120)
    feed.send(snapshot(119, [("99", "1")], [("101", "1")]))
    assert _call(feed, market.on_lost, 0) == 1 and _want(feed) == (Want.LOST, 0)
    assert feed.out[0]["kind"] == Kind.STALE and feed.glob[0]["n_depth"] == 1 and feed.count("lost") == 1
    assert _call(feed, market.on_lost, 0) == 0 and _want(feed) is None


def test_a_snapshot_that_never_comes_is_asked_for_again() -> None:
    """A thousand diffs without a book and without an answer: the snapshot, or the wish for it, was lost on the way. One want
    each time, and the answer to any of them is the one that was awaited."""
    feed = Feed(SPOT_BTC)
    wants = []
    for i in range(2 * PATIENCE + 1):
        feed.send(diff(100 + i, 100 + i))
        wants += [(i, found)] if (found := _want(feed)) else []
    assert wants == [(0, (Want.START, 100)), (PATIENCE, (Want.LOST, 0)), (2 * PATIENCE, (Want.LOST, 0))]
    assert feed.count("expected") == 1
    last = 100 + 2 * PATIENCE
    assert _kinds(feed, snapshot(last - 1, [("99", "1")], [("101", "1")])) == [Kind.SNAPSHOT] and feed.count("expected") == 0


def test_a_snapshot_that_is_not_needed_any_more_is_ignored() -> None:
    """The gap healed while the snapshot asked for was under way: it comes newer than the book and disturbs nothing; the next
    gap asks again."""
    feed = Feed(SPOT_BTC)
    synced(feed, 100)
    feed.send(diff(102, 102))
    assert _kinds(feed, diff(101, 101)) == [Kind.SNAPSHOT]
    assert _kinds(feed, snapshot(110, [("50", "1")]), diff(103, 103)) == [Kind.DEPTH] and feed.count("snapshots_ignored") == 1
    feed.send(diff(105, 105))
    assert _want(feed) == (Want.GAP, 105)


def test_the_last_line_down_is_a_disconnect() -> None:
    """Two lines: the first that goes down changes nothing, the second makes the book stale; the other symbol stays; a line twice
    up or down, or one that cannot be, is harmless."""
    feed = Feed(SPOT_BTC, SPOT_ETH)
    for line in (0, 1, 1):
        assert _call(feed, market.on_line, 0, line, 1) == 0
    synced(feed, 100)
    assert _call(feed, market.on_line, 0, 0, 0) == 0 and feed.count("phase") == market.SYNCED
    assert _call(feed, market.on_line, 0, 0, 0) == 0 and _call(feed, market.on_line, 1, 1, 0) == 0
    assert _call(feed, market.on_line, 0, 63, 0) == 0 and _call(feed, market.on_line, 0, -1, 1) == 0
    assert _call(feed, market.on_line, 0, 1, 0) == 1 and feed.out[0]["kind"] == Kind.STALE
    assert feed.count("phase") == market.WAITING and feed.count("lines_up") == 0
    assert _call(feed, market.on_line, 0, 1, 1) == 0 and feed.count("asked") == 0
    feed.send(diff(200, 200))
    assert _want(feed) == (Want.DISCONNECTED, 200)


def test_odd_frames_are_said() -> None:
    """`odd` is 1 after an unknown or malformed frame and 0 after any other."""
    feed = Feed(SPOT_BTC)
    for frame, odd in (({"e": "kline"}, 1), (diff(1, 1), 0), ("{", 1), (_trade(1), 0), (_trade(1), 0)):
        feed.send(frame)
        assert feed.glob[0]["odd"] == odd
