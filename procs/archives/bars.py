"""Candles as CSV with a header, and Lean's trade bars.

datetime,open,high,low,close,volume                   the first column's name and form vary; a date is taken as UTC
20170903_btcusd_minute_trade.csv: 0,4642.39,...       Lean: milliseconds of the name's day; daily: 20150427 00:00,...
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from procs.archives.events import Bar, Told, date_ns
from procs.archives.sources import Source

_TIMES: Final = ("datetime", "date", "time", "timestamp", "open_time", "unix", "open time")
_PRICES: Final = ("open", "high", "low", "close", "volume")
_LEAN: Final = re.compile(r"^(\d{8})_([a-z0-9]+)_(?:second|minute)_trade\.csv$")
_LEAN_DAILY: Final = re.compile(rb"^\d{8} \d\d:\d\d,[0-9.]+,[0-9.]+,[0-9.]+,[0-9.]+,[0-9.]+$")


def _columns(source: Source) -> dict[str, int]:
    return {name.strip().lower(): k for k, name in enumerate(source.columns)}


def is_csv(source: Source) -> bool:
    """By the header."""
    columns = _columns(source)
    return not source.arrow and set(columns) >= set(_PRICES) and any(name in columns for name in _TIMES)


def is_lean(source: Source) -> bool:
    """By the member's name, or the first daily row."""
    return _LEAN.match(source.name) is not None or _LEAN_DAILY.match(source.first) is not None


def symbol_of(source: Source) -> str:
    """Of Lean's names; a CSV's name is too free to tell."""
    found = _LEAN.match(source.name)
    if found:
        return found[2].upper()
    return source.name.partition(".")[0].upper() if is_lean(source) else ""


def csv_bars(source: Source, told: Told, symbol: str) -> Iterator[Bar]:
    """One a row."""
    columns = _columns(source)
    time_at = next(columns[name] for name in _TIMES if name in columns)
    at = [columns[name] for name in _PRICES]
    for number, cells in source.rows():
        if number > 1:
            told.rows += 1
            yield Bar(_when(told, cells[time_at].strip(), number), *(cells[k] for k in at))


def lean_bars(source: Source, told: Told, symbol: str) -> Iterator[Bar]:
    """One a row."""
    named = _LEAN.match(source.name)
    day_ns = date_ns(f"{named[1][:4]}-{named[1][4:6]}-{named[1][6:]}") if named else 0
    for number, (time, *prices) in source.rows():
        told.rows += 1
        if named:
            if not time.isdigit() or int(time) >= 86_400_000:
                raise told.wrong(number, f"{time[:40]!r} is no millisecond of a day")
            opened = (day_ns or 0) + int(time) * 1_000_000
        else:
            opened = _when(told, f"{time[:4]}-{time[4:6]}-{time[6:]}", number)
        yield Bar(opened, *prices[:5])


def _when(told: Told, text: str, number: int) -> int:
    if text.replace(".", "", 1).isdigit():
        return told.stamp(text, number)
    found = date_ns(text)
    if found is None:
        raise told.wrong(number, f"{text[:40]!r} is neither a date nor a time")
    told.units["dates (UTC)"] += 1
    return found
