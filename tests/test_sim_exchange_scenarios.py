"""The simulated exchange, one scenario a row: what goes in by time, what is reported."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from sim import exchange as ex
from sim.settings import Latency, SimulatedExchange
from trading.instruments import Instrument, instrument_table
from trading.records import (
    DEPTH_RECORD,
    MARKET_RECORD,
    ORDER_RECORD,
    REPORT_RECORD,
    TS_END,
    ExecType,
    Flag,
    Kind,
    OrderStatus,
    OrderType,
    Purpose,
    Refusal,
    Side,
    TimeInForce,
)

T0 = 1_700_000_000 * 10**9
MS = 1_000_000
LOT = 100_000_000  # one coin
INSTRUMENTS = instrument_table(
    [
        Instrument(
            "AAAUSDT", tick_size="1", maker_fee_bps=-0.5, taker_fee_bps=5.0, step_size="0.1", min_qty="0.1", max_qty="100"
        ),
        Instrument("BBBUSDT", tick_size="1", step_size="0.1", min_qty="0.1"),
    ]
)


def level(side: str, price: int, coins: float) -> tuple[int, int, int]:
    """One depth level: flags, price in ticks, lots."""
    return (int(Flag.ASK) if side == "ask" else 0, price, round(coins * LOT))


BOOK = [
    level("bid", 100, 2),
    level("bid", 99, 5),
    level("bid", 98, 9),
    level("ask", 102, 1),
    level("ask", 103, 4),
    level("ask", 105, 6),
]


@dataclass
class Venue:
    """The exchange with fixed latency (10 ms in, 20 ms out), and everything that it reported."""

    queue_power: float = 2.0
    share: float = 1.0
    latency: Latency = field(
        default_factory=lambda: Latency(entry_min_ms=10.0, entry_max_ms=10.0, response_min_ms=20.0, response_max_ms=20.0)
    )
    instruments: np.ndarray = field(default_factory=lambda: INSTRUMENTS)
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
        self.reports: list[np.void] = []
        self.update_id = 0

    def _took(self, n: int) -> int:
        self.reports += [row.copy() for row in self.out[:n]]
        return n

    @property
    def world(self) -> tuple[np.ndarray, ...]:
        """The trailing arguments of every kernel."""
        return self.state, self.glob, self.params, self.instruments, self.out

    def depth(self, ms: float, levels: list[tuple[int, int, int]], kind: Kind = Kind.DEPTH, symbol: int = 0) -> None:
        """One depth message; a SNAPSHOT first forgets the book."""
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
            self._took(ex.on_depth(recs, k, *self.world))

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
        """One market record."""
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
        self._took(ex.on_market(recs, 0, *self.world))

    def trade(self, ms: float, price: int, coins: float, seller: bool) -> None:
        """A print."""
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
        """Send a new order."""
        recs = np.zeros(1, ORDER_RECORD)
        r = recs[0]
        r["ts_ns"], r["kind"], r["symbol"], r["order_id"], r["side"] = T0 + round(ms * MS), Kind.NEW, symbol, order_id, side
        r["order_type"], r["time_in_force"], r["purpose"] = kind, tif, Purpose.ENTRY
        r["price_ticks"], r["qty_lots"], r["decision_ticks"], r["approved"] = price, round(coins * LOT), 101.0, 1
        self._took(ex.on_order(recs, 0, *self.world))

    def cancel(self, ms: float, target: int, symbol: int = 0) -> None:
        """Send a cancel."""
        recs = np.zeros(1, ORDER_RECORD)
        r = recs[0]
        r["ts_ns"], r["kind"], r["symbol"], r["order_id"], r["target_order_id"] = (
            T0 + round(ms * MS),
            Kind.CANCEL,
            symbol,
            10**6,
            target,
        )
        self._took(ex.on_order(recs, 0, *self.world))

    def advance(self, ms: float) -> None:
        """Apply what arrives up to then."""
        while self._took(ex.advance(T0 + round(ms * MS), *self.world)):
            pass

    def end(self, ms: float, which: int) -> None:
        """End a stream."""
        self._took(ex.on_end(T0 + round(ms * MS), which, *self.world))

    def finish(self, ms: float) -> None:
        """Close the venue."""
        while self._took(ex.finish(T0 + round(ms * MS), *self.world)):
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


def opened(**settings: object) -> Venue:
    """A venue that shows BOOK for the first symbol."""
    venue = Venue(**settings)  # type: ignore[arg-type]
    venue.depth(0, BOOK, Kind.SNAPSHOT)
    return venue


SELL, BUY = Side.SELL, Side.BUY
IOC = TimeInForce.IOC

TAKING = [
    ("market buy walks", BUY, 0, 2.5, OrderType.MARKET, [("FILL", 102, 1.0, "taker"), ("FILL", 103, 1.5, "taker")]),
    ("market sell walks", SELL, 0, 2.5, OrderType.MARKET, [("FILL", 100, 2.0, "taker"), ("FILL", 99, 0.5, "taker")]),
    (
        "market beyond the book",
        BUY,
        0,
        12,
        OrderType.MARKET,
        [
            ("FILL", 102, 1.0, "taker"),
            ("FILL", 103, 4.0, "taker"),
            ("FILL", 105, 6.0, "taker"),
            ("EXPIRED", "VENUE_NO_LIQUIDITY"),
        ],
    ),
    (
        "limit takes to its price and rests",
        BUY,
        103,
        6,
        OrderType.LIMIT,
        [("FILL", 102, 1.0, "taker"), ("FILL", 103, 4.0, "taker")],
    ),
    ("limit below rests", BUY, 101, 1, OrderType.LIMIT, []),
    ("post only rests", SELL, 102, 1, OrderType.POST_ONLY, []),
]


@pytest.mark.parametrize(("name", "side", "price", "coins", "kind", "rest"), TAKING, ids=[row[0] for row in TAKING])
def test_a_new_order_is_acknowledged_then_takes_what_is_shown(
    name: str, side: Side, price: int, coins: float, kind: OrderType, rest: list[tuple[object, ...]]
) -> None:
    """An accepted order gets ACK first and then one FILL a level, best first, at the level's price."""
    venue = opened()
    venue.order(1, 7, side, price, coins, kind)
    venue.advance(100)
    assert venue.told() == [(7, "ACK"), *((7, *row) for row in rest)]


