"""All venues that have a module of their own, by market. To add one is a line here.

What this module is not: it knows nothing of venues that ccxt speaks to (`ccxt:<id>`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from trading.instruments import Market
from trading.venues.binance import BinanceSpot, BinanceUsdm
from trading.venues.bybit import Bybit
from trading.venues.coinbase import Coinbase
from trading.venues.deribit import Deribit
from trading.venues.kraken import Kraken
from trading.venues.okx import Okx
from trading.venues.protocol import Streams, Venue, VenueError, VenueSymbol

VENUES: Final[Mapping[Market, type[Venue]]] = MappingProxyType(
    {
        Market.BINANCE_SPOT: BinanceSpot,
        Market.BINANCE_USDM: BinanceUsdm,
        Market.BYBIT: Bybit,
        Market.OKX: Okx,
        Market.KRAKEN: Kraken,
        Market.COINBASE: Coinbase,
        Market.DERIBIT: Deribit,
    }
)


def make_venue(market: Market, symbols: Sequence[VenueSymbol], streams: Streams) -> Venue:
    """The venue for these symbols and streams. Raises VenueError for symbols that it cannot have, or a market without a
    module."""
    if market not in VENUES:
        raise VenueError(f"{market.name.lower()}: no venue module; one of {', '.join(it.name.lower() for it in VENUES)}")
    return VENUES[market](symbols, streams)
