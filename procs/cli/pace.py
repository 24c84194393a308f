"""Whose doing full rings and long hops are: the replay's own pace, or a machine that is too slow for it."""

from __future__ import annotations

from typing import Final

from procs.cli.figures import Snapshot
from procs.profiles.schema import Profile

FULL: Final = 0.5
"""Share of a ring from which it is worth a word."""


def hurried(profile: Profile) -> bool:
    """Whether the market comes faster than it was, so that waiting in a ring says nothing about a live run."""
    speed = profile.source.speed
    return profile.source.kind != "live" and (speed == "max" or speed > 1.0)


def pace_of(profile: Profile) -> str:
    """A pace faster than the market's own in words, else ""."""
    speed = profile.source.speed
    return "" if not hurried(profile) else "as fast as it can" if speed == "max" else f"{speed:g}x its own pace"


def note(profile: Profile) -> str:
    """What such a pace does to rings and hops, short enough for a heading; "" for the market's own."""
    return f"{pace_of(profile)}: full rings and long hops are the pace's, no faults" if hurried(profile) else ""


def verdict(profile: Profile, figures: Snapshot) -> str:
    """For the end of a run: which of what was seen was the replay's own pace; "" where nothing waited."""
    stalls = {ring["name"]: ring["stalls"] for ring in figures["rings"] if ring["stalls"]}
    if not hurried(profile) or not stalls:
        return ""
    most = max(stalls, key=lambda name: stalls[name])
    return (
        f"it was played {pace_of(profile)}, so stages wait for each other: a full ring makes its writer wait and loses nothing "
        f"({most}: {stalls[most]:,} times), and hops count the waiting; measure them at the market's own pace, --speed 1"
    )
