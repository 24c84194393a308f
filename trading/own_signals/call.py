"""How the one pass calls a user's own signals: what they see, what they answer, and what becomes of a wrong answer.

A user's function is compiled apart (trading.user_signals) and called by its address, so that the pass is the same machine
code with and without any: without, a record costs one comparison that always goes the same way.

    parameters --> table (USER_TABLE, one row a signal)   where its code and its fields are
                   rows (a record a symbol)               its fields: kept, checkpointed
                   status (USER_STATUS, one a signal)     counts, and since when it is off: kept, checkpointed
                   event, answer                          scratch of the call
                   guard (trading.own_signals.guard)      which call is running; what went wrong; what somebody switched off

An answer that is not finite is counted and the signal silent for that record. A call that fails (an index out of bounds, an
exception) switches the signal off for the rest of the run, at that record, for all symbols. A call that never comes back is the
supervisor's to end: the guard says which one it was, and a stop written there takes effect at that record, also when it is
computed again.

What this module is not: it compiles nothing of a user's; procs.research.signal_files does.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from trading.features import microprice
from trading.features.bars import Rec
from trading.features.layout import FEATURE_PARAMS
from trading.features.signals import N_SIGNALS, clip
from trading.jit import Words, lean, record_at
from trading.own_signals.guard import (
    FAULTS,
    GUARD_PLACES,
    GUARD_WORDS,
    NOT_FINITE,
    OFF_AT,
    OFF_WHY,
    RECORD,
    RUNNING,
    STOP_FROM,
    WHY_FAULT,
    WHY_STOPPED,
)
from trading.records import LEVELS, MAX_SIGNALS, Flag, Kind

MAX_USER_SIGNALS: Final = MAX_SIGNALS - N_SIGNALS
"""Places that the built-in signals leave."""

USER_EVENT: Final = np.dtype(
    [
        ("ts_ns", "i8"),
        ("kind", "i8"),  # trading.records.Kind
        ("symbol", "i8"),
        ("side", "i8"),  # of a trade's aggressor: 1 buyer, -1 seller; 0: no trade
        ("price_ticks", "i8"),  # of a trade, else 0
        ("qty_lots", "i8"),
        ("tick_size", "f8"),  # a tick in the quote currency
        ("lot_size", "f8"),
        ("mid", "f8"),  # ticks, as are all prices
        ("spread_bps", "f8"),
        ("microprice", "f8"),
        ("bid_ticks", "i8", LEVELS),  # best first; 0 where there is no level
        ("bid_lots", "i8", LEVELS),
        ("ask_ticks", "i8", LEVELS),
        ("ask_lots", "i8", LEVELS),
        ("volatility", "f8"),  # deviation of mid returns a second, a fraction; 0: not warm
        ("atr_ticks", "f8"),
        ("order_flow", "f8"),  # best-quote OFI of the window over the average depth
        ("flow_imbalance", "f8"),  # aggressors' lots over the window, -1..1
        ("vpin", "f8"),
        ("microstructure", "f8"),  # score 0..100 as of the record before
        ("regime", "i8"),  # trading.features.regime.Regime
        ("bar_closed", "i8"),  # 1: this record closed a bar
        ("strength", "f8", MAX_SIGNALS),  # of the built-in signals, by trading.features.signals.Signal
    ],
    align=True,
)
"""What a user's signal sees of a record, the same for every signal. Nothing in it is ever NaN."""

USER_ANSWER: Final = np.dtype([("strength", "f8"), ("ready", "i8")], align=True)
"""What it answers: 0 and 1 before each call."""

USER_TABLE: Final = np.dtype([("code", "i8"), ("offset", "i8")], align=True)
"""Address of the compiled function; bytes from the start of a symbol's row to the signal's own fields."""

USER_STATUS: Final = np.dtype(
    [("calls", "i8"), ("not_finite", "i8"), ("faults", "i8"), ("off_at", "i8"), ("off_why", "i8")], align=True
)
"""Counts of one signal over all symbols; `off_at`: number of the record from which it is off, 0: it is on."""

_GUARD: Final = np.dtype([("words", "i8", GUARD_WORDS)])

assert MAX_USER_SIGNALS <= GUARD_PLACES

_SELL: Final = int(Flag.AGGRESSOR_SELL)
_BYTE_P: Final = ir.IntType(8).as_pointer()


