"""A stream of a symbol that dies alone is noticed by what the others show, on every venue; a quiet market is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from muted_venue import TURN_NS, MutedVenue, S
from venue_wires import NAMES, T_MS, price_text, qty_text

from trading.books import ages
from trading.books import fold as market
from trading.books.state import Want
from trading.features import bars
from trading.instruments import Market
from trading.records import Flag, Kind, Stream
from trading.venues.names import VENUES, BestRule

LIMIT_NS = 2 * S
SILENCE_NS = 5 * S
BOOKS = (Stream.DEPTH, Stream.BBO)
MUTED = [(place, stream) for place in VENUES for stream in (Stream.DEPTH, Stream.BBO, Stream.PRINTS)]
MUTED += [(Market.BINANCE_USDM, Stream.MARK)]


def lively(place: Market, silence_ns: int = 1000 * S) -> MutedVenue:
    """A venue of which everything has flowed for some seconds, and nothing was found wrong."""
    venue = MutedVenue(place, owed_limit_ns=LIMIT_NS, silence_ns=silence_ns)
    venue.run(6)
    assert venue.right() and venue.wanted == [] and venue.feed.count("gaps") == 0
    return venue


def run_until(venue: MutedVenue, so: Callable[[], bool], within_s: float) -> float:
    """Turns until it is so; how many seconds that took."""
    began = venue.now
    while not so():
        venue.step()
        assert venue.now - began <= within_s * S, "it did not come about"
    return (venue.now - began) / S


@pytest.mark.parametrize(("place", "stream"), MUTED, ids=lambda it: it.name.lower())
def test_each_stream_that_dies_alone_is_found_and_heals(place: Market, stream: Stream) -> None:
    """Each stream of each venue is silenced alone. Depth and best bid/offer: within the limit no record may be decided on any
    more, each says why, and the stream is wanted anew; so it stays until it flows, then the book is valid and right within a
    second. Prints: within the silence and thrice the longest gap before, records say PRINTS_DEAD and the book stays. A dead
    mark price is wanted anew and changes nothing else. Nothing but the silenced stream is ever wanted."""
    venue = lively(place, SILENCE_NS)
    venue.silent.add(stream)
    began = venue.now
    if stream in BOOKS:
        most_s = (LIMIT_NS + ages.CONFIRM_NS) / S + 1.0  # the best moves each second at the latest
    else:
        most_s = (SILENCE_NS + ages.CONFIRM_NS) / S + ages.LONGER * 1.0 + 0.5
    run_until(venue, lambda: bool(venue.wanted), most_s)
    assert venue.wanted == [(venue.wanted[0][0], 1 << stream)]
    dead_ns = venue.wanted[0][0]
    venue.run(3)
    after = [(row, kinds) for at, row, kinds in venue.log if at >= dead_ns]
    for row, _ in after:
        flags = Flag(int(row["flags"]))
        assert (Flag.STREAM_DEAD in flags) is (stream in BOOKS)
        assert (Flag.BOOK_VALID in flags) is (stream not in BOOKS) is bool(bars.usable(row))
        assert (Flag.PRINTS_DEAD in flags) is (stream is Stream.PRINTS)
    assert ([Kind.STALE] in [kinds for _, kinds in after]) is (stream is Stream.DEPTH)
    assert all(at >= began for at, _ in venue.wanted) and len(venue.wanted) == 1
    venue.subscribe(stream)
    run_until(venue, lambda: venue.right() and venue.flags & (Flag.STREAM_DEAD | Flag.PRINTS_DEAD) == 0, 1.5)
    venue.run(4)
    assert venue.right() and len(venue.wanted) == 1 and venue.feed.state[0]["deaths"].tolist() == [
        int(it is stream) for it in Stream
    ]
    assert venue.feed.count("oracle_checked") == venue.feed.count("oracle_equal")


@pytest.mark.parametrize("place", VENUES, ids=lambda it: it.name.lower())
def test_a_quiet_market_gives_no_alarm(place: Market) -> None:
    """Ten minutes in which no depth message comes because the book does not change: the best bid/offer is said again and again,
    and there are a few prints (far off the book, as block trades are): the book stays valid and nothing is wanted."""
    venue = lively(place)
    for minute in range(20):
        venue.now += 30 * S
        venue.hear(venue.bbo())
        if minute % 10 == 5:
            venue.hear(venue.print(10))
        assert venue.flags & Flag.BOOK_VALID
    venue.run(2)
    assert venue.right() and venue.wanted == []


@pytest.mark.parametrize("place", VENUES, ids=lambda it: it.name.lower())
def test_a_best_price_that_goes_and_comes_back_is_no_alarm(place: Market) -> None:
    """The best quantity changes and is what it was within a turn, and depth tells nothing of it: nothing is owed."""
    venue = lively(place)
    best = venue.book.best(0, 1)[0]
    for _ in range(2):
        venue.now += S
        venue.book.sides[0][best[0]] = best[1] + 5
        venue.book.id += 1
        venue.hear(venue.bbo())
        venue.now += TURN_NS
        venue.book.sides[0][best[0]] = best[1]
        venue.book.id += 1
        venue.hear(venue.bbo())
    venue.now += 30 * S
    for _ in range(3):
        venue.now += S
        venue.hear(venue.bbo())
    assert venue.flags & Flag.BOOK_VALID and venue.wanted == []


@pytest.mark.parametrize("place", [it for it in VENUES if it.facts.best is BestRule.CHANGES], ids=lambda it: it.name.lower())
def test_best_prices_that_agree_by_chance_hide_no_dead_book(place: Market) -> None:
    """Depth is dead and the best bid/offer flips between the book's own best and another, twice a second: the levels behind it
    are old, so it is found within four times the limit."""
    venue = lively(place)
    best = venue.book.best(0, 1)[0]
    began = venue.now
    while not venue.wanted:
        for more in (5, 0):
            venue.now += 3 * TURN_NS
            venue.book.sides[0][best[0]] = best[1] + more
            venue.book.id += 1
            venue.hear(venue.bbo())
        assert venue.now - began < 4 * LIMIT_NS
    assert venue.wanted[0][1] == 1 << Stream.DEPTH and venue.flags & Flag.STREAM_DEAD


@pytest.mark.parametrize("place", VENUES, ids=lambda it: it.name.lower())
def test_a_process_that_was_stopped_finds_everything_at_once(place: Market) -> None:
    """Twenty seconds of messages come within a moment, the best bid/offer before the depth that explains it: no alarm."""
    venue = lively(place)
    venue.now += 20 * S
    for _ in range(200):
        now = venue.now
        venue.step()
        venue.now = now + 20_000
    venue.run(3)
    assert venue.right() and venue.wanted == []


@pytest.mark.parametrize("place", [Market.BINANCE_SPOT, Market.BINANCE_USDM, Market.OKX], ids=lambda it: it.name.lower())
def test_a_stream_that_lives_but_lags_is_dead(place: Market) -> None:
    """Depth comes, but five seconds late, while best bid/offer is current: by its ids the book is found too old."""
    venue = lively(place)
    venue.run(LIMIT_NS / S + 2.0, late_ns=5 * S)
    assert venue.wanted and venue.wanted[0][1] == 1 << Stream.DEPTH


def test_prints_beyond_the_book_prove_that_its_depth_is_dead() -> None:
    """Depth and best bid/offer die together: three prints beyond the best price begin what depth owes, and the print that shows
    the death is told all the same, on a book that nobody may use."""
    venue = lively(Market.BINANCE_SPOT)
    venue.silent |= {Stream.DEPTH, Stream.BBO, Stream.PRINTS}
    for _ in range(40):
        venue.step()
        venue.hear(venue.print(venue.book.best(1, 1)[0][0] + 50))
        if venue.wanted:
            break
    assert venue.wanted[0][1] == 1 << Stream.DEPTH
    _, row, kinds = venue.log[-1]
    assert row["kind"] == Kind.TRADE and row["price_ticks"] > 0 and Flag.BOOK_VALID not in venue.flags and kinds == [Kind.STALE]


def test_the_first_diff_after_a_dead_stream_asks_for_a_snapshot() -> None:
    """Binance: nothing is asked for while the stream is dead, for nothing would connect to it; the first diff asks, and why."""
    venue = lively(Market.BINANCE_SPOT)
    venue.silent.add(Stream.DEPTH)
    run_until(venue, lambda: bool(venue.wanted), 4)
    wants = venue.feed.count("wants")
    venue.run(5)
    assert venue.feed.count("wants") == wants and venue.feed.count("phase") == market.WAITING
    venue.subscribe(Stream.DEPTH)
    venue.step()
    assert venue.feed.count("wants") == wants + 1 and int(venue.feed.glob[0]["want_reason"]) in (Want.STREAM_DEAD, Want.NONE)
    assert venue.feed.count("first_reason") == Want.STREAM_DEAD


def test_what_was_owed_before_a_gap_is_forgotten() -> None:
    """Best bid/offer owes a message, then a depth message is lost and a snapshot mends the book: it owes from there."""
    venue = lively(Market.BINANCE_SPOT)
    venue.silent.add(Stream.BBO)
    venue.run(1.5)
    venue.silent.add(Stream.DEPTH)
    venue.run(0.1)
    venue.silent.discard(Stream.DEPTH)
    venue.run(1.0)
    assert venue.feed.count("gaps") == 1 and venue.right() and venue.wanted == []
    venue.subscribe(Stream.BBO)
    venue.run(3)
    assert venue.right() and venue.wanted == []


def test_lines_that_went_down_begin_the_ages_anew() -> None:
    """A minute without lines is no stream's death: after it nothing is owed, heard or dead."""
    venue = lively(Market.BINANCE_SPOT)
    feed = venue.feed
    feed.state[0]["dead"], feed.state[0]["owed_ns"] = 7, 5
    market.on_disconnect(0, venue.now, venue.now, feed.state, feed.glob, feed.params, feed.out, feed.rows)
    state = feed.state[0]
    assert state["dead"] == 0 and not state["heard_ns"].any() and not state["owed_ns"].any()
    venue.now += 60 * S
    venue.run(4)
    assert venue.right() and venue.wanted == []


def test_a_summary_that_stops_is_no_dead_stream() -> None:
    """OKX's tickers sum up now and then, and may be older than the book: their silence takes nothing away."""
    venue = MutedVenue(Market.OKX, owed_limit_ns=LIMIT_NS, silence_ns=1000 * S)
    venue.silent.add(Stream.BBO)
    venue.run(3)
    (bid, bid_lots), (ask, ask_lots) = (venue.book.best(side, 1)[0] for side in (0, 1))
    prices = {"bidPx": price_text(bid), "bidSz": qty_text(bid_lots), "askPx": price_text(ask), "askSz": qty_text(ask_lots)}
    name = NAMES[Market.OKX][0]
    told = {"arg": {"channel": "tickers", "instId": name}, "data": [{"instId": name, **prices, "ts": str(T_MS)}]}
    venue.hear(json.dumps(told).encode())
    assert venue.log[-1][1]["kind"] == Kind.BBO
    venue.run(20)
    assert Flag.BOOK_VALID in venue.flags and Flag.STREAM_DEAD not in venue.flags and venue.wanted == []
