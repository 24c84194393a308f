"""The router fold: who reaches the venue, and that the venue's words end in one state however they arrive."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_world import ASK, BID, LOT, START_NS, S, limits, row

from trading.instruments import Instrument, instrument_table
from trading.jit import Recs
from trading.orders import routing
from trading.orders import table as orders
from trading.records import (
    ORDER_RECORD,
    REPORT_RECORD,
    ExecType,
    Kind,
    OrderStatus,
    OrderType,
    Purpose,
    Refusal,
    Side,
)
from trading.settings import Strategy

Q = LOT // 100
INSTRUMENTS = instrument_table([Instrument("BTCUSDT"), Instrument("ETHUSDT")])


class RouterWorld:
    """One router fold with its arrays; every call returns (wire, reports)."""

    def __init__(self, **changes: float) -> None:
        self.params = routing.make_params(Strategy(risk=limits(**changes)), INSTRUMENTS)
        self.glob = np.zeros(1, routing.ROUTE_GLOBAL)
        routing.init(self.glob, self.params, INSTRUMENTS)
        self.wire_out = np.zeros(routing.MAX_WIRE_OUT, ORDER_RECORD)
        self.reports_out = np.zeros(routing.MAX_REPORTS_OUT, REPORT_RECORD)
        self.arrays = routing.RouterArrays(self.glob, self.params, INSTRUMENTS, self.wire_out, self.reports_out)
        self.ts = START_NS

    def order(self, **fields: object) -> tuple[Recs, Recs]:
        """An approved post-only buy of Q unless said otherwise."""
        self.ts += 1
        base: dict[str, object] = {"ts_ns": self.ts, "kind": Kind.NEW, "order_id": 1, "side": Side.BUY, "qty_lots": Q}
        base |= {"order_type": OrderType.POST_ONLY, "price_ticks": BID, "purpose": Purpose.QUOTE, "approved": 1}
        base |= {"decision_ticks": (BID + ASK) / 2}
        rec = row(ORDER_RECORD, **(base | fields))
        n = routing.on_order(rec, 0, self.arrays)
        return self.wire_out[:n].copy(), self.reports_out[: self.glob[0]["n_reports"]].copy()

    def cancel(self, order_id: int, target: int, **fields: object) -> tuple[Recs, Recs]:
        """A cancel command."""
        return self.order(kind=Kind.CANCEL, order_id=order_id, target_order_id=target, **fields)

    def execution(self, exec_type: int, order_id: int = 1, **fields: object) -> Recs:
        """The venue speaks."""
        self.ts += 1
        base: dict[str, object] = {"ts_ns": self.ts, "kind": Kind.REPORT, "order_id": order_id, "side": Side.BUY}
        base |= {"exec_type": exec_type, "ts_exchange_ns": self.ts - 5}
        rec = row(REPORT_RECORD, **(base | fields))
        n = routing.on_execution(rec, 0, self.arrays)
        return self.reports_out[:n].copy()

    def fill(self, trade_id: int, lots: int, order_id: int = 1, **fields: object) -> Recs:
        """A fill at BID."""
        return self.execution(ExecType.FILL, order_id, **({"trade_id": trade_id, "last_lots": lots, "last_ticks": BID} | fields))

    def __getitem__(self, counter: str) -> int:
        return int(self.glob[0][counter])


# commands


def test_approved_order_reaches_the_wire_unchanged() -> None:
    """An approved order goes out with every word of the command but cause, stamps and sequence."""
    w = RouterWorld()
    wire, reports = w.order(price_ticks=BID - 3, symbol=1)
    assert len(wire) == 1 and len(reports) == 0
    o = wire[0]
    assert (o["kind"], o["order_id"], o["symbol"], o["price_ticks"], o["qty_lots"]) == (Kind.NEW, 1, 1, BID - 3, Q)
    assert (o["side"], o["order_type"], o["purpose"], o["approved"]) == (1, OrderType.POST_ONLY, Purpose.QUOTE, 1)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"approved": 0}, Refusal.NOT_POSITIVE),
        ({"approved": 0, "refusal": Refusal.HALTED}, Refusal.HALTED),
        ({"approved": 2}, Refusal.NOT_POSITIVE),
        ({"qty_lots": 0}, Refusal.NOT_POSITIVE),
        ({"qty_lots": -Q}, Refusal.NOT_POSITIVE),
        ({"price_ticks": 0}, Refusal.NOT_POSITIVE),
        ({"side": 0}, Refusal.NOT_POSITIVE),
        ({"symbol": 2}, Refusal.NOT_POSITIVE),
        ({"symbol": -1}, Refusal.NOT_POSITIVE),
        ({"order_type": OrderType.MARKET, "decision_ticks": float("nan")}, Refusal.NOT_POSITIVE),
        ({"qty_lots": Q + 1}, Refusal.STEP_MULTIPLE),
        ({"qty_lots": 9001 * LOT}, Refusal.MAX_QTY),
        ({"qty_lots": 2 * Q}, Refusal.MAX_NOTIONAL),
        ({"qty_lots": 2 * Q, "order_type": OrderType.MARKET, "price_ticks": 0}, Refusal.MAX_NOTIONAL),
        ({"qty_lots": 8000 * LOT, "price_ticks": 2**62}, Refusal.MAX_NOTIONAL),
    ],
)
def test_refused_at_the_wire(fields: dict[str, object], reason: Refusal) -> None:
    """What risk should have stopped is stopped here, alone for the one thing that is wrong, and answered with REJECT."""
    w = RouterWorld(max_order_notional=601.0)
    wire, reports = w.order(**fields)
    assert len(wire) == 0 and len(reports) == 1
    r = reports[0]
    assert (r["exec_type"], r["order_status"], r["refusal"], r["order_id"]) == (ExecType.REJECT, OrderStatus.REJECTED, reason, 1)
    assert len(w.order(order_id=2)[0]) == 1


def test_repeated_ids_are_dropped_without_a_word() -> None:
    """An id that was taken before, or is smaller than one that was, sends nothing: a REJECT would speak of the live order."""
    w = RouterWorld()
    w.order(order_id=5)
    for order_id in (5, 4, 0, -1):
        wire, reports = w.order(order_id=order_id)
        assert len(wire) == len(reports) == 0
    assert w["duplicate_count"] == 4 and w["n_live"] == 1


def test_message_rate_and_that_cancels_pass_it() -> None:
    """New orders stop when the budget is used up; cancels go on, and use it up further; time brings it back."""
    w = RouterWorld(max_orders_per_s=2)
    assert [len(w.order(order_id=k)[0]) for k in (1, 2, 3)] == [1, 1, 0]
    assert w.reports_out[0]["refusal"] == Refusal.MESSAGE_RATE
    assert [len(w.cancel(k, k - 9)[0]) for k in (10, 11)] == [1, 1]
    w.ts += S
    assert len(w.order(order_id=12)[0]) == 0
    w.ts += S
    assert len(w.order(order_id=13)[0]) == 1


def test_full_table() -> None:
    """With MAX_LIVE orders live, the next is refused and cancels still pass."""
    w = RouterWorld()
    for k in range(1, orders.MAX_LIVE + 1):
        assert len(w.order(order_id=k)[0]) == 1
    assert len(w.order(order_id=1000)[0]) == 0 and w.reports_out[0]["refusal"] == Refusal.ORDER_TABLE_FULL
    assert len(w.cancel(1001, 7)[0]) == 1


def test_cancel_of_a_live_order_goes_out() -> None:
    """A cancel goes to the venue, approved or not: it cannot add risk. The order is PENDING_CANCEL until the venue answers."""
    w = RouterWorld()
    w.order()
    wire, reports = w.cancel(2, 1, approved=0)
    assert (wire[0]["kind"], wire[0]["target_order_id"], len(reports)) == (Kind.CANCEL, 1, 0)
    report = w.execution(ExecType.CANCEL_REJECT)
    assert report[0]["order_status"] == OrderStatus.OPEN
    assert len(w.execution(ExecType.CANCEL_REJECT)) == 0  # the same answer again
    assert len(w.cancel(3, 1)[0]) == 1
    assert len(w.execution(ExecType.CANCEL_REJECT)) == 1  # the answer to the second


def test_cancel_of_a_final_order_is_answered_here() -> None:
    """A cancel for an order that is final sends nothing and comes back as CANCEL_REJECT with its status."""
    w = RouterWorld()
    w.order()
    w.fill(1, Q, cum_lots=Q)
    wire, reports = w.cancel(2, 1)
    assert len(wire) == 0
    r = reports[0]
    assert (r["exec_type"], r["order_id"], r["order_status"], r["cum_lots"]) == (ExecType.CANCEL_REJECT, 1, OrderStatus.FILLED, Q)
    assert r["purpose"] == Purpose.QUOTE and r["side"] == Side.BUY


def test_cancel_of_an_unknown_order_goes_to_the_venue() -> None:
    """Only the venue can say that an order is not there."""
    assert len(RouterWorld().cancel(2, 1)[0]) == 1


def test_other_kinds_are_ignored() -> None:
    """END, REFUSED and the like on the orders ring send nothing."""
    w = RouterWorld()
    for kind in (Kind.END, Kind.REFUSED, Kind.REPORT, 99):
        assert len(w.order(kind=kind)[0]) == 0
    assert w["last_order_id"] == 0


# executions


def test_reports_are_in_the_routers_own_words() -> None:
    """A report carries what the router knows of the order: purpose, side, decision, time sent, status, filled, left."""
    w = RouterWorld()
    w.order(side=Side.SELL, purpose=Purpose.EXIT_STOP, price_ticks=ASK)
    sent = w.ts
    w.execution(ExecType.ACK, venue_order_id=77, leaves_lots=Q)
    r = w.fill(9, 300, cum_lots=300, leaves_lots=Q - 300, fee_e8=-4, maker=1)[0]
    assert (r["side"], r["purpose"], r["price_ticks"], r["venue_order_id"]) == (Side.SELL, Purpose.EXIT_STOP, ASK, 77)
    assert (r["order_status"], r["cum_lots"], r["leaves_lots"]) == (OrderStatus.PARTIAL, 300, Q - 300)
    assert (r["last_lots"], r["last_ticks"], r["fee_e8"], r["maker"], r["trade_id"]) == (300, BID, -4, 1, 9)
    assert (r["ts_sent_ns"], r["ts_ns"], r["ts_exchange_ns"]) == (sent, w.ts, w.ts - 5)
    assert r["decision_ticks"] == (BID + ASK) / 2 and w["inconsistent_count"] == 0


def test_repeats_are_dropped() -> None:
    """An execution heard before is counted and goes no further."""
    w = RouterWorld()
    w.order()
    for _ in range(3):
        w.execution(ExecType.ACK, leaves_lots=Q)
        w.fill(9, 300, cum_lots=300, leaves_lots=Q - 300)
    assert w["repeat_count"] == 4 and w["fill_count"] == 1
    assert int(routing.outcome_words(w.glob)[0, 2]) == 300


def test_trade_ids_are_per_symbol() -> None:
    """The same trade id on another symbol is another trade."""
    w = RouterWorld()
    w.order(order_id=1, symbol=0)
    w.order(order_id=2, symbol=1)
    assert len(w.fill(9, 300, 1)) == len(w.fill(9, 300, 2, symbol=1)) == 1


def test_figures_that_do_not_fit_are_counted() -> None:
    """cum + leaves must make up the order; what does not is counted, and the fill still counts."""
    w = RouterWorld()
    w.order()
    w.fill(1, 300, cum_lots=300, leaves_lots=Q)
    w.fill(2, 300, cum_lots=2 * Q, leaves_lots=0)
    w.fill(3, 300, cum_lots=-1, leaves_lots=Q)
    assert w["inconsistent_count"] == 3 and int(routing.outcome_words(w.glob)[0, 2]) == 900


def test_fill_after_cancel_and_of_unknown_orders() -> None:
    """A fill after the cancel, or of an order nobody knows, is passed on; other words about unknown orders are dropped."""
    w = RouterWorld()
    w.order()
    w.execution(ExecType.CANCELED)
    r = w.fill(1, 300, cum_lots=300)[0]
    assert (r["order_status"], r["cum_lots"], r["leaves_lots"]) == (OrderStatus.CANCELED, 300, 0)
    assert len(w.fill(2, 100, order_id=99)) == 1 and len(w.execution(ExecType.CANCELED, order_id=99)) == 0
    assert w["unknown_count"] == 2


def test_unknown_execution_types() -> None:
    """A type from the future counts as a fill if it carries a trade, else it is dropped; positions cannot drift by it."""
    w = RouterWorld()
    w.order()
    assert len(w.execution(42)) == 0
    r = w.execution(42, trade_id=5, last_lots=300, last_ticks=BID)
    assert r[0]["exec_type"] == ExecType.FILL
    assert len(w.execution(ExecType.FILL, trade_id=5, last_lots=300, last_ticks=BID)) == 0
    for bad in ({"last_lots": 0}, {"last_lots": -5}, {"last_ticks": 0}, {"trade_id": 0}, {"symbol": 9}, {"symbol": -2}):
        good = {"trade_id": 6, "last_lots": 1, "last_ticks": BID}
        assert len(w.execution(ExecType.FILL, **(good | bad))) == 0
    assert int(routing.outcome_words(w.glob)[0, 2]) == 300


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, int]]:
    """Executions of three orders, contradictory ones included; a fill's quantity belongs to its trade id."""
    events: list[dict[str, int]] = []
    trade_id = 0
    for order_id in (1, 2, 3):
        words = draw(st.lists(st.sampled_from([e for e in ExecType if e not in (ExecType.NONE, ExecType.FILL)]), max_size=4))
        events += [{"order_id": order_id, "exec_type": int(w), "venue_order_id": 70 + order_id} for w in words]
        for lots in draw(st.lists(st.integers(1, Q), max_size=4)):
            trade_id += 1
            events.append({"order_id": order_id, "exec_type": 3, "trade_id": trade_id, "last_lots": lots, "last_ticks": BID})
            events[-1]["cum_lots"] = draw(st.integers(0, 2 * Q))
    return events


