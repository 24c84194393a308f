"""One pass over the market: from each market record to one signal record.

Per symbol it keeps the averages that the signals need (spread, depth, book imbalance, aggressor flow, the last trades,
EMAs and ATR on bars of mid) and asks `trading.signals` for the strengths and `trading.ensemble` for the decision.

Which record feeds what: a print (TRADE) feeds the trade window and the flow; every other record with a usable book
feeds the averages of spread, depth and imbalance (their half-lives count book changes); both feed the bars with the mid
that they carry. An unusable book restarts the imbalance and drops the open bar; the slower averages live on.

All exponential averages by event are weighted means, `sum a (1-a)^age x / sum a (1-a)^age`: without a seed's bias, and
used from one half-life on. A value that is not warm is 0 in the record, its signal's ready bit is 0 and its vote not counted.

What this module is not: it sends nothing, knows no position and no clock; time is the records' `ts_ns`.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from trading import bars, ensemble, signals
from trading.bars import Rec
from trading.jit import Recs, kernel
from trading.records import LEVELS, MAX_SIGNALS, Flag, Kind, Side
from trading.settings import Strategy
from trading.signals import MICRO_TREND_CHANGES, N_SIGNALS, SIGNALS, Signal


class StrategyError(ValueError):
    """Settings that do not fit together; the message names the keys and the remedy."""


MAX_TRADES: Final = 64
"""Slots of the trade window; settings.Features bounds micro_trend_trades by it."""

FLOW_HALF_LIFE_TRADES: Final = 20.0
"""Half-life of the aggressors' volume imbalance, in prints."""

MAX_GATES: Final = 16

FEATURE_STATE: Final = np.dtype(
    [
        *bars.BAR_FIELDS,
        ("closed_bars", "i8"),
        ("fast_offset", "f8"),  # EMA of the closes less the last close, ticks
        ("slow_offset", "f8"),
        ("last_close", "f8"),
        ("true_ranges", "i8"),
        ("atr", "f8"),  # ticks
        ("book_changes", "i8"),
        ("book_weight", "f8"),  # of the two sums below
        ("spread_sum", "f8"),  # bps
        ("depth_sum", "f8"),  # lots of both sides
        ("imbalance_changes", "i8"),
        ("imbalance_weight", "f8"),
        ("imbalance_sum", "f8"),
        ("trades", "i8"),
        ("last_trade_ticks", "i8"),
        ("price_changes", "i8"),
        ("run", "i8"),  # signed count of price changes in a row that went the same way
        ("offset_sum", "i8"),  # sum (price - last) * lots over the window
        ("lots_sum", "i8"),
        ("flow_sum", "f8"),  # signed lots, decayed by print
        ("flow_lots", "f8"),
        ("trade_ticks", "i8", MAX_TRADES),  # the window, a circle
        ("trade_lots", "i8", MAX_TRADES),
        ("microstructure", "f8"),  # score 0..100 at the latest record; 0: not warm
        ("strength", "f8", MAX_SIGNALS),  # at the latest record
    ],
    align=True,
)
"""What is kept per symbol."""

FEATURE_GLOBAL: Final = np.dtype([("records", "i8"), ("gates", "i8", MAX_GATES), ("sides", "i8")], align=True)
"""Counts over all symbols: records, how often each Gate decided, how often a side was asked for."""

FEATURE_PARAMS: Final = np.dtype(
    [
        ("bar_ns", "i8"),
        ("decay", "f8"),  # RiskMetrics lambda per bar
        ("warm_returns", "i8"),
        ("ema_fast", "i8"),
        ("ema_slow", "i8"),
        ("keep_fast", "f8"),  # 1 - alpha of each average
        ("keep_slow", "f8"),
        ("atr_bars", "i8"),
        ("keep_atr", "f8"),
        ("keep_book", "f8"),
        ("warm_book", "i8"),
        ("keep_imbalance", "f8"),
        ("warm_imbalance", "i8"),
        ("keep_flow", "f8"),
        ("warm_flow", "i8"),
        ("imbalance_levels", "i8"),
        ("imbalance_threshold", "f8"),
        ("micro_trend_trades", "i8"),
        ("micro_trend_scale_bps", "f8"),
        ("spread_compression", "f8"),
        ("spread_expansion", "f8"),
        ("long", "f8"),
        ("short", "f8"),
        ("max_spread_bps", "f8"),
        ("volatility_min_pct", "f8"),
        ("microstructure_min_score", "f8"),
        ("required_mask", "i8"),  # signals with a weight
        ("weight", "f8", MAX_SIGNALS),
    ],
    align=True,
)
"""The settings as the kernels read them."""

