"""Plain frames in the fold: each kind's records and rules, and that words out of shared memory can do no harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.worlds.feed import Feed
from trading.books import fold as market
from trading.instruments import Instrument, Market
from trading.records import Flag, Kind
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import HAS_CHECKSUM, IN_BAND, UNCHECKED, plain_frame

BYBIT = Instrument("BTCUSDT", Market.BYBIT, "0.1", "0.001", "0.001", "0.001")


def _levels(*levels: tuple[int, int, int]) -> np.ndarray:
    return np.array([[2 * price + side, lots] for side, price, lots in levels], np.int64).reshape(-1, 2)


_BOOK = _levels((0, 990, 1), (1, 1010, 1))


def _depth(prev: int, last: int, *levels: tuple[int, int, int], symbol: int = 0, ts: int = 7) -> bytes:
    return plain_frame(FrameKind.DEPTH, symbol, ts, _levels(*levels), prev_id=prev, last_id=last)


def _snapshot(last: int, flags: int = IN_BAND, limit: int = 0, ts: int = 7) -> bytes:
    return plain_frame(FrameKind.SNAPSHOT, 0, ts, _BOOK, last_id=last, first_id=limit, flags=flags)


def _kinds(feed: Feed, *frames: bytes) -> list[Kind]:
    return [Kind(int(r["kind"])) for frame in frames for r in feed.send(frame)[0]]


def test_an_in_band_snapshot_is_the_book_at_once() -> None:
    """Whatever the phase: valid with its first record, its levels told behind the marker; diffs follow by prev_id."""
    feed = Feed(BYBIT)
    rows, depth = feed.send(_snapshot(50))
    assert rows["kind"].tolist() == [Kind.SNAPSHOT] and rows[0]["flags"] == Flag.BOOK_VALID and rows[0]["update_id"] == 50
    assert depth["kind"].tolist() == [Kind.SNAPSHOT, Kind.DEPTH, Kind.DEPTH] and rows[0]["ts_exchange_ns"] == 7
    assert _kinds(feed, _depth(50, 55, (0, 991, 2)), _depth(55, 55), _depth(55, 60)) == [Kind.DEPTH] * 3
    assert feed.count("late") == feed.count("duplicates") == 0
    assert _kinds(feed, _snapshot(1)) == [Kind.SNAPSHOT] and feed.count("last_id") == 1  # ids anew
    assert feed.count("resyncs") == 1
    assert _kinds(feed, _depth(2, 3)) == [Kind.STALE] and feed.glob[0]["want_reason"] == market.Want.GAP
    assert _kinds(feed, _depth(1, 2)) == [Kind.SNAPSHOT] and feed.count("healed") == 1
    assert _kinds(feed, _depth(9, 10), _snapshot(20), _depth(20, 21)) == [Kind.STALE, Kind.SNAPSHOT, Kind.DEPTH]


def test_the_other_lines_snapshot_does_not_turn_the_book_back() -> None:
    """With two lines up, an in-band snapshot no newer than the book that nobody asked for is the other line's first message."""
    feed = Feed(BYBIT)
    for line in range(2):
        market.on_line(0, line, 1, 1, 1, feed.state, feed.glob, feed.params, feed.out, feed.rows)
    assert _kinds(feed, _snapshot(50), _depth(50, 60), _snapshot(55)) == [Kind.SNAPSHOT, Kind.DEPTH]
    assert feed.count("snapshots_ignored") == 1 and feed.count("last_id") == 60
    assert _kinds(feed, _depth(55, 60), _depth(60, 61), _snapshot(1, ts=9)) == [Kind.DEPTH, Kind.SNAPSHOT]


def test_ids_that_begin_anew_reset_the_book_once() -> None:
    """Two lines, and Bybit's snapshot with u == 1 after a restart: the first resets the book, the other line's copy, which is no
    newer than what has been applied since, changes nothing; a second restart is a later message and resets it again."""
    feed = Feed(BYBIT)
    for line in range(2):
        market.on_line(0, line, 1, 1, 1, feed.state, feed.glob, feed.params, feed.out, feed.rows)
    assert _kinds(feed, _snapshot(5000, ts=10), _depth(5000, 5001, ts=11), _snapshot(1, ts=50)) == [
        Kind.SNAPSHOT, Kind.DEPTH, Kind.SNAPSHOT,
    ]  # fmt: skip
    assert _kinds(feed, _depth(1, 2, (0, 991, 4), ts=60), _snapshot(1, ts=50)) == [Kind.DEPTH]
    assert feed.count("last_id") == 2 and feed.count("snapshots_ignored") == 1 and feed.count("phase") == market.SYNCED
    assert _kinds(feed, _depth(1, 2, ts=60), _depth(2, 3, ts=70)) == [Kind.DEPTH]
    assert feed.send(_depth(3, 4, ts=80))[0][0]["bid_ticks"][0] == 991
    assert _kinds(feed, _snapshot(1, ts=90), _depth(1, 2, ts=95)) == [Kind.SNAPSHOT, Kind.DEPTH]


