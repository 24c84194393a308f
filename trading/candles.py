"""Candles (OHLCV) of several sizes at once from a stream of trades: exact integers, O(1) a trade, no allocation.

A bucket is `[n * size, (n + 1) * size)` of *exchange* time (`ts_exchange_ns`, the matching time of a trade): only so can a candle
equal the venue's own kline. Our clocks never enter. A candle closes when a trade of a later bucket arrives, or when `advance`
says that exchange time has passed its end; closed candles lie in a circle of the last `ring` for each symbol and size.

    opened[symbol * n_sizes + k]                  the candle in the making; trades == 0: there is none
    closed[(symbol * n_sizes + k) * ring + j]     the circle; the newest is at j = (series.closed - 1) % ring
    series[symbol * n_sizes + k]                  counters of one symbol at one size
    feeds[symbol]                                 what is known of the symbol's stream

What is decided here, and why:

- Open and close are the trades with the least and the greatest (time, id), not the first and last to arrive, so the order
  of arrival within a bucket does not matter.
- A *late* trade, of a bucket before the open one, amends the newest closed candle if it belongs there (flag AMENDED), or becomes
  one of its own behind it; for any earlier bucket it is counted in `series.late` and left out. Nothing is merged unseen.
- A bucket without trades is no candle: there was no price. `fill` carries the close into such buckets on demand, as SYNTHETIC.
- INCOMPLETE marks a candle that may lack trades: the stream began inside it, or ids jumped (where a venue numbers its trades
  without gaps), or the stream was interrupted (where it does not).
- Sums that would leave int64 stop growing and mark the candle OVERFLOW; prices stay right.

What this module is not: it drops no duplicates (the feed does); `trading.features.bars` has the bars of the mid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntFlag
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from trading.instruments import Market
from trading.jit import Floats, Recs, Words, kernel
from trading.records import Flag, Kind


class CandleError(ValueError):
    """A size, a symbol or an array that candles cannot be made of; the message names it and the remedy."""


class CandleFlag(IntFlag):
    """`flags` of a candle."""

    OPEN = 1  # still in the making
    INCOMPLETE = 2  # trades of this bucket may be missing
    AMENDED = 4  # changed, or made, after a later bucket had begun
    SYNTHETIC = 8  # no trade at all: the close before it, carried on (only `fill` makes these)
    OVERFLOW = 16  # volume or notional left int64: they are lower bounds


CANDLE: Final = np.dtype(
    [
        ("open_time_ns", "i8"),  # start of the bucket, exchange time
        ("size_ns", "i8"),
        ("flags", "i8"),  # CandleFlag
        ("open_ticks", "i8"),
        ("high_ticks", "i8"),
        ("low_ticks", "i8"),
        ("close_ticks", "i8"),
        ("volume_lots", "i8"),
        ("buy_volume_lots", "i8"),  # of trades whose aggressor bought
        ("trades", "i8"),
        ("notional_high", "i8"),  # sum of ticks * lots = notional_high * 2**20 + notional_low, exactly
        ("notional_low", "i8"),
        ("first_trade_id", "i8"),
        ("last_trade_id", "i8"),
        ("first_ts_ns", "i8"),  # exchange time of the trade that opened it
        ("last_ts_ns", "i8"),
    ],
    align=True,
)
"""One candle, 128 B."""

SERIES: Final = np.dtype([("closed", "i8"), ("late", "i8"), ("amended", "i8"), ("hole", "i8")], align=True)
"""closed: candles ever closed; late: trades left out; amended: trades that changed a closed candle; hole: 1 while trades may be
missing before the next one."""

FEED: Final = np.dtype([(name, "i8") for name in ("trades", "rejected", "gaps", "last_id", "counts_ids")], align=True)
"""rejected: trades without a positive price, quantity or time; gaps: jumps of the id; counts_ids: 1 where ids have no gaps."""

SECOND_NS: Final = 1_000_000_000
DEFAULT_SIZES_NS: Final = (SECOND_NS, 5 * SECOND_NS, 15 * SECOND_NS, 60 * SECOND_NS, 300 * SECOND_NS)
NOTIONAL_SHIFT: Final = 20
NOTIONAL_MASK: Final = (1 << NOTIONAL_SHIFT) - 1
MAX_TICKS: Final = 1 << 42
"""Prices stay below this many ticks, so that ticks * (lots % 2**20) fits int64."""
MAX_SUM: Final = 2**63 - 1
MAX_SUM_FLOAT: Final = 9.2e18
UNITS_NS: Final = {"s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS, "d": 86_400 * SECOND_NS}

_OPEN, _INCOMPLETE = int(CandleFlag.OPEN), int(CandleFlag.INCOMPLETE)
_AMENDED, _OVERFLOW = int(CandleFlag.AMENDED), int(CandleFlag.OVERFLOW)
_AGGRESSOR_SELL: Final = int(Flag.AGGRESSOR_SELL)
GAPLESS_IDS: Final = tuple(it for it in Market if it.facts.gapless_ids)
"""Markets that number a symbol's trades without gaps (every recording of theirs shows it)."""

