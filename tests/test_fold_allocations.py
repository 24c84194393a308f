"""The hot loops allocate nothing: counted over a whole market, and looked for in the machine code."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from fold_world import STAGES, Session, small_market
from numba.core.runtime import _nrt_python, rtsys

from procs import topology
from procs.checkpoint import save

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


@pytest.mark.usefixtures("counting")
def test_the_count_has_teeth() -> None:
    """The same count sees one small array made in compiled code."""
    import numpy as np
    from numba import njit

    @njit
    def make(n: int) -> Any:
        return np.zeros(n).sum()

    make(3)
    before = allocations()
    make(3)
    assert allocations() - before == 1  # a number is handed over without one


@pytest.mark.parametrize("name", STAGES)
def test_no_allocation_stands_in_the_machine_code(name: str) -> None:
    """The object code of poll and of all that it calls has no symbol of numba's allocator or of Python's objects."""
    Session(small_market(1.0)).poll(name)  # compiled or loaded
    module = importlib.import_module(topology.STAGE[name].module)
    (compiled,) = module.poll.overloads.values()
    _, kind, (code, _) = compiled.library.serialize_using_object_code()
    assert kind == "object" and code[:4] == b"\x7fELF" and len(code) > 10_000, "no code was looked at"
    assert b"NRT_incref" in code, "symbols can be found at all"
    assert [word for word in ALLOCATES if word.encode() in code] == []