def test_a_snapshot_from_rest_needs_a_diff() -> None:
    """Not in band: not shown until a diff with prev_id <= its id < last_id; one that is too old is asked for again."""
    feed = Feed(BYBIT)
    assert _kinds(feed, _depth(50, 55), _snapshot(49, 0)) == [] and feed.glob[0]["want_reason"] == market.Want.TOO_OLD
    assert _kinds(feed, _snapshot(52, 0)) == [Kind.SNAPSHOT] and feed.count("last_id") == 55


def test_without_a_sequence_every_diff_follows() -> None:
    """UNCHECKED: applied when the book is valid; nothing is kept before, a snapshot is asked for once."""
    feed = Feed(BYBIT)
    assert _kinds(feed, _depth(UNCHECKED, 0), _depth(UNCHECKED, 0)) == [] and feed.count("wants") == 1
    assert feed.count("pending_used") == 0
    assert _kinds(feed, _snapshot(0), _depth(UNCHECKED, 0, (0, 992, 1))) == [Kind.SNAPSHOT, Kind.DEPTH]
    assert _kinds(feed, _depth(UNCHECKED, 0), _depth(UNCHECKED, 0, (0, 1010, 1))) == [Kind.DEPTH, Kind.STALE]
    assert feed.glob[0]["want_reason"] == market.Want.CROSSED


def test_levels_behind_the_covered_depth_go() -> None:
    """A stream of two levels a side: a third pushes the worst out, told as a removal; it does not come back."""
    feed = Feed(BYBIT)
    feed.send(_snapshot(0, limit=2))
    feed.send(_depth(UNCHECKED, 0, (0, 980, 1), (1, 90_000, 1)))
    _, depth = feed.send(_depth(UNCHECKED, 0, (0, 985, 1), (1, 1020, 1)))
    told = [(int(r["flags"]) >> 2 & 1, int(r["price_ticks"]), int(r["qty_lots"])) for r in depth]
    assert told == [(0, 985, 1), (1, 1020, 1), (0, 980, 0), (1, 90_000, 0)]
    assert [int(r["flags"]) & Flag.LAST for r in depth] == [0, 0, 0, Flag.LAST]
    rows, _ = feed.send(_depth(UNCHECKED, 0, (0, 985, 0)))
    assert rows[0]["bid_ticks"].tolist() == [990, 0, 0, 0, 0]


def test_trades_and_tickers() -> None:
    """The maker's side tells the aggressor; id 0 is never a copy; a ticker without an id is told and covers nothing."""
    feed = Feed(BYBIT)
    feed.send(_snapshot(50))
    for kind in (FrameKind.TRADE, FrameKind.AGG_TRADE):
        for side in range(2):
            frame = plain_frame(kind, 0, 9, _levels((side, 1000, 5)), last_id=3 + side)
            rows, _ = feed.send(frame)
            r = rows[0]
            assert (r["kind"], r["price_ticks"], r["qty_lots"], r["update_id"]) == (Kind.TRADE, 1000, 5, 3 + side)
            assert r["flags"] == Flag.BOOK_VALID | (0 if side else Flag.AGGRESSOR_SELL)
            assert _kinds(feed, frame) == []
    assert _kinds(feed, *[plain_frame(FrameKind.TRADE, 0, 9, _levels((0, 1000, 5)))] * 3) == [Kind.TRADE] * 3
    bbo = _levels((0, 991, 1), (1, 1000, 2))
    for last, best in ((0, 990), (49, 990), (51, 991)):
        rows, _ = feed.send(plain_frame(FrameKind.BBO, 0, 9, bbo, last_id=last))
        assert rows[0]["kind"] == Kind.BBO and rows[0]["bid_ticks"][0] == best
    assert _kinds(feed, *[plain_frame(FrameKind.BBO, 0, 9, bbo)] * 2) == [Kind.BBO] * 2


_BAD_LEVELS = [[-2, 1], [2, -1], [0, 1], [1, 1], [2**61, 1], [2, 2**60], [-(2**63), 5]]


