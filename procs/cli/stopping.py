"""`stop`, `restart` and `clean`: words to a living supervisor, and the broom for what a dead one left."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from procs import rundir
from procs.cli import journals, running
from procs.cli.outcome import FAILED, OK, UNHEALTHY, USAGE, CliError
from procs.cli.table import clean_text, span
from procs.supervision import control
from shm import cleanup

POLL_S = 0.02


def stop(args: argparse.Namespace) -> int:
    """The command `stop`."""
    instance = running.instance_for(args)
    started = time.monotonic()
    if not control.stop_and_wait(instance, args.timeout):
        raise CliError(
            f"instance {instance!r} has not ended within {args.timeout:g} s: "
            f"ask again with `{running.command_for(instance, 'stop')}`, which ends it by signals",
            UNHEALTHY,
        )
    print(f"{instance} stopped after {span((time.monotonic() - started) * 1e9)}")
    if takes := journals.sentence(instance):
        print(takes)
    return OK


def restart(args: argparse.Namespace) -> int:
    """The command `restart STAGE`: asks, then waits until the new process consumes."""
    instance = running.instance_for(args)
    started = time.monotonic()
    was = int(running.ask(instance, {"do": "restart", "stage": args.stage})["was"])
    while time.monotonic() - started < args.timeout:
        entry = _stage(instance, args.stage)
        if entry["actual"] == "FATAL":
            raise CliError(
                f"{args.stage} gave up ({clean_text(entry['last_end'] or 'no reason')}): see {entry['log']}", UNHEALTHY
            )
        if entry["ready"] and entry["incarnation"] > was:
            shared = f", with all stages of the process {entry['process']}," if entry["process"] != args.stage else ""
            print(f"{args.stage} runs again{shared} as pid {entry['pid']} after {span((time.monotonic() - started) * 1e9)}")
            return OK
        time.sleep(POLL_S)
    look = running.command_for(instance, "status")
    raise CliError(f"{args.stage} is not ready after {args.timeout:g} s: see `{look}`", UNHEALTHY)


def _stage(instance: str, name: str) -> dict[str, Any]:
    for entry in running.ask(instance, {"do": "status"})["stages"]:
        if entry["name"] == name:
            return dict(entry)
    raise CliError(f"the supervisor of {instance!r} knows no stage {name!r}", FAILED)


def clean(args: argparse.Namespace) -> int:
    """The command `clean`."""
    if args.instance:
        try:
            rundir.checked_name(args.instance)
        except ValueError as error:
            raise CliError(str(error), USAGE) from None
    if args.journals:
        return _clean_journals(args)
    if args.keep is not None or args.dry_run:
        raise CliError("--keep and --dry-run belong to --journals: add it", USAGE)
    removed = cleanup.clean(args.instance)
    left = cleanup.list_segments(args.instance)
    if args.json:
        print(
            json.dumps(
                {"removed": removed, "left": [{"name": s.name, "state": s.state, "bytes": s.nbytes} for s in left]}, indent=2
            )
        )
        return OK
    for name in removed:
        print(f"removed {name}")
    living = [segment for segment in left if segment.state != cleanup.State.FOREIGN]
    if living:
        names = sorted({segment.name.split(".")[1] for segment in living})
        print(f"left {len(living)} segments of {', '.join(names)}: living")
    for segment in left:
        if segment.state == cleanup.State.FOREIGN:
            print(f"left {segment.path}: {clean_text(segment.note)}; not ours to remove")
    if not removed:
        print("nothing to clean")
    return OK


def _clean_journals(args: argparse.Namespace) -> int:
    """`clean --journals`: all but the last runs of an instance, or of each."""
    keep = journals.KEPT if args.keep is None else args.keep
    names = [args.instance] if args.instance else journals.instances()
    runs = {name: journals.runs_of(name) for name in names}
    going = [run for name in names for run in journals.too_many(runs[name], keep)]
    staying = [run for name in names for run in runs[name] if run not in going]
    if not args.dry_run:
        for run in going:
            journals.remove(run)
    freed = sum(run.bytes for run in going)
    if args.json:
        said = {"removed": [], "left": [], "bytes": freed, "dry_run": args.dry_run}
        for key, of in (("removed", going), ("left", staying)):
            said[key] = [{"instance": r.instance, "folder": str(r.folder), "bytes": r.bytes, "living": r.living} for r in of]
        print(json.dumps(said, indent=2))
        return OK
    verb = "would remove" if args.dry_run else "removed"
    for run in going:
        print(f"{verb} {run.folder}  {journals.megabytes(run.bytes)}")
    stay = f"{len(staying)} run{'' if len(staying) == 1 else 's'} of {len(names)} instance{'' if len(names) == 1 else 's'} stay"
    if going:
        print(f"{verb} the journals of {len(going)} run{'' if len(going) == 1 else 's'}, {journals.megabytes(freed)}; {stay}")
    else:
        print(f"no journals to remove: {stay}, {journals.megabytes(sum(run.bytes for run in staying))}")
    return OK
