"""What a raw recording's file is made of: gzip members that say which frames they hold and how long they are.

    member   1f 8b 08 04 | mtime 0 | XFL | OS | XLEN | "SC" LEN | MEMBER | deflated lines | crc32 | length
    MEMBER   run u64 | first sequence u64 | end sequence u64 | first recv_ns i64 | last recv_ns i64 | bytes u32 | lines u32

Members one after another are one gzip file: `zcat` prints the lines, any reader of gzip reads them. The extra field is for
whoever has to go on after a crash: from member to member in a few bytes each, without inflating anything. `bytes` is the
whole member's length, so a member that is cut short is known by the file's size alone.

A line is `<recv_ns> {frame}`. A line whose frame begins `{"scalper":` is none of the venue's: it says what the file holds
(`file`), by which connection the frames that follow came (`on`), that frames were lost or a line went up or down, or carries
bytes that are no text.

What this module is not: it opens no file for writing; `procs.recordings.frame_log` does.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from trading.records import Kind
from trading.wire.plain_frame import MAGIC

SUFFIX: Final = ".gz"
CONNECTION: Final = "_connection"
"""Stands for the symbol of frames that are about none."""

_HEAD: Final = struct.Struct("<4sIBBHcc")  # magic, method and flags; mtime; XFL; OS; XLEN; SI1; SI2
_MEMBER: Final = struct.Struct("<QQQqqII")
_MAGIC: Final = b"\x1f\x8b\x08\x04"
_SI: Final = (b"S", b"C")
_XLEN: Final = 4 + _MEMBER.size
HEADER_BYTES: Final = 12 + _XLEN
TRAILER_BYTES: Final = 8
_PLAIN: Final = MAGIC.to_bytes(8, "little")
_BEGINS: Final = _MAGIC + bytes(4)
"""Every member's first bytes; those behind them depend on the level."""
_SEARCHED: Final = 1 << 20
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")


class Member(NamedTuple):
    """One member's extra field, and where it stands. `end` is the sequence after its last frame's."""

    offset: int
    run: int
    first: int
    end: int
    first_ns: int
    last_ns: int
    size: int
    lines: int


class Taken(NamedTuple):
    """One record of the frames ring with its bytes. `symbol` is -1 for frames about none; `line` is the record's flags: the
    line, counted from 0; for Kind.RAW what `raw_flags` packs."""

    seq: int
    ts_ns: int
    kind: int
    symbol: int
    line: int
    raw: bytes


class Came(NamedTuple):
    """How a RAW frame came. `connection` counts a receiver's; aside: another connection spoke for the symbol, so that the feed
    was not given this frame."""

    line: int
    connection: int
    aside: bool


def raw_flags(came: Came) -> int:
    """The flags of a RAW record of the frames ring, from 0 to 2**31 - 1."""
    return came.line & 0xFF | came.aside << 8 | (came.connection & 0x3FFFFF) << 9


def came_of(flags: int) -> Came:
    """What `raw_flags` packed."""
    return Came(flags & 0xFF, flags >> 9 & 0x3FFFFF, bool(flags >> 8 & 1))


def mark_of(came: Came, name: str) -> bytes:
    """The event that goes before frames which came otherwise than the one before them in the file."""
    aside = {"aside": True} if came.aside else {}
    return _event({"scalper": "on", "s": name, "line": came.line, "connection": came.connection, **aside})


def head_of(
    name: str, market: str, venue_name: str, tick: str, lot: str, step: str, levels: int, contract: tuple[str, str] = ("", "")
) -> bytes:
    """The event that begins each file of a venue with a typed decoder: what a reader must know to decode the frames.

    levels: a side of the book that were asked for; contract: its kind and size, where the venue or the profile says so."""
    said = {"s": name, "market": market, "venue_name": venue_name, "tick": tick, "lot": lot, "step": step, "levels": levels}
    told = {key: text for key, text in zip(("contract", "contract_size"), contract, strict=True) if text}
    return _event({"scalper": "file", **said, **told})


def damage_of(name: str, size: int) -> bytes:
    """The event that stands where `size` bytes of a file were found damaged."""
    return _event({"scalper": "lost", **({"s": name} if name else {}), "damaged_bytes": size})


