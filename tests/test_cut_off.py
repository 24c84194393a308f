"""Watching what may not come back: results, errors, calls that are over before anybody looks, and one that is stuck."""

from __future__ import annotations

import numpy as np
import pytest

from procs.research import watched as cut_off
from procs.research.watched import Stuck, watched
from trading.own_signals.guard import GUARD_WORDS, RECORD, RUNNING


def test_what_comes_back_comes_through() -> None:
    """Values and exceptions, a thousand times, however soon they are there."""
    guard = np.zeros(GUARD_WORDS, np.int64)
    assert [watched(lambda n=n: n, guard) for n in range(1000)] == list(range(1000))  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        watched(lambda: 1 / 0, guard)


def test_a_call_that_is_stuck_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signal and record, from the guard, after the processor time that it may use. (Only compiled code, which never asks for the
    interpreter's lock, may be put to sleep.)"""
    monkeypatch.setattr(cut_off, "_park", lambda thread: None)
    guard, stop = np.zeros(GUARD_WORDS, np.int64), [False]

    def act() -> None:
        guard[RECORD], guard[RUNNING] = 77, 3
        while not stop[0]:
            pass

    with pytest.raises(Stuck) as stuck:
        watched(act, guard, 0.1)
    stop[0] = True
    assert (stuck.value.k, stuck.value.record) == (2, 77)
