"""What the compiled code really is: loads that stay in their loops, pause, plain moves, and no allocation."""

from __future__ import annotations

import re
from typing import Any

import numba
import numpy as np
import pytest
from numba import typeof
from numba.core.runtime import _nrt_python, rtsys

from ringbuf import batch, layout, ring, waiting
from ringbuf.intrinsics import (
    cycles,
    evict,
    exchange,
    fence_acquire,
    fence_release,
    fetch_add,
    fetch_and,
    fetch_or,
    load_acquire,
    load_acquire2,
    mono_ns,
    pause,
    store_release,
    store_release2,
)
from ringbuf.ring import LOC_WORDS

REC = np.dtype([("ts_ns", "i8"), ("body", "i8", 6), ("seq", "i8")])
WORDS = np.zeros(layout.payload_bytes(4, REC) // 8, np.int64)
layout.format_ring(WORDS, REC, 4)
CTL, SLOTS, _ = layout.views(WORDS, REC)
LOC = np.zeros(LOC_WORDS, np.int64)
OUT = ring.output(WORDS, REC, LOC, np.arange(7))
BELLS = ring.own_doorbells(WORDS)
ROWS = np.zeros((4, 8), np.int64)

fresh = numba.njit(nogil=True, error_model="numpy", _nrt=False)
"""ringbuf.jit.lean without the cache: only what was compiled in this process can be looked into."""

KERNELS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "smallest_cursor": (ring.smallest_cursor, (CTL,)),
    "room": (ring.room, (CTL, LOC, 1)),
    "begin": (ring.begin, (OUT,)),
    "commit": (ring.commit, (OUT,)),
    "flush": (ring.flush, (CTL, LOC, 1, BELLS)),
    "ready": (ring.ready, (CTL, SLOTS, 1)),
    "release": (ring.release, (CTL, LOC, BELLS)),
    "copy_observed": (ring.copy_observed, (CTL, SLOTS, 1, LOC)),
    "published_tail": (ring.published_tail, (CTL, SLOTS, 1)),
    "push_rows": (batch.push_rows, (CTL, SLOTS, LOC, ROWS, 1, LOC, BELLS)),
    "open_rows": (batch.open_rows, (CTL, SLOTS, LOC, 1)),
    "publish_rows": (batch.publish_rows, (CTL, SLOTS, LOC, 1, LOC, BELLS)),
    "take_rows": (batch.take_rows, (CTL, SLOTS, LOC, ROWS, 1)),
    "observe_rows": (batch.observe_rows, (CTL, SLOTS, LOC, ROWS, 1)),
    "wait_readable": (waiting.wait_readable, (CTL, SLOTS, 1, 0, BELLS, 2, 1, 1)),
    "wait_room": (waiting.wait_room, (CTL, LOC, 1, BELLS, 2, 1, 1)),
}


def assembly(function: Any, *args: Any) -> str:
    """The whole module's assembly for these argument types."""
    function.compile(tuple(typeof(arg) for arg in args))
    (text,) = function.inspect_asm().values()
    return str(text)


def body_of(text: str, name: str) -> list[str]:
    """Instructions and labels of the compiled function itself, without numba's wrappers for Python."""
    start = re.search(r"^(_ZN\w*" + name + r"\w*):$", text, re.M)
    assert start is not None
    end = text.index(".size", start.end())
    return [line.strip() for line in text[start.end() : end].splitlines() if line.strip() and not line.strip().startswith("#")]


def loops(lines: list[str]) -> list[list[str]]:
    """Every stretch from a label to a jump back to it."""
    labels = {line[:-1]: at for at, line in enumerate(lines) if line.endswith(":")}
    found = []
    for at, line in enumerate(lines):
        jump = re.match(r"j\w+\s+(\.\w+)", line)
        if jump and labels.get(jump[1], at) < at:
            found.append(lines[labels[jump[1]] : at + 1])
    return found


def reads_memory(line: str) -> bool:
    """Whether an instruction reads from memory (in AT&T or Intel order), lea apart."""
    return not line.startswith(("lea", "j", ".")) and ("(" in line or "[" in line)


def test_the_acquire_loop_has_its_load_inside() -> None:
    """`while load_acquire(...) == 0` reads memory and pauses in each round; the same loop with a plain load does not read."""

    @fresh
    def waits(w: np.ndarray) -> None:
        while load_acquire(w, 3) == 0:
            pause()

    @fresh
    def hoisted(w: np.ndarray) -> None:
        while w[3] == 0:
            pass

    (loop,) = loops(body_of(assembly(waits, WORDS), "waits"))
    assert any(reads_memory(line) for line in loop) and "pause" in loop
    assert not any(line.startswith(("lock", "mfence", "xchg")) for line in loop)
    for loop in loops(body_of(assembly(hoisted, WORDS), "hoisted")):
        assert not any(reads_memory(line) for line in loop), "the test would not notice a hoisted load"


