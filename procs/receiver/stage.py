"""The receiver stage: the process that holds the venue's connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from procs.config import Profile


def main(profile: Profile, runtime: Mapping[str, Any]) -> int:
    """One incarnation of the receiver; returns the exit code."""
    return 0


def warm(profile: Profile) -> None:
    """Nothing to compile yet."""
