"""What things were worth at a time: mids from market records, and the equity curve from fills and mids.

Times are Unix ns as in the records' `ts_ns`. Money is in the quote currency, coins of inverse contracts at the mid of the
time; with several quote currencies the sums mean nothing, and the caller must not mix them.

What this module is not: the account that decisions are made on (trading.risk.positions); this is the second opinion, computed
from the records alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trading.jit import Floats, Recs, Words
from trading.records import Flag, Kind
from trading.results.round_trips import gain_signs, settled_values_e8

STALE_NS: Final = 60 * 10**9
"""A market silent for longer than this was not observed: the night between two recordings is no trading time."""

_EVENTS: Final = (Kind.DEPTH, Kind.TRADE, Kind.BBO, Kind.SNAPSHOT)


@dataclass(frozen=True, slots=True)
class Marks:
    """One symbol's mids: `ts_ns` ascending, shape (n,); `mid_ticks`, shape (n,)."""

    ts_ns: Words
    mid_ticks: Floats


def event_times(market: Recs) -> Words:
    """`ts_ns` of the market events among MARKET_RECORDs (neither END nor STALE), all symbols, shape (n,)."""
    return np.asarray(market["ts_ns"][np.isin(market["kind"], _EVENTS)], np.int64)


def mids(market: Recs, symbol: int) -> Marks:
    """The mids of one symbol (index) from MARKET_RECORDs whose book is valid and has both sides."""
    bid, ask = market["bid_ticks"][:, 0], market["ask_ticks"][:, 0]
    valid = (market["flags"] & Flag.BOOK_VALID != 0) & (bid > 0) & (ask > 0)
    chosen = valid & (market["symbol"] == symbol) & np.isin(market["kind"], _EVENTS)
    return Marks(np.ascontiguousarray(market["ts_ns"][chosen]), (bid[chosen] + ask[chosen]) / 2)


def mid_at(marks: Marks, times: Words) -> Floats:
    """The last mid at or before each time, in ticks, shape of `times`; NaN before the first."""
    if not len(marks.ts_ns):
        return np.full(len(times), np.nan)
    at = np.searchsorted(marks.ts_ns, times, side="right") - 1
    return np.where(at >= 0, marks.mid_ticks[at], np.nan)


def observed_ns(event_ts_ns: Words, stale_ns: int = STALE_NS) -> int:
    """Time under observation: the pauses between events (ascending times) that are no longer than `stale_ns`, summed."""
    pauses = np.diff(event_ts_ns)
    return int(pauses[pauses <= stale_ns].sum())


def sample_times(event_ts_ns: Words, period_ns: int, stale_ns: int = STALE_NS) -> Words:
    """The grid of period ends (multiples of `period_ns`) at which the market was alive, ascending.

    A grid point counts if an event lies at most `stale_ns` before it. Periods of silence are left out, because their zero
    returns would make any strategy look calm.
    """
    if not len(event_ts_ns):
        return np.zeros(0, np.int64)
    pieces = []
    breaks = np.flatnonzero(np.diff(event_ts_ns) > stale_ns)
    starts, ends = np.concatenate(([0], breaks + 1)), np.concatenate((breaks, [len(event_ts_ns) - 1]))
    for start, end in zip(starts, ends, strict=True):  # one piece for each unbroken stretch
        first = -(-int(event_ts_ns[start]) // period_ns) * period_ns
        pieces.append(np.arange(first, int(event_ts_ns[end]) + 1, period_ns, dtype=np.int64))
    return np.concatenate(pieces)


def equity_at(fills: Recs, marks: Sequence[Marks], instruments: Recs, start_equity: float, times: Words) -> Floats:
    """Equity after fees at each time, shape of `times`: start + cash + sum over symbols of position * mid. What an inverse
    contract has made, in coins, is worth the mid.

    fills: REPORT_RECORDs of kind FILL, shape (n,); marks: one per symbol of `instruments`, in its order. A position
    whose symbol has no mid yet is marked at its last fill.
    """
    total = np.full(len(times), start_equity, np.float64)
    for symbol in range(len(instruments)):
        own = fills[fills["symbol"] == symbol]
        if not len(own):
            continue
        own = own[np.argsort(own["ts_ns"], kind="stable")]
        side = own["side"].astype(np.int64)
        values = settled_values_e8(instruments, own["symbol"], own["last_ticks"], own["last_lots"])
        gain = gain_signs(instruments, own["symbol"])
        cash_e8 = np.concatenate(([0], np.cumsum(-side * gain * values - own["fee_e8"])))
        lots = np.concatenate(([0], np.cumsum(side * own["last_lots"])))
        last_fill = np.concatenate(([0], own["last_ticks"]))
        at = np.searchsorted(own["ts_ns"], times, side="right")
        mid = mid_at(marks[symbol], times)
        price = np.where(np.isnan(mid), last_fill[at], mid)
        it = instruments[symbol]
        if it["inverse"]:
            # (cash - lots * size / price) coins, times the price
            total += cash_e8[at] / 1e8 * price * float(it["tick_size"]) - lots[at] * float(it["contract_size"] * it["lot_size"])
            continue
        unit = float(it["tick_size"]) * float(it["lot_size"]) * float(it["contract_size"])
        total += cash_e8[at] / 1e8 + lots[at] * price * unit
    return total
