"""Time in slots: what happens when a tenth of the volume window, or a second, has passed.

Slots end when the first record at or after their end arrives, before that record is looked at, so nothing is known
before it happened. Slots without records are folded: as many one by one as a window remembers, the rest as a power.
While the book is not usable nothing is sampled: neither volume's average nor quantiles nor volatility take what was not seen.

By the fast slot: the volume window and its average, the momentum's autocorrelations, the samples of the rolling
quantiles. By the second: OFI and aggressor windows, realised volatility, Kyle's lambda, the impact's fit, value area, regime, and
the bars of `timeframes_s`.

What this module is not: it takes no record; the clock is the records' `ts_ns`.
"""

from __future__ import annotations

import math
from typing import Final

from trading.features import microstructure_score as scores
from trading.features import order_flow, regime, signals, toxicity, volume_profile
from trading.features.bar_signals import close_timeframes
from trading.features.bars import Fields, Rec, keep_of
from trading.features.regime import SECONDS
from trading.features.signals import Signal
from trading.features.vector import DIRTY_ALL
from trading.jit import Recs, lean
from trading.settings import Features

FAST_SLOTS: Final = 10
"""Slots of the volume window: a window moves on by a tenth of itself."""

MOMENTUM_LAGS: Final = 20

SECOND_NS: Final = 1_000_000_000

MEAN_KEEP: Final = 0.5 ** (1.0 / 5.0)
"""The momentum itself: mean return of a slot, half-life five slots."""

