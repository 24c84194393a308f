"""Recordings become a spool: read, checked, joined, merged, and written so that a replay only walks an mmap.

A recording is text, gzip or plain, a frame a line: `<recv_ns> {json}`; a frame that begins `{"scalper":` is the recorder's own
word about what it could not record, counted and passed over. A file holds one symbol. Files of one symbol
and market are joined in the order of their first stamps; different symbols are merged by receive time, ties in the
order in which the symbols were given. Only as much of each file is in memory as one block.

What this is not: a decoder. That a frame is sound JSON and follows the venue's sequence is the feed's to judge.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from sim.recordings import recording_text as rt
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
from trading.instruments import Instrument, Market
from trading.jit import Bytes, Words
from trading.ranges import MAX_SYMBOLS, RangeError, lot_decimals
from trading.venues.names import DEFAULT, VENUES

__all__ = ["RecordingError", "StagedRecording", "StagedSymbol", "infer_instrument", "next_frame", "open_spool", "stage"]

CHUNK: Final = 1 << 20
"""Bytes read from a file at a time."""
LONGEST_LINE: Final = 1 << 24
DAMAGED: Final = 100
"""One frame in so many may look like the other market's: USD-M damaged in its `pu`, for one. The fold refuses it."""
STEP_SHARE: Final = 0.99
"""An order's step is taken to be the coarsest power of ten that this share of all quantities are multiples of."""

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all) of the files as they lie on disk."""

_PROBLEMS: Final = {
    rt.NOT_NUMERIC: "does not begin with a receive time in ns and a blank",
    rt.NO_FRAME: "has a receive time but no frame",
    rt.NOT_OBJECT: "has no {json} frame after its receive time",
    rt.STAMP_RANGE: "has a receive time that is no Unix time in ns",
}


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
        self.note = ""
        self.events = self.lost = 0
        self.size = _size(path)
        self._allow_truncated = allow_truncated
        self._advance = advance
        self._blocks = self._read()
        self.first: _Block | None = next(self._blocks, None)
        if self.first is None and not self.events:
            raise RecordingError(f"{path}: holds no frame; give a recording with lines `<recv_ns> {{json}}`")
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
        size = int(self.tally[rt.NAME_LEN])
        name = bytes(self.tally[rt.NAME : rt.NAME + size].astype(np.uint8)).decode("latin-1")
        known = int(self.tally[[rt.N_DEPTH, rt.N_BBO, rt.N_TRADE]].sum())
        folder = self.path.parent
        if known == 0 and self.tally[rt.N_SNAPSHOT] and self.path.name.startswith(f"{folder.name}_"):
            # a short file of the recorder's, with nothing but a snapshot, which names no symbol: its folders do
            for market in VENUES:
                if market.facts.native and folder.parent.name == market.label:
                    return folder.name, market
        if known == 0 or not (name.isascii() and name.isalnum() and name == name.upper()):
            raise RecordingError(
                f"{self.path}: lines 1 to {self.line} hold no depthUpdate, bookTicker or trade frame of Binance; "
                "other venues' recordings cannot be replayed"
            )
        return name, Market.BINANCE_USDM if self.tally[rt.N_USDM] > self.tally[rt.N_SPOT] else Market.BINANCE_SPOT

    def _read(self) -> Iterator[_Block]:
        left = b""
        for piece in self._pieces():
            left += piece
            if len(left) < CHUNK // 2:
                continue
            left = yield from self._frames(left)
            if len(left) > LONGEST_LINE:
                raise RecordingError(
                    f"{self.path}:{self.line + 1}: the line is longer than {LONGEST_LINE >> 20} MB; this is no recording"
                )
        if left:
            whole = left.rstrip(b" \r").endswith((b"}", b"\n"))
            if whole and not self.note:
                left += b"\n"
            rest = yield from self._frames(left)
            if rest and not self.note:
                self._truncated(f"{self.path}:{self.line + 1}: the last line ends in the middle")

    def _pieces(self) -> Iterator[bytes]:
        """The decompressed text; a truncated gzip ends it with a note, or with an error after the lines before it."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(CHUNK)
                if not raw.startswith(b"\x1f\x8b"):
                    while raw:
                        self._advance(len(raw))
                        yield raw
                        raw = file.read(CHUNK)
                    return
                gunzip = zlib.decompressobj(31)
                while raw:
                    self._advance(len(raw))
                    yield gunzip.decompress(raw)
                    rest = gunzip.unused_data
                    while gunzip.eof and rest.strip(b"\0"):  # members one after another are one stream
                        gunzip = zlib.decompressobj(31)
                        yield gunzip.decompress(rest)
                        rest = gunzip.unused_data
                    raw = file.read(CHUNK)
                tail = gunzip.flush()
                if tail:
                    yield tail
                cut = not gunzip.eof
        except zlib.error:
            raise RecordingError(f"{self.path}: the gzip data is damaged after line {self.line}; fetch the file again") from None
        except OSError as error:
            raise RecordingError(f"{self.path}: {error.strerror} after line {self.line}; check the file and its disk") from error
        if cut:
            self.note = f"{self.path}: the gzip data ends in the middle"

    def _frames(self, text: bytes) -> Generator[_Block, None, bytes]:
        """The frames of all complete lines; its value is the unfinished rest."""
        array = np.frombuffer(text, np.uint8)
        result = np.zeros(rt.RESULT_WORDS, np.int64)
        at = 0
        while True:
            rows = len(text) // 64 + 16
            recv, start, length = (np.empty(rows, np.int64) for _ in range(3))
            n = rt.split_lines(array, at, len(text), recv, start, length, result)
            if n:
                other = rt.survey(array, start, length, n, self.tally)
                if other >= 0:
                    line = self.line + 1 + text.count(b"\n", at, int(start[other]))
                    raise RecordingError(
                        f"{self.path}:{line}: names another symbol than the lines before; give each symbol its own file"
                    )
                yield _Block(array, recv[:n], start[:n], length[:n])
            self.line += int(result[rt.LINES])
            self.events += int(result[rt.EVENTS])
            self.lost += int(result[rt.LOST])
            at = int(result[rt.CONSUMED])
            if result[rt.PROBLEM]:
                what = _PROBLEMS[int(result[rt.PROBLEM])]
                raise RecordingError(f"{self.path}:{self.line + 1}: the line {what}; wanted `<recv_ns> {{json}}`")
            if n < rows:
                return text[at:]

    def close(self) -> None:
        """Judge how the file ended, when all blocks were taken."""
        if self.note:
            self._truncated(self.note)

    def _truncated(self, what: str) -> None:
        self.note = f"{what}; lines 1 to {self.line} are whole"
        if not self._allow_truncated:
            raise RecordingError(f"{self.note}: fetch the file again, or unpack it and cut it behind its last whole line")


