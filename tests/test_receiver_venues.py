"""The shipped link with the shipped venues and the feed's own fold, over sockets: what breaks comes back, nothing else breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from receiver_world import LIVE, until
from venue_speakers import KrakenSpeaker, OkxSpeaker, Run, Speaker, compile_fold

from procs.receiver import link as link_module
from procs.receiver.lines import LineState
from procs.receiver.rest import Outcome
from sim.local_venue import LocalVenue, generated
from sim.local_venue import Market as LocalMarket
from trading.books.fold import Want
from trading.instruments import Instrument, Market
from trading.records import Kind
from trading.venues.binance import BinanceSpot, BinanceUsdm
from trading.venues.kraken import Kraken
from trading.venues.okx import Okx
from trading.venues.protocol import Limits, RestRequest, Streams, Venue, VenueSymbol

SPEAKERS: dict[Market, tuple[type[Speaker], type[Venue], tuple[str, str]]] = {
    Market.OKX: (OkxSpeaker, Okx, ("BTC-USDT", "ETH-USDT")),
    Market.KRAKEN: (KrakenSpeaker, Kraken, ("BTC/USD", "ETH/USD")),
}
TYPED = pytest.mark.parametrize("market", list(SPEAKERS))
Body = Callable[[Any, Run], Awaitable[None]]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """No test's time goes into compiling."""
    compile_fold()


def run(market: Market, body: Body, made: Callable[[Venue], Venue] = lambda venue: venue, **more: Any) -> None:
    """One test of a typed venue with two symbols."""
    speaking, kind, names = SPEAKERS[market]
    symbols = [VenueSymbol(i, f"S{i}", name, "0.1", "0.00000001") for i, name in enumerate(names)]
    instruments = [Instrument(f"S{i}", market, "0.1", "0.00000001", "0.00000001", "0.00000001") for i in range(2)]

    async def whole() -> None:
        async with asyncio.timeout(120), speaking(names).serve() as speaker:
            url = f"127.0.0.1:{speaker.port}"
            venue = made(kind(symbols, Streams(snapshot_levels=1000)))
            async with Run(venue, instruments, f"ws://{url}", f"http://{url}", **more) as at:
                await until(lambda: at.right(speaker, 0) and at.right(speaker, 1))
                await body(speaker, at)

    asyncio.run(whole())


async def lose_a_message(speaker: Speaker, at: Run, name: str) -> None:
    """The next change of a book reaches nobody, the one after it does: its book is found out."""
    symbol = speaker.names.index(name)
    speaker.left_out.add(name)
    await speaker.trade(name, 2)
    await until(lambda: not at.behind.valid[symbol])


@TYPED
def test_subscribe_confirm_snapshot_updates(market: Market) -> None:
    """Two books over five hundred changes are the venue's; every checksum held, nothing was asked for twice, nothing was odd."""

    async def body(speaker: Speaker, at: Run) -> None:
        for _ in range(250):
            for name in speaker.names:
                await speaker.trade(name)
        await until(lambda: at.right(speaker, 0) and at.right(speaker, 1))
        feed = at.behind.feed
        for symbol in range(2):
            assert feed.count("checksum_checked", symbol) >= 250 and feed.count("checksum_failed", symbol) == 0
            assert Kind.STALE not in at.behind.kinds[symbol]
        assert speaker.subscriptions == speaker.names and at.link.counts[0].unknown == at.link.counts[0].refused == 0

    run(market, body)


@TYPED
def test_a_refused_resubscription_is_tried_until_the_snapshot_comes(market: Market) -> None:
    """A message is lost, the venue refuses the resubscription three times: each refusal is a failed try, the wish stays, and then
    the book is right again. The other symbol's book lives through it all."""

    async def body(speaker: Speaker, at: Run) -> None:
        speaker.refusals = 3
        await lose_a_message(speaker, at, speaker.names[0])
        await until(lambda: at.link.desk.failed_count == 3)
        assert at.link.desk.waiting == 1 and not at.behind.valid[0]
        await until(lambda: at.right(speaker, 0))
        await until(lambda: at.link.desk.waiting == 0)
        for name in speaker.names:
            await speaker.trade(name, 20)
        await until(lambda: at.right(speaker, 0) and at.right(speaker, 1))
        assert speaker.subscriptions[2:] == [speaker.names[0]] * 4 and at.link.counts[0].refused >= 3
        assert Kind.STALE not in at.behind.kinds[1] and at.behind.kinds[0].count(Kind.STALE) == 1
        assert len(speaker.sockets) == 1

    run(market, body)


