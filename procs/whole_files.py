"""Files that appear whole or not at all, also through a crash: written under another name beside the place, then renamed.

    write_whole(path, raw)         all of the bytes, over what was there
    with whole_file(path) as file  the same for who writes piece by piece, or by `file.name`
    read_small(path, most)         the bytes of one, none of a file that is larger

`replace=False` refuses a name that is taken (FileExistsError) where others may write at the same moment; `sync=True` makes file
and name durable before it returns, for what must survive the machine (without it only the process may die); `mode`: 0o600 unless
others are to read it.

What this module is not: no format, and no lock. Files that are appended to (journals, logs) have their own ways.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

PARTIAL: Final = ".partial"
"""How the other name ends: .NAME.<random>.partial; only a kill leaves one behind."""


@contextmanager
def whole_file(target: Path, *, replace: bool = True, sync: bool = False, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `target` when the block ends well and is gone when it does not. Raises OSError."""
    partial = target.with_name(f".{target.name}.{os.urandom(6).hex()}{PARTIAL}")
    try:
        with open(partial, "x+b", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, mode)) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if replace:
            os.replace(partial, target)
        else:
            os.link(partial, target)  # unlike rename, never goes over what somebody else was first to put there
    finally:
        partial.unlink(missing_ok=True)
    if sync:
        sync_folder(target.parent)


def write_whole(target: Path, raw: bytes, *, replace: bool = True, sync: bool = False, mode: int = 0o600) -> None:
    """Put these bytes at `target`, all or none. Raises OSError."""
    with whole_file(target, replace=replace, sync=sync, mode=mode) as file:
        file.write(raw)


def read_small(path: Path, most: int) -> bytes:
    """The bytes of a file that has at most `most` of them. Raises OSError; EFBIG, and nothing is held, where it has more."""
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
    return raw


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