def _size(path: Path) -> int:
    if path.is_dir():
        raise RecordingError(f"{path}: is a directory; name the recording files in it")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}; check the path") from error
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
        tally = sum((file.tally for file in self.files[1:]), self.files[0].tally.copy())
        gcd = 0
        for file in self.files:
            gcd = int(np.gcd(gcd, file.tally[rt.PRICE_GCD]))
        printed = max(int(file.tally[rt.PRINTED_DECIMALS]) for file in self.files)
        tally[rt.LARGEST_QTY] = max(int(file.tally[rt.LARGEST_QTY]) for file in self.files)
        first = self.files[0]
        return _described(first, tally, gcd, printed, (self.n_frames, self.n_bytes, self.first_ns, self.last_ns))


def _described(file: _File, tally: Words, gcd: int, printed: int, counts: tuple[int, int, int, int]) -> StagedSymbol:
    """Tick, lot and step from what was printed. A spot lot is 1e-8, because prints there are finer than the step; where such lots
    do not fit (coins by the million millions), as fine as the quantities need (trading.ranges)."""
    if gcd == 0:
        raise RecordingError(
            f"{file.path}: no frame of {file.name} holds a price, so its tick size is unknown; give a longer recording"
        )
    decimals = rt.PRICE_SCALE
    while decimals > 0 and gcd % 10 == 0:
        gcd //= 10
        decimals -= 1
    fixed = file.market.facts.lot_decimals
    decimals_used = tally[rt.QTY_DECIMALS : rt.QTY_DECIMALS + rt.MAX_DECIMALS + 1]
    most_used = int(np.flatnonzero(decimals_used).max(initial=0))
    try:
        qty_decimals = lot_decimals(printed if fixed is None else fixed, most_used, int(tally[rt.LARGEST_QTY]))
    except RangeError as error:
        raise RecordingError(f"{file.path}: {file.name}: {error}") from None
    needs = decimals_used.cumsum()
    step = int(np.argmax(needs >= STEP_SHARE * needs[-1]))
    n_frames, n_bytes, first_ns, last_ns = counts
    return StagedSymbol(
        name=file.name,
        market=file.market,
        n_frames=n_frames,
        n_bytes=n_bytes,
        first_recv_ns=first_ns,
        last_recv_ns=last_ns,
        price_decimals=decimals,
        tick_units=gcd,
        qty_decimals=qty_decimals,
        step_decimals=min(step, qty_decimals),
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
