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

from typing import Final

from trading.instruments import notional_e8
from trading.jit import Recs, kernel
from trading.orders import budget
from trading.orders.table import MAX_LIVE
from trading.records import LEVELS, OrderType, Purpose, Refusal

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
    ("budget_ns", "i8"),  # message budget: nanoseconds of allowance saved up
    ("budget_ts_ns", "i8"),
)
"""Global fields."""

LIMIT_PARAMS: Final = (
    ("collar_bps", "f8"),
    ("max_order_e8", "i8"),
    ("max_position_e8", "i8"),
    ("max_open_orders", "i8"),
    ("max_heat", "f8"),  # share of equity
    ("message_cost_ns", "i8"),
)

MAX_BOOK_AGE_NS: Final = 10_000_000_000
"""A book that nothing was heard of for so long is stale, whatever its last flags said."""

_MARKET: Final = int(OrderType.MARKET)
_POST_ONLY: Final = int(OrderType.POST_ONLY)
_EXIT_FIRST: Final = int(Purpose.EXIT_STOP)
_EXIT_LAST: Final = int(Purpose.EXIT_SIGNAL)
assert [p.name for p in Purpose if _EXIT_FIRST <= p <= _EXIT_LAST] == ["EXIT_STOP", "EXIT_TIME", "EXIT_TARGET", "EXIT_SIGNAL"]

_HALTED: Final = int(Refusal.HALTED)
_BOOK_STALE: Final = int(Refusal.BOOK_STALE)
_BOOK_CROSSED: Final = int(Refusal.BOOK_CROSSED)
_NOT_POSITIVE: Final = int(Refusal.NOT_POSITIVE)
_STEP_MULTIPLE: Final = int(Refusal.STEP_MULTIPLE)
_MAX_QTY: Final = int(Refusal.MAX_QTY)
_MAX_NOTIONAL: Final = int(Refusal.MAX_NOTIONAL)
_MIN_NOTIONAL: Final = int(Refusal.MIN_NOTIONAL)
_MAX_POSITION: Final = int(Refusal.MAX_POSITION)
_MAX_OPEN_ORDERS: Final = int(Refusal.MAX_OPEN_ORDERS)
_PRICE_COLLAR: Final = int(Refusal.PRICE_COLLAR)
_SELF_MATCH: Final = int(Refusal.SELF_MATCH)
_MESSAGE_RATE: Final = int(Refusal.MESSAGE_RATE)
_LOSS_LIMIT: Final = int(Refusal.LOSS_LIMIT)
_DRAWDOWN: Final = int(Refusal.DRAWDOWN)
_PORTFOLIO_HEAT: Final = int(Refusal.PORTFOLIO_HEAT)
_NO_EQUITY: Final = int(Refusal.NO_EQUITY)
_ORDER_TABLE_FULL: Final = int(Refusal.ORDER_TABLE_FULL)
_SESSION_ENDED: Final = int(Refusal.SESSION_ENDED)
_WOULD_CROSS: Final = int(Refusal.WOULD_CROSS)


@kernel
def is_exit(purpose: int) -> bool:
    """Whether a purpose closes the signal-opened position."""
    return _EXIT_FIRST <= purpose <= _EXIT_LAST


@kernel
def check_trading(state: Recs, glob: Recs, params: Recs, s: int, ts_ns: int) -> int:
    """What stands against any new order in symbol `s`: session, halt, book. A Refusal, 0 if nothing."""
    st = state[s]
    if glob[0].ended != 0:
        return _SESSION_ENDED
    if glob[0].halted != 0:
        return _HALTED
    if st.book_ok == 0 or ts_ns - st.book_ts_ns > MAX_BOOK_AGE_NS or st.bid_ticks[0] <= 0 or st.ask_ticks[0] <= 0:
        return _BOOK_STALE
    if st.bid_ticks[0] >= st.ask_ticks[0]:
        return _BOOK_CROSSED
    return 0


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
    if row.order_type == _MARKET:  # on its way through the book: takes what rests, but two takers never meet
        return order_type != _MARKET
    if side > 0:
        return limit_ticks >= row.price_ticks
    return limit_ticks <= row.price_ticks


@kernel
def would_self_match(state: Recs, glob: Recs, s: int, side: int, order_type: int, price_ticks: int, qty_lots: int) -> bool:
    """Whether the order could trade with one of ours that may still be live."""
    limit = reach_ticks(state, s, side, qty_lots) if order_type == _MARKET else price_ticks
    for j in range(glob[0].n_live):
        if conflicts(glob, glob[0].live[j], s, side, order_type, limit):
            return True
    return False


@kernel
def too_small(instruments: Recs, s: int, price_ticks: int, qty_lots: int) -> bool:
    """Whether the venue would find the order under its least quantity or value."""
    it = instruments[s]
    return qty_lots < it.min_qty_lots or notional_e8(instruments, s, price_ticks, qty_lots) < it.min_notional_e8


@kernel
def check_order(
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    s: int,
    ts_ns: int,
    side: int,
    order_type: int,
    price_ticks: int,
    qty_lots: int,
    purpose: int,
    heat_e8: float,
) -> int:
    """Every check of one new order; a Refusal, 0 if it may leave.

    `price_ticks` is 0 for MARKET. `heat_e8` is the money at risk in all positions with a stop if this order fills.
    """
    refusal = check_trading(state, glob, params, s, ts_ns)
    if refusal != 0:
        return refusal
    st, p, it, g = state[s], params[0], instruments[s], glob[0]
    bid, ask, mid_up = st.bid_ticks[0], st.ask_ticks[0], value_ticks(state, s)
    is_market = order_type == _MARKET
    if qty_lots <= 0 or (price_ticks <= 0 and not is_market) or (side != 1 and side != -1):
        return _NOT_POSITIVE
    if qty_lots % it.step_lots != 0:
        return _STEP_MULTIPLE
    if qty_lots > it.max_qty_lots:
        return _MAX_QTY
    reference = price_ticks
    if is_market:
        reference = ask if side > 0 else bid
    mid = 0.5 * float(bid + ask)
    if abs(float(reference) - mid) * 1e4 > p.collar_bps * mid:
        return _PRICE_COLLAR
    valued = mid_up if is_market else price_ticks
    if budget.too_large(valued, qty_lots) or notional_e8(instruments, s, valued, qty_lots) > p.max_order_e8:
        return _MAX_NOTIONAL
    if too_small(instruments, s, valued, qty_lots):
        return _MIN_NOTIONAL
    worst = (worst_lots(state, s, side) + side * qty_lots) * side
    if worst > 0 and (budget.too_large(mid_up, worst) or notional_e8(instruments, s, mid_up, worst) > p.max_position_e8):
        return _MAX_POSITION
    if order_type == _POST_ONLY and ((side > 0 and price_ticks >= ask) or (side < 0 and price_ticks <= bid)):
        return _WOULD_CROSS
    if would_self_match(state, glob, s, side, order_type, price_ticks, qty_lots):
        return _SELF_MATCH
    if not is_exit(purpose):
        if g.portfolio_e8 <= 0:
            return _NO_EQUITY
        if g.day_breached != 0:
            return _LOSS_LIMIT
        if g.drawdown_breached != 0:
            return _DRAWDOWN
        if heat_e8 > p.max_heat * float(g.portfolio_e8):
            return _PORTFOLIO_HEAT
        if g.n_live >= p.max_open_orders:
            return _MAX_OPEN_ORDERS
    if g.n_live >= MAX_LIVE:
        return _ORDER_TABLE_FULL
    if not budget.has_budget(glob, params, ts_ns):
        return _MESSAGE_RATE
    return 0
