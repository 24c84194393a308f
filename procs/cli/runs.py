"""`runs`: the runs whose journals are still there, with the ids that `--run` takes; and which run a command speaks of."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

from procs import rundir
from procs.cli import running
from procs.cli.last_run import LastRun, wanted
from procs.cli.last_run import runs as found_runs
from procs.cli.outcome import NOT_RUNNING, OK, USAGE, CliError
from procs.cli.table import Cell, Column, megabytes, paint_for, span, table

COLUMNS: Final = (
    Column("RUN", right=False),
    Column("INSTANCE", right=False),
    Column("STARTED (UTC)", right=False, keep=3),
    Column("RAN"),
    Column("ENDED", right=False),
    Column("JOURNALS MB", keep=2),
)


def lives(run: LastRun) -> bool:
    """Whether this very run goes on."""
    folder = running.journal_folder(run.instance) if rundir.holder(run.instance) else None
    return folder is not None and folder.resolve() == Path(run.journal_dir).resolve()


def meant(args: argparse.Namespace, *, figures: bool = False) -> tuple[str, LastRun | None]:
    """(living instance, None), or (its name, the run) of a run that has ended: that of --run, else the last.

    `figures`: a run that has none is not meant. Raises CliError.
    """
    if args.run:
        run = wanted(args.instance or "", args.run, figures=False)
        if lives(run):
            return run.instance, None
        return run.instance, wanted(args.instance or "", args.run, figures=figures)
    name = running.instance_for(args, must_run=False)
    if name and rundir.holder(name):
        return name, None
    run = wanted(name, figures=figures)
    return run.instance, run


def how_it_ended(run: LastRun, living: bool) -> str:
    """In a word or two."""
    if run.died:
        return "runs" if living else "it died"
    return "in order" if run.exit_code == 0 else f"with code {run.exit_code}"


def _bytes(folder: str) -> int:
    return sum(entry.stat().st_size for entry in Path(folder).glob("*") if entry.is_file())


def runs(args: argparse.Namespace) -> int:
    """The command."""
    instance = args.instance or ""
    try:
        found = found_runs(rundir.checked_name(instance) if instance else "")
    except ValueError as error:
        raise CliError(str(error), USAGE) from None
    told: list[dict[str, Any]] = []
    for run in found:
        living = lives(run)
        seconds = time.time() - run.started if living else run.seconds
        told.append({
            "run": run.id, "instance": run.instance, "started": run.started, "seconds": round(seconds, 3),
            "ended": how_it_ended(run, living), "exit_code": None if run.died else run.exit_code,
            "bytes": _bytes(run.journal_dir), "journals": run.journal_dir,
        })  # fmt: skip
    if args.json:
        print(json.dumps(told, indent=2))
        return OK
    if not told:
        whose = f"instance {instance!r} has" if instance else "there is"
        raise CliError(f"{whose} no run with journals: start one with `scalperctl start`", NOT_RUNNING)
    rows: list[list[Cell]] = [
        [
            one["run"], one["instance"], time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one["started"])),
            span(one["seconds"] * 1e9), (one["ended"], {"it died": "red", "runs": "green"}.get(one["ended"], "")),
            megabytes(one["bytes"] // 1024),
        ]
        for one in told
    ]  # fmt: skip
    print("\n".join(table(COLUMNS, rows, shutil.get_terminal_size((120, 40)).columns, paint_for(sys.stdout))))
    return OK
