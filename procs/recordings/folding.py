"""A recording through the feed's own compiled fold, chunk by chunk: the records that the pipeline would publish.

Check, cat and convert all stand on this, so that what they say is what a replay does.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sim.recordings import spool
from sim.recordings.spool import StagedRecording, next_frame
from trading.books import fold as market
from trading.instruments import Instrument, instrument_table
from trading.jit import Bytes, Recs, Words, kernel
from trading.records import DEPTH_RECORD, MARKET_RECORD, Kind

CHUNK_MARKET: Final = 1 << 15
_LOST: Final = int(Kind.LOST)
_LINE_UP: Final = int(Kind.LINE_UP)
CHUNK_DEPTH: Final = 8 * market.MAX_DEPTH_OUT


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of some frames. counts: int64, shape (frames, 2), market and depth records of each frame; both in its order."""

    market: Recs
    depth: Recs
    counts: Words


@kernel
def fold_spool(
    frames: Bytes,
    offset: int,
    where: Words,
    state: Recs,
    glob: Recs,
    params: Recs,
    table: Recs,
    out: Recs,
    rows: Recs,
    market_log: Recs,
    depth_log: Recs,
    counts: Words,
    filled: Words,
) -> int:
    """Fold frames and notices of a spool from `offset` on while the logs have room; the offset to go on at, 0 at the end.

    filled: int64, shape (3,): frames, market and depth records written.
    """
    n = 0
    m_all = 0
    d_all = 0
    while n < counts.shape[0] and m_all + market.MAX_MARKET_OUT <= market_log.shape[0]:
        if d_all + market.MAX_DEPTH_OUT > depth_log.shape[0]:
            break
        following = next_frame(frames, offset, where)
        if following == 0:
            offset = 0
            break
        recv, symbol, notice = where[spool.OUT_RECV_NS], where[spool.OUT_SYMBOL], where[spool.OUT_NOTICE]
        if notice == 0:
            m = market.on_frame(
                frames, where[spool.OUT_START], where[spool.OUT_END], recv, recv, symbol,
                state, glob, params, table, out, rows,
            )  # fmt: skip
        elif notice == _LOST:
            m = market.on_lost(symbol, recv, recv, state, glob, params, out, rows)
        else:
            up = 1 if notice == _LINE_UP else 0
            m = market.on_line(symbol, where[spool.OUT_LINE], up, recv, recv, state, glob, params, out, rows)
        d = glob[0].n_depth
        for k in range(m):
            market_log[m_all + k] = out[k]
        for k in range(d):
            depth_log[d_all + k] = rows[k]
        counts[n, 0] = m
        counts[n, 1] = d
        m_all += m
        d_all += d
        n += 1
        offset = following
    filled[0] = n
    filled[1] = m_all
    filled[2] = d_all
    return offset


class Folded:
    """A staged recording and the fold's state; `chunks` walks it once, then `state` and `glob` hold the counters."""

    def __init__(self, path: Path, recording: StagedRecording, instruments: Sequence[Instrument] | None = None) -> None:
        """`instruments` in place of those that the recording's numbers suggest."""
        self.recording = recording
        self.instruments = tuple(instruments or (symbol.instrument() for symbol in recording.symbols))
        self.table = instrument_table(self.instruments)
        self.state = np.zeros(len(self.instruments), market.FEED_STATE)
        self.glob = np.zeros(1, market.FEED_GLOBAL)
        self._params = market.make_params()
        market.init(self.state, self.glob, self.table, self._params)
        with path.open("rb") as file:
            # private and writable, as the feed maps it: one compiled fold for both
            self._frames: Bytes = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)

    def chunks(self) -> Iterator[Chunk]:
        """All records in order. The arrays of a chunk are its own."""
        out, rows = np.zeros(market.MAX_MARKET_OUT, MARKET_RECORD), np.zeros(market.MAX_DEPTH_OUT, DEPTH_RECORD)
        market_log, depth_log = np.zeros(CHUNK_MARKET, MARKET_RECORD), np.zeros(CHUNK_DEPTH, DEPTH_RECORD)
        counts, filled = np.zeros((CHUNK_MARKET, 2), np.int64), np.zeros(3, np.int64)
        where, offset = np.zeros(spool.OUT_WORDS, np.int64), spool.DATA_OFFSET
        while offset:
            offset = fold_spool(
                self._frames, offset, where, self.state, self.glob, self._params, self.table, out, rows,
                market_log, depth_log, counts, filled,
            )  # fmt: skip
            n, m, d = (int(x) for x in filled)
            yield Chunk(market_log[:m].copy(), depth_log[:d].copy(), counts[:n].copy())

    def count(self, name: str) -> int:
        """A counter's sum over the symbols; 0 for one that this fold does not keep."""
        return int(self.state[name].sum()) if name in (self.state.dtype.names or ()) else 0