_TRADE: Final = int(Kind.TRADE)
_SIGNAL: Final = int(Kind.SIGNAL)
_BOOK_VALID: Final = int(Flag.BOOK_VALID)
_AGGRESSOR_SELL: Final = int(Flag.AGGRESSOR_SELL)
_SIDE_NONE: Final = int(Side.NONE)
_GATE_NONE: Final = int(ensemble.Gate.NONE)
_GATE_BOOK: Final = int(ensemble.Gate.BOOK)
_IMBALANCE, _MICRO_TREND = int(Signal.BOOK_IMBALANCE), int(Signal.MICRO_TREND)
_EMA_CROSS, _SPREAD = int(Signal.EMA_CROSS), int(Signal.SPREAD)


def _keep(half_life: float) -> float:
    return float(0.5 ** (1.0 / half_life))


def make_params(strategy: Strategy, instruments: Recs) -> Recs:
    """FEATURE_PARAMS (1,) of a strategy; all symbols share them (`instruments` is taken for the common signature).

    `gates.volatility_min_pct` is the realised volatility over one minute in percent: the EWMA (RiskMetrics 1996)
    deviation of the mid's log returns per bar of `features.bar_ms`, scaled to a minute by the square root of time.
    Raises StrategyError where two settings contradict each other.
    """
    f, g, t = strategy.features, strategy.gates, strategy.thresholds
    if f.ema_fast >= f.ema_slow:
        raise StrategyError(f"features.ema_fast ({f.ema_fast}) must be below features.ema_slow ({f.ema_slow}): change one")
    if f.spread_compression >= f.spread_expansion:
        raise StrategyError(
            f"features.spread_compression ({f.spread_compression}) must be below "
            f"features.spread_expansion ({f.spread_expansion}): change one"
        )
    if not t.short < 50.0 < t.long:
        raise StrategyError(
            f"thresholds.short ({t.short}) must be below 50 (neutral) and thresholds.long ({t.long}) above it: change them"
        )
    params = np.zeros(1, FEATURE_PARAMS)
    p = params[0]
    p["bar_ns"], p["decay"] = f.bar_ms * 1_000_000, f.volatility_lambda
    p["warm_returns"] = bars.warm_returns(f.volatility_lambda)
    p["ema_fast"], p["ema_slow"], p["atr_bars"] = f.ema_fast, f.ema_slow, f.atr_bars
    p["keep_fast"], p["keep_slow"] = 1.0 - 2.0 / (f.ema_fast + 1), 1.0 - 2.0 / (f.ema_slow + 1)
    p["keep_atr"] = 1.0 - 1.0 / f.atr_bars
    p["keep_book"], p["warm_book"] = _keep(f.spread_half_life), math.ceil(f.spread_half_life)
    p["keep_imbalance"], p["warm_imbalance"] = _keep(f.imbalance_half_life), math.ceil(f.imbalance_half_life)
    p["keep_flow"], p["warm_flow"] = _keep(FLOW_HALF_LIFE_TRADES), math.ceil(FLOW_HALF_LIFE_TRADES)
    p["imbalance_levels"], p["imbalance_threshold"] = f.imbalance_levels, f.imbalance_threshold
    p["micro_trend_trades"], p["micro_trend_scale_bps"] = f.micro_trend_trades, f.micro_trend_scale_bps
    p["spread_compression"], p["spread_expansion"] = f.spread_compression, f.spread_expansion
    p["long"], p["short"] = t.long, t.short
    p["max_spread_bps"], p["volatility_min_pct"] = g.max_spread_bps, g.volatility_min_pct
    p["microstructure_min_score"] = g.microstructure_min_score
    for spec in SIGNALS:
        weight = float(getattr(strategy.weights, spec.key))
        p["weight"][spec.signal] = weight
        if weight > 0.0:
            p["required_mask"] |= 1 << spec.signal
    return params


def init(state: Recs, glob: Recs, params: Recs, instruments: Recs) -> None:
    """Put FEATURE_STATE (n_symbols,) and FEATURE_GLOBAL (1,) into their start state."""
    assert len(state) == len(instruments) and len(glob) == len(params) == 1
    state[:] = np.zeros((), FEATURE_STATE)
    glob[:] = np.zeros((), FEATURE_GLOBAL)
    for s in range(len(state)):
        bars.start(state[s])


