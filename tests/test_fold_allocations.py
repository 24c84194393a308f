"""The hot loops allocate nothing: counted over a whole market, and looked for in the machine code."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from fold_world import STAGES, Session, small_market
from numba.core.runtime import _nrt_python, rtsys

from procs import topology

ALLOCATES = ("NRT_Allocate", "NRT_MemInfo_alloc", "NRT_MemInfo_new", "NRT_MemInfo_varsize", "PyObject_", "PyList_", "PyTuple_")


@pytest.fixture
def counting() -> Iterator[None]:
    """numba counts allocations only when told to."""
    _nrt_python.memsys_enable_stats()
    yield
    _nrt_python.memsys_disable_stats()


@pytest.mark.usefixtures("counting")
def test_no_poll_allocates() -> None:
    """numba's own count of allocations stands still over every poll and checkpoint of every stage, from first frame to END."""
    session = Session(small_market(20.0))
    polls, work = 0, 0
    while not all(session.done(name) for name in STAGES):
        before = rtsys.get_allocation_stats()
        for name in STAGES:
            done = session.poll(name)
            session.settle(name, done)
            polls, work = polls + 1, work + done
        after = rtsys.get_allocation_stats()
        assert (after.alloc, after.mi_alloc) == (before.alloc, before.mi_alloc)
        session.record()
    assert polls > 1000 and work > 10_000, "nothing was measured"
    assert len(session.kept()["orders"]) > 20, "the decisions were not measured"


@pytest.mark.usefixtures("counting")
def test_the_count_has_teeth() -> None:
    """The same count sees one small array made in compiled code."""
    import numpy as np
    from numba import njit

    @njit
    def make(n: int) -> Any:
        return np.zeros(n).sum()

    make(3)
    before = rtsys.get_allocation_stats()
    make(3)
    assert rtsys.get_allocation_stats().alloc > before.alloc


@pytest.mark.parametrize("name", STAGES)
def test_no_allocation_stands_in_the_machine_code(name: str) -> None:
    """Neither the loop nor anything that it calls names numba's allocator or the interpreter."""
    Session(small_market(1.0)).poll(name)  # compiled or loaded
    module = importlib.import_module(topology.STAGE[name].module)
    ((_, asm),) = module.poll.inspect_asm().items()
    assert asm.count("\n") > 1000, "no code was looked at"
    assert not [word for word in ALLOCATES if word in asm]
