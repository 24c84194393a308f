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
- *Time*: what falls due is done at exactly its due time (trading.risk.dues), whether a record comes then or not.

What this module is not: it knows no venue, no ring and no clock; it neither retries nor reconciles.
"""

from __future__ import annotations

import math
from typing import Final

from trading.instruments import loss_e8
from trading.jit import Recs, lean
from trading.orders import fills
from trading.orders import table as orders
from trading.records import LEVELS, TS_END, ExecType, Flag, Kind, OrderType, Purpose, Refusal, Side
from trading.risk import exits, limits, positions, sizing
from trading.risk.arrays import MAX_ORDERS_OUT, MAX_REFUSALS_OUT, RiskArrays
from trading.risk.dues import EXIT_RETRY_NS, SWEEP_NS, find_due, note_due, note_sweep
from trading.risk.layout import (
    DAY_NS,
    RISK_GLOBAL,
    RISK_PARAMS,
    RISK_STATE,
    at_start,
    init,
    make_params,
    outputs,
)
from trading.risk.quote_orders import follow_target, retry_quotes
from trading.risk.submitting import begin, cancel, cancel_all, heat_e8, mid_ticks, refuse, submit

__all__ = [
    "MAX_ORDERS_OUT",
    "MAX_REFUSALS_OUT",
    "RISK_GLOBAL",
    "RISK_PARAMS",
    "RISK_STATE",
    "RiskArrays",
    "at_start",
    "init",
    "make_params",
    "on_control",
    "on_due",
    "on_market",
    "on_market_end",
    "on_quote",
    "on_report",
    "on_signal",
    "outputs",
]

_BOOK_VALID: Final = int(Flag.BOOK_VALID)


@lean
def _remark(risk: RiskArrays, s: int, ts_ns: int) -> None:
    """Value the symbol anew, carry the loss limits on, and trip the halt at the moment that one is breached."""
    st, g, p = risk.state[s], risk.glob[0], risk.params[0]
    if (st.bid_ticks[0] > 0 and st.ask_ticks[0] > 0) or st.position_lots == 0:
        g.portfolio_e8 += positions.mark(risk.state, s, risk.instruments, st.bid_ticks[0], st.ask_ticks[0])
    day = ts_ns // DAY_NS
    if day > g.day:
        g.day, g.day_start_e8, g.day_breached = day, g.portfolio_e8, 0
    g.peak_e8 = max(g.peak_e8, g.portfolio_e8)
    tripped = Refusal.NONE
    day_breached = int(float(g.day_start_e8 - g.portfolio_e8) > p.max_daily_loss * float(g.day_start_e8))
    if day_breached > g.day_breached:
        tripped = Refusal.LOSS_LIMIT
    g.day_breached = day_breached
    drawdown_breached = int(float(g.peak_e8 - g.portfolio_e8) > p.max_drawdown * float(g.peak_e8))
    if drawdown_breached > g.drawdown_breached:
        tripped = Refusal.DRAWDOWN
    g.drawdown_breached = drawdown_breached
    if tripped != Refusal.NONE and g.halted == 0:
        g.halted, g.halt_reason = 1, tripped
        if g.ended == 0:
            cancel_all(risk, -1, ts_ns)


@lean
def _sweep(risk: RiskArrays, ts_ns: int) -> None:
    """Cancel again what should be gone but is live, because the venue refused an earlier cancel."""
    g = risk.glob[0]
    g.sweep_ns = ts_ns + SWEEP_NS
    for j in range(g.n_live):
        slot = g.live[j]
        row = g.orders[slot]
        st = risk.state[row.symbol]
        orphan = row.purpose == Purpose.QUOTE and row.order_id != st.bid_id and row.order_id != st.ask_id
        if g.halted != 0 or orphan or st.book_ok == 0:
            cancel(risk, slot, ts_ns)


@lean
def _try_exit(risk: RiskArrays, s: int, ts_ns: int) -> None:
    """Send the exit that is due, once nothing of ours stands in its way."""
    st, g, instruments = risk.state[s], risk.glob[0], risk.instruments
    leg = st.leg_lots
    held = min(abs(leg), abs(st.position_lots)) if (leg > 0) == (st.position_lots > 0) and st.position_lots != 0 else 0
    if held < abs(leg):
        exits.close_leg(risk.state, s, abs(leg) - held, ts_ns)
        if held == 0:
            return
    side = -1 if leg > 0 else 1
    price = limits.value_ticks(risk.state, s)
    qty = min(held, sizing.lots_worth(instruments, s, price, risk.params[0].max_order_e8))
    qty -= qty % instruments[s].step_lots
    if qty == 0 or limits.too_small(instruments, s, price, qty):
        g.dust_count += 1
        exits.close_leg(risk.state, s, held, ts_ns)
        return
    limit = limits.reach_ticks(risk.state, s, side, qty)
    blocked = False
    for j in range(g.n_live):
        slot = g.live[j]
        if limits.conflicts(risk.glob, slot, s, side, OrderType.MARKET, limit):
            blocked = True
            cancel(risk, slot, ts_ns)
    if blocked:
        return
    st.exit_try_ns = ts_ns
    begin(risk, s, ts_ns, side, st.exit_purpose)
    risk.intent[0].qty_lots = qty
    order_id = submit(risk, 0.0)
    if order_id > 0:
        st.exit_id = order_id


@lean
def _look(risk: RiskArrays, s: int, ts_ns: int) -> None:
    """Cancel an entry that is too old, begin an exit that is due, go on with one that was begun; note when to look again."""
    st, g = risk.state[s], risk.glob[0]
    if st.entry_id != 0:
        slot = orders.find(risk.glob, st.entry_id)
        if slot >= 0 and ts_ns - g.orders[slot].ts_new_ns >= risk.params[0].max_age_ns:
            cancel(risk, slot, ts_ns)
    if st.leg_lots != 0 and st.exit_id == 0 and limits.check_trading(risk.state, risk.glob, s, ts_ns) == Refusal.NONE:
        if st.exit_purpose == 0:
            st.exit_purpose = exits.due(risk.state, s, ts_ns, risk.params)
            if st.exit_purpose != 0:
                cancel_all(risk, s, ts_ns)
        if st.exit_purpose != 0 and ts_ns - st.exit_try_ns >= EXIT_RETRY_NS:
            _try_exit(risk, s, ts_ns)
    note_due(risk, s, ts_ns, EXIT_RETRY_NS)


@lean
def on_market(recs: Recs, i: int, risk: RiskArrays) -> int:
    """Take a MARKET_RECORD (DEPTH, TRADE, BBO, SNAPSHOT, STALE): marks, loss limits, exits, aged entries. Returns orders written.

    Writes at most MAX_ORDERS_OUT rows; refusals are counted in glob[0].n_refusals.
    """
    g = risk.glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    s = rec.symbol
    if s < 0 or s >= len(risk.state) or rec.kind < Kind.DEPTH or rec.kind > Kind.STALE:
        return 0
    st = risk.state[s]
    ts = rec.ts_ns
    was_ok = st.book_ok
    st.book_ts_ns = ts
    st.book_ok = int(rec.kind != Kind.STALE and (rec.flags & _BOOK_VALID) != 0)
    if st.book_ok == 0:
        if was_ok == 1 and g.ended == 0:
            cancel_all(risk, s, ts)
    else:
        for k in range(LEVELS):
            st.bid_ticks[k], st.bid_lots[k] = rec.bid_ticks[k], rec.bid_lots[k]
            st.ask_ticks[k], st.ask_lots[k] = rec.ask_ticks[k], rec.ask_lots[k]
        if st.position_lots != 0 or ts // DAY_NS != g.day:
            _remark(risk, s, ts)
    if g.ended != 0:
        return g.n_orders
    if g.n_live > 0 and ts >= g.sweep_ns:
        _sweep(risk, ts)
    if st.entry_id != 0 or st.leg_lots != 0:
        _look(risk, s, ts)
    else:
        st.due_ns = TS_END
        note_sweep(risk, ts)
    return g.n_orders


@lean
def on_due(ts_ns: int, risk: RiskArrays) -> int:
    """Time has come to `glob.due_ns`, which is `ts_ns`: do what falls due. Returns orders written; `glob.due_ns` is the next."""
    g = risk.glob[0]
    g.n_orders, g.n_refusals = 0, 0
    if g.ended == 0:
        if g.n_live > 0 and ts_ns >= g.sweep_ns:
            _sweep(risk, ts_ns)
        for s in range(len(risk.state)):
            if risk.state[s].due_ns <= ts_ns:
                _look(risk, s, ts_ns)
    find_due(risk, ts_ns)
    return g.n_orders


@lean
def on_signal(recs: Recs, i: int, risk: RiskArrays) -> int:
    """Take a SIGNAL_RECORD: an entry, a refusal, or nothing. Prices come from risk's own book. Returns orders written."""
    g = risk.glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    s, side, ts = rec.symbol, rec.side, rec.ts_ns
    if s < 0 or s >= len(risk.state) or rec.gate != 0 or risk.instruments[s].take_signals == 0:
        return 0
    if side != Side.BUY and side != Side.SELL:
        return 0
    st, p = risk.state[s], risk.params[0]
    if st.leg_lots != 0 or st.entry_id != 0 or st.exit_id != 0:
        return 0
    if ts - st.entry_ts_ns < p.cooldown_ns or ts - st.leg_closed_ns < p.cooldown_ns:
        return 0
    st.entry_ts_ns = ts
    begin(risk, s, ts, side, Purpose.ENTRY)
    want = risk.intent[0]
    if rec.urgency >= p.market_urgency:
        want.order_type = OrderType.MARKET
    elif rec.urgency < p.post_only_below:
        want.order_type = OrderType.POST_ONLY
    else:
        want.order_type = OrderType.LIMIT
    refusal = limits.check_trading(risk.state, risk.glob, s, ts)
    if refusal == Refusal.NONE:
        if not (math.isfinite(rec.urgency) and math.isfinite(rec.atr_ticks) and rec.atr_ticks >= 0.0):
            refusal = Refusal.NOT_POSITIVE
        elif g.portfolio_e8 <= 0:
            refusal = Refusal.NO_EQUITY
    if refusal != Refusal.NONE:
        refuse(risk, refusal)
        return 0
    valued = limits.value_ticks(risk.state, s)
    if want.order_type != OrderType.MARKET:
        want.price_ticks = st.bid_ticks[0] if side > 0 else st.ask_ticks[0]
        valued = want.price_ticks
    distance = sizing.stop_distance_ticks(risk.params, mid_ticks(risk.state, s), rec.atr_ticks)
    want.qty_lots = sizing.entry_lots(risk, s, side, valued, distance)
    if want.qty_lots == 0:
        full = sizing.room_lots(risk, s, side) == 0
        refuse(risk, Refusal.MAX_POSITION if full else Refusal.MIN_NOTIONAL)
        return 0
    heat = heat_e8(risk) + loss_e8(risk.instruments, s, float(valued), float(want.qty_lots), distance)
    order_id = submit(risk, heat)
    if order_id > 0:
        st.entry_id = order_id
        st.stop_distance = distance
        note_due(risk, s, ts, EXIT_RETRY_NS)
    return g.n_orders