FIELDS: Final[Fields] = (
    # clocks: a tenth of the volume window, and a second
    ("fast_index", "i8"),
    ("second_index", "i8"),
    ("clock_end_ns", "i8"),  # the earlier end of the two slots that run
    # volume and momentum, by fast slot
    ("volume_lots", "f8"),
    ("volume_signed", "f8"),
    ("volume_lots_slots", "f8", FAST_SLOTS),
    ("volume_signed_slots", "f8", FAST_SLOTS),
    ("volume_samples", "i8"),
    ("volume_sum", "f8"),
    ("volume_weight", "f8"),
    ("volume_ratio", "f8"),
    ("slot_twice_mid", "i8"),  # at the end of the slot before; 0: not known
    ("momentum_run", "i8"),
    ("momentum_samples", "i8"),
    ("momentum_returns", "f8", 32),
    ("momentum_sums", "f8", MOMENTUM_LAGS + 1),
    ("momentum_weight", "f8"),
    ("momentum_mean", "f8"),
    ("momentum_mean_weight", "f8"),
    ("momentum_phi", "f8"),
    ("momentum_half_life", "f8"),
    # seconds
    ("second_twice_mid", "i8"),
    ("second_broken", "i8"),  # the book was unusable some time in this second
    ("second_signed", "f8"),
    ("seconds", "i8"),
    ("second_moves", "i8", SECONDS),  # of twice the mid
    ("second_flows", "f8", SECONDS),
    ("second_returns", "f8", SECONDS),
    ("kyle", "f8"),  # ticks a lot
    ("realised", "f8"),  # deviation a second
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("fast_ns", "i8"),
    ("volume_multiple", "f8"),
    ("keep_volume", "f8"),
    ("warm_volume", "i8"),
    ("keep_momentum", "f8"),
    ("warm_momentum", "i8"),
    ("momentum_z_scale", "f8"),
    ("kyle_seconds", "i8"),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["fast_ns"] = f.volume_window_ms * 1_000_000 // FAST_SLOTS
    slots_a_second = 1e9 / float(p["fast_ns"])
    p["volume_multiple"], p["kyle_seconds"] = f.volume_multiple, f.kyle_window_s
    p["keep_volume"] = keep_of(f.volume_half_life_s * slots_a_second)
    p["warm_volume"] = math.ceil(f.volume_half_life_s * slots_a_second)
    p["keep_momentum"] = keep_of(f.momentum_half_life_s * slots_a_second)
    p["warm_momentum"] = math.ceil(f.momentum_half_life_s * slots_a_second)
    # the deviation of an exponential mean of independent values is sqrt((1 - keep)/(1 + keep)) of theirs
    p["momentum_z_scale"] = math.sqrt((1.0 + MEAN_KEEP) / (1.0 - MEAN_KEEP))


@lean
def take_volume(s: Rec, p: Rec, sign: int, lots: int) -> None:
    """Put a print into the volume window."""
    at = s.fast_index % FAST_SLOTS
    size = float(lots)
    s.volume_lots_slots[at] += size
    s.volume_signed_slots[at] += sign * size
    s.volume_lots += size
    s.volume_signed += sign * size
    evaluate_volume(s, p)


@lean
def evaluate_volume(s: Rec, p: Rec) -> None:
    """The volume_spike signal: the window over the average of windows at the ends of slots."""
    if s.volume_samples >= p.warm_volume:
        s.volume_ratio = s.volume_lots * s.volume_weight / s.volume_sum if s.volume_sum > 0.0 else 0.0
        signals.say(s, Signal.VOLUME_SPIKE, signals.volume_spike(s.volume_ratio, s.volume_signed, p.volume_multiple))


@lean
def _close_volume(s: Rec, p: Rec, passed: int) -> None:
    keep = p.keep_volume
    seen = s.mid > 0.0
    total, weight, lots, signed = s.volume_sum, s.volume_weight, s.volume_lots, s.volume_signed
    at = s.fast_index % FAST_SLOTS
    for k in range(min(passed, FAST_SLOTS)):
        if seen:
            total = total * keep + (1.0 - keep) * lots
            weight = weight * keep + (1.0 - keep)
        at = at + 1 if at + 1 < FAST_SLOTS else 0
        if k > 0 and s.volume_lots_slots[at] == 0.0:
            continue  # added up anew by the slot before: an empty one that leaves changes nothing
        s.volume_lots_slots[at] = s.volume_signed_slots[at] = 0.0
        lots = signed = 0.0
        for j in range(FAST_SLOTS):
            lots += s.volume_lots_slots[j]
            signed += s.volume_signed_slots[j]
    s.volume_sum, s.volume_weight, s.volume_lots, s.volume_signed = total, weight, lots, signed
    if seen:
        if passed > FAST_SLOTS:
            kept = keep ** (passed - FAST_SLOTS)
            s.volume_sum *= kept
            s.volume_weight = 1.0 - (1.0 - s.volume_weight) * kept
        s.volume_samples += passed
    evaluate_volume(s, p)


@lean
def _push_return(s: Rec, p: Rec, change: float) -> None:
    """One slot's mid return, ticks; lagged products once all lags are there."""
    run = s.momentum_run
    if run >= MOMENTUM_LAGS:
        keep = p.keep_momentum
        gain = (1.0 - keep) * change
        s.momentum_sums[0] = s.momentum_sums[0] * keep + gain * change
        for lag in range(1, MOMENTUM_LAGS + 1):
            s.momentum_sums[lag] = s.momentum_sums[lag] * keep + gain * s.momentum_returns[(run - lag) & 31]
        s.momentum_weight = s.momentum_weight * keep + (1.0 - keep)
        s.momentum_samples += 1
    s.momentum_returns[run & 31] = change
    s.momentum_mean = s.momentum_mean * MEAN_KEEP + (1.0 - MEAN_KEEP) * change
    s.momentum_mean_weight = s.momentum_mean_weight * MEAN_KEEP + (1.0 - MEAN_KEEP)
    s.momentum_run = run + 1


@lean
def _push_still(s: Rec, p: Rec, slots: int) -> None:
    """`_push_return` of so many returns of 0: what is added each time is 0, so the sums only decay."""
    run = s.momentum_run
    fed = slots - min(slots, max(0, MOMENTUM_LAGS - run))
    keep = p.keep_momentum
    weight = s.momentum_weight
    for _ in range(fed):  # outside: how often it goes round is not to be predicted, and all lags decay at once
        for lag in range(MOMENTUM_LAGS + 1):
            s.momentum_sums[lag] *= keep
        weight = weight * keep + (1.0 - keep)
    for lag in range(MOMENTUM_LAGS + 1):
        s.momentum_sums[lag] += 0.0
    mean, mean_weight = s.momentum_mean, s.momentum_mean_weight
    for k in range(slots):
        s.momentum_returns[(run + k) & 31] = 0.0
        mean = mean * MEAN_KEEP + 0.0
        mean_weight = mean_weight * MEAN_KEEP + (1.0 - MEAN_KEEP)
    s.momentum_weight, s.momentum_mean, s.momentum_mean_weight = weight, mean, mean_weight
    s.momentum_samples += fed
    s.momentum_run = run + slots


@lean
def _close_momentum(s: Rec, p: Rec, passed: int) -> None:
    if s.mid == 0.0:
        s.slot_twice_mid = s.momentum_run = 0
        return
    if s.slot_twice_mid > 0:
        _push_return(s, p, 0.5 * (s.twice_mid - s.slot_twice_mid))
    s.slot_twice_mid = s.twice_mid
    still = passed - 1
    if still > 0:
        _push_still(s, p, min(still, 2 * MOMENTUM_LAGS))
    if still > 2 * MOMENTUM_LAGS:  # all remembered returns are 0 by now: the rest is decay alone
        rest = still - 2 * MOMENTUM_LAGS
        kept = p.keep_momentum**rest
        for lag in range(MOMENTUM_LAGS + 1):
            s.momentum_sums[lag] *= kept
        s.momentum_weight = 1.0 - (1.0 - s.momentum_weight) * kept
        s.momentum_samples += rest
        s.momentum_run += rest
        kept = MEAN_KEEP**rest
        s.momentum_mean *= kept
        s.momentum_mean_weight = 1.0 - (1.0 - s.momentum_mean_weight) * kept
    if s.momentum_samples >= p.warm_momentum and s.momentum_run >= MOMENTUM_LAGS:
        s.momentum_phi = toxicity.successive_ratio(s.momentum_sums, MOMENTUM_LAGS + 1)
        s.momentum_half_life = toxicity.half_life(s.momentum_phi)
        z = 0.0
        if s.momentum_sums[0] > 0.0:
            deviation = math.sqrt(s.momentum_sums[0] / s.momentum_weight)
            z = s.momentum_mean / s.momentum_mean_weight / deviation * p.momentum_z_scale
        signals.say(s, Signal.MOMENTUM_DECAY, signals.momentum_decay(s.momentum_phi, z))


@lean
def _push_second(s: Rec, p: Rec, twice_move: int, flow: float, change: float) -> None:
    at = s.seconds % SECONDS
    s.second_moves[at], s.second_flows[at], s.second_returns[at] = twice_move, flow, change
    s.seconds += 1
    regime.take_return(s, p, change)


@lean
def _measure_seconds(s: Rec, n: int) -> tuple[float, float]:
    """(slope of the mid's move (ticks) on signed volume (lots) over the last n seconds, by least squares, 0 without volume;
    sum of the squares of all SECONDS' returns)."""
    last = (s.seconds - 1) % SECONDS
    flow_sum, move_sum, squares = 0.0, 0, 0.0
    at = last
    for k in range(n):
        flow_sum += s.second_flows[at]
        move_sum += s.second_moves[at]
        at = at - 1 if at > 0 else SECONDS - 1
        squares += s.second_returns[k] * s.second_returns[k]
    for k in range(n, SECONDS):
        squares += s.second_returns[k] * s.second_returns[k]
    flow_mean, move_mean = flow_sum / n, move_sum / n
    product = square = 0.0
    at = last
    for _ in range(n):
        flow = s.second_flows[at] - flow_mean
        product += flow * (s.second_moves[at] - move_mean)
        square += flow * flow
        at = at - 1 if at > 0 else SECONDS - 1
    return (0.5 * product / square if square > 0.0 else 0.0), squares


@lean
def _close_second(s: Rec, p: Rec, passed: int) -> None:
    if s.mid > 0.0:
        if s.second_twice_mid > 0 and s.second_broken == 0:
            change = math.log(s.twice_mid / s.second_twice_mid) if s.twice_mid != s.second_twice_mid else 0.0
            _push_second(s, p, s.twice_mid - s.second_twice_mid, s.second_signed, change)
        still = passed - 1
        for _ in range(min(still, SECONDS)):
            _push_second(s, p, 0, 0.0, 0.0)
        if still > SECONDS:
            s.seconds += still - SECONDS
            regime.still(s, p, still - SECONDS)
        s.second_twice_mid, s.second_broken = s.twice_mid, 0
    else:
        s.second_twice_mid, s.second_broken = 0, 1
    s.second_signed = 0.0
    if s.seconds >= p.kyle_seconds:
        s.kyle, squares = _measure_seconds(s, p.kyle_seconds)
        if s.seconds >= SECONDS:
            s.realised = math.sqrt(squares / SECONDS)
    if s.impact_samples >= p.warm_impact:
        s.impact_phi = toxicity.successive_ratio(s.impact_sums, len(s.impact_sums))
        s.impact_half_life = toxicity.half_life(s.impact_phi)
    volume_profile.find_value_area(s, p)
    regime.decide(s, p, passed)


@lean
def interrupt(s: Rec) -> None:
    """The book is not usable: the momentum is not known, and this second is not measured. Its autocorrelations live on."""
    s.slot_twice_mid = s.momentum_run = 0
    s.momentum_mean = s.momentum_mean_weight = 0.0
    s.second_twice_mid = 0
    s.second_broken = 1
    signals.hush(s, Signal.MOMENTUM_DECAY)


@lean
def restart(s: Rec, p: Rec, slots: int) -> None:
    """An outage of so many fast slots is over: empty the volume window, and let the averages by slot age and warm up anew."""
    for k in range(FAST_SLOTS):
        s.volume_lots_slots[k] = s.volume_signed_slots[k] = 0.0
    s.volume_lots = s.volume_signed = s.volume_ratio = 0.0
    kept = p.keep_volume**slots
    s.volume_sum *= kept
    s.volume_weight *= kept
    kept = p.keep_momentum**slots
    for lag in range(MOMENTUM_LAGS + 1):
        s.momentum_sums[lag] *= kept
    s.momentum_weight *= kept
    s.volume_samples = s.momentum_samples = 0
    signals.hush(s, Signal.VOLUME_SPIKE)


@lean
def advance(s: Rec, p: Rec, ts_ns: int) -> None:
    """End the slots that a record at `ts_ns` finds over; the caller has compared it with `clock_end_ns`."""
    fast, second = ts_ns // p.fast_ns, ts_ns // SECOND_NS
    if s.fast_index < 0:
        s.fast_index, s.second_index = fast, second
        for k in range(len(s.tf_index)):
            s.tf_index[k] = ts_ns // p.tf_ns[k]
    s.dirty = DIRTY_ALL
    passed = fast - s.fast_index
    if passed > 0:
        _close_volume(s, p, passed)
        _close_momentum(s, p, passed)
        scores.sample(s, p, passed)
        s.fast_index = fast
    passed = second - s.second_index
    if passed > 0:
        _close_second(s, p, passed)
        close_timeframes(s, p, ts_ns)
        order_flow.move_window(s, p, passed)
        s.second_index = second
        order_flow.evaluate(s, p)
    s.clock_end_ns = min((fast + 1) * p.fast_ns, (second + 1) * SECOND_NS)
