"""No bytes make a decoder raise, and nothing that a frame of garbage says becomes a record that the venue did not send."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from venue_oracle import as_found

from sim.recordings.venue_staging import VenueRecording, venue_of
from trading.instruments import Market
from trading.venues.names import VENUES
from trading.venues.protocol import Closing, Ignored, Missed, Plain, Refused, Send, Streams, Subscribed, Unknown, VenueSymbol
from trading.venues.registry import make_venue
from trading.wire.plain_frame import read_plain_frame

ITEMS = (Plain, Subscribed, Refused, Send, Missed, Closing, Ignored, Unknown)
NAMES = ("BYBIT", "COINBASE", "DERIBIT", "KRAKEN", "OKX", "BINANCE", "BINANCE_FUTURES")
WORDS = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-1", b"1e309", b"1e-400", b"9" * 30, b"0.1",
    b'"\\u0000"', b"\xff",
    b"NaN",
    b'"type"', b'"snapshot"', b'"data"', b'"channel"', b'"topic"', b'"arg"', b'"params"', b'"event"', b'"events"', b'"error"',
)  # fmt: skip


@pytest.mark.parametrize("market", VENUES)
@settings(max_examples=300, deadline=None)
@given(raw=st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join)))
def test_any_bytes(market: Market, raw: bytes) -> None:
    """Any bytes give items, at least one, and no plain frame comes of bytes that are no JSON of the venue."""
    venue = make_venue(market, [VenueSymbol(0, "X", "X")], Streams())
    found = venue.decoder().decode(raw, 1)
    assert found and all(isinstance(item, ITEMS) for item in found)
    assert not any(isinstance(item, Plain) for item in found)
    venue.is_market_frame(raw)
    venue.symbol_of(raw)


@functools.cache
def recorded(folder: Path, name: str) -> tuple[VenueRecording, tuple[bytes, ...]]:
    """Some frames of each kind of a venue's recordings."""
    files = sorted((folder / "cryptofeed_wire").glob(f"{name}.*"))
    assert venue_of(files[0])
    source = VenueRecording(files)
    bodies = [line.body for line, _, _ in source.decoded()]
    return source, tuple(sorted(bodies, key=len)[:: max(1, len(bodies) // 120)])


def mutated(raw: bytes, draw: random.Random) -> bytes:
    """The frame with one to three things broken."""
    out = bytearray(raw[:4000])
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(out) + 1)
        match draw.randrange(5):
            case 0:
                out[at : at + draw.randint(1, 20)] = b""
            case 1:
                out[at:at] = draw.choice(WORDS)
            case 2 if at < len(out):
                out[at] = draw.randrange(256)
            case 3:
                del out[at:]
            case _:
                end = at + draw.randint(1, 40)
                out[at:at] = out[at:end]
    return bytes(out)


@pytest.mark.recordings
@pytest.mark.parametrize("name", NAMES)
def test_mutated_frames(recordings: Path, name: str) -> None:
    """6,000 broken frames a venue: items only; every plain frame is well-formed and of a symbol that exists."""
    source, bodies = recorded(recordings, name)
    draw = random.Random(f"mutations of {name}")
    decoder = source.venue.decoder()
    unknown = 0
    for count in range(6000):
        if count % 100 == 0:
            decoder = source.venue.decoder()
        found = decoder.decode(mutated(draw.choice(bodies), draw), 10**18 + count)
        assert found and all(isinstance(item, ITEMS) for item in found)
        unknown += any(isinstance(item, Unknown) for item in found)
        for item in found:
            if isinstance(item, Plain):
                head, _ = read_plain_frame(item.frame)
                assert 0 <= item.symbol < len(source.symbols) and head[2] == item.symbol
                as_found(item, source.symbols)
            elif isinstance(item, Missed):
                assert set(item.symbols) <= set(range(len(source.symbols)))
    assert unknown > 1000
