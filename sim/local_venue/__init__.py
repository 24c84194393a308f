"""A local server that speaks Binance's protocol, spot and USD-M, to test strategies against; docs/local-venue.md shows how.

It takes no orders, its market does not react to its clients, and only loopback should reach it.
"""

from sim.local_venue.faults import Fault, FaultError, Faults, load_faults, parse_fault
from sim.local_venue.limits import Limits
from sim.local_venue.market import Market
from sim.local_venue.server import LocalVenue, VenueError
from sim.local_venue.source import Source, SourceError, SymbolRules, generated, load_rules, recorded

__all__ = [
    "Fault",
    "FaultError",
    "Faults",
    "Limits",
    "LocalVenue",
    "Market",
    "Source",
    "SourceError",
    "SymbolRules",
    "VenueError",
    "generated",
    "load_faults",
    "load_rules",
    "parse_fault",
    "recorded",
]
