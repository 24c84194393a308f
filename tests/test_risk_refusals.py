"""Every refusal has a case in which it alone decides: the same wish passes once that one thing is put right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from risk_world import ASK, BID, LOT, UNBOUNDED, RiskWorld, S, limits, row

from trading.orders import table as orders
from trading.records import ORDER_RECORD, ExecType, Flag, Kind, OrderType, Purpose, Refusal, Side
from trading.risk.limits import MAX_BOOK_AGE_NS
from trading.settings import Execution, Risk, Strategy

MARKET, LIMIT = 90.0, 50.0
Q = LOT // 100


def world(risk: Risk = UNBOUNDED, **execution: float) -> RiskWorld:
    """A world with a book in both symbols."""
    w = RiskWorld(Strategy(risk=risk, execution=Execution(**({"entry_cooldown_ms": 0} | execution))))
    w.market(0)
    w.market(1)
    return w


def test_nothing_stands_against_the_wishes_used_here() -> None:
    """With nothing tightened, an entry of each kind and a two-sided quote pass: each refusal below has its own cause."""
    for urgency in (MARKET, LIMIT, 10.0):
        w = world()
        assert len(w.signal(urgency=urgency)) == 1 and w.reasons == []
    w = world()
    assert len(w.quote(BID, ASK)) == 2 and w.reasons == []


def test_halted() -> None:
    """HALT refuses entries and quotes; RESUME lifts it."""
    w = world()
    w.control(Kind.HALT, 77)
    assert len(w.signal()) == 0 and w.reasons == [Refusal.HALTED]
    assert len(w.quote(BID, ASK)) == 0 and w.reasons == [Refusal.HALTED] * 2
    w.control(Kind.RESUME)
    assert len(w.signal()) == 1


def test_book_stale_by_flag_by_word_and_by_age() -> None:
    """A book that is flagged, called STALE, never seen, or not heard of for MAX_BOOK_AGE_NS is not traded on."""
    w = world()
    w.market(flags=0)
    assert len(w.signal()) == 0 and w.reasons == [Refusal.BOOK_STALE]
    w.market()
    w.market(kind=Kind.STALE)
    assert len(w.signal()) == 0 and w.reasons == [Refusal.BOOK_STALE]
    w.market()
    w.after(MAX_BOOK_AGE_NS + 1)
    assert len(w.signal()) == 0 and w.reasons == [Refusal.BOOK_STALE]
    assert len(RiskWorld().signal()) == 0
    w.market()
    assert len(w.signal()) == 1


def test_book_crossed() -> None:
    """A book that claims to be valid but is crossed or locked is not traded on."""
    w = world()
    w.market(bid=ASK, ask=ASK)
    assert len(w.signal()) == 0 and w.reasons == [Refusal.BOOK_CROSSED]
    w.market()
    assert len(w.signal()) == 1


@pytest.mark.parametrize("fields", [{"urgency": float("nan")}, {"atr": float("nan")}, {"atr": float("inf")}, {"atr": -1.0}])
def test_not_a_number(fields: dict[str, float]) -> None:
    """A signal whose figures are no numbers opens nothing."""
    w = world()
    assert len(w.signal(**fields)) == 0 and w.reasons == [Refusal.NOT_POSITIVE]
    assert len(w.signal()) == 1


def test_not_positive_quote() -> None:
    """A quote with a negative quantity or without a price is refused on that side alone."""
    w = world()
    out = w.quote(BID, ASK, bid_lots=-5)
    assert w.reasons == [Refusal.NOT_POSITIVE] and list(out["side"]) == [Side.SELL]
    out = world().quote(BID, ASK, ask_ticks=-ASK)
    assert list(out["side"]) == [Side.BUY]


def test_step_multiple() -> None:
    """A quantity that is no multiple of the step is refused, never rounded."""
    w = world()
    assert len(w.quote(BID, 0, lots=Q + 1)) == 0 and w.reasons == [Refusal.STEP_MULTIPLE]
    assert len(w.quote(BID, 0, lots=Q)) == 1


def test_max_qty() -> None:
    """More than the venue takes in one order, though it be worth little."""
    w = world()
    w.instruments[0]["max_qty_lots"] = Q
    assert len(w.quote(BID, 0, lots=2 * Q)) == 0 and w.reasons == [Refusal.MAX_QTY]
    assert len(w.quote(BID, 0, lots=Q)) == 1


def test_max_notional_to_the_lot() -> None:
    """An order worth exactly the limit passes, one step more does not; absurd quantities cannot overflow past it."""
    w = world(limits(max_order_notional=600.0))
    assert len(w.quote(BID, 0, lots=Q + 1000)) == 0 and w.reasons == [Refusal.MAX_NOTIONAL]
    assert len(w.quote(BID, 0, lots=Q)) == 1
    w = world()
    w.instruments[0]["max_qty_lots"] = 2**62
    assert len(w.quote(BID, 0, lots=2**40 * 1000)) == 0 and w.reasons == [Refusal.MAX_NOTIONAL]


def test_min_notional() -> None:
    """Less than the venue takes, by value or by quantity."""
    w = world()
    assert len(w.quote(BID, 0, lots=8000)) == 0 and w.reasons == [Refusal.MIN_NOTIONAL]  # 4.8
    assert len(w.quote(BID, 0, lots=9000)) == 1  # 5.4
    w = world()
    w.instruments[0]["min_qty_lots"] = Q
    assert len(w.quote(BID, 0, lots=Q - 1000)) == 0 and w.reasons == [Refusal.MIN_NOTIONAL]


def test_max_position_counts_what_is_open() -> None:
    """The position limit holds for the worst case: an open order that has not filled yet takes its room."""
    w = world(limits(max_position_notional=1_000.0))
    assert len(w.quote(BID, 0, lots=Q)) == 1
    out = w.quote(BID - 1, 0, lots=Q)  # its predecessor is being cancelled, but may still fill
    assert list(out["kind"]) == [Kind.CANCEL] and w.reasons == [Refusal.MAX_POSITION]
    old = w.order_row(1)
    assert old is not None
    out = w.report(old, ExecType.CANCELED)  # now it cannot: the side is tried again
    assert list(out["kind"]) == [Kind.NEW] and out[0]["price_ticks"] == BID - 1
    w = world(limits(max_position_notional=1_000.0))
    w.hold(Q)
    assert len(w.quote(BID, 0, lots=Q)) == 0 and w.reasons == [Refusal.MAX_POSITION]
    assert len(w.quote(0, ASK, lots=Q)) == 1  # the other side leads back
    w.hold(Q)
    assert len(w.signal()) == 0 and w.reasons == [Refusal.MAX_POSITION]  # no room for a size at all


def test_max_open_orders() -> None:
    """No more live orders than the limit, over all symbols."""
    w = world(limits(max_open_orders=2))
    w.quote(BID, ASK)
    assert len(w.quote(BID, 0, s=1)) == 0 and w.reasons == [Refusal.MAX_OPEN_ORDERS]
    first = w.order_row(1)
    assert first is not None
    w.report(first, ExecType.REJECT)
    assert len(w.quote(BID, 0, s=1)) == 1


def test_price_collar_uses_risks_own_book() -> None:
    """A price too far from the mid that risk itself saw is refused, whatever the strategy thinks the mid is."""
    w = world(limits(price_collar_bps=10.0))
    assert len(w.quote(BID - 6_100, 0)) == 0 and w.reasons == [Refusal.PRICE_COLLAR]
    assert len(w.quote(BID - 5_900, 0)) == 1
    w = world(limits(price_collar_bps=10.0))
    w.market(bid=BID - 20_000, ask=BID + 20_000)
    assert len(w.signal(urgency=MARKET)) == 0 and w.reasons == [Refusal.PRICE_COLLAR]  # the touch is 33 bps away


def test_would_cross() -> None:
    """A post-only order that the book would take is not sent."""
    w = world()
    assert len(w.quote(ASK, 0)) == 0 and w.reasons == [Refusal.WOULD_CROSS]
    assert len(w.quote(0, BID)) == 0 and w.reasons == [Refusal.WOULD_CROSS]
    assert len(w.quote(BID, 0)) == 1


def test_self_match_of_quotes() -> None:
    """When the market jumps over our own resting ask, the new bid waits until that ask is known to be dead."""
    w = world()
    w.quote(BID, ASK)
    w.market(bid=BID + 100, ask=ASK + 100)
    out = w.quote(BID + 100, ASK + 100)
    assert w.reasons == [Refusal.SELF_MATCH]
    assert [(int(o["kind"]), int(o["side"])) for o in out] == [(Kind.CANCEL, 1), (Kind.CANCEL, -1), (Kind.NEW, -1)]
    old_bid, old_ask = w.order_row(1), w.order_row(2)
    assert old_bid is not None and old_ask is not None
    assert len(w.report(old_bid, ExecType.CANCELED)) == 0 and w.reasons == [Refusal.SELF_MATCH]
    out = w.report(old_ask, ExecType.CANCELED)
    assert [(int(o["kind"]), int(o["side"]), int(o["price_ticks"])) for o in out] == [(Kind.NEW, 1, BID + 100)]


@pytest.mark.parametrize(("bid", "refused"), [(ASK - 1, False), (ASK, True), (ASK + 1, True)])
def test_self_match_begins_at_the_same_price(bid: int, refused: bool) -> None:
    """A bid at or above our own resting ask is refused, one tick below it is not; and the mirror image."""
    w = world()
    w.quote(0, ASK)
    w.market(bid=ASK + 10, ask=ASK + 20)
    w.quote(bid, ASK)
    assert w.reasons == ([Refusal.SELF_MATCH] if refused else [])
    w = world()
    w.quote(BID, 0)
    w.market(bid=BID - 20, ask=BID - 10)
    w.quote(BID, BID - (bid - ASK))
    assert w.reasons == ([Refusal.SELF_MATCH] if refused else [])


def test_self_match_of_a_market_order() -> None:
    """A MARKET entry may not reach our own ask in the visible book; with depth enough in front of it, it may go."""
    w = world()
    w.quote(0, ASK + 1)
    w.market(lots=1_000_000)  # thin: the entry reaches beyond the touch
    assert len(w.signal(urgency=MARKET)) == 0 and w.reasons == [Refusal.SELF_MATCH]
    w.market(lots=100 * LOT)
    assert len(w.signal(urgency=MARKET)) == 1


def test_resting_quote_waits_for_a_market_order() -> None:
    """While our MARKET buy is on its way, no ask of ours may come to rest in its path."""
    w = world()
    w.signal(urgency=MARKET)
    out = w.quote(BID, ASK)
    assert w.reasons == [Refusal.SELF_MATCH] and list(out["side"]) == [Side.BUY]


def test_message_rate_and_its_recovery() -> None:
    """No more new orders at once than a second's worth; time brings the budget back."""
    w = world(limits(max_orders_per_s=2))
    assert len(w.quote(BID, ASK)) == 2
    assert len(w.quote(BID, 0, s=1)) == 0 and w.reasons == [Refusal.MESSAGE_RATE]
    w.after(S // 2)
    assert len(w.quote(BID, 0, s=1)) == 1


def breach(w: RiskWorld) -> None:
    """Lose 5% of an equity of 100,000 on one coin: bought at 60,000, now at 55,000."""
    w.hold(LOT)
    w.market(bid=BID - 500_000, ask=ASK - 500_000)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"max_daily_loss_pct": 3.0}, Refusal.LOSS_LIMIT), ({"max_drawdown_pct": 3.0}, Refusal.DRAWDOWN)],
)
def test_loss_limits_halt_and_stay(changes: dict[str, float], reason: Refusal) -> None:
    """A breached loss limit halts; after RESUME it still refuses, until a RESUME names it and starts it afresh."""
    w = world(limits(equity=100_000.0, base_risk_pct=0.8, **changes))
    breach(w)
    assert w.glob[0]["halted"] == 1 and w.glob[0]["halt_reason"] == reason
    assert len(w.signal(s=1)) == 0 and w.reasons == [Refusal.HALTED]
    w.control(Kind.RESUME)
    assert len(w.signal(s=1)) == 0 and w.reasons == [reason]
    w.control(Kind.RESUME, int(reason))
    assert len(w.signal(s=1)) == 1
    w.market(bid=BID - 500_000, ask=ASK - 500_000)
    assert w.glob[0]["halted"] == 0


