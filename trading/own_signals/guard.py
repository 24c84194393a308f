"""The guard: what runs, what went wrong and what is off among a user's signals, as words that anybody may read. No numba.

    word 0            RUNNING     1 + number of the signal whose code is running; 0: none
    word 1            RECORD      number of the market record for which it runs
    words 2..13       STOP_FROM   a word a signal: off from the record with this number on; 0: no such word
    words 16..27      NOT_FINITE  answers that were no finite number
    words 28..39      FAULTS      calls that failed
    words 40..51      OFF_AT      the record from which it is off; 0: it is on
    words 52..63      OFF_WHY     WHY_FAULT or WHY_STOPPED

The features process writes all but STOP_FROM (trading.own_signals.call), on the board in a pipeline, on the heap elsewhere;
STOP_FROM is written by whoever watches that process. Records are numbered from 1, all market records of all symbols, as they
come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

GUARD_WORDS: Final = 64
RUNNING: Final = 0
RECORD: Final = 1
STOP_FROM: Final = 2
NOT_FINITE: Final = 16
FAULTS: Final = 28
OFF_AT: Final = 40
OFF_WHY: Final = 52
GUARD_PLACES: Final = 12
"""Signals for which there are words."""

assert STOP_FROM + GUARD_PLACES <= NOT_FINITE and NOT_FINITE + GUARD_PLACES <= FAULTS
assert FAULTS + GUARD_PLACES <= OFF_AT and OFF_AT + GUARD_PLACES <= OFF_WHY and OFF_WHY + GUARD_PLACES <= GUARD_WORDS

WHY_FAULT: Final = 1
WHY_STOPPED: Final = 2
WHY_WORDS: Final = {
    WHY_FAULT: "its code failed (an index out of bounds, or an exception)",
    WHY_STOPPED: "its code did not come back, or ended the process",
}


class Health(NamedTuple):
    """What became of one signal's calls so far. `off_from`: the record from which it is off; 0: it is on."""

    not_finite: int = 0
    faults: int = 0
    off_from: int = 0
    off_why: int = 0

    @property
    def why(self) -> str:
        """Why it is off, in words; "" while it is on."""
        return WHY_WORDS.get(self.off_why, "it was switched off") if self.off_from else ""

    @property
    def figures(self) -> dict[str, int]:
        """The counts by name."""
        return {"not_finite": self.not_finite, "faults": self.faults, "off_from": self.off_from}

    @property
    def sentence(self) -> str:
        """All of it in words; "" where nothing is wrong."""
        said = [f"off from record {self.off_from:,} on: {self.why}"] if self.off_from else []
        if self.not_finite:
            answers = "answer was" if self.not_finite == 1 else "answers were"
            said.append(f"{self.not_finite:,} {answers} no finite number")
        return "; ".join(said)


def health_of(guard: Any, k: int) -> Health:
    """Signal k's, from the guard: int64 (GUARD_WORDS,)."""
    return Health(int(guard[NOT_FINITE + k]), int(guard[FAULTS + k]), int(guard[OFF_AT + k]), int(guard[OFF_WHY + k]))


def complaints(health: Mapping[str, Health]) -> list[str]:
    """A sentence for each signal, by name, with which something was wrong."""
    return [f"{name}: {one.sentence}" for name, one in health.items() if one.sentence]
