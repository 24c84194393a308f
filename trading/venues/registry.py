"""The classes of the venues that have a module of their own, each loaded when it is first asked for.

What this module is not: it lists no venue, trading.venues.names does; and it knows nothing of those that ccxt speaks to.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from trading.venues.names import VENUES, Market
from trading.venues.protocol import Streams, Venue, VenueError, VenueSymbol


def venue_class(market: Market) -> type[Venue]:
    """The class that the venue's row names. Raises VenueError for a market without a module."""
    if market not in VENUES:
        raise VenueError(f"{market.label}: no venue module; one of {', '.join(it.label for it in VENUES)}")
    module, _, name = market.facts.venue.partition(":")
    found: type[Venue] = getattr(importlib.import_module(module), name)
    return found


def make_venue(market: Market, symbols: Sequence[VenueSymbol], streams: Streams) -> Venue:
    """The venue for these symbols and streams. Raises VenueError for symbols that it cannot have, or a market without a
    module."""
    return venue_class(market)(symbols, streams)
