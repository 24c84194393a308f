"""The instructions that kernels use and numba has no word for: words moved in one piece, records found by their address."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from trading.jit import lean, move, record_at

ROW = np.dtype([("a", "<i8"), ("b", "<f8"), ("few", "<i8", 3)])


@lean
def _one(to: Any, source: Any) -> None:
    move(to, source, 1)


@lean
def _seven(to: Any, source: Any) -> None:
    move(to, source, 7)


@lean
def _eight(to: Any, source: Any) -> None:
    move(to, source, 8)


@lean
def _as_told(to: Any, source: Any, words: int) -> None:
    move(to, source, words)


@lean
def _told(address: int, k: int, add: int) -> float:
    row = record_at(address, k, ROW)
    row.a += add
    row.few[2] = row.a
    return row.b


@pytest.mark.parametrize(("words", "moved"), [(1, _one), (7, _seven), (8, _eight)])
@pytest.mark.parametrize(("to", "source"), [("<i8", "<i8"), ("<f8", "<f8"), ("<f4", "<f8")])
def test_so_many_words_are_moved_and_no_more(words: int, moved: Any, to: str, source: str) -> None:
    """Each word arrives as it is, or narrowed as numpy narrows it; what lies behind them stays."""
    rng = np.random.default_rng(words)
    if source == "<i8":
        here = rng.integers(-(2**63), 2**63 - 1, 12, dtype=np.int64)
    else:
        here = np.concatenate([[np.nan, -0.0, 1e300, 1e-300, np.inf, 0.1], rng.normal(size=6)]).astype(source)
    there = np.full(12, 77, to)
    moved(there, here)
    with np.errstate(over="ignore"):
        assert there[:words].tobytes() == here[:words].astype(to).tobytes()
    assert (there[words:] == 77).all()


def test_what_cannot_be_moved_does_not_compile() -> None:
    """Words of two kinds, or so many as only the run knows, are refused when the kernel is compiled."""
    with pytest.raises(numba.core.errors.TypingError):
        _seven(np.zeros(8, np.int64), np.zeros(8))
    with pytest.raises(numba.core.errors.TypingError):
        _as_told(np.zeros(8), np.zeros(8), 3)


def test_a_record_is_read_and_written_where_it_lies() -> None:
    """Number k of the array that begins at an address: its fields, and no other's."""
    rows = np.zeros(5, ROW)
    rows["a"], rows["b"] = np.arange(5) * 10, np.arange(5) / 4
    before = rows.copy()
    assert [_told(rows.ctypes.data, k, 1000) for k in (3, 0)] == [0.75, 0.0]
    assert rows["a"].tolist() == [1000, 10, 20, 1030, 40] and rows["few"][:, 2].tolist() == [1000, 0, 0, 1030, 0]
    assert (rows["b"] == before["b"]).all() and not rows["few"][:, :2].any()