@pytest.mark.parametrize(
    ("word", "value"),
    [(1, -1), (1, 0), (1, 1), (1, 9), (2, -1), (2, 1), (2, 2**62), (3, -1), (4, -1), (5, -5), (5, 2**63 - 1), (6, -2), (7, 4),
     (7, -1), (7, 1), (9, -1), (9, 2), (9, 0), (9, 2**62), *[((10, 11), level) for level in _BAD_LEVELS]],
)  # fmt: skip
def test_words_that_cannot_be_are_malformed(word: int | tuple[int, int], value: int | list[int]) -> None:
    """Each bad word in a good diff: no record but STALE where it is a diff of a known symbol (a snapshot is wanted then);
    counted."""
    feed = Feed(BYBIT)
    feed.send(_snapshot(50))
    words = np.frombuffer(_depth(50, 51, (0, 985, 1)), np.int64).copy()
    words[list(word) if isinstance(word, tuple) else word] = value
    kinds = _kinds(feed, words.tobytes())
    known = word not in (1, 2)
    assert kinds == ([Kind.STALE] if known else []) and feed.glob[0]["malformed"] == 1 and feed.glob[0]["odd"] == 1
    assert (feed.glob[0]["want_symbol"] == 0) == known
    for n in (8, 72, 88, len(words) * 8 - 1, len(words) * 8 + 8):
        feed = Feed(BYBIT)
        feed.send(_snapshot(50))
        assert Kind.DEPTH not in _kinds(feed, (_depth(50, 51, (0, 985, 1)) + bytes(8))[:n]), n


_EDGES = [2**31, 2**32, 2**59, 2**62, 1980, 2021]
_WORD = st.one_of(st.integers(-2, 12), st.integers(-(2**63), 2**63 - 1), st.sampled_from(_EDGES))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(_WORD, max_size=24), st.booleans(), st.integers(0, 7))
def test_random_words_do_no_harm(words: list[int], fit: bool, cut: int) -> None:
    """Random words behind MAGIC, some with a fitting length and a plausible head: no crash, every frame counted once, and
    whatever record comes has exactly the figures that the words have; a book shown as valid is not crossed."""
    feed = Feed(BYBIT, BYBIT)
    feed.send(_snapshot(50))
    raw = np.array([int.from_bytes(b"\x00PLAINF\x00", "little"), *words], np.int64)
    if fit and len(raw) >= 12:
        raw = raw[: 10 + (len(raw) - 10) // 2 * 2]
        raw[1], raw[2], raw[7] = 2 + abs(int(raw[1])) % 6, abs(int(raw[2])) % 2, abs(int(raw[7])) % 4
        raw[9] = (len(raw) - 10) // 2
    data = raw.tobytes()
    before = feed.glob[0]["malformed"]
    rows, depth = feed.send(data[: len(data) - cut] if cut > 3 and not fit else data)
    counted = feed.state[["depth_messages", "trades", "bbos", "snapshots", "snapshots_ignored", "marks"]].tolist()
    assert sum(map(sum, counted)) + feed.glob[0]["malformed"] - before == 2
    for row in rows:
        if row["kind"] != Kind.STALE:
            assert int(row["symbol"]) == raw[2] and int(row["ts_exchange_ns"]) == raw[3]
        if row["kind"] in (Kind.TRADE, Kind.MARK):
            assert (int(row["price_ticks"]), int(row["qty_lots"])) == (int(raw[10]) >> 1, int(raw[11]))
        if row["flags"] & Flag.BOOK_VALID and row["bid_ticks"][0] and row["ask_ticks"][0]:
            assert row["bid_ticks"][0] < row["ask_ticks"][0]
    told = depth[depth["kind"] == Kind.DEPTH]
    for row in told[: 0 if len(rows) == 0 or rows[0]["kind"] != Kind.DEPTH else None]:
        level = [2 * int(row["price_ticks"]) + (int(row["flags"]) >> 2 & 1), int(row["qty_lots"])]
        assert level in raw[10:].reshape(-1, 2).tolist()


def test_a_checksum_of_a_venue_without_a_rule_is_not_counted() -> None:
    """Bybit sends none: the flag is harmless."""
    feed = Feed(BYBIT)
    assert _kinds(feed, plain_frame(FrameKind.SNAPSHOT, 0, 7, _BOOK, flags=IN_BAND | HAS_CHECKSUM, checksum=1)) == [Kind.SNAPSHOT]
    assert feed.count("checksum_checked") == 0
