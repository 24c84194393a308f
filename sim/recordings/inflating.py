"""The text of a file, gzip or plain, in bounded pieces; where the data breaks, all that stands before the break comes first.

What this module is not: it knows no lines.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final

READ: Final = 1 << 16
"""Bytes read from a file at a time. Small: each member that ends copies what was read behind it."""
PIECE: Final = 1 << 20
"""Bytes of text that a piece has at most."""
_GZIP: Final = b"\x1f\x8b"
_SEARCHED: Final = 256


class BrokenGzipError(ValueError):
    """The gzip data ends or breaks here; the message says how, as a clause. `cut`: it ends too early."""

    def __init__(self, how: str, cut: bool = False) -> None:
        super().__init__(how)
        self.cut = cut


def text_pieces(file: IO[bytes], advance: Callable[[int], None] = lambda n: None) -> Iterator[bytes]:
    """The text, each piece of at most PIECE bytes. `advance` is told of the bytes read. Raises BrokenGzipError, OSError."""
    raw = file.read(READ)
    packed = raw.startswith(_GZIP)
    inflate = zlib.decompressobj(31)
    while raw:
        advance(len(raw))
        if not packed:
            yield raw
        while packed and raw:
            if inflate.eof:
                raw = raw.lstrip(b"\0")  # padding between members
                if raw and not _GZIP.startswith(raw[:2]):
                    raise BrokenGzipError("is followed by bytes that are none")
                inflate = zlib.decompressobj(31) if raw else inflate
                if not raw:
                    break
            before = inflate.copy()
            try:
                text = inflate.decompress(raw, PIECE)
            except zlib.error as error:
                yield from _until_broken(before, raw)
                wrong = "does not fit its checksum" if "check" in str(error) and "header" not in str(error) else "is damaged"
                raise BrokenGzipError(wrong) from None
            if text:
                yield text
            raw = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        raw = file.read(READ)
    if packed:
        if not inflate.eof and (tail := inflate.flush()):
            yield tail
        if not inflate.eof:
            raise BrokenGzipError("ends in the middle", cut=True)


def _until_broken(inflate: zlib._Decompress, raw: bytes) -> Iterator[bytes]:
    """What of `raw` inflates, byte by byte at its end."""
    for at in range(0, len(raw), _SEARCHED):
        before, piece = inflate.copy(), raw[at : at + _SEARCHED]
        try:
            yield inflate.decompress(piece)
        except zlib.error:
            for k in range(len(piece)):
                try:
                    yield before.decompress(piece[k : k + 1])
                except zlib.error:
                    return
