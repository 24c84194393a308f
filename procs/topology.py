"""The architecture as one table: every ring, every process, and who talks to whom.

The supervisor, the CLI, the tests and the README's diagram are all derived from this table. To add a ring or a stage, add
its line here; the checks at the end of the module refuse a table that contradicts itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final

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
    timed: bool = True  # records are merged by ts_ns; else they get a time where they are taken (Run.outside)

    def reader_index(self, stage: str) -> int:
        """Which of the ring's reader lines belongs to this stage."""
        return self.readers.index(STAGE[stage].part)

    @property
    def bytes(self) -> int:
        """Bytes of all slots."""
        return self.capacity * int(self.record.itemsize)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: a process of its own, or a member of one (Process).

    `inputs` are in the order in which records of the same time are taken.
    """

    stage_id: int
    name: str
    module: str
    inputs: tuple[str, ...]
    meaning: str
    hot: bool = True  # its loop is compiled (procs.fold.loop), and it is a fold; else the module has a `main`
    essential: bool = True  # without it there is no pipeline; else its end is its own affair
    worlds: tuple[str, ...] = ("paper", "replay")  # in which it runs
    source: str = ""  # the kind of source that it runs with; "": with any
    asked: str = ""  # the profile's switch without which it does not run; "": it always does
    role: str = ""  # a part that several stages can play, but one in a run; a profile chooses
    feedback: str = ""  # the input on which it hears what became of what it wrote
    clocked: bool = False  # it lets time go on by a clock where its input is silent, and writes down when it did
    reference: str = ""  # its output that its readers' promises are compared with (procs.fold.merge); "": its feedback
    compile_s: float = 0.0  # measured; the slowest is compiled first, so that the last worker does not end long after the others

    @property
    def part(self) -> str:
        """Its name in the rings' table, where a role stands for whoever plays it."""
        return self.role or self.name

    @property
    def promises(self) -> bool:
        """Whether it promises to write nothing before a time unless its feedback says more."""
        return bool(self.feedback)

    @property
    def logged(self) -> bool:
        """Whether it writes down the order in which it takes its inputs, or the clock, on the ring `intake.<part>`."""
        return self.hot and (len(self.inputs) > 1 or self.clocked)


EXCHANGE: Final = "exchange"
"""The role of the stage that answers the router's wire."""

GROUP: Final = "hot"
"""The process of several hot stages; with more than one such process they are numbered: hot1, hot2."""

RECORDER: Final = "recorder"
"""The role of the stage that reads every ring; it starts first, and stands in every ring's readers."""

ANY_WORLD: Final = ("paper", "replay", "record")

STAGES: Final = (
    Stage(
        1,
        "feed",
        "procs.stages.feed",
        ("frames",),
        "raw frames to integer records and a right book",
        worlds=ANY_WORLD,
        clocked=True,
        compile_s=62.0,
    ),
    Stage(
        2,
        "features",
        "procs.stages.features",
        ("market",),
        "features, signals and their score for every market record",
        compile_s=38.0,
    ),
    Stage(
        3,
        "quoter",
        "procs.stages.quoter",
        ("reports", "market"),
        "two-sided target quotes",
        feedback="reports",
        compile_s=4.0,
    ),
    Stage(
        4,
        "risk",
        "procs.stages.risk",
        ("control", "reports", "market", "signals", "quotes"),
        "positions, limits, exits, kill switch: the only way to the router",
        feedback="reports",
        compile_s=18.0,
    ),
    Stage(
        5,
        "router",
        "procs.stages.router",
        ("executions", "orders"),
        "order state at the venue",
        feedback="executions",
        reference="reports",
        compile_s=5.0,
    ),
    Stage(
        6,
        "exchange",
        "procs.stages.exchange",
        ("depth", "market", "wire"),
        "the simulated exchange",
        role=EXCHANGE,
        reference="executions",
        compile_s=22.0,
    ),
    Stage(
        7,
        "recorder",
        "procs.stages.recorder",
        (),
        "journals every ring to disk",
        hot=False,
        worlds=ANY_WORLD,
        role=RECORDER,
        compile_s=1.0,
    ),
    Stage(
        8,
        "receiver",
        "procs.receiver.stage",
        ("resync",),
        "the venue's connections: raw frames in, snapshots fetched",
        hot=False,
        worlds=ANY_WORLD,
        source="live",
    ),
    Stage(
        9,
        "gateway",
        "procs.gateway.stage",
        (),  # it looks at the rings as a passer-by does: no writer waits for it
        "signals, books and health over HTTP, read-only",
        hot=False,
        essential=False,
        asked="gateway.enabled",
    ),
    Stage(
        10,
        "learner",
        "procs.learning.stage",
        (),  # it reads the recorder's journal
        "trains models on what this run has recorded, publishes those that beat the baseline",
        hot=False,
        essential=False,
        asked="ml.learner.enabled",
    ),
)
"""In the order in which records flow: so a backtest polls them, and so they are listed everywhere."""


