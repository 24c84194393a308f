"""Writing a spool: whole at its place, or not there at all and what was there before is as it was.

What this module is not: the format, which is sim.recordings.spool's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sim.recordings.spool import DATA_OFFSET, RecordingError, StagedRecording, header_bytes


@contextmanager
def spool_file(out: Path) -> Iterator[IO[bytes]]:
    """A file for the frames, which becomes `out` when the block ends well; `describe` it before. RecordingError without room."""
    partial: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            partial = Path(file.name)
            file.write(bytes(DATA_OFFSET))
            yield file
        os.replace(partial, out)
        partial = None
    except OSError as error:
        raise RecordingError(
            f"{out}: {error.strerror}; the spool needs a folder that can be written, with room for it"
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def describe(file: IO[bytes], recording: StagedRecording) -> StagedRecording:
    """Put what the frames are before them; answers it."""
    file.seek(0)
    file.write(header_bytes(recording))
    return recording
