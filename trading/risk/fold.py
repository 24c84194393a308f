"""The risk fold: the only way to the router.

It reads the market, signals, quotes, reports and the operator's word, keeps positions and every order that may be live,
and turns what strategies want into approved orders or refusals with a reason. One call takes one record; orders go to
`orders_out[0..n)`, refusals to `refusals_out[0..glob[0].n_refusals)`. State is plain data: a copy of it is a checkpoint.

Choices:
- *Entries* (signals): one leg at a time; no entry while a leg, an entry or an exit is open, nor within the cooldown.
- *Exits*: MARKET, sized to the part of the leg that the net position still holds (the rest of the leg is netted against quote
  inventory, with no order), cut to the largest order allowed; what is left under the venue's minimum stays as inventory. When
  an exit falls due, the symbol's other orders are cancelled and it is not quoted until the leg is closed.
- *Quotes*: the record is a target; trading.risk.quote_orders says how orders follow it.
- *Halt*: all live orders are cancelled at once, every new one refused, exits too: flattening is a command of its own.
  A breached loss limit trips it. RESUME lifts it; the breach goes on refusing entries and quotes until equity is back
  within the limit (or, for the day's loss, the day is over), unless the RESUME's reason names the breach
  (Refusal.DRAWDOWN, Refusal.LOSS_LIMIT): that starts the limit afresh from the present equity.

What this module is not: it knows no venue, no ring and no clock; it neither retries nor reconciles.
"""

from __future__ import annotations

import math
from typing import Final

from trading.jit import Recs, kernel
from trading.orders import fills
from trading.orders import table as orders
from trading.records import LEVELS, ExecType, Flag, Kind, OrderType, Purpose, Refusal, Side
from trading.risk import exits, limits, positions, sizing
from trading.risk.layout import (
    DAY_NS,
    MAX_ORDERS_OUT,
    MAX_REFUSALS_OUT,
    NS_PER_MS,
    RISK_GLOBAL,
    RISK_PARAMS,
    RISK_STATE,
    init,
    make_params,
)
from trading.risk.quote_orders import quote_side, retry_quotes
from trading.risk.submitting import cancel, cancel_all, heat_e8, mid_ticks, refuse, submit

__all__ = [
    "MAX_ORDERS_OUT",
    "MAX_REFUSALS_OUT",
    "RISK_GLOBAL",
    "RISK_PARAMS",
    "RISK_STATE",
    "init",
    "make_params",
    "on_control",
    "on_market",
    "on_market_end",
    "on_quote",
    "on_report",
    "on_signal",
]

EXIT_RETRY_NS: Final = 250 * NS_PER_MS
"""A refused exit is tried again after this."""
SWEEP_NS: Final = 250 * NS_PER_MS
"""How often orders whose cancel the venue refused are cancelled again, while they should be gone."""

_BOOK_VALID: Final = int(Flag.BOOK_VALID)
_FIRST_MARKET: Final = int(Kind.DEPTH)
_STALE: Final = int(Kind.STALE)
_HALT: Final = int(Kind.HALT)
_RESUME: Final = int(Kind.RESUME)
_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_MARKET: Final = int(OrderType.MARKET)
_LIMIT: Final = int(OrderType.LIMIT)
_POST_ONLY: Final = int(OrderType.POST_ONLY)
_ENTRY: Final = int(Purpose.ENTRY)
_QUOTE: Final = int(Purpose.QUOTE)
_FILL: Final = int(ExecType.FILL)
_LAST_EXEC: Final = int(ExecType.EXPIRED)
_NOT_POSITIVE: Final = int(Refusal.NOT_POSITIVE)
_MIN_NOTIONAL: Final = int(Refusal.MIN_NOTIONAL)
_MAX_POSITION: Final = int(Refusal.MAX_POSITION)
_LOSS_LIMIT: Final = int(Refusal.LOSS_LIMIT)
_DRAWDOWN: Final = int(Refusal.DRAWDOWN)
_NO_EQUITY: Final = int(Refusal.NO_EQUITY)