@lean
def on_quote(recs: Recs, i: int, risk: RiskArrays) -> int:
    """Take a QUOTE_RECORD as the target and send what leads there. Returns orders written (at most 4)."""
    g = risk.glob[0]
    g.n_orders, g.n_refusals = 0, 0
    s = recs[i].symbol
    if s < 0 or s >= len(risk.state) or risk.instruments[s].make_market == 0:
        return 0
    follow_target(risk, recs[i])
    note_sweep(risk, recs[i].ts_ns)
    return g.n_orders


@lean
def on_report(recs: Recs, i: int, risk: RiskArrays) -> int:
    """Take a REPORT_RECORD: position, order table, loss limits. Returns orders written.

    A fill counts by its trade id, whether or not its order is in the table: the money has moved either way.
    """
    g = risk.glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    s, ts = rec.symbol, rec.ts_ns
    if s < 0 or s >= len(risk.state):
        g.foreign_count += 1
        return 0
    st = risk.state[s]
    slot = orders.find(risk.glob, rec.order_id)
    if slot >= 0 and (g.orders[slot].symbol != s or g.orders[slot].side != rec.side):
        slot = -1
    if slot < 0:
        g.foreign_count += 1
    new_lots = 0
    if rec.exec_type == ExecType.FILL:
        if rec.last_lots <= 0 or rec.last_ticks <= 0 or (rec.side != Side.BUY and rec.side != Side.SELL):
            g.foreign_count += 1
            return 0
        if not fills.first_sight(st.trades, 0, rec.trade_id):
            g.repeat_count += 1
            return 0
        new_lots = rec.last_lots
        g.fill_count += 1
        positions.apply_fill(risk.state, risk.instruments, rec)
        purpose = g.orders[slot].purpose if slot >= 0 else rec.purpose
        if purpose == Purpose.ENTRY:
            exits.enter_leg(risk.state, s, rec.side, rec.last_ticks, new_lots, ts)
        elif limits.is_exit(purpose) and st.leg_lots * rec.side < 0:
            exits.close_leg(risk.state, s, new_lots, ts)
    ended_now = False
    if slot >= 0 and 0 < rec.exec_type <= ExecType.EXPIRED:
        was_live = orders.is_live(risk.glob, slot)
        before = orders.reserved_lots(risk.glob, slot)
        orders.step(risk.glob, slot, rec.exec_type, new_lots, rec.cum_lots)
        change = orders.reserved_lots(risk.glob, slot) - before
        if rec.side > 0:
            st.open_buy_lots += change
        else:
            st.open_sell_lots += change
        ended_now = was_live and not orders.is_live(risk.glob, slot)
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
        _remark(risk, s, ts)
    if ended_now and g.ended == 0:
        retry_quotes(risk, s, ts)
    # what has ended may be what stood in an exit's way: then it is tried at once
    note_due(risk, s, ts, 0 if ended_now else EXIT_RETRY_NS)
    return g.n_orders


