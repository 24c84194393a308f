"""Order books, trades and quotes as ccxt.pro hands them over, made into plain frames: exact integers, a sequence of our own.

ccxt.pro keeps the book itself, checks the venue's sequence or checksum, and shows the whole book after every message. `CcxtBook`
compares it with the one before and writes what changed: a SNAPSHOT (IN_BAND) first, then DEPTH frames whose `prev_id` is the id
before. The ids are ours: they count up from `first_id` and never go back, across snapshots too. Levels beyond `depth` a side are
not told.

Trades get ids that never go back either: the venue's own where it counts up, else one more than the last.

What this module is not: it proves nothing about the book that ccxt shows; a venue with a decoder of its own is the better choice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from trading.venues.ccxt_market import Number, units
from trading.venues.protocol import VenueError, VenueSymbol
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import IN_BAND, plain_frame

BID: Final = 0
ASK: Final = 1
IDS_KEPT: Final = 4096
"""Trade ids remembered: more than any venue repeats after a new subscription."""
MOST_ID: Final = 2**62
MS_NS: Final = 1_000_000


def _ns(timestamp_ms: Any) -> int:
    """ccxt's `timestamp` (ms or None) in ns; 0: the venue names none."""
    return int(timestamp_ms * MS_NS) if isinstance(timestamp_ms, (int, float)) and timestamp_ms > 0 else 0


class CcxtBook:
    """Frames of one symbol. `first_id`: ids begin after it (a clock in us lets them go on after a restart)."""

    def __init__(self, symbol: VenueSymbol, *, depth: int = 100, first_id: int = 0) -> None:
        self.symbol: Final = symbol
        self.depth: Final = depth
        self.last_id = first_id
        self.trades_without_side = 0
        self._tick = Decimal(symbol.tick_size)
        self._lot = Decimal(symbol.lot_size)
        self._sides: tuple[dict[Number, Number], dict[Number, Number]] | None = None
        self._mid = 0.0
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._trade_id = 0
        self._trade_ms = 0.0
        self._side = "buy"

    def forget(self) -> None:
        """The book is not to be trusted any more: the next one becomes a snapshot."""
        self._sides = None

    def _ticks(self, price: Number) -> int:
        ticks = units(price, self._tick, f"{self.symbol.name}: price")
        if ticks == 0:
            raise VenueError(f"{self.symbol.name}: a price of 0")
        return ticks

    def _lots(self, amount: Number) -> int:
        return units(amount, self._lot, f"{self.symbol.name}: quantity")

    def book(self, bids: Sequence[Sequence[Any]], asks: Sequence[Sequence[Any]], timestamp_ms: Any = None) -> bytes | None:
        """The frame of ccxt's book as it stands; None if nothing changed within `depth`.

        Raises VenueError for a price or quantity that is no whole number of ticks or lots; nothing is changed by it.
        """
        new = (
            {row[0]: row[1] for row in bids[: self.depth] if row[1]},
            {row[0]: row[1] for row in asks[: self.depth] if row[1]},
        )
        old = self._sides
        rows: list[tuple[int, int]] = []
        for side in (BID, ASK):
            before = old[side] if old is not None else {}
            now = new[side]
            rows += [(self._ticks(price) * 2 + side, 0) for price in before if price not in now]
            rows += [(self._ticks(p) * 2 + side, self._lots(q)) for p, q in now.items() if before.get(p) != q]
        if old is not None and not rows:
            return None
        previous, self.last_id = self.last_id, self.last_id + 1
        self._sides = new
        if new[BID] and new[ASK]:
            self._mid = (float(next(iter(new[BID]))) + float(next(iter(new[ASK])))) / 2
        levels = np.array(rows, np.int64).reshape(-1, 2)
        if old is None:
            return plain_frame(FrameKind.SNAPSHOT, self.symbol.index, _ns(timestamp_ms), levels, first_id=self.last_id,
                               last_id=self.last_id, flags=IN_BAND)  # fmt: skip
        return plain_frame(FrameKind.DEPTH, self.symbol.index, _ns(timestamp_ms), levels, first_id=self.last_id,
                           last_id=self.last_id, prev_id=previous)  # fmt: skip

    def trade(self, trade: Mapping[str, Any]) -> bytes | None:
        """The frame of one trade; None for one that was told before (by its id; without ids: older than the last).

        A trade without an aggressor's side gets the one that its price speaks for (above the mid: a buyer; at it: as the one
        before), counted in `trades_without_side`. Raises VenueError.
        """
        number, timestamp = trade.get("id"), trade.get("timestamp") or 0
        if number is not None and str(number) != "":
            if str(number) in self._seen:
                return None
        elif timestamp < self._trade_ms:
            return None
        ticks, lots = self._ticks(trade["price"]), self._lots(trade["amount"])
        if lots == 0:
            raise VenueError(f"{self.symbol.name}: a trade without a quantity")
        if number is not None and str(number) != "":
            self._seen[str(number)] = None
            if len(self._seen) > IDS_KEPT:
                self._seen.popitem(last=False)
        self._trade_ms = max(self._trade_ms, timestamp)
        side = trade.get("side")
        if side not in ("buy", "sell"):
            self.trades_without_side += 1
            price = float(trade["price"])
            side = self._side if not self._mid or price == self._mid else "buy" if price > self._mid else "sell"
        self._side = side
        text = str(number)
        own = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
        self._trade_id = own if self._trade_id < own < MOST_ID else self._trade_id + 1
        maker = BID if side == "sell" else ASK
        levels = np.array([(ticks * 2 + maker, lots)], np.int64)
        return plain_frame(FrameKind.TRADE, self.symbol.index, _ns(timestamp), levels, first_id=self._trade_id,
                           last_id=self._trade_id)  # fmt: skip

    def quote(self, ticker: Mapping[str, Any]) -> bytes | None:
        """The frame of the best bid and ask in a ccxt ticker; None where it names neither. Its id is 0: it has no place in the
        sequence of the book. Raises VenueError."""
        rows = []
        for side, price, amount in ((BID, "bid", "bidVolume"), (ASK, "ask", "askVolume")):
            there = ticker.get(price) and ticker.get(amount)
            rows.append((self._ticks(ticker[price]) * 2 + side, self._lots(ticker[amount])) if there else (side, 0))
        if not rows[0][1] and not rows[1][1]:
            return None
        return plain_frame(FrameKind.BBO, self.symbol.index, _ns(ticker.get("timestamp")), np.array(rows, np.int64))
