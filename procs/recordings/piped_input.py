"""Standard input and pipes, where a recording is wanted: it is read more than once, so it goes into a file first.

What this module is not: it looks into no byte.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from procs.recordings.output import RecordingsError

STDIN = "-"


@contextmanager
def piped_files() -> Iterator[Callable[[str], str]]:
    """A function that answers a path with itself, and a pipe's, a device's or STDIN with that of a copy, which lives as long as
    the block. Raises RecordingsError where there is no room for it."""
    with tempfile.TemporaryDirectory(prefix="scalper-pipe-") as folder:
        yield lambda given: _file_of(given, Path(folder))


def _file_of(given: str, folder: Path) -> str:
    path = Path("/dev/stdin" if given == STDIN else given)
    if not path.exists() or path.is_file() or path.is_dir():
        return str(path) if given == STDIN else given
    copy = folder / path.name
    try:
        with path.open("rb") as source, copy.open("xb") as file:
            shutil.copyfileobj(source, file)
    except FileExistsError:
        raise RecordingsError(f"{given}: is named twice, and a pipe can be read only once; name it once") from None
    except OSError as error:
        raise RecordingsError(f"{given}: {error.strerror or error} while it was copied to {copy}; write it to a file") from error
    return str(copy)
