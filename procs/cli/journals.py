"""What an instance's state takes on disk, and the broom for journals of runs that have ended.

    <state>/<instance>/journal/<time>-<pid>/      one folder a run (procs.cli.starting.journal_folder_for)

A folder that is not named like a run's is nobody's to remove, and never one that a living pipeline writes to.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from procs import rundir
from procs.cli import last_run, running

RUN_FOLDER: Final = re.compile(r"\d{8}T\d{6}Z-\d+")
KEPT: Final = 3
"""Runs whose journals `clean --journals` keeps where nobody says how many."""


@dataclass(frozen=True, slots=True)
class RunJournals:
    """One run's journals: `living` while a pipeline writes to them."""

    instance: str
    folder: Path
    bytes: int
    living: bool


def size_of(folder: Path) -> int:
    """Bytes on disk below a folder; what cannot be read does not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def state_of(instance: str) -> Path | None:
    """The instance's state directory, None where it has none yet."""
    return next((folder for folder in last_run.state_folders(instance) if folder.is_dir()), None)


def runs_of(instance: str) -> list[RunJournals]:
    """The journals of every run of an instance, the oldest first.

    Those that its profile puts elsewhere are told by the links of its state, not by where they lie: another instance may put its
    own there.
    """
    living = {folder.resolve() for name in running.living() if (folder := running.journal_folder(name)) is not None}
    last = last_run.load(instance)
    folders = [] if last is None or not last.journal_dir else [Path(last.journal_dir)]
    for state in last_run.state_folders(instance):
        with contextlib.suppress(OSError):
            folders += [folder for folder in (state / last_run.JOURNALS).iterdir() if not folder.is_symlink()]
        with contextlib.suppress(OSError):
            folders += [link.resolve() for link in (state / last_run.ELSEWHERE).iterdir()]
    found = {folder.resolve() for folder in folders if RUN_FOLDER.fullmatch(folder.name) and folder.is_dir()}
    return [RunJournals(instance, folder, size_of(folder), folder in living) for folder in sorted(found, key=lambda it: it.name)]


def instances() -> list[str]:
    """Every instance of this user that has a state directory."""
    base = rundir.state_base()
    names = [base.name] if (base / "journal").is_dir() and rundir.INSTANCE.fullmatch(base.name) else []
    with contextlib.suppress(OSError):
        names += sorted(entry.name for entry in base.iterdir() if entry.is_dir() and rundir.INSTANCE.fullmatch(entry.name))
    return names


def too_many(runs: list[RunJournals], keep: int) -> list[RunJournals]:
    """All runs of one instance but the last `keep`, and but a living one, which counts among those kept."""
    return [run for run in (runs[:-keep] if keep else runs) if not run.living]


def remove(run: RunJournals) -> None:
    """Remove a run's journals. Raises OSError with the path that could not be removed."""
    shutil.rmtree(run.folder)
    for state in last_run.state_folders(run.instance):
        with contextlib.suppress(OSError):
            (state / last_run.ELSEWHERE / run.folder.name).unlink()


def megabytes(size: int) -> str:
    """Bytes for people: "716.3 MB", "1.2 GB"."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def sentence(instance: str) -> str:
    """What the state of an instance takes, and how to make it less; "" where it has none."""
    state = state_of(instance)
    if state is None:
        return ""
    runs = runs_of(instance)
    kept = sum(run.bytes for run in runs)
    text = f"state: {megabytes(size_of(state))} in {state}"
    if not runs:
        return text
    inside = all(state in run.folder.parents for run in runs)
    where = "" if inside else " elsewhere"
    text += f", journals of {len(runs)} run{'s' if len(runs) > 1 else ''}{where} {megabytes(kept)}"
    if too_many(runs, KEPT):
        text += f"; `{running.command_for(instance, 'clean --journals')}` keeps the last {KEPT}"
    return text


def figures(instance: str) -> dict[str, object]:
    """The same for programs."""
    state, runs = state_of(instance), runs_of(instance)
    return {
        "folder": str(state) if state is not None else None,
        "bytes": size_of(state) if state is not None else 0,
        "runs": len(runs),
        "journal_bytes": sum(run.bytes for run in runs),
    }
