"""A session's frames as its feed got them: slots from the journal of the ring `frames`, bytes from the raw recording.

The recorder keeps both where a pipeline journals and records (`record.raw: true`), and says beside the journals where the
recording lies and by which number its members know the session (`raw_recording.json`). Of each file only the members of that
session are read; the lines of a file are the frames of its symbol, in the order of the ring.

Only for venues whose own bytes the feed reads (trading.venues.names.NATIVE); of others the ring has plain frames, which are
not kept.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from procs.journal.comparing import PIECE, Kept
from procs.recordings.frame_log import segments
from procs.recordings.frame_log_format import CONNECTION, members
from procs.whole_files import read_small, write_whole
from trading.jit import Words
from trading.records import Kind
from trading.venues.names import NATIVE

FILE: Final = "raw_recording.json"
LARGEST: Final = 1 << 20
_OWN: Final = b'{"scalper":'
_BYTES: Final = b'{"scalper":"bytes"'
_KIND, _SYMBOL = 2, 3  # words of a slot; a kind is the high half, a symbol the low one


class RawFramesError(RuntimeError):
    """Journal and raw recording do not belong together; the message names the place."""


@dataclass(frozen=True, slots=True)
class RawRecording:
    """Where a session's frames lie. `names`: (market, symbol) by index."""

    folder: str
    run: int
    names: tuple[tuple[str, str], ...]

    def note(self, journals: Path) -> None:
        """Say it beside the journals. Raises OSError."""
        said = {"folder": self.folder, "run": self.run, "names": self.names}
        write_whole(journals / FILE, json.dumps(said).encode() + b"\n", mode=0o644)

    @property
    def whole(self) -> bool:
        """Whether every symbol's frames are kept as the feed gets them."""
        return all(market in NATIVE for market, _ in self.names)


def noted(journals: Path) -> RawRecording | None:
    """What lies beside the journals; None where nothing does."""
    try:
        said = json.loads(read_small(journals / FILE, LARGEST))
        return RawRecording(str(said["folder"]), int(said["run"]), tuple((str(a), str(b)) for a, b in said["names"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _lines(folder: Path, run: int) -> Iterator[tuple[int, bytes]]:
    """(receive time, bytes) of each frame in a symbol's files, as the venue sent it but for line breaks."""
    for path in segments(folder):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            for one in members(fd):
                if one.run != run:
                    continue
                for line in zlib.decompress(os.pread(fd, one.size, one.offset), 31).splitlines():
                    stamp, _, raw = line.partition(b" ")
                    if raw.startswith(_BYTES):
                        raw = base64.b64decode(json.loads(raw)["base64"])
                    elif raw.startswith(_OWN):
                        continue
                    yield int(stamp), raw
        finally:
            os.close(fd)


def frames(kept: Kept, recording: RawRecording) -> Iterator[tuple[Words, bytes]]:
    """(slot, bytes) of the ring's records, in their order, as far as both reach; bytes are empty for an event of a line.

    Raises RawFramesError, JournalDamaged, OSError, zlib.error.
    """
    base = Path(recording.folder)
    folders: Sequence[Path] = [base / market.replace(":", "-") / name for market, name in recording.names]
    readers = [_lines(folder, recording.run) for folder in (*folders, base / CONNECTION)]  # index -1 is the connection's
    for start in range(0, len(kept), PIECE):
        for slot in kept.piece(start, start + PIECE):
            if int(slot[_KIND]) >> 32 not in (Kind.FRAME, Kind.RAW):
                yield slot, b""
                continue
            symbol = (int(slot[_SYMBOL]) & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
            found = next(readers[symbol if 0 <= symbol < len(folders) else -1], None)
            if found is None:
                return
            if found[0] != int(slot[0]):
                raise RawFramesError(
                    f"{base}: frame {int(slot[-1]) - 1} of the session came at {int(slot[0])}, the recording has one of "
                    f"{found[0]} there: it is not whole"
                )
            yield slot, found[1]
