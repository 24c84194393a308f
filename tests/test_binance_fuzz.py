"""Any bytes into the feed fold: no crash, no read past the frame, no record that the bytes do not justify."""

from __future__ import annotations

import ctypes
import json
import mmap
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_feed import SPOT_BTC

from sim.worlds.feed import Feed, diff, snapshot, synced, ticker
from trading.books import fold as market
from trading.records import DEPTH_RECORD, Kind

_PAGES = 16
_TRADE = {"e": "trade", "E": 6, "s": "BTCUSDT", "t": 12, "p": "100.01", "q": "0.5", "T": 5, "m": True, "M": True}
_LEVELS = [(f"{90 + i / 4:.8f}", f"{i}.00000001") for i in range(1, 12)]
SEEDS = [
    json.dumps(frame, separators=(",", ":")).encode()
    for frame in (
        diff(101, 101, _LEVELS, [("101.50", "2"), ("150", "0")], prev=100),
        {"stream": "btcusdt@trade", "data": _TRADE},
        ticker(105, "99.50000000", "1.00000000", "100.00000000", "2.00000000"),
        snapshot(300, _LEVELS, [("101.50", "2"), ("150", "0.00000001")]),
        {**_TRADE, "e": "aggTrade", "a": 3},
    )
]


class GuardedFeed(Feed):
    """A feed whose frames end where an unreadable page begins: one byte read too far ends the test run."""

    def __init__(self) -> None:
        super().__init__(SPOT_BTC)
        self._map = mmap.mmap(-1, (_PAGES + 1) * mmap.PAGESIZE)
        self.room = np.frombuffer(self._map, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        guard = self.room.ctypes.data + _PAGES * mmap.PAGESIZE
        assert libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0

    def close(self) -> None:
        """Give the mapping back."""
        del self.room
        self._map.close()

    def send(self, frame: Any, hint: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As Feed.send, with the guard page right behind the frame."""
        if not isinstance(frame, bytes):
            frame = json.dumps(frame).encode()
        end = _PAGES * mmap.PAGESIZE
        self.room[end - len(frame) : end] = np.frombuffer(frame, np.uint8)
        self.now += 1
        before = self.glob[0]["frames"]
        m = market.on_frame(
            self.room,
            end - len(frame),
            end,
            self.now,
            self.now,
            hint,
            self.state,
            self.glob,
            self.params,
            self.table,
            self.out,
            self.rows,
        )
        d = int(self.glob[0]["n_depth"])
        assert m in (0, 1) and 0 <= d <= market.MAX_DEPTH_OUT and self.glob[0]["frames"] == before + 1
        return self.out[:m].copy(), self.rows[:d].copy()


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedFeed]:
    """One for the module: `_restart` makes it new."""
    feed = GuardedFeed()
    yield feed
    feed.close()


def _restart(feed: Feed) -> None:
    market.init(feed.state, feed.glob, feed.table, feed.params)
    synced(feed, 100)


def _accounted(feed: Feed, frames: int) -> None:
    """Every frame is counted exactly once: unknown, malformed or as a message of its kind."""
    g, s = feed.glob[0], feed.state[0]
    messages = s["depth_messages"] + s["trades"] + s["bbos"] + s["snapshots"] + s["snapshots_ignored"]
    assert g["frames"] == frames == g["unknown"] + g["malformed"] + messages


@settings(max_examples=800, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_random_bytes_say_nothing(guarded: GuardedFeed, junk: bytes) -> None:
    """Random bytes give no record and leave a synced book in step."""
    _restart(guarded)
    rows, depth = guarded.send(junk)
    assert len(rows) == len(depth) == 0 and guarded.count("phase") == market.SYNCED
    _accounted(guarded, 3)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text('{}[]":,.0123456789eEsTUubBaApqtm\\ ', max_size=200))
def test_bytes_that_look_like_frames_are_safe(guarded: GuardedFeed, junk: str) -> None:
    """Strings over the alphabet of frames neither crash nor yield a book that is shown as valid and is crossed."""
    _restart(guarded)
    guarded.send(junk.encode())
    _accounted(guarded, 3)


def _mutated(raw: bytes, rng: random.Random) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0:
                del out[at : at + rng.randint(1, 8)]
            case 1:
                out[at:at] = bytes(rng.choice(b'{}[]",:.0019xX\\ -e') for _ in range(rng.randint(1, 6)))
            case 2 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 3:
                del out[at:]
            case _:
                other = rng.choice(SEEDS)
                cut = rng.randrange(len(other))
                out[at:at] = other[cut : cut + rng.randint(1, 40)]
        if not out:
            break
    return bytes(out)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_frames_never_break_the_fold(guarded: GuardedFeed, seed: int) -> None:
    """Thousands of damaged frames into one fold: every one counted once; a book that is shown as valid is never crossed, and a
    reader of the depth rows holds exactly the fold's book."""
    rng = random.Random(seed)
    _restart(guarded)
    mirror: dict[tuple[int, int], int] = {(0, 9900): 10**8, (1, 10100): 10**8}
    frames = 2
    for i in range(1500):
        rows, depth = guarded.send(_mutated(rng.choice(SEEDS), rng))
        frames += 1
        for row in depth:
            if row["kind"] == Kind.DEPTH:
                key = (int(row["flags"]) >> 2 & 1, int(row["price_ticks"]))
                mirror[key] = int(row["qty_lots"])
                if not mirror[key]:
                    del mirror[key]
            else:
                mirror.clear()
        s = guarded.state[0]
        if s["phase"] == market.SYNCED:
            assert int(s["near_count"].sum() + s["far_count"].sum()) == len(mirror)
            bids = [p for side, p in mirror if side == 0]
            asks = [p for side, p in mirror if side == 1]
            assert -int(s["best"][0]) == max(bids) and int(s["best"][1]) == min(asks) and max(bids) < min(asks)
        for row in rows:
            valid = row["flags"] & 1
            assert valid == (s["phase"] == market.SYNCED)
            if valid and row["bid_ticks"][0] and row["ask_ticks"][0]:
                assert row["bid_ticks"][0] < row["ask_ticks"][0]
        if s["phase"] != market.SYNCED and i % 3 == 0:  # bring it back
            last = int(max(s["pending_last"], s["bbo_id"] if s["bbo_id"] < 10**6 else 0, 100)) + 1
            market.on_disconnect(0, 1, 1, guarded.state, guarded.glob, guarded.params, guarded.out, guarded.rows)
            mirror.clear()
            guarded.send(diff(last, last))
            _, depth = guarded.send(snapshot(last - 1, [("99", "1")], [("101", "1")]))
            frames += 2
            assert len(depth) == 3
            mirror = {(0, 9900): 10**8, (1, 10100): 10**8}
    _accounted(guarded, frames)
    assert guarded.glob[0]["malformed"] > 500


def test_every_cut_of_a_frame_is_malformed(guarded: GuardedFeed) -> None:
    """A frame cut at any byte says nothing, and a cut diff whose kind and symbol still show makes the book stale."""
    for raw in SEEDS:
        for n in range(len(raw)):
            _restart(guarded)
            rows, _ = guarded.send(raw[:n])
            assert [int(r["kind"]) for r in rows] in ([], [Kind.STALE])
            assert guarded.glob[0]["malformed"] == 1
            assert len(rows) == (raw is SEEDS[0] and n >= raw.index(b'"E":') - 1), (n, raw[:n])


def test_more_levels_than_rows_are_refused() -> None:
    """A diff of MAX_DEPTH_OUT levels passes, one more is malformed; nothing is written past the rows."""
    feed = Feed(SPOT_BTC)
    feed.rows = np.zeros(market.MAX_DEPTH_OUT + 1, DEPTH_RECORD)[: market.MAX_DEPTH_OUT]
    synced(feed, 100)
    levels = [(f"{1 + i / 100:.2f}", "1") for i in range(market.MAX_DEPTH_OUT)]
    levels = [(p, q) for p, q in levels if float(p) < 100]
    asks = [(f"{200 + i / 100:.2f}", "1") for i in range(market.MAX_DEPTH_OUT - len(levels))]
    rows, depth = feed.send(diff(101, 101, levels, asks))
    assert rows[0]["kind"] == Kind.DEPTH and len(depth) == market.MAX_DEPTH_OUT
    rows, depth = feed.send(diff(102, 102, levels, [*asks, ("500", "1")]))
    assert rows[0]["kind"] == Kind.STALE and feed.count("malformed") == 1