Rec = Any


class Candles(NamedTuple):
    """All candles of a run: the arrays that the kernels take (see the drawing above) and that a stage may keep in its block."""

    opened: Recs
    closed: Recs
    series: Recs
    feeds: Recs
    sizes: Words


def parse_size(text: str) -> int:
    """ "1s", "15s", "5m", "4h", "1d" in ns. Weeks and months are no fixed buckets of Unix time, hence not among them."""
    digits, unit = text[:-1], text[-1:]
    if unit not in UNITS_NS or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 10_000:
        raise CandleError(f"{text!r} is no candle size: write a number and s, m, h or d, such as 1s, 5m or 1d")
    return int(digits) * UNITS_NS[unit]


def size_name(size_ns: int) -> str:
    """The reverse of `parse_size`, with the largest unit that is whole."""
    unit = next((u for u in ("d", "h", "m", "s") if size_ns % UNITS_NS[u] == 0), "")
    return f"{size_ns // UNITS_NS[unit]}{unit}" if unit else f"{size_ns}ns"


def make_candles(
    n_symbols: int, sizes_ns: Sequence[int] = DEFAULT_SIZES_NS, *, ring: int = 512, counts_ids: Iterable[bool] | None = None
) -> Candles:
    """Empty candles. `ring`: closed candles kept a symbol and size; counts_ids: per symbol, see GAPLESS_IDS (None: none does)."""
    sizes = np.array(sizes_ns, np.int64)
    if n_symbols < 1 or ring < 1 or not sizes.size:
        raise CandleError(f"{n_symbols} symbols, {sizes.size} sizes, ring of {ring}: each must be at least 1")
    if int(sizes.min()) < 1 or len(set(sizes.tolist())) != sizes.size:
        raise CandleError(f"candle sizes {sizes.tolist()} ns: give each once, above 0")
    n = n_symbols * sizes.size
    candles = Candles(np.zeros(n, CANDLE), np.zeros(n * ring, CANDLE), np.zeros(n, SERIES), np.zeros(n_symbols, FEED), sizes)
    candles.series["hole"] = 1  # the stream begins somewhere inside its first bucket
    if counts_ids is not None:
        candles.feeds["counts_ids"] = list(counts_ids)
    return candles


# ---- kernels ------------------------------------------------------------------------------------------------------------


