"""Wire files: WebSocket and REST traffic as cryptofeed writes it down, read line by line, gzip or plain.

    <url> <-> <s>              connected
    <url> <- <s>: <message>    sent
    <s>: <frame>               received
    <url> -> <s>: <body>       the answer to a GET of that address
    configuration: {...}       stepped over

`<s>` is Unix seconds as a decimal; it becomes ns by its digits, through no float. Our own recordings of one symbol,
`<time> {frame}`, are read to the same items (their connection is the file's path; the time's unit is told by its magnitude); a
frame that begins `{"scalper":` is the recorder's own word, an `Event`, but for frames that were no text, which come out as they
were. JSON may go on over several lines: one that begins as none of these forms goes on with the line before, until it closes.

No frame is looked into.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import re
import zlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sim.recordings import bounded
from sim.recordings.spool import RecordingError
from trading.stamps import STAMP, WANTED, stamp_of
from trading.venues.decimals import Inexact, seconds_ns

LONGEST_LINE: Final = 1 << 25
"""Bytes; an exchangeInfo answer has some twenty millions."""


class WireKind(IntEnum):
    """What a line tells."""

    CONNECT = 1
    SENT = 2
    FRAME = 3
    ANSWER = 4
    EVENT = 5


class WireItem(NamedTuple):
    """One line. `connection` is the address; `line` counts from 1; own: of a recording of ours."""

    kind: WireKind
    recv_ns: int
    connection: str
    body: bytes
    path: Path
    line: int
    own: bool = False
    unit: str = ""  # of the time, where it was told by magnitude


class Event(msgspec.Struct, frozen=True):
    """What the recorder says of itself; docs/recording.md lists the kinds. Absent fields keep their defaults."""

    scalper: str
    s: str = ""
    line: int = -1
    up: bool = False
    connection: int = -1
    aside: bool = False
    base64: str = ""
    market: str = ""
    venue_name: str = ""
    tick: str = ""
    lot: str = ""
    step: str = ""
    contract: str = ""
    contract_size: str = ""
    levels: int = 0


_event: Final = msgspec.json.Decoder(Event).decode
_FRAME: Final = re.compile(rb"([0-9]{9,10}(?:\.[0-9]{1,9})?): (.+)\Z", re.S)
_OURS: Final = re.compile(rb"(" + STAMP + rb")[ \t]+([\[{\"p].*)\Z", re.S)
_OWN: Final = b'{"scalper":'
_WRAPPED: Final = b'{"scalper":"bytes"'
_WITH_BODY: Final = re.compile(rb"(\S+) (<-|->) ([0-9]{9,10}(?:\.[0-9]{1,9})?): (.*)\Z", re.S)
_CONNECT: Final = re.compile(rb"(\S+) <-> ([0-9]{9,10}(?:\.[0-9]{1,9})?)\s*\Z")
_WANTED: Final = (
    "wanted `<url> <-> <s>`, `<url> <- <s>: <message>`, `<url> -> <s>: <body>`, `<s>: <frame>` or `<recv_ns> <frame>`"
)
_BEGINS: Final = re.compile(STAMP + rb"(?:: |[ \t]+[\[{\"p])|\S+ (?:<->|<-|->) |configuration: ")
"""How a line begins that does not go on with the one before."""
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.S)


def event_of(item: WireItem) -> Event:
    """What an EVENT says. Raises RecordingError."""
    try:
        return _event(item.body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        where = f"{item.path}:{item.line}"
        raise RecordingError(f"{where}: the recorder's line cannot be read ({error}); fetch the file again") from None


def read_wire_file(path: Path, *, allow_truncated: bool = False, cut: list[str] | None = None) -> Iterator[WireItem]:
    """The file's items in its order. Raises RecordingError, naming file and line, for what is none of the forms and for a file
    that is cut off (`allow_truncated`: ends there instead, and `cut` is told so)."""
    connection = str(path)
    number = 0
    refuse_pipe(path)
    try:
        for number, line in _whole_lines(path):
            text = line.rstrip(b"\r\n")
            if not text.strip() or text.startswith(b"configuration: "):
                continue
            if not line.endswith(b"\n") and not text.endswith((b"}", b"]", b"pong", b'"')) and not _CONNECT.match(text):
                if allow_truncated:
                    _note_cut(path, "ends in the middle", number - 1, cut)
                    return
                raise RecordingError(f"{path}:{number}: the last line ends in the middle; fetch the file again, or cut it off")
            item = _item(text, path, number, connection)
            if item.kind is WireKind.CONNECT:
                connection = item.connection
            yield item
    except (EOFError, zlib.error) as error:
        if allow_truncated:
            _note_cut(path, f"the gzip data {error}", number, cut)
            return
        raise RecordingError(f"{path}: the gzip data {error}; lines 1 to {number} are whole: fetch the file again") from None
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error} after line {number}; check the path") from error


def refuse_pipe(path: Path) -> None:
    """RecordingError for what can be read only once."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise RecordingError(f"{path}: is a pipe or a device, and a recording is read more than once; write it to a file first")


