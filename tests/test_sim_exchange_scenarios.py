"""The simulated exchange, one scenario a row: new orders, what they take, what is refused, cancels."""

from __future__ import annotations

import pytest

from sim.worlds.exchange import level, opened
from trading.records import Flag, OrderStatus, OrderType, Side, TimeInForce

BUY, SELL = Side.BUY, Side.SELL
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


def test_a_taker_stops_at_the_edge_of_what_is_known() -> None:
    """Beyond the edge levels may be missing, so nothing is had there; once the edge is further out, it is."""
    venue = opened()
    venue.edge(0.5, int(Flag.ASK), 103)
    venue.order(1, 7, BUY, 0, 6, OrderType.MARKET)
    venue.advance(100)
    assert venue.told() == [
        (7, "ACK"), (7, "FILL", 102, 1.0, "taker"), (7, "FILL", 103, 4.0, "taker"), (7, "EXPIRED", "VENUE_NO_LIQUIDITY"),
    ]  # fmt: skip
    venue.edge(101, int(Flag.ASK), 0)
    venue.order(102, 8, BUY, 0, 1, OrderType.MARKET)
    venue.advance(200)
    assert (8, "FILL", 105, 1.0, "taker") in venue.told()


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
