"""Randomness as a pure function of (seed, counter), for kernels that must give the same draws after a restart.

The generator is splitmix64 (Steele, Lea, Flood 2014; the output function of java.util.SplittableRandom): the n-th
draw is a mix of `seed + n * golden`, so there is no state but the counter, which its user keeps in its own state
record. All arithmetic is int64 with wrap-around; a right shift is made logical by a mask, because numba promotes
uint64 + int64 to float64.

What this is not: a source of secrets.
"""

from __future__ import annotations

import math
from typing import Final

from trading.jit import kernel

GOLDEN: Final = 0x9E3779B97F4A7C15 - 2**64
MUL_1: Final = 0xBF58476D1CE4E5B9 - 2**64
MUL_2: Final = 0x94D049BB133111EB - 2**64
LOW_34: Final = 2**34 - 1
LOW_37: Final = 2**37 - 1
LOW_33: Final = 2**33 - 1
LOW_53: Final = 2**53 - 1


@kernel
def mix(seed: int, counter: int) -> int:
    """The `counter`-th 64-bit word of the sequence that `seed` names, as int64 (any sign)."""
    z = seed + counter * GOLDEN
    z = (z ^ ((z >> 30) & LOW_34)) * MUL_1
    z = (z ^ ((z >> 27) & LOW_37)) * MUL_2
    return z ^ ((z >> 31) & LOW_33)


@kernel
def uniform(seed: int, counter: int) -> float:
    """A draw in (0, 1]: never 0, so that its logarithm is finite."""
    return float((mix(seed, counter) & LOW_53) + 1) * 1.1102230246251565e-16


@kernel
def below(seed: int, counter: int, n: int) -> int:
    """A draw in 0..n-1 (n >= 1; biased by less than n / 2**53)."""
    return min(int(float(mix(seed, counter) & LOW_53) * 1.1102230246251565e-16 * n), n - 1)


@kernel
def exponential(seed: int, counter: int) -> float:
    """A draw from the exponential law of mean 1."""
    return -math.log(uniform(seed, counter))


@kernel
def normal(seed: int, counter: int) -> float:
    """A standard normal draw (Box-Muller); it uses up the counters `2 * counter` and `2 * counter + 1`."""
    return math.sqrt(2.0 * exponential(seed, 2 * counter)) * math.cos(2.0 * math.pi * uniform(seed, 2 * counter + 1))


@kernel
def stream(seed: int, lane: int) -> int:
    """A seed for the lane-th independent sequence that belongs to one user-given seed."""
    return mix(mix(seed, lane + 1), 0x5CA1)
