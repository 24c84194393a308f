"""Times, sides and names as files from elsewhere write them, by closed vocabularies: what is in none is refused by its place.

    Stamps(path, "timestamp").ns("1640995200100000.0", 7)   1640995200100000000; the unit is known by the size
    book_side("Asks", place)                                ASK
    aggressor("unknown", place)                             None: nobody knows it
    plain_name("BTC-USDT")                                  "BTCUSDT"

What this module is not: it reads no file.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from procs.recordings.output import RecordingsError
from procs.recordings.wire_text import ASK, BID
from trading.records import TS_END
from trading.stamps import OLDEST_NS, UNIT_NAMES, UNIT_NS, unit_of
from trading.symbol_names import SymbolNameError, symbol_name

_BIDS: Final = frozenset(("bid", "bids", "buy", "b"))
_ASKS: Final = frozenset(("ask", "asks", "sell", "a", "s"))
_SELLER: Final = {"buy": False, "b": False, "sell": True, "s": True}
_NOBODY_KNOWS: Final = frozenset(("", "unknown", "none", "null", "nan", "na", "n/a"))
_TRUTH: Final = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class Stamps:
    """The times of one column: numbers of one unit since 1970, which the first of them tells by its size."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        self.unit = ""
        self._ns = 0

    def ns(self, text: str, line: int) -> int:
        """A time in ns, exactly; 0 for none. Raises RecordingsError with file, line and what was seen."""
        if not text or text == "0":
            return 0
        number: Decimal | int
        if text.isascii() and text.isdigit() and len(text) < 20:
            number = int(text)
        else:
            try:
                number = Decimal(text)
            except InvalidOperation:
                raise self._no_time(text, line, "no number") from None
            if not number.is_finite():
                raise self._no_time(text, line, "no number")
        if not self._ns:
            unit = unit_of(number)
            self.unit, self._ns = UNIT_NAMES.get(unit, ""), UNIT_NS.get(unit, 0)
        found = number * self._ns
        if not OLDEST_NS <= found < TS_END:
            unit = f" of {self.unit}, as the lines before have" if self._ns else ""
            raise self._no_time(text, line, f"no time from 2001 to 2116{unit}")
        if found != int(found):
            raise self._no_time(text, line, "finer than a nanosecond")
        return int(found)

    def _no_time(self, text: str, line: int, what: str) -> RecordingsError:
        return RecordingsError(
            f"{self._path}:{line}: {self._column} {text[:40]!r} is {what}; wanted seconds, ms, us or ns since 1970"
        )

    def said(self, usual: str) -> list[str]:
        """A sentence where the unit is not the format's own."""
        return [f"{self._path}: {self._column} is in {self.unit}"] if self.unit not in ("", usual) else []


def book_side(text: str, place: str) -> int:
    """BID or ASK. Raises RecordingsError at `place`."""
    word = text.strip().lower()
    if word in _BIDS:
        return BID
    if word in _ASKS:
        return ASK
    raise RecordingsError(f"{place}: {text[:40]!r} is no side of a book; wanted bid or ask")


def aggressor(text: str, place: str) -> bool | None:
    """Whether the seller was the aggressor; None where the file says that nobody knows. Raises RecordingsError at `place`."""
    word = text.strip().lower()
    if word in _NOBODY_KNOWS:
        return None
    if word not in _SELLER:
        raise RecordingsError(f"{place}: {text[:40]!r} is no side of a trade; wanted buy, sell or unknown")
    return _SELLER[word]


def truth(text: str, place: str) -> bool:
    """Yes or no. Raises RecordingsError at `place`."""
    word = text.strip().lower()
    if word not in _TRUTH:
        raise RecordingsError(f"{place}: {text[:40]!r} is neither true nor false")
    return _TRUTH[word]


def plain_name(text: str) -> str:
    """A symbol as recordings write it: BTC-USD becomes BTCUSD (trading.symbol_names). Raises RecordingsError."""
    try:
        return symbol_name(text)
    except SymbolNameError as error:
        raise RecordingsError(f"{error}; give one with --symbol") from None