def _intake(ring_id: int, stage: str) -> Ring:
    """The intake log of a stage with several inputs."""
    meaning = f"the order in which {stage} took its inputs"
    return Ring(ring_id, f"intake.{stage}", records.INTAKE_RECORD, stage, (stage, "recorder"), 4096, meaning)


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
    _intake(10, "quoter"),
    _intake(11, "risk"),
    _intake(12, "router"),
    _intake(13, "exchange"),
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
    _intake(17, "feed"),
)

RING: Final = {ring.name: ring for ring in RINGS}
STAGE: Final = {stage.name: stage for stage in STAGES}
SUPERVISOR: Final = "supervisor"
SUPERVISOR_ID: Final = 0
MAX_STAGE_ID: Final = 15


def outputs(stage: str) -> tuple[Ring, ...]:
    """The rings that this stage writes, intake log last."""
    return tuple(ring for ring in RINGS if ring.writer == STAGE[stage].part)


def inputs(stage: str) -> tuple[Ring, ...]:
    """The rings that this stage reads, in merge order. The recorder reads all."""
    return RINGS if STAGE[stage].role == RECORDER else tuple(RING[name] for name in STAGE[stage].inputs)


def intake(stage: str) -> Ring | None:
    """The stage's intake log, where it has several inputs."""
    return RING.get(f"intake.{STAGE[stage].part}")


def stage_id(name: str) -> int:
    """Number of a process; the supervisor is 0. A role's is that of the stage called like it."""
    return SUPERVISOR_ID if name == SUPERVISOR else STAGE[name].stage_id


LOOP_COMPILE_S: Final = 20.0
"""As Stage.compile_s, of the loop that all hot stages share."""


def compile_s(name: str) -> float:
    """How long a stage's kernels take to compile, as measured; 0 for one that is not in the table."""
    return STAGE[name].compile_s if name in STAGE else 0.0


def playing(role: str) -> tuple[str, ...]:
    """The stages that can play this role."""
    return tuple(stage.name for stage in STAGES if stage.role == role)