@kernel
def _remark(state: Recs, glob: Recs, params: Recs, instruments: Recs, s: int, ts_ns: int, orders_out: Recs) -> None:
    """Value the symbol anew, carry the loss limits on, and trip the halt at the moment that one is breached."""
    st, g, p = state[s], glob[0], params[0]
    if (st.bid_ticks[0] > 0 and st.ask_ticks[0] > 0) or st.position_lots == 0:
        g.portfolio_e8 += positions.mark(state, s, instruments, st.bid_ticks[0], st.ask_ticks[0])
    day = ts_ns // DAY_NS
    if day > g.day:
        g.day, g.day_start_e8, g.day_breached = day, g.portfolio_e8, 0
    g.peak_e8 = max(g.peak_e8, g.portfolio_e8)
    tripped = 0
    day_breached = int(float(g.day_start_e8 - g.portfolio_e8) > p.max_daily_loss * float(g.day_start_e8))
    if day_breached > g.day_breached:
        tripped = _LOSS_LIMIT
    g.day_breached = day_breached
    drawdown_breached = int(float(g.peak_e8 - g.portfolio_e8) > p.max_drawdown * float(g.peak_e8))
    if drawdown_breached > g.drawdown_breached:
        tripped = _DRAWDOWN
    g.drawdown_breached = drawdown_breached
    if tripped != 0 and g.halted == 0:
        g.halted, g.halt_reason = 1, tripped
        if g.ended == 0:
            cancel_all(glob, params, -1, ts_ns, orders_out)


@kernel
def _sweep(state: Recs, glob: Recs, params: Recs, ts_ns: int, orders_out: Recs) -> None:
    """Cancel again what should be gone but is live, because the venue refused an earlier cancel."""
    g = glob[0]
    g.sweep_ns = ts_ns + SWEEP_NS
    for j in range(g.n_live):
        slot = g.live[j]
        row = g.orders[slot]
        st = state[row.symbol]
        orphan = row.purpose == _QUOTE and row.order_id != st.bid_id and row.order_id != st.ask_id
        if g.halted != 0 or orphan or st.book_ok == 0:
            cancel(glob, params, slot, ts_ns, orders_out)


@kernel
def _try_exit(
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    s: int,
    ts_ns: int,
    orders_out: Recs,
    refusals_out: Recs,
) -> None:
    """Send the exit that is due, once nothing of ours stands in its way."""
    st = state[s]
    leg = st.leg_lots
    held = min(abs(leg), abs(st.position_lots)) if (leg > 0) == (st.position_lots > 0) and st.position_lots != 0 else 0
    if held < abs(leg):
        exits.close_leg(state, s, abs(leg) - held, ts_ns)
        if held == 0:
            return
    side = -1 if leg > 0 else 1
    price = limits.value_ticks(state, s)
    qty = min(held, sizing.lots_worth(instruments, s, price, params[0].max_order_e8))
    qty -= qty % instruments[s].step_lots
    if qty == 0 or limits.too_small(instruments, s, price, qty):
        glob[0].dust_count += 1
        exits.close_leg(state, s, held, ts_ns)
        return
    limit = limits.reach_ticks(state, s, side, qty)
    blocked = False
    for j in range(glob[0].n_live):
        slot = glob[0].live[j]
        if limits.conflicts(glob, slot, s, side, _MARKET, limit):
            blocked = True
            cancel(glob, params, slot, ts_ns, orders_out)
    if blocked:
        return
    st.exit_try_ns = ts_ns
    order_id = submit(
        state, glob, params, instruments, s, ts_ns, side, _MARKET, 0, qty, st.exit_purpose, 0.0, orders_out, refusals_out
    )
    if order_id > 0:
        st.exit_id = order_id


