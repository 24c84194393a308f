"""How good are probabilities: AUC, Brier, log loss, reliability, drift, with intervals by a bootstrap over blocks of time.

Neighbouring rows share most of their future and past, so that rows are no independent draws: the bootstrap draws whole
blocks of time (Kunsch 1989), and an interval from it is as wide as the number of blocks allows, not the number of rows.

What this module is not: a verdict; procs.learning.promotion gives that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from procs.learning.figures import Bin, Figure
from trading.jit import Floats, Words

BINS: Final = 10
LEAST_P: Final = 1e-6
PSI_FLOOR: Final = 1e-4
"""Share that an empty bin counts as, so that the logarithm is finite."""

DRAWS: Final = 1000


def auc(p: Floats, y: Floats) -> float:
    """The chance that an up had the higher probability than a down; ties count half (Mann-Whitney). NaN without both."""
    ups = int(y.sum())
    if ups in (0, len(y)):
        return float("nan")
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]
    return float((ranks[y > 0.5].sum() - ups * (ups + 1) / 2.0) / (ups * (len(y) - ups)))


def brier(p: Floats, y: Floats) -> float:
    """Mean squared error (Brier 1950)."""
    return float(np.mean((p - y) ** 2))


def log_loss(p: Floats, y: Floats) -> float:
    """Mean negative log likelihood; probabilities are kept LEAST_P from 0 and 1."""
    q = np.clip(p, LEAST_P, 1.0 - LEAST_P)
    return float(-np.mean(y * np.log(q) + (1.0 - y) * np.log(1.0 - q)))


def reliability(p: Floats, y: Floats, bins: int = BINS) -> list[Bin]:
    """Rows by tenths of probability; empty bins are left out."""
    where = np.minimum((p * bins).astype(int), bins - 1)
    found = [np.flatnonzero(where == k) for k in range(bins)]
    return [Bin(len(rows), float(p[rows].mean()), float(y[rows].mean())) for rows in found if len(rows)]


def _shares(x: Floats, edges: Floats) -> Floats:
    return np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1) / len(x)


def spread_of(x: Floats, bins: int = BINS) -> tuple[list[float], list[float]]:
    """How one feature is spread: edges between its quantile bins, and the share of rows in each."""
    edges = np.unique(np.quantile(x, np.arange(1, bins) / bins))
    return edges.tolist(), _shares(x, edges).tolist()


def psi(edges: list[float], shares: list[float], now: Floats) -> float:
    """Population stability index of one feature against `spread_of`: `sum (now - before) ln(now/before)` over its bins.

    The usual reading: below 0.1 as it was, above 0.25 another population.
    """
    before, after = (np.maximum(x, PSI_FLOOR) for x in (np.asarray(shares), _shares(now, np.asarray(edges))))
    return float(np.sum((after - before) * np.log(after / before)))


def blocks_of(ts: Words, block_ns: int) -> list[Words]:
    """Row indices of each block of time that holds any."""
    number = (ts - ts.min()) // block_ns
    order = np.argsort(number, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1)


def bootstrap(
    figures: Callable[[Words], tuple[float, ...]], blocks: list[Words], level: float = 0.95, draws: int = DRAWS, seed: int = 1
) -> list[Figure]:
    """Each figure of all rows, with its percentile interval over `draws` resamples of whole blocks.

    A draw that has no value (NaN) is left out; with fewer than two blocks there is no interval.
    """
    rng = np.random.default_rng(seed)
    whole = figures(np.concatenate(blocks))
    if len(blocks) < 2:
        return [Figure(value if np.isfinite(value) else None) for value in whole]
    drawn = np.array(
        [figures(np.concatenate([blocks[k] for k in rng.integers(len(blocks), size=len(blocks))])) for _ in range(draws)]
    )
    found = []
    for k, value in enumerate(whole):
        values = drawn[:, k][np.isfinite(drawn[:, k])]
        if len(values) < draws // 2:
            found.append(Figure(value if np.isfinite(value) else None))
            continue
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        found.append(Figure(value, float(low), float(high)))
    return found
