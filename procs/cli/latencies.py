"""The board's latency histograms in figures."""

from __future__ import annotations

from typing import TypedDict

from procs import topology
from procs.memory import board
from procs.memory.board import Words
from shm.percentiles import Snapshot


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


def spread(seen: Snapshot) -> Spread:
    """A histogram in figures."""
    return Spread(
        count=seen.count,
        p50_ns=seen.percentile(50),
        p99_ns=seen.percentile(99),
        p999_ns=seen.percentile(99.9),
        max_ns=seen.max_ns,
        mean_ns=round(seen.mean_ns, 1),
    )


def histograms(words: Words, stage: str) -> tuple[Snapshot, Snapshot]:
    """(hop, origin) histogram of a stage on the board, as they stand now."""
    page = board.page(words, topology.stage_id(stage))
    return Snapshot(board.histogram(page, board.HISTOGRAM_HOP)), Snapshot(board.histogram(page, board.HISTOGRAM_ORIGIN))


def hops(words: Words) -> list[Hop]:
    """The latencies of every stage that takes records from rings and counts them."""
    found = []
    quiet = {ring.name for ring in topology.RINGS} - {ring.name for ring in topology.Run().rings}
    for stage in topology.STAGES:
        if stage.hot and stage.inputs:
            hop, origin = histograms(words, stage.name)
            if not quiet.isdisjoint(stage.inputs) and not hop.count:
                continue  # the feed of a world without sockets
            found.append(Hop(stage=stage.name, inputs=list(stage.inputs), hop=spread(hop), origin=spread(origin)))
    return found