@kernel
def on_market(
    recs: Recs,
    i: int,
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    orders_out: Recs,
    refusals_out: Recs,
) -> int:
    """Take a MARKET_RECORD (DEPTH, TRADE, BBO, SNAPSHOT, STALE): marks, loss limits, exits, aged entries. Returns orders written.

    Writes at most MAX_ORDERS_OUT rows; refusals are counted in glob[0].n_refusals.
    """
    g = glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    s = rec.symbol
    if s < 0 or s >= len(state) or rec.kind < _FIRST_MARKET or rec.kind > _STALE:
        return 0
    st = state[s]
    ts = rec.ts_ns
    was_ok = st.book_ok
    st.book_ts_ns = ts
    st.book_ok = int(rec.kind != _STALE and (rec.flags & _BOOK_VALID) != 0)
    if st.book_ok == 0:
        if was_ok == 1 and g.ended == 0:
            cancel_all(glob, params, s, ts, orders_out)
    else:
        for k in range(LEVELS):
            st.bid_ticks[k], st.bid_lots[k] = rec.bid_ticks[k], rec.bid_lots[k]
            st.ask_ticks[k], st.ask_lots[k] = rec.ask_ticks[k], rec.ask_lots[k]
        if st.position_lots != 0 or ts // DAY_NS != g.day:
            _remark(state, glob, params, instruments, s, ts, orders_out)
    if g.ended != 0:
        return g.n_orders
    if g.n_live > 0 and ts >= g.sweep_ns:
        _sweep(state, glob, params, ts, orders_out)
    if st.entry_id != 0:
        slot = orders.find(glob, st.entry_id)
        if slot >= 0 and ts - g.orders[slot].ts_new_ns >= params[0].max_age_ns:
            cancel(glob, params, slot, ts, orders_out)
    if st.leg_lots != 0 and st.exit_id == 0 and limits.check_trading(state, glob, params, s, ts) == 0:
        if st.exit_purpose == 0:
            st.exit_purpose = exits.due(state, s, ts, params)
            if st.exit_purpose != 0:
                cancel_all(glob, params, s, ts, orders_out)
        if st.exit_purpose != 0 and ts - st.exit_try_ns >= EXIT_RETRY_NS:
            _try_exit(state, glob, params, instruments, s, ts, orders_out, refusals_out)
    return g.n_orders


@kernel
def on_signal(
    recs: Recs,
    i: int,
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    orders_out: Recs,
    refusals_out: Recs,
) -> int:
    """Take a SIGNAL_RECORD: an entry, a refusal, or nothing. Prices come from risk's own book. Returns orders written."""
    g = glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    s, side, ts = rec.symbol, rec.side, rec.ts_ns
    if s < 0 or s >= len(state) or (side != _BUY and side != _SELL) or rec.gate != 0 or instruments[s].take_signals == 0:
        return 0
    st, p = state[s], params[0]
    if st.leg_lots != 0 or st.entry_id != 0 or st.exit_id != 0:
        return 0
    if ts - st.entry_ts_ns < p.cooldown_ns or ts - st.leg_closed_ns < p.cooldown_ns:
        return 0
    st.entry_ts_ns = ts
    order_type = _LIMIT
    if rec.urgency >= p.market_urgency:
        order_type = _MARKET
    elif rec.urgency < p.post_only_below:
        order_type = _POST_ONLY
    refusal = limits.check_trading(state, glob, params, s, ts)
    if refusal == 0 and not (math.isfinite(rec.urgency) and math.isfinite(rec.atr_ticks) and rec.atr_ticks >= 0.0):
        refusal = _NOT_POSITIVE
    if refusal == 0 and g.portfolio_e8 <= 0:
        refusal = _NO_EQUITY
    if refusal != 0:
        refuse(state, glob, s, ts, side, order_type, 0, 0, _ENTRY, refusal, refusals_out)
        return 0
    price = 0
    valued = limits.value_ticks(state, s)
    if order_type != _MARKET:
        price = st.bid_ticks[0] if side > 0 else st.ask_ticks[0]
        valued = price
    distance = sizing.stop_distance_ticks(params, mid_ticks(state, s), rec.atr_ticks)
    qty = sizing.entry_lots(state, params, instruments, s, side, valued, distance, g.portfolio_e8)
    if qty == 0:
        full = sizing.room_lots(state, params, instruments, s, side) == 0
        refusal = _MAX_POSITION if full else _MIN_NOTIONAL
        refuse(state, glob, s, ts, side, order_type, price, 0, _ENTRY, refusal, refusals_out)
        return 0
    it = instruments[s]
    heat = heat_e8(state, glob, instruments) + float(qty) * distance * float(it.notional_mul) / float(it.notional_div)
    order_id = submit(
        state, glob, params, instruments, s, ts, side, order_type, price, qty, _ENTRY, heat, orders_out, refusals_out
    )
    if order_id > 0:
        st.entry_id = order_id
        st.stop_distance = distance
    return g.n_orders


@kernel
def on_quote(
    recs: Recs,
    i: int,
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    orders_out: Recs,
    refusals_out: Recs,
) -> int:
    """Take a QUOTE_RECORD as the target and send what leads there. Returns orders written (at most 4)."""
    g = glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    s = rec.symbol
    if s < 0 or s >= len(state) or instruments[s].make_market == 0:
        return 0
    st = state[s]
    st.target_ts_ns = rec.ts_ns
    st.target_bid_ticks, st.target_bid_lots = rec.bid_ticks, rec.bid_lots
    st.target_ask_ticks, st.target_ask_lots = rec.ask_ticks, rec.ask_lots
    quote_side(state, glob, params, instruments, s, rec.ts_ns, _BUY, rec.bid_ticks, rec.bid_lots, orders_out, refusals_out)
    quote_side(state, glob, params, instruments, s, rec.ts_ns, _SELL, rec.ask_ticks, rec.ask_lots, orders_out, refusals_out)
    return g.n_orders


