"""Which symbols of a profile each venue gets, and with what streams and addresses."""

from __future__ import annotations

from collections.abc import Sequence

from procs.profiles.schema import LiveSettings, Profile
from trading.venues.names import DEFAULT, Market
from trading.venues.protocol import Streams, Venue, VenueSymbol
from trading.venues.registry import make_venue


def by_market(profile: Profile) -> dict[str, tuple[VenueSymbol, ...]]:
    """The profile's symbols by market, each with its index in the profile; a symbol that names no market has the live venue's."""
    found: dict[str, list[VenueSymbol]] = {}
    for index, it in enumerate(profile.symbols):
        market = it.market or profile.live.venue or DEFAULT.label
        symbol = VenueSymbol(index, it.name, it.venue_name or it.name, it.tick_size, it.lot_size)
        found.setdefault(market, []).append(symbol)
    return {market: tuple(symbols) for market, symbols in found.items()}


def streams_of(live: LiveSettings) -> Streams:
    """Which streams the profile wants."""
    return Streams(
        trade=live.trade,
        bbo=live.bbo,
        mark=live.mark,
        depth_interval_ms=live.depth_interval_ms,
        snapshot_levels=live.snapshot_levels,
    )


def venue_of(market: str, symbols: Sequence[VenueSymbol], streams: Streams) -> Venue:
    """The venue of a market that has a decoder of its own. Raises VenueError for symbols it cannot take."""
    return make_venue(Market.of(market), symbols, streams)


def addresses_of(market: str, live: LiveSettings) -> tuple[str, str]:
    """(stream, rest) that `live.endpoints` gives for this market; "" where it gives none. The last entry counts."""
    stream = rest = ""
    for entry in live.endpoints:
        if (entry.venue or live.venue) == market:
            stream, rest = entry.stream or stream, entry.rest or rest
    return stream, rest
