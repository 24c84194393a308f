"""Counters on the board: declared once, with a key, a unit and a sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from procs.memory.board import Counter


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("Turns", "Turns of the loop."),
        ("2nd", "Turns of the loop."),
        ("turns", "Turns of the loop"),
        ("turns", "turns of the loop."),
        ("turns", "Turns. Of the loop."),
        ("turns", ""),
    ],
)
def test_a_counter_needs_a_key_and_one_sentence(key: str, meaning: str) -> None:
    """A declaration without them is a programmer's error, at import."""
    with pytest.raises(AssertionError):
        Counter(0, key, "calls", meaning)


def test_the_board_needs_no_compiler() -> None:
    """Who looks at the board's counters (the supervisor, the command line) has not loaded numba."""
    code = "import sys; from procs.memory import board; assert board.LOOP_COUNTERS and 'numba' not in sys.modules"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0
