"""Where a command writes what it made: a file or a folder that appears whole or not at all, never over another unasked.

It hands out a path or a folder to write to, and puts that in place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from procs.whole_files import whole_file


class RecordingsError(ValueError):
    """A recording cannot be read, judged or converted; the message names the file and the remedy."""


def _refuse(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise RecordingsError(f"{target} exists already; name another place with --out, or write over it with --force")
    if not target.parent.is_dir():
        raise RecordingsError(f"{target.parent} is no folder; make it first, or name another place with --out")


@contextmanager
def new_file(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A path to write to; it becomes `target` when the block ends well, and is gone when it does not."""
    _refuse(target, force)
    if target.is_dir():
        raise RecordingsError(f"{target} is a folder; name a file with --out")
    with whole_file(target, sync=True, mode=0o644) as file:
        yield Path(file.name)


@contextmanager
def new_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """As `new_file`, for a folder of files."""
    _refuse(target, force)
    if target.exists() and not target.is_dir():
        raise RecordingsError(f"{target} is a file; name a folder with --out")
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                _sync(path)
        partial.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
            target.replace(old / "it")
            partial.replace(target)
            shutil.rmtree(old)
        else:
            partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
