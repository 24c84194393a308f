"""`backtest`: the same decisions in one process, then their report. Ctrl-C reports what there is by then."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from procs.cli import running
from procs.cli.outcome import FAILED, INTERRUPTED, OK, USAGE, CliError
from procs.cli.progress import Progress
from procs.cli.provenance import digests
from procs.cli.report import JOURNALS, facts, show, use_kernel_cache
from procs.cli.signal_check import with_signals
from procs.kernels.packs import OF_ENGINE
from procs.profiles.schema import Profile
from procs.supervision import compiling
from sim.settings import Generator
from sim.spans import span

if TYPE_CHECKING:
    from procs.fold.plan import Plan
    from sim.report.build import Report
    from sim.report.model import BookStats

SPAN_S: Final = 600.0
"""Of the embedded market, which has no end of its own, where nobody says how long it shall last."""


def backtest(args: argparse.Namespace) -> int:
    """The command."""
    profile = profile_of(args)
    use_kernel_cache()
    _compile(profile, Progress())
    profile = with_signals(profile, lambda text: print(text, file=sys.stderr))
    note = Progress()
    try:
        return _backtest(profile, note, args.json)
    except KeyboardInterrupt:
        note.end()
        print("interrupted: nothing was simulated that a report could be of", file=sys.stderr)
        return INTERRUPTED


def _backtest(profile: Profile, note: Progress, as_json: bool) -> int:
    from procs.fold.plan import plan_of
    from sim.recordings.venue_staging import stage_any

    with tempfile.TemporaryDirectory(prefix="scalper-backtest-") as folder:
        recording, kept = None, []
        files = [Path(file) for file in profile.source.files]
        if profile.source.kind == "recording":
            note(f"reading {len(files)} recording{'s' if len(files) > 1 else ''}")
            kept = digests(files)
            recording = stage_any(
                files, Path(folder) / "spool", progress=lambda done, of: note.now(f"reading: {done * 100 // max(of, 1)} %")
            )
            note.end()
            for text in (*recording.said(), *recording.notes):
                print(f"scalperctl: {text}", file=sys.stderr)
        found, whole = run_backtest(profile, plan_of(profile, recording), note, kept)
    note.end()
    show(found, as_json)
    if not whole:
        print("interrupted: the report is of what was simulated by then", file=sys.stderr)
        return INTERRUPTED
    return OK


def _compile(profile: Profile, note: Progress) -> None:
    """Compile on all cores, before numba is in this process, where the cache has not the engine's kernels yet."""
    cache = os.environ["NUMBA_CACHE_DIR"]
    if compiling.is_complete(cache, OF_ENGINE):
        return
    stages = compiling.ENGINE
    profile = msgspec.structs.replace(profile, signals=msgspec.structs.replace(profile.signals, user=()))  # they are apart
    done: list[str] = []

    def tell(stage: str, seconds: float) -> None:
        done.append(stage)
        note(f"kernels {len(done)}/{len(stages)}: {stage} compiled in {seconds:.0f} s")

    with contextlib.ExitStack() as counted, compiling.locked(cache, lambda: note("another process compiles the kernels")):
        if not compiling.is_complete(cache, OF_ENGINE):
            working = note.working("compiling the kernels on all cores, once")
            try:
                compiling.compile_all(stages, profile, cache, tell, lambda: counted.enter_context(working))
            except RuntimeError as problem:
                raise CliError(f"the kernels could not be compiled: {problem}", FAILED) from None
            compiling.mark_complete(cache, OF_ENGINE)
    note.end()


def profile_of(args: argparse.Namespace) -> Profile:
    """The profile, run as fast as it goes; an embedded market without an end gets one. CliError for a live source."""
    profile = running.profile_for(args)
    if profile.source.kind == "live":
        raise CliError("a live market cannot be simulated after the fact: give --recording FILE, or a profile without it", USAGE)
    if profile.source.kind == "generated" and profile.generator.duration_s == Generator().duration_s:
        text = f"the embedded market has no end: {span(SPAN_S * 1e9)} of it are simulated"
        print(f"{text} (another span: --set generator.duration_s=SECONDS)", file=sys.stderr)
        profile = running.profile_for(args, last={"generator.duration_s": SPAN_S})
    source = msgspec.structs.replace(profile.source, speed="max")  # virtual time waits for nobody
    return msgspec.structs.replace(profile, source=source)


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed: the first time asks for an end in order, the second ends at once, as ever."""
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def run_backtest(profile: Profile, plan: Plan, note: Progress, recordings: list[dict[str, Any]]) -> tuple[Report, bool]:
    """Run a plan in this process: its report, and whether its market came to its end."""
    from procs.recordings.checking import aside_of, aside_text
    from procs.research import decoding, engine
    from sim.report.build import build_report
    from sim.report.decisions import Tally
    from trading.own_signals.guard import complaints, health_of

    note("loading the kernels (the first time compiles them: some minutes)")
    for number, module in enumerate((decoding, engine), 1):
        with note.working(f"kernels {number}/2: {module.__name__.rpartition('.')[2]}"):
            module.warm(profile)
    note("simulating (Ctrl-C ends it and reports what there is by then)")
    started = time.monotonic()

    def progress(frames: int, expected: int, market_ns: int) -> None:
        done = frames / expected if expected else market_ns / (profile.generator.duration_s * 1e9)
        of = f"{frames:,} of {expected:,} frames" if expected else f"{frames:,} frames"
        took = span((time.monotonic() - started) * 1e9)
        note.now(f"simulated {span(market_ns)} of market, {min(done, 1.0):.0%}: {of} in {took}")

    with ended_by_ctrl_c() as asked:
        outcome = engine.run(plan, keep=JOURNALS, folds={"signals": lambda: Tally(profile)}, progress=progress, stop=asked)
        whole = not asked()
    wall = time.monotonic() - started
    note.end()
    for text in complaints({one.name: health_of(outcome.guard, k) for k, one in enumerate(profile.signals.user)}):
        print(f"scalperctl: user signal {text}", file=sys.stderr)
    if aside := aside_of(outcome.feed):
        print(f"scalperctl: {aside_text(aside)}", file=sys.stderr)
    books: dict[str, BookStats] = {}
    for number, name in enumerate(plan.names):
        row = outcome.feed[number]
        books[name] = {
            "oracle_checked": int(row["oracle_checked"]), "oracle_equal": int(row["oracle_equal"]),
            "gaps": int(row["gaps"]), "resyncs": int(row["resyncs"]),
        }  # fmt: skip
    tally: Any = outcome.folded["signals"]
    title = "BACKTEST" if whole else "BACKTEST, interrupted by Ctrl-C"
    found = build_report(
        facts(profile, title, outcome.frames, wall, outcome.kept, recordings, whole=whole),
        instruments=plan.instruments,
        market=outcome.kept["market"],
        orders=outcome.kept["orders"],
        reports=outcome.kept["reports"],
        refusals=outcome.kept["refusals"],
        decisions=tally.found(),
        books=books,
    )
    return found, whole
