"""The symbols of a run as people read them: from the profile, or from its staged recording."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from procs.cli import running
from procs.cli.observe import Symbol
from procs.profiles.schema import Profile


def of_profile(profile: Profile) -> list[Symbol]:
    """The symbols that a profile names."""
    return [_symbol(s.name, s.tick_size, s.lot_size) for s in profile.symbols]


def of_spool(path: Path) -> list[Symbol]:
    """The symbols of a staged recording (imports numba). Raises RecordingError."""
    from sim.recordings.spool import open_spool

    found = [symbol.instrument() for symbol in open_spool(path)[1].symbols]
    return [_symbol(s.name, s.tick_size, s.lot_size) for s in found]


def _symbol(name: str, tick_size: str, lot_size: str) -> Symbol:
    tick = Decimal(tick_size).normalize()
    return Symbol(name, float(tick), float(lot_size), max(-int(tick.as_tuple().exponent), 0))


def symbols_of(instance: str) -> list[Symbol]:
    """The symbols of a living instance; empty if they cannot be found out."""
    profile = running.running_profile(instance)
    if profile is None:
        return []
    spool = running.spool_of(instance)
    if profile.source.kind == "recording" and spool is not None:
        return of_spool(spool)
    return of_profile(profile)
