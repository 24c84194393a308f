"""Fills to round trips, first in first out: which purchase was closed by which sale, at what result.

A fill against an open position of the other sign closes the oldest open lots first. The pieces that join the same
entry order to the same exit order are one round trip, so that an order filled in ten partials counts as one trade, not
ten. Values and fees of a fill are shared out among its pieces in exact integers, so nothing is lost in rounding:

    sum of net_e8 over round trips + open lots' marked result - open lots' entry fees  =  change of equity

Money is in what the symbol is settled in: that of an inverse contract is in the coin (trading.instruments), and only
`quoted_e8` may be added to other symbols'.

What this module is not: the position that decisions are made on, which is trading.risk.positions'.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from trading.jit import Recs, Words
from trading.ranges import SATURATED
from trading.records import ExecType, Kind

ROUND_TRIP: Final = np.dtype(
    [
        ("symbol", "i8"),
        ("side", "i8"),  # of the entry: 1 long, -1 short
        ("qty_lots", "i8"),
        ("entry_order_id", "i8"),
        ("exit_order_id", "i8"),
        ("entry_ts_ns", "i8"),  # of the first lot in
        ("exit_ts_ns", "i8"),  # of the last lot out
        ("entry_value_e8", "i8"),
        ("exit_value_e8", "i8"),
        ("gross_e8", "i8"),  # side * (exit value - entry value); of an inverse contract with the sign turned
        ("fees_e8", "i8"),  # of both sides; negative is a rebate
        ("net_e8", "i8"),
        ("quoted_e8", "i8"),  # net_e8 in the quote currency: coins at the exit's average price
        ("held_ns", "f8"),  # mean time from entry to exit, weighted by lots
    ],
    align=True,
)
"""One closed trade."""

OPEN_LOT: Final = np.dtype(
    [(name, "i8") for name in ("symbol", "side", "qty_lots", "order_id", "ts_ns", "value_e8", "fee_e8")],
    align=True,
)
"""Lots of a fill that nothing has closed yet."""


def fills_of(reports: Recs) -> Recs:
    """The fills among REPORT_RECORDs, shape (n,), in their order."""
    return reports[(reports["kind"] == Kind.REPORT) & (reports["exec_type"] == ExecType.FILL)]


def values_e8(instruments: Recs, symbols: Words, price_ticks: Words, qty_lots: Words) -> Words:
    """`trading.instruments.notional_e8` for arrays of one shape: value in 1e-8 of the quote currency.

    As exact as the kernel is, and SATURATED at most.
    """
    table = instruments[symbols]
    div, mul = table["notional_div"], table["notional_mul"]
    prices = np.where(table["inverse"] != 0, 1, price_ticks)
    values = np.asarray(prices * qty_lots // div * mul, np.int64)
    product = prices.astype(np.float64) * qty_lots
    for i in np.flatnonzero(np.maximum(product, product / div * mul) >= 4.0e18):  # few: Python's ints hold any product
        exact = int(prices[i]) * int(qty_lots[i]) // int(div[i]) * int(mul[i])
        values[i] = min(exact, SATURATED)
    return values


def settled_values_e8(instruments: Recs, symbols: Words, price_ticks: Words, qty_lots: Words) -> Words:
    """`trading.instruments.settled_e8` for arrays of one shape: value in 1e-8 of what each symbol is settled in."""
    table, values = instruments[symbols], values_e8(instruments, symbols, price_ticks, qty_lots)
    chosen = np.flatnonzero(table["inverse"])
    coins, lots = table[chosen], qty_lots[chosen]
    parts = np.maximum(price_ticks[chosen] * coins["coin_div"], 1)
    whole, rest = coins["coin_mul"] // parts, coins["coin_mul"] % parts
    values[chosen] = whole * lots + (2 * rest * lots + parts) // (2 * parts)
    return values


def gain_signs(instruments: Recs, symbols: Words) -> Words:
    """`trading.instruments.gain_sign` for an array of symbols."""
    return np.asarray(1 - 2 * instruments["inverse"][symbols], np.int64)


def total_e8(values: Words) -> int:
    """The sum of amounts as a Python int, which holds what an int64 need not."""
    return sum(values.tolist())


@dataclass(slots=True)
class _Lot:
    """What is left of a fill: a Python int each, so that no product overflows."""

    side: int
    lots: int
    order_id: int
    ts_ns: int
    value_e8: int
    fee_e8: int

    def take(self, lots: int) -> tuple[int, int]:
        """Take lots out; returns their (value_e8, fee_e8). The last lots take what rounding left over."""
        value = self.value_e8 * lots // self.lots
        fee = self.fee_e8 * lots // self.lots
        self.lots -= lots
        self.value_e8 -= value
        self.fee_e8 -= fee
        return value, fee


@dataclass(slots=True)
class _Trip:
    symbol: int
    side: int
    entry_order_id: int
    exit_order_id: int
    entry_ts_ns: int
    exit_ts_ns: int
    gain: int
    lots: int = 0
    entry_value: int = 0
    exit_value: int = 0
    exit_notional: int = 0
    fees: int = 0
    lot_ns: int = 0

    def row(self) -> tuple[int | float, ...]:
        gross = self.side * self.gain * (self.exit_value - self.entry_value)
        net = gross - self.fees
        quoted = net if self.gain > 0 else net * self.exit_notional // max(self.exit_value, 1)
        return (
            *(self.symbol, self.side, self.lots, self.entry_order_id, self.exit_order_id, self.entry_ts_ns, self.exit_ts_ns),
            *(self.entry_value, self.exit_value, gross, self.fees, net, quoted, self.lot_ns / self.lots),
        )


def match_fifo(fills: Recs, instruments: Recs) -> tuple[Recs, Recs]:
    """(ROUND_TRIPs in order of their first exit, OPEN_LOTs left) of fills (REPORT_RECORD, shape (n,), in time order).

    Source: FIFO cost basis; the grouping by order pair is ours. A fill with no lots or no side is skipped.
    """
    values = settled_values_e8(instruments, fills["symbol"], fills["last_ticks"], fills["last_lots"])
    gains = gain_signs(instruments, np.arange(len(instruments))).tolist()
    waiting: dict[int, deque[_Lot]] = {}
    trips: dict[tuple[int, int, int, int], _Trip] = {}
    for fill, value in zip(fills, values, strict=True):
        symbol, side = int(fill["symbol"]), int(fill["side"])
        lot = _Lot(side, int(fill["last_lots"]), int(fill["order_id"]), int(fill["ts_ns"]), int(value), int(fill["fee_e8"]))
        if lot.lots <= 0 or side == 0:
            continue
        lots = waiting.setdefault(symbol, deque())
        while lot.lots and lots and lots[0].side != side:
            entry = lots[0]
            taken = min(lot.lots, entry.lots)
            entry_value, entry_fee = entry.take(taken)
            exit_value, exit_fee = lot.take(taken)
            if not entry.lots:
                lots.popleft()
            key = (symbol, side, entry.order_id, lot.order_id)
            if key not in trips:
                trips[key] = _Trip(symbol, -side, entry.order_id, lot.order_id, entry.ts_ns, lot.ts_ns, gains[symbol])
            trip = trips[key]
            trip.exit_ts_ns = lot.ts_ns
            trip.lots += taken
            trip.entry_value += entry_value
            trip.exit_value += exit_value
            if trip.gain < 0:
                it = instruments[symbol]
                trip.exit_notional += taken * int(it["notional_mul"]) // int(it["notional_div"])
            trip.fees += entry_fee + exit_fee
            trip.lot_ns += taken * (lot.ts_ns - entry.ts_ns)
        if lot.lots:
            lots.append(lot)
    left = [
        (symbol, lot.side, lot.lots, lot.order_id, lot.ts_ns, lot.value_e8, lot.fee_e8)
        for symbol, lots in sorted(waiting.items())
        for lot in lots
    ]
    return np.array([trip.row() for trip in trips.values()], ROUND_TRIP), np.array(left, OPEN_LOT)
