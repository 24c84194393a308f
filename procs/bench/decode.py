"""`scalperctl bench decode`: raw frames to a right book and records, ours against what Python offers, in one run.

All take the same bytes, one frame after another, from the message that the snapshot connects to. Two passes are timed:
`mixed` (every frame: depth, bookTicker, trade) and `depth` (the depth frames alone; a level's time is this one's). Rounds are
interleaved, the median round counts, and a pass whose book does not end with the fold's touch is an error, not a figure.

Ours is the feed's fold as the feed stage calls it: scanner, sequence check, book, top levels, market record and depth
records, the oracle included. It has no Python in its loop; the others are called once a frame, as a socket's callback is.
"""

from __future__ import annotations

import gc
import json
import os
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import numpy as np

from procs.bench import decode_peers, market_frames
from procs.bench.market_frames import Frames
from procs.bench.pair import BenchError
from procs.cli.table import Column as C
from procs.cli.table import count, table
from trading.books import book
from trading.books import fold as market
from trading.instruments import instrument_table
from trading.jit import Bytes, Recs, Words, kernel
from trading.records import DEPTH_RECORD, MARKET_RECORD

ROUNDS: Final = 7
MIXED, DEPTH = "mixed", "depth"


@kernel
def _fold(
    buf: Bytes, spans: Words, recv: Words, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs, rows: Recs
) -> tuple[int, int]:
    """Fold every frame; (market records, depth records) that were written."""
    m_all = 0
    d_all = 0
    for i in range(spans.shape[0]):
        m_all += market.on_frame(
            buf, spans[i, 0], spans[i, 1], recv[i], recv[i], 0, state, glob, params, instruments, out, rows
        )
        d_all += glob[0].n_depth
    return m_all, d_all


class _Ours:
    """The fold, brought to the connected book once; every pass starts from a copy of that state."""

    def __init__(self, frames: Frames) -> None:
        self.instrument = frames.instrument
        self.table = instrument_table([frames.instrument])
        self.params = market.make_params()
        self.state, self.glob = np.zeros(1, market.FEED_STATE), np.zeros(1, market.FEED_GLOBAL)
        self.out, self.rows = np.zeros(market.MAX_MARKET_OUT, MARKET_RECORD), np.zeros(market.MAX_DEPTH_OUT, DEPTH_RECORD)
        market.init(self.state, self.glob, self.table, self.params)
        self.buf = frames.buf
        self.first = self._connect(frames)
        self._start = self.state.copy(), self.glob.copy()

    def _connect(self, frames: Frames) -> int:
        for i in range(len(frames.spans)):
            self.fold(frames.spans[i : i + 1], frames.recv[i : i + 1])
            if self.state[0]["phase"] == market.SYNCED:
                return i + 1
        raise BenchError(f"no snapshot in {frames.market} connects to its depth messages: name another recording")

    def restart(self) -> None:
        """Back to the connected book."""
        self.state[:], self.glob[:] = self._start

    def fold(self, spans: Words, recv: Words) -> tuple[int, int]:
        """Fold these frames."""
        counts: tuple[int, int] = _fold(
            self.buf, spans, recv, self.state, self.glob, self.params, self.table, self.out, self.rows
        )
        return counts

    def best(self) -> decode_peers.Best:
        """Of the depth book."""
        st = self.state[0]
        keys = [int(key) for key in st["best"]]
        lots = [int(st["lots"][side][key % st["lots"].shape[1]]) for side, key in enumerate(keys)]
        tick, lot = float(self.table[0]["tick_size"]), float(self.table[0]["lot_size"])
        return -keys[0] * tick, lots[0] * lot, keys[1] * tick, lots[1] * lot

    def complaints(self) -> list[str]:
        """What a sound recording never shows."""
        st, g = self.state[0], self.glob[0]
        wrong = [f"{name} {int(st[name])}" for name in ("gaps", "crossed", "malformed") if st[name]]
        wrong += [f"{name} {int(g[name])}" for name in ("unknown",) if g[name]]
        if st["oracle_checked"] != st["oracle_equal"]:
            wrong.append(f"oracle equal {int(st['oracle_equal'])} of {int(st['oracle_checked'])}")
        return wrong if st["phase"] == market.SYNCED else [*wrong, "the book is stale"]


