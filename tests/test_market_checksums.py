"""The checksums of Kraken's and OKX's books: every one in the recordings, and that a wrong book is found out.

The frames are decoded by the few lines of Decimal arithmetic here, not by the decoders of trading.venues.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.worlds.feed import Feed
from trading.books import fold as market
from trading.instruments import Instrument, Market
from trading.records import Flag, Kind
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import HAS_CHECKSUM, IN_BAND, plain_frame

_LINE = re.compile(rb"[\d.]+: ([\[{].*)$")
_DEPTH = 1000
"""What the recording subscribed to at Kraken."""

Message = tuple[str, bool, list[tuple[int, str, str]], int | None]
"""(symbol, is a snapshot, (side, price, quantity) of each level, checksum)."""


def _lines(path: Path) -> Iterator[Any]:
    with gzip.open(path) as lines:
        for line in lines:
            found = _LINE.match(line)
            if found:
                yield json.loads(found[1])


def _kraken(folder: Path) -> Iterator[Message]:
    for frame in _lines(folder / "cryptofeed_wire" / "KRAKEN.ws.50.0.gz"):
        if not isinstance(frame, list):
            continue
        body: dict[str, Any] = {}
        for part in frame[1:-2]:
            body |= part
        levels = [(side, x[0], x[1]) for key, side in (("b", 0), ("a", 1), ("bs", 0), ("as", 1)) for x in body.get(key, ())]
        yield frame[-1], "as" in body or "bs" in body, levels, int(body["c"]) if "c" in body else None


def _okx(folder: Path) -> Iterator[Message]:
    for frame in _lines(folder / "cryptofeed_wire" / "OKX.ws.1.0.gz"):
        if "data" not in frame or frame["arg"]["channel"] != "books":
            continue
        for body in frame["data"]:
            levels = [(side, x[0], x[1]) for side, key in enumerate(("bids", "asks")) for x in body[key]]
            yield frame["arg"]["instId"], frame["action"] == "snapshot", levels, body["checksum"]


def _decimals(texts: list[str]) -> int:
    return max(len(t.partition(".")[2]) for t in texts)


class World:
    """A fold over all symbols of a recording, fed plain frames."""

    def __init__(self, venue: Market, messages: list[Message]) -> None:
        self.messages = messages
        self.names = sorted({m[0] for m in messages})
        self.decimals = {}
        instruments = []
        for i, name in enumerate(self.names):
            levels = [level for m in messages if m[0] == name for level in m[2]]
            p, q = _decimals([x[1] for x in levels]), _decimals([x[2] for x in levels])
            self.decimals[name] = p, q
            lot = str(Decimal(1).scaleb(-q))
            instruments.append(Instrument(f"S{i}", venue, f"{Decimal(1).scaleb(-p):f}", lot, lot, lot))
        self.feed = Feed(*instruments)
        self.limit = _DEPTH if venue == Market.KRAKEN else 0

    def words(self, message: Message) -> np.ndarray:
        """The message's levels as words of a plain frame."""
        p, q = self.decimals[message[0]]
        levels = [[2 * int(Decimal(x).scaleb(p)) + side, int(Decimal(y).scaleb(q))] for side, x, y in message[2]]
        return np.array(levels, np.int64).reshape(-1, 2)

    def send(self, message: Message, checksum: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Fold it, with another checksum if one is given."""
        name, snapshot, _, sent = message
        checksum = sent if checksum is None else checksum
        flags = (IN_BAND if snapshot else 0) | (HAS_CHECKSUM if checksum is not None else 0)
        kind = FrameKind.SNAPSHOT if snapshot else FrameKind.DEPTH
        limit = self.limit if snapshot else 0
        symbol = self.names.index(name)
        words = self.words(message)
        return self.feed.send(plain_frame(kind, symbol, 1, words, first_id=limit, flags=flags, checksum=checksum or 0))


@pytest.mark.parametrize(("venue", "read", "count"), [(Market.KRAKEN, _kraken, 4269), (Market.OKX, _okx, 290)])
def test_every_recorded_checksum_verifies(venue: Market, read: Any, count: int, recordings: Path) -> None:
    """All are checked and equal, each book is valid from its snapshot on, and a mirror of the depth rows holds each whole book
    as a dict of Decimals does."""
    messages = list(read(recordings))
    assert sum(m[3] is not None for m in messages) == count
    world = World(venue, messages)
    books: dict[str, dict[tuple[int, Decimal], Decimal]] = {}
    mirror: dict[str, dict[tuple[int, int], int]] = {}
    for message in messages:
        name = message[0]
        rows, depth = world.send(message)
        assert len(rows) == 1 and rows[0]["flags"] & Flag.BOOK_VALID
        if message[1]:
            books[name], mirror[name] = {}, {}
        for side, price, qty in message[2]:
            books[name][side, Decimal(price)] = Decimal(qty)
            if Decimal(qty) == 0:
                del books[name][side, Decimal(price)]
        for side in range(2) if world.limit else ():
            keys = sorted((k for k in books[name] if k[0] == side), key=lambda k: k[1], reverse=side == 0)
            for beyond in keys[world.limit :]:
                del books[name][beyond]
        for row in depth[depth["kind"] == Kind.DEPTH]:
            key = int(row["flags"]) >> 2 & 1, int(row["price_ticks"])
            mirror[name][key] = int(row["qty_lots"])
            if mirror[name][key] == 0:
                del mirror[name][key]
    for name, book in books.items():
        p, q = world.decimals[name]
        assert mirror[name] == {(side, int(price.scaleb(p))): int(qty.scaleb(q)) for (side, price), qty in book.items()}
    state = world.feed.state
    assert state["checksum_checked"].sum() == count and state["checksum_failed"].sum() == 0
    assert (state["phase"] == market.SYNCED).all() and state["resyncs"].tolist() == [1] * len(world.names)


@pytest.mark.parametrize(("venue", "read"), [(Market.KRAKEN, _kraken), (Market.OKX, _okx)])
def test_a_wrong_checksum_makes_the_book_stale_until_it_is_sent_anew(venue: Market, read: Any, recordings: Path) -> None:
    """One flipped bit: STALE on both rings, a snapshot is wanted for that reason, once; further diffs say nothing; the next
    in-band snapshot, with its checksum wrong first and then right, makes it valid."""
    messages = list(read(recordings))
    name = messages[-1][0]
    world = World(venue, [m for m in messages if m[0] == name])
    start, *diffs = world.messages
    for message in (start, *diffs[:5]):
        world.send(message)
    feed = world.feed
    assert diffs[5][3] is not None and diffs[6][3] is not None
    rows, depth = world.send(diffs[5], diffs[5][3] ^ 1)
    assert rows["kind"].tolist() == depth["kind"].tolist() == [Kind.STALE] and feed.count("checksum_failed") == 1
    assert (feed.glob[0]["want_symbol"], feed.glob[0]["want_reason"]) == (0, market.Want.CHECKSUM)
    rows, _ = world.send(diffs[6])
    assert len(rows) == 0 and feed.glob[0]["want_symbol"] == -1
    rows, _ = world.send(start, (start[3] or 0) ^ 1)
    assert len(rows) == 0 and feed.glob[0]["want_reason"] == market.Want.CHECKSUM and feed.count("phase") == market.WAITING
    for message in (start, *diffs):
        rows, _ = world.send(message)
        assert rows[0]["flags"] & Flag.BOOK_VALID


def test_numbers_are_printed_as_the_venue_does() -> None:
    """A tick that is no power of ten, a whole number, a fraction below one, and sides of different length, against zlib over
    the text written out by hand."""
    for venue, text in (
        (Market.OKX, "0.5:3:10:0.05:0.05:12.5"),
        (Market.KRAKEN, "1000" + "50" + "50" + "3000" + "5" + "12500"),
    ):
        feed = Feed(Instrument("X", venue, "0.05", "0.001", "0.001", "0.001"))
        levels = np.array([[2 * 10, 3000], [2 * 1, 12500], [2 * 200 + 1, 50]], np.int64)
        checksum = zlib.crc32(text.encode())
        signed = checksum - 2**32 * (checksum >> 31)
        rows, _ = feed.send(plain_frame(FrameKind.SNAPSHOT, 0, 1, levels, flags=IN_BAND | HAS_CHECKSUM, checksum=signed))
        assert len(rows) == 1, venue