@kernel
def _take_trade(s: Rec, p: Rec, rec: Rec) -> None:
    """Put a print into the trade window and the flow.

    The window's sum is kept relative to the last price, `sum (price - last) lots`, and moved along with it: exact in
    int64 (a wrap would undo itself when the trade leaves), and `last - vwap` needs no difference of large numbers.
    """
    n = p.micro_trend_trades
    price, lots = rec.price_ticks, rec.qty_lots
    if s.trades > 0:
        change = price - s.last_trade_ticks
        s.offset_sum -= change * s.lots_sum
        if change > 0:
            s.run = s.run + 1 if s.run > 0 else 1
            s.price_changes += 1
        elif change < 0:
            s.run = s.run - 1 if s.run < 0 else -1
            s.price_changes += 1
    s.last_trade_ticks = price
    at = s.trades % n
    if s.trades >= n:
        s.offset_sum -= (s.trade_ticks[at] - price) * s.trade_lots[at]
        s.lots_sum -= s.trade_lots[at]
    s.trade_ticks[at] = price
    s.trade_lots[at] = lots
    s.lots_sum += lots
    s.trades += 1
    signed = -float(lots) if rec.flags & _AGGRESSOR_SELL else float(lots)
    s.flow_sum = s.flow_sum * p.keep_flow + signed
    s.flow_lots = s.flow_lots * p.keep_flow + lots


@kernel
def _take_bars(s: Rec, p: Rec, ts_ns: int, mid: float) -> None:
    """Roll the bars and, where some closed, the EMAs of closes and Wilder's ATR (1978, alpha 1/n).

    The EMAs are kept relative to the last close: their gap is small beside a price, and would drown in its rounding.
    """
    closed = bars.roll(s, ts_ns, mid, p.bar_ns, p.decay, p.warm_returns)
    if closed == 0:
        return
    close = s.closed_close
    down = s.last_close - close if s.closed_bars > 0 else 0.0
    s.fast_offset = bars.smooth(s.fast_offset + down, s.closed_bars, p.ema_fast, p.keep_fast, 0.0, closed)
    s.slow_offset = bars.smooth(s.slow_offset + down, s.closed_bars, p.ema_slow, p.keep_slow, 0.0, closed)
    s.last_close = close
    s.closed_bars += closed
    if s.previous_close > 0.0:
        true_range = max(s.closed_high, s.previous_close) - min(s.closed_low, s.previous_close)
        s.atr = bars.smooth(s.atr, s.true_ranges, p.atr_bars, p.keep_atr, true_range, 1)
        s.true_ranges += 1
    if closed > 1:
        s.atr = bars.smooth(s.atr, s.true_ranges, p.atr_bars, p.keep_atr, 0.0, closed - 1)
        s.true_ranges += closed - 1


@kernel
def _take_book(s: Rec, p: Rec, spread_bps: float, bids: float, asks: float) -> None:
    """Feed the averages by book change; `bids`, `asks`: lots of the counted levels."""
    keep = p.keep_book
    s.spread_sum = s.spread_sum * keep + (1.0 - keep) * spread_bps
    s.depth_sum = s.depth_sum * keep + (1.0 - keep) * (bids + asks)
    s.book_weight = s.book_weight * keep + (1.0 - keep)
    s.book_changes += 1
    keep = p.keep_imbalance
    s.imbalance_sum = s.imbalance_sum * keep + (1.0 - keep) * (bids - asks) / (bids + asks)
    s.imbalance_weight = s.imbalance_weight * keep + (1.0 - keep)
    s.imbalance_changes += 1


@kernel
def _evaluate(s: Rec, p: Rec, spread_bps: float) -> int:
    """All strengths at once into `s.strength`; returns the mask of those that are warm (the others are 0)."""
    ready = 0
    for k in range(N_SIGNALS):
        s.strength[k] = 0.0
    if s.imbalance_changes >= p.warm_imbalance:
        ready |= 1 << _IMBALANCE
        s.strength[_IMBALANCE] = signals.book_imbalance(s.imbalance_sum / s.imbalance_weight, p.imbalance_threshold)
    if s.trades >= p.micro_trend_trades and s.price_changes >= MICRO_TREND_CHANGES:
        ready |= 1 << _MICRO_TREND
        s.strength[_MICRO_TREND] = signals.micro_trend(
            s.last_trade_ticks, s.offset_sum, s.lots_sum, s.run, p.micro_trend_scale_bps
        )
    if s.closed_bars >= p.ema_slow and s.true_ranges >= p.atr_bars:
        ready |= 1 << _EMA_CROSS
        s.strength[_EMA_CROSS] = signals.ema_cross(s.fast_offset - s.slow_offset, s.atr)
    if s.book_changes >= p.warm_book:
        ready |= 1 << _SPREAD
        s.strength[_SPREAD] = signals.spread(spread_bps, s.spread_sum / s.book_weight, p.spread_compression, p.spread_expansion)
    return ready


