"""A pipeline's shared memory: which segments there are, how they are made, found and removed.

    /scalper.<instance>.board            doorbells, commands, counters, histograms
    /scalper.<instance>.ring.<ring>      one a ring of the topology
    /scalper.<instance>.fold.<stage>     checkpoints of one stage
    /scalper.<instance>.frames           bytes of the frames that came off the wire; only where sockets are the source
    /scalper.<instance>.model            the models published last; only where there can be any (procs.memory.model_channel)

Nothing here needs numba: the supervisor and the command line stay small. A ring's pages lie on the NUMA node of the
process that reads it most: its first reader's core decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from procs import topology
from procs.memory import board
from procs.memory import model_channel as channel
from procs.memory.arena import ARENA, arena_view, attach_arena, create_arena
from procs.memory.board import Words
from procs.topology import Ring
from ringbuf import layout
from shm import numa
from shm.backing import segment_name as segment_name
from shm.errors import SegmentError, SegmentMissing
from shm.layout import SegmentKind
from shm.segment import Segment
from trading.records import layout_hash

KIND_BOARD: Final = int(SegmentKind.CONTROL)
KIND_RING: Final = int(SegmentKind.RING)
KIND_FOLD: Final = int(SegmentKind.STATE)

BOARD_LAYOUT: Final = board.BOARD_WORDS * 1000 + board.PAGE_WORDS
"""The board's layout in one number: it changes when a page grows."""


def aligned_words(count: int) -> Words:
    """Zeroed int64 words that begin on a page."""
    raw = np.zeros(count + 512, np.int64)
    start = (-raw.ctypes.data % 4096) // 8
    return raw[start : start + count]


def ring_segment(name: str) -> str:
    """The `what` of a ring's segment; intake.risk becomes ring.intake-risk."""
    return "ring." + name.replace(".", "-")


@dataclass(slots=True)
class Placement:
    """Wishes about memory, from the profile, and the core that each stage has."""

    numa: bool = True
    huge_pages: bool = False
    lock_memory: bool = False
    cores: dict[str, int] = field(default_factory=dict)

    def node(self, reader: str) -> int | None:
        """NUMA node of a stage's core, None where it makes no difference."""
        nodes = numa.discover()
        if not self.numa or len(nodes) < 2 or reader not in self.cores:
            return None
        return numa.node_of_cpu(self.cores[reader], nodes)


@dataclass(slots=True)
class Memory:
    """The segments of one instance as this process has them open."""

    instance: str
    segments: dict[str, Segment] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def board_words(self) -> Words:
        """The board's words."""
        return self.segments["board"].words

    def ring(self, name: str) -> Words:
        """A ring's payload words."""
        return self.segments[ring_segment(name)].words

    @property
    def arena(self) -> npt.NDArray[np.uint8] | None:
        """The frames' bytes, padding at the end included; None where no socket is the source."""
        segment = self.segments.get(ARENA)
        return None if segment is None else arena_view(segment)

    @property
    def models(self) -> Words | None:
        """The models' channel (procs.memory.model_channel); None where the pipeline runs without models."""
        segment = self.segments.get(channel.CHANNEL)
        return None if segment is None else segment.words

    def close(self) -> None:
        """Let go of the memory; the segments stay."""
        for segment in self.segments.values():
            segment.close()
        self.segments.clear()

    def destroy(self) -> None:
        """Remove the instance's segments: those that this process made, and the checkpoints that its stages made."""
        for stage in topology.STAGES:
            with contextlib.suppress(SegmentError):
                found = Segment.attach(segment_name(self.instance, f"fold.{stage.name}"), kind=KIND_FOLD)
                found.unlink()
                found.close()
        for segment in self.segments.values():
            with contextlib.suppress(SegmentError):
                segment.unlink()
        self.close()


def format_ring(words: Words, entry: Ring, *, without: Sequence[str] = (), groups: Sequence[Sequence[str]] = ()) -> None:
    """Write a topology ring's control words. Readers named in `without` do not gate (they do not run).

    Stages of one of the `groups` share a doorbell; from here on the ring says whose doorbell is which.
    """
    parts = [[topology.STAGE[name].part for name in group] for group in groups]
    layout.format_ring(
        words,
        entry.record,
        entry.capacity,
        ring_id=entry.ring_id,
        gating=tuple(reader not in without for reader in entry.readers),
        writer_doorbell=board.doorbell(topology.stage_id(entry.writer), parts),
        reader_doorbells=tuple(board.doorbell(topology.stage_id(reader), parts) for reader in entry.readers),
        record_hash=layout_hash(entry.record),
    )


