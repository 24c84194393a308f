"""How far a book is known: beyond a snapshot's last level nothing is taken for whole, and a deeper one comes in time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from market_feed import SPOT_BTC

from sim.worlds.feed import Feed, diff, snapshot, synced, ticker
from trading.books import book
from trading.books import fold as market
from trading.books.edge import is_cut
from trading.records import Flag, Kind

VALID, BEYOND = int(Flag.BOOK_VALID), int(Flag.BEYOND_EDGE)


def _levels(start: int, step: int, n: int) -> list[tuple[str, str]]:
    return [(str(start + step * i), "1") for i in range(n)]


def _deep(feed: Feed, n: int = 10) -> None:
    """Bids 99, 98, ..., asks 101, 102, ..., n a side; synced at 100."""
    synced(feed, 100, _levels(99, -1, n), _levels(101, 1, n))


def _edges(feed: Feed) -> list[int]:
    return [int(key) // 100 if key != book.NO_KEY else 0 for key in feed.state[0]["edge"] * (-1, 1)]


def _flags(feed: Feed, frame: Any) -> int:
    ((record,), _) = feed.send(frame)
    return int(record["flags"])


@pytest.mark.parametrize(
    ("asked", "levels", "edges"),
    [(10, 10, [90, 110]), (10, 11, [89, 111]), (11, 10, [0, 0]), (0, 10, [0, 0]), (market.WHOLE, 10, [0, 0])],
)
def test_a_side_that_came_full_has_an_edge(asked: int, levels: int, edges: list[int]) -> None:
    """As many levels as were asked for: known up to the last. Fewer: known wholly."""
    feed = Feed(SPOT_BTC, snapshot_levels=asked)
    _deep(feed, levels)
    assert [abs(int(key)) // 100 if key != book.NO_KEY else 0 for key in feed.state[0]["edge"]] == edges


def test_where_nobody_says_a_round_number_of_levels_is_a_limit() -> None:
    """Recordings: a side of 500, 1000 or 5000 levels was asked for with that limit."""
    assert [n for n in range(1, 6000) if is_cut(n, 0)] == [500, 1000, 5000]
    assert [n for n in range(1, 6000) if is_cut(n, 5990)] == list(range(5990, 6000))
    assert not any(is_cut(n, market.WHOLE) for n in range(6000))


def test_the_depth_ring_is_told_the_edges() -> None:
    """Behind the SNAPSHOT marker, before the levels: an EDGE row a side that is cut."""
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    feed.send(diff(100, 100))
    _, depth = feed.send(snapshot(99, _levels(99, -1, 10), _levels(101, 1, 3)))
    assert depth["kind"].tolist() == [Kind.SNAPSHOT, Kind.EDGE] + [Kind.DEPTH] * 13
    assert depth[1]["price_ticks"] == 9000 and not depth[1]["flags"] & Flag.ASK
    assert depth["flags"][-1] & Flag.LAST and not (depth["flags"][:-1] & Flag.LAST).any()


def test_a_record_is_valid_while_none_of_its_levels_can_be_missing() -> None:
    """Ten levels a side: with the fifth best at the last level known the record is valid, one further it is not, says why, and
    is counted; when better levels come it is valid again."""
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    _deep(feed)
    assert _flags(feed, diff(101, 101, [(str(99 - i), "0") for i in range(5)])) == VALID
    assert _flags(feed, diff(102, 102, [("94", "0"), ("85", "1")])) == BEYOND
    assert feed.count("phase") == market.SYNCED and feed.count("beyond_edge") == 1
    assert _flags(feed, diff(103, 103, [("80", "7")])) == BEYOND
    assert _flags(feed, diff(104, 104, [("95", "2")])) == VALID


def test_a_side_with_an_edge_and_too_few_levels_is_not_whole() -> None:
    """Fewer than five levels left on a side that is cut: what would be shown behind them is not known."""
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    _deep(feed)
    assert _flags(feed, diff(101, 101, (), [(str(101 + i), "0") for i in range(7)])) == BEYOND
    whole = Feed(SPOT_BTC, snapshot_levels=market.WHOLE)
    _deep(whole)
    assert _flags(whole, diff(101, 101, (), [(str(101 + i), "0") for i in range(7)])) == VALID


def test_a_deeper_snapshot_is_wanted_half_way_to_the_edge() -> None:
    """Once, before the touch is anywhere near; the records go on being valid."""
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    _deep(feed)
    assert _flags(feed, diff(101, 101, [(str(99 - i), "0") for i in range(4)])) == VALID and feed.glob[0]["want_symbol"] == -1
    assert _flags(feed, diff(102, 102, [("95", "0")])) == VALID
    assert (feed.glob[0]["want_symbol"], feed.glob[0]["want_reason"]) == (0, market.Want.EDGE)
    assert feed.glob[0]["want_update_id"] == 102
    assert _flags(feed, diff(103, 103, [("94", "3")])) == VALID and feed.glob[0]["want_symbol"] == -1
    assert feed.count("wants") == 2 and feed.count("edge_wants") == 1


def _near(feed: Feed) -> None:
    """Synced, and at 101 a deeper snapshot is wanted."""
    _deep(feed)
    feed.send(diff(101, 101, [(str(99 - i), "0") for i in range(5)]))
    assert feed.glob[0]["want_reason"] == market.Want.EDGE


def test_a_deeper_snapshot_does_not_interrupt_the_book() -> None:
    """It brings the levels beyond the edge that the book has not, but for one that went in between, and moves the edge; levels
    that have changed since stay as they are; the record is valid, no SNAPSHOT, no STALE."""
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    _near(feed)
    feed.send(diff(102, 102, [("88", "4"), ("87", "0")]))
    feed.send(diff(103, 103, [("86", "5"), ("94", "9")]))
    records, depth = feed.send(snapshot(101, _levels(94, -1, 10), _levels(101, 1, 10)))
    assert records["kind"].tolist() == [Kind.DEPTH] and records[0]["flags"] == VALID and records[0]["update_id"] == 103
    told = [(Kind(int(r["kind"])), int(r["price_ticks"]) // 100, int(r["qty_lots"])) for r in depth]
    assert told == [(Kind.DEPTH, 89, 10**8), (Kind.DEPTH, 85, 10**8), (Kind.EDGE, 85, 0), (Kind.EDGE, 110, 0)]
    assert depth["flags"][-1] & Flag.LAST
    lots = {price: book.lots_at(feed.state[0], 0, -100 * price) // 10**8 for price in range(85, 95)}
    assert lots == {94: 9, 93: 1, 92: 1, 91: 1, 90: 1, 89: 1, 88: 4, 87: 0, 86: 5, 85: 1}
    assert feed.count("deepened") == 1 and feed.count("resyncs") == 1 and feed.count("asked") == 0
    assert _flags(feed, diff(104, 104, [(str(94 - i), "0") for i in range(4)])) == VALID


def test_a_deeper_snapshot_ahead_of_the_stream_proves_when_the_stream_is_there() -> None:
    """Its levels are in at once, its edge holds from its own update id on; diffs before it do no harm."""
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    _near(feed)
    records, depth = feed.send(snapshot(104, _levels(94, -1, 10), _levels(101, 1, 10)))
    assert records[0]["flags"] == VALID and Kind.EDGE not in depth["kind"].tolist()
    feed.send(diff(102, 103, [("88", "0")]))  # the snapshot has it again, from 104
    assert abs(int(feed.state[0]["edge"][0])) == 9000 and feed.glob[0]["want_symbol"] == -1
    _, depth = feed.send(diff(104, 104, [("88", "1")]))
    assert depth["kind"].tolist() == [Kind.DEPTH, Kind.EDGE, Kind.EDGE] and depth["flags"][-1] & Flag.LAST
    assert abs(int(feed.state[0]["edge"][0])) == 8500 and feed.count("phase") == market.SYNCED


def test_a_deeper_snapshot_that_is_too_old_is_asked_for_again() -> None:
    """From before the wish: what went beyond the edge until then is not noted."""
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    _near(feed)
    feed.send(diff(102, 105))
    assert len(feed.send(snapshot(100, _levels(94, -1, 10), _levels(101, 1, 10)))[0]) == 0
    assert feed.glob[0]["want_reason"] == market.Want.EDGE and feed.glob[0]["want_update_id"] == 105
    assert feed.count("snapshots_too_old") == 1 and feed.count("phase") == market.SYNCED and feed.count("deepened") == 0


def test_an_answer_that_is_no_snapshot_is_asked_for_again() -> None:
    """`{}` or a notice of maintenance, whole JSON with status 200, while a snapshot is awaited: wanted again at once without a
    book, by the next diff with one. Nothing is asked for where nothing was awaited, or where the frame names somebody."""
    for text in ("{}", '{"code":-1003,"msg":"system under maintenance"}', "[]", '{"result":null}'):
        feed = Feed(SPOT_BTC, snapshot_levels=10)
        assert len(feed.send(text)[0]) == 0 and feed.count("wants") == 0
        feed.send(diff(100, 100))
        feed.send('{"e":"kline","s":"BTCUSDT"}')
        assert feed.count("wants") == 1
        feed.send(text)
        assert feed.count("wants") == 2 and feed.glob[0]["want_reason"] == market.Want.MALFORMED and feed.count("expected") == 1
        feed.send(snapshot(99, [("99", "1")], [("101", "1")]))
        assert feed.count("phase") == market.SYNCED
        feed.send(text)
        assert feed.count("wants") == 2
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    _near(feed)
    feed.send("{}")
    assert feed.count("asked") == 0 and feed.count("phase") == market.SYNCED
    assert _flags(feed, diff(102, 102)) == VALID and feed.glob[0]["want_reason"] == market.Want.EDGE


def test_a_level_that_nobody_told_of_is_no_wrong_book() -> None:
    """A bookTicker whose level lies beyond the edge and before what the book has there: nothing to compare. A level within the
    edge, or one that the book has and the venue has not, proves the book wrong."""
    far = [(str(99 - i), "0") for i in range(10)] + [("80", "1")]
    for bid, wrong in (("85", False), ("80", True), ("79", True), ("95", True)):
        feed = Feed(SPOT_BTC, snapshot_levels=10)
        _deep(feed)
        assert _flags(feed, diff(101, 101, far)) == BEYOND
        ((record,), _) = feed.send(ticker(101, bid, "2", "101", "1"))
        assert (record["kind"] == Kind.STALE) == wrong, bid
        assert (feed.count("oracle_checked"), feed.count("oracle_beyond")) == ((1, 0) if wrong else (0, 1))


def test_an_equal_ticker_proves_the_touch() -> None:
    """Nothing stands before it, so the edge moves there; what lies behind is as unknown as before."""
    feed = Feed(SPOT_BTC, snapshot_levels=10)
    _deep(feed)
    feed.send(diff(101, 101, [(str(99 - i), "0") for i in range(10)] + [("80", "1")]))
    assert _flags(feed, ticker(101, "80", "1", "101", "1")) == BEYOND
    assert feed.count("oracle_equal") == 1 and int(feed.state[0]["edge"][0]) == -8000


def test_levels_that_go_for_want_of_room_move_the_edge() -> None:
    """More levels than the book holds beyond its window: known up to the one before the best that was forgotten."""
    feed = Feed(SPOT_BTC, snapshot_levels=market.WHOLE)
    synced(feed, 100)
    for part in range(3):
        asks = [(str(1000 + 2000 * part + i), "1") for i in range(2000)]
        feed.send(diff(101 + part, 101 + part, (), asks))
    assert feed.count("levels_dropped") == 6000 - book.FAR
    assert int(feed.state[0]["edge"][1]) == 100 * (1000 + book.FAR) - 1


def _truth_snapshot(truth: dict[tuple[int, int], int], update_id: int, limit: int) -> Any:
    sides = []
    for side in range(2):
        prices = sorted((p for s, p in truth if s == side), reverse=side == 0)[:limit]
        sides.append([(f"{p / 100:.2f}", f"{truth[side, p] / 1e8:.8f}") for p in prices])
    return snapshot(update_id, *sides)


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 20))])
def test_what_a_book_claims_to_know_is_true(seed: int) -> None:
    """A market that wanders far beyond its first snapshot, deeper ones that come late, early, too old or damaged, tickers at the
    same id: at every record all levels within the edges are the venue's and none is missing there, a valid record shows the
    venue's five best, the depth rows make the same book, and the oracle never finds it wrong."""
    rng = random.Random(seed)
    limit = rng.choice((20, 50))
    feed = Feed(SPOT_BTC, snapshot_levels=limit, overlay=False)
    middle, update_id = 100_000, 100
    truth = {(0, middle - i): rng.randrange(1, 999) for i in range(1, 300)}
    truth |= {(1, middle + i): rng.randrange(1, 999) for i in range(1, 300)}
    history = {update_id: dict(truth)}
    awaited: list[tuple[int, Any]] = []  # (step of arrival, frame)
    ahead: list[Any] = []
    mirror: dict[tuple[int, int], int] = {}
    valid = beyond = early = 0
    drift = rng.choice((-1, 1))
    for step in range(900):
        middle += rng.choice((drift, drift, 0, -drift)) if step % 300 < 200 else rng.choice((-3, 0, 3))
        changed = {k: 0 for k in truth if (k[1] >= middle) == (k[0] == 0)}
        for _ in range(rng.randint(1, 12)):
            side, off = rng.randrange(2), 1 + int(rng.expovariate(0.03))
            key = (side, middle - off if side == 0 else middle + off)
            changed[key] = 0 if rng.random() < 0.45 and key in truth else rng.randrange(1, 999)
        for side in range(2):
            changed[side, middle - 1 if side == 0 else middle + 1] = rng.randrange(1, 999)
        changed = {k: q for k, q in changed.items() if q or k in truth}
        first, update_id = update_id + 1, update_id + rng.randint(1, 4)
        truth.update(changed)
        truth = {k: q for k, q in truth.items() if q}
        history[update_id] = dict(truth)
        bids = [(f"{p / 100:.2f}", f"{q / 1e8:.8f}") for (s, p), q in changed.items() if s == 0]
        asks = [(f"{p / 100:.2f}", f"{q / 1e8:.8f}") for (s, p), q in changed.items() if s == 1]
        frames = [diff(first, update_id, bids, asks)]
        if rng.random() < 0.3:
            best = [max(p for s, p in truth if s == 0), min(p for s, p in truth if s == 1)]
            quantities = [f"{truth[side, best[side]] / 1e8:.8f}" for side in range(2)]
            bid, ask = (f"{price / 100:.2f}" for price in best)
            frames.insert(rng.randrange(2), ticker(update_id, bid, quantities[0], ask, quantities[1]))
        if ahead and feed.count("phase") == market.SYNCED:
            frames.insert(0, _truth_snapshot(truth, update_id, limit))
            early += 1
            ahead.clear()
        frames += [frame for at, frame in awaited if at <= step]
        awaited = [(at, frame) for at, frame in awaited if at > step]
        for frame in frames:
            records, depth = feed.send(frame)
            for row in depth:
                key = (int(row["flags"]) >> 2 & 1, int(row["price_ticks"]))
                if row["kind"] == Kind.SNAPSHOT:
                    mirror = {}
                elif row["kind"] == Kind.DEPTH and row["qty_lots"]:
                    mirror[key] = int(row["qty_lots"])
                elif row["kind"] == Kind.DEPTH:
                    mirror.pop(key, None)
            if feed.glob[0]["want_symbol"] >= 0:
                kind = rng.random()
                if kind < 0.15:
                    awaited.append((step + 1, "{}"))
                elif kind < 0.3 and feed.count("phase") == market.SYNCED:
                    ahead.append(True)
                else:
                    old = sorted(history)[-rng.choice((1, 1, 1, 2, 3)) :][0]
                    awaited.append((step + rng.randint(0, 6), _truth_snapshot(history[old], old, limit)))
            if feed.count("phase") != market.SYNCED or not len(records):
                continue
            st = feed.state[0]
            now = history[int(st["last_id"])]
            for side in range(2):
                edge = int(st["edge"][side])
                known = {k: q for k, q in now.items() if k[0] == side and (k[1] if side else -k[1]) <= edge}
                mine = {k: q for k, q in mirror.items() if k[0] == side}
                assert {k: q for k, q in mine.items() if (k[1] if side else -k[1]) <= edge} == known, (step, side)
                if st["edge_next_id"] == 0:
                    assert mine.items() <= now.items(), (step, side)
            record = records[0]
            if record["flags"] & Flag.BOOK_VALID:
                valid += 1
                assert record["bid_ticks"].tolist() == sorted((p for s, p in now if s == 0), reverse=True)[:5]
                assert record["ask_ticks"].tolist() == sorted(p for s, p in now if s == 1)[:5]
            else:
                beyond += record["flags"] == Flag.BEYOND_EDGE
    assert feed.count("gaps") == 0 and feed.count("resyncs") == 1
    assert feed.count("oracle_checked") == feed.count("oracle_equal") > 100 and feed.count("crossed") == 0
    assert feed.count("deepened") > 2 and valid > 600, (feed.count("deepened"), valid, beyond, early)
