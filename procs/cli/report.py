"""`report` and `backtest`: what a run did, computed again from its records by sim.report.build.

The records come from the run's journals, or from the one process of the backtest; the same report is made of both.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from procs import rundir, topology
from procs.cli import running
from procs.cli.figures import Snapshot, snapshot
from procs.cli.last_run import LastRun
from procs.cli.latencies import Hop, hops
from procs.cli.outcome import FAILED, OK, CliError
from procs.cli.runs import meant
from procs.cli.signal_check import with_signals
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


def use_kernel_cache() -> None:
    """Point numba at the pipeline's cache of compiled kernels; before numba is imported."""
    os.environ.setdefault("NUMBA_CACHE_DIR", str(rundir.numba_cache_dir()))


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
    """The latencies as sim.report.build takes them: two rows a stage."""
    rows: dict[str, HopLatency] = {}
    for hop in found:
        for name, spread in ((f"published to {hop['stage']}", hop["hop"]), (f"frame to {hop['stage']}", hop["origin"])):
            if spread["count"]:
                rows[name] = {
                    "count": spread["count"], "p50_ns": spread["p50_ns"], "p99_ns": spread["p99_ns"],
                    "p999_ns": spread["p999_ns"], "max_ns": spread["max_ns"],
                }  # fmt: skip
    return rows


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


def facts(profile: Profile, title: str, frames: int, wall_s: float, records: Mapping[str, Any]) -> RunFacts:
    """What the records do not say."""
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
    )


def build(told: Told) -> Report:
    """The report of a run from its journals. Raises JournalError, CliError."""
    use_kernel_cache()
    from procs.journal.file import JournalReader, journal_path
    from sim.report.build import build_report

    if not journal_path(told.journal_dir, "orders").exists():
        raise CliError(
            f"{told.journal_dir} holds no journals of {told.instance!r} (pipeline.journal is "
            f"{'on' if told.profile.pipeline.journal else 'off'}): run it with pipeline.journal: true",
            FAILED,
        )
    plan = plan_for(told.profile, told.spool, told.symbols)
    records = {n: JournalReader(journal_path(told.journal_dir, n), topology.RING[n].record).records() for n in JOURNALS}
    return build_report(
        facts(told.profile, f"RUN OF {told.instance}", told.frames, told.wall_s, records),
        instruments=plan.instruments,
        market=records["market"],
        orders=records["orders"],
        reports=records["reports"],
        refusals=records["refusals"],
        latency=hop_latency(told.hops),
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
        hops=cast(list[Hop], run.hops),
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
    return Told(instance, profile, folder, spool, [], counters["frames"], uptime, figures, found)


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
    show(build(told_living(instance) if run is None else told_by(run)), args.json)
    return OK


def backtest(args: argparse.Namespace) -> int:
    """The command `backtest`."""
    profile = running.profile_for(args)
    source = msgspec.structs.replace(profile.source, speed="max")  # virtual time waits for nobody
    profile = msgspec.structs.replace(profile, source=source)
    use_kernel_cache()
    profile = with_signals(profile, lambda text: print(text, file=sys.stderr))
    note = _Note(sys.stderr.isatty())
    import tempfile

    from procs.fold.plan import plan_of
    from sim.recordings.venue_staging import stage_any

    with tempfile.TemporaryDirectory(prefix="scalper-backtest-") as folder:
        recording = None
        if profile.source.kind == "recording":
            note(f"reading {len(profile.source.files)} recordings")
            recording = stage_any([Path(file) for file in profile.source.files], Path(folder) / "spool")
            note.end()
            for text in recording.said():
                print(f"scalperctl: {text}", file=sys.stderr)
        found, records = run_backtest(profile, plan_of(profile, recording), note)
    note.end()
    show(found, args.json)
    return OK if len(records["orders"]) else FAILED


def run_backtest(profile: Profile, plan: Plan, note: _Note) -> tuple[Report, dict[str, Any]]:
    """Run a plan in this process; (its report, the records of the rings that a report is made of)."""
    from procs.fold.warm import warm_stage
    from procs.memory import board
    from procs.recordings.checking import aside_of, aside_text
    from procs.research import backtest as world
    from sim.report.build import build_report
    from trading.own_signals.guard import complaints, health_of

    def progress(frames: int, expected: int) -> None:
        note(f"{frames:,} frames" + (f" of {expected:,}" if expected else ""))

    stages = world.stages_of(plan)
    for number, stage in enumerate(stages, 1):
        note(f"kernels {number}/{len(stages)}: {stage.name} (the first time compiles them: a minute or two)")
        warm_stage(stage.name, profile)
    started = time.monotonic()
    outcome = world.run(plan, keep=JOURNALS, progress=progress)
    wall = time.monotonic() - started
    note.end()
    guard = world.guard_of(outcome.world)
    for text in complaints({one.name: health_of(guard, k) for k, one in enumerate(profile.signals.user)}):
        print(f"scalperctl: user signal {text}", file=sys.stderr)
    page = board.page(outcome.world.board, topology.stage_id("feed"))
    if aside := aside_of(outcome.stages["feed"].state["state"]):
        print(f"scalperctl: {aside_text(aside)}", file=sys.stderr)
    state = outcome.stages["feed"].state["state"]
    books: dict[str, BookStats] = {}
    for number, name in enumerate(plan.names):
        row = state[number]
        books[name] = {
            "oracle_checked": int(row["oracle_checked"]), "oracle_equal": int(row["oracle_equal"]),
            "gaps": int(row["gaps"]), "resyncs": int(row["resyncs"]),
        }  # fmt: skip
    found = build_report(
        facts(profile, "BACKTEST", int(page[board.FRAMES]), wall, outcome.kept),
        instruments=plan.instruments,
        market=outcome.kept["market"],
        orders=outcome.kept["orders"],
        reports=outcome.kept["reports"],
        refusals=outcome.kept["refusals"],
        books=books,
    )
    return found, outcome.kept


class _Note:
    """One line of progress on stderr that is written over; silent where nobody looks."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown

    def __call__(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
