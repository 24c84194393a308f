"""A file of elsewhere, opened: plain text, gzip, zip or tar, its members one after another, a line at a time within bounds.

Nothing is held but one line, whatever a file inflates to: a line longer than LONGEST_LINE is refused before it is read whole.

What this module is not: it knows no format; `procs.archives.kinds` does.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import importlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from procs.recordings.output import RecordingsError

LONGEST_LINE: Final = 1 << 20
"""Bytes of one line. A book of 1,000 levels a side has 60,000."""
MOST_BLANKS: Final = 1000
MOST_MEMBERS: Final = 1000
KEPT: Final = 8
"""Files whose first lines are kept: to find a kind, and to say why there is none, ask for them more than once."""
_ARROW: Final = {".feather": "feather", ".parquet": "parquet"}
_UNREADABLE: Final = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError)
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one member of a zip or tar. `first` and `second`: its first lines, empty for a table of pyarrow's;
    `columns`: the first line's cells, or the table's column names."""

    path: Path
    member: str
    first: bytes
    second: bytes
    columns: tuple[str, ...]
    arrow: str = ""

    @property
    def name(self) -> str:
        """The member's own name, or the file's, without folders."""
        return Path(self.member).name if self.member else self.path.name

    @property
    def place(self) -> str:
        """How messages call it."""
        return f"{self.path}({self.member})" if self.member else str(self.path)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """(number, line without its end), blank ones passed over. Raises RecordingsError."""
        with _opened(self.path, self.member) as file:
            yield from _lines(file, self.place)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """(line number, cells) of a CSV, its first line too."""
        width = 0
        for number, line in self.lines():
            try:
                cells = line.decode().split(",") if b'"' not in line else next(csv.reader([line.decode()]))
            except (UnicodeDecodeError, csv.Error) as error:
                raise RecordingsError(f"{self.place}:{number}: is no line of CSV ({error}); fetch the file again") from None
            width = width or len(cells)
            if len(cells) != width:
                raise RecordingsError(f"{self.place}:{number}: {len(cells)} columns in place of {width}; fetch the file again")
            yield number, cells

    def table(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(row number from 1, values by column name) of a feather or Parquet file; times as whole ns."""
        number = 0
        for batch in _batches(self.path, self.arrow):
            columns = {name: _values(batch.column(name)) for name in batch.schema.names}
            for values in zip(*columns.values(), strict=True):
                number += 1
                yield number, dict(zip(columns, values, strict=True))

    def pieces(self) -> Iterator[bytes]:
        """The text in pieces of at most LONGEST_LINE bytes, for what has no lines."""
        with _opened(self.path, self.member) as file:
            try:
                while piece := file.read(LONGEST_LINE):
                    yield piece
            except _UNREADABLE as error:
                raise RecordingsError(f"{self.place}: ends in the middle ({error}); fetch the file again") from None


def sources_of(path: Path) -> tuple[Source, ...]:
    """What a file holds: itself, or its members that are no folders; looked into once while it does not change.

    Raises RecordingsError.
    """
    try:
        seen = path.stat()
    except OSError as error:
        raise RecordingsError(f"{path}: cannot be read ({error}); check the path and its permissions") from None
    return _sources_of(path, seen.st_size, seen.st_mtime_ns)


@functools.lru_cache(maxsize=KEPT)
def _sources_of(path: Path, size: int, changed_ns: int) -> tuple[Source, ...]:
    arrow = _ARROW.get(path.suffix, "")
    if arrow:
        return (Source(path, "", b"", b"", _schema(path, arrow), arrow),)
    try:
        members = _members(path)
    except _UNREADABLE as error:
        raise RecordingsError(f"{path}: cannot be read ({error}); fetch the file again") from None
    if len(members) > MOST_MEMBERS:
        raise RecordingsError(f"{path}: holds {len(members):,} files, more than {MOST_MEMBERS}; unpack it and name those wanted")
    return tuple(_looked_into(path, member) for member in members)


def _looked_into(path: Path, member: str) -> Source:
    place = f"{path}({member})" if member else str(path)
    with _opened(path, member) as file:
        try:
            head = file.readline(LONGEST_LINE), file.readline(LONGEST_LINE)
        except _UNREADABLE as error:
            raise RecordingsError(f"{place}: cannot be read ({error}); fetch the file again") from None
    first, second = (line.removeprefix(_BOM).strip() for line in head)
    cells = tuple(cell.strip().strip('"') for cell in first[: 1 << 14].decode("utf-8", "replace").split(","))
    return Source(path, member, first, second, cells)


def _members(path: Path) -> list[str]:
    """Names within a zip or tar; one empty name for any other file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [it.filename for it in archive.infolist() if not it.is_dir()]
    if path.name.endswith((".tar", ".tar.gz", ".tgz")):
        found = []
        with tarfile.open(path) as tar:
            for it in tar:
                if it.isfile():
                    found.append(it.name)
                if len(found) > MOST_MEMBERS:
                    break
        return found
    return [""]


@contextlib.contextmanager
def _opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        try:
            file: Any
            packed: Any
            if not member:
                file = stack.enter_context(path.open("rb"))
            elif zipfile.is_zipfile(path):
                packed = stack.enter_context(zipfile.ZipFile(path)).open(member)
                file = stack.enter_context(io.BufferedReader(packed, 1 << 16))
            else:
                file = stack.enter_context(tarfile.open(path)).extractfile(member)
            start = file.peek(2)[:2] if hasattr(file, "peek") else b""
            if start == b"\x1f\x8b":
                file = stack.enter_context(gzip.GzipFile(fileobj=file))
        except (*_UNREADABLE, KeyError) as error:
            raise RecordingsError(f"{path}: cannot be read ({error}); fetch the file again") from None
        yield file if hasattr(file, "peek") else io.BufferedReader(file)


def _lines(file: IO[bytes], place: str) -> Iterator[tuple[int, bytes]]:
    number = blank = 0
    try:
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) >= LONGEST_LINE and not line.endswith(b"\n"):
                raise RecordingsError(f"{place}:{number}: the line is longer than {LONGEST_LINE >> 20} MB; this is no such file")
            line = (line.removeprefix(_BOM) if number == 1 else line).strip()
            blank = 0 if line else blank + 1
            if blank > MOST_BLANKS:
                raise RecordingsError(f"{place}:{number}: more than {MOST_BLANKS} blank lines together; this is no such file")
            if line:
                yield number, line
    except _UNREADABLE as error:
        raise RecordingsError(f"{place}:{number}: ends in the middle ({error}); fetch the file again") from None