@kernel
def _put(c: Rec, ts_ns: int, trade_id: int, ticks: int, lots: int, sell: bool) -> None:
    """Add a trade to the candle of its bucket; to an empty one (trades == 0) as its first."""
    if c.trades == 0:
        c.open_ticks = c.high_ticks = c.low_ticks = c.close_ticks = ticks
        c.first_trade_id = c.last_trade_id = trade_id
        c.first_ts_ns = c.last_ts_ns = ts_ns
    else:
        c.high_ticks = max(c.high_ticks, ticks)
        c.low_ticks = min(c.low_ticks, ticks)
        if ts_ns > c.last_ts_ns or (ts_ns == c.last_ts_ns and trade_id >= c.last_trade_id):
            c.close_ticks, c.last_ts_ns, c.last_trade_id = ticks, ts_ns, trade_id
        elif ts_ns < c.first_ts_ns or (ts_ns == c.first_ts_ns and trade_id < c.first_trade_id):
            c.open_ticks, c.first_ts_ns, c.first_trade_id = ticks, ts_ns, trade_id
    c.trades += 1
    high = lots >> NOTIONAL_SHIFT
    if c.volume_lots > MAX_SUM - lots or float(c.notional_high) + float(ticks) * float(high + 2) > MAX_SUM_FLOAT:
        c.flags |= _OVERFLOW
        return
    c.volume_lots += lots
    if not sell:
        c.buy_volume_lots += lots
    low = c.notional_low + ticks * (lots & NOTIONAL_MASK)
    c.notional_high += ticks * high + (low >> NOTIONAL_SHIFT)
    c.notional_low = low & NOTIONAL_MASK


@kernel
def _begin(c: Rec, open_time_ns: int, size_ns: int, flags: int) -> None:
    """Make a record the empty candle of a bucket."""
    c.open_time_ns, c.size_ns, c.flags = open_time_ns, size_ns, flags
    c.volume_lots = c.buy_volume_lots = c.trades = c.notional_high = c.notional_low = 0


@kernel
def _close(candles: Candles, i: int, ring: int) -> None:
    """Move the open candle of series `i` into its circle."""
    s = candles.series[i]
    c = candles.opened[i]
    c.flags &= ~_OPEN
    candles.closed[i * ring + s.closed % ring] = c
    s.closed += 1
    c.trades = 0


@kernel
def _late(candles: Candles, i: int, ring: int, start: int, ts_ns: int, trade_id: int, ticks: int, lots: int, sell: bool) -> None:
    """Take a trade of a bucket that is over: into the newest closed candle, behind it, or, if it is older, not at all."""
    s = candles.series[i]
    newest = i * ring + (s.closed - 1) % ring
    if s.closed > 0 and start < candles.closed[newest].open_time_ns:
        s.late += 1
        return
    if s.closed == 0 or start > candles.closed[newest].open_time_ns:
        newest = i * ring + s.closed % ring
        _begin(candles.closed[newest], start, candles.sizes[i % len(candles.sizes)], _INCOMPLETE)
        s.closed += 1
    c = candles.closed[newest]
    c.flags |= _AMENDED
    _put(c, ts_ns, trade_id, ticks, lots, sell)
    s.amended += 1


@kernel
def interrupt(candles: Candles, symbol: int) -> None:
    """Trades of the symbol may be missing between the last one and the next: the candles of both are INCOMPLETE."""
    n = len(candles.sizes)
    ring = len(candles.closed) // len(candles.opened)
    for i in range(symbol * n, symbol * n + n):
        s = candles.series[i]
        if candles.opened[i].trades > 0:
            candles.opened[i].flags |= _INCOMPLETE
        elif s.closed > 0:
            candles.closed[i * ring + (s.closed - 1) % ring].flags |= _INCOMPLETE
        s.hole = 1


