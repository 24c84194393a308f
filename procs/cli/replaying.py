"""`replay SESSION`: a session folded again in this process from its journals; --verify compares every ring with its journal.

A session is one run: its id, its folder of journals, or an instance's name for the run that goes on or was the last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from procs import rundir, topology
from procs.cli.journals import RUN_FOLDER
from procs.cli.last_run import LastRun, wanted
from procs.cli.outcome import FAILED, OK, USAGE, CliError
from procs.cli.progress import Progress
from procs.cli.report import JOURNALS, Told, facts, plan_for, show, told_by, told_living, use_kernel_cache
from procs.cli.runs import lives
from procs.cli.signal_check import with_signals
from procs.cli.table import Column, paint_for, table
from procs.profiles.schema import Profile
from sim.spans import span

if TYPE_CHECKING:
    from procs.research.refold import Result, Session

COLUMNS: Final = (Column("RING", right=False), Column("JOURNAL"), Column("EQUAL"), Column("", right=False, keep=2))
NOT_COMPARED: Final = {
    "frames": "is what entered",
    "control": "is what entered",
    "intake.feed": "is what entered: the time, where the feed told it",
    "market": "is what entered: the feed was not folded again (its frames: record.raw)",
    "depth": "is what entered: the feed was not folded again",
    "executions": "is what entered: the exchange was no fold",
}


@dataclass(slots=True)
class _Meant:
    """The session, and whether it goes on."""

    told: Told
    id: str
    living: bool


def replay(args: argparse.Namespace) -> int:
    """The command."""
    meant = _meant(args.session)
    use_kernel_cache()
    note = Progress()
    profile = with_signals(meant.told.profile, lambda text: print(text, file=sys.stderr))
    session, left_out = _session(meant.told, profile)
    _load(session, profile, note)
    if not args.verify:
        return _report(meant, session, note, args.json)
    began = time.monotonic()
    results = _fold(session, note, {})
    took = time.monotonic() - began
    left = _left_out(session) | left_out
    if args.json:
        print(json.dumps(_as_json(meant, results, left, took), indent=2))
    else:
        _print(meant, results, left, took)
    return OK if all(one.equal for one in results) else FAILED


def _meant(name: str) -> _Meant:
    """The session of this name. Raises CliError."""
    if "/" not in name and not RUN_FOLDER.fullmatch(name):
        try:
            rundir.checked_name(name)
        except ValueError as error:
            raise CliError(f"{error}; or name a run of `scalperctl runs`", USAGE) from None
        run = None if rundir.holder(name) else wanted(name)
    else:
        run = wanted("", name)
        if lives(run):
            name, run = run.instance, None
    if run is None:
        told = told_living(name)
        return _Meant(told, told.journal_dir.name, living=True)
    return _Meant(_told(run), run.id, living=False)


def _told(run: LastRun) -> Told:
    if not Path(run.journal_dir).is_dir():
        raise CliError(f"the journals of run {run.id} are gone: {run.journal_dir} is no folder", FAILED)
    return told_by(run)


def _session(told: Told, profile: Profile) -> tuple[Session, dict[str, str]]:
    """What the run left, and which rings were not kept. Raises CliError, JournalError."""
    from procs.journal import beside
    from procs.recordings import raw_frames
    from procs.research.refold import MARKET, Session, opened

    if profile.world == "record":
        raise CliError(f"{told.journal_dir.name} only recorded: it decided nothing that could be folded again", FAILED)
    plan = plan_for(profile, None, told.symbols)
    kept = opened(told.journal_dir)
    stages = [stage.name for stage in plan.run.hot]
    needed = {entry.name for entry in topology.RINGS if entry.writer in {topology.STAGE[name].part for name in stages}}
    missing = sorted((needed | {"control"}) - kept.keys() - {"vectors", "resync"})
    if missing or not all(len(kept[name]) for name in MARKET):
        lacks = f"lacks {', '.join(missing)}" if missing else "has not begun: nothing is in it"
        raise CliError(
            f"{told.journal_dir} {lacks}: a session folds again from the journals of all its rings (pipeline.journal: true)",
            FAILED,
        )
    try:
        models = beside.models(told.journal_dir)
    except ValueError as error:
        raise CliError(f"{error}: what was computed with it cannot be made again", FAILED) from None
    left = {"vectors": "has no journal (pipeline.journal_vectors)"} if "vectors" not in kept else {}
    session, recording = Session(plan, kept, models, beside.stopped(told.journal_dir)), raw_frames.noted(told.journal_dir)
    if recording is not None and "frames" in kept and Path(recording.folder).is_dir():
        session.frames = partial(raw_frames.frames, kept["frames"], recording)
    return session, left


def _left_out(session: Session) -> dict[str, str]:
    """The rings that are not compared, and why."""
    compared, run = set(session.compared), session.plan.run
    return {
        entry.name: NOT_COMPARED.get(entry.name, "the feed was not folded again" if entry.writer == "feed" else "has no journal")
        for entry in run.rings
        if entry.name not in compared and entry.name != "vectors"
    }  # fmt: skip


def _load(session: Session, profile: Profile, note: Progress) -> None:
    from procs.fold.warm import warm_stage

    note("loading the kernels (the first time compiles them: some minutes)")
    for number, stage in enumerate(session.stages, 1):
        with note.working(f"kernels {number}/{len(session.stages)}: {stage.name}"):
            warm_stage(stage.name, profile)


def _fold(session: Session, note: Progress, folds: dict[str, Callable[[Any], None]]) -> list[Result]:
    from procs.research.refold import refold

    began = time.monotonic()

    def progress(done: int, of: int) -> None:
        took = span((time.monotonic() - began) * 1e9)
        note.now(f"{done:,} of {of:,} records folded again, {done / max(of, 1):.0%} in {took}")

    note("folding again")
    found = refold(session, folds, progress)
    note.end()
    return found


def _as_json(meant: _Meant, results: list[Result], left: dict[str, str], took: float) -> dict[str, Any]:
    def difference(one: Result) -> dict[str, Any] | None:
        return None if one.difference is None else one.difference._asdict()

    rings = [
        {"ring": it.ring, "journal": it.total, "equal": it.reached, "difference": difference(it)} for it in results
    ]  # fmt: skip
    return {
        "session": meant.id, "instance": meant.told.instance, "living": meant.living, "equal": all(it.equal for it in results),
        "whole": all(it.reached == it.total for it in results), "seconds": round(took, 3), "rings": rings, "not_compared": left,
    }  # fmt: skip


def _print(meant: _Meant, results: list[Result], left: dict[str, str], took: float) -> None:
    rows: list[list[Any]] = []
    for one in results:
        if one.difference is not None:
            said = (f"differs: {one.difference.text()}", "red")
        else:
            said = ("equal", "green") if one.reached == one.total else ("equal as far as the journals reach", "yellow")
        rows.append([one.ring, f"{one.total:,}", f"{one.reached:,}", said])
    print("\n".join(table(COLUMNS, rows, 160, paint_for(sys.stdout))))
    for ring, why in left.items():
        print(f"not compared: {ring} {why}")
    records, differ = sum(one.reached for one in results), [one.ring for one in results if not one.equal]
    upto = ", up to now" if meant.living else ""
    if differ:
        print(f"\nsession {meant.id} does not fold again: {', '.join(differ)} differ{'s' if len(differ) == 1 else ''}")
    else:
        print(f"\nsession {meant.id} folds again{upto}: {records:,} records equal in {span(took * 1e9)}")


def _report(meant: _Meant, session: Session, note: Progress, as_json: bool) -> int:
    """What the session made of it, as a report of the records made anew."""
    from sim.report.build import build_report
    from sim.report.decisions import Tally

    pieces: dict[str, list[Any]] = {name: [] for name in JOURNALS}

    def keep(name: str) -> Callable[[Any], None]:
        return lambda recs: pieces[name].append(recs.copy())

    tally = Tally(meant.told.profile)
    began = time.monotonic()
    _fold(session, note, {"signals": tally, **{name: keep(name) for name in pieces}})
    records = {
        name: np.concatenate(found) if found else np.zeros(0, topology.RING[name].record) for name, found in pieces.items()
    }
    if not session.fed:
        records["market"] = session.kept["market"].recs
    told = meant.told
    show(
        build_report(
            facts(told.profile, f"REPLAY OF {meant.id}", told.frames, time.monotonic() - began, records, told.recordings),
            instruments=session.plan.instruments,
            market=records["market"],
            orders=records["orders"],
            reports=records["reports"],
            refusals=records["refusals"],
            decisions=tally.found(),
        ),
        as_json,
    )
    return OK
