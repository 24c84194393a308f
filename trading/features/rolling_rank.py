"""Rolling quantiles in O(1) reads: where a value in [0, 1] stands among those seen lately.

A histogram of BINS equal bins is kept as cumulative weights. A sample of age n weighs `growth**-n`; instead of
shrinking what is there the weight of the next sample grows, and all is scaled down long before it overflows. A value that
stood for several samples is put in at once, as if it had been put in one by one. The rank is the
mid-rank of the value's bin: half of the bin's own weight counts, so a value that never changes ranks 1/2.

What this module is not: it maps nothing to [0, 1]; the caller does, most often by `x / (x + average)`.
"""

from __future__ import annotations

from typing import Final

from trading.jit import Floats, lean

BINS: Final = 32
"""Bins of a rolling quantile over [0, 1]."""

MOST_GAIN: Final = 1e12


LEAST_KEPT: Final = 1e-30
"""What is left of old samples however long ago they were, so that a histogram once filled is never empty."""


@lean
def add(cdf: Floats, start: int, gain: float, growth: float, grown: float, value: float, times: int) -> float:
    """Put `times` samples of a value into the BINS cumulative weights from `start` on; returns the weight of the next one.

    `grown` is `growth**times`: who adds to several histograms at once takes the power once.
    """
    weight, following = gain, gain * grown
    if times > 1:
        weight = (following - gain) / (growth - 1.0) if growth > 1.0 else gain * times
    if following > MOST_GAIN:  # from here on in units of the next sample
        kept = growth**-times
        weight = (1.0 - kept) / (growth - 1.0)
        for j in range(start, start + BINS):
            cdf[j] *= kept / gain
        following = 1.0
    first = min(BINS - 1, int(value * BINS))
    for j in range(BINS):  # all of them: where a loop begins that follows the value is not to be predicted
        cdf[start + j] += weight if j >= first else 0.0
    return following


@lean
def age(cdf: Floats, start: int, gain: float, growth: float, times: int) -> float:
    """Let as much time pass as `times` samples take, without a sample; returns the weight of the next one."""
    following = gain * growth**times
    if following <= MOST_GAIN:
        return following
    kept = max(LEAST_KEPT, growth**-times) / gain
    for j in range(start, start + BINS):
        cdf[j] *= kept
    return 1.0


@lean
def scale(cdf: Floats, start: int) -> float:
    """What `rank` multiplies by, instead of dividing: half of one over the total weight, which must not be 0."""
    return 0.5 / cdf[start + BINS - 1]


@lean
def rank(cdf: Floats, start: int, scale: float, value: float) -> float:
    """Mid-rank of a value in [0, 1]."""
    at = min(BINS - 1, int(value * BINS))
    below = cdf[start + at - 1] if at > 0 else 0.0
    return (below + cdf[start + at]) * scale
