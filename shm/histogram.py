"""Recording latencies in histograms of fixed size (their words and how they are read: shm.percentiles).

One writer, 1.2 ns a record (measured, buckets in L1).
"""

from __future__ import annotations

from typing import Final

from shm.jit import Words, kernel, leading_zeros, store_relaxed
from shm.percentiles import HIGHEST_NS, SUB_BITS, SUB_BUCKETS, W_ABOVE, W_BELOW, W_BUCKETS, W_MAX, W_SUM, WORDS

_SHIFT_OF_ZERO: Final = 63 - SUB_BITS


@kernel
def bucket_of(value_ns: int) -> int:
    """Bucket (0..BUCKETS-1) of a value in 0..HIGHEST_NS."""
    # For v >= 32 the shift leaves the top six bits, of which the first is always set. OR-ing 32 in gives every smaller
    # value the shift 0 without a branch.
    shift = _SHIFT_OF_ZERO - leading_zeros(value_ns | SUB_BUCKETS)
    return (shift << SUB_BITS) + (value_ns >> shift)


@kernel
def record(words: Words, value_ns: int) -> None:
    """Count one value (int64 ns) in a placed histogram (int64, shape (WORDS,)), by its one writer. Never fails."""
    clipped = min(max(value_ns, 0), HIGHEST_NS)
    if clipped != value_ns:
        at = W_BELOW if value_ns < 0 else W_ABOVE
        store_relaxed(words, at, words[at] + 1)
    bucket = W_BUCKETS + bucket_of(clipped)
    store_relaxed(words, W_SUM, words[W_SUM] + clipped)
    if value_ns > words[W_MAX]:
        store_relaxed(words, W_MAX, value_ns)
    store_relaxed(words, bucket, words[bucket] + 1)


__all__ = ["WORDS", "bucket_of", "record"]