def test_days_loss_ends_with_the_day() -> None:
    """The day's loss is counted from the first equity of the UTC day."""
    w = world(limits(equity=100_000.0, base_risk_pct=0.8, max_daily_loss_pct=3.0))
    breach(w)
    w.control(Kind.RESUME)
    w.after(86_400 * S)
    w.market(0, bid=BID - 500_000, ask=ASK - 500_000)
    w.market(1)
    assert len(w.signal(s=1)) == 1


def test_portfolio_heat() -> None:
    """The money at risk up to all stops, this entry's included, is bounded by a share of equity."""
    heat_of_one = 1e-6  # an order of 1e6 (its limit), stopped out 10 bps away, of an equity of 1e9
    w = world(limits(max_portfolio_heat=1.5 * heat_of_one))
    assert len(w.signal(s=0)) == 1
    assert len(w.signal(s=1)) == 0 and w.reasons == [Refusal.PORTFOLIO_HEAT]
    entry = w.order_row(1)
    assert entry is not None
    w.report(entry, ExecType.CANCELED)
    assert len(w.signal(s=1)) == 1


def test_no_equity() -> None:
    """With nothing left, nothing is opened."""
    w = world()
    w.glob[0]["portfolio_e8"] = 0
    assert len(w.signal()) == 0 and w.reasons == [Refusal.NO_EQUITY]
    assert len(w.quote(BID, 0)) == 0 and w.reasons == [Refusal.NO_EQUITY]
    w.glob[0]["portfolio_e8"] = 10**17
    assert len(w.signal()) == 1