def create(
    instance: str,
    placement: Placement,
    *,
    journal: bool = True,
    raw: bool = False,
    vectors: bool = False,
    stages: Sequence[str] = topology.Run().names,
    groups: Sequence[Sequence[str]] = (),
    arena_bytes: int = 0,
    models: int = 0,
) -> Memory:
    """Make all segments of an instance; on any failure none is left. Readers that are not among `stages` gate nobody.

    `groups` names the stages that share a process, and so a doorbell.

    `models` makes room for models of so many symbols that are published while it runs.
    `arena_bytes` is the room for frames off the wire, 0 for none. The recorder gates the ring `frames` where it records the wire
    (`raw`), the others where it keeps journals (`journal`), `vectors` where it is to keep that too (`vectors`).

    A stage makes its own checkpoints' segment, whose size only its code knows. Raises shm.errors.SegmentError: another
    living pipeline of that name, no room, no permission.
    """
    memory = Memory(instance)
    notices: list[str] = []
    played = {topology.STAGE[name].part for name in stages}
    absent = [stage.part for stage in topology.STAGES if stage.part not in played]
    try:
        memory.segments["board"] = _make(instance, "board", board.BOARD_WORDS * 8, BOARD_LAYOUT, KIND_BOARD, 0, placement, None)
        for entry in topology.RINGS:
            payload = layout.payload_bytes(entry.capacity, entry.record)
            what = ring_segment(entry.name)
            memory.segments[what] = _make(
                instance,
                what,
                payload,
                layout_hash(entry.record),
                KIND_RING,
                entry.ring_id,
                placement,
                placement.node(entry.readers[0]),
            )
            recorded = raw if entry.name == "frames" else journal and (vectors or entry.name != "vectors")
            format_ring(memory.ring(entry.name), entry, without=absent if recorded else [*absent, "recorder"], groups=groups)
        if arena_bytes:
            memory.segments[ARENA] = create_arena(instance, arena_bytes)
        if models:
            memory.segments[channel.CHANNEL] = channel.create(instance, models)
    except BaseException:
        memory.destroy()
        raise
    for segment in memory.segments.values():
        notices.extend(getattr(segment.placement, "notices", ()))
    memory.notices = tuple(dict.fromkeys(notices))
    return memory


def _make(
    instance: str, what: str, payload: int, fingerprint: int, kind: int, number: int, wish: Placement, node: int | None
) -> Segment:
    return Segment.create(
        segment_name(instance, what),
        payload,
        layout_hash=fingerprint,
        kind=kind,
        segment_id=number,
        numa_node=node,
        huge=wish.huge_pages,
        lock=wish.lock_memory,
        prefault=False,
    )


def attach(instance: str, *, rings: tuple[str, ...] | None = None, readonly: bool = False) -> Memory:
    """Open an instance's board and the named rings (None: all).

    Raises shm.errors.SegmentError; a missing board means that no pipeline of that name is there.
    """
    memory = Memory(instance)
    try:
        memory.segments["board"] = Segment.attach(
            segment_name(instance, "board"), layout_hash=BOARD_LAYOUT, kind=KIND_BOARD, readonly=readonly
        )
        for name in rings if rings is not None else tuple(e.name for e in topology.RINGS):
            entry = topology.RING[name]
            what = ring_segment(name)
            memory.segments[what] = Segment.attach(
                segment_name(instance, what), layout_hash=layout_hash(entry.record), kind=KIND_RING, readonly=readonly
            )
        if rings is None:
            with contextlib.suppress(SegmentMissing):
                memory.segments[ARENA] = attach_arena(instance, readonly=readonly)
            with contextlib.suppress(SegmentMissing):
                memory.segments[channel.CHANNEL] = channel.attach(instance, readonly=readonly)
    except BaseException:
        memory.close()
        raise
    return memory
