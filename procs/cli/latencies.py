"""The board's latency histograms in figures."""

from __future__ import annotations

from typing import Final, NotRequired, TypedDict

from procs import topology
from procs.memory import board
from procs.memory.board import Words
from shm.percentiles import Snapshot
from sim.spans import span


class Spread(TypedDict):
    """One histogram in figures, ns. `count` 0: the others are 0 too."""

    count: int
    p50_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    mean_ns: float


class Hop(TypedDict):
    """A stage's latencies: `hop` from publishing to being taken, `origin` from the frame's arrival to being taken.

    Both are this machine's own. `answer`, at stages that hear a venue's answers: from the frame whose order it answers to its
    being taken; the venue's delay, simulated or not, is in it. A run that an older version kept has none.
    """

    stage: str
    inputs: list[str]
    hop: Spread
    origin: Spread
    answer: NotRequired[Spread]


ORDER_LEAVES: Final = "frame to order"
"""The router's `origin`: the whole way on this machine, from the frame's arrival to the order's leaving."""


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


def answers(words: Words, stage: str) -> Snapshot:
    """The histogram of what the venue answered, as a stage heard it."""
    return Snapshot(board.histogram(board.page(words, topology.stage_id(stage)), board.HISTOGRAM_ANSWER))


def headline(found: list[Hop]) -> str:
    """Both ways in one sentence: ours from frame to order, and over the venue; "" where no order has left."""
    router = next((hop for hop in found if hop["stage"] == "router"), None)
    if router is None or not router["origin"]["count"]:
        return ""
    own, back = router["origin"], router.get("answer")
    text = f"{ORDER_LEAVES}: p50 {span(own['p50_ns'])}, p99 {span(own['p99_ns'])}, this machine's own"
    if back is not None and back["count"]:
        text += f"; the venue's answer {span(back['p50_ns'])}, its simulated delay included"
    return text


def ways(found: list[Hop]) -> str:
    """The same, short enough for a heading: "frame to order 250 us (p99 4.1 ms), venue's answer 52 ms (simulated)"."""
    router = next((hop for hop in found if hop["stage"] == "router"), None)
    if router is None or not router["origin"]["count"]:
        return ""
    own, back = router["origin"], router.get("answer")
    text = f"{ORDER_LEAVES} {span(own['p50_ns'])} (p99 {span(own['p99_ns'])})"
    return text if back is None or not back["count"] else f"{text}, venue's answer {span(back['p50_ns'])} (simulated)"


def hops(words: Words) -> list[Hop]:
    """The latencies of every stage that takes records from rings and counts them."""
    found = []
    quiet = {ring.name for ring in topology.RINGS} - {ring.name for ring in topology.Run().rings}
    for stage in topology.STAGES:
        if stage.hot and stage.inputs:
            hop, origin = histograms(words, stage.name)
            if not quiet.isdisjoint(stage.inputs) and not hop.count:
                continue  # the feed of a world without sockets
            one = Hop(stage=stage.name, inputs=list(stage.inputs), hop=spread(hop), origin=spread(origin))
            if stage.feedback:
                one["answer"] = spread(answers(words, stage.name))
            found.append(one)
    return found
