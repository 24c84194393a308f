"""Percentiles of the board's latency histograms, without numba: for the command line, which only reads.

The layout is shm.histogram's (drawn there); a test holds the two together. A percentile is the midpoint of the bucket in
which the nearest-rank value lies, the maximum is exact.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, TypedDict

import numpy as np

from procs import topology
from procs.memory import board
from procs.memory.board import HISTOGRAM_WORDS, Words

W_SUM: Final = 0
W_MAX: Final = 1
W_BUCKETS: Final = 8
_BUCKETS: Final = HISTOGRAM_WORDS - W_BUCKETS
_SUB_BUCKETS: Final = 32

PERCENTILES: Final = (("p50_ns", "50"), ("p99_ns", "99"), ("p999_ns", "99.9"))


class Spread(TypedDict):
    """One histogram in figures, ns. `count` 0: the others are 0 too."""

    count: int
    p50_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    mean_ns: float


class Hop(TypedDict):
    """A stage's latencies: `hop` from publishing to being taken, `origin` from the frame's arrival to being taken."""

    stage: str
    inputs: list[str]
    hop: Spread
    origin: Spread


def _midpoints() -> Words:
    index = np.arange(_BUCKETS, dtype=np.int64)
    shift = np.maximum(index // _SUB_BUCKETS - 1, 0)
    lowest = (index - shift * _SUB_BUCKETS) << shift
    return lowest + ((np.int64(1) << shift) - 1) // 2


MIDPOINTS: Final = _midpoints()


def spread(words: Words) -> Spread:
    """Figures of a histogram (int64, shape (HISTOGRAM_WORDS,)), also while its writer goes on."""
    copied = words.copy()
    below_or_in = np.cumsum(copied[W_BUCKETS:])
    total, top = int(below_or_in[-1]), int(copied[W_MAX])

    def at(percent: str) -> int:
        rank = max(int(-(-Fraction(percent) * total // 100)), 1)
        if not total or rank >= total:
            return top
        return min(int(MIDPOINTS[np.searchsorted(below_or_in, rank)]), top)

    return Spread(
        count=total,
        p50_ns=at("50"),
        p99_ns=at("99"),
        p999_ns=at("99.9"),
        max_ns=top,
        mean_ns=round(int(copied[W_SUM]) / total, 1) if total else 0.0,
    )


def since(before: Words, after: Words) -> Words:
    """The histogram of what was added between two copies; its maximum is that of the highest bucket that gained."""
    gained = np.maximum(after - before, 0)
    filled = np.flatnonzero(gained[W_BUCKETS:])
    top = int(after[W_MAX])
    if top == int(before[W_MAX]):
        top = min(int(MIDPOINTS[filled[-1]]), top) if filled.size else 0
    gained[W_MAX] = top
    return gained


def histograms(words: Words, stage: str) -> tuple[Words, Words]:
    """(hop, origin) histogram of a stage on the board."""
    page = board.page(words, topology.stage_id(stage))
    return board.histogram(page, board.HISTOGRAM_HOP), board.histogram(page, board.HISTOGRAM_ORIGIN)


def hops(words: Words) -> list[Hop]:
    """The latencies of every stage that takes records from rings and counts them."""
    found = []
    quiet = {ring.name for ring in topology.RINGS} - {ring.name for ring in topology.Run().rings}
    for stage in topology.STAGES:
        if stage.hot and stage.inputs:
            hop, origin = histograms(words, stage.name)
            if not quiet.isdisjoint(stage.inputs) and not hop[W_BUCKETS:].any():
                continue  # the feed of a world without sockets
            found.append(Hop(stage=stage.name, inputs=list(stage.inputs), hop=spread(hop), origin=spread(origin)))
    return found
