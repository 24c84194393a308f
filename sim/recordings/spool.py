"""The spool: recorded frames of all symbols in one file, in time order, laid out for an mmap.

    offset 0     HEADER, padded to 8192 bytes (magic, version, counts, a row a symbol)
    offset 8192  frame, frame, ...   each: recv_ns i8 | length i4 | what i4 | bytes, zero-padded to 8

`what` is the symbol's index (8 bits), and for a notice of its line, which has no bytes, the trading.records.Kind (8 bits) and the
line (8 bits) above it.

Everything is little-endian and 8-byte aligned, so a kernel walks it with no parsing and no copy. What the frames
say is not looked at here; sim.recordings.recording writes spools from recordings.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from sim.recordings.bounded import RecordingError as RecordingError  # by this name most modules know it
from trading.contracts import CONTRACTS
from trading.instruments import NAME_BYTES, Instrument, Market
from trading.jit import Bytes, Words, kernel
from trading.ranges import LEVEL_LOTS, MAX_SYMBOLS

MAGIC: Final = int.from_bytes(b"SCALPSPL", "little")
VERSION: Final = 4
DATA_OFFSET: Final = 8192
FRAME_HEADER: Final = 16

SPOOL_SYMBOL: Final = np.dtype(
    [
        ("name", "u1", NAME_BYTES),
        ("name_len", "i8"),
        ("market", "i8"),  # Market
        ("n_frames", "i8"),
        ("n_bytes", "i8"),  # of the frames themselves
        ("first_recv_ns", "i8"),
        ("last_recv_ns", "i8"),
        ("price_decimals", "i8"),
        ("tick_units", "i8"),  # tick in units of 10**-price_decimals
        ("qty_decimals", "i8"),  # a lot is 10**-qty_decimals
        ("step_decimals", "i8"),  # an order's step is 10**-step_decimals
        ("contract", "i8"),  # what a contract is, as _contract_word packs it; 0: not told
    ],
    align=True,
)

HEADER: Final = np.dtype(
    [
        ("magic", "i8"),
        ("version", "i8"),
        ("data_offset", "i8"),
        ("n_frames", "i8"),
        ("n_bytes", "i8"),  # from data_offset to the end of the file
        ("first_recv_ns", "i8"),
        ("last_recv_ns", "i8"),
        ("clamped", "i8"),
        ("n_symbols", "i8"),
        ("symbols", SPOOL_SYMBOL, MAX_SYMBOLS),
    ],
    align=True,
)
assert HEADER.itemsize <= DATA_OFFSET

OUT_RECV_NS: Final = 0
OUT_SYMBOL: Final = 1
OUT_START: Final = 2
OUT_END: Final = 3
OUT_NOTICE: Final = 4
OUT_LINE: Final = 5
OUT_WORDS: Final = 6
"""Words that `next_frame` fills."""


@dataclass(frozen=True, slots=True)
class StagedSymbol:
    """One symbol's share of a spool, and what its printed numbers say of its tick, lot and step."""

    name: str
    market: Market
    n_frames: int
    n_bytes: int
    first_recv_ns: int
    last_recv_ns: int
    price_decimals: int
    tick_units: int
    qty_decimals: int
    step_decimals: int
    contract: str = ""  # linear or inverse, and its size, where the recording says so
    contract_size: str = ""
    said: str = field(default="", compare=False)
    """Where tick and lot are from, a clause; "" for a spool opened later."""

    def instrument(self) -> Instrument:
        """The instrument as inferred from the recording; fees are the venue's, the minimum notional is the default. It tells no
        greatest quantity: LEVEL_LOTS, so that the limits of `risk` alone bind."""
        step = decimal_text(1, self.step_decimals)
        return Instrument(
            name=self.name,
            market=self.market,
            tick_size=decimal_text(self.tick_units, self.price_decimals),
            lot_size=decimal_text(1, self.qty_decimals),
            step_size=step,
            min_qty=step,
            max_qty=decimal_text(LEVEL_LOTS, self.qty_decimals),
            maker_fee_bps=self.market.facts.maker_fee_bps,
            taker_fee_bps=self.market.facts.taker_fee_bps,
            contract=self.contract,
            contract_size=self.contract_size,
        )


@dataclass(frozen=True, slots=True)
class StagedRecording:
    """What a spool holds. `symbols` is in the order of the symbol indices of its frames."""

    path: Path
    symbols: tuple[StagedSymbol, ...]
    n_frames: int
    n_bytes: int
    first_recv_ns: int
    last_recv_ns: int
    clamped: int
    """Frames whose receive time went backwards and was raised to the one before."""
    notes: tuple[str, ...] = ()
    """What was left out (truncated tails), a sentence each; empty for a spool opened later."""
    events: int = 0
    """Lines in which the recorder spoke of itself; 0 for a spool opened later."""
    lost: int = 0
    """Of these, those that declare frames lost."""
    notices: int = 0
    """Entries of the spool, counted in `n_frames`, that are notices of a line; 0 for a spool opened later."""
    stamps: str = field(default="", compare=False)
    """The unit of the receive times, as it was recognised; "" for a spool opened later."""

    def said(self) -> list[str]:
        """What was recognised rather than told, a sentence each: units, ticks, lots."""
        found = [f"{symbol.name}: {symbol.said}" for symbol in self.symbols if symbol.said]
        return [*found, *([f"stamps in {self.stamps}"] if self.stamps else [])]


