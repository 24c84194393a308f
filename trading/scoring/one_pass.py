"""One pass over the market: from each market record to one signal record.

Per symbol it keeps the book as last read and calls, where something changed, the modules that own a part of the state:
`slots` when time has passed, `last_prints`, `toxicity` and `volume_profile` for a print, `order_flow` and `liquidity` for a book
change, `bar_signals` when a bar closes. Each leaves its signals' strengths and ready bits in the state; here they are
combined (`trading.scoring.ensemble`) and written out. `trading.features.vector` reads the same state.

Which record feeds what: a print (TRADE) feeds the windows of prints; every other record with a usable book is a book
change. A print's own book is read only when none is known (it is the book before it); a mark price (MARK) has neither.
A print off the book (trading.off_book) feeds nothing.
All records move time on and feed the bars with the mid as it stands. What an unusable book restarts, and what an outage
does, is said in `trading.scoring.outages`.

All exponential averages by event are weighted means, `sum a (1-a)^age x / sum a (1-a)^age`: without a seed's bias, and
used from one half-life on. A value that is not warm is 0 in the record, its signal's ready bit is 0 and its vote not counted.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.features import bars, last_prints, liquidity, microprice, order_flow, toxicity, volume_profile
from trading.features import microstructure_score as scores
from trading.features import time_slots as slots
from trading.features.bar_signals import on_close
from trading.features.bars import BOOK_MAX_AGE_NS, Rec
from trading.features.layout import FEATURE_GLOBAL, FEATURE_PARAMS, FEATURE_STATE
from trading.features.signals import Signal
from trading.features.vector import DIRTY_ALL, DIRTY_BOOK, DIRTY_PRINTS
from trading.jit import Recs, lean, move
from trading.models import online as online_model
from trading.models import vote as model_vote
from trading.off_book import off_book
from trading.own_signals import call as user_call
from trading.records import LEVELS, MARKET_RECORD, MAX_SIGNALS, Flag, Kind, Side
from trading.scoring import ensemble, outages
from trading.scoring.ensemble import Gate
from trading.scoring.params import StrategyError, make_params

__all__ = ["FEATURE_GLOBAL", "FEATURE_PARAMS", "FEATURE_STATE", "StrategyError", "init", "make_params", "on_market"]

PCT_A_MINUTE: Final = 100.0 * 60.0**0.5
"""From a deviation a second, as a fraction, to percent a minute."""

_BOOK_VALID: Final = int(Flag.BOOK_VALID)
_PRINTS_DEAD: Final = int(Flag.PRINTS_DEAD)
_OF_PRINTS: Final = (
    1 << Signal.MICRO_TREND | 1 << Signal.VOLUME_SPIKE | 1 << Signal.ORDER_FLOW | 1 << Signal.VOLUME_PRICE_DIVERGENCE
)
"""Signals that prints make, alone or with the book."""


_BOOK: Final = ("bid_ticks", "bid_lots", "ask_ticks", "ask_lots")
_BOOK_WORDS: Final = 4 * LEVELS
for _kind in (FEATURE_STATE, MARKET_RECORD):
    assert _kind.fields is not None
    _places = [int(_kind.fields[name][1]) for name in _BOOK]
    assert _places == [_places[0] + 8 * LEVELS * k for k in range(4)], "_read_book moves the four in one piece"


def init(state: Recs, glob: Recs, params: Recs, instruments: Recs) -> None:
    """Put FEATURE_STATE (n_symbols,) and FEATURE_GLOBAL (1,) into their start state."""
    assert len(state) == len(instruments) and len(glob) == len(params) == 1
    state[:] = np.zeros((), FEATURE_STATE)
    glob[:] = np.zeros((), FEATURE_GLOBAL)
    p = params[0]
    state["fast_index"], state["second_broken"] = -1, 1
    for key in ("garch_omega", "garch_alpha", "garch_beta"):
        state[key] = p[key]
    state["garch"] = p["garch_omega"] / (1.0 - p["garch_alpha"] - p["garch_beta"])
    online_model.start(state)
    for s in range(len(state)):
        bars.start(state[s])


@lean
def _take_trade(s: Rec, p: Rec, rec: Rec) -> None:
    """A print, with the book before it still in the state."""
    s.dirty |= DIRTY_PRINTS | DIRTY_BOOK
    sign = last_prints.take(s, p, rec)
    lots = rec.qty_lots
    slots.take_volume(s, p, sign, lots)
    order_flow.take_aggressor(s, sign, lots)
    toxicity.take_volume(s, p, sign, lots)
    volume_profile.take(s, p, rec.price_ticks, lots)
    if s.mid > 0.0:
        toxicity.take_impact(s, p, sign)
    order_flow.evaluate(s, p)


@lean
def _off_book(s: Rec, price: int) -> bool:
    """Whether a print was not made in the book as last read."""
    return s.mid > 0.0 and (off_book(price, s.ask_ticks[0]) or off_book(-price, -s.bid_ticks[0]))


@lean
def _read_book(s: Rec, p: Rec, rec: Rec) -> None:
    """Put a usable record's book into the state."""
    bids = asks = 0
    for level in range(LEVELS):
        counted = level < p.imbalance_levels
        bids += rec.bid_lots[level] if counted else 0
        asks += rec.ask_lots[level] if counted else 0
    move(s.bid_ticks, rec.bid_ticks, _BOOK_WORDS)
    bid, ask = rec.bid_ticks[0], rec.ask_ticks[0]
    s.bids, s.asks = bids, asks
    s.twice_mid = bid + ask
    s.mid = 0.5 * (bid + ask)
    s.spread_bps = 1e4 * (ask - bid) / s.mid


