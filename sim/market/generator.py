"""An embedded market: seeded order flow that comes out as the frames Binance would send, with no network and no file.

The model, per symbol:

- A fundamental price follows a random walk on a 20 ms grid. Its volatility is stochastic (an Ornstein-Uhlenbeck
  process in the logarithm) with bursts ("news") that decay in seconds; a common factor couples the symbols; a slow
  pull keeps an endless run near its start. Buying pressure (unit variance, the half-life of the settings) drifts it.
- Events come as a Hawkes process with an exponential kernel, drawn exactly (Dassios and Zhao 2013, algorithm 3.1):
  each event raises the rate by BRANCHING * DECAY, which decays at DECAY per second. An event is a trade or a change
  at the touch; trades of one side make more of the same side likely.
- Who stands on the wrong side of the fundamental is traded with or pulls the quote; who is behind it improves.
  Deeper levels change, vanish and appear with every event.

What the frames keep: no crossed book; bookTicker equals the book at its update id; a trade prints at the touch and
consumes it; `U`, `u` (and `pu`) are continuous; a depth frame every 100 ms in which something changed; snapshot first.

What is unrealistic: no hidden liquidity, no cross-venue lead, each symbol's decision is memoryless but for the state
above, and the market does not react to our orders. Time starts at START_NS and is virtual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from sim.market import book as gb
from sim.market.book import ASK, BID
from sim.market.order_flow import (
    BRANCHING,
    DEPTH_NS,
    GEN_PARAMS,
    GEN_STATE,
    LEAST_GAP_NS,
    SNAPSHOT_PENDING,
    START_NS,
    SWEEP_NS,
    TRADE_PENDING,
    TRADE_SHARE,
    draw_lots,
    event,
    extend,
    schedule,
    take,
)
from sim.market.wire_frames import MAX_FRAME_BYTES, bbo_frame, depth_frame, snapshot_frame, trade_frame
from sim.rng import stream
from sim.settings import Generator
from trading.jit import Bytes, Recs, kernel
from trading.records import TS_END

__all__ = ["GEN_GLOBAL", "GEN_PARAMS", "GEN_STATE", "MAX_FRAME_BYTES", "START_NS", "init", "make_params", "next_frame"]

WIRE_NS: Final = 1_000_000
"""From an event to its frame's receipt."""
DEPTH_SHARE: Final = 0.07  # of frames
SYMBOL_RATIO: Final = 20.0  # the next symbol's start price is this much lower, while that leaves it LEAST_TICKS
LEAST_TICKS: Final = 1000.0
MOST_TICKS: Final = 1e13
MOST_LOT_VALUE: Final = 3000.0  # a lot is worth no more at the start: a tenth of a level
LEVEL_VALUE: Final = 30_000.0
MOST_LOTS: Final = 2e16  # a level's at the start; those drawn are up to twenty times that

GEN_GLOBAL: Final = np.dtype(
    [
        ("recv_ns", "i8"),  # of the frame written last
        ("symbol", "i8"),  # its symbol
        ("next_ts_ns", "i8"),  # receive time of the next frame; TS_END when there is none
        ("next_symbol", "i8"),
        ("n_frames", "i8"),
    ],
    align=True,
)

LONGEST_S: Final = 2.0e9
"""Durations from here on mean: endless."""


def make_params(settings: Generator, prices: Sequence[float] = ()) -> Recs:
    """GEN_PARAMS, shape (1,), of the settings. `prices`: where each symbol starts, 0 or none: by `start_price`."""
    params = np.zeros(1, GEN_PARAMS)
    row = params[0]
    row["seed"] = settings.seed
    endless = settings.duration_s <= 0 or settings.duration_s >= LONGEST_S
    row["end_ns"] = TS_END - 1 if endless else START_NS + round(settings.duration_s * 1e9)
    row["base_rate"] = settings.events_per_s * (1.0 - DEPTH_SHARE) / (1.0 + 1.35 * TRADE_SHARE) * (1.0 - BRANCHING)
    row["volatility"] = settings.volatility_bps_per_s * 1e-4
    row["pressure_decay"] = math.log(2.0) / settings.buy_pressure_half_life_s
    row["start_price"] = settings.start_price
    row["prices"][: len(prices)] = prices
    return params


@kernel
def start_price(first: float, symbol: int, instruments: Recs) -> float:
    """Where a symbol starts: at `first` over SYMBOL_RATIO**symbol, and again from above where its tick or lot forbids that.

    Its prices are `first` times powers of SYMBOL_RATIO that have LEAST_TICKS to MOST_TICKS ticks, a lot worth MOST_LOT_VALUE at
    most and a level of MOST_LOTS at most, taken in turns; where tick and lot leave none, the least price of enough ticks. So any
    64 symbols have a market.
    """
    it = instruments[symbol]
    price, least = first, max(LEAST_TICKS * it.tick_size, LEVEL_VALUE / MOST_LOTS / it.lot_size)
    while price < least:
        price *= SYMBOL_RATIO
    high = 0
    while (price * it.lot_size > MOST_LOT_VALUE or price > MOST_TICKS * it.tick_size) and price / SYMBOL_RATIO >= least:
        price /= SYMBOL_RATIO
        high += 1
    low, lowest = high, price
    while lowest / SYMBOL_RATIO >= least:
        lowest /= SYMBOL_RATIO
        low += 1
    for _ in range((symbol - high) % (low - high + 1) if symbol > high else 0):
        price /= SYMBOL_RATIO
    return price


