"""May a model vote? Only if it beat the no-model baseline on rows that it was not trained on.

The baseline says for every row the share of ups among the rows trained on. The test, on all out-of-sample rows of the walk
forward together (or, for the online model, on its predictions before their outcomes), with block-bootstrap intervals at LEVEL:

1. the AUC's interval lies above 1/2, and
2. the interval of `Brier(baseline) - Brier(model)` lies above 0, and
3. there are at least LEAST_ROWS labelled rows in at least LEAST_BLOCKS blocks of time of ten horizons each.

A fitted table (GARCH, microprice) has to beat what the features do without it, by the third and by one figure: `judge_gain`.

What this module is not: it writes nothing; procs.learning.registry does.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from procs.learning.evaluation import DRAWS, auc, blocks_of, bootstrap, brier, log_loss, reliability
from procs.learning.figures import Figure, Verdict
from trading.jit import Floats, Words

LEVEL: Final = 0.99
LEAST_ROWS: Final = 200
LEAST_BLOCKS: Final = 20
BLOCK_HORIZONS: Final = 10


def judge(p: Floats, baseline: Floats, y: Floats, ts: Words, horizon_ns: int, *, draws: int = DRAWS, seed: int = 1) -> Verdict:
    """The test above on out-of-sample probabilities `p`, the baseline's, outcomes `y` (1 up, 0 down) and times, all (n,)."""
    blocks = blocks_of(ts, BLOCK_HORIZONS * horizon_ns) if len(ts) else []

    def figures(rows: Words) -> tuple[float, ...]:
        return auc(p[rows], y[rows]), brier(baseline[rows], y[rows]) - brier(p[rows], y[rows])

    if len(ts):
        area, gain = bootstrap(figures, blocks, LEVEL, draws, seed)
    else:
        area = gain = Figure(None)
    if len(y) < LEAST_ROWS or len(blocks) < LEAST_BLOCKS:
        refused = (
            f"{len(y)} labelled rows in {len(blocks)} blocks are too few to tell (wanted {LEAST_ROWS} in {LEAST_BLOCKS}): "
            "give more recordings, or smaller costs"
        )
    elif not area.above(0.5):
        refused = f"its AUC {area.value or 0.5:.3f} could be chance: the {LEVEL:.0%} interval begins at {area.low or 0.0:.3f}"
    elif not gain.above(0.0):
        refused = f"its squared error may be no less than the base rate's: the gain's interval begins at {gain.low or 0.0:.5f}"
    else:
        refused = ""
    if not len(y):
        return Verdict(rows=0, blocks=0, level=LEVEL, auc=area, brier_gain=gain, refused=refused)
    return Verdict(
        rows=len(y), blocks=len(blocks), level=LEVEL, auc=area, brier_gain=gain, brier=brier(p, y),
        baseline_brier=brier(baseline, y), log_loss=log_loss(p, y), baseline_log_loss=log_loss(baseline, y),
        ups=float(np.mean(y)), reliability=reliability(p, y), refused=refused,
    )  # fmt: skip


def judge_gain(
    loss: Floats, baseline: Floats, ts: Words, block_ns: int, measure: str, *, draws: int = DRAWS, seed: int = 1
) -> Verdict:
    """The test of a fitted table on out-of-sample losses, its own and those without it, and times, all (n,).

    The block-bootstrap interval of the mean of `baseline - loss` at LEVEL has to lie above 0, with rows and blocks as above.
    """
    none = Figure(None)
    if not len(loss):
        return Verdict(rows=0, blocks=0, level=LEVEL, auc=none, brier_gain=none, measure=measure, refused="no row to test")
    blocks, better = blocks_of(ts, block_ns), baseline - loss
    gain = bootstrap(lambda rows: (float(better[rows].mean()),), blocks, LEVEL, draws, seed)[0]
    if len(loss) < LEAST_ROWS or len(blocks) < LEAST_BLOCKS:
        refused = (
            f"{len(loss)} rows in {len(blocks)} blocks are too few to tell (wanted {LEAST_ROWS} in {LEAST_BLOCKS}): "
            "give longer recordings"
        )
    elif not gain.above(0.0):
        refused = f"its {measure} may be no less than without it: the gain's interval begins at {gain.low or 0.0:.5g}"
    else:
        refused = ""
    return Verdict(
        rows=len(loss), blocks=len(blocks), level=LEVEL, auc=none, brier_gain=none, measure=measure, loss=float(loss.mean()),
        baseline_loss=float(baseline.mean()), gain=gain, refused=refused,
    )  # fmt: skip
