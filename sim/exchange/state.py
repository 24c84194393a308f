"""What the simulated exchange remembers: dtypes, parameters, start state. All of it is plain data.

An order at the venue is one record (VENUE_ORDER), in a slot of its own and in one doubly linked list a symbol in the order of
arrival. Slot SCRATCH holds the order that is being looked at before it has a slot of its own. Messages under way (MESSAGE)
stand in a FIFO.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from sim.exchange.latency import bounds_ns
from sim.exchange.shown_book import VENUE_BOOK_FIELDS
from sim.rng import stream
from sim.settings import SimulatedExchange
from trading.books.book import clear
from trading.jit import Recs, kernel

MAX_ORDERS: Final = 512
MAX_PENDING: Final = 1024
MAX_WALK: Final = 32
"""Levels that one taking order reaches; what is left then finds no liquidity."""
ROOM: Final = MAX_WALK + 4
"""Reports that one arriving message can cause."""
OUT_ROWS: Final = 2048
"""Rows of the `out` array that every kernel of the exchange wants."""
SCRATCH: Final = MAX_ORDERS
assert MAX_PENDING & (MAX_PENDING - 1) == 0
NONE: Final = -1

EXCH_STATE: Final = np.dtype(
    [
        *VENUE_BOOK_FIELDS,
        ("book_ok", "i8"),  # a whole snapshot has come, and no STALE since
        ("building", "i8"),  # levels of a snapshot are coming
        ("market_stale", "i8"),  # the market ring says that the book is not to be used
        ("first", "i8"),  # resting orders, by arrival; NONE: no order
        ("last", "i8"),
        ("trade_id", "i8"),
        ("print_key", "i8", 2),  # by side: where prints were last believed to be made; 0 or NO_KEY: not known
    ],
    align=True,
)

_ASKED: Final = (
    ("sent_ns", "i8"),
    ("symbol", "i8"),
    ("order_id", "i8"),  # CANCEL: the target
    ("side", "i8"),
    ("order_type", "i8"),
    ("time_in_force", "i8"),
    ("purpose", "i8"),
    ("price_ticks", "i8"),
    ("qty_lots", "i8"),
    ("decision_ticks", "f8"),
)

MESSAGE: Final = np.dtype([("arrival_ns", "i8"), ("kind", "i8"), *_ASKED], align=True)
"""A command on its way to the venue."""

VENUE_ORDER: Final = np.dtype(
    [
        *_ASKED,
        ("venue_order_id", "i8"),
        ("key", "i8"),  # of the price, on its own side
        ("cum_lots", "i8"),
        ("ahead", "i8"),  # queue model: lots ahead ...
        ("level", "i8"),  # ... the level's quantity when last seen
        ("printed", "i8"),  # ... prints since then
        ("unexplained", "i8"),  # ... the last decrease without a print
        ("moved", "i8"),  # ... by how much it moved us
        ("unexplained_ns", "i8"),
        ("next", "i8"),
        ("previous", "i8"),
    ],
    align=True,
)
"""An order at the venue."""

EXCH_GLOBAL: Final = np.dtype(
    [
        ("n_out", "i8"),  # reports written in this call
        ("now_ns", "i8"),  # venue time: of the last event
        ("last_arrival_ns", "i8"),
        ("last_visible_ns", "i8"),
        ("orders_received", "i8"),  # message numbers: counters of the latency draws
        ("reports_sent", "i8"),
        ("venue_order_id", "i8"),
        ("ended", "i8"),  # END_* bits
        ("end_ns", "i8"),  # when the market ended
        ("closed", "i8"),
        ("n_resting", "i8"),
        ("prints_off_book", "i8"),  # prints that filled nothing because they were far from the book
        ("reports_lost", "i8"),  # `out` was smaller than OUT_ROWS: a mistake of the caller
        ("free", "i8", MAX_ORDERS),
        ("n_free", "i8"),
        ("orders", VENUE_ORDER, MAX_ORDERS + 1),  # the last is SCRATCH
        ("head", "i8"),  # of the messages under way; free-running
        ("tail", "i8"),
        ("pending", MESSAGE, MAX_PENDING + 1),  # the last holds one that finds no room
    ],
    align=True,
)

EXCH_PARAMS: Final = np.dtype(
    [
        ("entry_seed", "i8"),
        ("response_seed", "i8"),
        ("entry_min_ns", "i8"),
        ("entry_max_ns", "i8"),
        ("response_min_ns", "i8"),
        ("response_max_ns", "i8"),
        ("queue_power", "f8"),
        ("taker_share", "f8"),
    ],
    align=True,
)


class ExchangeArrays(NamedTuple):
    """What every kernel of the exchange takes: arrays of records, handed on together."""

    state: Recs  # EXCH_STATE, shape (n_symbols,)
    glob: Recs  # EXCH_GLOBAL, (1,)
    params: Recs  # EXCH_PARAMS, (1,)
    instruments: Recs  # INSTRUMENT, (n_symbols,)
    out: Recs  # REPORT_RECORD, (OUT_ROWS,)


def make_params(settings: SimulatedExchange, instruments: Recs) -> Recs:
    """EXCH_PARAMS, shape (1,). Raises ValueError for latency bounds the wrong way round, or for no instrument."""
    if len(instruments) == 0:
        raise ValueError("the simulated exchange needs an instrument; add a symbol")
    params = np.zeros(1, EXCH_PARAMS)
    row = params[0]
    row["entry_seed"], row["response_seed"] = stream(settings.seed, 1), stream(settings.seed, 2)
    row["entry_min_ns"], row["entry_max_ns"], row["response_min_ns"], row["response_max_ns"] = bounds_ns(settings.latency)
    row["queue_power"], row["taker_share"] = settings.queue_power, settings.taker_depth_share
    return params


def min_entry_ns(params: Recs) -> int:
    """No order arrives sooner than this after it was sent."""
    return int(params[0]["entry_min_ns"])


def min_response_ns(params: Recs) -> int:
    """No report is visible sooner than this after its event: from an event at t, reports have ts_ns >= t + this."""
    return int(params[0]["response_min_ns"])


@kernel
def init(state: Recs, glob: Recs, params: Recs, instruments: Recs) -> None:
    """Put zeroed state into its start: no book, no order, nothing under way."""
    for s in range(state.size):
        clear(state[s])
        state[s].first = NONE
        state[s].last = NONE
    for i in range(MAX_ORDERS):
        glob[0].free[i] = MAX_ORDERS - 1 - i
    glob[0].n_free = MAX_ORDERS
