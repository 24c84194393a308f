"""What the words of rings and board say, as plain figures: tails, heads, lags, rates, counters.

Pure: arrays in, dictionaries out; nothing is asked of any process. The dictionaries are what `--json` prints.
"""

from __future__ import annotations

from typing import Final, NotRequired, TypedDict

from procs import topology
from procs.memory import board
from procs.memory.board import FEED_COUNTERS, LOOP_COUNTERS, Words
from procs.memory.segments import Memory
from procs.topology import Ring
from ringbuf.layout import CAPACITY, CURSOR, FULL_STALLS, GATING, OVERRUNS, TAIL, reader_line


class Reader(TypedDict):
    """One reader: `head` is the sequence that it reads next, `lag` how far behind the tail that is."""

    name: str
    gating: bool
    head: int
    lag: int
    overruns: int
    rate: NotRequired[float | None]


class RingFigures(TypedDict):
    """One ring: `tail` is the sequence that is written next, `utilisation` the fullest gating reader's share of it."""

    name: str
    id: int
    writer: str
    capacity: int
    record_bytes: int
    tail: int
    stalls: int  # times that the writer found it full (backpressure)
    utilisation: float
    readers: list[Reader]
    rate: NotRequired[float | None]


class StageFigures(TypedDict):
    """One stage's page: its counters by key; `busy`: share of the window not asleep, None where its loop does not say."""

    name: str
    counters: dict[str, int]
    busy: NotRequired[float | None]
    rate: NotRequired[float | None]


class Snapshot(TypedDict):
    """All rings and stages at one moment (each word right in itself, not all of the same instant)."""

    instance: str
    window_s: float
    rings: list[RingFigures]
    stages: list[StageFigures]


LEFT_BEHIND: Final = frozenset({("frames", "feed")})
"""What comes off the wire between the feed's END and the end of the receiver is nobody's market data."""


def ring_figures(words: Words, entry: Ring) -> RingFigures:
    """A ring's figures from its control words."""
    capacity = int(words[CAPACITY])
    heads = [int(words[reader_line(n) + CURSOR]) for n in range(len(entry.readers))]
    tail = int(words[TAIL])  # after the heads, so that no lag is negative
    readers = []
    for n, name in enumerate(entry.readers):
        line = reader_line(n)
        readers.append(
            Reader(
                name=name,
                gating=bool(words[line + GATING]),
                head=heads[n],
                lag=max(tail - heads[n], 0),
                overruns=int(words[line + OVERRUNS]),
            )
        )
    behind = max((reader["lag"] for reader in readers if reader["gating"]), default=0)
    return RingFigures(
        name=entry.name,
        id=entry.ring_id,
        writer=entry.writer,
        capacity=capacity,
        record_bytes=entry.record.itemsize,
        tail=tail,
        stalls=int(words[FULL_STALLS]),
        utilisation=round(behind / capacity, 4) if capacity else 0.0,
        readers=readers,
    )


def stage_figures(words: Words, stage: str) -> StageFigures:
    """A stage's counters from the board."""
    page = board.page(words, topology.stage_id(stage))
    declared = LOOP_COUNTERS + (FEED_COUNTERS if stage == "feed" else ())
    return StageFigures(name=stage, counters={counter.key: int(page[counter.word]) for counter in declared})


def snapshot(memory: Memory) -> Snapshot:
    """Everything that an instance's memory says now."""
    run = topology.Run(source="generated" if getattr(memory, "arena", None) is None else "live")
    return Snapshot(
        instance=memory.instance,
        window_s=0.0,
        rings=[ring_figures(memory.ring(entry.name), entry) for entry in run.rings],
        stages=[stage_figures(memory.board_words, stage.name) for stage in run.essential],
    )


def with_rates(before: Snapshot, after: Snapshot, seconds: float) -> Snapshot:
    """`after`, with what happened a second since `before`. A reader that started again has no rate."""
    if seconds <= 0:
        return after
    for old_ring, ring in zip(before["rings"], after["rings"], strict=True):
        ring["rate"] = round((ring["tail"] - old_ring["tail"]) / seconds, 1)
        for old_reader, reader in zip(old_ring["readers"], ring["readers"], strict=True):
            reader["rate"] = round((reader["head"] - old_reader["head"]) / seconds, 1)
    for old_stage, stage in zip(before["stages"], after["stages"], strict=True):
        old, new = old_stage["counters"], stage["counters"]
        stage["rate"] = round((new["records"] - old["records"]) / seconds, 1)
        asleep = (new["slept_ns"] - old["slept_ns"]) / 1e9 / seconds
        measured = topology.STAGE[stage["name"]].hot and (new["heartbeat"] != old["heartbeat"] or asleep)
        stage["busy"] = round(min(max(1.0 - asleep, 0.0), 1.0), 4) if measured else None
    after["window_s"] = round(seconds, 3)
    return after


def complaints(figures: Snapshot, *, ended: bool, whole: bool = True) -> list[str]:
    """What is not as it must be, a clause each: overruns, divergence, wrong books; at the end also heads behind tails, and frames
    of a recording that was meant to be read `whole`."""
    found = []
    for ring in figures["rings"]:
        for reader in ring["readers"]:
            if reader["overruns"]:
                found.append(f"{reader['name']} was overrun on {ring['name']} ({reader['overruns']} records lost)")
            if ended and reader["gating"] and reader["lag"] and (ring["name"], reader["name"]) not in LEFT_BEHIND:
                found.append(f"{reader['name']} stands {reader['lag']} records behind the tail of {ring['name']}")
    for stage in figures["stages"]:
        counters = stage["counters"]
        if counters["diverged"]:
            found.append(f"{stage['name']} recomputed {counters['diverged']} records differently")
        if counters["fault"]:
            found.append(f"{stage['name']} reports fault {counters['fault']}")
        if counters.get("oracle_checked", 0) != counters.get("oracle_equal", 0):
            found.append(f"the book was wrong {counters['oracle_checked'] - counters['oracle_equal']} times")
        if counters.get("malformed", 0):
            found.append(f"{counters['malformed']} frames could not be decoded")
        if ended and whole and counters.get("frames_expected", 0) > counters.get("frames", 0):
            found.append(f"{counters['frames_expected'] - counters['frames']} frames of the recording were not read")
    return found
