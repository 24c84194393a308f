"""The fault matrix of books that come within the stream: OKX, Bybit, Kraken, Coinbase and Deribit, by their own rules."""

from __future__ import annotations

import pytest
from stream_world import MESSAGES, QUIET_FROM, StreamWorld

from trading.books import fold as market
from trading.instruments import Market

FAULTS = ("gap", "duplicate", "reorder", "late", "checksum", "reset", "corrupt")
VENUES = (Market.OKX, Market.BYBIT, Market.KRAKEN, Market.COINBASE, Market.DERIBIT)

def _play(place: Market, fault: str, seed: int, lines: int) -> StreamWorld:
    world = StreamWorld(place, fault, seed, lines)
    world.run()
    assert world.feed.count("phase") == market.SYNCED and world.last_index == MESSAGES, (seed, lines)
    assert world.valid > QUIET_FROM - 25
    return world


@pytest.mark.parametrize("schedules", [5, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", VENUES, ids=lambda place: place.name.lower())
def test_a_book_of_a_stream_is_exact_or_stale(place: Market, fault: str, schedules: int) -> None:
    """Seeded schedules, as many with one line and with two, each fault on one line at a drawn place: every valid record's book is
    the venue's after the message that it names, level by level, and so is the book that the depth rows make; at the end the book
    is valid again and up to date. With a second line, of venues whose two lines count alike, nothing is ever stale."""
    stale = wants = 0
    for seed in range(schedules):
        world = _play(place, fault, seed, 1)
        stale, wants = stale + world.stale, wants + world.wants
    counted = place in (Market.OKX, Market.BYBIT, Market.DERIBIT)
    if fault in ("gap", "late", "corrupt") or (fault == "checksum" and place in (Market.OKX, Market.KRAKEN)):
        assert stale > 0 and wants > 0, "the schedules did not reach what they are to try"
    if fault == "duplicate" and counted:
        assert stale == 0
    if counted:
        for seed in range(schedules):
            world = _play(place, fault, seed, 2)
            assert world.stale == 0 or fault in ("reset", "checksum", "corrupt"), seed
