"""`report`: what a run did, computed again from its records by sim.report.build.

The records come from the run's journals; procs.cli.backtesting makes the same report of those of a backtest.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from procs import topology
from procs.cli import journals, running
from procs.cli.drawing import program_version
from procs.cli.figures import Snapshot, snapshot
from procs.cli.last_run import LastRun
from procs.cli.latencies import ORDER, ORDER_LEAVES, Hop, Spread, hops, kept
from procs.cli.outcome import FAILED, OK, CliError
from procs.cli.provenance import recordings_of, settings_of
from procs.cli.runs import meant
from procs.kernels.choice import compiled, use
from procs.profiles.config import profile_from_json
from procs.profiles.schema import Profile

if TYPE_CHECKING:
    from procs.fold.plan import Plan
    from sim.report.build import HopLatency, Report, RingStats, RunFacts
    from sim.report.model import BookStats

JOURNALS: Final = ("market", "orders", "reports", "refusals")


@dataclass(slots=True)
class Told:
    """A run as its report needs it. `frames`: raw frames read; `wall_s`: how long it took on the clock."""

    instance: str
    profile: Profile
    journal_dir: Path
    spool: Path | None
    symbols: list[dict[str, Any]]
    frames: int
    wall_s: float
    figures: Snapshot
    hops: list[Hop]
    recordings: list[dict[str, Any]]


def use_kernel_cache() -> None:
    """Point numba at the compiled kernels that the pipeline uses too; before numba is imported.

    Says why, where it is not the program's own.
    """
    found = use()
    if found is not None and found.why and not compiled(found.folder):
        print(f"scalperctl: {found.why}", file=sys.stderr)


def ring_stats(figures: Snapshot) -> dict[str, RingStats]:
    """The rings as sim.report.build takes them; readers that do not gate are left out."""
    return {
        ring["name"]: {
            "capacity": ring["capacity"],
            "tail": ring["tail"],
            "backpressure": ring["stalls"],
            "readers": {r["name"]: {"head": r["head"], "overruns": r["overruns"]} for r in ring["readers"] if r["gating"]},
        }
        for ring in figures.get("rings", ())
    }


def hop_latency(found: list[Hop]) -> dict[str, HopLatency]:
    """This machine's latencies as sim.report.build takes them: two rows an input, and the order's leaving by its name."""
    rows: dict[str, HopLatency] = {}
    for hop in found:
        if "hop" not in hop["venue_in"]:
            rows |= _spread(f"{hop['input']} to {hop['stage']}", hop["hop"])
        if "origin" not in hop["venue_in"]:
            rows |= _spread(ORDER_LEAVES if (hop["stage"], hop["input"]) == ORDER else _way(hop), hop["origin"])
    return rows


def venue_latency(found: list[Hop]) -> dict[str, HopLatency]:
    """The ways over the venue and back, a row for each input that has the venue's delay in it."""
    rows: dict[str, HopLatency] = {}
    for hop in found:
        if "origin" in hop["venue_in"]:
            rows |= _spread(_way(hop), hop["origin"])
    return rows


def _way(hop: Hop) -> str:
    return f"frame to {hop['stage']} ({hop['input']})"


def _spread(name: str, spread: Spread) -> dict[str, HopLatency]:
    if not spread["count"]:
        return {}
    return {
        name: {
            "count": spread["count"], "p50_ns": spread["p50_ns"], "p99_ns": spread["p99_ns"],
            "p999_ns": spread["p999_ns"], "max_ns": spread["max_ns"],
        }
    }  # fmt: skip


def book_stats(figures: Snapshot, names: tuple[str, ...]) -> dict[str, BookStats]:
    """The feed's word on its books; the board has one sum for all symbols."""
    counters = next((stage["counters"] for stage in figures.get("stages", ()) if stage["name"] == "feed"), None)
    if counters is None:
        return {}
    return {
        names[0] if len(names) == 1 else "all symbols": {
            "oracle_checked": counters["oracle_checked"], "oracle_equal": counters["oracle_equal"],
            "gaps": counters["gaps"], "resyncs": counters["resyncs"],
        }
    }  # fmt: skip


def plan_for(profile: Profile, spool: Path | None, symbols: list[dict[str, Any]]) -> Plan:
    """The run's plan again: instruments and settings. The spool may be gone; `symbols` says what it held."""
    from procs.fold.plan import load_recording, plan_of
    from sim.recordings.spool import StagedRecording, StagedSymbol
    from trading.instruments import Market

    if spool is not None and spool.exists():
        return plan_of(profile, load_recording(spool))
    if not symbols:
        return plan_of(profile, None)
    staged = tuple(StagedSymbol(**{**entry, "market": Market(entry["market"])}) for entry in symbols)
    frames, size = sum(s.n_frames for s in staged), sum(s.n_bytes for s in staged)
    first, last = min(s.first_recv_ns for s in staged), max(s.last_recv_ns for s in staged)
    return plan_of(profile, StagedRecording(Path(os.devnull), staged, frames, size, first, last, 0))


