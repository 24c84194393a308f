"""The risk fold: entries, exits, quotes, halt, the end of a session, and what must hold under any stream of records."""

from __future__ import annotations

import numpy as np
import pytest
from risk_world import ASK, BID, LOT, MS, UNBOUNDED, RiskWorld, S, limits

from trading.records import (
    ORDER_RECORD,
    ExecType,
    Kind,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from trading.risk import fold as risk
from trading.risk import positions
from trading.settings import Execution, Risk, Strategy

Q = LOT // 100


def world(risk_section: Risk = UNBOUNDED, **execution: float) -> RiskWorld:
    """A world with a book in both symbols."""
    w = RiskWorld(Strategy(risk=risk_section, execution=Execution(**({"entry_cooldown_ms": 0} | execution))))
    w.market(0)
    w.market(1)
    return w


def opened(w: RiskWorld, side: Side = Side.BUY) -> np.void:
    """An entry by MARKET, filled whole at the touch."""
    order = w.signal(side, urgency=90.0)[0]
    w.fill(order)
    assert int(w.state[0]["leg_lots"]) == int(side) * int(order["qty_lots"])
    return order


# entries


@pytest.mark.parametrize(
    ("urgency", "order_type", "price", "tif"),
    [
        (80.0, OrderType.MARKET, 0, TimeInForce.IOC),
        (79.9, OrderType.LIMIT, BID, TimeInForce.GTC),
        (40.0, OrderType.LIMIT, BID, TimeInForce.GTC),
        (39.9, OrderType.POST_ONLY, BID, TimeInForce.GTC),
    ],
)
def test_order_type_by_urgency(urgency: float, order_type: OrderType, price: int, tif: TimeInForce) -> None:
    """MARKET from market_urgency_threshold up, POST_ONLY under post_only_below, LIMIT at the own touch between."""
    o = world().signal(urgency=urgency)[0]
    assert (o["kind"], o["order_type"], o["price_ticks"], o["time_in_force"]) == (Kind.NEW, order_type, price, tif)
    assert (o["purpose"], o["side"], o["decision_ticks"], o["order_id"]) == (Purpose.ENTRY, Side.BUY, (BID + ASK) / 2, 1)


def test_size_is_a_fixed_fraction_of_equity_at_the_stop() -> None:
    """0.8% of 100,000 at risk, a stop 1.5 ATR of 400.00 away: 800 / 600 = 1.33333 coins, rounded down to the step."""
    w = world(limits(equity=100_000.0, base_risk_pct=0.8))
    assert int(w.signal(atr=40_000.0)[0]["qty_lots"]) == 133_333_000


def test_size_never_divides_by_a_small_atr() -> None:
    """With an ATR of nothing the stop stands min_stop_bps away: 80 / (60,000.05 * 5 bps) = 2.66666 coins."""
    w = world(limits(equity=100_000.0, base_risk_pct=0.08))
    assert int(w.signal(atr=0.0)[0]["qty_lots"]) == 266_666_000


def test_size_is_cut_to_order_and_position_limits() -> None:
    """The smaller of one order's limit and the room in the position limit, open orders counted."""
    w = world(limits(equity=1e6, base_risk_pct=10.0, max_order_notional=1_200.0, max_position_notional=1_800.0))
    w.quote(BID, 0, lots=2 * Q)  # 1,200 may still be bought
    assert int(w.signal()[0]["qty_lots"]) == Q - 1000  # room: 1,800 / 60,000.05 = 0.02999 (rounded), less 0.02


def test_one_leg_at_a_time() -> None:
    """No second entry while one is pending or open, none within the cooldown after a decision or a closed leg."""
    w = world(entry_cooldown_ms=100)
    order = w.signal(urgency=90.0)[0]
    assert len(w.after(S).signal()) == 0
    w.fill(order)
    assert len(w.after(S).signal()) == 0
    exit_order = w.market(bid=BID - 10_000, ask=ASK - 10_000)[-1]
    assert exit_order["purpose"] == Purpose.EXIT_STOP
    w.fill(exit_order)
    assert len(w.after(99 * MS).signal()) == 0
    assert len(w.after(1 * MS).signal()) == 1


def test_gated_or_sideless_signals_open_nothing() -> None:
    """A signal that a gate held back, or that asks for no side, or in a symbol that takes none, is not even refused."""
    w = world()
    assert len(w.signal(Side.NONE)) == len(w.signal(gate=3)) == 0
    w.instruments[0]["take_signals"] = 0
    assert len(w.signal()) == 0 and w.reasons == []


def test_unfilled_entry_is_cancelled_when_old() -> None:
    """An entry older than order_max_age_ms is cancelled once; its rest is free for a new one when the cancel is confirmed."""
    w = world(order_max_age_ms=3000)
    entry = w.signal(urgency=50.0)[0]
    assert len(w.after(2_999 * MS).market()) == 0
    out = w.after(1 * MS).market()
    assert list(out["kind"]) == [Kind.CANCEL] and out[0]["target_order_id"] == entry["order_id"]
    assert len(w.after(S).market()) == 0
    assert len(w.signal()) == 0
    w.report(entry, ExecType.CANCELED)
    assert len(w.signal()) == 1


# exits


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_initial_stop(side: Side) -> None:
    """The stop stands 1.5 ATR from the average entry and is compared with the mid; the exit is a MARKET order for the leg."""
    w = world(limits(base_risk_pct=0.00005))
    order = opened(w, side)
    stop = (ASK - 6_000) if side > 0 else (BID + 6_000)
    assert int(w.state[0]["stop_ticks"]) == stop
    half = (ASK - BID) // 2
    assert len(w.market(bid=stop + int(side) - half, ask=stop + int(side) + half)) == 0
    out = w.market(bid=stop - half, ask=stop + half)
    assert len(out) == 1
    o = out[0]
    assert (o["kind"], o["order_type"], o["purpose"], o["side"]) == (Kind.NEW, OrderType.MARKET, Purpose.EXIT_STOP, -side)
    assert o["qty_lots"] == order["qty_lots"]


def test_time_exit() -> None:
    """A leg is closed after max_hold_minutes."""
    w = world(max_hold_minutes=1.0)
    opened(w)
    filled_at = int(w.state[0]["leg_opened_ns"])
    w.ts = filled_at + 60 * S - 2
    assert len(w.market()) == 0
    assert [int(p) for p in w.market()["purpose"]] == [Purpose.EXIT_TIME]


def test_a_stop_is_not_taken_back() -> None:
    """A stop that was hit but could not be sent (no budget) is sent later, though the price has returned."""
    w = world()
    opened(w)
    w.glob["budget_ns"] = -(10**9)
    assert len(w.market(bid=BID - 10_000, ask=ASK - 10_000)) == 0
    assert len(w.after(100 * MS).market()) == 0  # not tried again at every record
    assert [int(p) for p in w.after(2 * S).market()["purpose"]] == [Purpose.EXIT_STOP]


def test_exit_closes_the_leg_only_and_clears_its_way() -> None:
    """An exit cancels the symbol's quotes, waits for those in its way, sells the leg and leaves the quote inventory."""
    w = world()
    w.hold(Q)  # quote inventory
    leg = int(opened(w)["qty_lots"])
    w.market(lots=1000)
    w.quote(BID, ASK + 50)
    out = w.market(bid=BID - 10_000, ask=ASK - 10_000, lots=1000)
    assert list(out["kind"]) == [Kind.CANCEL, Kind.CANCEL]  # our bid would meet the exit
    assert len(w.quote(BID - 20_000, ASK)) == 0 and w.reasons == []  # not quoted meanwhile
    assert len(w.market(bid=BID - 10_000, ask=ASK - 10_000, lots=1000)) == 0
    for out_row in out:
        quote = w.order_row(int(out_row["target_order_id"]))
        assert quote is not None
        w.report(quote, ExecType.CANCELED)
    sent = w.market(bid=BID - 10_000, ask=ASK - 10_000, lots=1000)
    assert [int(q) for q in sent["qty_lots"]] == [leg]
    w.fill(sent[0])
    assert int(w.state[0]["leg_lots"]) == 0 and int(w.state[0]["position_lots"]) == Q
    assert len(w.quote(BID - 10_010, ASK)) == 2


def test_exit_never_turns_the_position_over() -> None:
    """What quotes have already sold of a leg is netted, not sold again; a leg wholly sold ends with no order."""
    w = world()
    leg = int(opened(w)["qty_lots"])
    w.hold(-(leg - Q))
    out = w.market(bid=BID - 10_000, ask=ASK - 10_000)
    assert [int(q) for q in out["qty_lots"]] == [Q]
    w = world()
    leg = int(opened(w)["qty_lots"])
    w.hold(-2 * leg)
    assert len(w.market(bid=BID - 10_000, ask=ASK - 10_000)) == 0
    assert int(w.state[0]["leg_lots"]) == 0 and int(w.state[0]["position_lots"]) == -leg


def test_large_exit_goes_in_parts_and_leaves_dust() -> None:
    """An exit is cut to the largest order allowed and repeated; a rest under the venue's minimum ends as inventory."""
    w = world()
    entry = w.signal(urgency=90.0)[0]
    w.fill(entry, lots=2 * Q + 5)
    w.report(entry, ExecType.EXPIRED)
    w.params[0]["max_order_e8"] = 5_991 * 10**7  # 599.10: one Q at the price of the exit
    sizes = []
    for _ in range(4):
        out = w.after(risk.EXIT_RETRY_NS).market(bid=BID - 10_000, ask=ASK - 10_000)
        for o in out:
            sizes.append(int(o["qty_lots"]))
            w.fill(o, price=BID - 10_000)
    assert sizes == [Q, Q] and int(w.glob[0]["dust_count"]) == 1
    assert int(w.state[0]["leg_lots"]) == 0 and int(w.state[0]["position_lots"]) == 5


def test_exits_pass_the_loss_limits() -> None:
    """A breached loss limit refuses entries, never the way out."""
    w = world(limits(equity=100_000.0, base_risk_pct=8.0, max_daily_loss_pct=1.0))
    opened(w)
    out = w.market(bid=BID - 100_000, ask=ASK - 100_000)
    assert len(out) == 0 and w.glob[0]["halted"] == 1
    w.control(Kind.RESUME)
    assert [int(p) for p in w.market(bid=BID - 100_000, ask=ASK - 100_000)["purpose"]] == [Purpose.EXIT_STOP]
    assert w.glob[0]["day_breached"] == 1


# quotes


def test_quote_diff() -> None:
    """Only what differs is touched; a partial fill keeps its place while at least half of the target is left."""
    w = world()
    bid, ask = w.quote(BID, ASK, lots=4 * Q)
    assert len(w.quote(BID, ASK, lots=4 * Q)) == 0
    w.fill(bid, lots=2 * Q)
    assert len(w.quote(BID, ASK, lots=4 * Q)) == 0
    w.fill(bid, lots=Q)
    out = w.quote(BID, ASK, lots=4 * Q)
    assert [(int(o["kind"]), int(o["side"])) for o in out] == [(Kind.CANCEL, Side.BUY), (Kind.NEW, Side.BUY)]
    out = w.quote(BID, ASK + 10, lots=4 * Q)
    assert [(int(o["kind"]), int(o["side"])) for o in out] == [(Kind.CANCEL, Side.SELL), (Kind.NEW, Side.SELL)]
    assert out[0]["target_order_id"] == ask["order_id"] and out[1]["order_type"] == OrderType.POST_ONLY
    assert len(w.quote(0, 0)) == 2


def test_quote_goes_again_after_its_end() -> None:
    """A side that filled or was rejected is put back by the next target, not by the report of its end."""
    w = world()
    bid, ask = w.quote(BID, ASK)
    assert len(w.fill(bid)) == 0 and len(w.report(ask, ExecType.REJECT)) == 0
    assert len(w.quote(BID, ASK)) == 2


def test_refused_cancel_is_sent_again() -> None:
    """A quote whose cancel the venue refused, and that is no longer wanted, is cancelled again after a while."""
    w = world()
    bid = w.quote(BID, 0)[0]
    assert len(w.quote(0, 0)) == 1
    w.report(bid, ExecType.CANCEL_REJECT)
    out = w.after(risk.SWEEP_NS).market()
    assert list(out["kind"]) == [Kind.CANCEL] and out[0]["target_order_id"] == bid["order_id"]


def test_symbol_without_market_making() -> None:
    """A symbol that is not to be quoted ignores targets."""
    w = world()
    w.instruments[0]["make_market"] = 0
    assert len(w.quote(BID, ASK)) == 0


# fills, halt, end


def test_repeated_fill_changes_nothing() -> None:
    """The same fill told twice, thrice or late: the state is that of once, but for the count of repeats."""
    w = world()
    bid = w.quote(BID, 0)[0]
    w.fill(bid, lots=1000)
    w.glob["repeat_count"] = 0
    before = (w.state.tobytes(), w.glob.tobytes())
    w.report(bid, ExecType.FILL, trade_id=w.trade_id, last_lots=1000, last_ticks=BID, cum_lots=1000)
    w.glob["repeat_count"] = 0
    assert (w.state.tobytes(), w.glob.tobytes()) == before


def test_fill_of_an_unknown_order_counts() -> None:
    """A fill moves the position though its order is in no table: the money has moved."""
    w = world()
    w.hold(-Q, price=ASK)
    assert int(w.state[0]["position_lots"]) == -Q and int(w.glob[0]["foreign_count"]) == 1


def test_impossible_reports_change_nothing() -> None:
    """Reports of no known symbol, fills without quantity, price, side or trade id are counted and dropped."""
    w = world()
    bid = w.quote(BID, 0)[0]
    before = w.state.tobytes()
    good = {"trade_id": 5, "last_lots": 10, "last_ticks": BID}
    for bad in (
        {"symbol": 9},
        {"symbol": -1},
        {"last_lots": 0},
        {"last_lots": -4},
        {"last_ticks": 0},
        {"side": 0},
        {"trade_id": 0},
    ):
        assert len(w.report(bid, ExecType.FILL, **(good | bad))) == 0
    w.report(bid, 99)  # type: ignore[arg-type]
    assert w.state.tobytes() == before


def test_halt_cancels_everything_at_once() -> None:
    """HALT cancels every live order of every symbol in one call; what the venue refuses to cancel is cancelled again."""
    w = world()
    w.quote(BID, ASK)
    w.quote(BID, ASK, s=1)
    entry = w.signal(s=1)[0]
    out = w.control(Kind.HALT, 5)
    assert sorted(int(t) for t in out["target_order_id"]) == [1, 2, 3, 4, 5] and (out["kind"] == Kind.CANCEL).all()
    assert len(w.control(Kind.HALT, 6)) == 0 and int(w.glob[0]["halt_reason"]) == 5
    w.report(entry, ExecType.CANCEL_REJECT)
    assert [int(t) for t in w.after(risk.SWEEP_NS).market()["target_order_id"]] == [5]


def test_breach_cancels_everything_at_once() -> None:
    """The record that breaches a loss limit carries the cancels of every live order."""
    w = world(limits(equity=100_000.0, max_drawdown_pct=1.0))
    w.quote(BID, ASK, s=1)
    w.hold(LOT)
    out = w.market(bid=BID - 200_000, ask=ASK - 200_000)
    assert (out["kind"] == Kind.CANCEL).all() and len(out) == 2


def test_session_end_leaves_no_order_uncancelled() -> None:
    """END cancels every order without a cancel on its way; afterwards nothing is sent, whatever comes, and fills still count."""
    w = world()
    bid, ask = w.quote(BID, ASK)
    w.quote(BID - 5, ASK)  # the first bid's cancel is on its way
    out = w.end()
    assert sorted(int(t) for t in out["target_order_id"]) == [int(ask["order_id"]), 4]
    statuses = w.glob[0]["orders"]["status"][w.glob[0]["live"][: w.glob[0]["n_live"]]]
    assert (statuses == OrderStatus.PENDING_CANCEL).all()
    sent = [w.end(), w.quote(BID, ASK), w.signal(), w.market(), w.control(Kind.HALT), w.control(Kind.RESUME)]
    sent += [w.fill(bid), w.report(ask, ExecType.CANCEL_REJECT), w.after(10 * S).market(flags=0), w.market()]
    assert [len(o) for o in sent] == [0] * len(sent)
    assert int(w.state[0]["position_lots"]) == int(bid["qty_lots"])


def test_records_of_other_kinds_and_symbols_are_ignored() -> None:
    """END, unknown kinds and unknown symbols on the market ring change nothing."""
    w = world()
    w.glob["n_orders"] = w.glob["n_refusals"] = 0
    before = (w.state.tobytes(), w.glob.tobytes())
    for fields in ({"kind": Kind.END}, {"kind": Kind.QUOTE}, {"symbol": 7}, {"symbol": -1}):
        assert len(w.market(**fields)) == 0
    assert (w.state.tobytes(), w.glob.tobytes()) == before


def test_outputs_leave_cause_and_stamps_alone() -> None:
    """The kernel sets every identity field but cause, and neither stamps nor sequence: those are the stage's."""
    w = world()
    for name in ORDER_RECORD.names or ():
        w.orders_out[name] = -7 if name != "decision_ticks" else -7.0
    o = w.quote(BID, 0)[0]
    left = {name for name in ORDER_RECORD.names or () if np.all(o[name] == -7)}
    assert left == {"cause_seq", "cause_ring", "ts_origin_mono_ns", "ts_publish_mono_ns", "spare", "seq"}


# layout


def test_state_is_eight_byte_words() -> None:
    """State records hold only 8-byte fields: a copy by words is a copy."""
    for dtype in (risk.RISK_STATE, risk.RISK_GLOBAL, risk.RISK_PARAMS):

        def leaves(d: np.dtype) -> list[np.dtype]:
            if d.subdtype:
                return leaves(d.subdtype[0])
            return [x for name in d.names for x in leaves(d.fields[name][0])] if d.names and d.fields else [d]

        assert {x.str for x in leaves(dtype)} <= {"<i8", "<f8"}


def test_average_entry_for_people() -> None:
    """The average entry of a leg is its fill price."""
    w = world()
    opened(w)
    assert positions.average_entry_ticks(w.state, 0, w.instruments) == ASK