def _note_cut(path: Path, how: str, whole: int, cut: list[str] | None) -> None:
    if cut is not None:
        cut.append(f"{path}: {how}; lines 1 to {whole} are whole")


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines, those of one frame joined; the number is the first one's."""
    held: tuple[int, bytes] | None = None
    try:
        for number, line in bounded.lines(path, LONGEST_LINE):
            if held is not None and not _BEGINS.match(line) and not _closed(held[1]):
                held = held[0], held[1] + line
                if len(held[1]) > LONGEST_LINE:
                    raise RecordingError(f"{path}:{held[0]}: a frame longer than {LONGEST_LINE >> 20} MB; this is no recording")
                continue
            if held is not None:
                yield held
            held = number, line
    except (EOFError, zlib.error):
        if held is not None and _closed(held[1]):
            yield held
        raise
    if held is not None:
        yield held


def _closed(line: bytes) -> bool:
    """Whether every bracket that the line opens is closed, and one is opened; what is in strings aside."""
    words = _STRINGS.sub(b"", line)
    opened = words.count(b"{") + words.count(b"[")
    return opened <= words.count(b"}") + words.count(b"]") or not opened


def _own(item: WireItem) -> WireItem:
    """A line of the recorder's: an event, or the frame that it wraps."""
    if not item.body.startswith(_WRAPPED):
        return item._replace(kind=WireKind.EVENT)
    try:
        return item._replace(body=base64.b64decode(event_of(item).base64, validate=True))
    except binascii.Error as error:
        raise RecordingError(f"{item.path}:{item.line}: the frame is no base64 ({error}); fetch the file again") from None


def _item(text: bytes, path: Path, number: int, connection: str) -> WireItem:
    try:
        if found := _FRAME.match(text):
            return WireItem(WireKind.FRAME, seconds_ns(found[1].decode()), connection, found[2], path, number)
        if found := _OURS.match(text):
            stamp = stamp_of(found[1])
            if stamp is None:
                raise RecordingError(f"{path}:{number}: {found[1].decode()} is no {WANTED}")
            item = WireItem(WireKind.FRAME, stamp[0], connection, found[2], path, number, True, stamp[1])
            return _own(item) if found[2].startswith(_OWN) else item
        if found := _WITH_BODY.match(text):
            kind = WireKind.SENT if found[2] == b"<-" else WireKind.ANSWER
            return WireItem(kind, seconds_ns(found[3].decode()), found[1].decode("latin-1"), found[4], path, number)
        if found := _CONNECT.match(text):
            return WireItem(WireKind.CONNECT, seconds_ns(found[2].decode()), found[1].decode("latin-1"), b"", path, number)
    except Inexact as error:
        raise RecordingError(f"{path}:{number}: {error}; {_WANTED}") from None
    raise RecordingError(f"{path}:{number}: the line is of no known form; {_WANTED}")


def read_wire_files(paths: Sequence[Path], *, allow_truncated: bool = False) -> Iterator[WireItem]:
    """The items of several files merged by time, ties in the order of the files; a file's own order is kept.

    A stamp that goes backwards within its file is taken as the one before it.
    """

    def rising(place: int, path: Path) -> Iterator[tuple[int, int, int, WireItem]]:
        last = 0
        for count, item in enumerate(read_wire_file(path, allow_truncated=allow_truncated)):
            last = max(last, item.recv_ns)
            yield last, place, count, item._replace(recv_ns=last)

    merged = heapq.merge(*(rising(place, path) for place, path in enumerate(paths)), key=lambda entry: entry[:3])
    return (entry[3] for entry in merged)
