"""The order table and its state machine, as tables of event histories."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.orders import table as orders
from trading.orders.table import Event
from trading.records import ORDER_RECORD, OrderStatus, OrderType, Purpose, Side

TABLE = np.dtype([*orders.TABLE_FIELDS], align=True)
QTY = 10
A, R, F, C, X, E, S, L = (
    Event.ACK,
    Event.REJECT,
    Event.FILL_PART,
    Event.CANCELED,
    Event.CANCEL_REJECT,
    Event.EXPIRED,
    Event.CANCEL_SENT,
    Event.LOST,
)
O = OrderStatus


def table() -> np.ndarray:
    """An empty table."""
    return np.zeros(1, TABLE)


def put(glob: np.ndarray, order_id: int) -> int:
    """Insert an order of QTY lots; its row."""
    command = np.zeros(1, ORDER_RECORD)
    command["order_id"], command["qty_lots"], command["price_ticks"] = order_id, QTY, 100
    command["side"], command["purpose"], command["order_type"] = Side.BUY, Purpose.ENTRY, OrderType.LIMIT
    return int(orders.insert(glob, command[0]))


def play(glob: np.ndarray, slot: int, history: list[tuple[Event, int]]) -> None:
    """Apply events, each with the lots that it fills."""
    for event, lots in history:
        orders.step(glob, slot, int(event), lots, 0)


HISTORIES = [
    # name, events (a fill's lots after it), status, illegal, reserved lots
    ("sent", [], O.PENDING_NEW, 0, 10),
    ("acknowledged", [A], O.OPEN, 0, 10),
    ("rejected", [R], O.REJECTED, 0, 0),
    ("filled at once", [A, F, 10], O.FILLED, 0, 0),
    ("filled in parts", [A, F, 4, F, 6], O.FILLED, 0, 0),
    ("partly filled", [A, F, 4], O.PARTIAL, 0, 6),
    ("fill overtakes ack", [F, 4, A], O.PARTIAL, 0, 6),
    ("cancelled", [A, S, C], O.CANCELED, 0, 0),
    ("cancelled before the ack", [S, A, C], O.CANCELED, 0, 0),
    ("fills while the cancel travels", [A, S, F, 4, C], O.CANCELED, 0, 0),
    ("filled while the cancel travels", [A, S, F, 10, X], O.FILLED, 0, 0),
    ("fill after cancel", [A, S, C, F, 4], O.CANCELED, 0, 0),
    ("last fill after cancel", [A, F, 6, S, C, F, 4], O.FILLED, 0, 0),
    ("cancel refused", [A, S, X], O.OPEN, 0, 10),
    ("cancel refused, partly filled", [A, F, 1, S, X], O.PARTIAL, 0, 9),
    ("expired", [A, E], O.EXPIRED, 0, 0),
    ("rest of an IOC expires", [F, 4, E], O.EXPIRED, 0, 0),
    ("lost", [L], O.UNKNOWN, 0, 10),
    ("not found is not final", [L, S, X], O.UNKNOWN, 0, 10),
    ("lost, then found open", [L, A], O.OPEN, 0, 10),
    ("lost, then found rejected", [L, R], O.REJECTED, 0, 0),
    ("lost, then trades", [L, F, 4], O.PARTIAL, 0, 6),
    ("reject after ack", [A, R], O.REJECTED, 1, 0),
    ("fill of a rejected order", [R, F, 4], O.REJECTED, 1, 0),
    ("a cancel's refusal that nobody asked for", [A, X], O.OPEN, 1, 10),
    ("more than was ordered", [A, F, 10, F, 5], O.FILLED, 1, 0),
    ("everything repeated", [A, A, F, 4, S, S, C, C, A], O.CANCELED, 0, 0),
    ("no such event", [Event.NONE], O.PENDING_NEW, 1, 10),
]


def parse(events: list) -> list[tuple[Event, int]]:
    """[A, F, 4] -> [(A, 0), (F, 4)]."""
    out: list[tuple[Event, int]] = []
    for word in events:
        if isinstance(word, Event):
            out.append((word, 0))
        else:
            out[-1] = (out[-1][0], word)
    return out


@pytest.mark.parametrize(("events", "status", "illegal", "reserved"), [h[1:] for h in HISTORIES], ids=[h[0] for h in HISTORIES])
def test_history(events: list, status: OrderStatus, illegal: int, reserved: int) -> None:
    """Each history of events ends in the status, the count of impossible events and the reserve that the table says."""
    glob = table()
    slot = put(glob, 7)
    play(glob, slot, parse(events))
    assert OrderStatus(int(glob[0]["orders"][slot]["status"])) == status
    assert int(glob[0]["n_illegal"]) == illegal
    assert orders.reserved_lots(glob, slot) == reserved
    assert int(glob[0]["n_live"]) == int(orders.is_live(glob, slot))


def test_the_table_is_what_it_says() -> None:
    """Every cell of the written table, as numbers: rows are statuses, columns events, 100 more where no sane venue goes."""
    assert orders.TRANSITIONS.tolist() == [
        [100, 100, 100, 100, 100, 100, 100, 100, 100, 100],
        [101, 2, 7, 3, 6, 101, 8, 5, 4, 9],
        [102, 2, 107, 3, 6, 102, 8, 5, 4, 9],
        [103, 3, 107, 3, 6, 103, 8, 5, 4, 9],
        [104, 4, 7, 4, 6, 2, 8, 5, 4, 9],
        [105, 5, 105, 105, 5, 5, 5, 105, 5, 5],
        [106, 6, 106, 6, 6, 6, 106, 5, 6, 6],
        [107, 107, 7, 107, 106, 7, 108, 105, 7, 7],
        [108, 8, 108, 8, 106, 8, 8, 5, 8, 8],
        [109, 2, 7, 3, 6, 9, 8, 5, 9, 9],
    ]


def test_every_cell_is_defined() -> None:
    """Every status takes every event to some status: no input can leave the table, not even an impossible one."""
    for status, event in itertools.product(OrderStatus, Event):
        assert OrderStatus(int(orders.TRANSITIONS[status, event]) % orders.ILLEGAL) in OrderStatus


def test_final_never_becomes_live() -> None:
    """No event brings a final order back to life."""
    live = {O.PENDING_NEW, O.OPEN, O.PARTIAL, O.PENDING_CANCEL, O.UNKNOWN}
    for status, event in itertools.product(set(OrderStatus) - live - {O.NONE}, Event):
        assert OrderStatus(int(orders.TRANSITIONS[status, event]) % orders.ILLEGAL) not in live


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([(A, 0), (R, 0), (C, 0), (X, 0), (E, 0)]), max_size=4, unique=True),
    st.lists(st.integers(1, 6), max_size=3),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_order_of_events_does_not_matter(words: list, parts: list[int], cancel: bool, rng: random.Random) -> None:
    """Any permutation of the venue's events, even contradictory ones, ends in the same row."""
    events = [*words, *((F, lots) for lots in parts)]
    ends = set()
    for _ in range(4):
        glob = table()
        slot = put(glob, 7)
        if cancel:
            play(glob, slot, [(S, 0)])
        # fills are a set already (trading.orders.fills); all else may be repeated
        play(glob, slot, events + [e for e in events if e[0] != F and rng.random() < 0.5])
        row = glob[0]["orders"][slot]
        ends.add(tuple(int(row[name]) for name in ("status", "cum_lots", "seen")))
        rng.shuffle(events)
    assert len(ends) == 1