@dataclass(frozen=True, slots=True)
class Process:
    """What the supervisor starts, watches and restarts: one stage, or several hot ones that share a thread."""

    name: str  # the stage's, or GROUP's of several
    members: tuple[Stage, ...]  # in the order in which its thread polls them

    @property
    def essential(self) -> bool:
        """Whether the pipeline needs it."""
        return any(stage.essential for stage in self.members)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run is made of: which stages, in which processes and order, over which rings. Whoever needs a list asks this."""

    world: str = "paper"
    source: str = "generated"
    exchange: str = EXCHANGE  # the stage that plays this role
    asked: frozenset[str] = frozenset()  # the switches that are on
    groups: tuple[tuple[str, ...], ...] = ()  # hot stages that share a process; who is in none has one of its own

    @classmethod
    def of(cls, profile: Any) -> Run:
        """The run that a procs.profiles.schema.Profile asks for; that room stands above this module."""
        switches = {stage.asked for stage in STAGES if stage.asked}
        on = frozenset(key for key in switches if attrgetter(key)(profile))
        run = cls(profile.world, profile.source.kind, profile.pipeline.exchange, on)
        return replace(run, groups=run.placed(profile.pipeline.placement, len(os.sched_getaffinity(0))))

    def placed(self, placement: str | Sequence[Sequence[str]], cores: int) -> tuple[tuple[str, ...], ...]:
        """The groups that `pipeline.placement` makes of the hot stages on a machine with so many cores to use.

        `auto` groups them all where not every process can have a core, one left for the supervisor and the machine.
        """
        hot = [stage.name for stage in self.hot]
        if placement == "auto":
            placement = "separate" if cores > len(self.essential) else "grouped"
        wanted = [hot] if placement == "grouped" else [] if isinstance(placement, str) else placement
        groups = (tuple(name for name in hot if name in group) for group in wanted)
        return tuple(group for group in groups if len(group) > 1)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that run, in the order of the table."""
        return tuple(stage for stage in STAGES if self._runs(stage))

    def _runs(self, stage: Stage) -> bool:
        played = stage.role != EXCHANGE or stage.name == self.exchange
        wanted = not stage.asked or stage.asked in self.asked
        return self.world in stage.worlds and stage.source in ("", self.source) and played and wanted

    @property
    def essential(self) -> tuple[Stage, ...]:
        """Those without which there is no pipeline."""
        return tuple(stage for stage in self.stages if stage.essential)

    @property
    def hot(self) -> tuple[Stage, ...]:
        """Those that are folds; a backtest consists of them."""
        return tuple(stage for stage in self.stages if stage.hot)

    @property
    def start_order(self) -> tuple[Stage, ...]:
        """Readers before writers as far as the cycle allows: the recorder first, feed and receiver last.

        What the pipeline can do without comes after all that it needs.
        """
        recorders = [stage for stage in self.stages if stage.role == RECORDER]
        others = [stage for stage in self.stages if not stage.hot and stage.role != RECORDER]
        return (*recorders, *reversed(self.hot), *sorted(others, key=lambda stage: not stage.essential))

    @property
    def processes(self) -> tuple[Process, ...]:
        """In start order; a group stands where the first of its members to start would."""
        of = {name: group for group in self.groups for name in group}
        found: dict[str, Process] = {}
        for stage in self.start_order:
            group = of.get(stage.name)
            if group is None:
                found[stage.name] = Process(stage.name, (stage,))
            else:
                name = GROUP if len(self.groups) == 1 else f"{GROUP}{self.groups.index(group) + 1}"
                found.setdefault(name, Process(name, tuple(STAGE[one] for one in group)))
        return tuple(found.values())

    def process_of(self, stage: str) -> Process:
        """The process that a stage runs in. KeyError for one that does not run."""
        for process in self.processes:
            if any(member.name == stage for member in process.members):
                return process
        raise KeyError(stage)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the stages, in start order."""
        return tuple(stage.name for stage in self.start_order)

    @property
    def rings(self) -> tuple[Ring, ...]:
        """The rings that carry something: somebody writes them, and they are not for a source's stage that is absent."""
        return tuple(ring for ring in RINGS if self._carries(ring))

    @property
    def outside(self) -> frozenset[str]:
        """The rings by which something enters that no fold made: an operator's word, the answers of an exchange that is no fold.

        Their records get their time from the stage that takes them (procs.fold.merge).
        """
        cold = {SUPERVISOR, *(stage.part for stage in self.stages if not stage.hot)}
        merging = {stage.name for stage in STAGES if stage.hot and len(stage.inputs) > 1}
        return frozenset(ring.name for ring in self.rings if ring.writer in cold and merging & {*ring.readers} - {ring.writer})

    def _carries(self, ring: Ring) -> bool:
        heard = [STAGE[name] for name in ring.readers if name != RECORDER]
        written = ring.writer in {SUPERVISOR, *(stage.part for stage in self.stages)}
        clock = any(stage.clocked and ring is intake(stage.name) for stage in STAGES)
        if clock and self.source != "live":
            return False  # a source of its own makes time as well
        return written and (not heard or any(stage.source in ("", self.source) for stage in heard))


