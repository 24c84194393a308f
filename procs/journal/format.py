"""What a journal file looks like: its first page, the errors, and how a record layout is written down.

The first page is text: one line of magic, version and checksum, then one JSON object, then spaces. Who has numpy and
nothing of this project reads a journal with

    said = json.loads(page.split(b"\\n")[1])
    d = said["dtype"]
    formats = [f if isinstance(f, str) else (f[0], tuple(f[1])) for f in d["formats"]]
    dtype = np.dtype({"names": d["names"], "formats": formats, "offsets": d["offsets"], "itemsize": d["itemsize"]})
    records = np.memmap(path, dtype, "r", offset=said["header_bytes"])  # a length of whole slots

What this module is not: it writes no file; `procs.journal.file` does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from trading.records import layout_hash


class JournalError(Exception):
    """Something is wrong with a journal; the message names the file and the remedy."""


class JournalFormatError(JournalError):
    """The file is no journal, or its header is damaged."""


class JournalMismatch(JournalError):
    """The file is a journal, but of another ring, record layout or instance."""


class JournalBusy(JournalError):
    """Another process writes this journal."""


class JournalDamaged(JournalError):
    """Sequences in the file do not follow one another."""


class JournalSequenceError(JournalError):
    """The slots given do not continue the journal; nothing of them was written."""


class JournalFull(JournalError):
    """The disk (or a quota, or the file size limit) has no room. `appended` whole slots of the call were kept."""

    def __init__(self, message: str, appended: int) -> None:
        super().__init__(message)
        self.appended = appended


MAGIC: Final = b"SCALPER-JOURNAL"
VERSION: Final = 1
HEADER_BYTES: Final = 4096
SUFFIX: Final = ".journal"

_MAGIC_LINE: Final = re.compile(rb"SCALPER-JOURNAL (\d{1,9}) ([0-9a-f]{32})\n")


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """What the first page says. `created_ns` is Unix ns; `layout` is trading.records.layout_hash of the record."""

    ring: str
    instance: str
    layout: int
    dtype: np.dtype
    first_sequence: int
    created_ns: int

    @property
    def record_bytes(self) -> int:
        """Bytes of one slot."""
        return self.dtype.itemsize


def journal_path(directory: str | Path, ring: str) -> Path:
    """Where the journal of a ring lies: `<directory>/<ring>.journal`."""
    return Path(directory) / f"{ring}{SUFFIX}"


_FORMAT: Final = re.compile(r"[<>|=]?[biufSUV][0-9]{1,4}\Z")


def describe_dtype(dtype: np.dtype) -> dict[str, Any]:
    """A record layout as JSON values: `np.dtype` takes it back once each ["<i8", [5]] is made a tuple."""
    if dtype.fields is None or dtype.names is None:
        raise ValueError(f"{dtype} is no record dtype")
    formats: list[Any] = []
    for name in dtype.names:
        base, shape = dtype.fields[name][0].base, dtype.fields[name][0].shape
        if base.fields is not None or base.hasobject:
            raise ValueError(f"field {name} of {dtype} is nested or an object; journals hold flat records")
        formats.append([base.str, list(shape)] if shape else base.str)
    offsets = [int(dtype.fields[name][1]) for name in dtype.names]
    return {"names": list(dtype.names), "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize}


def dtype_of(description: Mapping[str, Any]) -> np.dtype:
    """The dtype that `describe_dtype` described. Raises ValueError, TypeError or KeyError if it is none."""
    names, formats, offsets = description["names"], description["formats"], description["offsets"]
    if not all(isinstance(name, str) for name in names):
        raise TypeError("field names are strings")
    for told in formats:  # numpy would evaluate a text such as "3,i8"
        if not _FORMAT.match(told if isinstance(told, str) else str(told[0])):
            raise TypeError(f"{told!r} is no format of a plain field")
    plain = [f if isinstance(f, str) else (str(f[0]), tuple(int(n) for n in f[1])) for f in formats]
    dtype = np.dtype(
        {"names": list(names), "formats": plain, "offsets": [int(o) for o in offsets], "itemsize": int(description["itemsize"])}
    )
    if dtype.hasobject:
        raise TypeError("a record holds no objects")
    return dtype


def check_record(dtype: np.dtype) -> None:
    """Assert that the record ends in its sequence word, as every ring record does."""
    names = dtype.names or ()
    assert dtype.fields is not None and "seq" in names, f"{dtype} has no field seq"
    assert dtype.fields["seq"][1] == dtype.itemsize - 8 and dtype.itemsize % 8 == 0, "seq is the slot's last 8-byte word"


def header_page(header: JournalHeader) -> bytes:
    """The first page, HEADER_BYTES bytes. ValueError if the layout needs more room."""
    body = json.dumps(
        {
            "ring": header.ring,
            "instance": header.instance,
            "first_sequence": header.first_sequence,
            "created_ns": header.created_ns,
            "layout_hash": header.layout,
            "record_bytes": header.record_bytes,
            "header_bytes": HEADER_BYTES,
            "sequence_word": "last 8-byte word of a slot, little-endian: position + 1",
            "dtype": describe_dtype(header.dtype),
        },
        separators=(",", ":"),
    ).encode()
    page = b"%s %d %s\n%s" % (MAGIC, VERSION, hashlib.blake2b(body, digest_size=16).hexdigest().encode(), body)
    if len(page) >= HEADER_BYTES:
        raise ValueError(f"ring {header.ring}: the layout takes {len(page)} bytes as text, the header page has {HEADER_BYTES}")
    return page + b" " * (HEADER_BYTES - 1 - len(page)) + b"\n"


@cache
def laid_out(dtype: np.dtype) -> tuple[dict[str, Any], int]:
    """How the header page describes this layout, and its hash; once a process, or in its zygote."""
    return describe_dtype(dtype), layout_hash(dtype)


def parse_header(page: bytes, path: Path, expected: np.dtype | None = None) -> JournalHeader:
    """The header of a journal from its first page. Raises JournalFormatError for anything else, whatever the bytes.

    `expected`: a layout that need not be taken apart where the page has it.
    """
    match = _MAGIC_LINE.match(page[: len(MAGIC) + 64])
    if match is None:
        raise JournalFormatError(f"{path} is no journal of scalper (it does not begin with {MAGIC.decode()}); name another file")
    if int(match[1]) != VERSION:
        raise JournalFormatError(
            f"{path} is of journal version {int(match[1])}, this program reads {VERSION}; read it with the program that wrote it"
        )
    damaged = f"{path}: the header page is damaged; restore the file from a copy or move it away"
    if len(page) != HEADER_BYTES:
        raise JournalFormatError(damaged)
    body = page[match.end() :].rstrip(b" \n")
    if hashlib.blake2b(body, digest_size=16).hexdigest().encode() != match[2]:
        raise JournalFormatError(damaged)
    try:
        said = json.loads(body)
        header = JournalHeader(
            ring=str(said["ring"]),
            instance=str(said["instance"]),
            layout=int(said["layout_hash"]),
            dtype=_expected(said, expected) or dtype_of(said["dtype"]),
            first_sequence=int(said["first_sequence"]),
            created_ns=int(said["created_ns"]),
        )
        whole = (
            header.record_bytes == said["record_bytes"]
            and header.record_bytes >= 16
            and header.record_bytes % 8 == 0
            and header.first_sequence >= 0
            and (header.dtype is expected or layout_hash(header.dtype) == header.layout)
            and header.dtype.fields is not None
            and header.dtype.fields["seq"] == (np.dtype("<i8"), header.record_bytes - 8)
        )
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        raise JournalFormatError(damaged) from None
    if not whole:
        raise JournalFormatError(damaged)
    return header


def _expected(said: Mapping[str, Any], expected: np.dtype | None) -> np.dtype | None:
    """This layout, if it is what the page says."""
    return expected if expected is not None and (said["dtype"], said["layout_hash"]) == laid_out(expected) else None


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file and nothing else: no link to follow, no FIFO to hang on."""
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except FileNotFoundError:
        remedy = "create its folder first" if flags & os.O_CREAT else "check the folder and whether this ring was recorded"
        raise JournalError(f"{path} does not exist; {remedy}") from None
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise JournalError(f"cannot open the journal {path}: {reason}; check the path and its permissions") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise JournalFormatError(f"{path} is no regular file; name a journal")
    return fd