@lean
def _write_unusable(o: Rec) -> None:
    """A signal record that says nothing but that the book is not usable."""
    o.score, o.confidence, o.urgency = 50.0, 0.0, 0.0
    o.mid = o.spread_bps = o.volatility = o.atr_ticks = o.microprice = 0.0
    o.bid_ticks = o.ask_ticks = o.bid_lots = o.ask_lots = 0
    o.ready_mask = o.active_mask = 0
    o.side, o.gate, o.regime, o.reason, o.patterns = Side.NONE, Gate.BOOK, 0, 0, 0
    o.microstructure = o.vpin = o.order_flow = 0.0
    o.long_threshold = o.short_threshold = 0.0
    for k in range(MAX_SIGNALS):
        o.strength[k] = 0.0


@lean
def _decide(state: Recs, symbol: int, params: Recs, g: Rec, o: Rec, ts_ns: int, off: int) -> None:
    """Score, gates, side: from the state into the record. `off`: mask of signals that are switched off.

    Where the prints have stopped, what comes of them is cold, and so is what the entry waits for.
    """
    s, p = state[symbol], params[0]
    measured = scores.warm(s, p) and s.prints_dead == 0
    s.microstructure = scores.score(s) if measured else 0.0
    if p.ml_enabled != 0:
        model_vote.step(state, symbol, params, ts_ns)
    ready = s.ready & ~_OF_PRINTS if s.prints_dead != 0 else s.ready
    heard = ready & (s.voiced | p.standing_mask)  # silence counts in a standing signal alone
    score, confidence, active, reason = ensemble.combine(s.strength, p.weight, heard, p.standing_mask, p.confirming_mask)
    has_atr = s.true_ranges >= p.atr_bars
    required = p.required_mask & ~off
    warm = measured and has_atr and s.returns >= p.warm_returns and (ready & required) == required
    volatility_pct = PCT_A_MINUTE * s.volatility
    long, short = p.long[s.regime], p.short[s.regime]
    side = ensemble.wanted_side(score, long, short)
    fresh = ts_ns - s.book_ts_ns <= BOOK_MAX_AGE_NS
    gate = ensemble.first_gate(s, p, warm, fresh, volatility_pct, side, confidence)
    if gate == Gate.NONE and p.ml_required != 0:
        gate = ensemble.model_gate(side, s.strength[Signal.MODEL])
    if gate == Gate.NONE and side == Side.NONE and ensemble.wanted_side(score, p.long[0], p.short[0]) != Side.NONE:
        gate = Gate.THRESHOLD
    if gate != Gate.NONE:
        side = Side.NONE
    g.gates[gate] += 1
    if side != Side.NONE:
        g.sides += 1
    o.score, o.confidence, o.urgency = score, confidence, ensemble.urgency(score, confidence, volatility_pct)
    o.volatility = s.volatility
    o.atr_ticks = s.atr if has_atr else 0.0
    o.ready_mask, o.active_mask = ready, active
    o.side, o.gate, o.regime, o.reason = side, gate, s.regime, reason
    o.microstructure = s.microstructure
    o.long_threshold, o.short_threshold = long, short


