"""Every fuzz target by name; a new one is a line here."""

from __future__ import annotations

from typing import Final

from fuzz_binance import PlainFrames, SpotFrames, UsdmFrames
from fuzz_files import GzipMembers, Journals, Profiles, Recordings
from fuzz_target import Target
from fuzz_venues import InstrumentLists, VenueDecoders

TARGETS: Final[dict[str, type[Target]]] = {
    target.name: target
    for target in (
        SpotFrames, UsdmFrames, PlainFrames, VenueDecoders, InstrumentLists, Profiles, Journals, Recordings, GzipMembers
    )
}  # fmt: skip
