"""Pre-trade checks: everything that must hold before an order may leave, each failure with a reason of its own.

Nothing here trusts the strategy: the price collar, the order's value and the self-match test are taken against the book
that risk itself read from the market ring, and the position limit counts every order that may still fill at its
worst. A cancel passes all of it; it only uses up message budget.

Deliberate choices:
- `TICK_MULTIPLE` cannot arise: prices are integer ticks from decode to encode. The reason exists for orders from outside.
- a quantity under the venue's minimum is reported as MIN_NOTIONAL ("too small to trade").
- exits (purpose EXIT_*) pass the loss, heat and open-order limits: a limit must never hold a position open. All else binds them.
- a MARKET order is valued at the mid rounded up, and its price for the collar is the touch that it would hit.

What this module is not: it sizes nothing, sends nothing and changes no state but the message budget.
"""

from __future__ import annotations

from typing import Any, Final

from trading.instruments import notional_e8
from trading.jit import Recs, kernel, lean
from trading.orders import budget
from trading.orders.table import MAX_LIVE
from trading.ranges import MAX_UNITS
from trading.records import LEVELS, OrderType, Purpose, Refusal, Side
from trading.risk.arrays import RiskArrays
from trading.settings import Strategy

BOOK_FIELDS: Final = (
    ("book_ts_ns", "i8"),  # of the last market record
    ("book_ok", "i8"),  # 1: valid when last heard of
    ("bid_ticks", "i8", LEVELS),
    ("bid_lots", "i8", LEVELS),
    ("ask_ticks", "i8", LEVELS),
    ("ask_lots", "i8", LEVELS),
    ("open_buy_lots", "i8"),  # may still be bought by our orders, at worst
    ("open_sell_lots", "i8"),
)
"""Per-symbol fields: risk's own view of the market and of what is in flight."""

LIMIT_FIELDS: Final = (
    ("halted", "i8"),
    ("halt_reason", "i8"),  # a Refusal when risk tripped it, else the control record's reason
    ("ended", "i8"),
    ("portfolio_e8", "i8"),  # equity of all symbols, marked
    ("day_breached", "i8"),  # 1: the day's loss is beyond its limit
    ("drawdown_breached", "i8"),
    *budget.BUDGET_FIELDS,
)
"""Global fields."""

LIMIT_PARAMS: Final = (
    ("collar_bps", "f8"),
    ("max_order_e8", "i8"),
    ("max_position_e8", "i8"),
    ("max_open_orders", "i8"),
    ("max_heat", "f8"),  # share of equity
    *budget.BUDGET_PARAMS,
)

MAX_BOOK_AGE_NS: Final = 10_000_000_000
"""A book that nothing was heard of for so long is stale, whatever its last flags said."""

_EXITS: Final = [Purpose.EXIT_STOP, Purpose.EXIT_TIME, Purpose.EXIT_TARGET, Purpose.EXIT_SIGNAL]
assert [p for p in Purpose if Purpose.EXIT_STOP <= p <= Purpose.EXIT_SIGNAL] == _EXITS


def set_params(p: Any, strategy: Strategy) -> None:
    """Put LIMIT_PARAMS of a strategy into a RISK_PARAMS record."""
    risk = strategy.risk
    p["collar_bps"] = risk.price_collar_bps
    p["max_order_e8"] = round(risk.max_order_notional * 1e8)
    p["max_position_e8"] = round(risk.max_position_notional * 1e8)
    p["max_open_orders"] = risk.max_open_orders
    p["max_heat"] = risk.max_portfolio_heat
    p["message_cost_ns"] = budget.message_cost_ns(risk)


@kernel
def is_exit(purpose: int) -> bool:
    """Whether a purpose closes the signal-opened position."""
    return Purpose.EXIT_STOP <= purpose <= Purpose.EXIT_SIGNAL


@kernel
def check_trading(state: Recs, glob: Recs, s: int, ts_ns: int) -> int:
    """What stands against any new order in symbol `s`: session, halt, book. A Refusal, NONE if nothing."""
    st = state[s]
    if glob[0].ended != 0:
        return Refusal.SESSION_ENDED
    if glob[0].halted != 0:
        return Refusal.HALTED
    if st.book_ok == 0 or ts_ns - st.book_ts_ns > MAX_BOOK_AGE_NS or st.bid_ticks[0] <= 0 or st.ask_ticks[0] <= 0:
        return Refusal.BOOK_STALE
    if st.bid_ticks[0] >= st.ask_ticks[0]:
        return Refusal.BOOK_CROSSED
    return Refusal.NONE


@kernel
def value_ticks(state: Recs, s: int) -> int:
    """The mid rounded up: the price at which positions and MARKET orders are valued for limits."""
    return (state[s].bid_ticks[0] + state[s].ask_ticks[0] + 1) // 2


@kernel
def worst_lots(state: Recs, s: int, side: int) -> int:
    """Signed position if every open order of `side` (+1, -1) filled and none of the other."""
    if side > 0:
        return state[s].position_lots + state[s].open_buy_lots
    return state[s].position_lots - state[s].open_sell_lots


