"""Which class speaks for which venue, and which symbols of a profile it gets."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Final

from procs.profiles.schema import LiveSettings, Profile
from trading.venues.protocol import Streams, Venue, VenueSymbol

CLASSES: Final = {
    "binance_spot": ("trading.venues.binance", "BinanceSpot"),
    "binance_usdm": ("trading.venues.binance", "BinanceUsdm"),
    "bybit": ("trading.venues.bybit", "Bybit"),
    "okx": ("trading.venues.okx", "Okx"),
    "kraken": ("trading.venues.kraken", "Kraken"),
    "coinbase": ("trading.venues.coinbase", "Coinbase"),
    "deribit": ("trading.venues.deribit", "Deribit"),
}
CCXT: Final = "ccxt:"


def by_market(profile: Profile) -> dict[str, tuple[VenueSymbol, ...]]:
    """The profile's symbols by market, each with its index in the profile; a symbol that names no market has the live venue's."""
    found: dict[str, list[VenueSymbol]] = {}
    for index, it in enumerate(profile.symbols):
        market = it.market or profile.live.venue or "binance_spot"
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
    module, name = CLASSES[market]
    venue: Venue = getattr(importlib.import_module(module), name)(symbols, streams)
    return venue


def addresses_of(market: str, live: LiveSettings) -> tuple[str, str]:
    """(stream, rest) that `live.endpoints` gives for this market; "" where it gives none. The last entry counts."""
    stream = rest = ""
    for entry in live.endpoints:
        if (entry.venue or live.venue) == market:
            stream, rest = entry.stream or stream, entry.rest or rest
    return stream, rest
