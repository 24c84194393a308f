"""A risk fold with its arrays, and words to speak to it: what the risk tests are written in. Holds no tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trading.instruments import Instrument, instrument_table
from trading.jit import Recs
from trading.records import (
    CONTROL_RECORD,
    MARKET_RECORD,
    QUOTE_RECORD,
    REPORT_RECORD,
    SIGNAL_RECORD,
    ExecType,
    Flag,
    Kind,
    Purpose,
    Refusal,
    Side,
)
from trading.risk import fold as risk
from trading.settings import Execution, Risk, Strategy

START_NS = 1_723_075_200_000_000_000  # 2024-08-08T00:00Z
MS = 1_000_000
S = 1_000 * MS
BID, ASK = 6_000_000, 6_000_010
LOT = 100_000_000
"""One coin."""
UNBOUNDED = Risk(
    equity=1e9,
    base_risk_pct=0.001,
    max_portfolio_heat=1.0,
    max_position_notional=1e7,
    max_order_notional=1e6,
    max_open_orders=256,
    max_orders_per_s=10_000,
    price_collar_bps=5_000.0,
    max_daily_loss_pct=100.0,
    max_drawdown_pct=100.0,
)
"""Limits that nothing in these tests meets by accident: a case tightens the one that it is about."""


def limits(**changes: float) -> Risk:
    """UNBOUNDED with some limits changed."""
    return Risk(**{name: getattr(UNBOUNDED, name) for name in UNBOUNDED.__struct_fields__} | changes)


def row(dtype: np.dtype, **fields: object) -> Recs:
    """One record."""
    rec = np.zeros(1, dtype)
    for name, value in fields.items():
        rec[name] = value
    return rec


class RiskWorld:
    """One risk fold; every call returns the orders written, `refused` holds the refusals of the last call."""

    def __init__(self, strategy: Strategy | None = None, symbols: int = 2) -> None:
        self.strategy = strategy or Strategy(risk=UNBOUNDED, execution=Execution(entry_cooldown_ms=0))
        names = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"][:symbols]
        self.instruments = instrument_table([Instrument(name) for name in names])
        self.arrays = risk.at_start(self.strategy, self.instruments)
        self.state, self.glob, self.params = self.arrays.state, self.arrays.glob, self.arrays.params
        self.orders_out, self.refusals_out = self.arrays.orders_out, self.arrays.refusals_out
        self.refused = self.refusals_out[:0]
        self.ts = START_NS
        self.trade_id = 0
        self.calls: list[tuple[Callable[..., int], Recs]] = []

    def feed(self, kernel: Callable[..., int], recs: Recs) -> Recs:
        """Give one record to a kernel of the fold."""
        self.calls.append((kernel, recs))
        return self._outputs(kernel(recs, 0, self.arrays))

    def _outputs(self, n: int) -> Recs:
        self.refused = self.refusals_out[: self.glob[0]["n_refusals"]].copy()
        assert (self.refused["approved"] == 0).all() and (self.refused["kind"] == Kind.REFUSED).all()
        out = self.orders_out[:n].copy()
        assert (out["approved"] == 1).all()
        return out

    def after(self, ns: int) -> RiskWorld:
        """Let time pass."""
        self.ts += ns
        return self

    def market(self, s: int = 0, bid: int = BID, ask: int = ASK, lots: int = 10 * LOT, **fields: int) -> Recs:
        """A book change with five levels a side."""
        self.ts += 1
        rec = row(MARKET_RECORD, ts_ns=self.ts, kind=Kind.DEPTH, symbol=s, flags=Flag.BOOK_VALID)
        rec["bid_ticks"] = bid - np.arange(5)
        rec["ask_ticks"] = ask + np.arange(5)
        rec["bid_lots"] = rec["ask_lots"] = lots
        for name, value in fields.items():
            rec[name] = value
        return self.feed(risk.on_market, rec)

    def signal(self, side: Side = Side.BUY, s: int = 0, urgency: float = 50.0, atr: float = 4_000.0, **fields: float) -> Recs:
        """The ensemble asks for a side."""
        self.ts += 1
        rec = row(SIGNAL_RECORD, ts_ns=self.ts, kind=Kind.SIGNAL, symbol=s, side=side, urgency=urgency, atr_ticks=atr, **fields)
        return self.feed(risk.on_signal, rec)

    def quote(self, bid: int, ask: int, lots: int = LOT // 100, s: int = 0, **fields: int) -> Recs:
        """The quoter's target; a price of 0 wants no such side."""
        self.ts += 1
        rec = row(QUOTE_RECORD, ts_ns=self.ts, kind=Kind.QUOTE, symbol=s, bid_ticks=bid, ask_ticks=ask)
        rec["bid_lots"], rec["ask_lots"] = lots if bid else 0, lots if ask else 0
        for name, value in fields.items():
            rec[name] = value
        return self.feed(risk.on_quote, rec)

    def control(self, kind: Kind, reason: int = 0) -> Recs:
        """HALT or RESUME."""
        self.ts += 1
        return self.feed(risk.on_control, row(CONTROL_RECORD, ts_ns=self.ts, kind=kind, reason=reason))

    def report(self, order: np.void, exec_type: ExecType, **fields: object) -> Recs:
        """A report about an order that the fold sent."""
        self.ts += 1
        base: dict[str, object] = {"ts_ns": self.ts, "kind": Kind.REPORT, "exec_type": exec_type}
        base |= {name: order[name] for name in ("order_id", "symbol", "side", "purpose", "price_ticks")}
        return self.feed(risk.on_report, row(REPORT_RECORD, **(base | fields)))

    def fill(self, order: np.void, lots: int | None = None, price: int | None = None, **fields: object) -> Recs:
        """The order trades: all of it at its price (MARKET: at the touch) unless said otherwise."""
        self.trade_id += 1
        lots = int(order["qty_lots"]) if lots is None else lots
        if price is None:
            touch = ASK if order["side"] > 0 else BID
            price = int(order["price_ticks"]) or touch
        known = self.order_row(int(order["order_id"]))
        cum = lots + (int(known["cum_lots"]) if known is not None else 0)
        base = {"trade_id": self.trade_id, "last_lots": lots, "last_ticks": price, "cum_lots": cum}
        return self.report(order, ExecType.FILL, **(base | fields))

    def hold(self, lots: int, price: int = BID, s: int = 0) -> None:
        """Let the symbol hold a position that no order of the table explains (signed lots)."""
        self.trade_id += 1
        side = Side.BUY if lots > 0 else Side.SELL
        rec = row(REPORT_RECORD, ts_ns=self.ts, kind=Kind.REPORT, symbol=s, side=side, exec_type=ExecType.FILL)
        rec["trade_id"], rec["last_lots"], rec["last_ticks"], rec["purpose"] = self.trade_id, abs(lots), price, Purpose.QUOTE
        self.feed(risk.on_report, rec)

    def end(self) -> Recs:
        """The market's END."""
        self.ts += 1
        return self._outputs(risk.on_market_end(self.ts, self.arrays))

    def order_row(self, order_id: int) -> np.void | None:
        """The fold's row of an order."""
        table = self.glob[0]["orders"]
        found = table[table["order_id"] == order_id]
        return found[0] if len(found) and order_id > 0 else None

    @property
    def reasons(self) -> list[Refusal]:
        """Refusals of the last call."""
        return [Refusal(int(r)) for r in self.refused["refusal"]]
