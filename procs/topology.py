"""The architecture as one table: every ring, every process, and who talks to whom.

The supervisor, the CLI, the tests and the README's diagram are all derived from this table. To add a ring or a stage, add
its line here; the checks at the end of the module refuse a table that contradicts itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from trading import records

CHECKPOINT_HEADROOM: Final = 4
"""A ring holds at least this many times what a reader may take between two checkpoints."""


@dataclass(frozen=True, slots=True)
class Ring:
    """One ring. `readers` that run gate the writer (the recorder where it journals the ring); when it is full the writer's
    `full` policy holds."""

    ring_id: int
    name: str
    record: np.dtype
    writer: str
    readers: tuple[str, ...]
    capacity: int
    meaning: str
    full: str = "wait"  # what the writer does: every ring is lossless in virtual time
    burst: int = 1  # most records that one input record can cause here
    timed: bool = True  # records are merged by ts_ns; else taken at once

    def reader_index(self, stage: str) -> int:
        """Which of the ring's reader lines belongs to this stage."""
        return self.readers.index(stage)

    @property
    def bytes(self) -> int:
        """Bytes of all slots."""
        return self.capacity * int(self.record.itemsize)


@dataclass(frozen=True, slots=True)
class Stage:
    """One process. `inputs` are in the order in which records of the same time are taken."""

    stage_id: int
    name: str
    module: str
    inputs: tuple[str, ...]
    meaning: str
    hot: bool = True  # its loop is one compiled function
    essential: bool = True  # without it there is no pipeline; else its end is its own affair


STAGES: Final = (
    Stage(1, "feed", "procs.stages.feed", ("frames",), "raw frames to integer records and a right book"),
    Stage(2, "features", "procs.stages.features", ("market",), "features, signals and their score for every market record"),
    Stage(3, "quoter", "procs.stages.quoter", ("reports", "market"), "two-sided target quotes"),
    Stage(
        4,
        "risk",
        "procs.stages.risk",
        ("control", "reports", "market", "signals", "quotes"),
        "positions, limits, exits, kill switch: the only way to the router",
    ),
    Stage(5, "router", "procs.stages.router", ("executions", "orders"), "order state at the venue"),
    Stage(6, "exchange", "procs.stages.exchange", ("depth", "market", "wire"), "the simulated exchange"),
    Stage(
        7,
        "recorder",
        "procs.stages.recorder",
        (),
        "journals every ring to disk",
        hot=False,
    ),
    Stage(
        8,
        "receiver",
        "procs.receiver.stage",
        ("resync",),
        "the venue's connections: raw frames in, snapshots fetched",
        hot=False,
    ),
    Stage(
        9,
        "gateway",
        "procs.gateway.stage",
        (),  # it looks at the rings as a passer-by does: no writer waits for it
        "signals, books and health over HTTP, read-only",
        hot=False,
        essential=False,
    ),
    Stage(
        10,
        "learner",
        "procs.learning.stage",
        (),  # it reads the recorder's journal
        "trains models on what this run has recorded, publishes those that beat the baseline",
        hot=False,
        essential=False,
    ),
)

_LOGGED: Final = ("quoter", "risk", "router", "exchange")

RINGS: Final = (
    Ring(
        0,
        "market",
        records.MARKET_RECORD,
        "feed",
        ("features", "quoter", "risk", "exchange", "recorder"),
        4096,
        "every market event with the top of the book after it",
        burst=8,
    ),
    Ring(
        1, "depth", records.DEPTH_RECORD, "feed", ("exchange", "recorder"), 32768, "every level change of the book", burst=16384
    ),
    Ring(2, "signals", records.SIGNAL_RECORD, "features", ("risk", "recorder"), 4096, "score and signals for every record"),
    Ring(3, "quotes", records.QUOTE_RECORD, "quoter", ("risk", "recorder"), 4096, "target quotes"),
    Ring(4, "orders", records.ORDER_RECORD, "risk", ("router", "recorder"), 4096, "approved orders and cancels", burst=321),
    Ring(5, "refusals", records.ORDER_RECORD, "risk", ("recorder",), 4096, "what risk refused, and why", burst=8),
    Ring(6, "wire", records.ORDER_RECORD, "router", ("exchange", "recorder"), 4096, "what the router sent"),
    Ring(7, "executions", records.REPORT_RECORD, "exchange", ("router", "recorder"), 8192, "what the venue answered", burst=2048),
    Ring(
        8, "reports", records.REPORT_RECORD, "router", ("risk", "quoter", "recorder"), 8192, "order state as the router knows it",
        burst=2,
    ),  # fmt: skip
    Ring(9, "control", records.CONTROL_RECORD, "supervisor", ("risk", "recorder"), 64, "halt and resume", timed=False),
    *(
        Ring(
            10 + i,
            f"intake.{stage}",
            records.INTAKE_RECORD,
            stage,
            (stage, "recorder"),
            4096,
            f"the order in which {stage} took its inputs",
        )
        for i, stage in enumerate(_LOGGED)
    ),
    Ring(
        14,
        "frames",
        records.FRAME_RECORD,
        "receiver",
        ("feed", "recorder"),
        16384,
        "what came off the wire; the bytes lie in an arena",
        full="drop",
    ),
    Ring(
        15,
        "resync",
        records.RESYNC_RECORD,
        "feed",
        ("receiver", "recorder"),
        4096,
        "snapshots that the feed wants",
        burst=2,
        timed=False,
    ),
    Ring(
        16,
        "vectors",
        records.VECTOR_RECORD,
        "features",
        ("recorder",),  # only where pipeline.journal_vectors: else nobody waits, and who looks may be lapped
        4096,
        "the feature vector after every market record",
    ),
)

