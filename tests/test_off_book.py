"""Prints that were not made in the book: they move no feature, do not wipe the volume profile, and fill no resting order."""

from __future__ import annotations

import numpy as np
import pytest
from features_markets import random_walk, start_features
from test_features_properties import OPEN, run

from sim.worlds.exchange import level, opened
from trading.features import volume_profile
from trading.jit import Recs
from trading.off_book import PARTS, TICKS, off_book
from trading.records import Flag, Kind, OrderType, Side
from trading.settings import Strategy

AT = 2500
"""Where the odd print comes in these markets: long after everything is warm."""


def with_print(recs: Recs, price: int, lots: int) -> Recs:
    """The market with one more print, at the time and over the book of record AT."""
    odd = recs[AT].copy()
    odd["kind"], odd["flags"], odd["price_ticks"], odd["qty_lots"] = Kind.TRADE, Flag.BOOK_VALID, price, lots
    return np.insert(recs, AT + 1, odd)


@pytest.mark.parametrize("share", [0.3, 0.985, 1.02, 40.0])
def test_a_print_off_the_book_moves_no_feature(share: float) -> None:
    """With or without it every signal record and every strength is the same; one at the book's own price is not."""
    recs = random_walk(17, 3000)
    assert recs[AT]["flags"] & Flag.BOOK_VALID
    plain, strengths, _ = run(recs, OPEN)
    odd, other, _ = run(with_print(recs, int(recs[AT]["ask_ticks"][0] * share), 10**9), OPEN)
    for name in ("score", "vpin", "order_flow", "microstructure", "atr_ticks", "side", "gate"):
        assert np.delete(odd[name], AT + 1).tolist() == plain[name].tolist(), name
    np.testing.assert_array_equal(np.delete(other, AT + 1, 0), strengths)
    near, _, _ = run(with_print(recs, int(recs[AT]["ask_ticks"][0]), 10**9), OPEN)
    assert np.delete(near["vpin"], AT + 1).tolist() != plain["vpin"].tolist()


def test_one_print_does_not_wipe_the_volume_profile() -> None:
    """A print beyond the window from which the book is far is not counted; where the book has gone with it, the window goes."""
    state, _, params, _ = start_features(Strategy())
    s, p = state[0], params[0]
    s["mid"] = 6_000_000.0
    for price in range(5_999_000, 6_001_000, 50):
        volume_profile.take(s, p, price, 100)
    before, low, total = s["profile_lots"].copy(), int(s["profile_low"]), float(s["profile_total"])
    width = int(s["profile_width"])
    far = 6_000_000 + width * (volume_profile.HALF + volume_profile.PROFILE_BINS)
    volume_profile.take(s, p, far, 10**9)
    assert s["profile_lots"].tolist() == before.tolist() and (int(s["profile_low"]), float(s["profile_total"])) == (low, total)
    s["mid"] = float(far)
    volume_profile.take(s, p, far, 100)
    assert int(s["profile_poc"]) == far // width and int(s["profile_low"]) == far // width - volume_profile.HALF


def test_the_bound_is_a_share_of_the_price_and_some_ticks() -> None:
    """On both sides, by keys; cheap instruments, whose tick is a large share of the price, have ten ticks."""
    for best in (-6_000_000, 6_000_000):
        assert not off_book(best + 6_000_000 // PARTS, best) and off_book(best + 6_000_000 // PARTS + 1, best)
        assert not off_book(best - 5_000_000, best)  # before the best: the book has not shown it yet
    assert not off_book(60 + TICKS, 60) and off_book(60 + TICKS + 1, 60)


def test_a_print_off_the_book_fills_no_resting_order_until_the_depth_says_so() -> None:
    """Prints far below fill no bid and use up no queue; one near enough that goes through it does; and so do the other side's
    quotes, which come when such a print was true."""
    venue = opened()
    venue.order(1, 7, Side.BUY, 99, 1, OrderType.LIMIT)
    venue.order(1, 8, Side.BUY, 98, 1, OrderType.LIMIT)
    venue.advance(100)
    for price in (1, 50, 100 - TICKS - 1):
        venue.trade(101, price, 1000, seller=True)
    assert venue.told() == [(7, "ACK"), (8, "ACK")] and venue.glob[0]["prints_off_book"] == 3
    venue.depth(102, [level("bid", price, 0) for price in (100, 99, 98)] + [level("ask", 60, 2)])
    assert venue.told()[2:] == [(7, "FILL", 99, 1.0, "maker"), (8, "FILL", 98, 1.0, "maker")]


def test_without_a_book_prints_are_judged_by_the_prints_before_them() -> None:
    """While the book is stale a resting order fills by prints that go there step by step, and by none that jumps."""
    venue = opened()
    venue.order(1, 7, Side.SELL, 120, 1, OrderType.LIMIT)
    venue.advance(100)
    venue.depth(101, [], Kind.STALE)
    venue.market(101, Kind.STALE, valid=False)
    for price in (130, 110, 500):
        venue.market(102, Kind.TRADE, price, 1, valid=False)
    assert venue.told() == [(7, "ACK")]
    venue.market(103, Kind.TRADE, 119, 1, valid=False)
    venue.market(104, Kind.TRADE, 121, 1, valid=False)
    assert venue.told() == [(7, "ACK"), (7, "FILL", 120, 1.0, "maker")]
