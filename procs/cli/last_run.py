"""What is kept of a run when its memory goes: its last figures, its profile, and where its journals are.

    <state>/<instance>/last_run.json      written by `start --foreground` as the pipeline ends

`stats`, `latency`, `report` and `trace` speak of it while no pipeline of that name runs.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from procs import rundir
from procs.cli.outcome import NOT_RUNNING, CliError
from procs.whole_files import write_whole

FILE: Final = "last_run.json"
MAX_BYTES: Final = 4 << 20


class LastRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run that has ended. Times are Unix seconds; `figures` and `hops` are as `--json` prints them."""

    instance: str
    profile: msgspec.Raw
    journal_dir: str
    symbols: list[dict[str, Any]] = []  # of a recording, as staged: sim.recordings.spool.StagedSymbol's fields
    recordings: list[dict[str, Any]] = []  # its files: name, bytes and sha256 as the run began
    frames: int = 0
    started: float = 0.0
    ended: float = 0.0
    exit_code: int = 0
    figures: dict[str, Any] = {}
    hops: list[dict[str, Any]] = []


def state_folders(instance: str) -> list[Path]:
    """Where an instance's state may be, without making anything: this user's place, then the system service's."""
    rundir.checked_name(instance)
    base = rundir.state_base()
    own = base if base.name == instance else base / instance
    return list(dict.fromkeys([own, rundir.SYSTEM_STATE / instance]))


def save(run: LastRun) -> Path:
    """Write it, whole or not at all. Raises OSError."""
    path = rundir.state_dir(run.instance) / FILE
    write_whole(path, msgspec.json.encode(run))
    return path


def load(instance: str) -> LastRun | None:
    """The last run of an instance, None if there was none or its file cannot be read."""
    for folder in state_folders(instance):
        try:
            fd = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            return msgspec.json.decode(os.read(fd, MAX_BYTES), type=LastRun)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        finally:
            os.close(fd)
    return None


def latest() -> LastRun | None:
    """The run that ended last, of all instances of this user."""
    base = rundir.state_base()
    names = []
    with contextlib.suppress(OSError):
        names = [entry.name for entry in base.iterdir() if (entry / FILE).is_file() and rundir.INSTANCE.fullmatch(entry.name)]
    if (base / FILE).is_file() and rundir.INSTANCE.fullmatch(base.name):
        names.append(base.name)
    return max((run for name in names if (run := load(name)) is not None), key=lambda run: run.ended, default=None)


def wanted(instance: str) -> LastRun:
    """The last run of `instance`, of any if that is "". CliError NOT_RUNNING if there is none."""
    run = load(instance) if instance else latest()
    if run is None:
        whose = f"instance {instance!r} is not running and has" if instance else "no pipeline is running and there is"
        start = "scalperctl start" + (f" --instance {instance}" if instance else "")
        raise CliError(f"{whose} no finished run: start one with `{start}`, or see `scalperctl demo`", NOT_RUNNING)
    return run