@intrinsic
def call_signal(typingctx: Any, code: Any, state: Any, event: Any, answer: Any) -> Any:
    """Call a function compiled for three records, by addresses; 0, or not 0 where it raised.

    numba's own convention: `int32 f(result*, exception**, record*, record*, record*)`. What it raises is a constant, so nothing
    is allocated.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result = cgutils.alloca_once_value(builder, ir.Constant(_BYTE_P, None))
        raised = cgutils.alloca_once_value(builder, ir.Constant(_BYTE_P, None))
        place = _BYTE_P.as_pointer()
        shape = ir.FunctionType(ir.IntType(32), [place, place, _BYTE_P, _BYTE_P, _BYTE_P])
        function = builder.inttoptr(args[0], shape.as_pointer())
        records = [builder.inttoptr(address, _BYTE_P) for address in args[1:]]
        return builder.sext(builder.call(function, [result, raised, *records]), ir.IntType(64))

    return types.int64(types.int64, types.int64, types.int64, types.int64), codegen


@lean
def _fill(event: Rec, rec: Rec, s: Rec, p: Rec, instrument: Rec, closed: int) -> None:
    event.ts_ns, event.kind, event.symbol = rec.ts_ns, rec.kind, rec.symbol
    event.side = event.price_ticks = event.qty_lots = 0
    if rec.kind == Kind.TRADE:
        event.side = -1 if rec.flags & _SELL else 1
        event.price_ticks, event.qty_lots = rec.price_ticks, rec.qty_lots
    event.tick_size, event.lot_size = instrument.tick_size, instrument.lot_size
    event.mid, event.spread_bps = s.mid, s.spread_bps
    event.microprice = s.mid + microprice.gap(s, s)
    for level in range(LEVELS):
        event.bid_ticks[level], event.bid_lots[level] = s.bid_ticks[level], s.bid_lots[level]
        event.ask_ticks[level], event.ask_lots[level] = s.ask_ticks[level], s.ask_lots[level]
    event.volatility, event.atr_ticks = s.volatility, s.atr if s.true_ranges >= p.atr_bars else 0.0
    event.order_flow, event.flow_imbalance, event.vpin = s.ofi_share, s.flow_imbalance, s.vpin
    event.microstructure, event.regime, event.bar_closed = s.microstructure, s.regime, closed
    for k in range(N_SIGNALS):
        event.strength[k] = s.strength[k]


@lean
def _call(p: Rec, k: int, symbol: int, record: int, status: Rec, guard: Words) -> tuple[float, int]:
    """(strength, ready) of user's signal k, of which the event is filled in."""
    if status.off_at != 0:
        return 0.0, 0
    if guard[STOP_FROM + k] != 0 and record >= guard[STOP_FROM + k]:
        status.off_at, status.off_why = record, WHY_STOPPED
        guard[OFF_AT + k], guard[OFF_WHY + k] = record, WHY_STOPPED
        return 0.0, 0
    row = record_at(p.user_table, k, USER_TABLE)
    answer = record_at(p.user_answer, 0, USER_ANSWER)
    answer.strength, answer.ready = 0.0, 1
    status.calls += 1
    guard[RECORD], guard[RUNNING] = record, k + 1
    failed = call_signal(row.code, p.user_rows + symbol * p.user_row_bytes + row.offset, p.user_event, p.user_answer)
    guard[RUNNING] = 0
    if failed != 0:
        status.faults += 1
        status.off_at, status.off_why = record, WHY_FAULT
        guard[FAULTS + k], guard[OFF_AT + k], guard[OFF_WHY + k] = status.faults, record, WHY_FAULT
        return 0.0, 0
    ready = 1 if answer.ready != 0 else 0
    if not math.isfinite(answer.strength):
        status.not_finite += 1
        guard[NOT_FINITE + k] = status.not_finite
        return 0.0, ready
    return clip(answer.strength) if ready else 0.0, ready


@lean
def evaluate(rec: Rec, s: Rec, p: Rec, instrument: Rec, record: int, closed: int) -> int:
    """Ask every signal of the user about a record with a usable book; their strengths and ready bits go into the state.

    `record`: how many records came before and with this one; `closed`: bars that it closed. Returns the mask of those that are
    switched off: they will never be ready, so nobody may wait for them.
    """
    off = 0
    event = record_at(p.user_event, 0, USER_EVENT)
    _fill(event, rec, s, p, instrument, 1 if closed > 0 else 0)
    guard = record_at(p.user_guard, 0, _GUARD).words
    for k in range(p.user_signals):
        status = record_at(p.user_status, k, USER_STATUS)
        strength, ready = _call(p, k, rec.symbol, record, status, guard)
        bit = 1 << (N_SIGNALS + k)
        s.strength[N_SIGNALS + k] = strength
        s.ready = s.ready | bit if ready else s.ready & ~bit
        s.voiced = s.voiced & ~bit | (bit if strength != 0.0 else 0)
        off |= bit if status.off_at != 0 else 0
    return off


assert FEATURE_PARAMS.fields is not None and "user_guard" in FEATURE_PARAMS.fields