def decimal_text(units: int, decimals: int) -> str:
    """`units * 10**-decimals` as a plain decimal string: (1, 2) -> "0.01"."""
    if decimals == 0:
        return str(units)
    digits = str(units).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def open_spool(path: Path) -> tuple[Bytes, StagedRecording]:
    """Map a spool read-only.

    Returns the whole file as uint8, shape (file size,), and its description; the mapping lives as long as the
    array. Raises RecordingError when the file is missing, no spool, or cut short.
    """
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            size = file.tell()
            if size < DATA_OFFSET:
                raise RecordingError(f"{path}: {size} bytes are too few for a spool; stage the recording again")
            spool = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}; stage the recording again") from error
    header = spool[: HEADER.itemsize].view(HEADER)[0]
    if header["magic"] != MAGIC or header["version"] != VERSION or header["data_offset"] != DATA_OFFSET:
        raise RecordingError(f"{path}: no spool of version {VERSION}; stage the recording again")
    n_symbols = int(header["n_symbols"])
    if size != DATA_OFFSET + int(header["n_bytes"]) or not 0 < n_symbols <= MAX_SYMBOLS:
        raise RecordingError(f"{path}: header and file size disagree; stage the recording again")
    return spool, StagedRecording(
        path=path,
        symbols=tuple(_symbol(row) for row in header["symbols"][:n_symbols]),
        n_frames=int(header["n_frames"]),
        n_bytes=int(header["n_bytes"]),
        first_recv_ns=int(header["first_recv_ns"]),
        last_recv_ns=int(header["last_recv_ns"]),
        clamped=int(header["clamped"]),
    )


def _symbol(row: np.void) -> StagedSymbol:
    counts: dict[str, Any] = {name: int(row[name]) for name in (SPOOL_SYMBOL.names or ())[3:-1]}
    name = bytes(row["name"][: int(row["name_len"])]).decode("ascii")
    word = int(row["contract"])
    size = decimal_text(word >> 8, word >> 2 & 63) if word >> 8 else ""
    contract = ("", *CONTRACTS)[word & 3]
    return StagedSymbol(name=name, market=Market(int(row["market"])), **counts, contract=contract, contract_size=size)


def _contract_word(symbol: StagedSymbol) -> int:
    """Kind (2 bits; 0: not told), decimals (6 bits) and units of the size. Raises RecordingError for what is no contract."""
    whole, _, part = symbol.contract_size.partition(".")
    digits = whole + part
    if symbol.contract not in ("", *CONTRACTS) or digits and not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        raise RecordingError(
            f"{symbol.name}: {symbol.contract!r} of {symbol.contract_size!r} is no contract; wanted such as inverse of 100"
        )
    return ("", *CONTRACTS).index(symbol.contract) | len(part) << 2 | int(digits or "0") << 8


def header_bytes(recording: StagedRecording) -> bytes:
    """The first DATA_OFFSET bytes of the spool that this describes."""
    header = np.zeros(1, HEADER)
    row = header[0]
    row["magic"], row["version"], row["data_offset"] = MAGIC, VERSION, DATA_OFFSET
    for name in ("n_frames", "n_bytes", "first_recv_ns", "last_recv_ns", "clamped"):
        row[name] = getattr(recording, name)
    row["n_symbols"] = len(recording.symbols)
    for entry, symbol in zip(row["symbols"], recording.symbols, strict=False):
        encoded = symbol.name.encode("ascii")
        entry["name"][: len(encoded)] = np.frombuffer(encoded, np.uint8)
        entry["name_len"] = len(encoded)
        entry["contract"] = _contract_word(symbol)
        for name in (SPOOL_SYMBOL.names or ())[2:-1]:
            entry[name] = getattr(symbol, name)
    return header.tobytes().ljust(DATA_OFFSET, b"\0")


def notice_of(symbol: int, kind: int, line: int) -> int:
    """`what` of a notice."""
    return symbol | kind << 8 | (line & 0xFF) << 16


@kernel
def next_frame(spool: Bytes, offset: int, out: Words) -> int:
    """Describe the frame at `offset` (0: the first one) and return the offset of the next; 0 when there is none left.

    `out`, shape (OUT_WORDS,), gets recv_ns, symbol index, and start and end of the frame's bytes in `spool`; for a notice its
    Kind and the line, else 0 and 0. When 0 is returned `out` is untouched.
    """
    at = DATA_OFFSET if offset == 0 else offset
    if at + FRAME_HEADER > spool.size:
        return 0
    words = spool.view(np.int64)
    second = words[(at >> 3) + 1]
    length = second & 0xFFFFFFFF
    out[OUT_RECV_NS] = words[at >> 3]
    what = (second >> 32) & 0xFFFFFFFF
    out[OUT_SYMBOL] = what & 0xFF
    out[OUT_NOTICE] = (what >> 8) & 0xFF
    out[OUT_LINE] = (what >> 16) & 0xFF
    out[OUT_START] = at + FRAME_HEADER
    out[OUT_END] = at + FRAME_HEADER + length
    return at + FRAME_HEADER + ((length + 7) & -8)


@kernel
def pack(text: Bytes, recv: Words, start: Words, length: Words, symbol: Words, order: Words, out: Bytes) -> int:
    """Write the frames `order[...]` of `text` one after another into `out` (large enough); returns the bytes written.

    symbol: the index, or what `notice_of` says of a notice."""
    words = out.view(np.int64)
    at = 0
    for k in range(order.size):
        i = order[k]
        words[at >> 3] = recv[i]
        words[(at >> 3) + 1] = length[i] | (symbol[i] << 32)
        at += FRAME_HEADER
        begin = start[i]
        padded = (length[i] + 7) & -8
        if padded > 0:
            words[(at + padded - 8) >> 3] = 0
        for j in range(length[i]):
            out[at + j] = text[begin + j]
        at += padded
    return at
