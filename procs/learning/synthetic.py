"""Markets whose edge is known, to see whether learning finds what is there and nothing where there is nothing.

A hidden pressure (a first-order autoregression) tilts the book's quantities and the aggressors, and moves the mid by `edge`
ticks a step of STEP_NS times itself, beside a random walk. With `edge` 0 the book looks the same and the mid is a pure
random walk: nothing can be known of it. The best that anybody can do, knowing the pressure itself, is told by `oracle_auc`.

What this module is not: a market to trade in; sim.market.generator is that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from procs.learning import prequential
from procs.learning.datasets import History, data_set
from procs.learning.evaluation import auc
from procs.learning.figures import Verdict
from procs.learning.promotion import judge
from procs.learning.training import RECIPES, out_of_sample
from trading.jit import Floats
from trading.records import LEVELS, MARKET_RECORD, Flag, Kind
from trading.settings import Ml, Strategy

STEP_NS: Final = 50_000_000
START_NS: Final = 1_723_161_254_000_000_000
START_TICKS: Final = 6_000_000
WALK_TICKS: Final = 60.0
"""Deviation of the mid a step: 0.1 bps."""

PERSISTENCE: Final = 0.97
"""Of the pressure, a step: half of it is gone after 1.1 s."""

PLANTED_EDGE: Final = 8.0
"""Ticks a step that pressure 1 moves the mid."""

RECORDS: Final = 24_000
TRADE_SHARE: Final = 0.4


def strategy() -> Strategy:
    """What the synthetic markets are learned with: one second, half a basis point."""
    return Strategy(ml=Ml(enabled=True, horizon_ms=1000, cost_bps=0.25, every_ms=0, warm_outcomes=300))


def market(seed: int, edge: float, records: int = RECORDS) -> tuple[History, Floats]:
    """The records of one such market, and the hidden pressure after each of them."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=records) * np.sqrt(1.0 - PERSISTENCE**2)
    pressure = np.empty(records)
    level = rng.normal()
    for i in range(records):
        level = PERSISTENCE * level + noise[i]
        pressure[i] = level
    # the pressure after a record moves the mid of the records after it: what is seen comes before what it does
    drift = edge * np.concatenate([[0.0], pressure[:-1]])
    mid = START_TICKS + np.round(np.cumsum(drift + WALK_TICKS * rng.normal(size=records))).astype(np.int64)
    tilt = np.tanh(0.5 * pressure)[:, None]
    half = rng.integers(1, 4, records)
    recs = np.zeros(records, MARKET_RECORD)
    recs["ts_ns"] = START_NS + STEP_NS * np.arange(records) + rng.integers(0, STEP_NS // 2, records)
    behind = 3 * np.arange(LEVELS)
    recs["bid_ticks"], recs["ask_ticks"] = (mid - half)[:, None] - behind, (mid + half)[:, None] + behind
    recs["bid_lots"] = 1 + rng.exponential(1e8 * (1.0 + tilt), (records, LEVELS)).astype(np.int64)
    recs["ask_lots"] = 1 + rng.exponential(1e8 * (1.0 - tilt), (records, LEVELS)).astype(np.int64)
    recs["kind"], recs["flags"] = Kind.BBO, Flag.BOOK_VALID
    trade = rng.random(records) < TRADE_SHARE
    sell = rng.random(records) < 0.5 - 0.3 * tilt[:, 0]
    recs["price_ticks"] = np.where(trade, np.where(sell, mid - half, mid + half), 0)
    recs["qty_lots"] = np.where(trade, 1 + rng.exponential(2e6, records).astype(np.int64), 0)
    # a print stands beside the book change that it made, a microsecond before it
    both = np.repeat(recs, 1 + trade)
    first = np.flatnonzero(np.append(np.diff(both["ts_ns"]) == 0, False))
    both["kind"][first] = Kind.TRADE
    both["flags"][first] |= np.where(np.repeat(sell, 1 + trade)[first], int(Flag.AGGRESSOR_SELL), 0).astype(both["flags"].dtype)
    both["ts_ns"][first] -= 1000
    book = both["kind"] != Kind.TRADE
    both["price_ticks"][book] = both["qty_lots"][book] = 0
    return History("SYNTHETIC", f"seed {seed}, edge {edge:g}", both), np.repeat(pressure, 1 + trade)


@dataclass(frozen=True, slots=True)
class Trial:
    """One market's verdicts, and what somebody who knew the pressure would have had."""

    seed: int
    edge: float
    verdicts: dict[str, Verdict]
    oracle_auc: float


def trial(seed: int, edge: float, kinds: tuple[str, ...], *, records: int = RECORDS, draws: int = 500) -> Trial:
    """Train and judge models of these kinds on one market."""
    told = strategy()
    horizon_ns = told.ml.horizon_ms * 1_000_000
    past, pressure = market(seed, edge, records)
    verdicts: dict[str, Verdict] = {}
    rows = data_set(past, told)
    rows = rows.of(rows.told)
    hidden = pressure[np.searchsorted(past.recs["ts_ns"], rows.ts)]
    for kind in kinds:
        if kind == "online":
            said = prequential.run(past, told)
            verdicts[kind] = judge(said.p, said.baseline, said.y, said.ts, horizon_ns, draws=draws, seed=seed)
        else:
            p, base, tested = out_of_sample(rows, RECIPES[kind], horizon_ns)
            verdicts[kind] = judge(p, base, tested.y, tested.ts, horizon_ns, draws=draws, seed=seed)
    return Trial(seed, edge, verdicts, auc(hidden, rows.y))


def summary(trials: list[Trial]) -> dict[str, Any]:
    """Promotion rates by kind, with and without the edge, and the mean AUC beside the best possible."""
    found: dict[str, Any] = {}
    for world, with_edge in (("planted", True), ("none", False)):
        own = [t for t in trials if (t.edge != 0.0) == with_edge]
        if not own:
            continue
        kinds = {
            kind: {
                "promoted": sum(t.verdicts[kind].passed for t in own),
                "of": len(own),
                "mean_auc": float(np.mean([t.verdicts[kind].auc.value or 0.5 for t in own])),
            }
            for kind in own[0].verdicts
        }
        found[world] = {
            "edge_ticks": own[0].edge, "models": kinds, "best_possible_auc": float(np.mean([t.oracle_auc for t in own])),
            "trials": [{"seed": t.seed, **{k: msgspec.to_builtins(v) for k, v in t.verdicts.items()}} for t in own],
        }  # fmt: skip
    return found