@kernel
def reach_ticks(state: Recs, s: int, side: int, qty_lots: int) -> int:
    """How far a MARKET order may trade: the level by which twice its quantity is visible; beyond the visible, no bound.

    Twice, because the book moves while the order travels. A venue's own self-trade prevention covers the rest.
    """
    st = state[s]
    seen = 0
    for k in range(LEVELS):
        if side > 0:
            if st.ask_ticks[k] <= 0:
                break
            seen += st.ask_lots[k]
            if seen >= 2 * qty_lots:
                return st.ask_ticks[k]
        else:
            if st.bid_ticks[k] <= 0:
                break
            seen += st.bid_lots[k]
            if seen >= 2 * qty_lots:
                return st.bid_ticks[k]
    return 2**62 if side > 0 else 0


@kernel
def conflicts(glob: Recs, slot: int, s: int, side: int, order_type: int, limit_ticks: int) -> bool:
    """Whether an order of `side` reaching to `limit_ticks` could trade with the live order in `slot`."""
    row = glob[0].orders[slot]
    if row.symbol != s or row.side == side:
        return False
    if row.order_type == OrderType.MARKET:  # on its way through the book: takes what rests, but two takers never meet
        return order_type != OrderType.MARKET
    if side > 0:
        return limit_ticks >= row.price_ticks
    return limit_ticks <= row.price_ticks


@lean
def would_self_match(risk: RiskArrays) -> bool:
    """Whether the intent could trade with one of our orders that may still be live."""
    glob, want = risk.glob, risk.intent[0]
    limit = want.price_ticks
    if want.order_type == OrderType.MARKET:
        limit = reach_ticks(risk.state, want.symbol, want.side, want.qty_lots)
    for j in range(glob[0].n_live):
        if conflicts(glob, glob[0].live[j], want.symbol, want.side, want.order_type, limit):
            return True
    return False


@kernel
def too_small(instruments: Recs, s: int, price_ticks: int, qty_lots: int) -> bool:
    """Whether the venue would find the order under its least quantity or value."""
    it = instruments[s]
    return qty_lots < it.min_qty_lots or notional_e8(instruments, s, price_ticks, qty_lots) < it.min_notional_e8


@lean
def check_order(risk: RiskArrays, heat_e8: float) -> int:
    """Every check of the intent; a Refusal, NONE if it may leave.

    Its price is 0 for MARKET. `heat_e8` is the money at risk in all positions with a stop if this order fills.
    """
    want = risk.intent[0]
    s, side, price, qty = want.symbol, want.side, want.price_ticks, want.qty_lots
    refusal = check_trading(risk.state, risk.glob, s, want.ts_ns)
    if refusal != Refusal.NONE:
        return refusal
    instruments, st, p, it, g = risk.instruments, risk.state[s], risk.params[0], risk.instruments[s], risk.glob[0]
    bid, ask, mid_up = st.bid_ticks[0], st.ask_ticks[0], value_ticks(risk.state, s)
    is_market = want.order_type == OrderType.MARKET
    if qty <= 0 or (price <= 0 and not is_market) or (side != Side.BUY and side != Side.SELL):
        return Refusal.NOT_POSITIVE
    if qty % it.step_lots != 0:
        return Refusal.STEP_MULTIPLE
    if qty > it.max_qty_lots:
        return Refusal.MAX_QTY
    reference = price
    if is_market:
        reference = ask if side > 0 else bid
    mid = 0.5 * float(bid + ask)
    if abs(float(reference) - mid) * 1e4 > p.collar_bps * mid:
        return Refusal.PRICE_COLLAR
    valued = mid_up if is_market else price
    if notional_e8(instruments, s, valued, qty) > p.max_order_e8:
        return Refusal.MAX_NOTIONAL
    if too_small(instruments, s, valued, qty):
        return Refusal.MIN_NOTIONAL
    worst = (worst_lots(risk.state, s, side) + side * qty) * side
    if worst > MAX_UNITS or (worst > 0 and notional_e8(instruments, s, mid_up, worst) > p.max_position_e8):
        return Refusal.MAX_POSITION
    if want.order_type == OrderType.POST_ONLY and ((side > 0 and price >= ask) or (side < 0 and price <= bid)):
        return Refusal.WOULD_CROSS
    if would_self_match(risk):
        return Refusal.SELF_MATCH
    if not is_exit(want.purpose):
        if g.portfolio_e8 <= 0:
            return Refusal.NO_EQUITY
        if g.day_breached != 0:
            return Refusal.LOSS_LIMIT
        if g.drawdown_breached != 0:
            return Refusal.DRAWDOWN
        if heat_e8 > p.max_heat * float(g.portfolio_e8):
            return Refusal.PORTFOLIO_HEAT
        if g.n_live >= p.max_open_orders:
            return Refusal.MAX_OPEN_ORDERS
    if g.n_live >= MAX_LIVE:
        return Refusal.ORDER_TABLE_FULL
    if not budget.has_budget(risk.glob, risk.params, want.ts_ns):
        return Refusal.MESSAGE_RATE
    return Refusal.NONE
