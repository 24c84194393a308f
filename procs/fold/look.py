"""What can still come on an input, seen through the stages before it, without their having to be woken for it.

A watermark says how far time has come, but only when its writer has been awake to say it. Most stages have nothing to add: a
router whose inputs are read and empty writes nothing before its next input does. So each stage shows how far it has read its
inputs (POSITION) and when something falls due of itself (OWN_DUE), and who lacks knowledge of an input works it out:

    what comes on a ring       not before the writer's OWN_DUE, nor before an answer to each of the writer's inputs
    an answer to an input      not before the first record there that the writer has not read, if it is there,
                               else not before what may come on that ring; plus the writer's shift and lead

which is a shortest way over a graph of rings (nodes) and inputs (links). The sources' watermarks count as they are; so do those
of a stage to which something comes from outside (its records have no time yet), its promise being one more link. The stage that
looks is part of the graph, with its own heads: what it could still write is known to it.

The order of the loads makes it right: positions, then due times and watermarks, then the slots, at last the looker's own input.
A record that is not visible then is caused by one that counts as unread here, or that is not visible either. A writer shows in
the opposite order: records, due time, position.

Nobody is woken for what it can see. Who sleeps lacking something is a *looker* on each ring whose watermark or promise would
help it, and says from which time on (WANT); who waits for nothing hears of records alone. A stage that others cannot look
through passes on what its readers want, and is rung for once where it does not know it yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from procs import topology
from procs.fold.assembly import Bound, World
from procs.fold.block import (
    A_CTL,
    A_LEAD,
    A_LOC,
    ARENA,
    DOORBELL,
    DOORBELLS,
    FEEDBACK,
    FENCES,
    IN,
    IN_STRIDE,
    INPUTS,
    LOOK,
    LOOKED,
    MAX_INPUTS,
    OUT,
    OUT_STRIDE,
    OUTPUTS,
    R_CHOSEN,
    R_INTERNAL_DUE,
    R_KEYS,
    R_LACKS,
    R_NEED,
    REGISTERS,
)
from procs.memory import board
from ringbuf.intrinsics import fence_acquire, fetch_or, load_acquire, store_release, words_at
from ringbuf.jit import Words, lean
from ringbuf.layout import (
    ARMED_READERS,
    CAPACITY,
    CONTROL_WORDS,
    LINE_WORDS,
    LOOKER_DOORBELL,
    LOOKER_LINES,
    LOOKER_WANT,
    MAX_LOOKERS,
    MAX_READERS,
    NEVER,
    OWN_DUE,
    POSITION,
    PROMISE,
    PROMISE_GIVEN,
    RECORD_WORDS,
    WATERMARK,
    WRITER_DOORBELL,
    reader_line,
    views,
)
from ringbuf.ring import I_ENDED, I_HEAD, I_SHIFT, LOC_WORDS, ring_doorbell
from trading.records import TS_END

NODES, LINKS = 0, 1  # how many
NODE_OF: Final = 8  # node of each input, -1: none
FIRST_NODE: Final = 16
NODE: Final = 24
N_CTL: Final = 0
N_KIND: Final = 1
N_LEAD: Final = 2
N_LOOKER: Final = 3  # our number among the ring's lookers, -1: none
N_ASK: Final = 4  # 1: the writer has to be told that somebody waits
N_ASKED: Final = 5  # the last WANT of which it was told
N_CAP: Final = 6  # scratch of a look: what the writer has said of itself, 0: nothing of use
N_SHOWN: Final = 7
N_SEEN: Final = 8
N_WANT: Final = 9
N_ARMED: Final = 10
N_WAY: Final = 16  # least time from a record on this ring to each input of ours; NEVER: none
NODE_COUNT: Final = 10
FIRST_LINK: Final = FIRST_NODE + NODE_COUNT * NODE
LINK: Final = 8
L_FROM, L_TO = 0, 1
L_PLACE: Final = 2  # where the position stands: an address, and how much it says too much
L_TOO_MUCH: Final = 3
L_OWN: Final = 4  # of an input of ours: its row in the arena
L_SHIFT: Final = 5
L_TIME: Final = 6  # scratch: the position, then the time of the record there, ABSENT where there is none
L_SLOTS: Final = 7
LINK_COUNT: Final = 24
TABLE_WORDS: Final = FIRST_LINK + LINK_COUNT * LINK
ABSENT: Final = -1

PLAIN, THROUGH, PROMISED, OWN = 0, 1, 2, 3
"""Kinds of a ring: its watermark says all, its writer is looked through, its writer promises, we write it."""

assert N_WAY + MAX_INPUTS <= NODE and NODE_OF + MAX_INPUTS <= FIRST_NODE


@lean
def seen(b: Words, r: int) -> int:
    """The earliest time that may still come on a timed input whose next record is not there, as of the last look."""
    t = words_at(b[LOOK], TABLE_WORDS)
    return t[FIRST_NODE + t[NODE_OF + r] * NODE + N_SEEN]


@lean
def _load(b: Words, t: Words) -> None:
    """Positions, then what the writers say."""
    for k in range(t[LINKS]):
        at = FIRST_LINK + k * LINK
        t[at + L_TIME] = load_acquire(words_at(t[at + L_PLACE], 1), 0) - t[at + L_TOO_MUCH]
    for n in range(t[NODES]):
        at = FIRST_NODE + n * NODE
        ctl, kind, cap = words_at(t[at + N_CTL], CONTROL_WORDS), t[at + N_KIND], 0
        if kind == THROUGH:
            cap = load_acquire(ctl, OWN_DUE)
        elif kind == PROMISED:
            cap = load_acquire(ctl, PROMISE)
        elif kind == OWN:
            cap = words_at(b[ARENA], REGISTERS)[R_INTERNAL_DUE] + t[at + N_LEAD]
        t[at + N_CAP], t[at + N_SHOWN] = cap, load_acquire(ctl, WATERMARK)


@lean
def _times(t: Words) -> None:
    """The time of the record at each position; a writer whose position is not to be relied on has said nothing."""
    for k in range(t[LINKS]):
        at = FIRST_LINK + k * LINK
        position, to = t[at + L_TIME], FIRST_NODE + t[at + L_TO] * NODE
        t[at + L_TIME] = ABSENT
        if t[at + L_OWN] != 0 and words_at(t[at + L_OWN], LOC_WORDS)[I_ENDED] != 0:
            t[at + L_TIME] = TS_END
            continue
        if position < 0 or (
            t[to + N_KIND] == PROMISED and load_acquire(words_at(t[at + L_PLACE], 1), 0) - t[at + L_TOO_MUCH] != position
        ):
            t[to + N_CAP] = 0
            continue
        ring = words_at(t[FIRST_NODE + t[at + L_FROM] * NODE + N_CTL], CONTROL_WORDS)
        width = ring[RECORD_WORDS]
        slot = words_at(t[at + L_SLOTS] + (position & (ring[CAPACITY] - 1)) * width * 8, width)
        sequence = load_acquire(slot, width - 1)
        if sequence == position + 1:
            t[at + L_TIME] = slot[0]
            fence_acquire()
            sequence = load_acquire(slot, width - 1)
        if sequence > position + 1 or (t[at + L_TIME] != ABSENT and sequence != position + 1):
            t[to + N_CAP] = 0  # it has been read meanwhile: an older look is no use


@lean
def look(b: Words) -> None:
    """See how far time has come on every ring that has to do with our inputs (`seen`)."""
    t = words_at(b[LOOK], TABLE_WORDS)
    _load(b, t)
    _times(t)
    for n in range(t[NODES]):
        at = FIRST_NODE + n * NODE
        t[at + N_SEEN] = max(t[at + N_SHOWN], t[at + N_CAP])
    changed = True
    while changed:
        changed = False
        for k in range(t[LINKS]):
            at = FIRST_LINK + k * LINK
            to = FIRST_NODE + t[at + L_TO] * NODE
            if t[to + N_CAP] == 0:
                continue
            came = t[at + L_TIME]
            if came == ABSENT:
                came = t[FIRST_NODE + t[at + L_FROM] * NODE + N_SEEN]
            came = max(min(came, TS_END) + t[at + L_SHIFT], t[to + N_SHOWN])
            if came < t[to + N_SEEN]:
                t[to + N_SEEN] = came
                changed = True


@lean
def watched(b: Words) -> bool:
    """Whether anybody waits for what this stage's watermarks say.

    One that begins to while we look sees our positions; before we sleep there is one more poll.
    """
    for o in range(b[OUTPUTS]):
        if load_acquire(words_at(b[OUT + o * OUT_STRIDE + A_CTL], CONTROL_WORDS), ARMED_READERS) >> MAX_READERS != 0:
            return True
    return False


@lean
def _passed_on(b: Words) -> int:
    """The earliest time of which those who cannot look through us want to know and do not; NEVER where nobody does."""
    least = NEVER
    if b[LOOKED] != 0:
        return least
    for o in range(b[OUTPUTS]):
        ctl = words_at(b[OUT + o * OUT_STRIDE + A_CTL], CONTROL_WORDS)
        armed = load_acquire(ctl, ARMED_READERS) >> MAX_READERS
        shown = max(load_acquire(ctl, WATERMARK), load_acquire(ctl, PROMISE))
        for looker in range(MAX_LOOKERS):
            if (armed >> looker) & 1:
                want = load_acquire(ctl, LOOKER_LINES + looker * LINE_WORDS + LOOKER_WANT)
                if shown < want < NEVER:
                    least = min(least, want - b[OUT + o * OUT_STRIDE + A_LEAD])
    return least


@lean
def _wanted(b: Words, t: Words, there: int) -> None:
    """Work out of each ring, from when on its watermark would let us go on. `there`: bit r: the record on input r is there."""
    reg = words_at(b[ARENA], REGISTERS)
    for n in range(t[NODES]):
        t[FIRST_NODE + n * NODE + N_WANT] = NEVER
    passed = _passed_on(b)
    for r in range(b[INPUTS]):
        node = t[NODE_OF + r]
        loc = words_at(b[IN + r * IN_STRIDE + A_LOC], LOC_WORDS)
        if node < 0 or loc[I_ENDED] != 0 or (there >> r) & 1:
            continue
        need = NEVER
        if reg[R_LACKS] > 0 and (reg[R_LACKS] >> r) & 1:
            need = reg[R_NEED] + (1 if r < reg[R_CHOSEN] else 0)
        if reg[R_INTERNAL_DUE] < TS_END:
            need = min(need, reg[R_INTERNAL_DUE])
        if r != b[FEEDBACK]:
            need = min(need, passed)
        if reg[R_KEYS + r] >= need:
            continue
        for n in range(t[NODES]):
            at = FIRST_NODE + n * NODE
            way = t[at + N_WAY + r]
            if way < NEVER:
                t[at + N_WANT] = min(t[at + N_WANT], need - way)


@lean
def want(b: Words, there: int) -> None:
    """Say on every ring of which too little is seen from when on we want to be woken; ask those who would not pass it on."""
    t, bells = words_at(b[LOOK], TABLE_WORDS), words_at(b[DOORBELLS], board.DOORBELL_WORDS)
    _wanted(b, t, there)
    for n in range(t[NODES]):
        at = FIRST_NODE + n * NODE
        looker, wanted = t[at + N_LOOKER], t[at + N_WANT]
        if looker < 0:
            continue
        ctl, line = words_at(t[at + N_CTL], CONTROL_WORDS), LOOKER_LINES + looker * LINE_WORDS
        if t[at + N_SEEN] >= wanted:
            wanted = NEVER
        if wanted < NEVER:
            store_release(ctl, line + LOOKER_WANT, wanted)
            fetch_or(ctl, ARMED_READERS, 1 << (MAX_READERS + looker))
            if t[at + N_ASK] != 0 and t[at + N_ASKED] != wanted:
                t[at + N_ASKED] = wanted
                ring_doorbell(bells, ctl[WRITER_DOORBELL])
        elif t[at + N_ARMED] != 0:
            store_release(ctl, line + LOOKER_WANT, NEVER)
            t[at + N_ASKED] = NEVER
        t[at + N_ARMED] = 1 if wanted < NEVER else 0


# ---- the table --------------------------------------------------------------------------------------------------------


class _Graph:
    """Which rings have to do with which, in one run."""

    def __init__(self, run: topology.Run) -> None:
        self.outside: Final = run.outside
        self.part: Final = {stage.part: stage.name for stage in run.stages}
        hot = [stage for stage in run.hot if not stage.clocked]
        self.lookers: Final = [stage.name for stage in hot]
        self.through: Final = {stage.name for stage in hot if not self.outside & {*stage.inputs}}
        """Stages of which others may work out what they can still write: no source, and nothing enters there from outside."""
        self.rings: Final = {name: self._before(name) for name in self.lookers}
        """What has to do with the inputs of each stage that looks, its own rings among them, from the inputs backwards."""

    def writer(self, ring: str) -> str:
        """The stage that writes a ring; another name where no stage does."""
        part = topology.RING[ring].writer
        return self.part.get(part, part)

    def kind(self, name: str, ring: str) -> int:
        """What a ring is to a stage that looks."""
        writer = self.writer(ring)
        if writer == name:
            return OWN
        if writer in self.through:
            return THROUGH
        stage = topology.STAGE.get(writer)
        promised = stage is not None and stage.promises and topology.outputs(writer)[0].name == ring
        return PROMISED if promised and stage and stage.feedback not in self.outside else PLAIN

    def sources(self, name: str, ring: str) -> list[str]:
        """The inputs of its writer from which something on this ring may come."""
        kind = self.kind(name, ring)
        if kind == PLAIN:
            return []
        stage = topology.STAGE[self.writer(ring)]
        return [one for one in stage.inputs if one not in self.outside and (kind != PROMISED or one == stage.feedback)]

    def _before(self, name: str) -> list[str]:
        found = [ring for ring in topology.STAGE[name].inputs if ring not in self.outside]
        for ring in found:
            found += [source for source in self.sources(name, ring) if source not in found]
        return found


def connect(run: topology.Run, world: World, stages: Mapping[str, Bound]) -> None:
    """Let these stages look through each other. All hot stages of the run are there, each bound to its rings."""
    graph = _Graph(run)
    for name, bound in stages.items():
        clocked = topology.STAGE[name].clocked
        writers = {topology.RING[ring].writer for ring in graph.outside & {*topology.STAGE[name].inputs}}
        bound.block[LOOKED] = name in graph.through
        bound.block[FENCES] = 2 if writers <= {topology.SUPERVISOR} and not clocked else 1
        if not clocked:
            table = _table(graph, world, stages, name)
            bound.keep.append(table)
            bound.block[LOOK] = table.ctypes.data


def _table(graph: _Graph, world: World, stages: Mapping[str, Bound], name: str) -> Words:
    t, own, rings = np.zeros(TABLE_WORDS, np.int64), stages[name], graph.rings[name]
    assert len(rings) <= NODE_COUNT, f"{name}: {rings}"
    t[NODES], t[NODE_OF : NODE_OF + MAX_INPUTS] = len(rings), -1
    for r, ring in enumerate(topology.STAGE[name].inputs):
        t[NODE_OF + r] = rings.index(ring) if ring in rings else -1
    for n, ring in enumerate(rings):
        node, kind, writer = t[FIRST_NODE + n * NODE :][:NODE], graph.kind(name, ring), graph.writer(ring)
        ctl, _, _ = views(world.rings[ring], topology.RING[ring].record)
        node[N_CTL], node[N_KIND], node[N_LOOKER], node[N_ASKED] = ctl.ctypes.data, kind, -1, NEVER
        if kind == OWN:
            node[N_LEAD] = own.block[OUT + A_LEAD]
            continue
        lookers = [one for one in graph.lookers if ring in graph.rings[one] and graph.kind(one, ring) != OWN]
        assert len(lookers) <= MAX_LOOKERS, f"{ring}: {lookers}"
        node[N_LOOKER], node[N_ASK] = lookers.index(name), kind != THROUGH and writer in graph.lookers
        ctl[LOOKER_LINES + node[N_LOOKER] * LINE_WORDS + LOOKER_DOORBELL] = own.block[DOORBELL]
    ways = [(ring, graph.writer(ring), source) for ring in rings for source in graph.sources(name, ring)]
    assert len(ways) <= LINK_COUNT, f"{name}: {ways}"
    t[LINKS] = len(ways)
    for k, (ring, writer, source) in enumerate(ways):
        link, kind, r = t[FIRST_LINK + k * LINK :][:LINK], graph.kind(name, ring), topology.STAGE[writer].inputs.index(source)
        ctl, slots, _ = views(world.rings[source], topology.RING[source].record)
        answer, _, _ = views(world.rings[ring], topology.RING[ring].record)
        row = _row(stages[writer], r)
        link[L_FROM], link[L_TO], link[L_SLOTS] = rings.index(source), rings.index(ring), slots.ctypes.data
        link[L_SHIFT] = stages[writer].block[OUT + A_LEAD] + row[I_SHIFT]
        line = reader_line(topology.RING[source].reader_index(writer))
        place = {OWN: row[I_HEAD:], PROMISED: answer[PROMISE_GIVEN:], THROUGH: ctl[line + POSITION :]}[kind]
        link[L_OWN], link[L_TOO_MUCH], link[L_PLACE] = row.ctypes.data * (kind == OWN), kind == PROMISED, place.ctypes.data
    _measure_ways(t, own)
    return t


def _row(bound: Bound, r: int) -> Words:
    """An input's row of a stage's arena."""
    at = (int(bound.block[IN + r * IN_STRIDE + A_LOC]) - bound.arena.ctypes.data) // 8
    return bound.arena[at : at + LOC_WORDS]


def _measure_ways(t: Words, own: Bound) -> None:
    """Least time from each ring to each of our inputs, but for what goes through ourselves."""
    ways = np.full((NODE_COUNT, MAX_INPUTS), NEVER, np.int64)
    for r in range(int(own.block[INPUTS])):
        if t[NODE_OF + r] >= 0:
            ways[t[NODE_OF + r], r] = _row(own, r)[I_SHIFT]
    for _ in range(NODE_COUNT):
        for k in range(int(t[LINKS])):
            start, to, shift = (int(t[FIRST_LINK + k * LINK + word]) for word in (L_FROM, L_TO, L_SHIFT))
            if t[FIRST_NODE + to * NODE + N_KIND] == OWN:
                continue
            for r in range(MAX_INPUTS):
                if ways[to, r] < NEVER:
                    ways[start, r] = min(ways[start, r], ways[to, r] + shift)
    for n in range(NODE_COUNT):
        t[FIRST_NODE + n * NODE + N_WAY :][:MAX_INPUTS] = ways[n]

