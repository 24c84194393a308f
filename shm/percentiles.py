"""Latency histograms of fixed size in shared memory: their words, and any percentile read from them. Recording: shm.histogram.

Log-linear buckets, after Gil Tene's HdrHistogram. Values 0..63 ns have a bucket each. Above, every power of two
[2^k, 2^(k+1)) is cut into 32 buckets of equal width 2^(k-5), up to 2^42 - 1 ns (73 minutes):

    word   0         1     2        3           4..7     8 ........................................ 1223
          +--------+-----+--------+-----------+-------+----+----+-----+----+-----------+-----+---------+
          | sum_ns | max | below  | above     | spare | 0  | 1  | ... | 63 | 64-65     | ... | top     |
          +--------+-----+--------+-----------+-------+----+----+-----+----+-----------+-----+---------+

Error. A percentile is the integer midpoint of the bucket in which the nearest-rank value lies (never more than the
maximum): exact below 64 ns, elsewhere off by at most half a bucket, which is less than 1/64 (1.57 %) of the true value.
Maximum, count and (inside the range) mean are exact. A value below 0 counts as 0 and in `below`; one above the range
counts in the top bucket, in `above`, in the sum as the range's end, and in full as the maximum.

A reader copies the words whenever it likes; its count is the sum of the buckets that it copied, so a snapshot always agrees with
itself. Nothing here needs numba: the command line and the supervisor stay small. 9,792 bytes a histogram.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.int64]

SUB_BITS: Final = 5
SUB_BUCKETS: Final = 1 << SUB_BITS
RANGE_BITS: Final = 42
HIGHEST_NS: Final = (1 << RANGE_BITS) - 1
W_SUM: Final = 0
W_MAX: Final = 1
W_BELOW: Final = 2
W_ABOVE: Final = 3
W_BUCKETS: Final = 8
BUCKETS: Final = (RANGE_BITS - SUB_BITS + 1) * SUB_BUCKETS
WORDS: Final = W_BUCKETS + BUCKETS
"""Room for one histogram, in int64; a multiple of a cache line."""

assert BUCKETS == 2 * SUB_BUCKETS + (RANGE_BITS - SUB_BITS - 1) * SUB_BUCKETS
assert WORDS % 8 == 0 and WORDS * 8 == 9792


def _midpoints() -> Words:
    index = np.arange(BUCKETS, dtype=np.int64)
    shift = np.maximum(index // SUB_BUCKETS - 1, 0)
    lowest = (index - shift * SUB_BUCKETS) << shift
    return lowest + ((np.int64(1) << shift) - 1) // 2


MIDPOINTS: Final = _midpoints()
"""The value that stands for each bucket, ns, shape (BUCKETS,)."""


class Snapshot:
    """A private, immutable copy of a histogram: percentiles, count, mean, max; and merging."""

    def __init__(self, words: Words) -> None:
        if words.shape != (WORDS,):
            raise ValueError(f"a histogram has shape ({WORDS},), not {words.shape}")
        self.words: Final = words.copy()
        self.words.flags.writeable = False
        self._below_or_in: Final = np.cumsum(self.words[W_BUCKETS:])

    @property
    def count(self) -> int:
        """How many values."""
        return int(self._below_or_in[-1])

    @property
    def max_ns(self) -> int:
        """The greatest value, exact; 0 without values."""
        return int(self.words[W_MAX])

    @property
    def mean_ns(self) -> float:
        """Mean of the values as clipped to the range; 0 without values."""
        return int(self.words[W_SUM]) / self.count if self.count else 0.0

    @property
    def below(self) -> int:
        """How many values were negative (counted as 0)."""
        return int(self.words[W_BELOW])

    @property
    def above(self) -> int:
        """How many values were beyond HIGHEST_NS."""
        return int(self.words[W_ABOVE])

    def percentile(self, percent: float) -> int:
        """The value (ns) at or below which `percent` (0..100) of the values lie, by nearest rank; 0 without values.

        ValueError outside 0..100. Error bound: see the module.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percentile {percent} is not in 0..100")
        if not self.count:
            return 0
        # In fractions of the decimal that the caller wrote: 99.9 % of 1000 is rank 999, not 1000 by a rounding error.
        rank = max(-(-Fraction(str(percent)) * self.count // 100), 1)
        if rank == self.count:
            return self.max_ns
        return min(int(MIDPOINTS[np.searchsorted(self._below_or_in, int(rank))]), self.max_ns)

    def merged(self, other: Snapshot) -> Snapshot:
        """Both histograms as one."""
        total = self.words + other.words
        total[W_MAX] = max(self.max_ns, other.max_ns)
        return Snapshot(total)

    def since(self, earlier: Snapshot) -> Snapshot:
        """What was added after an `earlier` snapshot of the same histogram.

        Its maximum is exact if it is a new one, else that of the highest bucket that gained, to the bucket's error.
        """
        gained = np.maximum(self.words - earlier.words, 0)
        filled = np.flatnonzero(gained[W_BUCKETS:])
        new_max = self.max_ns > earlier.max_ns
        gained[W_MAX] = self.max_ns if new_max else min(int(MIDPOINTS[filled[-1]]), self.max_ns) if filled.size else 0
        return Snapshot(gained)
