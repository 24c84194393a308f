"""The feed fold allocates nothing, whatever comes: raw and plain frames, checksums, gaps that heal, lines that go."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from market_feed import SPOT_BTC
from numba.core.runtime import _nrt_python, rtsys

from sim.worlds.feed import Feed, diff, snapshot
from trading.books import fold as market
from trading.instruments import Instrument, Market
from trading.jit import kernel
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import HAS_CHECKSUM, IN_BAND, plain_frame

_OKX = Instrument("X", Market.OKX, "0.1", "0.001", "0.001", "0.001")
_KRAKEN = Instrument("Y", Market.KRAKEN, "0.1", "0.001", "0.001", "0.001")


@kernel
def fold_over(
    buf: Any, spans: Any, state: Any, glob: Any, params: Any, table: Any, out: Any, rows: Any, rounds: int
) -> int:
    """All frames, and the line events, `rounds` times."""
    m = 0
    for _ in range(rounds):
        for i in range(spans.shape[0]):
            m += market.on_frame(buf, spans[i, 0], spans[i, 1], 1, 1, 0, state, glob, params, table, out, rows)
        m += market.on_line(0, 1, 1, 1, 1, state, glob, params, out, rows)
        m += market.on_lost(1, 1, 1, state, glob, params, out, rows)
        m += market.on_line(0, 1, 0, 1, 1, state, glob, params, out, rows)
    return m


def test_the_fold_allocates_nothing() -> None:
    """A hundred rounds allocate exactly as much as one, which is what the call from Python takes."""
    book = np.array([[2 * 990, 1], [2 * 1010 + 1, 5]], np.int64)
    frames = [
        diff(100, 100), snapshot(99, [("99", "1")], [("101", "1")]), diff(103, 103), diff(102, 102),
        diff(101, 101), diff(101, 101),
        *(plain_frame(FrameKind.SNAPSHOT, s, 1, book, last_id=5, flags=IN_BAND) for s in (1, 2)),
        *(plain_frame(FrameKind.DEPTH, s, 1, book, prev_id=5, last_id=6, flags=HAS_CHECKSUM, checksum=1) for s in (1, 2)),
        *(plain_frame(kind, 1, 1, book[:1], last_id=7) for kind in (FrameKind.TRADE, FrameKind.MARK)),
        plain_frame(FrameKind.BBO, 1, 1, book, last_id=8),
        "{", {"e": "kline"},
    ]  # fmt: skip
    feed = Feed(SPOT_BTC, _OKX, _KRAKEN)
    for frame in frames:
        feed.send(frame)
    assert feed.count("healed") == 1 and feed.state["checksum_failed"].tolist() == [0, 1, 1], "not what was to be measured"
    raws = [f if isinstance(f, bytes) else (f if isinstance(f, str) else json.dumps(f)).encode() for f in frames]
    ends = np.cumsum([len(r) for r in raws])
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1).astype(np.int64)
    buf = np.frombuffer(b"".join(raws), np.uint8).copy()
    rest = (feed.state, feed.glob, feed.params, feed.table, feed.out, feed.rows)
    fold_over(buf, spans, *rest, 1)
    _nrt_python.memsys_enable_stats()
    try:
        counts = []
        for rounds in (1, 100):
            before = int(rtsys.get_allocation_stats().alloc)
            assert fold_over(buf, spans, *rest, rounds) > 0
            counts.append(int(rtsys.get_allocation_stats().alloc) - before)
    finally:
        _nrt_python.memsys_disable_stats()
    assert counts[0] == counts[1]
