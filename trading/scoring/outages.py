"""What is forgotten when the book is not usable, and what when it comes back: decided signal by signal.

*Interrupted*, at every record with an unusable book, however short: what needs an unbroken book. The averaged imbalance starts
anew. Acceleration is not known before the mid has moved twice again, momentum not before its lags are filled again, the
spread not before a book change; until then they are not ready and do not vote. The open bar and the open second are dropped,
OFI and impact lose their predecessor, sweeps their beginning, models what they waited for.

*An outage*, of more than BOOK_MAX_AGE_NS: besides, what the last prints, bars or seconds said is no longer true of the market
that comes back, and none of it votes before it has seen enough again:
  micro_trend, volume_price_divergence, the recent flow: their windows of prints start anew;
  order_flow: its windows of seconds start anew;
  volume_spike: its window starts anew, its average ages by the outage and warms up anew;
  momentum_decay: the same of its autocorrelations;
  ema_cross, rsi_divergence, book_squeeze, patterns: bars are counted anew;
  multi_timeframe: the bar sizes of which a whole bar was missed start anew.
Rolling quantiles and the regime's averages age by the outage.

What lives on: averages by event or by bar that say how large things are and not where they go (spread, depth, squares of
accelerations, true range, volatility, GARCH, impact, Kyle's seconds), volume buckets, the volume profile, refills, Lee-Ready.

Each signal's owner decides its warmth.
"""

from __future__ import annotations

from trading.features import bar_signals, bars, last_prints, order_flow, regime
from trading.features import microstructure_score as scores
from trading.features import time_slots as slots
from trading.features.bars import BOOK_MAX_AGE_NS, Rec
from trading.features.vector import DIRTY_ALL
from trading.jit import lean
from trading.models import vote as model_vote


@lean
def interrupt(s: Rec, ts_ns: int) -> None:
    """The book is not usable at this record."""
    if s.unusable_ns == 0:
        s.unusable_ns = ts_ns
    bars.interrupt(s)
    order_flow.interrupt(s)
    slots.interrupt(s)
    model_vote.forget(s)
    s.mid = s.microstructure = 0.0
    s.impact_run = 0
    s.sweep_ns[0] = s.sweep_ns[1] = 0
    s.dirty = DIRTY_ALL


@lean
def resume(s: Rec, p: Rec, ts_ns: int) -> None:
    """The book is usable again at this record, of which nothing has been taken yet; slots that are over have been ended."""
    gap_ns = ts_ns - s.unusable_ns
    s.unusable_ns = 0
    if gap_ns <= BOOK_MAX_AGE_NS:
        return
    fast = gap_ns // p.fast_ns
    last_prints.restart(s)
    order_flow.restart(s)
    slots.restart(s, p, fast)
    bar_signals.restart(s, p, gap_ns)
    scores.age(s, p, fast)
    regime.age(s, p, gap_ns // slots.SECOND_NS)
