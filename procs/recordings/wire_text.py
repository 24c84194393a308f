"""Market data from elsewhere as a recording of ours: Binance's frames, with update ids that this program made up.

What the source says of the book becomes one snapshot and then diffs, each following the one before, so that everything that
reads recordings reads these. A book that the source begins anew becomes a diff of what changed. The ids prove nothing: a
gap in the source's data stays unseen here.

Best bid/offer messages get ids that no diff has: they are never compared with the book, since no source says which
update they belong to. Exchange times are kept to the microsecond.

What this module is not: it parses no source; `procs.recordings.hftbacktest` and `procs.recordings.tardis` do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import numpy as np

from procs.recordings.output import RecordingsError
from sim.recordings.spool import decimal_text
from trading.contracts import pair_of, quote_of
from trading.records import TS_END
from trading.stamps import OLDEST_NS
from trading.venues.names import Market
from trading.wire.binance_layout import MAX_SNAPSHOT_LEVELS

BID, ASK = 0, 1
MOST_LEVELS: Final = 4000
"""Levels of one diff; more become several."""
FIRST_ID: Final = 1000
MOST_DECIMALS: Final = 10
MOST_UNITS: Final = 2**62
SPOT_DECIMALS: Final = Market.BINANCE_SPOT.facts.lot_decimals or 0

Change = tuple[int, int, int]
"""(side, price, quantity) in units of the writer's decimals; quantity 0 removes."""


class FrameWriter:
    """Writes lines to `out`. Prices and quantities are integers: units of 10**-price_decimals and 10**-qty_decimals."""

    def __init__(self, out: Callable[[bytes], Any], symbol: str, usdm: bool, price_decimals: int, qty_decimals: int) -> None:
        if not usdm and qty_decimals > SPOT_DECIMALS:
            raise RecordingsError(
                f"{symbol}: quantities have {qty_decimals} decimals, Binance spot's frames {SPOT_DECIMALS}; "
                "give --market binance_usdm or --lot"
            )
        self._out, self._symbol, self._usdm = out, symbol, usdm
        coinm = usdm and "_" in symbol and quote_of(symbol) == "USD"
        self._book_names = {"s": symbol, "ps": pair_of(symbol)} if coinm else {"s": symbol}
        self._price_decimals, self._qty_decimals = price_decimals, qty_decimals
        self.book: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._id = FIRST_ID
        self._last_diff = 0  # id of the newest diff; 0: no book yet
        self._trade_id = 0
        self.frames = 0
        self.crossed_bbos = 0
        self.notes: list[str] = []
        """What whoever converts is to be told of the source, a sentence each."""

    # ---- the book

    def change(self, recv_ns: int, exch_ns: int, changes: Iterable[Change]) -> None:
        """One message of changed levels."""
        found = list(changes)
        if not self._last_diff:
            self._begin(recv_ns, exch_ns)
        for side, price, qty in found:
            if qty:
                self.book[side][price] = qty
            else:
                self.book[side].pop(price, None)
        for at in range(0, len(found), MOST_LEVELS):
            self._diff(recv_ns, exch_ns, found[at : at + MOST_LEVELS])

    def replace(self, recv_ns: int, exch_ns: int, bids: dict[int, int], asks: dict[int, int]) -> None:
        """A whole book in place of the one before."""
        if not self._last_diff:
            self.book = (dict(bids), dict(asks))
            self._begin(recv_ns, exch_ns)
            return
        gone: list[Change] = []
        come: list[Change] = []
        for side, now in ((BID, bids), (ASK, asks)):
            was = self.book[side]
            gone += [(side, price, 0) for price in was if price not in now]
            come += [(side, price, qty) for price, qty in now.items() if was.get(price) != qty]
        self.change(recv_ns, exch_ns, gone + come)  # what goes first: no book in between is crossed

    def _begin(self, recv_ns: int, exch_ns: int) -> None:
        """The first snapshot, the diff that proves it, and what of the book is deeper than a snapshot may be."""
        ordered = (sorted(self.book[BID].items(), reverse=True), sorted(self.book[ASK].items()))
        sides = [[self._level(p, q) for p, q in side[:MAX_SNAPSHOT_LEVELS]] for side in ordered]
        self._line(recv_ns, {"lastUpdateId": self._id, "bids": sides[BID], "asks": sides[ASK]})
        self._last_diff = self._id if not self._usdm else self._id - 1
        if self._usdm:
            self._id -= 1  # USD-M's first diff contains the snapshot's own id
        rest = [(s, p, q) for s, side in enumerate(ordered) for p, q in side[MAX_SNAPSHOT_LEVELS:]]
        for at in range(0, max(len(rest), 1), MOST_LEVELS):
            self._diff(recv_ns, exch_ns, rest[at : at + MOST_LEVELS], at_least=FIRST_ID if self._usdm and at == 0 else 0)

    def _diff(self, recv_ns: int, exch_ns: int, changes: list[Change], at_least: int = 0) -> None:
        self._id = max(self._id + 1, at_least)
        sides = [[self._level(p, q) for s, p, q in changes if s == side] for side in (BID, ASK)]
        said: dict[str, Any] = {"e": "depthUpdate", **self._times(exch_ns), **self._book_names}
        said |= {"U": self._last_diff + 1, "u": self._id}
        if self._usdm:
            said["pu"] = self._last_diff
        self._last_diff = self._id
        self._stream(recv_ns, "depth@100ms", said | {"b": sides[BID], "a": sides[ASK]})

    # ---- the rest

    def trade(self, recv_ns: int, exch_ns: int, price: int, qty: int, seller: bool, trade_id: int = 0) -> None:
        """A print; `seller`: the aggressor sold. Without an id the trades are counted."""
        self._trade_id = trade_id or self._trade_id + 1
        said = {"e": "trade", **self._times(exch_ns or recv_ns), "s": self._symbol, "t": self._trade_id}
        price_text, qty_text = self._level(price, qty)
        said |= {"p": price_text, "q": qty_text}
        said["T"] = _time(exch_ns or recv_ns)
        self._stream(recv_ns, "trade", said | {"m": seller} | ({"X": "MARKET"} if self._usdm else {}))

    def bbo(self, recv_ns: int, exch_ns: int, bid: tuple[int, int], ask: tuple[int, int]) -> None:
        """Best bid and offer, each (price, quantity), (0, 0) for none. A crossed pair is counted and left out."""
        if bid[0] and ask[0] and bid[0] >= ask[0]:
            self.crossed_bbos += 1
            return
        self._id += 1
        said: dict[str, Any] = {"e": "bookTicker", **self._times(exch_ns)} if self._usdm else {}
        (b, bq), (a, aq) = self._level(*bid), self._level(*ask)
        self._stream(recv_ns, "bookTicker", said | {"u": self._id, **self._book_names, "b": b, "B": bq, "a": a, "A": aq})

    def _level(self, price: int, qty: int) -> list[str]:
        return [decimal_text(price, self._price_decimals), decimal_text(qty, self._qty_decimals)]

    def _times(self, exch_ns: int) -> dict[str, int]:
        if not exch_ns:
            return {}
        return {"E": _time(exch_ns), "T": _time(exch_ns)} if self._usdm else {"E": _time(exch_ns)}

    def _stream(self, recv_ns: int, stream: str, said: dict[str, Any]) -> None:
        self._line(recv_ns, {"stream": f"{self._symbol.lower()}@{stream}", "data": said})

    def _line(self, recv_ns: int, frame: dict[str, Any]) -> None:
        if not OLDEST_NS <= recv_ns < TS_END:
            raise RecordingsError(f"{self._symbol}: {recv_ns} is no receive time in ns from 2001 to 2116; nothing was made")
        self._out(b"%d %s\n" % (recv_ns, json.dumps(frame, separators=(",", ":")).encode()))
        self.frames += 1


