"""The board's latency histograms in figures: a row for each input of each hot stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any, Final, NotRequired, TypedDict

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
    """The latencies of one input of one stage.

    `hop`: from publishing to being taken; `origin`: from the frame's arrival to being taken; `venue_in`: which of the two have
    the venue's delay in them (simulated or not), the others are this machine's own. `wake` is the part of the hop until the stage
    was woken, of records that came while it slept; `wait` the part after that, or all of it where it was awake. A run that an
    older version kept has neither.
    """

    stage: str
    input: str
    meaning: str
    venue_in: list[str]
    hop: Spread
    origin: Spread
    wake: NotRequired[Spread]
    wait: NotRequired[Spread]


ORDER_LEAVES: Final = "frame to order"
"""The way of `orders` to the router: all of it on this machine, from the frame's arrival to the order's leaving."""

ORDER: Final = ("router", "orders")
ANSWER: Final = ("router", "executions")
KINDS: Final = {
    "hop": (board.AWAKE, board.WOKEN), "origin": (board.ORIGIN,), "wake": (board.WAKE,), "wait": (board.AWAKE, board.WAIT)
}  # fmt: skip
"""The histograms on the page that make a figure together."""

MEANINGS: Final = {
    "frames": "{} has a frame off the socket",
    "market": "{} sees the market",
    "signals": "{} hears the score",
    "quotes": "{} hears the target quotes",
    "orders": f"{ORDER_LEAVES}: it leaves",
    "wire": "the order is at the venue",
    "executions": "the venue's answer is here",
    "reports": "{} hears what became of an order",
}
"""What it means that a stage has taken a record of an input."""


def meaning(stage: str, ring: str) -> str:
    """A few words on what a record of this input says once it has been taken."""
    return MEANINGS.get(ring, f"{ring} at {{}}").format(stage)


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


def histogram(words: Words, stage: str, ring: str, what: str = "hop") -> Snapshot:
    """One of KINDS of a stage's input on the board, as it stands now."""
    page, r = board.page(words, topology.stage_id(stage)), topology.STAGE[stage].inputs.index(ring)
    parts = [Snapshot(board.of_input(page, r, part)) for part in KINDS[what]]
    return reduce(Snapshot.merged, parts)


def measured() -> list[tuple[topology.Stage, topology.Ring]]:
    """Every input whose records say when they were published and when their frame came in, in the order of the records' flow."""
    return [
        (stage, ring)
        for stage in topology.STAGES
        for ring in topology.inputs(stage.name)
        if stage.hot and "ts_origin_mono_ns" in (ring.record.names or ())
    ]


def venue_in(stage: topology.Stage, ring: topology.Ring) -> list[str]:
    """Which figures of an input have the venue's delay in them.

    An order is under way to it until the simulated venue takes it, and an answer until the router does; what the router reports
    has come that way, but its own hop is ours.
    """
    to_venue = stage.part == topology.EXCHANGE and bool(topology.STAGE[ring.writer].feedback)
    answer = ring.name == stage.feedback
    hop = to_venue or (answer and ring.writer == topology.EXCHANGE)
    return ["hop", "origin"] if hop else ["origin"] if answer else []


def hops(words: Words) -> list[Hop]:
    """The latencies of every input of every hot stage that counts them; one of a source's stage only where it has any."""
    found = []
    quiet = {ring.name for ring in topology.RINGS} - {ring.name for ring in topology.Run().rings}
    absent = {stage.name for stage in topology.STAGES} - {stage.name for stage in topology.Run().stages}
    for stage, ring in measured():
        seen = {what: histogram(words, stage.name, ring.name, what) for what in KINDS}
        if (ring.name in quiet or stage.name in absent) and not seen["origin"].count:
            continue  # the feed of a world without sockets; who plays the exchange in other runs
        found.append(Hop(
            stage=stage.name, input=ring.name, meaning=meaning(stage.name, ring.name), venue_in=venue_in(stage, ring),
            hop=spread(seen["hop"]), origin=spread(seen["origin"]), wake=spread(seen["wake"]), wait=spread(seen["wait"]),
        ))  # fmt: skip
    return found


def kept(found: Iterable[Mapping[str, Any]]) -> list[Hop]:
    """The latencies that a run kept. Older versions had one row a stage, over all inputs but the venue's answers."""
    rows: list[Hop] = []
    nothing = Spread(count=0, p50_ns=0, p99_ns=0, p999_ns=0, max_ns=0, mean_ns=0.0)
    for one in found:
        if "input" in one:
            rows.append(Hop(**one))  # type: ignore[typeddict-item]
            continue
        stage = topology.STAGE[one["stage"]]
        names = [name for name in one["inputs"] if name != stage.feedback]
        said = meaning(stage.name, names[0]) if len(names) == 1 else "all these together"
        rows.append(Hop(
            stage=stage.name, input="+".join(names), meaning=said, venue_in=[], hop=one["hop"], origin=one["origin"]
        ))  # fmt: skip
        if "answer" in one:
            rows.append(Hop(
                stage=stage.name, input=stage.feedback, meaning=meaning(stage.name, stage.feedback),
                venue_in=["hop", "origin"], hop=nothing, origin=one["answer"],
            ))  # fmt: skip
    return rows


def row_of(found: Iterable[Hop], place: tuple[str, str]) -> Hop | None:
    """The row of (stage, input) if it has counted anything."""
    return next((hop for hop in found if (hop["stage"], hop["input"]) == place and hop["origin"]["count"]), None)


def deciding(found: Iterable[Hop], stage: str) -> Hop | None:
    """The row that stands for a stage where there is room for one: its last input that has no venue in it and that carried
    something, which is the one that leads to an order."""
    own = [hop for hop in found if hop["stage"] == stage and not hop["venue_in"] and hop["hop"]["count"]]
    return own[-1] if own else None


def headline(found: list[Hop]) -> str:
    """Both ways in one sentence: ours from frame to order, and over the venue; "" where no order has left."""
    order, back = row_of(found, ORDER), row_of(found, ANSWER)
    if order is None:
        return ""
    own = order["origin"]
    text = f"{ORDER_LEAVES}: p50 {span(own['p50_ns'])}, p99 {span(own['p99_ns'])}, this machine's own"
    if back is not None:
        text += f"; the venue's answer {span(back['origin']['p50_ns'])}, its simulated delay included"
    return text


def ways(found: list[Hop]) -> str:
    """The same, short enough for a heading: "frame to order 250 us (p99 4.1 ms), venue's answer 52 ms (simulated)"."""
    order, back = row_of(found, ORDER), row_of(found, ANSWER)
    if order is None:
        return ""
    text = f"{ORDER_LEAVES} {span(order['origin']['p50_ns'])} (p99 {span(order['origin']['p99_ns'])})"
    return text if back is None else f"{text}, venue's answer {span(back['origin']['p50_ns'])} (simulated)"