_FEEDBACK: Final = ("reports", "executions")
"""Rings on which a stage hears what became of what it wrote."""

RING: Final = {ring.name: ring for ring in RINGS}
STAGE: Final = {stage.name: stage for stage in STAGES}
SUPERVISOR_ID: Final = 0
MAX_STAGE_ID: Final = 15


def outputs(stage: str) -> tuple[Ring, ...]:
    """The rings that this stage writes, intake log last."""
    return tuple(ring for ring in RINGS if ring.writer == stage)


def inputs(stage: str) -> tuple[Ring, ...]:
    """The rings that this stage reads, in merge order. The recorder reads all."""
    if stage == "recorder":
        return RINGS
    return tuple(RING[name] for name in STAGE[stage].inputs)


def intake(stage: str) -> Ring | None:
    """The stage's intake log, where it has several inputs."""
    return RING.get(f"intake.{stage}")


def stage_id(name: str) -> int:
    """Number of a process; the supervisor is 0."""
    return SUPERVISOR_ID if name == "supervisor" else STAGE[name].stage_id


LIVE: Final = ("receiver", "frames", "resync")
"""The stage and the rings that only sockets as a source bring to life."""

TRADING: Final = ("exchange", "router", "risk", "quoter", "features")
"""The stages that a world without decisions (`record`) does without."""


def start_order(live: bool = False, trading: bool = True, gateway: bool = False, learner: bool = False) -> tuple[str, ...]:
    """The stages that run, readers before writers as far as the cycle allows: the recorder first, feed and receiver last.

    What the pipeline can do without comes after all that it needs.
    """
    needed = ("recorder", *(TRADING if trading else ()), "feed", *(("receiver",) if live else ()))
    return (*needed, *(("gateway",) if gateway and trading else ()), *(("learner",) if learner and trading else ()))


def rings(live: bool = False) -> tuple[Ring, ...]:
    """The rings that carry something."""
    return tuple(ring for ring in RINGS if live or ring.name not in LIVE)


def stages(live: bool = False) -> tuple[Stage, ...]:
    """The stages that work on records, in the order of the table."""
    return tuple(stage for stage in STAGES if stage.essential and (live or stage.name not in LIVE))


def diagram(kind: str = "mermaid") -> str:
    """The topology as a Mermaid flowchart or a Graphviz digraph; intake logs and the recorder's edges are left out."""
    edges = [
        (ring.writer, reader, ring.name)
        for ring in RINGS
        if not ring.name.startswith("intake.")
        for reader in ring.readers
        if reader != "recorder"
    ]
    if kind == "dot":
        body = [f'  "{a}" -> "{b}" [label="{name}"];' for a, b, name in edges]
        return "\n".join(["digraph scalper {", "  rankdir=LR;", *body, '  "every ring" -> "recorder" [style=dashed];', "}"])
    body = [f"  {a} -- {name} --> {b}" for a, b, name in edges]
    return "\n".join(["flowchart LR", *body, "  rings[(every ring)] -.-> recorder"])


def _check() -> None:
    names = {stage.name for stage in STAGES} | {"supervisor"}
    assert [ring.ring_id for ring in RINGS] == list(range(len(RINGS))), "a ring's id is its index"
    assert len({stage.stage_id for stage in STAGES}) == len(STAGES)
    assert all(0 < stage.stage_id <= MAX_STAGE_ID for stage in STAGES)
    for ring in RINGS:
        assert ring.capacity & (ring.capacity - 1) == 0, ring.name
        assert ring.capacity >= CHECKPOINT_HEADROOM * 1024 or ring.name == "control", f"{ring.name}: see checkpoint_every"
        assert ring.burst <= ring.capacity // 2, f"{ring.name}: a burst must leave room for a checkpoint's worth"
        assert ring.writer in names and set(ring.readers) <= names, ring.name
        assert "recorder" in ring.readers, f"{ring.name}: the recorder keeps every ring"
    for stage in STAGES:
        for name in stage.inputs:
            assert stage.name in RING[name].readers, f"{stage.name} reads {name}, the ring does not say so"
        # procs.fold.merge believes a promise only on the last input, when it knows what the others may make the stage write
        promising = [name for name in stage.inputs if RING[name].writer in ("quoter", "risk", "router") and name not in _FEEDBACK]
        assert promising in ([], list(stage.inputs[-1:])), f"{stage.name}: {promising} carry promises, only the last input may"
        assert len(stage.inputs) < 2 or intake(stage.name) is not None, f"{stage.name}: several inputs need an intake log"
    assert set(start_order(live=True, gateway=True, learner=True)) == set(STAGE)
    assert all(STAGE[ring.writer].essential for ring in RINGS if ring.writer in STAGE), "what a ring needs is essential"


_check()
