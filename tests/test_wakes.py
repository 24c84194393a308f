"""No wake is lost: single records at random gaps from an outside writer into a group that sleeps whenever it can."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fold_world import STAGES, Session, small_market
from numba import njit

from procs import topology
from procs.bench.hops import bare_futex
from procs.cli.latencies import histogram
from procs.fold.assembly import LoopSettings
from procs.fold.block import BLOCK
from procs.fold.group import group_words, run
from procs.memory import board
from procs.topology import Run
from ringbuf import waiting
from ringbuf.intrinsics import mono_ns, pause, sched_yield
from ringbuf.layout import GATING, reader_line, views
from ringbuf.plain import ring_doorbell
from ringbuf.ring import LOC_WORDS, flush, open_slot, publish_slot, room
from trading.jit import Words
from trading.records import FRAME_RECORD, Kind, identity_words

UP: int = int(Kind.LINE_UP) << 32
FEED: int = topology.stage_id("feed")


@njit(nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def tell(ctl: Words, slots: Words, loc: Words, identity: Words, bells: Words, count: int, seed: int, most_ns: int) -> None:
    """Write `count` events of a line, each by itself, up to `most_ns` apart."""
    due = mono_ns()
    for n in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        due = max(due, mono_ns()) + (seed >> 8) * most_ns // (1 << 23)
        while mono_ns() < due:
            pause()
        while room(ctl, loc, 1) < 1:
            sched_yield()
        row = open_slot(ctl, slots, loc)
        for k in range(slots.shape[1] - 1):
            slots[row, k] = 0
        slots[row, 0], slots[row, 2], slots[row, 6] = n + 1, UP, mono_ns()
        publish_slot(ctl, slots, loc, identity)
        flush(ctl, loc, n + 1, bells)


def told(count: int, most_ns: int) -> dict[str, Any]:
    """Let a writer in a thread of its own tell a sleeping group of all hot stages so many events, then end the stream."""
    waiting.register()
    plan = replace(small_market(1.0), run=Run(source="live"))
    session = Session(plan, LoopSettings(strategy=BLOCK, spin=2, checkpoint_every=256, frames=8), (STAGES,))
    for entry in topology.RINGS:
        for number, reader in enumerate(entry.readers):
            if reader in ("recorder", "receiver"):
                session.world.rings[entry.name][reader_line(number) + GATING] = 0
    group = group_words([session.stages[name].block for name in STAGES])
    ctl, slots, _ = views(session.world.rings["frames"], FRAME_RECORD)
    words = session.world.board
    bells, loc = words[: board.DOORBELL_WORDS], np.zeros(LOC_WORDS, np.int64)
    loop = threading.Thread(target=run, args=(group,))
    loop.start()
    writer = threading.Thread(target=tell, args=(ctl, slots, loc, identity_words(FRAME_RECORD), bells, count, 7, most_ns))
    writer.start()
    writer.join()
    session.drain()
    ring_doorbell(words, board.doorbell(FEED, (STAGES,)))
    loop.join()
    pages = {name: board.page(words, topology.stage_id(name)) for name in STAGES}
    return {
        "taken": int(pages["feed"][board.FRAMES]),
        "finished": [int(page[board.FINISHED]) for page in pages.values()],
        "missed": sum(int(page[board.MISSED]) for page in pages.values()),
        "sleeps": int(pages["feed"][board.SLEEPS]),
        "origin": histogram(words, "feed", "frames", "origin"),
    }


def test_no_wake_is_lost() -> None:
    """Every event is taken, the stream ends, and no sleep ended by its time limit while a record was there."""
    found = told(4_000, 200_000)
    assert found["taken"] == found["origin"].count == 4_000 and all(found["finished"])
    assert found["missed"] == 0 and found["sleeps"] > 100


@pytest.mark.slow
def test_no_wake_of_a_million_is_lost() -> None:
    """The same with 10^6 events; how long each waited is printed beside a bare futex of this machine, and not judged."""
    found = told(1_000_000, 150_000)
    origin, bare = found["origin"], bare_futex(10_000.0)
    figures = [round(origin.percentile(q) / 1e3, 1) for q in (50, 99, 99.99)]
    print(f"\nwritten to taken, us p50/p99/p99.99: {figures}, max {origin.max_ns / 1e3:.1f}; {found['sleeps']} sleeps")
    print(f"bare futex: {bare}")
    assert found["taken"] == origin.count == 1_000_000 and all(found["finished"])
    assert found["missed"] == 0 and found["sleeps"] > 100_000