@kernel
def _microstructure(s: Rec, spread_bps: float, depth: float) -> float:
    """The microstructure score of the moment; the caller has checked that its averages are warm."""
    flow = s.flow_sum / s.flow_lots if s.flow_lots > 0.0 else 0.0
    imbalance = s.imbalance_sum / s.imbalance_weight
    return ensemble.microstructure_score(
        spread_bps, s.spread_sum / s.book_weight, depth, s.depth_sum / s.book_weight, flow, imbalance
    )


@kernel
def _write_unusable(o: Rec) -> None:
    """A signal record that says nothing but that the book is not usable."""
    o.score, o.confidence, o.urgency = 50.0, 0.0, 0.0
    o.mid = o.spread_bps = o.volatility = o.atr_ticks = 0.0
    o.bid_ticks = o.ask_ticks = o.bid_lots = o.ask_lots = 0
    o.ready_mask = o.active_mask = 0
    o.side, o.gate, o.reason = _SIDE_NONE, _GATE_BOOK, 0
    for k in range(MAX_SIGNALS):
        o.strength[k] = 0.0


@kernel
def on_market(recs: Recs, i: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs, at: int) -> int:
    """Answer MARKET_RECORD `recs[i]` with SIGNAL_RECORD `out[at]`; returns 1.

    A record whose symbol is not in the table is not answered: returns 0. `flags` carries BOOK_VALID if the book was
    usable; `reason` is 1 + the index of the signal with the greatest vote, 0 if none. `regime` is 0: no regimes yet.
    """
    rec = recs[i]
    symbol = rec.symbol
    if symbol < 0 or symbol >= len(state):
        return 0
    s, p, o, g = state[symbol], params[0], out[at], glob[0]
    is_trade = rec.kind == _TRADE
    if is_trade and rec.price_ticks > 0 and rec.qty_lots > 0:
        _take_trade(s, p, rec)
    o.ts_ns, o.kind, o.symbol, o.regime = rec.ts_ns, _SIGNAL, symbol, 0
    g.records += 1
    if not bars.usable(rec):
        bars.interrupt(s)
        s.imbalance_changes = 0
        s.imbalance_sum = s.imbalance_weight = s.microstructure = 0.0
        for k in range(N_SIGNALS):
            s.strength[k] = 0.0
        o.flags = 0
        _write_unusable(o)
        g.gates[_GATE_BOOK] += 1
        return 1

    bid, ask = rec.bid_ticks[0], rec.ask_ticks[0]
    mid = 0.5 * (bid + ask)
    spread_bps = 1e4 * (ask - bid) / mid
    bids = asks = 0
    for level in range(LEVELS):
        if level < p.imbalance_levels:
            bids += rec.bid_lots[level]
            asks += rec.ask_lots[level]
    fresh = bars.note_book(s, rec)
    _take_bars(s, p, rec.ts_ns, mid)
    if not is_trade:
        _take_book(s, p, spread_bps, float(bids), float(asks))

    ready = _evaluate(s, p, spread_bps)
    score, confidence, active, reason = ensemble.combine(s.strength, p.weight, ready)
    measured = s.book_changes >= p.warm_book and s.imbalance_changes >= p.warm_imbalance and s.trades >= p.warm_flow
    s.microstructure = _microstructure(s, spread_bps, float(bids + asks)) if measured else 0.0
    has_atr = s.true_ranges >= p.atr_bars
    warm = measured and has_atr and s.returns >= p.warm_returns and (ready & p.required_mask) == p.required_mask
    volatility_pct = bars.minute_pct(s.volatility)
    side = ensemble.wanted_side(score, p.long, p.short)
    gate = ensemble.first_gate(
        warm,
        fresh,
        spread_bps,
        p.max_spread_bps,
        volatility_pct,
        p.volatility_min_pct,
        s.microstructure,
        p.microstructure_min_score,
        s.strength[_SPREAD],
        side,
        confidence,
    )
    if gate != _GATE_NONE:
        side = _SIDE_NONE
    g.gates[gate] += 1
    if side != _SIDE_NONE:
        g.sides += 1

    o.flags = _BOOK_VALID
    o.score, o.confidence, o.urgency = score, confidence, ensemble.urgency(score, confidence, volatility_pct)
    o.mid, o.spread_bps, o.volatility = mid, spread_bps, s.volatility
    o.atr_ticks = s.atr if has_atr else 0.0
    o.bid_ticks, o.ask_ticks, o.bid_lots, o.ask_lots = bid, ask, rec.bid_lots[0], rec.ask_lots[0]
    o.ready_mask, o.active_mask = ready, active
    o.side, o.gate, o.reason = side, gate, reason
    for k in range(MAX_SIGNALS):
        o.strength[k] = s.strength[k]
    return 1