@kernel
def add_trade(candles: Candles, symbol: int, ts_ns: int, trade_id: int, ticks: int, lots: int, sell: bool) -> int:
    """Take one trade; says how many candles it closed (all sizes together). `sell`: the aggressor sold; trade_id 0: it has none.

    A trade without a positive price (below 2**42 ticks), quantity and time is counted in `feeds.rejected` and left out.
    """
    if symbol < 0 or symbol >= len(candles.feeds):
        return 0
    feed = candles.feeds[symbol]
    if ticks <= 0 or ticks >= MAX_TICKS or lots <= 0 or ts_ns <= 0:
        feed.rejected += 1
        return 0
    if feed.counts_ids != 0 and trade_id > feed.last_id:
        if feed.last_id != 0 and trade_id != feed.last_id + 1:
            feed.gaps += 1
            interrupt(candles, symbol)
        feed.last_id = trade_id
    feed.trades += 1
    n = len(candles.sizes)
    ring = len(candles.closed) // len(candles.opened)
    closed = 0
    for k in range(n):
        i = symbol * n + k
        c = candles.opened[i]
        size = candles.sizes[k]
        since = ts_ns - c.open_time_ns
        if c.trades == 0 or since < 0 or since >= size:  # no division while the bucket stays the same
            start = ts_ns - ts_ns % size
            s = candles.series[i]
            if c.trades > 0 and since < 0:
                _late(candles, i, ring, start, ts_ns, trade_id, ticks, lots, sell)
                continue
            if c.trades == 0 and s.closed > 0 and start <= candles.closed[i * ring + (s.closed - 1) % ring].open_time_ns:
                _late(candles, i, ring, start, ts_ns, trade_id, ticks, lots, sell)
                continue
            if c.trades > 0:
                _close(candles, i, ring)
                closed += 1
            _begin(c, start, size, _OPEN)
        s = candles.series[i]
        if s.hole != 0:
            c.flags |= _INCOMPLETE
            s.hole = 0
        _put(c, ts_ns, trade_id, ticks, lots, sell)
    return closed


@kernel
def advance(candles: Candles, symbol: int, ts_exchange_ns: int) -> int:
    """Exchange time has reached `ts_exchange_ns`: close what ended by then. Says how many candles that closed.

    For users that cannot wait for the next trade. A trade that comes later all the same amends (see above).
    """
    if symbol < 0 or symbol >= len(candles.feeds):
        return 0
    n = len(candles.sizes)
    ring = len(candles.closed) // len(candles.opened)
    closed = 0
    for k in range(n):
        c = candles.opened[symbol * n + k]
        if c.trades > 0 and c.open_time_ns + candles.sizes[k] <= ts_exchange_ns:
            _close(candles, symbol * n + k, ring)
            closed += 1
    return closed


@kernel
def on_record(candles: Candles, recs: Recs, i: int) -> int:
    """Take MARKET_RECORD `recs[i]`: a trade, or the word that a symbol's stream is not to be trusted. As `add_trade`."""
    rec = recs[i]
    if rec.kind == Kind.TRADE:
        sell = (rec.flags & _AGGRESSOR_SELL) != 0
        return add_trade(candles, rec.symbol, rec.ts_exchange_ns, rec.update_id, rec.price_ticks, rec.qty_lots, sell)
    if rec.kind == Kind.STALE and 0 <= rec.symbol < len(candles.feeds) and candles.feeds[rec.symbol].counts_ids == 0:
        interrupt(candles, rec.symbol)
    return 0


@kernel
def on_records(candles: Candles, recs: Recs) -> int:
    """Take MARKET_RECORDs in order; says how many candles were closed."""
    closed = 0
    for i in range(len(recs)):
        closed += on_record(candles, recs, i)
    return closed


@kernel
def add_trades(candles: Candles, symbol: int, ts_ns: Words, ids: Words, ticks: Words, lots: Words, sells: Any) -> int:
    """Take one symbol's trades in order; says how many candles were closed."""
    closed = 0
    for i in range(len(ts_ns)):
        closed += add_trade(candles, symbol, ts_ns[i], ids[i], ticks[i], lots[i], sells[i])
    return closed


# ---- reading ------------------------------------------------------------------------------------------------------------


def _place(candles: Candles, symbol: int, size_ns: int) -> int:
    found = np.flatnonzero(candles.sizes == size_ns)
    if not found.size or not 0 <= symbol < len(candles.feeds):
        sizes = ", ".join(size_name(s) for s in candles.sizes.tolist())
        kept = f"{len(candles.feeds)} symbols at {sizes} are kept"
        raise CandleError(f"symbol {symbol} has no candles of {size_name(size_ns)}: {kept}")
    return symbol * candles.sizes.size + int(found[0])