@dataclass(slots=True)
class _Pass:
    """One selection of frames, as the compiled loop and as Python wants them."""

    spans: Words
    recv: Words
    raw: list[bytes]
    best: decode_peers.Best = (0.0, 0.0, 0.0, 0.0)
    records: tuple[int, int] = (0, 0)


def _selections(frames: Frames, first: int) -> dict[str, _Pass]:
    raw = frames.all()
    rest = np.arange(first, len(raw))
    # a snapshot in the stream would be a reset to the one and nothing to the other
    rest = np.array([i for i in rest if not raw[i].startswith(b'{"lastUpdateId"')], np.int64)
    depth = np.array([i for i in rest if b'"depthUpdate"' in raw[i][:120]], np.int64)
    if len(depth) < 100:
        raise BenchError(f"{frames.market}: {len(depth)} depth messages after the snapshot are too few to measure with")
    return {
        name: _Pass(frames.spans[index].copy(), frames.recv[index].copy(), [raw[i] for i in index])
        for name, index in ((MIXED, rest), (DEPTH, depth))
    }


def _body(raw: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(raw)
    return message.get("data", message)


def _book_at(frames: Frames, ours: _Ours) -> dict[str, Any]:
    """The connected book as a snapshot, so that every peer starts with the levels that the fold has."""
    st, it = ours.state[0], ours.table[0]
    prices, lots = int(it["price_decimals"]), int(it["qty_decimals"])
    sides: list[list[list[str]]] = []
    for side in range(2):
        levels: list[list[str]] = []
        key = int(book.next_key(st, side, st["best"][side]))
        while key != book.NO_KEY:
            ticks, quantity = abs(key) * int(it["tick_units"]), int(book.lots_at(st, side, key))
            levels.append([f"{ticks / 10**prices:.{prices}f}", f"{quantity / 10**lots:.{lots}f}"])
            key = int(book.next_key(st, side, key + 1))
        sides.append(levels)
    return {"lastUpdateId": int(st["last_id"]), "bids": sides[0], "asks": sides[1]}


def _same(a: decode_peers.Best, b: decode_peers.Best) -> bool:
    return all(abs(x - y) <= 1e-9 * max(abs(x), 1.0) for x, y in zip(a, b, strict=True))


def _timed_peer(make: type[decode_peers.Peer], frames: Frames, snapshot: dict[str, Any], wanted: _Pass) -> float:
    """Nanoseconds for all frames of a pass, from a new book."""
    peer = make(frames.instrument)
    try:
        peer.begin(snapshot)
        take, raw = peer.taker(), wanted.raw
        gc.collect()
        start = time.perf_counter_ns()
        for frame in raw:
            take(frame)
        spent = time.perf_counter_ns() - start
        best = peer.best()
        if best is not None and not _same(best, wanted.best):
            raise BenchError(f"{peer.name} ended with the touch {best}, the fold with {wanted.best}: the figures would be void")
    finally:
        peer.close()
    return float(spent)


def _timed_ours(ours: _Ours, wanted: _Pass) -> float:
    ours.restart()
    start = time.perf_counter_ns()
    wanted.records = ours.fold(wanted.spans, wanted.recv)
    spent = time.perf_counter_ns() - start
    wanted.best = ours.best()
    if wrong := ours.complaints():
        raise BenchError(f"the fold found {', '.join(wrong)}: measure with a recording without faults")
    return float(spent)


def _allocated(ours: _Ours, wanted: _Pass) -> dict[str, float]:
    """What a pass of the fold allocates: numba's own count over one call, and Python's heap in bytes at its highest."""
    from numba.core.runtime import _nrt_python, rtsys

    empty = wanted.spans[:0]
    _nrt_python.memsys_enable_stats()
    try:
        counts = []
        for spans in (empty, wanted.spans):
            ours.restart()
            before = rtsys.get_allocation_stats().alloc
            ours.fold(spans, wanted.recv)
            counts.append(rtsys.get_allocation_stats().alloc - before)
    finally:
        _nrt_python.memsys_disable_stats()
    peaks = []
    for spans in (empty, wanted.spans):
        ours.restart()
        tracemalloc.start()
        ours.fold(spans, wanted.recv)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    n = len(wanted.spans)
    return {
        # the call itself, measured with no frame, hands over its arguments
        "numba_allocations_a_message": (counts[1] - counts[0]) / n,
        "python_bytes_a_message": max(0, peaks[1] - peaks[0]) / n,
    }


def run(files: Sequence[str] = (), rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure; figures as in `format`. BenchError, RecordingError."""
    frames = market_frames.load(files)
    if not frames.instrument.market.facts.native:
        raise BenchError(f"{frames.market}: bench decode knows Binance's frames only")
    ours = _Ours(frames)
    snapshot = _book_at(frames, ours)
    passes = _selections(frames, ours.first)
    installed = decode_peers.versions([package for _, package, _ in decode_peers.PEERS])
    made = {key: peer for key, package, peer in decode_peers.PEERS if installed[package]}
    spent: dict[str, dict[str, list[float]]] = {key: {MIXED: [], DEPTH: []} for key in ("ours", *made)}
    for name in passes:
        _timed_ours(ours, passes[name])  # what is cold once is not measured
    for _ in range(rounds):
        for name, wanted in passes.items():
            spent["ours"][name].append(_timed_ours(ours, wanted))
            for key, make in made.items():
                spent[key][name].append(_timed_peer(make, frames, snapshot, wanted))
    levels = sum(len(message[side]) for message in (_body(raw) for raw in passes[DEPTH].raw) for side in "ba")
    base = {name: median(spent["ours"][name]) for name in passes}
    return {
        "bench": "decode",
        "market": frames.market,
        "rounds": rounds,
        "load_average": round(os.getloadavg()[0], 2),
        "messages": {name: len(wanted.raw) for name, wanted in passes.items()},
        "bytes": {name: sum(map(len, wanted.raw)) for name, wanted in passes.items()},
        "levels": levels,
        "records": {name: dict(zip(("market", "depth"), wanted.records, strict=True)) for name, wanted in passes.items()},
        "touch": list(passes[MIXED].best),
        "allocated": _allocated(ours, passes[MIXED]),
        "versions": installed,
        "ways": {
            key: {
                "name": made[key].name if key in made else "ours: decode, book, records",
                "keeps_a_book": key not in made or made[key].keeps_a_book,
                "depth_ns_a_level": round(median(times[DEPTH]) / levels, 2),
                **{
                    name: {
                        "messages_per_s": round(len(passes[name].raw) / median(values) * 1e9),
                        "ns_a_message": round(median(values) / len(passes[name].raw), 1),
                        "best_ns_a_message": round(min(values) / len(passes[name].raw), 1),
                        "ratio": round(median(values) / base[name], 2),
                    }
                    for name, values in times.items()
                },
            }
            for key, times in spent.items()
        },
        "absent": [peer.name for _, package, peer in decode_peers.PEERS if not installed[package]],
    }


def format(result: dict[str, Any]) -> str:
    """The result as a table for people."""
    messages, allocated = result["messages"], result["allocated"]
    lines = [
        f"{result['market']}: {messages[MIXED]:,} messages, {messages[DEPTH]:,} of them depth with "
        f"{result['levels'] / messages[DEPTH]:.1f} levels each; median of {result['rounds']} interleaved rounds, "
        f"load {result['load_average']}",
        "every book ended with the same touch",
        "",
    ]
    rows = [
        [way["name"], count(way[MIXED]["messages_per_s"]), f"{way[MIXED]['ns_a_message']:,.0f}", f"{way[MIXED]['ratio']:.1f}",
         count(way[DEPTH]["messages_per_s"]), f"{way[DEPTH]['ns_a_message']:,.0f}", f"{way['depth_ns_a_level']:,.1f}",
         f"{way[DEPTH]['ratio']:.1f}"]
        for way in result["ways"].values()
    ]  # fmt: skip
    columns = (C("FRAMES TO A BOOK", right=False), C("MIXED MSG/S"), C("NS EACH"), C("TIMES OURS"), C("DEPTH MSG/S"),
               C("NS EACH"), C("NS A LEVEL"), C("TIMES OURS"))  # fmt: skip
    lines += [*table(columns, rows, 130), ""]
    lines.append(
        f"ours allocates {allocated['numba_allocations_a_message']:g} times and {allocated['python_bytes_a_message']:g} bytes of "
        "Python's heap a message"
    )
    lines += [f"not measured, not installed: {name}" for name in result["absent"]]
    return "\n".join(lines)