def _time(ns: int) -> int:
    """Milliseconds, or microseconds where there are such."""
    return ns // 1_000_000 if ns % 1_000_000 == 0 else ns // 1000


# ---- numbers


def step_of(text: str, option: str) -> Decimal:
    """A tick or lot given by the user."""
    try:
        step = Decimal(text)
    except InvalidOperation:
        step = Decimal(0)
    if not step.is_finite() or step <= 0:
        raise RecordingsError(f"{option} {text!r} is no size: write the venue's figure, e.g. 0.01")
    return step


def units_of_floats(values: Any, step: Decimal | None, what: str, option: str) -> tuple[Any, int]:
    """(int64 units, decimals) of float prices or quantities.

    Without `step` a float stands for the shortest decimal that reads back as it; with it, for the nearest multiple, which
    must lie within a millionth of a step.
    """
    unique, where = np.unique(np.asarray(values, np.float64), return_inverse=True)
    if unique.size and not (np.isfinite(unique).all() and unique[0] >= 0):
        raise RecordingsError(f"a {what} is negative or no number; the file is damaged")
    if step is not None:
        decimals = max(-int(step.normalize().as_tuple().exponent), 0)
        count = np.rint(unique / float(step))
        if (np.abs(unique / float(step) - count) > np.maximum(1e-6, np.abs(count) * 1e-14)).any():
            raise RecordingsError(f"a {what} is no multiple of {option} {step}; give the finer size that the data has")
        units = count.astype(np.int64) * int(step.scaleb(decimals))
        if count.size and int(count[-1]) * int(step.scaleb(decimals)) > MOST_UNITS:
            raise RecordingsError(f"a {what} of {unique[-1]:g} is too large to count in steps of {option} {step}")
    else:
        exact = [Decimal(repr(float(value))) for value in unique]
        decimals = max((-int(d.normalize().as_tuple().exponent) for d in exact if d), default=0)
        decimals = max(decimals, 0)
        if decimals > MOST_DECIMALS:
            raise RecordingsError(f"a {what} has {decimals} decimals, so it was computed, not printed; give {option}")
        if unique.size and int(exact[-1].scaleb(decimals)) > MOST_UNITS:
            raise RecordingsError(f"a {what} of {unique[-1]:g} is too large where others have {decimals} decimals; give {option}")
        units = np.array([int(d.scaleb(decimals)) for d in exact], np.int64)
    return units[where.reshape(-1)], decimals


def decimals_of(texts: Iterable[str], what: str) -> int:
    """The decimals that decimal texts need at most."""
    most = 0
    for text in texts:
        if "e" in text or "E" in text:
            text = plain_text(text, what)
        _, dot, after = text.partition(".")
        if dot and len(after) > most:
            most = max(most, len(after.rstrip("0")))
    if most > MOST_DECIMALS:
        raise RecordingsError(f"a {what} has {most} decimals; at most {MOST_DECIMALS} can be recorded")
    return most


def plain_text(text: str, what: str) -> str:
    """A decimal without an exponent."""
    try:
        return format(Decimal(text), "f")
    except InvalidOperation:
        raise RecordingsError(f"{text!r} is no {what}; the file is damaged") from None


def units_of_text(text: str, decimals: int, what: str) -> int:
    """A decimal text in units of 10**-decimals, exactly."""
    try:
        value = Decimal(text).scaleb(decimals)
        units = int(value)
    except (InvalidOperation, ValueError, OverflowError):
        raise RecordingsError(f"{text!r} is no {what}; the file is damaged") from None
    if units != value or units < 0:
        raise RecordingsError(f"{text!r} is no {what} of {decimals} decimals; the file is damaged, or has it negative")
    return units
