"""What is kept of a run when its memory goes: its last figures, its profile, and where its journals are.

    <state>/<instance>/last_run.json      written by `start --foreground` as the pipeline ends
    <journals of the run>/run.json        the same; written as it starts, without figures, and again as it ends
    <state>/<instance>/elsewhere/ID       a link to a run's journals, where `pipeline.journal_dir` puts them elsewhere

A run's id is the name of its folder of journals. `stats`, `latency`, `report` and `trace` speak of the last run while no pipeline
of that name runs, and of any other by `--run ID`. A run whose supervisor died has its journals, but no figures: `report` and
`trace` need none.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from procs import rundir
from procs.cli.outcome import NOT_RUNNING, USAGE, CliError
from procs.whole_files import write_whole

FILE: Final = "last_run.json"
MAX_BYTES: Final = 4 << 20
RUN_FILE: Final = "run.json"
JOURNALS: Final = "journal"
SUFFIX: Final = ".journal"
ELSEWHERE: Final = "elsewhere"


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

    @property
    def id(self) -> str:
        """The name of its folder of journals."""
        return Path(self.journal_dir).name

    @property
    def died(self) -> bool:
        """It has no end of its own: its supervisor was killed, or it still runs."""
        return self.ended == 0.0

    @property
    def seconds(self) -> float:
        """How long it ran; of one that died, up to the last journal that was written."""
        return max((self.ended or self._last_written()) - self.started, 0.0)

    def _last_written(self) -> float:
        times = [self.started]
        with contextlib.suppress(OSError):
            times += [entry.stat().st_mtime for entry in os.scandir(self.journal_dir) if entry.name.endswith(SUFFIX)]
        return max(times)


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


def note(run: LastRun) -> None:
    """Write it beside its journals, if it has any, and make it findable by its id. Raises OSError."""
    folder = Path(run.journal_dir)
    if not folder.is_dir():
        return
    write_whole(folder / RUN_FILE, msgspec.json.encode(run))
    state = rundir.state_dir(run.instance)
    if folder.parent != state / JOURNALS:
        links = state / ELSEWHERE
        links.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (links / folder.name).symlink_to(folder)


def forget_empty(instance: str, folder: Path) -> None:
    """Remove a run's folder in which nothing was recorded: the run failed before, or was told not to."""
    with contextlib.suppress(OSError):
        if {entry.name for entry in os.scandir(folder)} <= {RUN_FILE}:
            (folder / RUN_FILE).unlink(missing_ok=True)
            folder.rmdir()
            (rundir.state_dir(instance) / ELSEWHERE / folder.name).unlink(missing_ok=True)


def _read(path: Path) -> LastRun | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        with open(fd, "rb") as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=LastRun)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def load(instance: str) -> LastRun | None:
    """The last run of an instance that ended in order, None if there was none or its file cannot be read."""
    return next((run for folder in state_folders(instance) if (run := _read(folder / FILE)) is not None), None)


def in_folder(folder: Path) -> LastRun | None:
    """The run whose journals lie here, wherever they lay when it was written; None if that cannot be read."""
    run = _read(folder / RUN_FILE)
    return run and msgspec.structs.replace(run, journal_dir=str(folder))


def _names() -> list[str]:
    """The instances of this user that have state."""
    base = rundir.state_base()
    if rundir.INSTANCE.fullmatch(base.name) and ((base / FILE).is_file() or (base / JOURNALS).is_dir()):
        return [base.name]
    with contextlib.suppress(OSError):
        return sorted(entry.name for entry in base.iterdir() if rundir.INSTANCE.fullmatch(entry.name) and entry.is_dir())
    return []


def runs(instance: str = "") -> list[LastRun]:
    """The runs of an instance (of any, if "") whose journals are still there, the newest first."""
    found: dict[str, LastRun] = {}
    for name in [instance] if instance else _names():
        for place in (folder / kind for folder in state_folders(name) for kind in (JOURNALS, ELSEWHERE)):
            with contextlib.suppress(OSError):
                for entry in os.scandir(place):
                    run = in_folder(Path(os.path.realpath(entry.path)))
                    if run is not None:
                        found.setdefault(run.journal_dir, run)
    return sorted(found.values(), key=lambda run: (run.started, run.id), reverse=True)


def named(run_id: str, instance: str = "") -> LastRun:
    """The run of this id, or whose folder of journals this is. CliError USAGE if there is none."""
    if "/" in run_id:
        run = in_folder(Path(os.path.abspath(run_id)))
        if run is None:
            raise CliError(f"{run_id}: no {RUN_FILE} of a run lies there; name a folder of journals", USAGE)
        return run
    for one in runs(instance):
        if one.id == run_id:
            return one
    whose = f" of instance {instance!r}" if instance else ""
    raise CliError(f"no run {run_id!r}{whose}: `scalperctl runs` lists those that there are", USAGE)


def wanted(instance: str, run_id: str = "", *, figures: bool = False) -> LastRun:
    """The run of this id; without one the last of `instance`, of any if that is "". CliError NOT_RUNNING if there is none.

    A run that died is the last one, too, but not where its `figures` are asked for.
    """
    if run_id:
        one = named(run_id, instance)
        if figures and not one.figures:
            raise CliError(
                f"run {one.id} has no figures: its supervisor died, and they went with its memory; "
                f"`scalperctl report --run {one.id}` speaks of its journals",
                NOT_RUNNING,
            )
        return one
    found = [it for name in ([instance] if instance else _names()) if (it := load(name)) is not None]
    if not figures:
        found += runs(instance)
    last = max(found, key=lambda run: (run.started, run.ended), default=None)
    if last is None:
        whose = f"instance {instance!r} is not running and has" if instance else "no pipeline is running and there is"
        start = "scalperctl start" + (f" --instance {instance}" if instance else "")
        raise CliError(f"{whose} no finished run: start one with `{start}`, or see `scalperctl demo`", NOT_RUNNING)
    return last
