"""Recordings become a spool: read, checked, joined, merged, and written so that a replay only walks an mmap.

A recording is text, gzip or plain, a frame a line: `<time> {json}`, the time in any unit of trading.stamps. A frame that
begins `{"scalper":` is the recorder's own word: what the file is of, or what could not be recorded; it is counted and passed
over, and so is a list of instruments (an answer to exchangeInfo). A file holds one symbol. Files of one symbol and market are
joined in the order of their first stamps; different symbols are merged by receive time, ties in the order in which the
symbols were given. Only as much of each file is in memory as one block. Ticks and lots: sim.recordings.sizes.

What this is not: a decoder. That a frame is sound JSON and follows the venue's sequence is the feed's to judge.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from sim.recordings import bounded
from sim.recordings import recording_text as rt
from sim.recordings.sizes import Rules, sizes_of
from sim.recordings.spool import (
    FRAME_HEADER,
    RecordingError,
    StagedRecording,
    StagedSymbol,
    next_frame,
    open_spool,
    pack,
)
from sim.recordings.spool_file import describe, spool_file
from sim.recordings.wire_files import Event, refuse_pipe
from trading.instruments import Instrument, Market
from trading.jit import Bytes, Words
from trading.ranges import MAX_SYMBOLS, RangeError
from trading.stamps import WANTED, units_text
from trading.symbol_names import SymbolNameError, symbol_name
from trading.venues.names import DEFAULT, VENUES

__all__ = ["RecordingError", "StagedRecording", "StagedSymbol", "infer_instrument", "next_frame", "open_spool", "stage"]

CHUNK: Final = 1 << 20
"""Bytes of text looked at at a time, about."""
DELIVERED: Final = re.compile(r"_(?:PERP|\d{6})\Z")
"""How names with _ end at Binance: of futures; others' are of another venue."""
DAMAGED: Final = 100
"""One frame in so many may look like the other market's: USD-M damaged in its `pu`, for one. The fold refuses it."""

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all) of the files as they lie on disk."""

_PROBLEMS: Final = {
    rt.NOT_NUMERIC: f"does not begin with a receive time ({WANTED}) and a blank",
    rt.NO_FRAME: "has a receive time but no frame",
    rt.NOT_OBJECT: "has no {json} frame after its receive time",
    rt.STAMP_RANGE: f"has a receive time that is no {WANTED} from 2001 on",
}


class NoMarketFrame(RecordingError):
    """A file whose lines are those of a recording, and hold nothing of Binance."""


@dataclass(slots=True)
class _Block:
    """Frames of one file: `text[start[i]:start[i] + length[i]]` received at `recv[i]`."""

    text: Bytes
    recv: Words
    start: Words
    length: Words


class _File:
    """One recording: its blocks of frames, what they reveal, and errors that name file and line."""

    def __init__(self, path: Path, allow_truncated: bool, advance: Callable[[int], None]) -> None:
        self.path = path
        self.line = 0
        self.tally = np.zeros(rt.TALLY_WORDS, np.int64)
        self.units: Counter[str] = Counter()
        self.rules = Rules()
        self.note = ""
        self.events = self.lost = 0
        self.size = _size(path)
        self._allow_truncated = allow_truncated
        self._advance = advance
        self._blocks = self._read()
        self.first: _Block | None = next(self._blocks, None)
        if self.first is None and not self.events:
            what = f"{self.note}; it holds no whole frame" if self.note else f"{path}: holds no frame"
            raise RecordingError(f"{what}; give a recording with lines `<recv_ns> {{json}}`")
        self.name, self.market = self._symbol() if self.first is not None else ("", DEFAULT)

    def blocks(self) -> Iterator[_Block]:
        """All blocks in order; may be walked once."""
        assert self.first is not None
        first, self.first = self.first, None
        yield first
        yield from self._blocks
        spot, usdm = self.tally[rt.N_SPOT], self.tally[rt.N_USDM]
        if min(spot, usdm) * DAMAGED > max(spot, usdm):
            raise RecordingError(
                f"{self.path}: holds frames of Binance spot ({spot}) and of USD-M ({usdm}); give each its own file"
            )

    def _symbol(self) -> tuple[str, Market]:
        tally = self.tally
        if (head := self.rules.head) is not None:
            return head.s, Market.of(head.market)
        known = int(tally[[rt.N_DEPTH, rt.N_BBO, rt.N_TRADE]].sum())
        name = _text_of(bytes(tally[rt.NAME : rt.NAME + tally[rt.NAME_LEN]].astype(np.uint8)))
        folder = self.path.parent
        if known == 0 and tally[rt.N_SNAPSHOT] and self.path.name.startswith(f"{folder.name}_"):
            # a short file of the recorder's, with nothing but a snapshot, which names no symbol: its folders do
            for market in VENUES:
                if market.facts.native and folder.parent.name == market.label:
                    return folder.name, market
        if known == 0 or not name:
            raise NoMarketFrame(f"{self.path}: {self._seen(known)}")
        found = self._named(name), self._market()
        if found[1] is Market.BINANCE_SPOT and "_" in name and not DELIVERED.search(name):
            raise NoMarketFrame(f"{self.path}: {name} is no symbol of Binance spot, whose frames these resemble; name its venue")
        return found

    def _named(self, name: str) -> str:
        try:
            return symbol_name(name)
        except SymbolNameError as error:
            raise RecordingError(f"{self.path}: {error}; record it by a name that is one") from None

    def _market(self) -> Market:
        """The market whose frames these are."""
        if self.tally[rt.N_PAIR] * 2 > self.tally[rt.N_USDM] > 0:
            return Market.BINANCE_COINM
        return Market.BINANCE_USDM if self.tally[rt.N_USDM] > self.tally[rt.N_SPOT] else Market.BINANCE_SPOT

    def _seen(self, known: int) -> str:
        """What the first lines hold, where no symbol of Binance can be made out."""
        block = self.first
        assert block is not None
        units = units_text(self.units)
        if known:
            return f"the {known:,} frames of Binance in lines 1 to {self.line} name no symbol (`s`); fetch the file again"
        keys = _keys(block.text[block.start[0] : block.start[0] + block.length[0]].tobytes())
        return (
            f"lines 1 to {self.line} (stamps in {units}) hold no depthUpdate, bookTicker or trade frame of Binance; the first "
            f"frame {keys}; name its venue where it is another's, or give a recording with such frames"
        )

    def _read(self) -> Iterator[_Block]:
        left = b""
        for piece in self._pieces():
            left += piece
            if len(left) < CHUNK // 2:
                continue
            left = yield from self._frames(left, final=False)
            if len(left) > bounded.LONGEST_LINE:
                raise RecordingError(
                    f"{self.path}:{self.line + 1}: the line is longer than {bounded.LONGEST_LINE >> 20} MB; this is no recording"
                )
        if left:
            if left.rstrip(b" \r").endswith(b"}") and not self.note:
                left += b"\n"
            rest = yield from self._frames(left, final=not self.note)
            if rest and not self.note:
                self._truncated(f"{self.path}:{self.line + 1}: the last line ends in the middle")

    def _pieces(self) -> Iterator[bytes]:
        """The text; broken gzip data ends it with a note."""
        try:
            yield from bounded.pieces(self.path, self._advance)
        except (EOFError, zlib.error) as error:
            self.note = f"{self.path}: the gzip data {error}"
        except OSError as error:
            raise RecordingError(f"{self.path}: {error.strerror} after line {self.line}; check the file and its disk") from error

    def _frames(self, text: bytes, *, final: bool) -> Generator[_Block, None, bytes]:
        """The frames of all complete lines; its value is the unfinished rest."""
        array = np.frombuffer(text, np.uint8)
        result = np.zeros(rt.RESULT_WORDS, np.int64)
        at = 0
        while True:
            rows = len(text) // 64 + 16
            recv, start, length = (np.empty(rows, np.int64) for _ in range(3))
            n = rt.split_lines(array, at, len(text), int(final), recv, start, length, result)
            if result[rt.HEAD_END]:
                self.rules.head = _head(f"{self.path}:{self.line + 1}", text[result[rt.HEAD] : result[rt.HEAD_END]])
            listed = np.zeros(n, np.int64)
            other = rt.survey(array, start, length, n, self.tally, listed) if n else -1
            if other >= 0:
                frame = text[start[other] : start[other] + length[other]]
                self._refuse_name(self.line + 1 + text.count(b"\n", at, int(start[other])), frame)
            if listed.any():
                self.rules.listed += [text[start[i] : start[i] + length[i]] for i in np.flatnonzero(listed)]
                recv, start, length = (column[:n][listed == 0] for column in (recv, start, length))
            self.line += int(result[rt.LINES])
            self.events += int(result[rt.EVENTS]) + int(listed.sum())
            self.lost += int(result[rt.LOST])
            self.units.update({unit: int(result[rt.IN_UNIT + k]) for k, unit in enumerate(rt.UNITS)})
            kept = n - int(listed.sum())
            if kept:
                yield _Block(array, recv[:kept], start[:kept], length[:kept])
            at = int(result[rt.CONSUMED])
            if result[rt.PROBLEM]:
                what = _PROBLEMS[int(result[rt.PROBLEM])]
                raise RecordingError(f"{self.path}:{self.line + 1}: the line {what}; wanted `<recv_ns> {{json}}`")
            if n < rows:
                return text[at:]

    def _refuse_name(self, line: int, frame: bytes) -> None:
        """A frame's symbol is none, or another than that of the lines before."""
        name = _symbol_in(frame)
        if name:
            self._named(name)
        said = f"{name} where the lines before name another symbol" if name else "an empty symbol"
        raise RecordingError(f"{self.path}:{line}: names {said}; give each symbol its own file")

    def close(self) -> None:
        """Judge how the file ended, when all blocks were taken."""
        if self.note:
            self._truncated(self.note)

    def _truncated(self, what: str) -> None:
        self.note = f"{what}; lines 1 to {self.line} are whole"
        if not self._allow_truncated:
            raise RecordingError(f"{self.note}: fetch the file again, or unpack it and cut it behind its last whole line")