# ---- feather and Parquet


def _arrow_file(path: Path, form: str) -> Any:
    try:
        if form == "feather":
            return importlib.import_module("pyarrow.ipc").open_file(str(path))
        return importlib.import_module("pyarrow.parquet").ParquetFile(path)
    except ImportError:
        raise RecordingsError(
            f"{path}: reading {form} needs pyarrow: install the extra with `pip install 'scalper[parquet]'`"
        ) from None
    except (OSError, ValueError) as error:
        raise RecordingsError(f"{path}: is no {form} file ({str(error)[:120]}); fetch it again") from None


def _values(column: Any) -> list[Any]:
    pa: Any = importlib.import_module("pyarrow")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    found: list[Any] = column.to_pylist()
    return found


def _schema(path: Path, form: str) -> tuple[str, ...]:
    file = _arrow_file(path, form)
    return tuple(file.schema.names if form == "feather" else file.schema_arrow.names)


def _batches(path: Path, form: str) -> Iterator[Any]:
    file = _arrow_file(path, form)
    try:
        if form == "parquet":
            yield from file.iter_batches(1 << 14)
            return
        for at in range(file.num_record_batches):
            whole = file.get_batch(at)
            for begin in range(0, whole.num_rows, 1 << 14):
                yield whole.slice(begin, 1 << 14)
    except (OSError, ValueError) as error:
        raise RecordingsError(f"{path}: is a damaged {form} file ({str(error)[:120]}); fetch it again") from None
