"""The simulated exchange, driven by hand: a market, orders and cancels go in by time, reports come out.

It is the exchange of paper trading and of the backtest (sim.exchange, whose first lines say what it assumes), with latencies that
are fixed unless you give others. Times are milliseconds from T0; give them in order. Prices are ticks, quantities coins.

What this is not: a whole pipeline. Nothing decides here, and nothing limits what you order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.exchange import fold as ex
from sim.settings import Latency, SimulatedExchange
from trading.instruments import Instrument, instrument_table
from trading.jit import Recs
from trading.records import (
    DEPTH_RECORD,
    MARKET_RECORD,
    ORDER_RECORD,
    REPORT_RECORD,
    ExecType,
    Flag,
    Kind,
    OrderType,
    Purpose,
    Refusal,
    Side,
    TimeInForce,
)

T0 = 1_700_000_000 * 10**9
"""Unix ns at which a world begins."""
MS = 1_000_000
LOT = 100_000_000
"""Lots of one coin."""
INSTRUMENTS = instrument_table(
    [
        Instrument(
            "AAAUSDT", tick_size="1", maker_fee_bps=-0.5, taker_fee_bps=5.0, step_size="0.1", min_qty="0.1", max_qty="100"
        ),
        Instrument("BBBUSDT", tick_size="1", step_size="0.1", min_qty="0.1"),
    ]
)
"""Two symbols with ticks of 1: the first pays half a basis point to makers and takes five from takers."""


def level(side: str, price: int, coins: float) -> tuple[int, int, int]:
    """One depth level, as `ExchangeWorld.depth` takes it: flags, price in ticks, lots. `side` is "bid" or "ask"."""
    return (int(Flag.ASK) if side == "ask" else 0, price, round(coins * LOT))


BOOK = [
    level("bid", 100, 2),
    level("bid", 99, 5),
    level("bid", 98, 9),
    level("ask", 102, 1),
    level("ask", 103, 4),
    level("ask", 105, 6),
]
"""What `opened` shows: 100 bid, 102 asked."""


@dataclass
class ExchangeWorld:
    """The exchange and everything that it reported (`reports`, REPORT_RECORDs in order; `told` says them in words).

    `latency`: 10 ms in and 20 ms out unless you give another. `queue_power` is the queue model's exponent, `share` how much of
    what is shown a taker gets. An order acts when it arrives: call `advance` or `finish` to let time pass.
    """

    queue_power: float = 2.0
    share: float = 1.0
    latency: Latency = field(
        default_factory=lambda: Latency(entry_min_ms=10.0, entry_max_ms=10.0, response_min_ms=20.0, response_max_ms=20.0)
    )
    instruments: Recs = field(default_factory=lambda: INSTRUMENTS)
    seed: int = 3

    def __post_init__(self) -> None:
        self.params = ex.make_params(
            SimulatedExchange(seed=self.seed, latency=self.latency, queue_power=self.queue_power, taker_depth_share=self.share),
            self.instruments,
        )
        self.state = np.zeros(len(self.instruments), ex.EXCH_STATE)
        self.glob = np.zeros(1, ex.EXCH_GLOBAL)
        ex.init(self.state, self.glob, self.params, self.instruments)
        self.out = np.zeros(ex.OUT_ROWS, REPORT_RECORD)
        self.reports: list[Any] = []
        self.update_id = 0

    def _took(self, n: int) -> int:
        self.reports += [row.copy() for row in self.out[:n]]
        return n

    @property
    def world(self) -> ex.ExchangeArrays:
        """The last argument of every kernel of sim.exchange.fold."""
        return ex.ExchangeArrays(self.state, self.glob, self.params, self.instruments, self.out)

    def depth(self, ms: float, levels: list[tuple[int, int, int]], kind: Kind = Kind.DEPTH, symbol: int = 0) -> None:
        """One depth message; a SNAPSHOT first forgets the book, STALE says that it is not known."""
        self.update_id += 10
        rows = [(Kind.SNAPSHOT, 0, 0, 0)] if kind is Kind.SNAPSHOT else []
        rows += [(Kind.DEPTH, *one) for one in levels] if kind is not Kind.STALE else [(Kind.STALE, 0, 0, 0)]
        recs = np.zeros(len(rows), DEPTH_RECORD)
        for k, (row_kind, flags, price, lots) in enumerate(rows):
            r = recs[k]
            r["ts_ns"], r["kind"], r["symbol"], r["update_id"] = T0 + round(ms * MS), row_kind, symbol, self.update_id
            r["flags"] = flags | (Flag.LAST if k == len(rows) - 1 else 0)
            r["price_ticks"], r["qty_lots"] = price, lots
        for k in range(len(rows)):
            self._took(ex.on_depth(recs, k, self.world))

    def edge(self, ms: float, flags: int, price: int, symbol: int = 0) -> None:
        """Beyond this price levels of the side may be missing; 0: none is. `flags`: Flag.ASK for that side."""
        recs = np.zeros(1, DEPTH_RECORD)
        r = recs[0]
        r["ts_ns"], r["kind"], r["symbol"], r["update_id"] = T0 + round(ms * MS), Kind.EDGE, symbol, self.update_id
        r["flags"], r["price_ticks"] = flags | Flag.LAST, price
        self._took(ex.on_depth(recs, 0, self.world))

    def market(
        self,
        ms: float,
        kind: Kind,
        price: int = 0,
        coins: float = 0,
        seller: bool = False,
        bbo: tuple[float, ...] = (),
        valid: bool = True,
        symbol: int = 0,
    ) -> None:
        """One market record. `bbo`: bid, coins, ask, coins; `seller`: the aggressor sold; `valid`: the book may be used."""
        recs = np.zeros(1, MARKET_RECORD)
        r = recs[0]
        r["ts_ns"], r["kind"], r["symbol"] = T0 + round(ms * MS), kind, symbol
        r["flags"] = (Flag.BOOK_VALID if valid else 0) | (Flag.AGGRESSOR_SELL if seller else 0)
        r["price_ticks"], r["qty_lots"] = price, round(coins * LOT)
        if bbo:
            self.update_id += 1
            r["update_id"] = self.update_id
            r["bid_ticks"][0], r["bid_lots"][0] = bbo[0], round(bbo[1] * LOT)
            r["ask_ticks"][0], r["ask_lots"][0] = bbo[2], round(bbo[3] * LOT)
        self._took(ex.on_market(recs, 0, self.world))

    def trade(self, ms: float, price: int, coins: float, seller: bool) -> None:
        """A print; `seller`: the aggressor sold."""
        self.market(ms, Kind.TRADE, price, coins, seller)

    def bbo(self, ms: float, bid: int, bid_coins: float, ask: int, ask_coins: float) -> None:
        """A best bid/offer message."""
        self.market(ms, Kind.BBO, bbo=(bid, bid_coins, ask, ask_coins))

    def order(
        self,
        ms: float,
        order_id: int,
        side: Side,
        price: int,
        coins: float,
        kind: OrderType = OrderType.LIMIT,
        tif: TimeInForce = TimeInForce.GTC,
        symbol: int = 0,
    ) -> None:
        """Send a new order: `price` in ticks (0 for MARKET), `order_id` any number that no other order has."""
        recs = np.zeros(1, ORDER_RECORD)
        r = recs[0]
        r["ts_ns"], r["kind"], r["symbol"], r["order_id"], r["side"] = T0 + round(ms * MS), Kind.NEW, symbol, order_id, side
        r["order_type"], r["time_in_force"], r["purpose"] = kind, tif, Purpose.ENTRY
        r["price_ticks"], r["qty_lots"], r["decision_ticks"], r["approved"] = price, round(coins * LOT), 101.0, 1
        self._took(ex.on_order(recs, 0, self.world))

    def cancel(self, ms: float, target: int, symbol: int = 0) -> None:
        """Send a cancel of the order with the id `target`."""
        recs = np.zeros(1, ORDER_RECORD)
        r = recs[0]
        r["ts_ns"], r["kind"], r["symbol"], r["order_id"], r["target_order_id"] = (
            T0 + round(ms * MS),
            Kind.CANCEL,
            symbol,
            10**6,
            target,
        )
        self._took(ex.on_order(recs, 0, self.world))

    def advance(self, ms: float) -> None:
        """Apply what arrives up to then."""
        while self._took(ex.advance(T0 + round(ms * MS), self.world)):
            pass

    def end(self, ms: float, which: int) -> None:
        """End a stream (`which` is END_MARKET, END_DEPTH or END_ORDERS of sim.exchange.fold)."""
        self._took(ex.on_end(T0 + round(ms * MS), which, self.world))

    def finish(self, ms: float) -> None:
        """Let everything arrive, and close the venue: what still rests expires."""
        while self._took(ex.finish(T0 + round(ms * MS), self.world)):
            pass

    def told(self) -> list[tuple[object, ...]]:
        """(order id, exec type, then price and coins of a fill, or the refusal) of every report."""
        rows: list[tuple[object, ...]] = []
        for r in self.reports:
            what = ExecType(int(r["exec_type"]))
            row: tuple[object, ...] = (int(r["order_id"]), what.name)
            if what is ExecType.FILL:
                row += (int(r["last_ticks"]), round(r["last_lots"] / LOT, 8), "maker" if r["maker"] else "taker")
            elif r["refusal"]:
                row += (Refusal(int(r["refusal"])).name,)
            rows.append(row)
        return rows


def opened(**settings: Any) -> ExchangeWorld:
    """A world that shows BOOK for the first symbol; `settings` are those of ExchangeWorld."""
    venue = ExchangeWorld(**settings)
    venue.depth(0, BOOK, Kind.SNAPSHOT)
    return venue

