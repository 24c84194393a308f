"""Where a command writes what it made: each file appears whole or not at all, never over another unasked, and nothing else in a
folder is touched.

It hands out a path or a folder to write to, and puts what stands there in place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from procs.whole_files import PARTIAL, sync_folder, whole_file


class RecordingsError(ValueError):
    """A recording cannot be read, judged or converted; the message names the file and the remedy."""


def _refuse(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise RecordingsError(f"{target} exists already; name another place with --out, or write over it with --force")


def _parent_of(target: Path) -> Path:
    """The folder that a target lies in, whatever the target is called (`.` too). Raises RecordingsError."""
    parent = Path(os.path.abspath(target)).parent
    if not parent.is_dir():
        raise RecordingsError(f"{parent} is no folder; make it first, or name another place with --out")
    return parent


@contextmanager
def new_file(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A path to write to; it becomes `target` when the block ends well, and is gone when it does not."""
    if target.is_dir():
        raise RecordingsError(f"{target} is a folder; name a file with --out")
    _refuse(target, force)
    _parent_of(target)
    with whole_file(target, sync=True, mode=0o644) as file:
        yield Path(file.name)


@contextmanager
def new_files(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to write files to; when the block ends well they are moved into the folder `target`, one by one, each whole.

    The folder is made if it is not there. Files of other names in it stay as they are; one of the same name is refused before
    anything is moved, with `force` it is replaced.
    """
    parent = _parent_of(target)
    if target.exists() and not target.is_dir():
        raise RecordingsError(f"{target} is a file; name a folder with --out")
    # on the target's own file system, so that a file is moved by its name alone
    made = Path(tempfile.mkdtemp(prefix=".new.", suffix=PARTIAL, dir=target if target.is_dir() else parent))
    try:
        yield made
        found = [Path(name) for name in names_in(made)]
        for name in found:
            _refuse(target / name, force)
            if (target / name).is_dir():
                raise RecordingsError(f"{target / name} is a folder, and a file of that name is to be written; move it away")
        for name in found:
            _sync(made / name)
        for name in found:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).replace(target / name)
        for folder in {(target / name).parent for name in found}:
            sync_folder(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)  # a folder of our own making


def names_in(folder: Path) -> list[str]:
    """The files below a folder by their names from there, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
