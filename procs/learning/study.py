"""What recordings say: every kind of model on them, judged out of sample; and how far a model's world has moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from procs.learning import training
from procs.learning.datasets import DataSet, History, data_set, histories, joined
from procs.learning.evaluation import psi
from procs.learning.extras import LearningError
from procs.learning.model_file import FITTED, Kind, Model
from trading.settings import Strategy

ROUND_TRIP_BPS: Final = 20.0
"""What a taker's two fees of 10 bps cost: how many rows move beyond it is told beside ml.cost_bps."""

DRIFTED: Final = 0.25


def _moves(past: History, rows: DataSet, strategy: Strategy) -> dict[str, Any]:
    ml = strategy.ml
    wide = msgspec.structs.replace(strategy, ml=msgspec.structs.replace(ml, cost_bps=ROUND_TRIP_BPS))
    return {
        "symbol": past.symbol, "source": past.source, "records": len(past.recs), "rows": len(rows.ts),
        "moved": int(rows.told.sum()), "ups": float(rows.y[rows.told].mean()) if rows.told.any() else None,
        "moved_round_trip": int(data_set(past, wide).told.sum()), "round_trip_bps": ROUND_TRIP_BPS,
    }  # fmt: skip


def study(
    strategy: Strategy, places: Sequence[str | Path], kinds: Sequence[Kind], tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """By symbol: how often the mid moves beyond costs, the verdict on every kind of model, GARCH, microprice. As JSON has it."""
    found: dict[str, Any] = {"horizon_ms": strategy.ml.horizon_ms, "cost_bps": strategy.ml.cost_bps, "symbols": []}
    for past in histories(places, tell):
        tell(f"learning {past.symbol}")
        rows = data_set(past, strategy)
        entry = _moves(past, rows, strategy) | {"models": {}}
        for kind in kinds:
            try:
                model = training.train("study", kind, [past], strategy, sets=[rows])
            except LearningError as error:
                entry["models"][kind] = {"problem": str(error)}
                continue
            top = dict(list(model.importance.items())[:8])
            entry["models"][kind] = {"verdict": msgspec.to_builtins(model.verdict), "importance": top}
        for kind in FITTED:
            try:
                model = training.train("study", kind, [past], strategy)
            except LearningError as error:
                entry[kind] = {"problem": str(error)}
                continue
            fit = msgspec.to_builtins(model.garch) if model.garch else {"table": model.microprice}
            entry[kind] = {**fit, "verdict": msgspec.to_builtins(model.verdict)}
        found["symbols"].append(entry)
    return found


def drift(
    model: Model, strategy: Strategy, places: Sequence[str | Path], tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The population stability index of every feature, training against these recordings; greatest first."""
    ml = msgspec.structs.replace(strategy.ml, horizon_ms=model.horizon_ms, cost_bps=model.cost_bps)
    told = msgspec.structs.replace(strategy, ml=ml)
    rows = joined([data_set(past, told) for past in histories(places, tell)])
    if not len(rows.ts):
        raise LearningError("no row of these recordings has enough features ready: give longer ones")
    indices = {
        name: psi(model.spread[name].edges, model.spread[name].shares, rows.x[:, k])
        for k, name in enumerate(model.features) if name in model.spread
    }  # fmt: skip
    ordered = dict(sorted(indices.items(), key=lambda item: -item[1]))
    return {
        "model": f"{model.name}@{model.version}", "rows": len(rows.ts), "symbols": list(rows.symbols),
        "drifted": sum(v > DRIFTED for v in ordered.values()), "median": float(np.median(list(ordered.values()))), "psi": ordered,
    }  # fmt: skip


def as_planted(found: dict[str, Any]) -> bool:
    """Whether a synthetic summary is what it should be: each planted edge found, and none where there is none."""
    good = all(m["promoted"] == m["of"] for m in found["planted"]["models"].values())
    return good and all(m["promoted"] == 0 for m in found["none"]["models"].values())