def test_order_table_full() -> None:
    """A table full of live orders takes no more, whatever the limit on open orders says."""
    w = world()
    w.params[0]["max_open_orders"] = 10_000
    fields = {"ts_ns": w.ts, "symbol": 1, "side": Side.BUY, "purpose": Purpose.QUOTE, "order_type": OrderType.POST_ONLY}
    for k in range(orders.MAX_LIVE):
        orders.insert(w.glob, row(ORDER_RECORD, order_id=1_000_000 + k, price_ticks=1, qty_lots=1, **fields)[0])
    assert len(w.quote(BID, 0)) == 0 and w.reasons == [Refusal.ORDER_TABLE_FULL]
    orders.step(w.glob, orders.find(w.glob, 1_000_000), int(ExecType.CANCELED), 0, 0)
    assert len(w.quote(BID, 0)) == 1


def test_session_ended() -> None:
    """After the market's END nothing is sent."""
    w = world()
    w.end()
    assert len(w.signal()) == 0 and w.reasons == [Refusal.SESSION_ENDED]
    assert len(w.quote(BID, ASK)) == 0


TIGHT: dict[str, Callable[[RiskWorld], object]] = {
    "halted": lambda w: w.control(Kind.HALT),
    "book stale": lambda w: w.market(kind=Kind.STALE),
    "book crossed": lambda w: w.market(bid=ASK, ask=BID),
    "no message budget": lambda w: w.glob.__setitem__("budget_ns", -(10**9)),
    "no equity": lambda w: w.glob.__setitem__("portfolio_e8", -1),
    "position far beyond its limit": lambda w: w.hold(10_000 * LOT),
    "loss limits breached": lambda w: (w.glob.__setitem__("day_breached", 1), w.glob.__setitem__("drawdown_breached", 1)),
    "no open order allowed": lambda w: w.params.__setitem__("max_open_orders", 0),
}


