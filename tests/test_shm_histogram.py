"""Histograms: every percentile within 1/64 of the exact one, for any values; merging and reading lose nothing."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from shm.histogram import bucket_of, record
from shm.jit import kernel, store_relaxed
from shm.percentiles import BUCKETS, HIGHEST_NS, MIDPOINTS, WORDS, Snapshot

VALUE = st.one_of(st.integers(0, 200), st.integers(0, HIGHEST_NS), st.integers(0, 41).map(lambda bit: 1 << bit))
VALUES = st.lists(VALUE, min_size=1, max_size=300)
PERCENT = st.one_of(st.integers(0, 100), st.floats(0, 100), st.sampled_from([50.0, 99.0, 99.9, 99.99, 100.0]))


@kernel
def record_all(words: np.ndarray, values: np.ndarray) -> None:
    """Record each value, as a hot loop would."""
    for at in range(values.size):
        record(words, values[at])


def histogram_of(values: list[int]) -> Snapshot:
    """The histogram of the values."""
    words = np.zeros(WORDS, dtype=np.int64)
    record_all(words, np.array(values, dtype=np.int64))
    return Snapshot(words)


@settings(max_examples=300, deadline=None)
@given(VALUES, PERCENT)
def test_percentile_is_within_a_sixty_fourth(values: list[int], percent: float) -> None:
    """Any percentile is off by less than 1/64 of the exact nearest-rank value, and exact below 64 ns."""
    exact = sorted(values)[max(math.ceil(Fraction(str(percent)) * len(values) / 100), 1) - 1]
    got = histogram_of(values).percentile(percent)
    assert abs(got - exact) * 64 < max(exact, 64)
    assert got <= max(values)
    if exact < 64:
        assert got == exact


@settings(max_examples=100, deadline=None)
@given(VALUES, st.integers(0, 64))
def test_percentile_agrees_with_numpy(values: list[int], sixty_fourth: int) -> None:
    """The same against numpy.percentile(method="inverted_cdf"), at percentages that are exact in binary."""
    percent = sixty_fourth * 100 / 64
    exact = int(np.percentile(np.array(values, dtype=np.int64), percent, method="inverted_cdf"))
    assert abs(histogram_of(values).percentile(percent) - exact) * 64 < max(exact, 64)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_count_mean_and_max_are_exact(values: list[int]) -> None:
    """Count, mean and maximum carry no bucket error; p100 is the maximum."""
    got = histogram_of(values)
    assert (got.count, got.max_ns, got.below, got.above) == (len(values), max(values), 0, 0)
    assert got.mean_ns == sum(values) / len(values) and got.percentile(100) == max(values)


@settings(max_examples=100, deadline=None)
@given(VALUES, VALUES)
def test_merge_is_recording_both_and_since_takes_it_back(first: list[int], second: list[int]) -> None:
    """Merging two histograms equals recording both; the difference to an earlier snapshot is what came after."""
    both = histogram_of(first + second)
    assert (histogram_of(first).merged(histogram_of(second)).words == both.words).all()
    after = both.since(histogram_of(first))
    assert after.count == len(second) and after.mean_ns == pytest.approx(sum(second) / len(second))
    assert (after.words[8:] == histogram_of(second).words[8:]).all()
    assert abs(after.max_ns - max(second)) * 64 < max(max(second), 64)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_value_is_recorded(value: int) -> None:
    """No int64 is lost or writes outside: negatives count as 0, what is beyond the range in the top bucket, max in full."""
    memory = np.zeros(WORDS + 16, dtype=np.int64)
    words = memory[8:-8]
    record(words, value)
    got = Snapshot(words)
    assert got.count == 1 and (got.below, got.above) == (value < 0, value > HIGHEST_NS)
    assert got.max_ns == max(value, 0) and got.mean_ns == min(max(value, 0), HIGHEST_NS)
    assert not memory[:8].any() and not memory[-8:].any()


def test_buckets_tile_the_range() -> None:
    """At every bucket's edges: bucket numbers rise by one, midpoints lie inside, and the last bucket ends the range."""
    edges = list(range(64))
    for bit in range(6, 42):
        edges += [(32 + sub) << (bit - 5) for sub in range(32)]
    assert len(edges) == BUCKETS and WORDS * 8 == 9792
    ends = [edge - 1 for edge in edges[1:]] + [HIGHEST_NS]
    for at, (low, high) in enumerate(zip(edges, ends, strict=True)):
        assert bucket_of(low) == at == bucket_of(high) and low <= MIDPOINTS[at] <= high
        assert low == high or (64 * (MIDPOINTS[at] - low) < low and 64 * (high - MIDPOINTS[at]) < high)
    assert 60 * 60 * 10**9 < HIGHEST_NS


def test_empty_histogram() -> None:
    """Without values every figure is 0."""
    got = histogram_of([])
    assert (got.count, got.max_ns, got.mean_ns, got.percentile(50), got.since(got).max_ns) == (0, 0, 0.0, 0, 0)


def test_decimal_percentages_do_not_round_up() -> None:
    """99.9 % of 1000 values is the 999th; numpy's float arithmetic is not asked."""
    words = np.zeros(WORDS, dtype=np.int64)
    for _ in range(999):
        record(words, 10)
    record(words, 50)
    assert Snapshot(words).percentile(99.9) == 10 and Snapshot(words).percentile(99.91) == 50


def test_snapshot_is_private() -> None:
    """A snapshot does not move with its histogram; a wrong shape is refused."""
    memory = np.zeros(2 * WORDS, dtype=np.int64)
    words = memory[WORDS:]
    record(words, 5)
    before = Snapshot(words)
    record(words, 5)
    assert before.count == 1 and Snapshot(words).count == 2 and not before.words.flags.writeable
    assert not memory[:WORDS].any()
    with pytest.raises(ValueError, match="shape"):
        Snapshot(memory)
    for percent in (-1, 101, math.nan):
        with pytest.raises(ValueError):
            before.percentile(percent)


@kernel
def count_turns(words: np.ndarray, n: int) -> None:
    """Stores in every turn."""
    for turn in range(n):
        store_relaxed(words, 0, words[0] + 1)
        store_relaxed(words, 1, words[1] + turn)


def test_a_store_in_an_endless_loop_is_not_kept_in_a_register() -> None:
    """The compiled loop stores every count inside the loop, with a plain mov and no locked instruction."""
    fresh = njit(nogil=True, error_model="numpy")(count_turns.py_func)  # cached code cannot be inspected
    words = np.zeros(8, dtype=np.int64)
    fresh(words, 1000)
    assert words.tolist() == [1000, 499500] + 6 * [0]
    (assembly,) = fresh.inspect_asm().values()
    body = assembly[: assembly.find("cfunc.")]
    assert not re.search(r"\block\b", body)
    labels = {name: at for at, name in ((m.start(), m[1]) for m in re.finditer(r"^(\.LBB\w+):", body, re.MULTILINE))}
    loops = [
        (labels[m[1]], m.start()) for m in re.finditer(r"\bj\w+\s+(\.LBB\w+)", body) if labels.get(m[1], 1 << 60) < m.start()
    ]
    assert any(re.search(r"mov\w*\s+%\w+, \d*\(%\w+\)|(inc|add)q\s+.*\(%\w+\)", body[start:end]) for start, end in loops)
