"""Which streams the receiver subscribes anew, and when: by what the feed wants, another line brings, or time tells; and what
venues are sent for it."""

from __future__ import annotations

import json
import random

import pytest

from procs.cli import lines
from procs.cli.table import plain
from procs.receiver.budget import ConnectBudget
from procs.receiver.line_table import BEHIND, NEVER, PROVED, SILENT
from procs.receiver.lines import LinePolicy, LineState
from procs.receiver.stream_watch import AGAIN_NS, PAUSE_NS, PEER_NS, STUBBORN, StreamWatch
from procs.receiver.venue_lines import VenueLines
from trading.instruments import Market
from trading.records import Stream
from trading.venues.names import VENUES
from trading.venues.protocol import RESTREAM, STREAMS, Streams, Venue, VenueSymbol, code_of
from trading.venues.registry import make_venue

S = 1_000_000_000
SILENCE = 60 * S
DEPTH = code_of(0, Stream.DEPTH)
NAMES = {
    Market.BYBIT: ("linear:BTCUSDT", "linear:ETHUSDT"), Market.OKX: ("BTC-USDT", "ETH-USDT"),
    Market.KRAKEN: ("BTC/USD", "ETH/USD"), Market.COINBASE: ("BTC-USD", "ETH-USD"),
    Market.DERIBIT: ("BTC-PERPETUAL", "ETH-PERPETUAL"),
}  # fmt: skip


def venue(market: Market, *, mark: bool = False) -> Venue:
    """With two symbols."""
    names = NAMES.get(market, ("BTCUSDT", "ETHUSDT"))
    return make_venue(market, [VenueSymbol(i, f"S{i}", name) for i, name in enumerate(names)], Streams(mark=mark))


class Watched:
    """The lines of a venue that are up, by hand, and their watch."""

    def __init__(self, market: Market = Market.BINANCE_SPOT, copies: int = 1, mark: bool = False) -> None:
        self.venue = venue(market, mark=mark)
        plans = self.venue.connections()
        connects = ConnectBudget(100, S, file=None, wall_ns=lambda: 0, now_ns=0)
        self.lines = VenueLines(plans, copies, LinePolicy(), connects, random.Random(1)).lines
        self.watch = StreamWatch(self.venue, self.lines, SILENCE, random.Random(2))
        self.used = [number for number in self.lines if number % 2 == 0]
        for number in self.used:
            line = self.lines[number]
            line.state, line.told = LineState.UP, set(line.plan.symbols)
            self.watch.up(number, line.plan.symbols, 0)

    def hear(self, now: int, *codes: int, line: int = 0) -> None:
        """Messages of these streams."""
        for code in codes:
            self.watch.heard[line][code] = now


