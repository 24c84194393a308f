"""The simulation of Avellaneda and Stoikov (2008), section 3.3: a mid of equal steps, fills by intensity, one unit an order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

S0, T, SIGMA, DT, A, K = 100.0, 1.0, 2.0, 0.005, 140.0, 1.5
STEPS = round(T / DT)


class Paths(NamedTuple):
    """What came of each path, and the mean of all spreads that were quoted."""

    pnl: np.ndarray
    inventory: np.ndarray
    spread: float


def simulate(quotes: Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]], seed: int, paths: int = 1000) -> Paths:
    """`quotes(inventories, time left)` gives the distances of bid and ask from the mid, one a path."""
    rng = np.random.default_rng(seed)
    mid, cash, held = np.full(paths, S0), np.zeros(paths), np.zeros(paths)
    spread = 0.0
    for step in range(STEPS):
        below, above = quotes(held, T - step * DT)
        spread += float(np.mean(below + above)) / STEPS
        bought = rng.random(paths) < A * np.exp(-K * below) * DT
        sold = rng.random(paths) < A * np.exp(-K * above) * DT
        cash += sold * (mid + above) - bought * (mid - below)
        held += bought.astype(float) - sold
        mid = mid + SIGMA * np.sqrt(DT) * rng.choice((-1.0, 1.0), paths)
    return Paths(cash + held * mid, held, spread)