def closed_candles(candles: Candles, symbol: int, size_ns: int) -> Recs:
    """A copy of the closed candles that are still there, oldest first: CANDLE (n,), n <= ring."""
    i = _place(candles, symbol, size_ns)
    ring = len(candles.closed) // len(candles.opened)
    count = int(candles.series[i]["closed"])
    return candles.closed[i * ring + np.arange(max(count - ring, 0), count) % ring]


def open_candle(candles: Candles, symbol: int, size_ns: int) -> Recs:
    """A copy of the candle in the making: CANDLE (1,), or (0,) if there is none."""
    i = _place(candles, symbol, size_ns)
    return candles.opened[i : i + int(candles.opened[i]["trades"] > 0)].copy()


def notional(candle: Any) -> int:
    """Sum of ticks * lots of one candle, exactly."""
    return (int(candle["notional_high"]) << NOTIONAL_SHIFT) + int(candle["notional_low"])


def vwap_ticks(candles: Recs) -> Floats:
    """Volume-weighted mean price of each candle, in ticks; NaN where nothing was traded."""
    volume = candles["volume_lots"].astype(np.float64)
    total = candles["notional_high"] * float(1 << NOTIONAL_SHIFT) + candles["notional_low"]
    return np.divide(total, volume, out=np.full(len(candles), np.nan), where=volume > 0)


def candles_of(
    ts_ns: npt.ArrayLike,
    ids: npt.ArrayLike,
    ticks: npt.ArrayLike,
    lots: npt.ArrayLike,
    sells: npt.ArrayLike,
    sizes_ns: Sequence[int] = DEFAULT_SIZES_NS,
    *,
    counts_ids: bool = False,
) -> dict[int, Recs]:
    """The candles of one symbol's trades, by size: CANDLE (n,), oldest first, the last flagged OPEN, the first INCOMPLETE.

    The arrays have one length. Trades are put in the order of (time, id) first, so none is late; arrival order does not matter.
    """
    ts, number = np.asarray(ts_ns, np.int64), np.asarray(ids, np.int64)
    order = np.lexsort((number, ts))
    ts, number = ts[order], number[order]
    columns = [np.asarray(a, np.int64)[order] for a in (ticks, lots)]
    sold = np.asarray(sells, np.bool_)[order]
    found: dict[int, Recs] = {}
    for size in sizes_ns:
        buckets = int(np.count_nonzero(np.diff(ts // size))) + 1 if ts.size else 1
        one = make_candles(1, [size], ring=buckets, counts_ids=[counts_ids])
        add_trades(one, 0, ts, number, *columns, sold)
        found[size] = np.concatenate([closed_candles(one, 0, size), open_candle(one, 0, size)])
    return found


def fill(candles: Recs, until_ns: int = 0) -> Recs:
    """The candles (of one size, oldest first) with every bucket between them present.

    The missing ones carry the close before them, with volume 0, flagged SYNTHETIC. With `until_ns` they go on up to the bucket
    that ends at or before it.
    """
    if not len(candles):
        return candles.copy()
    size, first = int(candles["size_ns"][0]), int(candles["open_time_ns"][0])
    end = max(int(candles["open_time_ns"][-1]) + size, until_ns - (until_ns - first) % size if until_ns else 0)
    at = (candles["open_time_ns"] - first) // size
    n = (end - first) // size
    before = np.searchsorted(at, np.arange(n), side="right") - 1
    full = np.zeros(n, CANDLE)
    full["open_time_ns"], full["size_ns"] = first + size * np.arange(n), size
    full["flags"] = int(CandleFlag.SYNTHETIC)
    for name in ("open_ticks", "high_ticks", "low_ticks", "close_ticks"):
        full[name] = candles["close_ticks"][before]
    full[at] = candles
    return full
