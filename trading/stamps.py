"""Unix times as recordings and other programs' files have them: their magnitude tells their unit.

    1723161253.937085        s     1723161253937.085        ms     1723161253937085        us     1723161253937085768        ns

From September 2001 to 2116 no number is a time in two of these units. A fraction is taken to the nanosecond and cut off there.
`recording_text.split_lines` reads the same in compiled code; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from trading.records import TS_END

OLDEST_NS: Final = 10**18
"""September 2001. From then to TS_END no number is a time in two units."""
UNIT_NS: Final = {"ns": 1, "us": 1000, "ms": 1_000_000, "s": 1_000_000_000}
UNIT_NAMES: Final = {"ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds"}
STAMP: Final = rb"[0-9]{9,19}(?:\.[0-9]+)?"
"""A stamp, as a regular expression; whether it is a time is for `stamp_of` to say."""
_STAMP: Final = re.compile(rb"([0-9]{1,19})(?:\.([0-9]+))?\Z")
WANTED: Final = "Unix time in s, ms, us or ns"


def unit_of(number: Decimal | int) -> str:
    """The unit, of UNIT_NS, in which a number is a time from 2001 to 2116; "" for none."""
    return next((unit for unit, ns in UNIT_NS.items() if OLDEST_NS <= number * ns < TS_END), "")


def stamp_of(text: bytes) -> tuple[int, str] | None:
    """(Unix ns, unit that it was written in) of a stamp; None for what is no time between 2001 and 2116 in any unit."""
    found = _STAMP.match(text)
    if found is None:
        return None
    whole, digits = int(found[1]), found[2] or b""
    unit = unit_of(whole)
    if not unit:
        return None
    scale = UNIT_NS[unit]
    return whole * scale + int(digits.ljust(9, b"0")[:9]) * scale // 10**9, unit


def units_text(counts: Mapping[str, int]) -> str:
    """What units the stamps of a recording were in: "ms", or "ms (12) and ns (3)"; "" for none."""
    seen = [(unit, counts[unit]) for unit in UNIT_NS if counts.get(unit)]
    return seen[0][0] if len(seen) == 1 else " and ".join(f"{unit} ({count:,})" for unit, count in seen)