@lean
def on_control(recs: Recs, i: int, risk: RiskArrays) -> int:
    """Take a CONTROL_RECORD: HALT cancels everything and refuses what is new, RESUME lifts it. Returns orders written."""
    g = risk.glob[0]
    g.n_orders, g.n_refusals = 0, 0
    rec = recs[i]
    if rec.kind == Kind.HALT:
        if g.halted == 0:
            g.halt_reason = rec.reason
        g.halted = 1
        if g.ended == 0:
            cancel_all(risk, -1, rec.ts_ns)
    elif rec.kind == Kind.RESUME:
        g.halted, g.halt_reason = 0, 0
        if rec.reason == Refusal.DRAWDOWN:
            g.peak_e8, g.drawdown_breached = g.portfolio_e8, 0
        elif rec.reason == Refusal.LOSS_LIMIT:
            g.day_start_e8, g.day_breached = g.portfolio_e8, 0
    for s in range(len(risk.state)):  # a halt holds exits back
        note_due(risk, s, rec.ts_ns, 0)
    return g.n_orders


@lean
def on_market_end(ts_ns: int, risk: RiskArrays) -> int:
    """The session is over: cancel every open order; no order is written ever after. Returns orders written.

    Later wishes are refused with SESSION_ENDED; later reports still count.
    """
    g = risk.glob[0]
    g.n_orders, g.n_refusals = 0, 0
    if g.ended == 0:
        cancel_all(risk, -1, ts_ns)
        g.ended, g.due_ns = 1, TS_END
    return g.n_orders
