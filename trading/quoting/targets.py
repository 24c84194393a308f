"""Two-sided target quotes: where they should stand now by the profile's rule, told only when that matters.

A rule (`quoting.rule`; trading.quoting.skewed, .avellaneda_stoikov, .glft) gives the distances of bid and ask from the fair
value and how far both move against the inventory. The fair value is the mid, the weighted mid or the microprice
(`quoting.around`). What all rules share stands here: the bid is rounded down and the ask up to a tick, neither crosses the book,
half of `min_spread_bps` is the least distance before the inventory moves it, sizes and the inventory's limits. The volatility is
the EWMA (RiskMetrics 1996) deviation of the mid's log returns per bar of `features.bar_ms`, scaled by the square root of time.
Until what a rule needs is warm nothing is quoted.

When a target is told:
- at once, if a side that is out must be pulled: book not usable or not fresh (both sides), or the inventory leaves no room
  for another order on that side, or its quantity or price is no longer allowed;
- otherwise not sooner than `requote_ms` after the last one, and only if a side appears or a price moved by more than
  `requote_ticks` (within the tolerance an order keeps its place in the queue), or if a fill happened since: then the same
  target is told again, for the filled side to be put back.
What is held back by `requote_ms`, and a book that grows too old, fall due at a time: `on_due` is called at exactly that time,
whether a record comes then or not.

What this module is not: it sends no orders. Risk turns targets into orders (trading.risk.quote_orders), and limits stand
there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from trading.features import bars, microprice
from trading.instruments import lot_value, notional_e8
from trading.jit import Recs, kernel, lean
from trading.quoting import avellaneda_stoikov, glft, intensity
from trading.quoting.skewed import half_spread, minute_volatility
from trading.records import TS_END, ExecType, Kind
from trading.settings import Strategy

QUOTE_STATE: Final = np.dtype(
    [
        *bars.BAR_FIELDS,
        *intensity.FIELDS,
        ("best_bid_ticks", "i8"),  # of the latest market record; 0: the book is not usable or not fresh
        ("best_ask_ticks", "i8"),
        ("fair", "f8"),  # the fair value less the mid, ticks
        ("inventory_lots", "i8"),  # signed, of every fill of the symbol
        ("bid_ticks", "i8"),  # the target told last
        ("bid_lots", "i8"),
        ("ask_ticks", "i8"),
        ("ask_lots", "i8"),
        ("told_ts_ns", "i8"),
        ("filled", "i8"),  # 1: a fill since the target was told
        ("due_ns", "i8"),  # when the target is to be worked out though no record comes; TS_END: not
    ],
    align=True,
)
"""What is kept per symbol."""

QUOTE_GLOBAL: Final = np.dtype([("quotes", "i8"), ("pulls", "i8"), ("fills", "i8"), ("due_ns", "i8")], align=True)
"""Counts: targets told, those of them that pulled a side, fills taken. And the time before which nothing falls due."""

QUOTE_PARAMS: Final = np.dtype(
    [
        ("enabled", "i8"),
        ("rule", "i8"),  # place in RULES
        ("around", "i8"),  # place in AROUND
        ("bar_ns", "i8"),
        ("decay", "f8"),
        ("warm_returns", "i8"),
        ("min_spread", "f8"),  # fraction of mid
        ("volatility_weight", "f8"),
        ("skew", "f8"),
        ("gamma", "f8"),  # per bps and order
        ("horizon_ns", "i8"),
        ("horizon_end_ns", "i8"),  # time of the UTC day; -1: the horizon rolls
        ("measured", "i8"),  # 1: A and k as they are measured, 0: as the settings say
        ("beyond", "f8"),  # a fraction of the mid
        ("half_life_s", "f8"),
        ("least_sweeps", "f8"),
        ("order_notional", "f8"),
        ("max_inventory_notional", "f8"),
        ("requote_ticks", "i8"),
        ("requote_ns", "i8"),
    ],
    align=True,
)
"""The settings as the kernels read them."""

QUOTE_FIGURES: Final = np.dtype(
    [
        *microprice.FIELDS,
        ("a", "f8", 2),  # bid, ask: a second
        ("k", "f8", 2),  # a bps
        ("sigma", "f8"),  # bps in one second; 0: measured
    ],
    align=True,
)
"""What was fitted to a symbol before the run."""

RULES: Final = ("skewed", "avellaneda_stoikov", "glft")
"""Names of `quoting.rule`, each known to the kernels by its place."""
AROUND: Final = ("mid", "weighted_mid", "microprice")
"""Names of `quoting.around`."""
_SKEWED, _AVELLANEDA_STOIKOV, _GLFT = range(len(RULES))
_MID, _WEIGHTED_MID, _MICROPRICE = range(len(AROUND))

DAY_NS: Final = 86_400_000_000_000

MAX_TICKS: Final = 2.0**53
"""Beyond this a float does not hold every whole tick."""


class QuoterArrays(NamedTuple):
    """What every kernel of the quoter takes: arrays of records, handed on together."""

    state: Recs  # QUOTE_STATE, shape (n_symbols,)
    glob: Recs  # QUOTE_GLOBAL, (1,)
    params: Recs  # QUOTE_PARAMS, (1,)
    instruments: Recs  # INSTRUMENT, (n_symbols,)
    figures: Recs  # QUOTE_FIGURES, (n_symbols,)
    out: Recs  # QUOTE_RECORD, (1,)


def make_params(strategy: Strategy, instruments: Recs) -> Recs:
    """QUOTE_PARAMS (1,) of a strategy; which symbols are quoted stands in `instruments.make_market`."""
    q, f = strategy.quoting, strategy.features
    params = np.zeros(1, QUOTE_PARAMS)
    p = params[0]
    p["enabled"] = q.enabled
    p["bar_ns"], p["decay"] = f.bar_ms * 1_000_000, f.volatility_lambda
    p["warm_returns"] = bars.warm_returns(f.volatility_lambda)
    p["rule"], p["around"] = RULES.index(q.rule), AROUND.index(q.around)
    p["min_spread"], p["volatility_weight"], p["skew"] = q.min_spread_bps / 1e4, q.volatility_weight, q.skew
    p["gamma"] = q.gamma
    p["horizon_ns"], p["horizon_end_ns"] = round(q.horizon_s * 1e9), -1
    if q.horizon_end:
        hours, minutes = q.horizon_end.split(":")
        p["horizon_end_ns"] = (int(hours) * 60 + int(minutes)) * 60_000_000_000
    flow = q.intensity
    p["measured"] = flow.source == "measured" and q.rule != RULES[_SKEWED]  # who does not use it does not count
    p["beyond"], p["half_life_s"], p["least_sweeps"] = flow.beyond_bps / 1e4, flow.half_life_s, flow.least_sweeps
    p["order_notional"], p["max_inventory_notional"] = q.order_notional, q.max_inventory_notional
    p["requote_ticks"], p["requote_ns"] = q.requote_ticks, q.requote_ms * 1_000_000
    return params


def make_figures(strategy: Strategy, names: Sequence[str]) -> Recs:
    """QUOTE_FIGURES (n_symbols,) of a strategy, without the microprice's table (procs.learning.install puts it in)."""
    figures = np.zeros(len(names), QUOTE_FIGURES)
    for fit in strategy.quoting.intensity.fits:
        for k in (k for k, name in enumerate(names) if name == fit.symbol):
            figures["a"][k], figures["k"][k] = (fit.bid_a, fit.ask_a), (fit.bid_k, fit.ask_k)
            figures["sigma"][k] = fit.volatility_bps
    return figures


