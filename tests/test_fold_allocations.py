"""The hot loops allocate nothing: counted over a whole market, and looked for in the machine code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fold_world import STAGES, Session, small_market
from numba import njit
from numba.core.runtime import _nrt_python, rtsys

from procs import topology
from procs.fold import far_calls
from procs.fold.block import BEFORE, ENDED, POLL, WAITING
from procs.fold.checkpoint import save
from procs.fold.loop import poll

ALLOCATES = ("NRT_Allocate", "NRT_MemInfo_alloc", "NRT_MemInfo_new", "NRT_MemInfo_varsize", "PyObject_", "PyList_", "PyTuple_")


@pytest.fixture
def counting() -> Iterator[None]:
    """numba counts allocations only when told to."""
    _nrt_python.memsys_enable_stats()
    yield
    _nrt_python.memsys_disable_stats()


def allocations() -> int:
    """Allocations so far, by numba's own count."""
    stats = rtsys.get_allocation_stats()
    return int(stats.alloc)


@pytest.mark.usefixtures("counting")
def test_no_poll_allocates() -> None:
    """From first frame to END numba counts one allocation a call from Python, which is for handing over the block, however
    many records the poll takes; and as many for a checkpoint."""
    session = Session(small_market(20.0))
    polls, work = 0, 0
    while not all(session.done(name) for name in STAGES):
        for name in STAGES:
            block = session.stages[name].block
            before = allocations()
            done = session.poll(name)
            polled = allocations()
            save(block)
            saved = allocations()
            assert (polled - before, saved - polled) == (1, 1), f"{name}: {done} records"
            polls, work = polls + 1, work + done
        session.record()
    assert polls > 1000 and work > 10_000, "nothing was measured"
    assert len(session.kept()["orders"]) > 20, "the decisions were not measured"


def named_in(asm: str) -> list[str]:
    """What allocates and is named in this code."""
    return [word for word in ALLOCATES if word in asm]


@pytest.mark.usefixtures("counting")
def test_both_ways_of_looking_have_teeth() -> None:
    """One small array made in a function that a function calls is counted, and found in the code."""

    @njit
    def make(n: int) -> Any:
        return np.zeros(n).sum()

    @njit
    def outer(n: int) -> Any:
        return make(n) + 1.0

    outer(3)
    before = allocations()
    outer(3)
    assert allocations() - before == 1  # a number is handed over without one
    (asm,) = outer.inspect_asm().values()
    assert named_in(asm)


def code_of(compiled: Any) -> str:
    """The machine code of a compiled function, linked afresh with all that it calls: numba shows none from its cache."""
    fresh = njit(nogil=True, error_model="numpy")(compiled.py_func)
    fresh.compile(compiled.signatures[0])
    (asm,) = fresh.inspect_asm().values()
    return str(asm)


def test_no_allocation_stands_in_the_loops_machine_code() -> None:
    """Poll names neither numba's allocator nor Python's objects; the feed has one of its own."""
    session = Session(small_market(1.0))
    session.poll("feed")  # compiled or loaded
    feed = next(call.compiled for call in far_calls._made if call.module == topology.STAGE["feed"].module and call.number == POLL)
    for compiled in (poll, feed):
        asm = code_of(compiled)
        assert asm.count("\n") > 1000 and "NRT_incref" in asm, "no code was looked at"
        assert named_in(asm) == []


@pytest.mark.parametrize("name", STAGES)
def test_no_allocation_stands_in_the_machine_code_of_a_stages_end(name: str) -> None:
    """What a stage does when an input has ended is rare, and allocates no more than the rest."""
    Session(small_market(1.0))
    module = topology.STAGE[name].module
    for call in far_calls._made:
        if call.module == module and call.number in (ENDED, WAITING, BEFORE):
            assert named_in(code_of(call.compiled)) == []