def member(text: bytes, run: int, first: int, end: int, first_ns: int, last_ns: int, lines: int, level: int) -> bytes:
    """The lines in `text` as one whole member."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
    body = deflate.compress(text) + deflate.flush()
    size = HEADER_BYTES + len(body) + TRAILER_BYTES
    head = _HEAD.pack(_MAGIC, 0, 0, 255, _XLEN, *_SI) + struct.pack("<H", _MEMBER.size)
    extra = _MEMBER.pack(run, first, end, first_ns, last_ns, size, lines)
    return b"".join((head, extra, body, struct.pack("<II", zlib.crc32(text), len(text) & 0xFFFFFFFF)))


def parse_member(head: bytes, offset: int) -> Member | None:
    """The member whose first HEADER_BYTES bytes are these, None where they begin none of ours."""
    if len(head) < HEADER_BYTES:
        return None
    magic, _, _, _, xlen, si1, si2 = _HEAD.unpack_from(head)
    if magic != _MAGIC or xlen != _XLEN or (si1, si2) != _SI or head[14:16] != struct.pack("<H", _MEMBER.size):
        return None
    run, first, end, first_ns, last_ns, size, lines = _MEMBER.unpack_from(head, 16)
    if size < HEADER_BYTES + TRAILER_BYTES or end < first:
        return None
    return Member(offset, run, first, end, first_ns, last_ns, size, lines)


def members(fd: int, at: int = 0) -> Iterator[Member]:
    """The members from offset `at` that lie wholly in the file, up to the first that does not or is none of ours."""
    size = os.fstat(fd).st_size
    while at + HEADER_BYTES + TRAILER_BYTES <= size:
        found = parse_member(os.pread(fd, HEADER_BYTES, at), at)
        if found is None or at + found.size > size:
            return
        yield found
        at += found.size


def next_sound(fd: int, at: int) -> Member | None:
    """The first sound member that begins behind offset `at`, wherever that is: what follows a damaged part; None for none."""
    size, begins = os.fstat(fd).st_size, _BEGINS
    at += 1
    while at + HEADER_BYTES + TRAILER_BYTES <= size:
        piece = os.pread(fd, _SEARCHED, at)
        place = piece.find(begins)
        if place < 0:
            at += max(len(piece) - len(begins) + 1, 1)
            continue
        at += place
        found = parse_member(os.pread(fd, HEADER_BYTES, at), at)
        if found is not None and at + found.size <= size and is_sound(fd, found):
            return found
        at += 1
    return None


def sound_members(fd: int, *, thorough: bool) -> list[Member]:
    """The members of a file, in order; what lies between two that do not touch is damaged, and so is all behind the last one.

    thorough: each is inflated, else only those of a file that has a damaged header, and the last one.
    """
    size, found, at = os.fstat(fd).st_size, list[Member](), 0
    while at < size:
        for one in members(fd, at):
            if thorough and not is_sound(fd, one):
                break
            found.append(one)
            at = one.offset + one.size
        if at >= size:
            break
        after = next_sound(fd, at)
        if after is None:
            break
        if not thorough:
            return sound_members(fd, thorough=True)
        found.append(after)
        at = after.offset + after.size
    while found and not is_sound(fd, found[-1]):
        found.pop()
    return found


def is_sound(fd: int, found: Member) -> bool:
    """Whether the member inflates to what its checksum says: after a power failure its bytes may be missing."""
    raw = os.pread(fd, found.size, found.offset)
    inflate, left = zlib.decompressobj(31), raw
    try:
        while left and not inflate.eof:
            inflate.decompress(left, _SEARCHED)  # piece by piece: what inflates without end is not held
            left = inflate.unconsumed_tail
    except zlib.error:
        return False
    return inflate.eof and not inflate.unused_data and len(raw) == found.size


def line_of(taken: Taken, name: str) -> bytes | None:
    """The text line of a record of the frames ring, without its end; None for what is not kept. name: the symbol's, "" for none.

    A frame is written as it came; line breaks between its JSON words become blanks. What is no text, or was cut or damaged so
    that it does not even begin and end like JSON, goes in base64: one such frame must not make the file unreadable.
    """
    about = {"s": name} if name else {}
    if taken.kind in (Kind.FRAME, Kind.RAW):
        raw = taken.raw
        if raw.startswith(_PLAIN):
            return None  # made of a RAW frame that is kept
        if b"\n" in raw or b"\r" in raw:
            raw = raw.translate(_LINE_BREAKS)
        if not _is_whole(raw) or not (raw.isascii() or _is_text(raw)):
            raw = _event({"scalper": "bytes", **about, "base64": base64.b64encode(taken.raw).decode()})
    elif taken.kind == Kind.LOST:
        raw = _event({"scalper": "lost", **about})
    elif taken.kind in (Kind.LINE_UP, Kind.LINE_DOWN):
        raw = _event({"scalper": "line", **about, "line": taken.line, "up": taken.kind == Kind.LINE_UP})
    else:
        return None
    return b"%d %s" % (taken.ts_ns, raw)


def _event(said: dict[str, object]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()


def _is_whole(raw: bytes) -> bool:
    ends = raw[:1] + raw.rstrip(b" ")[-1:]
    return ends in (b"{}", b"[]", b'""') or (raw == b"pong")


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


assert _HEAD.size == 14, "magic to the subfield's name"
