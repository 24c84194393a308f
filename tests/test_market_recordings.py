"""The feed fold on the venue's own recordings, against the venue's own best bid/offer and an independent plain fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from market_feed import RECORDINGS, PlainFeed, fold_frames, read_recording

from sim.worlds.feed import Feed
from trading.books import fold as market
from trading.records import DEPTH_RECORD, MARKET_RECORD, Flag

_BEYOND = {"spot BTCUSDT": 3933, "USD-M BTCUSDT": 3503}
"""Records that show more than their recording's one snapshot proves."""
_SHOWN = [
    "kind",
    "flags",
    "ts_exchange_ns",
    "update_id",
    "price_ticks",
    "qty_lots",
    "bid_ticks",
    "bid_lots",
    "ask_ticks",
    "ask_lots",
]


def _listed(row: tuple) -> tuple:
    return tuple(x.tolist() if isinstance(x, np.ndarray) else x for x in row)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if "BTCUSDT" in name and "July" not in name else pytest.mark.slow) for name in RECORDINGS
])  # fmt: skip
def test_every_record_of_a_recording_is_right(name: str, recordings: Path) -> None:
    """Every market record (top levels, flags, ids, times) and every depth row equals the plain fold's; the oracle meets as
    often as the venue's data allow and is equal every time; nothing is unknown, malformed, stale or lost. Where the market trades
    beyond what the one snapshot told, no record claims a valid book."""
    instrument, files, meetings = RECORDINGS[name]
    frames, recv = read_recording(recordings, files)
    ends = np.cumsum([len(f) for f in frames])
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1).astype(np.int64)
    buf = np.frombuffer(b"".join(frames), np.uint8).copy()
    feed = Feed(instrument)
    log = np.zeros(len(frames), MARKET_RECORD)
    depth_log = np.zeros(1_000_000, DEPTH_RECORD)
    counts = np.zeros((len(frames), 2), np.int64)
    n = fold_frames(
        buf, spans, recv, 0, feed.state, feed.glob, feed.params, feed.table, feed.out, feed.rows, log, depth_log, counts
    )
    st = feed.state[0]
    assert (st["oracle_checked"], st["oracle_equal"]) == (meetings, meetings)
    assert st["phase"] == market.SYNCED and st["resyncs"] == 1 and st["snapshots"] == 1
    for counter in ("gaps", "crossed", "duplicates", "malformed", "trade_gaps", "levels_dropped", "pending_dropped"):
        assert st[counter] == 0, counter
    assert feed.glob[0]["unknown"] == feed.glob[0]["malformed"] == 0 and not st["deaths"].any()
    assert st["depth_messages"] + st["trades"] + st["bbos"] + st["snapshots"] == len(frames) == feed.glob[0]["frames"]

    plain = PlainFeed(instrument)
    got = zip(*(log[:n][field].tolist() for field in _SHOWN))
    got_depth = zip(*(depth_log[field].tolist() for field in ("kind", "flags", "price_ticks", "qty_lots", "update_id")))
    stamps = zip(log["ts_ns"].tolist(), log["ts_recv_ns"].tolist(), log["symbol"].tolist())
    for i, frame in enumerate(frames):
        wanted, wanted_depth = plain.send(frame)
        assert counts[i, 0] == (wanted is not None) and counts[i, 1] == len(wanted_depth), frame[:200]
        if wanted is not None:
            assert next(got) == wanted, frame[:200]
            assert next(stamps) == (recv[i], recv[i], 0)
        for row in wanted_depth:
            assert next(got_depth) == row, frame[:200]
    assert plain.equal == len(plain.met) == meetings
    beyond = int((log[:n]["flags"] & Flag.BEYOND_EDGE != 0).sum())
    assert beyond == st["beyond_edge"] and st["oracle_beyond"] == 0 and st["wants"] == 1 + st["edge_wants"]
    assert beyond == _BEYOND.get(name, 0) and st["edge_wants"] == (beyond > 0 or "July" in name)


def test_two_symbols_in_one_stream_do_not_touch_each_other(recordings: Path) -> None:
    """Frames of two symbols, interleaved in one fold, end in the same states as two folds with one symbol each."""
    pairs = [RECORDINGS["spot BTCUSDT"], RECORDINGS["spot ETHUSDT"]]
    both = Feed(*(p[0] for p in pairs))
    alone = [Feed(p[0]) for p in pairs]
    streams = [read_recording(recordings, p[1])[0][:4000] for p in pairs]
    for frames in zip(*streams):
        for symbol, frame in enumerate(frames):
            rows, _ = both.send(frame, hint=symbol)
            alone[symbol].now = both.now - 1
            rows_alone, _ = alone[symbol].send(frame)
            rows_alone["symbol"] = symbol
            assert rows.tobytes() == rows_alone.tobytes()
    for symbol, feed in enumerate(alone):
        assert both.state[symbol].tobytes() == feed.state[0].tobytes()
        assert both.count("phase", symbol) == market.SYNCED


def test_a_lost_depth_message_stops_that_symbol_until_a_snapshot(recordings: Path) -> None:
    """Dropping any one depth message makes the book stale at the next, no later record claims a valid book, and the other
    symbol of the fold goes on."""
    pairs = [RECORDINGS["USD-M BTCUSDT"], RECORDINGS["USD-M ETHUSDT"]]
    streams = [read_recording(recordings, p[1])[0][:6000] for p in pairs]
    lost = [i for i, f in enumerate(streams[0]) if b'"depthUpdate"' in f and i > 2000][0]
    feed = Feed(*(p[0] for p in pairs))
    # one table has both names, so the frames' own names decide
    valid: list[list[int]] = [[], []]
    for i, frames in enumerate(zip(*streams)):
        for symbol, frame in enumerate(frames):
            if symbol == 0 and i == lost:
                continue
            rows, _ = feed.send(frame, hint=symbol)
            valid[symbol] += [int(r["flags"]) & 1 for r in rows]
    assert feed.count("gaps") == 1 and feed.count("phase") == market.WAITING
    assert feed.count("phase", 1) == market.SYNCED and feed.count("gaps", 1) == 0
    stopped = len(valid[0]) - valid[0][::-1].index(1)
    assert 1 not in valid[0][stopped:] and len(valid[0]) - stopped > 1000
    assert valid[1][-1] == 1
