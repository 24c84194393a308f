"""Functions compiled apart: called through the block with the caller's values and exceptions, and found in the cache again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from procs.fold import far_calls as apart
from procs.fold.assembly import LoopSettings, assemble, heap_world
from procs.fold.block import BLOCK_WORDS, CALLS, MAX_CALLS
from procs.stages import quoter
from ringbuf.jit import Words, kernel

ROOT = Path(__file__).resolve().parents[1]


@apart.apart(3, apart.INT)
def _weigh(b: Words, small: int, flag: int, word: int) -> int:
    if word < 0:
        raise ValueError("a negative word")
    return b[0] + 100 * small + 10 * flag + word


@apart.apart(4)
def _note(b: Words, word: int) -> None:
    b[1] = word


@apart.apart(5, apart.INT)
def _twice(b: Words, word: int) -> int:
    return 2 * word


@kernel
def _by_number(b: Words, note: int, twice: int, word: int) -> int:
    apart.call_numbered(b, note, word)
    return apart.ask_numbered(b, twice, word)


@kernel
def _ask(b: Words, small: int, word: int) -> int:
    _note(b, word)
    return _weigh(b, np.int32(small), small > 1, word)


def linked() -> Words:
    """A block that knows this module's functions."""
    block = np.zeros(BLOCK_WORDS, np.int64)
    apart.link(block, __name__)
    return block


def test_a_call_through_the_block_passes_values_and_widens_integers() -> None:
    """An int32 and a bool arrive as int64s; what the function writes and returns is there."""
    block = linked()
    block[0] = 1000
    assert _ask(block, 2, 7) == 1217 and block[1] == 7
    assert _ask(block, -1, 2**62) == 900 + 2**62


def test_an_exception_comes_through_the_call() -> None:
    """What the function raises reaches who called the caller."""
    with pytest.raises(ValueError, match="a negative word"):
        _ask(linked(), 1, -1)


def test_a_caller_may_know_only_the_place() -> None:
    """What stands at the place that the number names is called, and its answer comes back."""
    block = linked()
    assert _by_number(block, 4, 5, 21) == 42 and block[1] == 21


def test_a_stage_without_a_handler_for_an_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop would jump to address zero: putting the stage together says so first."""
    left = [call for call in apart._made if (call.module, call.number) != (quoter.__name__, quoter.MARKET)]
    world = heap_world({quoter.NAME: ()})
    assemble(quoter.NAME, world, (), LoopSettings())
    monkeypatch.setattr(apart, "_made", left)
    with pytest.raises(AssertionError, match="quoter: the loop has no handler"):
        assemble(quoter.NAME, world, (), LoopSettings())


def test_linking_writes_only_the_addresses_of_the_modules_named() -> None:
    """Other words stay, other modules' functions are not there, and linking again gives the same."""
    block = linked()
    calls = block[CALLS : CALLS + MAX_CALLS].copy()
    assert (np.flatnonzero(calls) == [3, 4, 5]).all()
    assert not np.delete(block, np.arange(CALLS, CALLS + MAX_CALLS)).any()
    apart.link(block, __name__)
    assert (block[CALLS : CALLS + MAX_CALLS] == calls).all()
    apart.link(block)
    assert not block.any()


PROGRAM = """
from numba.core import event
import tests.test_fold_apart as subject
with event.install_recorder("numba:compile") as compiled:
    answer = subject._ask(subject.linked(), 2, 7)
print(answer, len(compiled.buffer))
"""


def test_a_second_process_finds_everything_in_the_cache(tmp_path: Path) -> None:
    """The caller's code on disk holds no address of the process that compiled it: another one loads and runs it."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def run() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=True
        )
        return done.stdout.split()

    first, second = run(), run()
    assert first[0] == second[0] == "217"
    assert int(first[1]) > 0 and int(second[1]) == 0


def test_integers_of_any_kind_share_one_compilation() -> None:
    """Literals, narrow integers and int64s that other kernels pass give a callee one specialisation, not one each."""

    @kernel
    def callee(a: int, b: int) -> int:
        return a + b

    @kernel
    def caller(x: int) -> int:
        return callee(1, x) + callee(np.int32(2), np.int16(3)) + callee(x, 4)

    assert caller(10) == 30
    assert len(callee.overloads) == 1
