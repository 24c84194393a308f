"""Counters: declared once, placed anywhere, counted by kernels, read by anybody."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numba import njit

from shm.counters import Counter, CounterSet, add, put, raise_to
from shm.jit import kernel

LOOP = CounterSet(
    "loop",
    (
        Counter("turns", "calls", "Turns of the loop."),
        Counter("taken", "records", "Records taken from all inputs."),
        Counter("lag_max", "records", "Greatest lag seen."),
        Counter("phase", "state", "What the loop is doing."),
    ),
)
TURNS, TAKEN, LAG_MAX, PHASE = (LOOP.index(key) for key in ("turns", "taken", "lag_max", "phase"))


@kernel
def loop(words: np.ndarray, n: int) -> None:
    """Counts with the indices as compile-time constants."""
    for turn in range(n):
        add(words, TURNS, 1)
        add(words, TAKEN, turn)
        raise_to(words, LAG_MAX, n - turn)
        put(words, PHASE, turn & 1)


def test_kernels_count_and_snapshot_reads() -> None:
    """A kernel with the indices as globals counts exactly; snapshot and read give the values by key, in order."""
    memory = np.zeros(64, dtype=np.int64)
    words = LOOP.place(memory, 16)
    loop(words, 1000)
    assert LOOP.snapshot(words) == {"turns": 1000, "taken": 499500, "lag_max": 1000, "phase": 1}
    assert list(LOOP.snapshot(words)) == [counter.key for counter in LOOP.counters]
    assert LOOP.read(words, "taken") == 499500
    assert not memory[:16].any() and not memory[20:].any()
    add(words, TURNS, -1000)
    assert LOOP.read(words, "turns") == 0


def test_a_store_in_an_endless_loop_is_not_kept_in_a_register() -> None:
    """The compiled loop stores every count inside the loop, with a plain mov and no locked instruction."""
    fresh = njit(nogil=True, error_model="numpy")(loop.py_func)  # cached code cannot be inspected
    fresh(LOOP.place(np.zeros(8, dtype=np.int64)), 1)
    (assembly,) = fresh.inspect_asm().values()
    body = assembly[: assembly.find("cfunc.")]
    assert not re.search(r"\block\b", body)
    labels = {name: at for at, name in ((m.start(), m[1]) for m in re.finditer(r"^(\.LBB\w+):", body, re.MULTILINE))}
    loops = [
        (labels[m[1]], m.start()) for m in re.finditer(r"\bj\w+\s+(\.LBB\w+)", body) if labels.get(m[1], 1 << 60) < m.start()
    ]
    assert any(re.search(r"mov\w*\s+%\w+, \d*\(%\w+\)|(inc|add)q\s+.*\(%\w+\)", body[start:end]) for start, end in loops)


@pytest.mark.parametrize(
    "wrong",
    [
        ("Turns", "calls", "Turns of the loop."),
        ("2nd", "calls", "Turns of the loop."),
        ("turns", "furlongs", "Turns of the loop."),
        ("turns", "calls", "Turns of the loop"),
        ("turns", "calls", "turns of the loop."),
        ("turns", "calls", "Turns. Of the loop."),
        ("turns", "calls", ""),
    ],
)
def test_a_counter_needs_a_key_a_unit_and_one_sentence(wrong: tuple[str, str, str]) -> None:
    """A declaration without them is a programmer's error, at import."""
    with pytest.raises(AssertionError):
        Counter(*wrong)


def test_sets_are_declared_and_placed_soundly() -> None:
    """No key twice, no empty set, whole cache lines, no placing outside the memory or across a line."""
    with pytest.raises(AssertionError):
        CounterSet("twice", (LOOP.counters[0], LOOP.counters[0]))
    with pytest.raises(AssertionError):
        CounterSet("none", ())
    assert LOOP.words == 8
    assert CounterSet("nine", tuple(Counter(f"k{at}", "events", "One.") for at in range(9))).words == 16
    memory = np.zeros(16, dtype=np.int64)
    for at in (-8, 4, 16):
        with pytest.raises(ValueError, match="counter set loop"):
            LOOP.place(memory, at)
    with pytest.raises(KeyError):
        LOOP.index("never")
