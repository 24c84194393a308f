"""What a run was made of, for whoever reads its report later: settings that differ from the defaults, digests of recordings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from procs.profiles.schema import Profile

if TYPE_CHECKING:
    from sim.report.model import RecordingFile, Setting

TOLD_ELSEWHERE: Final = ("instance", "world", "source.files", "symbols")
"""What a report says in lines of its own."""

LONGEST: Final = 60


def _leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, below in value.items():
            yield from _leaves(below, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _written(value: Any) -> str:
    """A value as a profile writes it, cut where it is long."""
    if isinstance(value, str):
        text = value or '""'
    elif value is None or isinstance(value, bool):
        text = {None: "none", True: "true", False: "false"}[value]
    elif isinstance(value, float):
        text = str(int(value)) if value.is_integer() else repr(value)
    elif isinstance(value, (int, list, tuple, dict)):
        text = str(value) if isinstance(value, int) else msgspec.json.encode(value).decode()
    else:
        text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def settings_of(profile: Profile) -> tuple[Setting, ...]:
    """Every setting that differs from its default, in the profile's order; instance, world, files and symbols left out."""
    from sim.report.model import Setting

    default = dict(_leaves(msgspec.to_builtins(Profile())))
    found = []
    for key, value in _leaves(msgspec.to_builtins(profile)):
        if key not in TOLD_ELSEWHERE and default.get(key) != value:
            found.append(Setting(key=key, value=_written(value), default=_written(default.get(key))))
    return tuple(found)


def digests(files: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Name, bytes and SHA-256 of each regular file, taken before a run reads them (a pipe is read but once). Raises OSError."""
    found = []
    for name in filter(os.path.isfile, files):
        with open(name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append({"name": Path(name).name, "bytes": file.tell(), "sha256": digest})
    return found


def recordings_of(kept: Iterable[Mapping[str, Any]]) -> tuple[RecordingFile, ...]:
    """What `digests` found, as a report takes it."""
    from sim.report.model import RecordingFile

    return tuple(RecordingFile(**entry) for entry in kept)
