"""What `model` prints, as lines: verdicts with their intervals, the reliability curve, importance, drift, rates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from procs.learning.model_file import VOTING, Model

BAR = 24


def _figure(figure: Mapping[str, Any], digits: int = 3) -> str:
    if figure["value"] is None:
        return "unknown"
    if figure["low"] is None:
        return f"{figure['value']:.{digits}f} (no interval: too few blocks)"
    return f"{figure['value']:.{digits}f} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def _utc(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 1_000_000_000))


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """Out-of-sample figures and the outcome of the test."""
    lines = [f"out of sample: {verdict['rows']} rows in {verdict['blocks']} blocks of time; intervals at {verdict['level']:.0%}"]
    if verdict["measure"] and verdict["rows"]:
        lines += [
            f"  {verdict['measure']}: {verdict['loss']:.5g}   without it: {verdict['baseline_loss']:.5g}",
            f"  gain           {_figure(verdict['gain'], 5)}   above 0: better than without it",
        ]
    elif verdict["rows"]:
        lines += [
            f"  AUC            {_figure(verdict['auc'])}   chance: 0.500",
            f"  Brier          {verdict['brier']:.4f}   base rate's: {verdict['baseline_brier']:.4f}",
            f"  Brier gain     {_figure(verdict['brier_gain'], 4)}   above 0: better than the base rate",
            f"  log loss       {verdict['log_loss']:.4f}   base rate's: {verdict['baseline_log_loss']:.4f}",
            "  reliability    said -> came (rows)",
        ]
        for one in verdict["reliability"]:
            mark = "#" * round(one["came"] * BAR)
            lines.append(f"    {one['said']:.2f} -> {one['came']:.2f}  {mark:<{BAR}} {one['rows']}")
    baseline = "what is there without it" if verdict["measure"] else "the no-model baseline"
    lines.append(f"  beats {baseline}: {'no, ' + verdict['refused'] if verdict['refused'] else 'yes'}")
    return lines


def _importance(values: Mapping[str, float], most: int = 10) -> list[str]:
    return [f"    {name:<22}{share:6.1%}  {'#' * round(share * BAR)}" for name, share in list(values.items())[:most] if share > 0]


def model_lines(model: Model, promoted: bool) -> list[str]:
    """One model."""
    span = model.span
    asks = f", {model.horizon_ms} ms ahead, moves beyond {model.cost_bps:g} bps" if model.kind in VOTING else ""
    return [
        f"{model.name}@{model.version}: {model.kind}{asks}"
        + (", promoted" if promoted else ", not promoted"),
        f"trained on {span.rows} rows of {' '.join(span.symbols)}, {_utc(span.from_ns)} to {_utc(span.to_ns)}",
        *verdict_lines(msgspec.to_builtins(model.verdict)),
        *_fitted(msgspec.to_builtins(model)),
        *(["  importance", *_importance(model.importance)] if model.importance else []),
    ]


def _fitted(model: Mapping[str, Any]) -> list[str]:
    """What was fitted, and what the features were computed with."""
    lines = []
    if model["garch"]:
        fit = model["garch"]
        lines.append(
            f"  GARCH(1,1) on {fit['bars']} bars of {fit['bar_ms']} ms: omega {fit['omega']:.3e}, alpha {fit['alpha']:.4f}, "
            f"beta {fit['beta']:.4f}"
        )
    if model["microprice"]:
        lines.append("  microprice less mid in ticks, by imbalance 0..1, a line a spread of 1, 2, .. ticks")
        lines += ["    " + " ".join(f"{gap:7.3f}" for gap in row) for row in model["microprice"]]
    reads = model.get("reads") or {}
    used = " ".join(name for name in (reads.get("garch"), reads.get("microprice")) if name)
    return [*lines, f"  features computed with {used}"] if used else lines


def drift_lines(model: Model, found: Mapping[str, Any]) -> list[str]:
    """How far the features have moved since training."""
    return [
        f"{found['model']} on {found['rows']} rows of {' '.join(found['symbols'])}: population stability index, "
        f"{found['drifted']} of {len(found['psi'])} features above 0.25, median {found['median']:.3f}",
        *(f"    {name:<22}{value:7.3f}  {'moved' if value > 0.25 else 'a little' if value > 0.1 else ''}".rstrip()
          for name, value in found["psi"].items()),
    ]  # fmt: skip


def study_lines(found: Mapping[str, Any]) -> list[str]:
    """What recordings say."""
    lines = [f"{found['horizon_ms']} ms ahead, moves of the mid beyond {found['cost_bps']:g} bps"]
    for entry in found["symbols"]:
        share = entry["moved"] / entry["rows"] if entry["rows"] else 0.0
        wide = entry["moved_round_trip"]
        lines += [
            "",
            f"{entry['symbol']} ({entry['source']}): {entry['records']} records, {entry['rows']} rows, "
            f"{entry['moved']} ({share:.1%}) move; {wide} beyond {entry['round_trip_bps']:g} bps, two taker fees "
            "(rows overlap: no interval)",
        ]
        for kind, said in entry["models"].items():
            if "problem" in said:
                lines.append(f"{kind}: {said['problem']}")
                continue
            first, *rest = verdict_lines(said["verdict"])
            lines += [f"{kind}, {first}", *rest, "  importance"]
            lines += _importance(said["importance"], 5)
        for kind in ("garch", "microprice"):
            said = entry[kind]
            if "problem" in said:
                lines.append(f"{kind}: {said['problem']}")
                continue
            first, *rest = verdict_lines(said["verdict"])
            shown = {"garch": said if kind == "garch" else None, "microprice": said.get("table")}
            lines += [f"{kind}, {first}", *rest, *_fitted(shown)]
    return lines


def synthetic_lines(found: Mapping[str, Any]) -> list[str]:
    """Promotion rates on markets whose edge is known, each with its interval."""
    from sim.report.shares import counted

    lines = []
    for world, title in (("planted", "a planted edge"), ("none", "no edge")):
        said = found[world]
        lines.append(f"markets with {title} (best possible AUC {said['best_possible_auc']:.3f}):")
        for kind, m in said["models"].items():
            lines.append(f"  {kind:<8} mean AUC out of sample {m['mean_auc']:.3f}, promoted {counted(m['promoted'], m['of'])}")
    return lines