def init(state: Recs, glob: Recs, params: Recs, instruments: Recs) -> None:
    """Put QUOTE_STATE (n_symbols,) and QUOTE_GLOBAL (1,) into their start state: no inventory, nothing told."""
    assert len(state) == len(instruments) and len(glob) == len(params) == 1
    state[:] = np.zeros((), QUOTE_STATE)
    glob[:] = np.zeros((), QUOTE_GLOBAL)
    state["due_ns"] = glob["due_ns"] = TS_END
    for s in range(len(state)):
        bars.start(state[s])
        intensity.start(state[s])


@lean
def _seconds_left(p: bars.Rec, ts_ns: int) -> float:
    """The horizon at a time: what rolls on, or what is left until its end on this day or the next."""
    if p.horizon_end_ns < 0:
        return p.horizon_ns * 1e-9
    return ((p.horizon_end_ns - ts_ns) % DAY_NS) * 1e-9


@lean
def _can_price(s: bars.Rec, p: bars.Rec, figures: bars.Rec) -> bool:
    """Whether what the rule needs is warm."""
    if s.returns < p.warm_returns and (p.rule == _SKEWED or figures.sigma == 0.0):
        return False
    if p.rule == _SKEWED or p.measured == 0:
        return True
    return intensity.is_fit(s, 0, p.least_sweeps) and intensity.is_fit(s, 1, p.least_sweeps)


