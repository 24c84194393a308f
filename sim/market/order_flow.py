"""The order flow behind the embedded market: how its price, its intensity and its book move from event to event.

The model is described in sim.market.generator, which turns the state that these kernels keep into frames.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from sim.market import book as gb
from sim.market.book import ASK, BID
from sim.rng import below, exponential, normal, uniform
from trading.jit import Recs, kernel
from trading.ranges import MAX_SYMBOLS
from trading.records import TS_END

START_NS: Final = 1_750_000_000 * 10**9
"""Receive time of the first frame: fixed, so that a seed names a run."""
GRID_NS: Final = 20_000_000
DEPTH_NS: Final = 100_000_000
SWEEP_NS: Final = 10_000
"""Between two levels that one order takes."""
LEAST_GAP_NS: Final = 2_000

TRADE_SHARE: Final = 0.27  # of events; gives 1 trade frame to 3.7 bookTickers
BRANCHING: Final = 0.5
DECAY: Final = 8.0  # per second
DEEP_CHANGES: Final = 4  # per event, at most
GAPS_WATCHED: Final = 6  # levels from the touch whose distance is kept small
LADDER: Final = 8  # levels that follow an improved quote
TICKER_SHARE: Final = 0.25  # of events whose deep changes come after the touch's
PULL: Final = math.log(2.0) / 3600.0  # per second, back to the start price
COMMON: Final = 0.7  # correlation with the common factor
BURST_PERIOD_S: Final = 15.0
BURST_DECAY_S: Final = 2.0
BURST: Final = 8.0
LOG_VOL_REVERSION: Final = 0.2  # per second
LOG_VOL_NOISE: Final = 0.35  # per square root of a second
DRIFT: Final = 0.6  # volatilities a second at unit pressure


SNAPSHOT_PENDING: Final = 1
TRADE_PENDING: Final = 2
BBO_PENDING: Final = 4

GEN_STATE: Final = np.dtype(
    [
        *gb.BOOK_FIELDS,
        ("seed", "i8"),
        ("draws", "i8"),  # counter of the generator
        ("now_ns", "i8"),  # of the last event
        ("event_ns", "i8"),  # of the next one
        ("depth_ns", "i8"),  # when the next depth frame is due; TS_END while nothing has changed
        ("grid", "i8"),  # steps of the fundamental so far
        ("pending", "i8"),  # frames of the last event that are still to be written
        ("sweep_lots", "i8"),  # what the last order has still to take ...
        ("sweep_side", "i8"),  # ... from this side
        ("first_id", "i8"),  # U of the next depth frame
        ("previous_id", "i8"),  # u of the last one
        ("bbo_id", "i8"),
        ("trade_id", "i8"),
        ("trade_ticks", "i8"),
        ("trade_lots", "i8"),
        ("trade_side", "i8"),
        ("gap_ticks", "f8"),  # mean distance of neighbouring levels near the touch
        ("level_lots", "f8"),  # mean quantity of a level
        ("trade_mean_lots", "f8"),
        ("start_ticks", "f8"),
        ("fundamental", "f8"),  # ticks
        ("log_vol", "f8"),
        ("burst", "f8"),
        ("pressure", "f8"),
        ("excitation", "f8"),  # events per second above the base rate
        ("flow", "f8"),  # recent buys minus sells, decaying
    ],
    align=True,
)

GEN_PARAMS: Final = np.dtype(
    [
        ("seed", "i8"),
        ("end_ns", "i8"),  # no frame is received after this
        ("base_rate", "f8"),  # events per second without excitation
        ("volatility", "f8"),  # of the fundamental, as a fraction per square root of a second
        ("pressure_decay", "f8"),  # per second
        ("start_price", "f8"),
        ("prices", "f8", MAX_SYMBOLS),  # where symbols start that have a price of their own; 0: by start_price
    ],
    align=True,
)


@kernel
def _draw(st: Any) -> float:
    st.draws += 1
    return uniform(st.seed, st.draws)


@kernel
def _draw_exponential(st: Any) -> float:
    st.draws += 1
    return exponential(st.seed, st.draws)


@kernel
def _draw_normal(st: Any) -> float:
    st.draws += 2
    return normal(st.seed, st.draws >> 1)


@kernel
def draw_lots(st: Any, instrument: Any, mean: float) -> int:
    """An order's or a level's quantity: exponential around `mean`, a positive multiple of the step."""
    return max(1, int(_draw_exponential(st) * mean / instrument.step_lots)) * instrument.step_lots


@kernel
def _gap(st: Any, depth: int) -> int:
    """Distance in ticks to the next level, wider away from the touch."""
    return 1 + int(_draw_exponential(st) * st.gap_ticks * (1.0 + 0.05 * depth))


@kernel
def extend(st: Any, instrument: Any, side: int) -> None:
    """Put a level in beyond the farthest one."""
    key = st.keys[side, 0] - _gap(st, st.n[side])
    if side == BID and key < 1:
        return
    gb.insert(st, side, key, draw_lots(st, instrument, st.level_lots))


@kernel
def schedule(st: Any, params: Recs) -> None:
    """Draw the time of the next event from the present intensity."""
    wait = _draw_exponential(st) / params[0].base_rate
    if st.excitation > 1e-9:
        d = 1.0 + DECAY * math.log(_draw(st)) / st.excitation
        if d > 0.0:
            wait = min(wait, -math.log(d) / DECAY)
    st.event_ns = st.now_ns + max(LEAST_GAP_NS, int(wait * 1e9))


@kernel
def _move_fundamental(st: Any, params: Recs) -> None:
    """Take the fundamental's grid steps up to now."""
    dt = GRID_NS * 1e-9
    root = math.sqrt(dt)
    steps = (st.now_ns - START_NS) // GRID_NS
    keep = math.exp(-params[0].pressure_decay * dt)
    while st.grid < steps:
        st.grid += 1
        st.log_vol += -LOG_VOL_REVERSION * st.log_vol * dt + LOG_VOL_NOISE * root * _draw_normal(st)
        st.burst *= math.exp(-dt / BURST_DECAY_S)
        if _draw(st) < dt / BURST_PERIOD_S:
            st.burst += BURST
        st.pressure = keep * st.pressure + math.sqrt(1.0 - keep * keep) * _draw_normal(st)
        vol = params[0].volatility * (math.exp(min(st.log_vol, 2.0)) + st.burst)
        shock = COMMON * normal(params[0].seed, st.grid) + math.sqrt(1.0 - COMMON * COMMON) * _draw_normal(st)
        pull = PULL * math.log(st.start_ticks / st.fundamental)
        st.fundamental *= math.exp(vol * (root * shock + DRIFT * st.pressure * dt) + pull * dt)


