"""Turning recordings into a spool, in a process of its own: it needs numba, and the supervisor must stay small.

    python -m procs.cli.staging SPOOL FILE...        a profile on stdin; one JSON line a step of progress, the last is the result
    python -m procs.cli.staging --rules              a profile on stdin, the same with the venues' rules on stdout

`stage_apart` runs that and gives the symbols found, which are kept beside the spool's path in the run's notes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from procs.cli.outcome import FAILED, USAGE, CliError
from procs.kernels.choice import chosen
from procs.profiles.config import profile_from_json, profile_json
from procs.profiles.schema import Profile

ROOT = Path(__file__).resolve().parents[2]


def child_environment() -> dict[str, str]:
    """The environment for a Python process of this project: it finds the packages and the compiled kernels."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # numpy's BLAS would start threads of which nobody makes use
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def stage_apart(
    profile: Profile, spool: Path, tell: Callable[[int, int], None], say: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Stage the profile's recordings into `spool` in a child process; returns the symbols (sim.recordings.spool.StagedSymbol's
    fields).

    `tell(done, total)` gets bytes read, `say` a sentence of what was recognised or left out. Raises CliError with the sentence of
    the recording, or of the plan that profile and recording make: whatever a stage would refuse is said here, before kernels are
    loaded.
    """
    environment = {**child_environment(), **chosen().variables()}
    command = [sys.executable, "-P", "-m", "procs.cli.staging", str(spool), *profile.source.files]
    result: list[dict[str, Any]] | None = None
    problem, notes = "", list[str]()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(profile_json(profile).decode())
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        for line in child.stdout:
            said = json.loads(line)
            if "done" in said:
                tell(said["done"], said["total"])
            result = said.get("symbols", result)
            problem = said.get("problem", problem)
            notes += said.get("notes", ())
        complaint = child.stderr.read().strip()
    if child.returncode == 0 and result is not None:
        for note in notes:
            say(note)
        return result
    if problem:
        raise CliError(problem, USAGE)
    last = complaint.splitlines()[-1] if complaint else f"exit code {child.returncode}"
    raise CliError(f"the recordings could not be staged ({last}): run `scalperctl doctor`", FAILED)


def rules_apart(profile: Profile) -> Profile:
    """The profile with its symbols' ticks, lots and limits as their venues state them; asked for in a child process.

    Raises CliError with the receiver's own sentence (an unknown symbol, a host that cannot be reached).
    """
    environment = {**child_environment(), **chosen().variables()}
    command = [sys.executable, "-P", "-m", "procs.cli.staging", "--rules"]
    child = subprocess.run(command, input=profile_json(profile), capture_output=True, env=environment)
    lines = child.stdout.decode("utf-8", "replace").splitlines()
    said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    if child.returncode == 0 and "profile" in said:
        return profile_from_json(said["profile"])
    if "problem" in said:
        raise CliError(said["problem"], int(said["code"]))
    complaint = child.stderr.decode("utf-8", "replace").strip().splitlines()
    last = complaint[-1] if complaint else f"exit code {child.returncode}"
    raise CliError(f"the venue's rules could not be fetched ({last}): run `scalperctl doctor`", FAILED)


def _rules() -> int:
    """The child that asks venues."""
    from procs.receiver.rules import RulesError, fetch_rules
    from trading.venues.protocol import VenueError

    try:
        resolved = fetch_rules(profile_from_json(sys.stdin.buffer.read()))
    except (RulesError, VenueError) as error:
        print(json.dumps({"problem": str(error), "code": FAILED}), flush=True)
        return FAILED
    print(json.dumps({"profile": profile_json(resolved).decode()}), flush=True)
    return 0


def main() -> int:
    """The child."""
    if sys.argv[1:] == ["--rules"]:
        return _rules()
    from procs.fold.plan import PlanError, plan_of
    from sim.recordings.spool import RecordingError
    from sim.recordings.venue_staging import stage_any
    from trading.instruments import InstrumentError

    shown = -1
    profile = profile_from_json(sys.stdin.buffer.read())

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if total and done * 50 // total > shown:
            shown = done * 50 // total
            print(json.dumps({"done": done, "total": total}), flush=True)

    try:
        staged = stage_any([Path(name) for name in sys.argv[2:]], Path(sys.argv[1]), progress=progress)
        plan_of(profile, staged)
    except (RecordingError, PlanError, InstrumentError) as error:
        print(json.dumps({"problem": str(error)}), flush=True)
        return USAGE
    symbols = [{**asdict(symbol), "market": int(symbol.market)} for symbol in staged.symbols]
    print(json.dumps({"symbols": symbols, "frames": staged.n_frames, "notes": [*staged.said(), *staged.notes]}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
