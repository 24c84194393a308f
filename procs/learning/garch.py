"""GARCH(1,1) fitted by the `arch` library, off the hot path; the features update its variance per bar on it.

The fit does not change a profile; it says what to write there.
"""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np

from procs.learning.extras import LearningError, wanted
from procs.learning.model_file import Garch
from trading.jit import Floats, Words

SCALE: Final = 1e4
"""The optimiser wants returns of size 1: bps, not fractions."""

LEAST_BARS: Final = 200
MOST_PERSISTENT: Final = 0.999
"""alpha + beta above this is no variance that returns anywhere."""


def bar_returns(ts: Words, mid: Floats, bar_ns: int) -> Floats:
    """Log returns of the mid between the ends of bars, (n,), where the book was usable at both and no bar lies between."""
    kept = mid > 0.0
    bar, close = ts[kept] // bar_ns, mid[kept]
    last = np.flatnonzero(np.append(np.diff(bar) > 0, True))
    bar, close = bar[last], close[last]
    if len(bar) < 2:
        return np.zeros(0)
    # a bar without a record closed where the one before it did
    whole = np.arange(bar[0], bar[-1] + 1)
    price = close[np.searchsorted(bar, whole, side="right") - 1]
    return np.diff(np.log(price))


def fit(returns: Floats, bar_ms: int) -> Garch:
    """`s2 = omega + alpha r^2 + beta s2` of returns with mean 0 (Bollerslev 1986), by maximum likelihood.

    Raises LearningError: too few bars, no variance, no convergence, or a fit that is not stationary.
    """
    arch = wanted("arch")
    if len(returns) < LEAST_BARS or not returns.std() > 0.0:
        raise LearningError(f"{len(returns)} bars of {bar_ms} ms are too few, or do not move: GARCH wants {LEAST_BARS} or more")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = arch.arch_model(returns * SCALE, mean="Zero", vol="GARCH", p=1, q=1, rescale=False).fit(disp="off")
    omega, alpha, beta = (float(fitted.params[key]) for key in ("omega", "alpha[1]", "beta[1]"))
    if fitted.convergence_flag != 0 or not omega > 0.0 or alpha + beta > MOST_PERSISTENT:
        raise LearningError(
            f"GARCH(1,1) does not fit {len(returns)} bars of {bar_ms} ms (alpha {alpha:.3f} + beta {beta:.3f}): "
            "keep features.garch_*"
        )
    return Garch(bar_ms=bar_ms, omega=omega / SCALE**2, alpha=alpha, beta=beta, bars=len(returns))
