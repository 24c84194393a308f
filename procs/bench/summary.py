"""The figures of a benchmark that are worth a line in a log, from its JSON: `python -m procs.bench.summary FILE`.

Ratios to what a benchmark compares with, and the few absolute ones that have none. The CI's log keeps them, so that the effect
of a change can be looked up later. Nothing is judged here: a benchmark's exit code does that.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SHOWN: Final = re.compile(
    r"(^|\.)(\w*ratio\w*|messages_per_s|verdict\.(difference|noise)_ns|verdict\.words|(all|with|without|latency|frame_to_order)\.p(50|99)_(ms|ns)"
    r"|\w*a_record|cpu_cores)$"
)
"""Paths of figures: keys joined by points; an entry of a list counts by its `name`."""


def figures(found: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every figure to be shown, in the order of the JSON."""
    entries: Any = ()
    if isinstance(found, dict):
        entries = found.items()
    elif isinstance(found, list):
        entries = ((str(one["name"]), one) for one in found if isinstance(one, dict) and "name" in one)
    for key, value in entries:
        place = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict | list):
            yield from figures(value, place)
        elif value is not None and SHOWN.search(place):
            yield place, value


def line(found: dict[str, Any]) -> str:
    """One line: every figure, then what was complained of."""
    said = [f"{path} {value:,.4g}" if isinstance(value, float) else f"{path} {value}" for path, value in figures(found)]
    said += [f"! {text}" for text in found.get("complaints", ())]
    return "   " + "; ".join(said)


def main(arguments: list[str]) -> int:
    """The program: says nothing of a benchmark that has left no JSON."""
    try:
        found = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 1
    print(line(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