@lean
def on_market(recs: Recs, i: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs, at: int) -> int:
    """Answer MARKET_RECORD `recs[i]` with SIGNAL_RECORD `out[at]`; returns 1.

    A record whose symbol is not in the table is not answered: returns 0. `flags` carries BOOK_VALID if the book was usable.
    """
    rec = recs[i]
    symbol = rec.symbol
    if symbol < 0 or symbol >= len(state):
        return 0
    s, p, o, g = state[symbol], params[0], out[at], glob[0]
    ts_ns, kind = rec.ts_ns, rec.kind
    o.ts_ns, o.kind, o.symbol = ts_ns, Kind.SIGNAL, symbol
    g.records += 1
    if ts_ns >= s.clock_end_ns:
        slots.advance(s, p, ts_ns)
    s.prints_dead = 1 if rec.flags & _PRINTS_DEAD != 0 else 0
    usable = s.mid > 0.0 if kind == Kind.MARK else bars.usable(rec)
    if usable and s.unusable_ns != 0:
        outages.resume(s, p, ts_ns)
    if kind == Kind.TRADE and rec.price_ticks > 0 and rec.qty_lots > 0 and not _off_book(s, rec.price_ticks):
        _take_trade(s, p, rec)
    if not usable:
        if kind != Kind.MARK:
            outages.interrupt(s, ts_ns)
        o.flags = 0
        _write_unusable(o)
        g.gates[Gate.BOOK] += 1
        return 1

    changes = kind != Kind.TRADE and kind != Kind.MARK
    if changes or s.mid == 0.0:
        if changes and s.mid > 0.0:
            order_flow.take_changes(s, rec)
        s.dirty |= DIRTY_BOOK
        _read_book(s, p, rec)
        order_flow.take_mid(s, p, ts_ns)
        if changes:
            order_flow.take_book(s, p)
            liquidity.take_refill(s, p, ts_ns)
            order_flow.evaluate(s, p)
    if changes or s.book_ts_ns == 0:
        s.book_ts_ns = ts_ns
    closed = bars.roll(s, ts_ns, s.mid, p.bar_ns, p.decay, p.warm_returns)
    if closed > 0:
        s.dirty = DIRTY_ALL
        on_close(s, p, closed)
    off = 0
    if p.user_signals > 0:
        off = user_call.evaluate(rec, s, p, instruments[symbol], g.records, closed)

    _decide(state, symbol, params, g, o, ts_ns, off)
    o.flags = _BOOK_VALID
    o.mid, o.spread_bps, o.microprice = s.mid, s.spread_bps, s.mid + microprice.gap(s, s)
    o.bid_ticks, o.ask_ticks, o.bid_lots, o.ask_lots = s.bid_ticks[0], s.ask_ticks[0], s.bid_lots[0], s.ask_lots[0]
    o.patterns = s.pattern_bits
    o.vpin, o.order_flow = 0.0 if s.prints_dead != 0 else s.vpin, s.ofi_share
    move(o.strength, s.strength, MAX_SIGNALS)
    return 1
