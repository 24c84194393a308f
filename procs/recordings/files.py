"""Which recordings there are, and which files belong together: files of one symbol of one market are one chain.

A file is looked into no further than needed: its first lines say venue, symbol and form; where `procs.recordings.frame_log` wrote
it, the members' headers say frames and span without inflating anything.

What this module is not: it judges no content; `procs.recordings.checking` does.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from procs.journal.format import SUFFIX as JOURNAL
from procs.recordings.frame_log_format import CONNECTION, members
from procs.recordings.output import RecordingsError
from sim.recordings import bounded
from sim.recordings.bounded import RecordingError
from sim.recordings.venue_recording import venue_of
from sim.recordings.venue_survey import venues_of
from trading.stamps import STAMP, stamp_of
from trading.symbol_names import PATTERN
from trading.venues.names import Market

PAUSE_NS: Final = 60 * 10**9
"""A file that begins later than this after the one before is a recording of its own."""
LOOKED_AT: Final = 1 << 20
"""Bytes of text that are looked at to name a file."""
OURS, WIRE = "recording", "wire"
_OURS: Final = re.compile(rb"^" + STAMP + rb"[ \t]+\S", re.M)
_HEAD: Final = re.compile(rb'^\d{19} \{"scalper":"file","s":"(' + PATTERN.encode() + rb')","market":"([a-z0-9_]+)"', re.M)
"""What the recorder says at the beginning of a file of a venue with a typed decoder."""
_WIRE: Final = re.compile(rb"^(wss?://|https?://|\d{10}\.\d+: )", re.M)
_LINES_LOOKED_AT: Final = 200
_NAME: Final = re.compile(rb'"(?:s|symbol)"\s*:\s*"([A-Z0-9][A-Z0-9_]{1,23})"')
_PAIR: Final = re.compile(rb'"ps"\s*:')
_BBO_OF_FUTURES: Final = re.compile(rb'"e"\s*:\s*"bookTicker"|"pu"\s*:')
_OF_SPOT: Final = re.compile(rb'"e"\s*:\s*"depthUpdate"|"lastUpdateId"|@bookTicker')
_PART: Final = re.compile(r"^(.*?)(?:_\d{8}(?:T\d{6}Z)?(?:_\d{3})?)?\.gz$")


@dataclass(frozen=True, slots=True)
class Found:
    """One file. `frames` and the span are 0 where only reading it all would tell. form: recording, wire or journal."""

    path: Path
    form: str
    venue: str
    symbol: str
    size: int
    frames: int = 0
    first_ns: int = 0
    last_ns: int = 0

    @property
    def chain(self) -> tuple[str, str, str]:
        """Files with the same are one recording."""
        return (self.venue, self.symbol, "" if self.form == OURS else str(self.path.parent))


def expand(places: Iterable[str | Path]) -> list[Path]:
    """Files named, and those below folders named, in order. Raises RecordingsError."""
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found += sorted(
                path for path in place.rglob("*")
                if path.is_file() and not path.name.startswith(".") and path.suffix in (".gz", ".txt", ".log", JOURNAL)
            )  # fmt: skip
        elif place.exists():
            found.append(place)
        else:
            raise RecordingsError(f"{place}: there is no such file or folder; check the path")
    return list(dict.fromkeys(found))


def gathered(
    places: Iterable[str | Path], passed_over: Callable[[str], None], takes: Callable[[Path], bool] | None = None
) -> list[Path]:
    """As `expand`, without what a folder brought and is none of ours (or, with `takes`, is not taken): that is told, a sentence
    each. What was named stays. Raises RecordingsError."""
    places = [Path(place) for place in places]
    named = set(places)
    takes = takes or _may_be_ours
    found = []
    for path in expand(places):
        if path in named or takes(path):
            found.append(path)
        else:
            passed_over(f"{path}: is no recording, capture or journal; passed over")
    return found


def _may_be_ours(path: Path) -> bool:
    try:
        return look(path) is not None
    except OSError:
        return True  # whoever reads it says why it cannot


def head_of(path: Path) -> bytes:
    """The first bytes of the text, inflated. What cannot be inflated ends it. Raises OSError."""
    text = b""
    try:
        for piece in bounded.pieces(path):
            text += piece
            if len(text) >= LOOKED_AT:
                break
    except (EOFError, zlib.error, bounded.RecordingError):
        pass
    return text[:LOOKED_AT]


def look(path: Path) -> Found | None:
    """What a file is, None for none of ours. Raises OSError."""
    size = path.stat().st_size
    if path.suffix == JOURNAL:
        return _journal(path, size)
    text = head_of(path)
    if _OURS.match(text):
        return _recording(path, size, text)
    if _WIRE.match(text):
        return Found(path, WIRE, _venue_of_capture(path), "*", size)
    return None


def _venue_of_capture(path: Path) -> str:
    try:
        return venue_of(path).label
    except RecordingError:
        return "?"  # `check` says what is wrong with it


def _journal(path: Path, size: int) -> Found | None:
    from procs.journal.file import JournalError, JournalReader

    try:
        reader = JournalReader(path)
        recs = reader.records()
    except JournalError:
        return None
    span = (int(recs[0]["ts_ns"]), int(recs[-1]["ts_ns"])) if len(recs) else (0, 0)
    return Found(path, "journal", reader.header.ring, "*", size, len(recs), *span)


def _recording(path: Path, size: int, text: bytes) -> Found:
    head, named = _HEAD.match(text), _NAME.search(text)
    symbol = (head or named)[1].decode() if head or named else path.parent.name  # type: ignore[index]
    venue = head[2].decode() if head else _venue(path, text)
    with path.open("rb") as file:
        found = list(members(file.fileno()))
    if found and path.parent.name == CONNECTION:
        symbol, venue = CONNECTION, "-"
    if found:
        count = sum(m.lines for m in found)
        return Found(path, OURS, venue, symbol, size, count, found[0].first_ns, found[-1].last_ns)
    return Found(path, OURS, venue, symbol, size)


def _venue(path: Path, text: bytes) -> str:
    """By the frames where they tell, else by the folder that the recorder put it in."""
    seen: Counter[Market] = Counter()
    whole = False
    for line in text.splitlines()[:_LINES_LOOKED_AT]:
        body = line.partition(b" ")[2].strip()
        whole = whole or body.startswith(b"{") and body.endswith(b"}")
        seen.update(venues_of(body))
    if seen:
        return max(seen, key=lambda market: seen[market]).label
    if whole:
        snapshot = b'"lastUpdateId"' in text
    else:  # frames over several lines: told by their words
        snapshot = _OF_SPOT.search(text) is not None
    if not whole and _PAIR.search(text):
        return Market.BINANCE_COINM.label
    if not whole and _BBO_OF_FUTURES.search(text):
        return Market.BINANCE_USDM.label
    if snapshot:
        return Market.BINANCE_SPOT.label
    market = path.parent.parent.name
    return market if re.fullmatch(r"[a-z][a-z0-9_-]*", market) and path.name.startswith(path.parent.name) else "?"


def measured(found: Found) -> Found:
    """The same with frames and span, read from the whole file if need be. Raises RecordingError for a line without end."""
    if found.frames or found.form != OURS:
        return found
    count, first, last = 0, 0, 0
    try:
        for _, line in bounded.lines(found.path):
            stamp, _, rest = line.partition(b" ")
            time = None if rest.startswith(b'{"scalper":') else stamp_of(stamp)
            if time is not None:
                count += 1
                last = time[0]
                first = first or last
    except (EOFError, zlib.error):
        pass  # cut short: what was whole counts, `check` says so
    return Found(found.path, found.form, found.venue, found.symbol, found.size, count, first, last)


def chains(paths: Sequence[Path], unread: Callable[[Path, str], None] | None = None) -> list[list[Found]]:
    """The recordings among `paths`: files of one symbol that follow one another, and a venue's wire captures.

    unread: told of a file that is none of ours or cannot be read, and why; without it RecordingsError is raised for one, and
    RecordingError.
    """
    together: dict[tuple[str, str, str], list[Found]] = {}
    for path in paths:
        try:
            found = look(path)
            if found is None:
                raise RecordingsError(
                    f"{path}: is no recording (lines `<recv_ns> {{json}}`), wire capture or journal; name recordings only"
                )
            if found.symbol != CONNECTION and found.form != "journal":
                found = measured(found)
                together.setdefault(found.chain, []).append(found)
        except (RecordingsError, RecordingError, OSError) as error:
            if unread is None:
                raise
            unread(path, str(error))
    apart: list[list[Found]] = []
    for chain in together.values():
        chain.sort(key=lambda found: (found.first_ns, found.path.name))
        apart.append(chain[:1])
        for before, found in zip(chain, chain[1:], strict=False):
            if found.form == OURS and found.first_ns - before.last_ns > PAUSE_NS:
                apart.append([])
            apart[-1].append(found)
    return apart


def title(chain: Sequence[Found]) -> str:
    """The files' names, joined where they have one stem."""
    names = [found.path.name for found in chain]
    if len(names) == 1:
        return names[0]
    stems = [match[1] for name in names if (match := _PART.match(name))]
    if len(set(stems)) == 1 and len(stems) == len(names):
        return f"{stems[0]} ({len(names)} files)"
    return os.fspath(names[0]) + f" (+{len(names) - 1})"