@pytest.mark.parametrize("tighten", TIGHT.values(), ids=list(TIGHT))
def test_cancels_always_pass(tighten: Callable[[RiskWorld], object]) -> None:
    """Whatever is wrong, a quote that is no longer wanted is cancelled: by the trouble itself or when it is pulled."""
    w = world()
    w.quote(BID, ASK)
    out = tighten(w)
    at_once = [int(o["target_order_id"]) for o in out] if hasattr(out, "dtype") else []
    pulled = [int(o["target_order_id"]) for o in w.quote(0, 0)]
    assert sorted(at_once + pulled) == [1, 2]


def test_cancel_needs_no_book_flag() -> None:
    """A book that turns invalid cancels its symbol's orders and leaves the others alone."""
    w = world()
    w.quote(BID, ASK, s=0)
    w.quote(BID, ASK, s=1)
    out = w.market(0, flags=int(Flag.AGGRESSOR_SELL))
    assert [int(o["symbol"]) for o in out] == [0, 0] and (out["kind"] == Kind.CANCEL).all()


def test_each_refusal_of_risk_is_covered() -> None:
    """Every reason that risk can give appears in this file; the others are named with the reason why risk cannot."""
    text = open(__file__, encoding="utf-8").read()
    elsewhere = {
        Refusal.NONE,
        Refusal.TICK_MULTIPLE,  # prices are integer ticks: it cannot arise
        Refusal.ORDER_RING_FULL,  # the stage's, which owns the ring
        Refusal.DUPLICATE,  # the router's
    }
    for refusal in set(Refusal) - elsewhere:
        if refusal < 100:
            assert text.count(f"Refusal.{refusal.name}") >= 1, refusal