def _head(where: str, raw: bytes) -> Event:
    """What the recorder says that the file is of."""
    try:
        head = msgspec.json.decode(raw, type=Event)
        if head.s and head.tick and head.lot and head.step and Market.of(head.market).facts.native:
            return head
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, KeyError):
        pass
    raise RecordingError(f"{where}: the line that says what the file is of cannot be used; fetch the file again")


def _text_of(raw: bytes) -> str:
    """The text between the quotes of a JSON string."""
    try:
        return msgspec.json.decode(b'"%b"' % raw, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return raw.decode("utf-8", "replace")


def _symbol_in(frame: bytes) -> str:
    """The symbol that a frame names, as far as it is JSON."""
    try:
        said = msgspec.json.decode(frame)
        body = said.get("data", said)
        return str(body.get("s") or body.get("symbol") or "")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, AttributeError):
        return ""


def _keys(frame: bytes) -> str:
    """What the first keys of a frame are, a clause."""
    try:
        said = msgspec.json.decode(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return "is no JSON"
    keys = ", ".join(str(key)[:20] for key in list(said)[:6])
    return f"has the keys {keys}" if keys else "is {}"


def _size(path: Path) -> int:
    if path.is_dir():
        raise RecordingError(f"{path}: is a directory; name the recording files in it")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}; check the path") from error
    refuse_pipe(path)
    if size == 0:
        raise RecordingError(f"{path}: is empty; give a recording with lines `<recv_ns> {{json}}`")
    return size