def diagram(kind: str = "mermaid") -> str:
    """The topology as a Mermaid flowchart or a Graphviz digraph; intake logs and the recorder's edges are left out."""
    edges = [
        (ring.writer, reader, ring.name)
        for ring in RINGS
        for reader in ring.readers
        if reader not in (ring.writer, RECORDER)
    ]
    if kind == "dot":
        body = [f'  "{a}" -> "{b}" [label="{name}"];' for a, b, name in edges]
        return "\n".join(["digraph scalper {", "  rankdir=LR;", *body, '  "every ring" -> "recorder" [style=dashed];', "}"])
    body = [f"  {a} -- {name} --> {b}" for a, b, name in edges]
    return "\n".join(["flowchart LR", *body, "  rings[(every ring)] -.-> recorder"])


def _check() -> None:
    names = {stage.name for stage in STAGES} | {SUPERVISOR}
    assert [ring.ring_id for ring in RINGS] == list(range(len(RINGS))), "a ring's id is its index"
    assert len({stage.stage_id for stage in STAGES}) == len(STAGES) == len(STAGE), "a stage's id and name are its own"
    assert all(0 < stage.stage_id <= MAX_STAGE_ID for stage in STAGES)
    assert not any(name.startswith(GROUP) for name in names), "a group's name is no stage's"
    assert all(stage.part in STAGE for stage in STAGES), "a role is called like the first stage that plays it"
    for ring in RINGS:
        assert ring.capacity & (ring.capacity - 1) == 0, ring.name
        assert ring.capacity >= CHECKPOINT_HEADROOM * 1024 or ring.name == "control", f"{ring.name}: see checkpoint_every"
        assert ring.burst <= ring.capacity // 2, f"{ring.name}: a burst must leave room for a checkpoint's worth"
        assert ring.writer in names and set(ring.readers) <= names, ring.name
        assert RECORDER in ring.readers, f"{ring.name}: the recorder keeps every ring"
        for reader in ring.readers:
            known = reader in (ring.writer, RECORDER) or ring.name in STAGE[reader].inputs
            assert known, f"{ring.name} is read by {reader}, the stage does not say so"
        assert ring.writer == SUPERVISOR or STAGE[ring.writer].essential, f"{ring.name}: what a ring needs is essential"
    heard = {stage.feedback for stage in STAGES if stage.feedback}
    for stage in STAGES:
        for name in stage.inputs:
            assert stage.part in RING[name].readers, f"{stage.name} reads {name}, the ring does not say so"
        assert stage.feedback in ("", *stage.inputs), f"{stage.name}: its feedback is one of its inputs"
        assert stage.reference in ("", *(ring.name for ring in outputs(stage.name))), f"{stage.name}: a reference is an output"
        assert stage.feedback or not stage.promises, f"{stage.name}: a promise holds until the feedback says more"
        # procs.fold.merge believes a promise only on the last input, when it knows what the others may make the stage write
        writers = {name: STAGE.get(RING[name].writer) for name in stage.inputs if name not in heard}
        promising = [name for name, writer in writers.items() if writer is not None and writer.promises]
        assert promising in ([], list(stage.inputs[-1:])), f"{stage.name}: {promising} carry promises, only the last input may"
        assert stage.logged == (intake(stage.name) is not None), f"{stage.name}: several inputs, or a clock, need an intake log"


_check()
