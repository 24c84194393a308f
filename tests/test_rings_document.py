"""docs/rings.md is true: its blocks run, one after the other, and it names all that ringbuf offers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ringbuf
from procs.memory import segments
from procs.memory.segments import Placement
from ringbuf.plain import PlainWriter
from shm.segment import Segment
from trading.records import MARKET_RECORD

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "rings.md").read_text(encoding="utf-8"), re.M | re.S)


def test_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks in order, and the function that attaches to a pipeline sees what was written there."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names: dict[str, object] = {}
    try:
        for block in BLOCKS:
            exec(compile(block, "rings.md", "exec"), names)
    finally:
        ring = names["ring"]
        assert isinstance(ring, Segment)
        if not ring.closed:
            ring.unlink()
    memory = segments.create("test-rings-page", Placement())
    try:
        writer = PlainWriter(memory.ring("market"), MARKET_RECORD, memory.board_words)
        for ts_ns in (5, 6):
            record = np.zeros(1, MARKET_RECORD)
            record["ts_ns"] = ts_ns
            assert writer.try_push(record)
        trades = names["trades"]
        assert callable(trades) and [int(record["ts_ns"]) for record in trades("test-rings-page")] == [5, 6]
        del writer
    finally:
        memory.destroy()


def test_the_public_face_is_whole_and_lazy() -> None:
    """Each public name is there and on the page; importing the package, or its plain half, loads no compiler."""
    page = " ".join(BLOCKS) + (ROOT / "docs" / "rings.md").read_text(encoding="utf-8")
    assert all(getattr(ringbuf, name) is not None for name in ringbuf.__all__)
    assert [name for name in ringbuf.__all__ if name not in page and not name.endswith(("Closed", "Error"))] == ["copied_from"]
    code = "import sys, ringbuf; ringbuf.PlainWriter, ringbuf.latest; assert 'numba' not in sys.modules"
    assert subprocess.run([sys.executable, "-P", "-c", code], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Ring'"):
        _ = ringbuf.Ring