@lean
def _distances(
    s: bars.Rec, p: bars.Rec, figures: bars.Rec, ts_ns: int, mid: float, held: float, q: float
) -> tuple[float, float, float]:
    """(bid's distance, ask's distance, skew) in ticks by the rule; the inventory as a part of the most, and in orders."""
    least = p.min_spread * mid * 0.5
    if p.rule == _SKEWED:
        half = half_spread(mid, minute_volatility(s.volatility), p.min_spread, p.volatility_weight)
        return half, half, held * p.skew * mid
    bps = mid * 1e-4  # in ticks; the rules work in bps, so that gamma means the same for every symbol
    sigma = figures.sigma if figures.sigma > 0.0 else s.volatility * 1e4
    bid_a, bid_k, ask_a, ask_k = figures.a[0], figures.k[0], figures.a[1], figures.k[1]
    if p.measured:
        bid_a, bid_k = intensity.a_of(s, 0), intensity.k_of(s, 0) * bps
        ask_a, ask_k = intensity.a_of(s, 1), intensity.k_of(s, 1) * bps
    if p.rule == _AVELLANEDA_STOIKOV:
        tau = _seconds_left(p, ts_ns)
        skew = avellaneda_stoikov.reservation_skew(q, p.gamma, sigma, tau)
        bid = 0.5 * avellaneda_stoikov.spread(p.gamma, bid_k, sigma, tau)
        ask = 0.5 * avellaneda_stoikov.spread(p.gamma, ask_k, sigma, tau)
    else:
        skew = q * sigma * 0.5 * (glft.c2(p.gamma, bid_a, bid_k) + glft.c2(p.gamma, ask_a, ask_k))
        bid = glft.distance(0.0, p.gamma, bid_a, bid_k, sigma)
        ask = glft.distance(0.0, p.gamma, ask_a, ask_k, sigma)
    return max(least, bid * bps), max(least, ask * bps), skew * bps


@kernel
def _side_lots(instruments: Recs, symbol: int, price_ticks: int, lots: int, held: int, max_lots: float) -> int:
    """Quantity of one side, 0 where none is allowed; `held` is the inventory seen from that side."""
    it = instruments[symbol]
    if price_ticks < 1 or lots < it.min_qty_lots or lots <= 0 or held + lots > max_lots:
        return 0
    if notional_e8(instruments, symbol, price_ticks, lots) < it.min_notional_e8:
        return 0
    return lots


@lean
def _tell(quoter: QuoterArrays, symbol: int, ts_ns: int) -> int:
    """Work out the target at `ts_ns` and tell it if it may be: 1 with `out[0]` written, else 0. Notes what falls due later."""
    s, g = quoter.state[symbol], quoter.glob[0]
    s.due_ns = TS_END
    told = _target(quoter, symbol, ts_ns)
    if s.best_bid_ticks > 0 and (s.bid_lots > 0 or s.ask_lots > 0):
        s.due_ns = min(s.due_ns, s.book_ts_ns + bars.BOOK_MAX_AGE_NS + 1)
    g.due_ns = min(g.due_ns, s.due_ns)
    return told


@lean
def _target(quoter: QuoterArrays, symbol: int, ts_ns: int) -> int:
    """What `_tell` tells. A target that comes too soon after the last one falls due later."""
    s, g, p, o = quoter.state[symbol], quoter.glob[0], quoter.params[0], quoter.out[0]
    bid = ask = bid_lots = ask_lots = 0
    fair = half = skew = 0.0
    instruments, it = quoter.instruments, quoter.instruments[symbol]
    if s.best_bid_ticks > 0 and _can_price(s, p, quoter.figures[symbol]):
        mid = 0.5 * (s.best_bid_ticks + s.best_ask_ticks)
        fair = mid + s.fair
        worth = lot_value(instruments, symbol, mid)
        max_lots = p.max_inventory_notional / worth
        order_lots = p.order_notional / worth
        held, orders = s.inventory_lots / max_lots, s.inventory_lots / order_lots
        below, above, skew = _distances(s, p, quoter.figures[symbol], ts_ns, mid, held, orders)
        half = 0.5 * (below + above)
        # never crossing: what a post-only order must keep to, and bid <= ask - 1 holds before and after
        # (bounded as floats, so that no inventory takes a price out of int64)
        bid = int(max(0.0, min(math.floor(fair - below - skew), s.best_ask_ticks - 1.0)))
        ask = int(min(MAX_TICKS, max(math.ceil(fair + above - skew), s.best_bid_ticks + 1.0)))
        # the nudge keeps a quotient that is exact in decimals from landing one step below itself
        wanted = int(min(order_lots * (1.0 + 1e-12), float(it.max_qty_lots)))
        step = max(1, it.step_lots)
        lots = wanted // step * step
        bid_lots = _side_lots(instruments, symbol, bid, lots, s.inventory_lots, max_lots)
        ask_lots = _side_lots(instruments, symbol, ask, lots, -s.inventory_lots, max_lots)
        if bid_lots == 0:
            bid = 0
        if ask_lots == 0:
            ask = 0

    pulls = (s.bid_lots > 0 and bid_lots == 0) or (s.ask_lots > 0 and ask_lots == 0)
    if not pulls:
        if bid_lots == 0 and ask_lots == 0:
            return 0
        appears = (s.bid_lots == 0 and bid_lots > 0) or (s.ask_lots == 0 and ask_lots > 0)
        moves = abs(bid - s.bid_ticks) > p.requote_ticks or abs(ask - s.ask_ticks) > p.requote_ticks
        if not (appears or moves or s.filled):
            return 0
        if s.told_ts_ns > 0 and ts_ns - s.told_ts_ns < p.requote_ns:
            s.due_ns = s.told_ts_ns + p.requote_ns
            return 0
    s.bid_ticks, s.bid_lots, s.ask_ticks, s.ask_lots = bid, bid_lots, ask, ask_lots
    s.told_ts_ns, s.filled = ts_ns, 0
    g.quotes += 1
    if pulls:
        g.pulls += 1
    o.ts_ns, o.kind, o.symbol, o.flags = ts_ns, Kind.QUOTE, symbol, 0
    o.bid_ticks, o.bid_lots, o.ask_ticks, o.ask_lots = bid, bid_lots, ask, ask_lots
    o.fair_price, o.half_spread, o.skew = fair, half, skew
    o.inventory_lots = s.inventory_lots
    return 1


