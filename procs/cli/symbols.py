"""The symbols of a run as people read them: from the profile, or from its staged recording."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from procs.cli import running
from procs.cli.observe import Symbol
from procs.profiles.schema import Profile, SymbolSettings
from trading.contracts import asset_of, contract_of
from trading.venues.names import INVERSE, Market

if TYPE_CHECKING:
    from trading.instruments import Instrument


def of_profile(profile: Profile) -> list[Symbol]:
    """The symbols that a profile names."""
    return [_symbol(s, Market.of(s.market or profile.live.venue)) for s in profile.symbols]


def of_spool(path: Path, profile: Profile | None = None) -> list[Symbol]:
    """The symbols of a staged recording, contracts as the profile says (imports numba). Raises RecordingError."""
    from sim.recordings.spool import open_spool

    found = [symbol.instrument() for symbol in open_spool(path)[1].symbols]
    given = {s.name: s for s in profile.symbols} if profile is not None else {}
    contracts = {name: (s.contract, s.contract_size) for name, s in given.items()}
    return [_symbol(s, s.market, *contracts.get(s.name, ("", ""))) for s in found]


def _symbol(it: SymbolSettings | Instrument, market: Market, contract: str = "", size: str = "") -> Symbol:
    tick = Decimal(it.tick_size).normalize()
    contract, size = contract_of(market, it.name, contract or it.contract, size or it.contract_size)
    inverse = contract == INVERSE
    digits = max(-int(tick.as_tuple().exponent), 0)
    return Symbol(it.name, float(tick), float(it.lot_size), digits, inverse, float(size), asset_of(it.name, inverse))


def symbols_of(instance: str) -> list[Symbol]:
    """The symbols of a living instance; empty if they cannot be found out."""
    profile = running.running_profile(instance)
    if profile is None:
        return []
    spool = running.spool_of(instance)
    if profile.source.kind == "recording" and spool is not None:
        return of_spool(spool, profile)
    return of_profile(profile)