@kernel
def on_report(
    recs: Recs,
    i: int,
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    orders_out: Recs,
    refusals_out: Recs,
) -> int:
    """Take a REPORT_RECORD: position, order table, loss limits. Returns orders written.

    A fill counts by its trade id, whether or not its order is in the table: the money has moved either way.
    """
    g = glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    s, ts = rec.symbol, rec.ts_ns
    if s < 0 or s >= len(state):
        g.foreign_count += 1
        return 0
    st = state[s]
    slot = orders.find(glob, rec.order_id)
    if slot >= 0 and (g.orders[slot].symbol != s or g.orders[slot].side != rec.side):
        slot = -1
    if slot < 0:
        g.foreign_count += 1
    new_lots = 0
    if rec.exec_type == _FILL:
        if rec.last_lots <= 0 or rec.last_ticks <= 0 or (rec.side != _BUY and rec.side != _SELL):
            g.foreign_count += 1
            return 0
        if not fills.first_sight(st.trades, 0, rec.trade_id):
            g.repeat_count += 1
            return 0
        new_lots = rec.last_lots
        g.fill_count += 1
        positions.apply_fill(state, s, instruments, rec.side, rec.last_ticks, new_lots, rec.fee_e8)
        purpose = g.orders[slot].purpose if slot >= 0 else rec.purpose
        if purpose == _ENTRY:
            exits.enter_leg(state, s, rec.side, rec.last_ticks, new_lots, ts)
        elif limits.is_exit(purpose) and st.leg_lots * rec.side < 0:
            exits.close_leg(state, s, new_lots, ts)
    ended_now = False
    if slot >= 0 and 0 < rec.exec_type <= _LAST_EXEC:
        was_live = orders.is_live(glob, slot)
        before = orders.reserved_lots(glob, slot)
        orders.step(glob, slot, rec.exec_type, new_lots, rec.cum_lots)
        change = orders.reserved_lots(glob, slot) - before
        if rec.side > 0:
            st.open_buy_lots += change
        else:
            st.open_sell_lots += change
        ended_now = was_live and not orders.is_live(glob, slot)
    if ended_now:
        order_id = rec.order_id
        if st.entry_id == order_id:
            st.entry_id = 0
        if st.exit_id == order_id:
            st.exit_id = 0
        if st.bid_id == order_id:
            st.bid_id = 0
        if st.ask_id == order_id:
            st.ask_id = 0
    if new_lots > 0:
        _remark(state, glob, params, instruments, s, ts, orders_out)
    if ended_now and g.ended == 0:
        retry_quotes(state, glob, params, instruments, s, ts, orders_out, refusals_out)
    return g.n_orders


@kernel
def on_control(
    recs: Recs,
    i: int,
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    orders_out: Recs,
    refusals_out: Recs,
) -> int:
    """Take a CONTROL_RECORD: HALT cancels everything and refuses what is new, RESUME lifts it. Returns orders written."""
    g = glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    if rec.kind == _HALT:
        if g.halted == 0:
            g.halt_reason = rec.reason
        g.halted = 1
        if g.ended == 0:
            cancel_all(glob, params, -1, rec.ts_ns, orders_out)
    elif rec.kind == _RESUME:
        g.halted, g.halt_reason = 0, 0
        if rec.reason == _DRAWDOWN:
            g.peak_e8, g.drawdown_breached = g.portfolio_e8, 0
        elif rec.reason == _LOSS_LIMIT:
            g.day_start_e8, g.day_breached = g.portfolio_e8, 0
    return g.n_orders


@kernel
def on_market_end(
    ts_ns: int,
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    orders_out: Recs,
    refusals_out: Recs,
) -> int:
    """The session is over: cancel every open order; no order is written ever after. Returns orders written.

    Later wishes are refused with SESSION_ENDED; later reports still count.
    """
    g = glob[0]
    g.n_orders, g.n_refusals = 0, 0
    if g.ended == 0:
        cancel_all(glob, params, -1, ts_ns, orders_out)
        g.ended = 1
    return g.n_orders