REFUSED = [
    ("post only would cross", BUY, 102, 1, OrderType.POST_ONLY, "VENUE_POST_ONLY"),
    ("post only would cross, sell", SELL, 100, 1, OrderType.POST_ONLY, "VENUE_POST_ONLY"),
    ("step", BUY, 100, 1.05, OrderType.LIMIT, "VENUE_FILTER"),
    ("minimum quantity", BUY, 100, 0, OrderType.LIMIT, "VENUE_FILTER"),
    ("maximum quantity", BUY, 100, 100.1, OrderType.LIMIT, "VENUE_FILTER"),
    ("minimum notional", BUY, 10, 0.4, OrderType.LIMIT, "VENUE_FILTER"),
    ("no price", BUY, 0, 1, OrderType.LIMIT, "VENUE_FILTER"),
    ("no side", Side.NONE, 100, 1, OrderType.LIMIT, "VENUE_FILTER"),
    ("no type", BUY, 100, 1, OrderType.NONE, "VENUE_FILTER"),
]


@pytest.mark.parametrize(("name", "side", "price", "coins", "kind", "why"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_the_venue_refuses_gets_a_reject_with_its_reason(
    name: str, side: Side, price: int, coins: float, kind: OrderType, why: str
) -> None:
    """A refused order gets exactly one REJECT, no venue order id, and leaves nothing behind."""
    venue = opened()
    venue.order(1, 7, side, price, coins, kind)
    venue.advance(100)
    assert venue.told() == [(7, "REJECT", why)]
    assert venue.reports[0]["venue_order_id"] == 0 and venue.glob[0]["n_resting"] == 0


def test_a_symbol_out_of_range_is_refused() -> None:
    """An order for a symbol that the table lacks is refused and touches no memory."""
    venue = opened()
    venue.order(1, 7, BUY, 100, 1, symbol=9)
    venue.cancel(1, 7, symbol=-3)
    venue.advance(100)
    assert venue.told() == [(7, "REJECT", "VENUE_FILTER"), (7, "CANCEL_REJECT", "VENUE_UNKNOWN_ORDER")]


def test_ioc_takes_and_expires() -> None:
    """What an IOC limit cannot take at once expires; nothing rests."""
    venue = opened()
    venue.order(1, 7, BUY, 102, 3, tif=IOC)
    venue.advance(100)
    assert venue.told() == [(7, "ACK"), (7, "FILL", 102, 1.0, "taker"), (7, "EXPIRED", "VENUE_NO_LIQUIDITY")]
    assert venue.glob[0]["n_resting"] == 0


def test_the_same_liquidity_is_not_taken_twice_until_the_level_changes() -> None:
    """Taken quantity is missing for the next order, survives messages that leave the level alone, and is back after a change."""
    venue = opened()
    venue.order(1, 1, BUY, 102, 1, tif=IOC)
    venue.order(2, 2, BUY, 102, 1, tif=IOC)
    venue.advance(50)
    venue.depth(51, [level("ask", 103, 2)])
    venue.order(52, 3, BUY, 102, 1, tif=IOC)
    venue.bbo(53, 100, 3, 102, 1)  # the same ask quantity: no news
    venue.order(54, 4, BUY, 102, 1, tif=IOC)
    venue.advance(90)
    venue.bbo(91, 100, 3, 102, 1.5)
    venue.order(92, 5, BUY, 102, 1, tif=IOC)
    venue.advance(150)
    fills = [row[0] for row in venue.told() if row[1] == "FILL"]
    assert fills == [1, 5]


def test_a_share_of_the_shown_quantity_is_all_that_a_taker_gets() -> None:
    """taker_depth_share caps what each level gives."""
    venue = opened(share=0.5)
    venue.order(1, 1, BUY, 0, 4, OrderType.MARKET)
    venue.advance(50)
    assert [row[2:4] for row in venue.told() if row[1] == "FILL"] == [(102, 0.5), (103, 2.0), (105, 1.5)]


def test_a_newer_touch_overrides_the_book() -> None:
    """After a best bid/offer message the levels better than it are gone and its own quantity counts; the next depth ends that."""
    venue = opened()
    venue.bbo(1, 100, 2, 103, 0.5)
    venue.order(2, 1, BUY, 0, 1, OrderType.MARKET)
    venue.advance(20)
    assert [row[2:4] for row in venue.told() if row[1] == "FILL"] == [(103, 0.5), (105, 0.5)]
    venue.depth(30, [level("bid", 97, 1)])
    venue.order(31, 2, BUY, 0, 1, OrderType.MARKET)
    venue.advance(60)
    assert venue.told()[-1] == (2, "FILL", 102, 1.0, "taker")


def test_cancel_ends_a_resting_order_and_is_refused_for_any_other() -> None:
    """CANCELED for what rests; CANCEL_REJECT for the unknown, the cancelled and the filled."""
    venue = opened()
    venue.order(1, 1, BUY, 99, 1)
    venue.cancel(2, 1)
    venue.cancel(3, 1)
    venue.cancel(4, 55)
    venue.advance(100)
    unknown = "VENUE_UNKNOWN_ORDER"
    assert venue.told() == [(1, "ACK"), (1, "CANCELED"), (1, "CANCEL_REJECT", unknown), (55, "CANCEL_REJECT", unknown)]
    assert OrderStatus(int(venue.reports[1]["order_status"])) is OrderStatus.CANCELED and venue.reports[1]["leaves_lots"] == 0


def test_an_open_order_id_cannot_be_used_again() -> None:
    """The venue refuses a second order with the client id of an open one."""
    venue = opened()
    venue.order(1, 1, BUY, 99, 1)
    venue.order(2, 1, BUY, 98, 1)
    venue.advance(100)
    assert venue.told() == [(1, "ACK"), (1, "REJECT", "DUPLICATE")]


def test_prints_use_up_the_queue_then_fill() -> None:
    """A resting order fills by the prints beyond what was displayed when it arrived, partly first."""
    venue = opened()
    venue.order(1, 1, BUY, 100, 1)
    venue.advance(20)
    venue.trade(21, 100, 1.5, seller=True)
    assert len(venue.reports) == 1
    venue.trade(22, 100, 0.9, seller=True)  # 2 were ahead: 0.4 reach us
    venue.trade(23, 100, 0.3, seller=False)  # the other side's prints do not count
    venue.trade(24, 100, 5.0, seller=True)
    assert venue.told() == [(1, "ACK"), (1, "FILL", 100, 0.4, "maker"), (1, "FILL", 100, 0.6, "maker")]
    assert [int(r["order_status"]) for r in venue.reports[1:]] == [OrderStatus.PARTIAL, OrderStatus.FILLED]
    assert [int(r["leaves_lots"]) for r in venue.reports[1:]] == [round(0.6 * LOT), 0]


def test_a_print_through_our_price_fills_all() -> None:
    """A trade at a worse price than ours means that ours was reached: filled wholly at our price."""
    venue = opened()
    venue.order(1, 1, BUY, 100, 1)
    venue.order(2, 2, SELL, 102, 1)
    venue.advance(20)
    venue.trade(21, 99, 0.1, seller=True)
    venue.trade(22, 103, 0.1, seller=False)
    assert venue.told()[2:] == [(1, "FILL", 100, 1.0, "maker"), (2, "FILL", 102, 1.0, "maker")]


def test_prints_are_shared_between_our_orders_at_one_price() -> None:
    """One print does not fill two of our orders with the same quantity."""
    venue = opened()
    venue.order(1, 1, BUY, 101, 1)
    venue.order(2, 2, BUY, 101, 1)
    venue.advance(20)
    venue.trade(21, 101, 1.5, seller=True)
    assert venue.told()[2:] == [(1, "FILL", 101, 1.0, "maker"), (2, "FILL", 101, 0.5, "maker")]


def test_the_other_sides_quotes_reaching_our_price_fill_us_by_what_they_show() -> None:
    """An ask at or under our bid fills us at our price with the asks' displayed quantity, once."""
    venue = opened()
    venue.order(1, 1, BUY, 101, 3)
    venue.advance(20)
    venue.bbo(21, 100, 2, 101, 0.5)
    venue.bbo(22, 100, 2.5, 101, 0.5)
    assert venue.told()[1:] == [(1, "FILL", 101, 0.5, "maker")]
    venue.depth(30, [level("ask", 101, 1), level("ask", 100, 9), level("bid", 100, 0)])
    assert venue.told()[2:] == [(1, "FILL", 101, 2.5, "maker")]


def test_the_rest_of_a_taking_limit_is_not_filled_by_what_it_just_took() -> None:
    """The levels that a crossing limit emptied still stand in the recording; they do not fill its rest as a maker."""
    venue = opened()
    venue.order(1, 1, BUY, 103, 7)
    venue.advance(20)
    venue.bbo(21, 100, 2.5, 102, 1)
    venue.depth(30, [level("bid", 97, 1)])
    assert [row[3] for row in venue.told() if row[1] == "FILL"] == [1.0, 4.0]


def test_unexplained_decreases_move_us_by_the_power_model() -> None:
    """With 2 ahead of 8 and power 1, a decrease of 4 moves us by 2/8 of 4 = 1: then 1 lot of prints is ahead of us."""
    venue = opened(queue_power=1.0)
    venue.order(1, 1, BUY, 100, 1)
    venue.advance(20)
    venue.depth(21, [level("bid", 100, 8)])  # 6 join behind
    venue.depth(22, [level("bid", 100, 4)])
    assert venue.state[0]["first"] >= 0
    slot = int(venue.state[0]["first"])
    assert int(venue.glob[0]["o_ahead"][slot]) == LOT
    venue.trade(200, 100, 1.25, seller=True)
    assert venue.told()[1:] == [(1, "FILL", 100, 0.25, "maker")]


def test_a_level_change_seen_before_its_print_is_not_counted_twice() -> None:
    """bookTicker first and print second move the queue by the printed quantity, as the other order of the two does."""
    ahead = []
    for print_first in (False, True):
        venue = opened()
        venue.order(1, 1, BUY, 100, 1)
        venue.advance(20)
        venue.depth(21, [level("bid", 100, 6)])  # 2 ahead, 4 behind
        if print_first:
            venue.trade(22, 100, 1.0, seller=True)
            venue.bbo(22.1, 100, 5, 102, 1)
        else:
            venue.bbo(22, 100, 5, 102, 1)
            venue.trade(22.1, 100, 1.0, seller=True)
        ahead.append(int(venue.glob[0]["o_ahead"][int(venue.state[0]["first"])]))
    assert ahead == [LOT, LOT]


def test_a_stale_book_refuses_new_orders_and_lets_cancels_pass() -> None:
    """From STALE until the next whole snapshot: REJECT VENUE_BOOK_STALE, CANCELED."""
    venue = opened()
    venue.order(1, 1, BUY, 99, 1)
    venue.advance(20)
    venue.depth(30, [], Kind.STALE)
    venue.order(31, 2, BUY, 99, 1)
    venue.cancel(32, 1)
    venue.advance(60)
    venue.depth(70, BOOK, Kind.SNAPSHOT)
    venue.order(71, 3, BUY, 99, 1)
    venue.advance(90)
    venue.market(91, Kind.STALE, valid=False)
    venue.order(92, 4, BUY, 99, 1)
    venue.advance(120)
    venue.market(121, Kind.DEPTH)
    venue.order(122, 5, BUY, 99, 1)
    venue.advance(150)
    stale = "VENUE_BOOK_STALE"
    assert venue.told()[1:] == [(2, "REJECT", stale), (1, "CANCELED"), (3, "ACK"), (4, "REJECT", stale), (5, "ACK")]


def test_before_any_snapshot_the_book_is_stale() -> None:
    """A venue without a book takes no order."""
    venue = Venue()
    venue.order(1, 1, BUY, 0, 1, OrderType.MARKET)
    venue.advance(60)
    assert venue.told() == [(1, "REJECT", "VENUE_BOOK_STALE")]


def test_fees_are_exact() -> None:
    """Taker 5 bps of 102 * 1 coin is 0.051; maker -0.5 bps of 100 * 0.4 is a rebate of 0.002, to the unit of 1e-8."""
    venue = opened()
    venue.order(1, 1, BUY, 102, 1, tif=IOC)
    venue.order(2, 2, BUY, 100, 0.4)
    venue.advance(20)
    venue.trade(21, 99, 1, seller=True)
    assert [int(r["fee_e8"]) for r in venue.reports if r["exec_type"] == ExecType.FILL] == [5_100_000, -200_000]


def test_times_of_a_round_trip() -> None:
    """Fixed latency: sent at 1 ms, at the venue at 11 ms, seen at 31 ms; a market event's fill is seen 20 ms after it."""
    venue = opened()
    venue.order(1, 1, BUY, 100, 1)
    venue.advance(20)
    venue.trade(40, 99, 1, seller=True)
    ack, fill = venue.reports
    assert [int(ack[name]) - T0 for name in ("ts_sent_ns", "ts_exchange_ns", "ts_ns")] == [1 * MS, 11 * MS, 31 * MS]
    assert [int(fill[name]) - T0 for name in ("ts_sent_ns", "ts_exchange_ns", "ts_ns")] == [1 * MS, 40 * MS, 60 * MS]
    assert ex.min_entry_ns(venue.params) == 10 * MS and ex.min_response_ns(venue.params) == 20 * MS


def test_next_due_is_the_arrival_of_what_is_under_way() -> None:
    """TS_END with nothing under way, else the first arrival."""
    venue = opened()
    assert ex.next_due(venue.glob) == TS_END
    venue.order(1, 1, BUY, 100, 1)
    venue.order(3, 2, BUY, 99, 1)
    assert ex.next_due(venue.glob) == T0 + 11 * MS
    venue.advance(11)
    assert ex.next_due(venue.glob) == T0 + 13 * MS
    venue.advance(13)
    assert ex.next_due(venue.glob) == TS_END


def test_a_message_that_arrives_with_a_market_event_is_applied_before_it() -> None:
    """Ties go to the order: it rests when the print of the same nanosecond comes."""
    venue = opened()
    venue.order(1, 1, BUY, 101, 1)
    venue.trade(11, 101, 1, seller=True)
    assert venue.told() == [(1, "ACK"), (1, "FILL", 101, 1.0, "maker")]


def test_finish_applies_what_is_under_way_then_expires_and_refuses() -> None:
    """At the end a pending order still gets in, resting ones expire, later orders are refused."""
    venue = opened()
    venue.order(1, 1, BUY, 99, 1)
    venue.advance(20)
    venue.order(21, 2, BUY, 98, 1)
    venue.order(21, 3, BUY, 0, 1, OrderType.MARKET)
    venue.finish(22)
    venue.order(40, 4, BUY, 99, 1)
    venue.cancel(41, 1)
    venue.finish(60)
    closed = "VENUE_CLOSED"
    assert venue.told() == [
        (1, "ACK"),
        (2, "ACK"),
        (3, "ACK"),
        (3, "FILL", 102, 1.0, "taker"),
        (1, "EXPIRED", closed),
        (2, "EXPIRED", closed),
        (4, "REJECT", closed),
        (1, "CANCEL_REJECT", "VENUE_UNKNOWN_ORDER"),
    ]
    assert venue.glob[0]["n_resting"] == 0


def test_after_the_market_has_ended_cancels_pass_and_new_orders_do_not() -> None:
    """END of the market: orders sent before it get in, later ones are refused, cancels work; END of orders closes."""
    venue = opened()
    venue.order(1, 1, BUY, 99, 1)
    venue.order(2, 2, BUY, 98, 1)
    venue.end(5, ex.END_DEPTH)
    venue.end(5, ex.END_MARKET)
    venue.order(6, 3, BUY, 99, 1)
    venue.cancel(7, 1)
    venue.end(8, ex.END_ORDERS)
    venue.finish(9)
    assert venue.told() == [
        (1, "ACK"),
        (2, "ACK"),
        (3, "REJECT", "VENUE_CLOSED"),
        (1, "CANCELED"),
        (2, "EXPIRED", "VENUE_CLOSED"),
    ]


def test_a_full_table_refuses_what_would_rest_and_lets_takers_in() -> None:
    """MAX_ORDERS rest; the next limit is refused, a market order is not; after a cancel there is room again."""
    venue = opened()
    for k in range(ex.MAX_ORDERS):
        venue.order(1 + k / 1000, k + 1, BUY, 99, 0.1)
    venue.advance(20)
    venue.order(21, 9001, BUY, 99, 0.1)
    venue.order(22, 9002, BUY, 0, 0.5, OrderType.MARKET)
    venue.cancel(23, 17)
    venue.order(24, 9003, BUY, 99, 0.1)
    venue.advance(60)
    assert venue.told()[ex.MAX_ORDERS :] == [
        (9001, "REJECT", "VENUE_TABLE_FULL"),
        (9002, "ACK"),
        (9002, "FILL", 102, 0.5, "taker"),
        (17, "CANCELED"),
        (9003, "ACK"),
    ]
    venue.finish(100)
    assert sum(row[1] == "EXPIRED" for row in venue.told()) == ex.MAX_ORDERS


def test_a_full_line_answers_at_once() -> None:
    """More than MAX_PENDING messages under way: NEW and CANCEL beyond get an answer, none is lost."""
    venue = opened()
    for k in range(ex.MAX_PENDING):
        venue.order(1, k + 1, BUY, 0, 0.1, OrderType.MARKET, symbol=1)
    venue.order(1, 9001, BUY, 99, 0.1)
    venue.cancel(1, 4)
    assert venue.told() == [(9001, "REJECT", "VENUE_TABLE_FULL"), (4, "CANCEL_REJECT", "VENUE_TABLE_FULL")]
    venue.advance(100)
    assert len(venue.reports) == ex.MAX_PENDING + 2 and venue.glob[0]["reports_lost"] == 0


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    """Latency bounds the wrong way round, and no instrument."""
    with pytest.raises(ValueError, match="entry_min_ms 9.0 is above entry_max_ms"):
        ex.make_params(SimulatedExchange(latency=Latency(entry_min_ms=9.0, entry_max_ms=8.0)), INSTRUMENTS)
    with pytest.raises(ValueError, match="instrument"):
        ex.make_params(SimulatedExchange(), INSTRUMENTS[:0])