def test_a_wish_is_tried_more_and_more_slowly_until_the_stream_flows() -> None:
    """The feed wants a stream: it is subscribed anew at once, then after pauses that grow; after four tries in vain the line is
    given up. One message ends it; a stream that dies again soon goes on where it was, one that lived for long begins anew."""
    at = Watched()
    assert at.watch.want(DEPTH, PROVED, 0) and not at.watch.want(DEPTH, PROVED, 0)
    tries = []
    now = 0
    while len(tries) < STUBBORN:
        tries += [(now, give_up) for _, _, give_up in at.watch.due(now)]
        now += S
    times = [t for t, _ in tries]
    assert times[0] == 0 and [give_up for _, give_up in tries] == [False] * (STUBBORN - 1) + [True]
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert gaps == sorted(gaps) and gaps[-1] >= 2 * gaps[0] >= PAUSE_NS
    at.hear(now, DEPTH)
    assert at.watch.due(now + 1) == [] and not at.watch.wishes
    at.watch.want(DEPTH, PROVED, now + AGAIN_NS // 2)
    assert at.watch.due(now + AGAIN_NS // 2) == []
    at.watch.down(0, (0, 1))
    other = code_of(1, Stream.BBO)
    at.watch.want(other, PROVED, now)
    assert at.watch.due(now) == [(0, other, False)]
    at.hear(now + S, other)
    at.watch.due(now + S)
    assert at.watch.want(other, PROVED, now + 2 * AGAIN_NS)


def test_prints_that_are_only_late_never_cost_the_line() -> None:
    """What the feed knows of prints is no proof: they are subscribed anew again and again, and the connection stays."""
    at = Watched()
    code = code_of(0, Stream.PRINTS)
    at.watch.want(code, PROVED, 0)
    found = [due for now in range(0, 3600 * S, S) for due in at.watch.due(now)]
    assert len(found) > 2 * STUBBORN and not any(give_up for _, _, give_up in found)


def test_one_symbol_of_fifty_of_which_nothing_comes() -> None:
    """Every symbol of a connection speaks but one: its streams alone are subscribed anew, after the silence timeout and not
    before; what has not answered twice is told to be worth nothing. When it speaks again all is forgotten."""
    at = Watched(Market.OKX)
    quiet, loud = 1, 0
    streams = (Stream.DEPTH, Stream.BBO, Stream.PRINTS)
    at.hear(S, *(code_of(quiet, stream) for stream in streams))
    wanted: list[tuple[int, int, str]] = []
    for now in range(S, 200 * S, S):
        at.hear(now, *(code_of(loud, stream) for stream in streams))
        wanted += [(now, code, why) for code, why in at.watch.look(now)]
        at.watch.due(now)
        assert at.watch.unanswered(quiet) is False or now > SILENCE + PAUSE_NS // 2
    assert [(code, why) for _, code, why in wanted] == [(code_of(quiet, stream), SILENT) for stream in streams]
    assert {now for now, _, _ in wanted} == {SILENCE + S} and at.watch.unanswered(quiet)
    at.hear(201 * S, *(code_of(quiet, stream) for stream in streams))
    assert at.watch.due(202 * S) == [] and not at.watch.wishes and not at.watch.unanswered(quiet)


def test_a_stream_that_never_spoke_is_subscribed_anew() -> None:
    """Best bid/offer was confirmed and has brought nothing for the whole silence timeout while depth and prints go on."""
    at = Watched()
    found = []
    for now in range(0, 70 * S, S):
        for symbol in (0, 1):
            at.hear(now, code_of(symbol, Stream.DEPTH), code_of(symbol, Stream.PRINTS))
        at.hear(now, code_of(1, Stream.BBO))
        found += at.watch.look(now)
    assert found == [(code_of(0, Stream.BBO), NEVER)]


@pytest.mark.parametrize("stream", [Stream.DEPTH, Stream.BBO, Stream.PRINTS])
def test_of_two_lines_the_one_that_is_behind_is_found(stream: Stream) -> None:
    """A stream dies on line B while line A brings it: within seconds it is subscribed anew on B alone. Sparse messages whose
    copies come a moment later are no such thing."""
    at = Watched(copies=2)
    a, b = at.used
    code = code_of(0, stream)
    for now in range(0, 60 * S, 7 * S):
        at.hear(now, code, line=a)
        assert at.watch.look(now) == []
        at.hear(now + S // 10, code, line=b)
        assert at.watch.look(now + S // 2) == []
    found: list[tuple[int, int, bool]] = []
    began = 60 * S
    for now in range(began, began + PEER_NS + 5 * S, S // 4):
        at.hear(now, code, line=a)
        at.watch.look(now)
        found += [due for due in at.watch.due(now) if due[1] == code]
    assert set(found) == {(b, code, False)} and at.watch.wishes[code, b].why is BEHIND
    at.hear(began + 20 * S, code, line=b)
    at.watch.due(began + 20 * S)
    assert (code, b) not in at.watch.wishes


def test_usdm_knows_which_connection_carries_what() -> None:
    """Depth and best bid/offer come by one connection, prints and mark prices by the other: each is subscribed there."""
    at = Watched(Market.BINANCE_USDM, mark=True)
    lines = {stream: at.watch.carriers(code_of(0, stream)) for stream in Stream}
    assert lines[Stream.DEPTH] == lines[Stream.BBO] != lines[Stream.PRINTS] == lines[Stream.MARK]
    assert all(len(found) == 1 for found in lines.values())


def test_the_table_shows_ages_and_reasons() -> None:
    """Each symbol with the age of each of its streams, null for one that never spoke, and what is wanted anew."""
    at = Watched()
    at.hear(5 * S, DEPTH)
    at.watch.want(DEPTH, PROVED, 6 * S)
    first, second = at.watch.rows({0: "BTCUSDT", 1: "ETHUSDT"}, 8 * S)
    assert first["ages_s"] == {"depth": 3.0, "bbo": None, "prints": None} and second["wanted"] == []
    assert first["wanted"] == [{"stream": "depth", "line": None, "why": PROVED, "dead_s": 2.0, "tries": 0}]


@pytest.mark.parametrize("width", [80, 120])
def test_the_command_shows_ages_and_names_what_is_dead(width: int) -> None:
    """`scalperctl lines`: a row a symbol with the age of each stream; a stream that is surely dead is a trouble, one of a symbol
    that may only be idle is not; nothing is wider than the terminal."""
    at = Watched()
    at.hear(5 * S, DEPTH)
    at.watch.want(DEPTH, PROVED, 6 * S)
    at.watch.want(code_of(1, Stream.PRINTS), SILENT, 6 * S)
    venue_row = {"venue": "binance_spot", "stream_url": "wss://x", "transport": "picows", "lines": [
        {"line": 0, "copy": "A", "state": "UP", "symbols": 2, "symbols_up": 2, "age_s": 8.0, "last_message_s": 0.1, "messages": 9,
         "bytes": 100, "gaps": 0, "lost": 0, "unknown": 0, "downs": 0, "last_end": ""}],
        "streams": at.watch.rows({0: "BTCUSDT", 1: "ETHUSDT"}, 8 * S)}  # fmt: skip
    found = {"table_age_s": 0.5, "frames": {"dropped": 0}, "venues": [venue_row]}
    assert lines.troubles(found, "paper") == [
        f"BTCUSDT depth of binance_spot is dead for 2 s ({PROVED}): tried 0 times"
    ]
    text = lines.render(found, lines.troubles(found, "paper"), width, plain)
    (row,) = [line for line in text if "BTCUSDT" in line and not line.startswith("!")]
    assert "3 s" in row and "never" in row and any("DEPTH" in line and "PRINTS" in line for line in text)
    assert max(len(line) for line in text if not line.startswith("!")) <= width


WORDS = {
    Market.BINANCE_SPOT: ("btcusdt@depth@100ms", "btcusdt@bookTicker", "btcusdt@trade"),
    Market.BINANCE_USDM: ("btcusdt@depth@100ms", "btcusdt@bookTicker", "btcusdt@aggTrade"),
    Market.BYBIT: ("orderbook.1000.BTCUSDT", "orderbook.1.BTCUSDT", "publicTrade.BTCUSDT"),
    Market.OKX: ('"books"', '"bbo-tbt"', '"trades"'),
    Market.KRAKEN: ('"book"', '"ticker"', '"trade"'),
    Market.COINBASE: ('"level2"', '"ticker"', '"market_trades"'),
    Market.DERIBIT: ("book.BTC-PERPETUAL.100ms", "quote.BTC-PERPETUAL", "trades.BTC-PERPETUAL.100ms"),
}


@pytest.mark.parametrize("market", VENUES)
def test_every_venue_can_be_told_to_begin_a_stream_anew(market: Market) -> None:
    """Two messages, to leave and to enter, that name this stream of this symbol and no other, as its connection named it; a
    number in them is of no other request. A stream that is not there has none."""
    one = venue(market)
    for stream, word in zip((Stream.DEPTH, Stream.BBO, Stream.PRINTS), WORDS.get(market, ()), strict=False):
        leave, enter = (message.decode() for message in one.stream_messages(0, stream))
        assert "unsub" in leave.lower() and "unsub" not in enter.lower() and word in leave and word in enter
        others = [other for other in WORDS[market] if other != word]
        assert not any(f'"{other.strip(chr(34))}"' in enter for other in others)
        told = json.loads(enter)
        number = told.get("id", told.get("req_id"))
        assert number is None or int(number) == RESTREAM + code_of(0, stream)
    assert list(one.stream_messages(0, Stream.MARK)) == [] and STREAMS == len(Stream)