@kernel
def init(state: Recs, glob: Recs, params: Recs, instruments: Recs) -> None:
    """Put zeroed state into its start: a book of TARGET levels a side around each start price, a snapshot to be sent."""
    for s in range(state.size):
        st = state[s]
        it = instruments[s]
        price = params[0].prices[s]
        if price <= 0.0:
            price = start_price(params[0].start_price, s, instruments)
        st.seed = stream(params[0].seed, s + 1)
        st.now_ns = START_NS - WIRE_NS
        st.depth_ns = TS_END
        st.start_ticks = price / it.tick_size
        st.fundamental = st.start_ticks
        st.gap_ticks = st.start_ticks * 2e-6
        st.level_lots = LEVEL_VALUE / price / it.lot_size
        st.trade_mean_lots = 4_000.0 / price / it.lot_size
        if it.inverse != 0:
            st.level_lots = 30_000.0 / (it.contract_size * it.lot_size)
            st.trade_mean_lots = 4_000.0 / (it.contract_size * it.lot_size)
        st.burst = 0.0
        st.update_id = 1_000_000_000 * (s + 1)
        st.trade_id = 1_000_000 * (s + 1)
        middle = int(st.start_ticks)
        gb.insert(st, BID, middle, draw_lots(st, it, st.level_lots))
        gb.insert(st, ASK, -(middle + 1), draw_lots(st, it, st.level_lots))
        for _ in range(gb.TARGET - 1):
            extend(st, it, BID)
            extend(st, it, ASK)
        st.n_changed[BID] = 0
        st.n_changed[ASK] = 0
        st.first_id = st.update_id + 1
        st.previous_id = st.update_id
        st.pending = SNAPSHOT_PENDING
        schedule(st, params)
    glob[0].recv_ns = START_NS - 1
    _look_ahead(state, glob, params)


@kernel
def _due(st: Any) -> int:
    """When this symbol's next frame leaves the venue."""
    if st.pending != 0:
        return st.now_ns
    if st.sweep_lots > 0:
        return min(st.now_ns + SWEEP_NS, st.depth_ns)
    return min(st.event_ns, st.depth_ns)


@kernel
def _look_ahead(state: Recs, glob: Recs, params: Recs) -> None:
    """Find the symbol whose frame is next, and when it will be received."""
    due = TS_END
    for s in range(state.size):
        at = _due(state[s])
        if at < due:
            due = at
            glob[0].next_symbol = s
    recv = TS_END if due >= TS_END - WIRE_NS else max(due + WIRE_NS, glob[0].recv_ns + 1)
    glob[0].next_ts_ns = TS_END if recv > params[0].end_ns else recv


@kernel
def next_frame(state: Recs, glob: Recs, params: Recs, instruments: Recs, buf: Bytes) -> int:
    """Write the next frame into `buf` (MAX_FRAME_BYTES) and return its length; 0 when the duration is over.

    `glob[0].recv_ns` and `.symbol` then tell its receive time (strictly increasing) and symbol, `.next_ts_ns` the
    receive time of the frame after it.
    """
    if glob[0].next_ts_ns == TS_END:
        return 0
    symbol = glob[0].next_symbol
    st = state[symbol]
    glob[0].recv_ns = glob[0].next_ts_ns
    glob[0].symbol = symbol
    glob[0].n_frames += 1
    if st.pending == 0 and st.depth_ns <= (st.now_ns + SWEEP_NS if st.sweep_lots > 0 else st.event_ns):
        gb.sort_changes(st, BID)
        gb.sort_changes(st, ASK)
        at_ms = max(st.depth_ns, st.now_ns) // 1_000_000
        n = depth_frame(st, instruments, symbol, at_ms, st.first_id, st.previous_id, buf)
        st.previous_id = st.update_id
        st.first_id = st.update_id + 1
        st.n_changed[BID] = 0
        st.n_changed[ASK] = 0
        st.depth_ns = TS_END
        _look_ahead(state, glob, params)
        return n
    if st.pending == 0 and st.sweep_lots > 0:
        st.now_ns += SWEEP_NS
        take(st, st.sweep_side, st.sweep_lots)
        st.event_ns = max(st.event_ns, st.now_ns + LEAST_GAP_NS)
        if st.depth_ns == TS_END:
            st.depth_ns = (st.now_ns // DEPTH_NS + 1) * DEPTH_NS
    elif st.pending == 0:
        event(st, params, instruments[symbol])
    event_ms = st.now_ns // 1_000_000
    if st.pending & SNAPSHOT_PENDING != 0:
        st.pending = 0
        n = snapshot_frame(st, instruments, symbol, buf)
    elif st.pending & TRADE_PENDING != 0:
        st.pending &= ~TRADE_PENDING
        n = trade_frame(instruments, symbol, event_ms, st.trade_id, st.trade_ticks, st.trade_lots, st.trade_side, buf)
    else:
        st.pending = 0
        n = bbo_frame(st, instruments, symbol, event_ms, st.bbo_id, buf)
    _look_ahead(state, glob, params)
    return n
