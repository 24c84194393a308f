"""The supervisor's writer without a compiler writes the same ring as the compiled one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from ring_heap import REC64, content, ends, fresh, pop, push

from ringbuf import layout, ring
from ringbuf.layout import (
    ARMED_READERS,
    TAIL,
    WATERMARK,
)
from ringbuf.plain import PlainWriter
from ringbuf.ring import I_HEAD
from trading.records import CONTROL_RECORD


@pytest.fixture(params=[False, True], ids=["compiled reader", "armed reader"])
def armed(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the reader says that it sleeps."""
    return request.param


def test_plain_writer_writes_the_same_ring(armed: bool) -> None:
    """The numba-free writer is exact over wraps and full rings, disarms and rings as flush does, and hands over both ways."""
    words = fresh(4, CONTROL_RECORD, (True, False))
    width = CONTROL_RECORD.itemsize // 8
    out, (end, _) = ends(words, CONTROL_RECORD, 2)
    bells = ring.own_doorbells(words)
    for _ in range(3):
        assert push(out, words) and pop(end, words)
    push(out, words, flush=False)
    writer = PlainWriter(words, CONTROL_RECORD)
    assert writer.next_sequence == 4 == words[TAIL] and list(bells[:3]) == [1, 1, 0]
    for n in range(4, 30):
        words[ARMED_READERS] = 0b10 if armed else 0
        rung = bells[:2].copy()
        while writer.room() == 0:
            assert not writer.try_push(np.zeros(1, CONTROL_RECORD)) and pop(end, words)
        assert writer.try_push(content(n, width).view(CONTROL_RECORD))
        assert list(bells[:2] - rung) == [0, int(armed)] and words[ARMED_READERS] == 0 and words[TAIL] == n + 1
    writer.promise(77)
    writer.promise(5)
    assert words[WATERMARK] == 77
    while pop(end, words):
        pass
    assert end.loc[I_HEAD] == 30 == ring.published_tail(out.ctl, out.words, 0)
    with pytest.raises(TypeError, match="this ring takes"):
        writer.try_push(np.zeros(1, REC64))


def test_plain_writer_needs_no_compiler() -> None:
    """A process that pushes with PlainWriter has not loaded numba."""
    code = (
        "import sys, numpy as np; from ringbuf import layout; from ringbuf.plain import PlainWriter\n"
        "r = np.dtype([('a', 'i8', 8)]); w = np.zeros(layout.payload_bytes(2, r) // 8, np.int64); layout.format_ring(w, r, 2)\n"
        "p = PlainWriter(w, r); assert [p.try_push(np.zeros(1, r)) for _ in range(3)] == [True, True, False]\n"
        "assert 'numba' not in sys.modules and 'llvmlite' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=layout.__file__.rsplit("/", 2)[0])
    assert done.returncode == 0, done.stderr