@lean
def _fair_gap(table: bars.Rec, rec: bars.Rec, around: int) -> float:
    """The fair value less the mid, ticks."""
    if around == _MID:
        return 0.0
    if around == _MICROPRICE:
        return microprice.gap(table, rec)
    return microprice.weighted_mid_gap(rec)


@lean
def on_market(recs: Recs, i: int, quoter: QuoterArrays) -> int:
    """Take MARKET_RECORD `recs[i]`; returns 1 with QUOTE_RECORD `out[0]` written if a target is due, else 0.

    `fair_price`, `half_spread` (the mean of both sides') and `skew` are in ticks; all 0 when the book is not usable.
    A record of a symbol that is not quoted, or not in the table, is passed over.
    """
    rec, p = recs[i], quoter.params[0]
    symbol = rec.symbol
    if symbol < 0 or symbol >= len(quoter.state) or quoter.instruments[symbol].make_market == 0 or p.enabled == 0:
        return 0
    s = quoter.state[symbol]
    if bars.usable(rec):
        if p.measured:
            beyond = p.beyond * 0.5 * (s.best_bid_ticks + s.best_ask_ticks)
            intensity.on_record(s, rec, s.best_bid_ticks, s.best_ask_ticks, beyond, p.half_life_s)
        bars.roll(s, rec.ts_ns, 0.5 * (rec.bid_ticks[0] + rec.ask_ticks[0]), p.bar_ns, p.decay, p.warm_returns)
        fresh = bars.note_book(s, rec)
        s.best_bid_ticks = rec.bid_ticks[0] if fresh else 0
        s.best_ask_ticks = rec.ask_ticks[0] if fresh else 0
        s.fair = _fair_gap(quoter.figures[symbol], rec, p.around)
    else:
        bars.interrupt(s)
        intensity.interrupt(s)
        s.best_bid_ticks = s.best_ask_ticks = 0
    return _tell(quoter, symbol, rec.ts_ns)


@lean
def on_report(recs: Recs, i: int, quoter: QuoterArrays) -> int:
    """Take REPORT_RECORD `recs[i]`; a FILL moves the inventory. Returns 1 with `out[0]` written if a target is due, else 0.

    Every fill of the symbol counts, whatever the order's purpose; the ring delivers each once.
    """
    rec = recs[i]
    symbol = rec.symbol
    if rec.exec_type != ExecType.FILL or symbol < 0 or symbol >= len(quoter.state):
        return 0
    s = quoter.state[symbol]
    s.inventory_lots += rec.side * rec.last_lots
    s.filled = 1
    quoter.glob[0].fills += 1
    if quoter.instruments[symbol].make_market == 0 or quoter.params[0].enabled == 0:
        return 0
    return _tell(quoter, symbol, rec.ts_ns)


@lean
def on_due(ts_ns: int, quoter: QuoterArrays) -> int:
    """Time has come to `glob.due_ns`, which is `ts_ns`. Returns 1 with `out[0]` written if a target is told, else 0.

    One target at most: what else falls due now still stands in `glob.due_ns`.
    """
    g, told = quoter.glob[0], 0
    g.due_ns = TS_END
    for symbol in range(len(quoter.state)):
        s = quoter.state[symbol]
        if s.due_ns <= ts_ns and told == 0:
            if ts_ns - s.book_ts_ns > bars.BOOK_MAX_AGE_NS:
                s.best_bid_ticks = s.best_ask_ticks = 0
            told = _tell(quoter, symbol, ts_ns)
        g.due_ns = min(g.due_ns, s.due_ns)
    return told