@kernel
def _side_to_take(st: Any, bid: int, ask: int) -> int:
    """Which side an aggressor takes: towards the fundamental, with the flow and the pressure."""
    if ask < st.fundamental - 1.0 and _draw(st) < 0.8:
        return ASK
    if bid > st.fundamental + 1.0 and _draw(st) < 0.8:
        return BID
    tilt = 0.25 * st.flow + 0.5 * st.pressure
    return ASK if _draw(st) < 1.0 / (1.0 + math.exp(-tilt)) else BID


@kernel
def take(st: Any, side: int, lots: int) -> None:
    """Trade up to `lots` against the touch of `side`; what is left sweeps on."""
    index = st.n[side] - 1
    there = st.lots[side, index]
    traded = min(lots, there)
    st.trade_id += 1
    st.trade_ticks = gb.price_of(side, st.keys[side, index])
    st.trade_lots = traded
    st.trade_side = side
    if traded < there:
        gb.set_lots_at(st, side, index, there - traded)
        st.sweep_lots = 0
    else:
        gb.remove_at(st, side, index)
        st.sweep_lots = lots - traded if st.n[side] > gb.TARGET // 2 else 0
    st.sweep_side = side
    st.pending = TRADE_PENDING | BBO_PENDING
    st.bbo_id = st.update_id


@kernel
def _improve(st: Any, instrument: Any, bid: int, ask: int) -> bool:
    """Put a better level into the spread, on the side that the fundamental leaves room for; False if there is none."""
    room_bid = min(ask - 1, int(math.floor(st.fundamental))) - bid
    room_ask = ask - max(bid + 1, int(math.ceil(st.fundamental)))
    side = BID if room_bid > room_ask else ASK
    room = max(room_bid, room_ask)
    if room < 1:
        return False
    st.draws += 1
    forward = room if _draw(st) < 0.5 else 1 + below(st.seed, st.draws, room)
    behind = gb.best(st, side)
    key = behind + forward
    gb.insert(st, side, key, draw_lots(st, instrument, 0.5 * st.level_lots))
    for depth in range(LADDER):  # others follow: a lone quote far ahead would let the next trade throw the price back
        key -= _gap(st, depth)
        if key <= behind:
            break
        gb.insert(st, side, key, draw_lots(st, instrument, st.level_lots))
    return True


