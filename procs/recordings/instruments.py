"""What journals' integers stand for, since a slot holds nothing else: files beside them say what a tick and a lot were
(`instruments.json`), and what the user's own signals were called (`signals.json`)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from procs.whole_files import read_small, write_whole
from trading.instruments import Instrument, Market

FILE: Final = "instruments.json"
SIGNALS_FILE: Final = "signals.json"
LARGEST: Final = 1 << 20
"""Bytes that either file may have."""


def note(folder: Path, instruments: Sequence[Instrument]) -> None:
    """Write the file, unless it is there. A disk that is full keeps it out: the journals matter more."""
    said = [{f.name: getattr(it, f.name) for f in fields(it)} | {"market": it.market.label} for it in instruments]
    _write(folder / FILE, said)


def note_signals(folder: Path, names: Sequence[str]) -> None:
    """The same for the names of the user's own signals, in their order."""
    if names:
        _write(folder / SIGNALS_FILE, list(names))


def _write(path: Path, said: object) -> None:
    if path.exists():
        return
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps(said, indent=1).encode() + b"\n", mode=0o644)


def noted(folder: Path) -> list[Instrument]:
    """What `note` wrote; empty if there is nothing to read."""
    try:
        said = json.loads(read_small(folder / FILE, LARGEST))
        return [Instrument(**(entry | {"market": Market.of(entry["market"])})) for entry in said]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def own_signals(folder: Path) -> list[str]:
    """What `note_signals` wrote; empty if there is nothing to read."""
    try:
        said = json.loads(read_small(folder / SIGNALS_FILE, LARGEST))
    except (OSError, ValueError, RecursionError):
        return []
    return [name for name in said if isinstance(name, str)] if isinstance(said, list) else []
