"""Time spans as text, the same in a report and in every view of the command line."""

from __future__ import annotations


def span(ns: float) -> str:
    """A time span in the unit that reads best: "850 ns", "12.3 us", "4.56 ms", "7.8 s", "3 min 20 s", "2 d 4 h"."""
    for limit, unit, name in ((1e3, 1.0, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms"), (60e9, 1e9, "s")):
        if abs(ns) < limit * 0.9995:
            value = ns / unit
            return f"{value:.0f} {name}" if name == "ns" or abs(value) >= 99.95 else f"{value:.3g} {name}"
    seconds = round(ns / 1e9)
    for size, name, lower, lower_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // lower
            return f"{seconds // size} {name} {rest} {lower_name}" if rest else f"{seconds // size} {name}"
    return f"{seconds} s"
