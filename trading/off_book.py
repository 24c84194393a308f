"""Whether a print was made in the book that is shown: one rule for the features and for the simulated exchange.

A venue's tape holds prints that nobody could have had in its book: deals made aside, errors that are broken later. They stand
far from the book, and the book does not follow them. A print is off the book if it is more than a hundredth of the price, and
more than ten ticks, beyond the best of the side that it took from. Prints of half an hour of the most traded pairs lie 0.1 %
beyond it at most [measured]: a sweep that goes deeper shows in the book's next message.

What this module is not: prints that their venue itself calls no trades never get here (trading.books.fold).
"""

from __future__ import annotations

from typing import Final

from trading.jit import kernel

PARTS: Final = 100
"""A print is off the book from one part in so many beyond it ..."""
TICKS: Final = 10
"""... where that is more than so many ticks."""


@kernel
def off_book(key: int, best: int) -> bool:
    """Whether a print at `key` is off a book whose best on that side is `best` (keys of trading.books.book)."""
    return key - best > max(abs(best) // PARTS, TICKS)
