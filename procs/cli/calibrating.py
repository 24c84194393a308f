"""`calibrate`: A, k and volatility of recordings with their errors, as lines for a profile."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from procs.cli import running
from procs.cli.outcome import OK, UNHEALTHY
from procs.cli.progress import Progress
from procs.cli.report import use_kernel_cache

if TYPE_CHECKING:
    from procs.research.calibrating import Symbol
    from trading.quoting.calibration import Side

RATES_SHOWN = (0, 1, 2, 4, 8, 16, 32, 48, 63)


def calibrate(args: argparse.Namespace) -> int:
    """The command."""
    profile = running.profile_for(argparse.Namespace(config=args.config or "replay", set=args.set, recording=args.files))
    use_kernel_cache()
    from procs.research import calibrating

    note = Progress()

    def progress(done: int, total: int) -> None:
        note.now(f"reading {done * 100 // max(total, 1)}%")

    try:
        with note.working("reading, and loading the kernels (the first time compiles them: some minutes)"):
            symbols = calibrating.calibrate(profile.source.files, profile.features.bar_ms, args.beyond, progress)
    finally:
        note.end()
    lines = calibrating.fragment(symbols, args.rule or "")
    unfit = [one.instrument.name for one in symbols if one.found is None or not one.found.is_fit]
    if args.json:
        print(json.dumps(_finite({"symbols": [one.figures for one in symbols], "profile": lines, "unfit": unfit}), indent=2))
    else:
        print("\n".join(line for one in symbols for line in _words(one)), end="\n\n" if lines else "\n")
        print(lines, end="")
    for name in unfit:
        print(f"scalperctl: {name} has no fit: its lines above say why", file=sys.stderr)
    return UNHEALTHY if unfit else OK


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _words(one: Symbol) -> list[str]:
    name, found = one.instrument.name, one.found
    if found is None:
        return [f"# {name}: no usable book, so nothing can be measured: check it with `scalperctl data check`"]
    lines = [
        f"# {name}: {found.seconds:,.0f} s, sweeps from {found.from_bps:.3g} bps on, volatility "
        f"{found.volatility_bps:.3g} +- {found.volatility_error:.2g} bps in a second"
    ]
    if one.delay_ms:
        p50, p99 = one.delay_ms
        lines.append(f"#   from the venue's stamp to ours: p50 {p50:g} ms, p99 {p99:g} ms, clocks included")
    for word, side in (("bid", found.bid), ("ask", found.ask)):
        lines += _side_words(word, side)
    return lines


def _side_words(word: str, side: Side) -> list[str]:
    head = f"#   {word}: {side.sweeps:,} sweeps, {side.beyond:,} that went deeper; "
    rates = "#     reached a second, by bps from the mid: "
    shown = [side.rates[n] for n in RATES_SHOWN if n < len(side.rates)]
    rates += ", ".join(f"{bps:.3g}: {rate:.3g}" for bps, rate in shown)
    if side.why:
        return [f"#   {word}: {side.why}", rates]
    misfit = "too few depths to tell" if math.isnan(side.misfit) else f"{side.misfit:.3g} (1: a perfect exponential)"
    return [
        f"{head}A {side.a:.4g} +- {side.a_error:.2g} a second, k {side.k:.4g} +- {side.k_error:.2g} a bps",
        f"#     chi-square per degree of freedom {misfit}",
        rates,
    ]