@dataclass(slots=True)
class _Chain:
    """The files of one symbol, joined; holds the frames that are not yet merged."""

    files: list[_File]
    block: _Block | None = None
    last_ns: int = 0
    first_ns: int = 0
    n_frames: int = 0
    n_bytes: int = 0
    clamped: int = 0
    events: int = 0
    lost: int = 0
    blocks: Iterator[_Block] = field(default_factory=lambda: iter(()))

    def open(self) -> None:
        self.files.sort(key=lambda file: int(file.first.recv[0]) if file.first else 0)
        self.blocks = self._walk()

    def _walk(self) -> Iterator[_Block]:
        for file in self.files:
            yield from file.blocks()
            file.close()
            self.events += file.events
            self.lost += file.lost

    def refill(self) -> None:
        """Take the next block when the present one is used up; times that go backwards are raised to the one before."""
        if self.block is not None and self.block.recv.size:
            return
        self.block = next(self.blocks, None)
        if self.block is None:
            return
        recv = self.block.recv
        raised = np.maximum(np.maximum.accumulate(recv), self.last_ns)
        self.clamped += int((raised != recv).sum())
        self.block.recv = raised
        if self.n_frames == 0:
            self.first_ns = int(raised[0])
        self.last_ns = int(raised[-1])
        self.n_frames += len(recv)
        self.n_bytes += int(self.block.length.sum())

    def take(self, n: int) -> _Block:
        """The first n frames of the present block, which loses them."""
        block = self.block
        assert block is not None
        self.block = _Block(block.text, block.recv[n:], block.start[n:], block.length[n:])
        return _Block(block.text, block.recv[:n], block.start[:n], block.length[:n])

    def staged(self) -> StagedSymbol:
        """What the files are of; when all blocks were taken."""
        first = self.files[0]
        rules = next((file.rules for file in self.files if file.rules), Rules())
        try:
            sizes = sizes_of(first.name, first.market, [file.tally for file in self.files], rules)
        except RangeError as error:
            raise RecordingError(f"{first.path}: {first.name}: {error}") from None
        if sizes is None:
            raise RecordingError(
                f"{first.path}: no frame of {first.name} holds a price, so its tick size is unknown; give a longer recording"
            )
        return StagedSymbol(
            name=first.name,
            market=first.market,
            n_frames=self.n_frames,
            n_bytes=self.n_bytes,
            first_recv_ns=self.first_ns,
            last_recv_ns=self.last_ns,
            price_decimals=sizes.price_decimals,
            tick_units=sizes.tick_units,
            qty_decimals=sizes.qty_decimals,
            step_decimals=sizes.step_decimals,
            said=sizes.said,
        )