def test_the_reader_polls_the_slot_itself() -> None:
    """The wait for a record reads the slot's sequence in each round, through ring.ready as the stages call it."""

    @fresh
    def polls(ctl: np.ndarray, slots: np.ndarray, head: int) -> None:
        while not ring.ready(ctl, slots, head):
            pause()

    text = assembly(polls, CTL, SLOTS, 1)
    (loop,) = loops(body_of(text, "polls"))
    assert "pause" in loop and any(reads_memory(line) or line.startswith("call") for line in loop)


def test_release_and_acquire_are_plain_moves() -> None:
    """On x86-64 a push needs no locked instruction and no fence: only waking does."""

    @fresh
    def publishes(w: np.ndarray, rows: np.ndarray) -> int:
        store_release(w, 1, 5)
        fence_release()
        store_release2(rows, 1, 2, 6)
        fence_acquire()
        return load_acquire(w, 2) + load_acquire2(rows, 0, 1)

    lines = body_of(assembly(publishes, WORDS, ROWS), "publishes")
    assert not any(re.match(r"(lock|xchg|mfence|sfence|lfence)", line) for line in lines)


@pytest.mark.parametrize("name", KERNELS)
def test_ring_kernels_cannot_allocate(name: str) -> None:
    """No ring kernel calls numba's runtime: it allocates nothing and counts no reference."""
    function, args = KERNELS[name]
    text = assembly(fresh(function.py_func), *args)
    assert "NRT_" not in text


def test_lean_kernels_that_allocate_do_not_compile() -> None:
    """The guarantee is the compiler's: an allocation in a lean kernel is an error before it ever runs."""

    @fresh
    def allocates(n: int) -> int:
        return np.zeros(n)[0]

    with pytest.raises(numba.errors.TypingError, match="empty"):
        allocates(3)


def allocations(function: Any, *args: Any) -> int:
    """What numba's runtime allocated during a call, unpacking its arguments included."""
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    function(*args)
    after = rtsys.get_allocation_stats()
    return int(after.alloc - before.alloc)


def test_pushing_and_popping_allocates_nothing() -> None:
    """Counted: 10,000 records cost as many allocations as none, which is none."""
    words = np.zeros(layout.payload_bytes(8, REC) // 8, np.int64)
    layout.format_ring(words, REC, 8)
    bells = ring.own_doorbells(words)
    out = ring.output(words, REC, np.zeros(LOC_WORDS, np.int64), np.zeros(0, np.int64))
    end = ring.input_(words, REC, np.zeros(LOC_WORDS, np.int64), 0)

    @fresh
    def both(out: Any, end: Any, bells: np.ndarray, count: int) -> int:
        for n in range(count):
            if ring.room(out.ctl, out.loc, 1) < 1:
                return n
            ring.begin(out)
            ring.commit(out)
            ring.flush(out.ctl, out.loc, n, bells)
            if not ring.ready(end.ctl, end.words, end.loc[0]):
                return n
            end.loc[0] += 1
            ring.release(end.ctl, end.loc, bells)
        return count

    assert both(out, end, bells, 0) == 0
    assert allocations(both, out, end, bells, 10_000) == allocations(both, out, end, bells, 0) == 0
    assert out.loc[0] == 10_000 == end.loc[0]


def test_atomics_do_what_they_say() -> None:
    """Every read-modify-write returns what was there and leaves what it should; clocks and counters run forward."""

    @fresh
    def all_of_them(w: np.ndarray, seen: np.ndarray) -> int:
        seen[0] = fetch_add(w, 0, 5)
        seen[1] = fetch_or(w, 0, 2)
        seen[2] = fetch_and(w, 0, 3)
        seen[3] = exchange(w, 0, 9)
        store_release(w, 1, 77)
        evict(w, 1)
        seen[4] = load_acquire(w, 1)
        before = cycles()
        mono = mono_ns()
        return cycles() > before and mono_ns() >= mono > 0

    words, seen = np.zeros(8, np.int64), np.zeros(8, np.int64)
    words[0] = 1
    assert all_of_them(words, seen)
    assert list(seen[:5]) == [1, 6, 6, 2, 77] and words[0] == 9