@settings(max_examples=150, deadline=None)
@given(histories(), st.sets(st.integers(1, 3)), st.randoms(use_true_random=False))
def test_any_order_and_repetition_ends_in_the_same_state(
    events: list[dict[str, int]], cancels: set[int], rng: random.Random
) -> None:
    """Any permutation and any repetition of the same executions ends in the same orders, and passes on the same fills."""
    ends, fills_passed = set(), set()
    for turn in range(4):
        w = RouterWorld()
        for order_id in (1, 2, 3):
            w.order(order_id=order_id)
        for k, order_id in enumerate(sorted(cancels)):
            w.cancel(10 + k, order_id)
        stream = list(events)
        if turn:
            stream += rng.choices(events, k=len(events)) if events else []
            rng.shuffle(stream)
        passed = [int(r["trade_id"]) for e in stream for r in w.execution(**e) if r["exec_type"] == ExecType.FILL]
        assert len(set(passed)) == len(passed)
        fills_passed.add(tuple(sorted(passed)))
        ends.add(routing.outcome_words(w.glob).tobytes())
    assert len(ends) == len(fills_passed) == 1


def test_too_many_instruments() -> None:
    """More symbols than a router serves is an error that says so."""
    many = np.zeros(routing.MAX_SYMBOLS + 1, INSTRUMENTS.dtype)
    with pytest.raises(ValueError, match="65 instruments"):
        routing.make_params(Strategy(), many)


def test_a_copy_of_the_state_is_a_checkpoint() -> None:
    """From a copied state the same records give the same wire, reports and state."""
    rng = np.random.default_rng(2)
    a, b = RouterWorld(), RouterWorld()
    for k in range(1, 400):
        if k == 200:
            b.glob[:] = np.frombuffer(a.glob.tobytes(), a.glob.dtype)
            b.ts = a.ts
        worlds = [a] if k < 200 else [a, b]
        kind, target, lots = rng.integers(4), int(rng.integers(1, k + 1)), int(rng.integers(1, Q))
        outs = []
        for w in worlds:
            if kind == 0:
                outs.append(b"".join(x.tobytes() for x in w.order(order_id=k)))
            elif kind == 1:
                outs.append(b"".join(x.tobytes() for x in w.cancel(k, target)))
            elif kind == 2:
                outs.append(w.fill(k, lots, target).tobytes())
            else:
                outs.append(w.execution(1 + lots % 6, target, trade_id=k, last_lots=lots, last_ticks=BID).tobytes())
        assert len(set(outs)) == 1
    assert a.glob.tobytes() == b.glob.tobytes()