def facts(
    profile: Profile,
    title: str,
    frames: int,
    wall_s: float,
    records: Mapping[str, Any],
    recordings: list[dict[str, Any]],
    *,
    whole: bool = True,
) -> RunFacts:
    """What the records do not say. `recordings`: what procs.cli.provenance.digests found as the run began."""
    from procs.journal.digest import digest_fills, digest_orders
    from sim.report.build import RunFacts

    generated = profile.source.kind == "generated"
    return RunFacts(
        title=title,
        profile=f"{profile.instance} ({profile.world})",
        sources=("embedded market",) if generated else tuple(Path(file).name for file in profile.source.files),
        messages=frames,
        wall_s=wall_s,
        start_equity=profile.risk.equity,
        exchange=profile.exchange,
        generator_seed=profile.generator.seed if generated else None,
        order_digest=digest_orders(records["orders"]),
        fill_digest=digest_fills(records["reports"]),
        version=program_version(),
        settings=settings_of(profile),
        recordings=recordings_of(recordings),
        whole=whole,
    )


def build(told: Told) -> Report:
    """The report of a run from its journals. Raises JournalError, CliError."""
    use_kernel_cache()
    from procs.journal.file import JournalReader, journal_path
    from sim.report.build import build_report
    from sim.report.decisions import Tally

    if not journal_path(told.journal_dir, "orders").exists():
        raise CliError(
            f"{told.journal_dir} holds no journals of {told.instance!r} (pipeline.journal is "
            f"{'on' if told.profile.pipeline.journal else 'off'}): run it with pipeline.journal: true",
            FAILED,
        )
    plan = plan_for(told.profile, told.spool, told.symbols)
    records = {n: JournalReader(journal_path(told.journal_dir, n), topology.RING[n].record).records() for n in JOURNALS}
    tally = Tally(told.profile)
    if journal_path(told.journal_dir, "signals").exists():
        tally.take_all(JournalReader(journal_path(told.journal_dir, "signals"), topology.RING["signals"].record).records())
    return build_report(
        facts(told.profile, f"RUN OF {told.instance}", told.frames, told.wall_s, records, told.recordings),
        instruments=plan.instruments,
        market=records["market"],
        orders=records["orders"],
        reports=records["reports"],
        refusals=records["refusals"],
        decisions=tally.found(),
        latency=hop_latency(told.hops),
        venue=venue_latency(told.hops),
        rings=ring_stats(told.figures),
        books=book_stats(told.figures, plan.names),
    )


def told_by(run: LastRun) -> Told:
    """A run that has ended."""
    return Told(
        instance=run.instance,
        profile=profile_from_json(bytes(run.profile)),
        journal_dir=Path(run.journal_dir),
        spool=None,
        symbols=run.symbols,
        frames=run.frames,
        wall_s=run.seconds,
        figures=cast(Snapshot, run.figures),
        hops=kept(run.hops),
        recordings=run.recordings,
    )


def told_living(instance: str) -> Told:
    """A run that goes on, as far as it has come."""
    profile = running.running_profile(instance)
    folder = running.journal_folder(instance)
    if profile is None or folder is None:
        raise CliError(f"instance {instance!r} does not say where its journals are: it is starting or ending, try again", FAILED)
    with running.looking_at(instance) as memory:
        figures, found = snapshot(memory), hops(memory.board_words)
    counters = next(stage["counters"] for stage in figures["stages"] if stage["name"] == "feed")
    uptime = float(running.ask(instance, {"do": "status"})["uptime_s"])
    spool = running.spool_of(instance)
    kept = running.recordings_of(instance)
    return Told(instance, profile, folder, spool, [], counters["frames"], uptime, figures, found, kept)


def show(report: Report, as_json: bool) -> None:
    """Print it for people or programs."""
    from sim.report.build import render_json, render_text

    plain = "utf" not in (sys.stdout.encoding or "").lower()
    print(render_json(report) if as_json else render_text(report, ascii_only=plain), end="")


def report(args: argparse.Namespace) -> int:
    """The command `report`."""
    instance, run = meant(args)
    if run is not None and not run.figures:
        print(
            f"scalperctl: the supervisor of run {run.id} died: the report is made of its journals alone, "
            "without the figures of rings, books and latencies",
            file=sys.stderr,
        )
    told = told_living(instance) if run is None else told_by(run)
    show(build(told), args.json)
    takes = "" if args.json else journals.sentence(told.instance)
    if takes:
        print(f"\n{takes}")
    return OK
