"""Frames into the market and depth records that the feed makes of them, some thousand frames at a time.

What this module is not: it decides nothing (sim.backtest.engine).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from sim.backtest.engine import Piece
from sim.market import generator
from sim.recordings import spool
from sim.recordings.spool import next_frame
from sim.settings import Generator
from trading.books import fold as feed
from trading.jit import Bytes, Recs, Words, kernel, lean
from trading.records import DEPTH_RECORD, MARKET_RECORD, Kind

MARKET_ROWS: Final = 1 << 14
DEPTH_ROWS: Final = 4 * MARKET_ROWS + feed.MAX_DEPTH_OUT
_LOST: Final = int(Kind.LOST)
_LINE_UP: Final = int(Kind.LINE_UP)

# words of `at`
OFFSET, LAST_NS, FRAMES = range(3)


@lean
def _room(n: int, market: Recs, depth: Recs, marks: Words) -> bool:
    """Whether there is room for frame `n`."""
    if n == 0:
        return len(marks) > 0
    market_to, depth_to = marks[n - 1, 1], marks[n - 1, 2]
    return bool(n < len(marks) and market_to + feed.MAX_MARKET_OUT <= len(market) and depth_to + feed.MAX_DEPTH_OUT <= len(depth))


@lean
def _keep(
    at: Words, ts_ns: int, n: int, m: int, out: Recs, glob: Recs, rows: Recs, market: Recs, depth: Recs, marks: Words
) -> None:
    """The records of frame `n`, which came at `ts_ns`, go behind those of the frames before it."""
    m_all, d_all = marks[n - 1, 1] if n > 0 else 0, marks[n - 1, 2] if n > 0 else 0
    for k in range(m):
        market[m_all + k] = out[k]
    for k in range(glob[0].n_depth):
        depth[d_all + k] = rows[k]
    at[LAST_NS] = ts_ns
    marks[n, 0], marks[n, 1], marks[n, 2] = ts_ns, m_all + m, d_all + glob[0].n_depth


@kernel
def from_spool(
    raw: Bytes, at: Words, where: Words, state: Recs, glob: Recs, params: Recs, instruments: Recs,
    out: Recs, rows: Recs, market: Recs, depth: Recs, marks: Words,
) -> int:  # fmt: skip
    """Frames of a spool from `at[OFFSET]` on while there is room; marks (frames, 3): time, ends of both rows. Returns frames."""
    n = 0
    while at[OFFSET] != 0 and _room(n, market, depth, marks):
        following = next_frame(raw, at[OFFSET], where)
        if following == 0:
            at[OFFSET] = 0
            break
        at[OFFSET] = following
        recv, symbol, notice = where[spool.OUT_RECV_NS], where[spool.OUT_SYMBOL], where[spool.OUT_NOTICE]
        ts_ns = max(recv, at[LAST_NS] + 1)
        m = 0
        if notice == 0:
            start, end = where[spool.OUT_START], where[spool.OUT_END]
            m = feed.on_frame(raw, start, end, ts_ns, recv, symbol, state, glob, params, instruments, out, rows)
        else:
            glob[0].n_depth = 0
            if symbol < len(state) and notice == _LOST:
                m = feed.on_lost(symbol, ts_ns, recv, state, glob, params, out, rows)
            elif symbol < len(state):
                up = 1 if notice == _LINE_UP else 0
                m = feed.on_line(symbol, where[spool.OUT_LINE], up, ts_ns, recv, state, glob, params, out, rows)
        _keep(at, ts_ns, n, m, out, glob, rows, market, depth, marks)
        n += 1
    at[FRAMES] += n
    return n


@kernel
def from_generator(
    gen: Recs, gen_glob: Recs, gen_params: Recs, raw: Bytes, at: Words, state: Recs, glob: Recs, params: Recs, instruments: Recs,
    out: Recs, rows: Recs, market: Recs, depth: Recs, marks: Words,
) -> int:  # fmt: skip
    """The same of the embedded market."""
    n = 0
    while _room(n, market, depth, marks):
        due = gen_glob[0].next_ts_ns
        end = generator.next_frame(gen, gen_glob, gen_params, instruments, raw) if 0 < due else 0
        if end == 0:
            at[OFFSET] = 0
            break
        ts_ns = max(due, at[LAST_NS] + 1)
        m = feed.on_frame(
            raw, 0, end, ts_ns, gen_glob[0].recv_ns, gen_glob[0].symbol, state, glob, params, instruments, out, rows
        )
        _keep(at, ts_ns, n, m, out, glob, rows, market, depth, marks)
        n += 1
    at[FRAMES] += n
    return n


class Pieces:
    """A staged recording, or the embedded market, as pieces; `state` and `glob` hold the feed's counters meanwhile."""

    def __init__(self, instruments: Recs, spooled: Path | None, generated: Generator, params: Recs) -> None:
        """`params`: FEED_PARAMS (1,)."""
        n = len(instruments)
        self.instruments, self._params = instruments, params
        self.state, self.glob = np.zeros(n, feed.FEED_STATE), np.zeros(1, feed.FEED_GLOBAL)
        feed.init(self.state, self.glob, instruments, params)
        self.at = np.zeros(3, np.int64)
        self.at[OFFSET] = spool.DATA_OFFSET
        self.first_ns = 0
        self._where = np.zeros(spool.OUT_WORDS, np.int64)
        self._scratch = np.zeros(feed.MAX_MARKET_OUT, MARKET_RECORD), np.zeros(feed.MAX_DEPTH_OUT, DEPTH_RECORD)
        self._rows = np.zeros(MARKET_ROWS, MARKET_RECORD), np.zeros(DEPTH_ROWS, DEPTH_RECORD)
        self._marks = np.zeros((MARKET_ROWS, 3), np.int64)
        self._generator: tuple[Recs, Recs, Recs] | None = None
        if spooled is None:
            gen_params = generator.make_params(generated)
            gen = np.zeros(n, generator.GEN_STATE), np.zeros(1, generator.GEN_GLOBAL)
            generator.init(*gen, gen_params, instruments)
            self._generator = *gen, gen_params
            self._raw: Bytes = np.zeros(generator.MAX_FRAME_BYTES, np.uint8)
        else:
            with spooled.open("rb") as file:
                # private and writable, as the feed maps it: one compiled fold for both
                self._raw = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)

    def __iter__(self) -> Iterator[Piece]:
        """Each piece is only lent until the next is asked for."""
        while self.at[OFFSET]:
            fold = self.state, self.glob, self._params, self.instruments, *self._scratch, *self._rows, self._marks
            if self._generator is None:
                n = from_spool(self._raw, self.at, self._where, *fold)
            else:
                n = from_generator(*self._generator, self._raw, self.at, *fold)
            if not n:
                continue
            marks = self._marks[:n].T.copy()
            if not self.first_ns:
                self.first_ns = int(marks[0, 0])
            yield Piece(marks[0], marks[1], marks[2], self._rows[0], self._rows[1])

    def warm(self) -> None:
        """Compile or load the kernels of both sources; of the embedded market."""
        assert self._generator is not None
        raw, at, no_marks = np.zeros(spool.DATA_OFFSET, np.uint8), np.zeros(3, np.int64), self._marks[:0]
        fold = self.state, self.glob, self._params, self.instruments, *self._scratch, *self._rows, no_marks
        from_spool(raw, at, self._where, *fold)
        from_generator(*self._generator, raw, at, *fold)

    def none(self) -> Piece:
        """A piece without frames, for the session's end."""
        empty = np.zeros(0, np.int64)
        return Piece(empty, empty, empty, self._rows[0], self._rows[1])

    @property
    def end_ns(self) -> int:
        """When the market ends: after its last frame."""
        return int(self.at[LAST_NS]) + 1