@kernel
def _pull_quotes(st: Any, side: int, distance: float) -> None:
    """Cancel the touch of `side`, more levels the further the fundamental has gone through them."""
    n = 1 + min(15, int(distance / (4.0 * st.gap_ticks + 4.0)))
    while n > 0 and st.n[side] > gb.TARGET // 2:
        gb.remove_at(st, side, st.n[side] - 1)
        n -= 1


@kernel
def _change_touch(st: Any, instrument: Any) -> None:
    """Another quantity at the touch of either side, never the same."""
    side = BID if _draw(st) < 0.5 else ASK
    index = st.n[side] - 1
    lots = draw_lots(st, instrument, st.level_lots)
    if lots == st.lots[side, index]:
        lots += instrument.step_lots
    gb.set_lots_at(st, side, index, lots)


@kernel
def _touch_event(st: Any, instrument: Any) -> None:
    """A quote improves, is pulled, or changes its quantity."""
    bid, ask = gb.best(st, BID), -gb.best(st, ASK)
    x = _draw(st)
    least = gb.TARGET // 2
    if ask < st.fundamental and x < 0.75 and st.n[ASK] > least:
        _pull_quotes(st, ASK, st.fundamental - ask)
    elif bid > st.fundamental and x < 0.75 and st.n[BID] > least:
        _pull_quotes(st, BID, bid - st.fundamental)
    elif ask - bid < 2 or x > 0.6 or not _improve(st, instrument, bid, ask):
        _change_touch(st, instrument)
    st.pending = BBO_PENDING
    st.bbo_id = st.update_id


@kernel
def _deep_changes(st: Any, instrument: Any) -> None:
    """Some levels behind the touch change, wide gaps fill; the number of levels returns to TARGET."""
    for side in range(2):
        n = st.n[side]
        widest = 3.0 * st.gap_ticks + 3.0
        for index in range(n - 1, n - 1 - GAPS_WATCHED, -1):
            if st.keys[side, index] - st.keys[side, index - 1] > widest:
                key = max(st.keys[side, index] - _gap(st, 0), st.keys[side, index - 1] + 1)
                gb.insert(st, side, key, draw_lots(st, instrument, st.level_lots))
                break
    st.draws += 1
    for _ in range(below(st.seed, st.draws, DEEP_CHANGES + 1)):
        side = BID if _draw(st) < 0.5 else ASK
        n = st.n[side]
        index = n - 2 - int(_draw_exponential(st) * 12.0)
        x = _draw(st)
        if index < 1:
            continue
        if n < gb.TARGET - 10 and x < 0.7:
            extend(st, instrument, side)
        elif n > gb.TARGET + 10 and x < 0.7:
            gb.remove_at(st, side, 0)
        elif x < 0.25:
            gb.remove_at(st, side, index)
        elif x < 0.5 and st.keys[side, index + 1] - st.keys[side, index] > 1:
            st.draws += 1
            key = st.keys[side, index] + 1 + below(st.seed, st.draws, st.keys[side, index + 1] - st.keys[side, index] - 1)
            gb.insert(st, side, key, draw_lots(st, instrument, st.level_lots))
        else:
            gb.set_lots_at(st, side, index, draw_lots(st, instrument, st.level_lots))


@kernel
def event(st: Any, params: Recs, instrument: Any) -> None:
    """One event of the Hawkes process: state moves to its time, the frames that it causes are pending."""
    dt = (st.event_ns - st.now_ns) * 1e-9
    st.now_ns = st.event_ns
    st.excitation = st.excitation * math.exp(-DECAY * dt) + BRANCHING * DECAY
    st.flow *= math.exp(-params[0].pressure_decay * dt)
    _move_fundamental(st, params)
    deep_first = _draw(st) < 1.0 - TICKER_SHARE
    if deep_first:
        _deep_changes(st, instrument)
    if _draw(st) < TRADE_SHARE:
        side = _side_to_take(st, gb.best(st, BID), -gb.best(st, ASK))
        st.flow = max(-4.0, min(4.0, st.flow + (0.2 if side == ASK else -0.2)))
        mean = st.trade_mean_lots * math.exp(_draw_normal(st))
        take(st, side, draw_lots(st, instrument, mean))
    else:
        _touch_event(st, instrument)
    if not deep_first:
        _deep_changes(st, instrument)
    if st.depth_ns == TS_END:
        st.depth_ns = (st.now_ns // DEPTH_NS + 1) * DEPTH_NS
    if gb.nearly_full(st):
        st.depth_ns = st.now_ns
    schedule(st, params)
