"""Which instance a command means, and its memory, opened to look at.

A name given by --instance counts, then the profile's of --config, then the only pipeline that runs. Looking never makes a
folder or a file.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from procs import rundir
from procs.cli.outcome import NOT_RUNNING, USAGE, CliError
from procs.memory import segments as pipeline
from procs.memory.segments import Memory
from procs.profiles.config import load_profile, parse_override, profile_from_json
from procs.profiles.schema import Profile
from procs.supervision import control
from procs.whole_files import read_small, write_whole
from shm.errors import SegmentError, SegmentMissing

PROFILE_NAME = "profile.json"
DEFAULT_INSTANCE = Profile().instance


def command_for(instance: str, words: str) -> str:
    """A command as a hint gives it: with --instance where it is not the default one."""
    return f"scalperctl {words}" + ("" if instance in ("", DEFAULT_INSTANCE) else f" --instance {instance}")


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says over the profile's file."""
    found: dict[str, Any] = {}
    for text in getattr(args, "set", None) or []:
        key, value = parse_override(text)
        found[key] = value
    files: Sequence[str] = getattr(args, "recording", None) or []
    if files:
        found["source.kind"] = "recording"
        found["source.files"] = [str(file) for file in files]
    speed = getattr(args, "speed", None)
    if speed is not None:
        found["source.speed"] = speed if speed == "max" else _number(speed)
    if getattr(args, "instance", None):
        found["instance"] = args.instance
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CliError(f"--speed {text!r} is no speed: write max, or a number such as 1 or 10", USAGE) from None


def profile_for(args: argparse.Namespace, *, last: dict[str, Any] | None = None) -> Profile:
    """The profile of --config with the command line's overrides, `last` over these; `replay` where only recordings are given."""
    named = getattr(args, "config", None)
    name = named or ("replay" if getattr(args, "recording", None) else "paper")
    return load_profile(name, {**overrides_of(args), **(last or {})}, pin=_pin)


def _pin(models: str) -> str:
    from procs.learning.registry import all_pinned  # read only where a profile names a model

    return all_pinned(models)


def living() -> list[str]:
    """Names of the instances that run."""
    return [name for name in rundir.instances() if rundir.holder(name)]


def instance_for(args: argparse.Namespace, *, must_run: bool = True) -> str:
    """The instance that a command means. CliError NOT_RUNNING or USAGE where there is none, or no one choice."""
    name = getattr(args, "instance", None)
    if name:
        try:
            rundir.checked_name(name)
        except ValueError as error:
            raise CliError(str(error), USAGE) from None
    elif getattr(args, "config", None):
        name = load_profile(args.config).instance
    if not name:
        running = living()
        if len(running) > 1:
            raise CliError(f"several pipelines run ({', '.join(running)}): say which with --instance NAME", USAGE)
        if not running:
            if not must_run:
                return ""
            raise CliError(rundir.squatted() or "no pipeline is running: start one with `scalperctl start`", NOT_RUNNING)
        return running[0]
    if must_run and not rundir.holder(name):
        problem = rundir.squatted(name) or f"instance {name!r} is not running: start it with `scalperctl start --instance {name}`"
        raise CliError(problem, NOT_RUNNING)
    return str(name)


@contextlib.contextmanager
def looking_at(instance: str) -> Iterator[Memory]:
    """The instance's memory, read-only. CliError NOT_RUNNING if there is none (yet)."""
    try:
        memory = pipeline.attach(instance, readonly=True)
    except SegmentMissing:
        raise CliError(
            f"instance {instance!r} has no shared memory (it is starting, ending, or not running): "
            f"see `{command_for(instance, 'status')}`, or start it with `{command_for(instance, 'start')}`",
            NOT_RUNNING,
        ) from None
    try:
        yield memory
    finally:
        with contextlib.suppress(SegmentError, BufferError):
            memory.close()


def running_profile(instance: str) -> Profile | None:
    """The profile that a living instance runs by."""
    for folder in rundir.run_dir_candidates(instance):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return profile_from_json(read_small(folder / PROFILE_NAME, LARGEST_NOTE))
    return None


def ask(instance: str, message: dict[str, Any], timeout: float = 5.0) -> dict[str, Any]:
    """The supervisor's answer. Raises control.ControlError; NotRunningError among them."""
    return control.request(instance, message, timeout)


# ---- where the living run keeps what -----------------------------------------------------------------------------------

RUN_NAME = "run.json"
LARGEST_NOTE = 1 << 24
"""Bytes that such a note may have."""


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Where a run has its journals and its spool, for whoever looks while it lives. Raises OSError."""
    write_whole(path, msgspec.json.encode(note))


def read_note(path: Path) -> dict[str, Any]:
    """What `write_note` wrote; empty if there is nothing to read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode(read_small(path, LARGEST_NOTE))
        return found if isinstance(found, dict) else {}
    return {}


def _note_of(instance: str, key: str) -> Path | None:
    for folder in rundir.run_dir_candidates(instance):
        value = read_note(folder / RUN_NAME).get(key)
        if isinstance(value, str):
            return Path(value)
    return None


def journal_folder(instance: str) -> Path | None:
    """Where a living run has its journals."""
    return _note_of(instance, "journal_dir")


def spool_of(instance: str) -> Path | None:
    """The staged recording of a living run."""
    return _note_of(instance, "spool")


def recordings_of(instance: str) -> list[dict[str, Any]]:
    """The recording's files of a living run, as procs.cli.provenance.digests found them."""
    for folder in rundir.run_dir_candidates(instance):
        value = read_note(folder / RUN_NAME).get("recordings")
        if isinstance(value, list):
            return value
    return []