def test_claimed_fills_stay_reserved() -> None:
    """A final order whose report claims more than the fills seen keeps the difference reserved until they arrive."""
    glob = table()
    slot = put(glob, 7)
    orders.step(glob, slot, int(C), 0, 4)
    assert orders.reserved_lots(glob, slot) == 4
    orders.step(glob, slot, int(F), 4, 4)
    assert orders.reserved_lots(glob, slot) == 0


def test_final_rows_are_reused_and_live_ones_never() -> None:
    """Through ten tables' worth of orders, every live order is found, and the list of the live is exactly theirs."""
    glob = table()
    rng = np.random.default_rng(5)
    live: set[int] = set()
    for order_id in range(1, 10 * orders.ORDER_ROWS):
        if len(live) < 40:
            assert put(glob, order_id) >= 0
            live.add(order_id)
        if len(live) == 40 or rng.random() < 0.4:
            ended = int(rng.choice(sorted(live)))
            orders.step(glob, orders.find(glob, ended), int(C), 0, 0)
            live.remove(ended)
    rows = glob[0]["live"][: glob[0]["n_live"]]
    assert {int(glob[0]["orders"][r]["order_id"]) for r in rows} == live
    assert all(orders.find(glob, order_id) >= 0 for order_id in live)
    assert orders.find(glob, 0) == orders.find(glob, -3) == orders.find(glob, 10**9) == -1


def test_full_table_takes_no_more() -> None:
    """MAX_LIVE live orders fit; the next is refused and nothing changes."""
    glob = table()
    for order_id in range(1, orders.MAX_LIVE + 1):
        assert put(glob, order_id) >= 0
    before = glob.tobytes()
    assert put(glob, 10_000) == -1
    assert glob.tobytes() == before
