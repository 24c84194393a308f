"""Files read within bounds: what is inflated, and how long a line is, is limited before it is held.

    pieces(path)          the text in bounded pieces (sim.recordings.inflating), gzip or plain
    lines(path, longest)  its lines, numbered from 1

A gzip of a few MB may inflate to many GB. Here it is inflated piece by piece; a line beyond its limit, and blanks without end,
are refused by name. So whoever reads this way needs memory for one piece and one line, whatever the file is.

What this module is not: it knows no format. Archives of arrays are judged by their heads (procs.recordings.hftbacktest).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sim.recordings.inflating import BrokenGzipError, text_pieces


class RecordingError(ValueError):
    """A recording or a spool cannot be used; the message names the file, where it can the line, and the remedy."""


GZIP: Final = b"\x1f\x8b"
LONGEST_LINE: Final = 1 << 24
"""Bytes of a line; a venue's whole book takes some millions."""
MOST_BLANK: Final = 1 << 24
"""Bytes of nothing but blanks and line ends, one after another."""


def pieces(path: Path, advance: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """The text of a file. `advance` is told the bytes read.

    Raises RecordingError for blanks without end, zlib.error for damaged gzip data, EOFError where it ends in the middle (what was
    whole came before), OSError.
    """
    blank = line = 0
    for piece in _pieces(path, advance):
        blank = blank + len(piece) if piece.isspace() else 0
        line += piece.count(b"\n")
        if blank > MOST_BLANK:
            raise RecordingError(f"{path}:{line + 1}: more than {MOST_BLANK >> 20} MB of blanks without a word; this is no data")
        yield piece


def _pieces(path: Path, advance: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        try:
            yield from text_pieces(file, advance)
        except BrokenGzipError as error:
            raise (EOFError if error.cut else zlib.error)(str(error)) from None


def lines(path: Path, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes]]:
    """(number, line with its end) of a file; long stretches of blank lines are left out.

    Raises as `pieces` does, and RecordingError for a line longer than `longest`.
    """
    number, left = 0, b""
    for piece in pieces(path):
        if not left and piece.isspace():
            number += piece.count(b"\n")
            left = piece[piece.rfind(b"\n") + 1 :]
            continue
        *whole, left = (left + piece).split(b"\n")
        for line in whole:
            number += 1
            yield number, line + b"\n"
        if len(left) > longest:
            raise RecordingError(f"{path}:{number + 1}: the line is longer than {longest >> 20} MB; this is no data")
    if left:
        yield number + 1, left


def packed(path: Path) -> bool:
    """Whether the file's first bytes are gzip's. Raises OSError."""
    with path.open("rb") as file:
        return file.read(2) == GZIP