@TYPED
def test_a_confirmed_resubscription_without_its_snapshot_is_tried_again(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """The venue says yes and sends nothing: after the time limit it is asked again."""
    monkeypatch.setattr(link_module, "ANSWER_NS", 300_000_000)

    async def body(speaker: Speaker, at: Run) -> None:
        speaker.swallowed = 2
        await lose_a_message(speaker, at, speaker.names[1])
        await until(lambda: at.right(speaker, 1))
        assert speaker.subscriptions[2:] == [speaker.names[1]] * 3 and at.link.desk.failed_count == 2
        assert Kind.STALE not in at.behind.kinds[0]

    run(market, body)


@TYPED
def test_a_cut_line_brings_the_books_anew(market: Market) -> None:
    """Cut while a resubscription is on its way: both books go stale at once, the new connection's snapshots fulfil the wish."""

    async def body(speaker: Speaker, at: Run) -> None:
        speaker.swallowed = 1
        await lose_a_message(speaker, at, speaker.names[0])
        await until(lambda: len(speaker.subscriptions) == 3)
        speaker.cut()
        await until(lambda: not at.behind.valid[1])
        await until(lambda: at.right(speaker, 0) and at.right(speaker, 1))
        await until(lambda: at.link.desk.waiting == 0)
        for name in speaker.names:
            await speaker.trade(name, 20)
        await until(lambda: at.right(speaker, 0) and at.right(speaker, 1))
        assert len(speaker.sockets) == 2 and at.link.desk.failed_count == 1

    run(market, body)


def test_a_line_whose_requests_are_used_up_is_replaced() -> None:
    """OKX bears so many requests a connection: the resync that would be one too many opens a new connection, with overlap, whose
    snapshot heals the book; no request goes over the old one."""

    class Few(Okx):
        @property
        def limits(self) -> Limits:
            """Room for one resync."""
            return replace(super().limits, requests_per_connection=8)

    def few(venue: Venue) -> Venue:
        return Few(venue.symbols, venue.streams)

    async def body(speaker: Speaker, at: Run) -> None:
        await lose_a_message(speaker, at, speaker.names[0])
        await until(lambda: at.right(speaker, 0))
        assert len(speaker.sockets) == 1
        await lose_a_message(speaker, at, speaker.names[0])
        await until(lambda: at.right(speaker, 0))
        assert len(speaker.sockets) == 2 and speaker.subscriptions[2:] == [speaker.names[0], *speaker.names]
        assert Kind.STALE not in at.behind.kinds[1]

    run(Market.OKX, body, few)


def test_two_lines_of_okx_lose_nothing_together() -> None:
    """What one line misses the other brings: the book is healed from it, or was ahead anyway, and nothing is resubscribed."""

    async def body(speaker: Speaker, at: Run) -> None:
        await until(lambda: sum(line.state is LineState.UP for line in at.link.lines.lines.values()) == 2)
        for turn in range(30):
            number, name = turn % 2, speaker.names[0]
            speaker.hearing.pop((number, name), None)
            await speaker.trade(name)
            speaker.hearing[number, name] = True
            await speaker.trade(name)
        await until(lambda: at.right(speaker, 0))
        assert len(speaker.subscriptions) == 4

    run(Market.OKX, body, live=msgspec.structs.replace(LIVE, lines=2))


def test_bytes_without_room_are_missing_from_the_recording_alone() -> None:
    """The venue's own bytes find no room, what was decoded of them does: the books live on, and the recording is told LOST of no
    symbol, before what follows."""

    async def body(speaker: Speaker, at: Run) -> None:
        kept = len(at.behind.raw)
        writer = at.link.writer
        object.__setattr__(writer, "largest", 700)
        name = speaker.names[0]
        long = json.loads(speaker.change(name, [], speaker.books[name].seq))
        long["padding"] = "x" * 800
        long["data"][0]["prevSeqId"] = long["data"][0]["seqId"]
        await speaker.sockets[0].send_str(json.dumps(long))
        await until(lambda: (Kind.LOST, -1, 0) in at.behind.lines)
        await speaker.trade(name, 5)
        await until(lambda: at.right(speaker, 0))
        assert len(at.behind.raw) == kept + 5 and at.link.counts[0].lost == 1 and at.link.counts[0].gaps == 0
        assert [kind for kind, symbol, _ in at.behind.lines if kind is Kind.LOST and symbol >= 0] == []
        assert Kind.STALE not in at.behind.kinds[0] and any("set live.arena_mb to" in text for text in at.said)

    run(Market.OKX, body, raw=True)


# ---- Binance


def spot(body: Body) -> None:
    """Binance spot, BTCUSDT and ETHUSDT, against a server whose frames and snapshots the test writes."""
    symbols = [VenueSymbol(i, name, name) for i, name in enumerate(("BTCUSDT", "ETHUSDT"))]

    async def whole() -> None:
        async with asyncio.timeout(120), Speaker(()).serve() as speaker:
            url = f"127.0.0.1:{speaker.port}"
            at = Run(BinanceSpot(symbols, Streams()), [Instrument("BTCUSDT"), Instrument("ETHUSDT")], f"ws://{url}", f"http://{url}")
            async with at:
                await until(lambda: at.link.lines.covered(0))
                await body(speaker, at)

    asyncio.run(whole())


async def diff(speaker: Speaker, first: int, last: int, name: str = "BTCUSDT") -> None:
    """A depthUpdate."""
    data = {"e": "depthUpdate", "E": 1, "s": name, "U": first, "u": last, "b": [["99.00", f"{last}.0"]], "a": [["101.00", "1.0"]]}
    await speaker.sockets[-1].send_str(json.dumps({"stream": f"{name.lower()}@depth@100ms", "data": data}, separators=(",", ":")))


def depth_requests(speaker: Speaker, name: str = "BTCUSDT") -> int:
    """How many snapshots were asked for."""
    return sum("/depth" in path and name in path for path in speaker.asked)


def test_the_oldest_snapshot_that_connects_is_enough() -> None:
    """The first diff kept is 101..105: a snapshot of 100 connects to it by the venue's rule, and no second one is fetched, which
    would be newer than the book. One of 99 does not connect: the feed says so, and one more is fetched."""

    async def body(speaker: Speaker, at: Run) -> None:
        ids = [99, 100, 300]

        def page(path: str, query: dict[str, str]) -> bytes:
            return json.dumps({"lastUpdateId": ids.pop(0), "bids": [["98.00", "1.0"]], "asks": [["102.00", "1.0"]]}).encode()

        speaker.pages = lambda path, query: page(path, query) if "/depth" in path else b'{"serverTime":1}'
        await diff(speaker, 101, 105)
        await until(lambda: at.behind.valid[0])
        for n in range(106, 200):
            await diff(speaker, n, n)
        await until(lambda: at.behind.feed.count("last_id") == 199)
        assert ids == [300] and at.link.desk.waiting == 0 and at.link.desk.delivered_count == 2
        assert at.behind.feed.count("snapshots_too_old") == 1 and Kind.STALE not in at.behind.kinds[0]

    spot(body)


def test_a_fetch_that_fails_in_an_unforeseen_way_is_tried_again() -> None:
    """A defect in a client library is a line in the log and a failed try, not a wish that waits for ever."""

    async def body(speaker: Speaker, at: Run) -> None:
        speaker.pages = lambda path, query: json.dumps(
            {"serverTime": 1, "lastUpdateId": 100, "bids": [], "asks": [["102.00", "1.0"]]}
        ).encode()
        real, defects = at.link.rest.get, [ZeroDivisionError("a defect")]

        async def get(request: RestRequest) -> Outcome:
            if "depth" in request.path and defects:
                raise defects.pop()
            return await real(request)

        object.__setattr__(at.link.rest, "get", get)
        await diff(speaker, 101, 101)
        await until(lambda: at.behind.valid[0])
        assert at.link.desk.failed_count == 1 and any("ZeroDivisionError: a defect" in text for text in at.said)

    spot(body)


def test_a_snapshot_too_large_for_the_arena_names_the_remedy() -> None:
    """It is not fetched again and again at once, the log says which setting helps, and once it fits the book is there."""

    async def body(speaker: Speaker, at: Run) -> None:
        bids = [[f"{90 - n // 100}.{99 - n % 100:02d}", "1.0"] for n in range(200)]
        speaker.pages = lambda path, query: json.dumps(
            {"serverTime": 1, "lastUpdateId": 100, "bids": bids, "asks": [["9999.00", "1.0"]]}
        ).encode()
        writer = at.link.writer
        object.__setattr__(writer, "largest", 1000)
        await diff(speaker, 101, 101)
        await until(lambda: at.link.desk.failed_count == 2)
        assert any("set live.arena_mb to 1 or more" in text for text in at.said) and depth_requests(speaker) == 2
        object.__setattr__(writer, "largest", writer.size // 4)
        await until(lambda: at.behind.valid[0])
        assert depth_requests(speaker) == 3

    spot(body)


def test_ids_that_begin_anew_cost_one_snapshot() -> None:
    """The venue counts from the start again after a wish with high ids: the low snapshot is taken, and that is all."""

    async def body(speaker: Speaker, at: Run) -> None:
        now = [10**9]
        speaker.pages = lambda path, query: json.dumps(
            {"serverTime": 1, "lastUpdateId": now[0], "bids": [["98.00", "1.0"]], "asks": [["102.00", "1.0"]]}
        ).encode()
        await diff(speaker, 10**9 + 1, 10**9 + 1)
        await until(lambda: at.behind.valid[0])
        now[0] = 1002
        for n in range(1, 1003):
            await diff(speaker, n, n)
        await until(lambda: not at.behind.valid[0])
        for n in range(1003, 1010):
            await diff(speaker, n, n)
        await until(lambda: at.behind.valid[0])
        for n in range(1010, 1200):
            await diff(speaker, n, n)
        await until(lambda: at.behind.feed.count("last_id") == 1199)
        assert depth_requests(speaker) <= 3 and at.link.desk.waiting == 0 and at.behind.kinds[0].count(Kind.STALE) == 1

    spot(body)


def test_a_symbol_whose_snapshots_are_always_bad_disturbs_nobody() -> None:
    """BTCUSDT's snapshots are malformed for ever: they are asked for more and more slowly; ETHUSDT has its book at once, and
    again after each of its own gaps."""

    async def body(speaker: Speaker, at: Run) -> None:
        last = [100]
        times: list[float] = []
        loop = asyncio.get_running_loop()

        def page(path: str, query: dict[str, str]) -> bytes:
            if query.get("symbol") == "BTCUSDT":
                times.append(loop.time())
                return b'{"lastUpdateId":100,"bids":[["x","y"]],"asks":[]}'
            return json.dumps({"serverTime": 1, "lastUpdateId": last[0], "bids": [], "asks": [["102.00", "1.0"]]}).encode()

        speaker.pages = page
        await diff(speaker, 101, 101)
        for turn in range(5):
            first = last[0] + 1
            await diff(speaker, first, first, "ETHUSDT")
            await until(lambda: at.behind.valid[1])
            last[0] += 100  # a gap
            await diff(speaker, last[0], last[0], "ETHUSDT")
            await until(lambda turn=turn: at.behind.kinds[1].count(Kind.STALE) > turn)  # type: ignore[misc]
        await until(lambda: len(times) >= 4)
        assert depth_requests(speaker, "ETHUSDT") >= 5 and not at.behind.valid[0]
        gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
        assert all(gap >= 0.9 * 0.125 * 2**n for n, gap in enumerate(gaps[:3])), gaps

    spot(body)


def test_prints_that_are_cut_leave_the_books_alone() -> None:
    """USD-M: `/market` is cut ten times, `/public` never: no book is stale for a moment, none is fetched again, prints go on."""

    async def whole() -> None:
        source = generated(("BTCUSDT", "ETHUSDT"), ("usdm",), events_per_s=300.0)
        sizes = [(spec.name, spec.tick_size, spec.step_size) for spec in source.symbols]
        symbols = [VenueSymbol(i, name, name, tick, lot) for i, (name, tick, lot) in enumerate(sizes)]
        instruments = [Instrument(name, Market.BINANCE_USDM, tick, lot, lot, lot) for name, tick, lot in sizes]
        async with asyncio.timeout(120), LocalVenue(LocalMarket(source)) as venue:
            at = Run(BinanceUsdm(symbols, Streams()), instruments, venue.usdm_stream_url, venue.rest_url)
            async with at:
                await until(lambda: all(at.behind.valid))
                fetched = at.link.desk.delivered_count
                every = list(at.link.lines.lines.values())
                public, prints = (next(line for line in every if line.plan.book is it) for it in (True, False))
                for turn in range(10):
                    await until(lambda: prints.state is LineState.UP)
                    seen = at.behind.kinds[0].count(Kind.TRADE)
                    await until(lambda seen=seen: at.behind.kinds[0].count(Kind.TRADE) > seen)  # type: ignore[misc]
                    next(c for c in venue.connections if c.category == "market").end("abort")
                    await until(lambda turn=turn: prints.downs == turn + 1)  # type: ignore[misc]
                    assert all(at.behind.valid) and at.link.lines.covered(0)
                assert public.downs == 0 and at.link.desk.delivered_count == fetched
                assert [kind for kind, *_ in at.behind.lines].count(Kind.LOST) == 0
                assert all(Kind.STALE not in kinds for kinds in at.behind.kinds)
                assert at.behind.feed.state["gaps"].sum() == 0
                depth = at.behind.kinds[0].count(Kind.DEPTH)
                await until(lambda: at.behind.kinds[0].count(Kind.DEPTH) > depth + 5)
                next(c for c in venue.connections if c.category == "public").end("abort")
                await until(lambda: not any(at.behind.valid))
                await until(lambda: all(at.behind.valid))
                assert [kind for kind, *_ in at.behind.lines].count(Kind.LOST) == 2

    asyncio.run(whole())


def test_reasons_are_the_feeds() -> None:
    """Those that a snapshot can have given slow the next try down; a new gap does not."""
    assert link_module.OF_NO_USE == {Want.CROSSED, Want.MALFORMED, Want.CHECKSUM, Want.TOO_OLD}
