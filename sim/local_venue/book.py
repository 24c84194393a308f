"""The venue's own book of one symbol: full depth, update ids, and enough memory to say what it was a while ago.

Levels keep the text that they were sent as, so what goes out is what came in. In plain Python: a dict of the levels and a sorted
list of keys a side (a key is the price in 1e-8, negated for asks, so that the best level is the last one on both sides).

What this is not: a client's book. It checks no sequence; whoever feeds it is the venue.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

Level = Sequence[str]
"""(price, quantity) as decimal text."""

BID: Final = 0
ASK: Final = 1
UNDO_KEPT: Final = 4096
"""Updates that can be taken back; at ten a second, nearly seven minutes."""


def units_of(text: str) -> int:
    """A decimal text in units of 1e-8, exactly; ValueError for anything that is no such number."""
    whole, _, rest = text.partition(".")
    if len(rest) > 8:
        if rest[8:].strip("0"):
            raise ValueError(f"{text!r} has more than 8 decimals")
        rest = rest[:8]
    value = int(whole + rest.ljust(8, "0"))
    return value


def text_of(units: int, decimals: int = 8) -> str:
    """Units of 1e-8 as text with so many decimals (further ones are cut off)."""
    sign, units = ("-", -units) if units < 0 else ("", units)
    digits = str(units).rjust(9, "0")
    if decimals == 0:
        return sign + digits[:-8]
    return f"{sign}{digits[:-8]}.{digits[-8:][:decimals].ljust(decimals, '0')}"


def plain_text(units: int) -> str:
    """Units of 1e-8 as the shortest decimal text: 100_000 -> "0.001"."""
    text = text_of(units).rstrip("0")
    return text.removesuffix(".")


class VenueBook:
    """Bids and asks after update `last_id`."""

    def __init__(self) -> None:
        self.last_id = 0
        self.at_ns = 0
        """When the last update was applied, on the venue's clock."""
        self._levels: tuple[dict[int, tuple[str, str]], dict[int, tuple[str, str]]] = ({}, {})
        self._keys: tuple[list[int], list[int]] = ([], [])
        self._undo: deque[tuple[int, int, list[tuple[int, int, tuple[str, str] | None]]]] = deque(maxlen=UNDO_KEPT)

    def __len__(self) -> int:
        return len(self._keys[0]) + len(self._keys[1])

    def seed(self, bids: Iterable[Level], asks: Iterable[Level], last_id: int, at_ns: int = 0) -> None:
        """Be this snapshot; what was before cannot be had back."""
        self._undo.clear()
        self.last_id, self.at_ns = last_id, at_ns
        for side, levels in ((BID, bids), (ASK, asks)):
            here = self._levels[side]
            here.clear()
            for price, qty in levels:
                if units_of(qty):
                    here[self.key(side, price)] = (price, qty)
            self._keys[side][:] = sorted(here)

    @staticmethod
    def key(side: int, price: str) -> int:
        """Where a price stands in the order of its side."""
        return units_of(price) if side == BID else -units_of(price)

    def apply(self, bids: Iterable[Level], asks: Iterable[Level], last_id: int, at_ns: int = 0) -> None:
        """Set these levels (quantity 0 removes) and move on to `last_id`."""
        undo: list[tuple[int, int, tuple[str, str] | None]] = []
        for side, levels in ((BID, bids), (ASK, asks)):
            here, keys = self._levels[side], self._keys[side]
            for price, qty in levels:
                key = self.key(side, price)
                before = here.get(key)
                undo.append((side, key, before))
                if qty.strip("0."):
                    if before is None:
                        keys.insert(bisect_left(keys, key), key)
                    here[key] = (price, qty)
                elif before is not None:
                    del keys[bisect_left(keys, key)]
                    del here[key]
        self._undo.append((self.last_id, self.at_ns, undo))
        self.last_id, self.at_ns = last_id, at_ns

    def best(self, side: int) -> tuple[str, str] | None:
        """The best level of a side, None when it is empty."""
        keys = self._keys[side]
        return self._levels[side][keys[-1]] if keys else None

    def side(self, side: int, limit: int = 0) -> list[tuple[str, str]]:
        """The best `limit` levels (0: all), best first."""
        here, keys = self._levels[side], self._keys[side]
        chosen = keys[-limit:] if limit else keys
        return [here[key] for key in reversed(chosen)]

    def quantities(self, side: int) -> dict[str, str]:
        """Price -> quantity of every level."""
        return dict(self._levels[side].values())

    def _copy(self) -> VenueBook:
        other = VenueBook()
        other.last_id, other.at_ns = self.last_id, self.at_ns
        other._levels = (dict(self._levels[BID]), dict(self._levels[ASK]))
        return other

    def _back(self, enough: int, by_time: bool) -> VenueBook:
        """A copy after as many updates were taken back as lead to at most `enough` (an id, or a time)."""
        other = self._copy()
        for last_id, at_ns, undo in reversed(self._undo):
            if (other.at_ns if by_time else other.last_id) <= enough:
                break
            for side, key, before in reversed(undo):
                if before is None:
                    other._levels[side].pop(key, None)
                else:
                    other._levels[side][key] = before
            other.last_id, other.at_ns = last_id, at_ns
        other._keys = (sorted(other._levels[BID]), sorted(other._levels[ASK]))
        return other

    def at_id(self, update_id: int) -> VenueBook:
        """The book as it was after exactly this update; KeyError when no remembered update ended there."""
        found = self._back(update_id, False)
        if found.last_id != update_id:
            raise KeyError(update_id)
        return found

    def at_time(self, at_ns: int) -> VenueBook:
        """The book as it was at this time, or the oldest one that is remembered."""
        return self._back(at_ns, True)

    def difference(self, bids: Iterable[Level], asks: Iterable[Level]) -> tuple[list[Level], list[Level]]:
        """The levels of the one update that would turn this book into that snapshot."""
        out: list[list[Level]] = [[], []]
        for side, levels in ((BID, bids), (ASK, asks)):
            wanted = {self.key(side, price): (price, qty) for price, qty in levels}
            here = self._levels[side]
            gone = {key: level for key, level in here.items() if key not in wanted}
            zero = {key: (price, "0." + "0" * len(qty.partition(".")[2])) for key, (price, qty) in gone.items()}
            out[side] = [level for key, level in sorted({**zero, **wanted}.items(), reverse=True) if here.get(key) != level]
        return out[BID], out[ASK]
