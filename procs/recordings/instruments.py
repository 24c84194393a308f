"""What a tick and a lot were when journals were written: `instruments.json` beside them, since a slot holds integers alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from procs.whole_files import write_whole
from trading.instruments import Instrument, Market

FILE: Final = "instruments.json"


def note(folder: Path, instruments: Sequence[Instrument]) -> None:
    """Write the file, unless it is there. A disk that is full keeps it out: the journals matter more."""
    path = folder / FILE
    if path.exists():
        return
    said = [{f.name: getattr(it, f.name) for f in fields(it)} | {"market": it.market.label} for it in instruments]
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps(said, indent=1).encode() + b"\n", mode=0o644)


def noted(folder: Path) -> list[Instrument]:
    """What `note` wrote; empty if there is nothing to read."""
    try:
        said = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return [Instrument(**(entry | {"market": Market.of(entry["market"])})) for entry in said]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
