"""Every recorded frame of Bybit, Coinbase, Deribit, Kraken and OKX against an independent decoder, and every checksum."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest
from venue_oracle import DecimalBook, Found, as_found, bybit, coinbase, deribit, kraken, okx, same

from sim.recordings.venue_staging import Decoded, VenueRecording, decode_wire_files, venue_of
from sim.recordings.wire_files import WireKind
from trading.instruments import Market
from trading.venues.protocol import Plain, Unknown
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import HAS_CHECKSUM, W_CHECKSUM, W_FLAGS, W_KIND, W_LAST, W_PREV, read_plain_frame

pytestmark = pytest.mark.recordings

ORACLES: dict[str, tuple[Market, Callable[[bytes], list[Found]], int]] = {
    "BYBIT": (Market.BYBIT, bybit, 4440),
    "COINBASE": (Market.COINBASE, coinbase, 9946),
    "DERIBIT": (Market.DERIBIT, deribit, 136),
    "KRAKEN": (Market.KRAKEN, kraken, 4430),
    "OKX": (Market.OKX, okx, 410),
}


def files(folder: Path, name: str) -> list[Path]:
    """All wire files of a venue."""
    return sorted((folder / "cryptofeed_wire").glob(f"{name}.*"))


@cache
def decoded(folder: Path, name: str) -> Decoded:
    """The venue's recordings, decoded once for all tests."""
    return decode_wire_files(files(folder, name))


@pytest.mark.parametrize("name", ORACLES)
def test_every_frame_is_what_an_independent_decoder_says(recordings: Path, name: str) -> None:
    """Each frame's trades, books, changes and best prices are equal, number by number, and no frame is unknown or missed."""
    market, oracle, n_frames = ORACLES[name]
    source = VenueRecording(files(recordings, name))
    assert source.market is market
    seen = 0
    for line, items, raw in source.decoded():
        assert line.kind is WireKind.FRAME
        assert raw is None
        seen += 1
        assert not any(isinstance(item, Unknown) for item in items), (line.path, line.line, items)
        ours = [as_found(item, source.symbols) for item in items if isinstance(item, Plain)]
        plain = oracle(line.body)
        assert len(ours) == len(plain), (line.path, line.line)
        assert all(same(got, want) for got, want in zip(ours, plain, strict=True)), (line.path, line.line, ours, plain)
    assert seen == n_frames


@pytest.mark.parametrize("name", ORACLES)
def test_nothing_is_unknown_or_missed(recordings: Path, name: str) -> None:
    """The recordings decode with no unknown frame and no message missing."""
    found = decoded(recordings, name)
    assert found.unknown == ()
    assert found.missed == ()
    assert found.counts["Plain"] == len(found.frames) > 0


def books(found: Decoded) -> list[tuple[int, list[int], bytes]]:
    """(symbol, head, frame) of all book messages."""
    out = []
    for it in found.frames:
        head, _ = read_plain_frame(it.frame)
        if head[W_KIND] in (FrameKind.SNAPSHOT, FrameKind.DEPTH):
            out.append((it.symbol, head.tolist(), it.frame))
    return out


def test_kraken_checksums(recordings: Path) -> None:
    """All 4,269 CRC32 checksums of the top ten verify, built from the integers of the plain frames alone."""
    state: dict[int, DecimalBook] = {}
    checked = 0
    for symbol, head, frame in books(decoded(recordings, "KRAKEN")):
        book = state.setdefault(symbol, DecimalBook())
        book.apply(frame)
        if head[W_FLAGS] & HAS_CHECKSUM:
            text = "".join(f"{price}{book.sides[side][price]}" for side in (1, 0) for price in book.best(side, 10))
            assert zlib.crc32(text.encode()) == head[W_CHECKSUM]
            checked += 1
    assert checked == 4269


def test_okx_checksums(recordings: Path) -> None:
    """All 290 CRC32 checksums of the top 25 verify, numbers written as the venue writes them."""
    found = decoded(recordings, "OKX")
    state: dict[int, DecimalBook] = {}
    checked = 0
    for symbol, head, frame in books(found):
        book = state.setdefault(symbol, DecimalBook())
        book.apply(frame)
        tick, lot = Decimal(found.symbols[symbol].tick_size), Decimal(found.symbols[symbol].lot_size)
        sides = []
        for side in (0, 1):
            levels = [(price * tick, book.sides[side][price] * lot) for price in book.best(side, 25)]
            sides.append([f"{price.normalize():f}:{qty.normalize():f}" for price, qty in levels])
        parts = [side[i] for i in range(25) for side in sides if i < len(side)]
        assert zlib.crc32(":".join(parts).encode()) == head[W_CHECKSUM]
        checked += 1
    assert checked == 290


@pytest.mark.parametrize("name", ["COINBASE", "DERIBIT", "KRAKEN", "OKX"])
def test_book_messages_are_chained(recordings: Path, name: str) -> None:
    """Each change names the book message of its symbol before it, from the snapshot on; ids rise."""
    last: dict[int, int] = {}
    for symbol, head, _ in books(decoded(recordings, name)):
        if head[W_KIND] == FrameKind.DEPTH:
            assert head[W_PREV] == last[symbol]
        assert head[W_LAST] > last.get(symbol, 0)
        last[symbol] = head[W_LAST]


@pytest.mark.parametrize("name", ORACLES)
def test_books_do_not_cross(recordings: Path, name: str) -> None:
    """After its last message each book has its best bid below its best ask."""
    state: dict[int, DecimalBook] = {}
    for symbol, _, frame in books(decoded(recordings, name)):
        book = state.setdefault(symbol, DecimalBook())
        book.apply(frame)
    for book in state.values():
        assert book.best(0, 1) < book.best(1, 1) or not book.sides[0] or not book.sides[1]


def test_venue_is_told_by_the_file_itself(recordings: Path, tmp_path: Path) -> None:
    """venue_of knows each wire file by its addresses; frames alone, in our own form, are known too."""
    for name, (market, _, _) in ORACLES.items():
        for path in files(recordings, name):
            assert venue_of(path) is market
        source = decoded(recordings, name)
        bodies = [line.body for line, items, _ in VenueRecording(files(recordings, name)).decoded() if any(map(_is_plain, items))]
        ours = tmp_path / f"{len(source.frames)}.txt"
        ours.write_bytes(b"".join(b"%d %s\n" % (10**18 + i, body) for i, body in enumerate(bodies[:50])))
        assert venue_of(ours) is market
    assert venue_of(recordings / "hftbacktest_binance" / "spot_btcusdt_20240808.gz") is Market.BINANCE_SPOT
    assert venue_of(recordings / "hftbacktest_binance" / "usdm_btcusdt_20240808.gz") is Market.BINANCE_USDM


def _is_plain(item: object) -> bool:
    return isinstance(item, Plain)
