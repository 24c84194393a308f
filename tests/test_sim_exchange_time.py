"""The simulated exchange, one scenario a row: queues, prints, stale books, fees, times and the end of the session."""

from __future__ import annotations

import pytest

from sim.exchange import fold as ex
from sim.settings import Latency, SimulatedExchange
from sim.worlds.exchange import BOOK, INSTRUMENTS, LOT, MS, T0, ExchangeWorld, level, opened
from trading.records import TS_END, ExecType, Kind, OrderStatus, OrderType, Side, TimeInForce

BUY, SELL = Side.BUY, Side.SELL


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
    assert int(venue.glob[0]["orders"]["ahead"][slot]) == LOT
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
        ahead.append(int(venue.glob[0]["orders"]["ahead"][int(venue.state[0]["first"])]))
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
    venue = ExchangeWorld()
    venue.order(1, 1, BUY, 0, 1, OrderType.MARKET)
    venue.advance(60)
    assert venue.told() == [(1, "REJECT", "VENUE_BOOK_STALE")]


def test_fees_are_exact() -> None:
    """Taker 5 bps of 102 * 1 coin is 0.051; maker -0.5 bps of 100 * 0.4 is a rebate of 0.002, to the unit of 1e-8."""
    venue = opened()
    venue.order(1, 1, BUY, 102, 1, tif=TimeInForce.IOC)
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