def _merged(chains: list[_Chain]) -> Iterator[Bytes]:
    """The packed frames of all chains in the order of (recv_ns, chain)."""
    while True:
        for chain in chains:
            chain.refill()
        live = [(int(c.block.recv[-1]), i) for i, c in enumerate(chains) if c.block is not None]
        if not live:
            return
        # what a chain has still on disk is not before its last frame here: all frames up to the least of those may go
        until, limiting = min(live)
        blocks, symbols = [], []
        for _, i in live:
            block = chains[i].block
            assert block is not None
            n = int(np.searchsorted(block.recv, until, side="right" if i <= limiting else "left"))
            if n:
                blocks.append(chains[i].take(n))
                symbols.append(np.full(n, i, np.int64))
        bases = np.cumsum([0] + [b.text.size for b in blocks[:-1]]) if len(blocks) > 1 else [0]
        text = blocks[0].text if len(blocks) == 1 else np.concatenate([b.text for b in blocks])
        recv = np.concatenate([b.recv for b in blocks])
        start = np.concatenate([b.start + base for b, base in zip(blocks, bases, strict=True)])
        length = np.concatenate([b.length for b in blocks])
        order = np.argsort(recv, kind="stable")
        out = np.empty(int(((length + 7) & -8).sum()) + FRAME_HEADER * len(recv), np.uint8)
        pack(text, recv, start, length, np.concatenate(symbols), order, out)
        yield out


def _chains(files: Sequence[Path], allow_truncated: bool, progress: Progress | None) -> list[_Chain]:
    if not files:
        raise RecordingError("no recording given; name at least one file")
    total = sum(_size(Path(path)) for path in files)
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, total)

    chains: dict[tuple[str, Market], _Chain] = {}
    silent: list[_File] = []
    for path in files:
        file = _File(Path(path), allow_truncated, advance)
        if file.first is None:
            silent.append(file)
            continue
        chains.setdefault((file.name, file.market), _Chain([])).files.append(file)
    if len(chains) > MAX_SYMBOLS:
        raise RecordingError(
            f"{files[-1]}: {len(chains)} symbols are more than the {MAX_SYMBOLS} that a spool holds; replay fewer at once"
        )
    if not chains:
        raise RecordingError(f"{files[0]}: holds no frame; give a recording with lines `<recv_ns> {{json}}`")
    first = next(iter(chains.values()))
    for file in silent:  # the recorder spoke, the venue did not
        first.events += file.events
        first.lost += file.lost
    for chain in chains.values():
        chain.open()
    return list(chains.values())


def stage(
    files: Sequence[Path], out: Path, *, allow_truncated: bool = False, progress: Progress | None = None
) -> StagedRecording:
    """Write the recordings `files` as one spool at `out` and describe it.

    A symbol's index is the place of its first file. `allow_truncated` takes a file whose tail is cut off up to its last
    whole line and says so in the notes. Raises RecordingError for whatever cannot be used; `out` is then as it was.
    """
    chains = _chains(files, allow_truncated, progress)
    with spool_file(out) as file:
        n_bytes = 0
        for packed in _merged(chains):
            file.write(packed.data)
            n_bytes += packed.size
        recording = StagedRecording(
            path=out,
            symbols=tuple(chain.staged() for chain in chains),
            n_frames=sum(chain.n_frames for chain in chains),
            n_bytes=n_bytes,
            first_recv_ns=min(chain.first_ns for chain in chains),
            last_recv_ns=max(chain.last_ns for chain in chains),
            clamped=sum(chain.clamped for chain in chains),
            notes=tuple(file.note for chain in chains for file in chain.files if file.note),
            events=sum(chain.events for chain in chains),
            lost=sum(chain.lost for chain in chains),
            stamps=units_text(sum((file.units for chain in chains for file in chain.files), Counter())),
        )
        return describe(file, recording)


def infer_instrument(path: Path) -> Instrument:
    """The instrument of one recording: tick, lot and step from the numbers as they are printed in all of its frames."""
    (chain,) = _chains([path], False, None)
    while True:
        chain.block = None
        chain.refill()
        if chain.block is None:
            return chain.staged().instrument()
