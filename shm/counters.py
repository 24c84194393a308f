"""Counters in shared memory: each declared once, with a key, a unit and one sentence of meaning.

    STAGE = CounterSet("stage", (Counter("records", "records", "Records taken from all inputs."), ...))
    RECORDS = STAGE.index("records")        # a plain int: usable as a global of a compiled kernel
    add(words, RECORDS, n)                  # in the kernel that owns the words

One word a counter, in the order of declaration, a set padded to whole cache lines. A word has one writer, which is why
a load and a store are enough (measured in a loop: 0.2 ns) and no locked add is needed. Readers look whenever they like
and never ask; each word is right in itself, two words need not be of the same instant.

What this is not: a registry. Whoever places a set knows where, and tells readers by the topology.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shm.jit import Words, kernel, store_relaxed

UNITS: Final = frozenset(
    {"records", "messages", "orders", "events", "calls", "bytes", "ns", "Unix ns", "pages", "state", "sequence"}
)
LINE_WORDS: Final = 8


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter: `key` as programs name it, `unit` one of UNITS, `meaning` one sentence for people."""

    key: str
    unit: str
    meaning: str

    def __post_init__(self) -> None:
        assert self.key.isidentifier() and self.key == self.key.lower(), f"{self.key!r} is no lower-case identifier"
        assert self.unit in UNITS, f"{self.key}: unit {self.unit!r} is not one of {sorted(UNITS)}"
        one_sentence = self.meaning.endswith(".") and ". " not in self.meaning and self.meaning[:1].isupper()
        assert one_sentence, f"{self.key}: the meaning must be one sentence, from a capital to its full stop"


class CounterSet:
    """An ordered, immutable set of counters. `words` is the room that it takes, in int64, a multiple of 8."""

    def __init__(self, name: str, counters: tuple[Counter, ...]) -> None:
        keys = [counter.key for counter in counters]
        assert counters and len(set(keys)) == len(keys), f"counter set {name}: empty, or a key twice in {keys}"
        self.name: Final = name
        self.counters: Final = counters
        self.words: Final = -(-len(counters) // LINE_WORDS) * LINE_WORDS
        self._index: Final = {key: at for at, key in enumerate(keys)}

    def index(self, key: str) -> int:
        """Word of a counter within the set. KeyError if it was never declared."""
        return self._index[key]

    def place(self, words: Words, at: int = 0) -> Words:
        """The set's own view (int64, shape (self.words,)) of `words` from word `at`.

        ValueError if it does not fit or splits a cache line.
        """
        if at < 0 or at % LINE_WORDS or at + self.words > words.size:
            raise ValueError(f"counter set {self.name}: {self.words} words from word {at} do not fit in {words.size}")
        return words[at : at + self.words]

    def read(self, words: Words, key: str) -> int:
        """Present value of one counter in a placed set."""
        return int(words[self._index[key]])

    def snapshot(self, words: Words) -> dict[str, int]:
        """All counters of a placed set by key, in order of declaration."""
        values = words[: len(self.counters)].tolist()
        return dict(zip(self._index, values, strict=True))


@kernel
def add(words: Words, index: int, n: int) -> None:
    """words[index] += n, by the word's one writer. No bounds are checked."""
    store_relaxed(words, index, words[index] + n)


@kernel
def put(words: Words, index: int, value: int) -> None:
    """words[index] = value: for a gauge. No bounds are checked."""
    store_relaxed(words, index, value)


@kernel
def raise_to(words: Words, index: int, value: int) -> None:
    """words[index] = max(words[index], value): for a high-water mark. No bounds are checked."""
    if value > words[index]:
        store_relaxed(words, index, value)


assert np.dtype(np.int64).itemsize * LINE_WORDS == 64
