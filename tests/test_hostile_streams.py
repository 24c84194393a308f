"""One stream after another dies alone while the rest goes on: live pipelines on the local venue, and the five venues with typed
decoders over sockets. A book that is shown as valid is the venue's, the stream is subscribed anew, and all is well again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import live_world as lw
import pytest
from aiohttp import WSMsgType, web
from muted_venue import MutedVenue, S, instrument_of
from receiver_world import until
from venue_speakers import Run, compile_fold
from venue_wires import LOT, NAMES, TICK

from sim.local_venue import generated
from sim.worlds.served import ServedVenue
from trading.books import ages
from trading.books.state import OWED_LIMIT_NS, SILENCE_NS
from trading.instruments import Market
from trading.records import Flag, Kind, Stream
from trading.venues.protocol import Streams, VenueSymbol
from trading.venues.registry import make_venue

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(900)]
AGE_MS = 1500
SILENCE_S = 6.0
MUTED = {"binance_spot": ("depth", "bookTicker", "trade"), "binance_usdm": ("depth", "bookTicker", "aggTrade")}
DEAD = {"depth": Flag.STREAM_DEAD, "bookTicker": Flag.STREAM_DEAD, "trade": Flag.PRINTS_DEAD, "aggTrade": Flag.PRINTS_DEAD}
NAMED = {"depth": "depth", "bookTicker": "bbo", "trade": "prints", "aggTrade": "prints"}


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize("market", list(MUTED))
def test_a_live_pipeline_survives_the_death_of_each_stream(market: str) -> None:
    """Depth, best bid/offer and prints of one of two symbols are silenced, one after the other, each until it has been subscribed
    anew twice. Each time records say so within the limit, the lines name the stream, no order of the symbol is sent while its
    book is stale, and it comes back. The other symbol notices nothing; no book that was shown differs from the venue's."""
    keys = [(market, "BTCUSDT"), (market, "ETHUSDT")]
    wishes = {"live.stream_age_ms": AGE_MS, "live.silence_timeout_s": SILENCE_S}
    moments: list[tuple[str, int, int, int]] = []  # stream, when it was silenced, found, well again (Unix ns)
    named: dict[str, set[str]] = {}
    with ServedVenue(generated(events_per_s=300.0), seed=5) as served:
        with lw.live("live-muted", served, keys, wishes) as run:
            run.go_on(20.0)  # the strategy is warm, and trades
            for stream in MUTED[market]:
                before = run.counters("feed")["stream_deaths"]
                named[stream] = set()
                served.begin_faults([f"mute:at=0s,stream={stream},symbol=BTCUSDT,n=2"], 1)
                struck = time.time_ns()

                def look(stream: str = stream) -> None:
                    rows = [row for venue in lw.lines_figures(run) for row in venue["streams"]]
                    named[stream] |= {f"{row['symbol']} {it['stream']}" for row in rows for it in row["wanted"]}

                run.until(f"{stream} is found dead", lambda n=before: run.counters("feed")["stream_deaths"] > n, 30, look)  # type: ignore[misc]
                found = time.time_ns()
                run.until(f"{stream} is named", lambda s=stream: bool(named[s]), 5, look)  # type: ignore[misc]

                def well() -> bool:
                    rows = [row for venue in lw.lines_figures(run) for row in venue["streams"]]
                    return all(run.valid()) and bool(rows) and not any(row["wanted"] for row in rows)

                run.until(f"{stream} flows again", well, 60)
                moments.append((stream, struck, found, time.time_ns()))
                served.no_more_faults()
                run.go_on(3.0)
            asked = sum(venue["streams_asked_anew"] for venue in lw.lines_figures(run))
            kept = run.end()
        truth = served.truth
    market_recs, orders = lw.records(kept, "market"), lw.records(kept, "orders")
    compared = lw.compare(lw.records(kept, "depth"), keys, lw.scales_of(kept), truth)
    mine, other = (market_recs[market_recs["symbol"] == symbol] for symbol in (0, 1))
    print(f"{market}: {[(stream, (found - struck) / 1e9, (well - found) / 1e9) for stream, struck, found, well in moments]} s, "
          f"{asked} times anew, {compared.checked} books equal, {len(orders)} orders")  # fmt: skip
    assert compared.wrong == [] and compared.strange == [] and compared.checked > 100 and asked >= 6
    assert (other["flags"] & (Flag.STREAM_DEAD | Flag.PRINTS_DEAD) == 0).all()
    for stream, struck, _, well in moments:
        between = mine[(mine["ts_ns"] >= struck) & (mine["ts_ns"] <= well) & (mine["kind"] < Kind.MARK)]
        dead = between[between["flags"] & DEAD[stream] != 0]
        assert len(dead) > 0, stream
        limit_s = SILENCE_S + 8.0 if DEAD[stream] is Flag.PRINTS_DEAD else AGE_MS / 1e3 + 1.0
        first, last = int(dead["ts_ns"][0]), int(dead["ts_ns"][-1])
        assert (first - struck) / 1e9 < limit_s, (stream, (first - struck) / 1e9)
        if DEAD[stream] is Flag.STREAM_DEAD:
            held = between[(between["ts_ns"] >= first) & (between["ts_ns"] <= last)]
            assert (held["flags"] & Flag.BOOK_VALID == 0).all(), stream
            sent = orders[(orders["symbol"] == 0) & (orders["kind"] == Kind.NEW) & (orders["ts_ns"] > first + S // 10)]
            assert not (sent["ts_ns"] < last).any(), stream
        assert named[stream] == {f"BTCUSDT {NAMED[stream]}"}


# --- the venues with typed decoders

WORDS = {
    Market.BYBIT: ("orderbook.1000.", "orderbook.1.", "publicTrade."),
    Market.OKX: ('"books"', '"bbo-tbt"', '"trades"'),
    Market.KRAKEN: ('"book"', '"ticker"', '"trade"'),
    Market.COINBASE: ('"level2"', '"ticker"', '"market_trades"'),
    Market.DERIBIT: ('"book.', '"quote.', '"trades.'),
}
BOOKS = (Stream.DEPTH, Stream.BBO)


class SpokenVenue(MutedVenue):
    """A muted venue on a loopback port: what it says goes out over its one connection, a turn at a time."""

    def __init__(self, market: Market) -> None:
        self.outbox: list[bytes] = []
        self.subscriptions: list[Stream] = []
        self.sent = 0
        self.socket: web.WebSocketResponse | None = None
        super().__init__(market)
        self.outbox.clear()
        self.silent = set(Stream)
        self.port = 0

    def hear(self, raw: bytes) -> None:
        """To be sent."""
        self.now += 1000
        self.outbox.append(raw)

    def said(self, text: str) -> None:
        """A message of the client's: its answer, and what follows from it."""
        market = self.market
        if text == "ping":
            self.hear(b"pong")
            return
        told = json.loads(text)
        op = told.get("op") or told.get("type") or told.get("method")
        if op == "ping":
            self.hear(b'{"method":"pong"}' if market is Market.KRAKEN else b'{"op":"pong","ret_msg":"pong","success":true}')
            return
        streams = [stream for stream, word in zip(Stream, WORDS[market], strict=False) if word in text]
        leaves = "unsub" in text
        for answer in self._answers(told, op, leaves):
            self.hear(answer)
        for stream in streams:
            if leaves:
                self.silent.add(stream)
            else:
                self.subscriptions.append(stream)
                self.subscribe(stream)

    def _answers(self, told: dict[str, Any], op: str, leaves: bool) -> list[bytes]:
        market = self.market
        if market is Market.OKX:
            known = {"id": told["id"]} if "id" in told else {}
            return [json.dumps({**known, "event": op, "arg": arg, "connId": "a"}).encode() for arg in told["args"]]
        if market is Market.BYBIT:
            known = {"req_id": told["req_id"]} if "req_id" in told else {}
            return [json.dumps({"success": True, "ret_msg": "", "conn_id": "a", "op": op, **known}).encode()]
        if market is Market.KRAKEN:
            result = {"channel": told["params"]["channel"], "symbol": NAMES[market][0]}
            known = {"req_id": told["req_id"]} if "req_id" in told else {}
            return [json.dumps({"method": op, "success": True, "result": result, **known}).encode()]
        if market is Market.COINBASE:
            return [self.teller.counted("subscriptions", [{"subscriptions": {told["channel"]: told.get("product_ids", [])}}])]
        result = told["params"].get("channels", "ok")
        return [json.dumps({"jsonrpc": "2.0", "id": told["id"], "result": result}).encode()]

    async def flush(self) -> None:
        """Send what waits."""
        while self.outbox and self.socket is not None:
            self.sent += 1
            await self.socket.send_str(self.outbox.pop(0).decode())

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One client."""
        socket = self.socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.said(message.data)
                await self.flush()
        return socket


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """No test's time goes into compiling."""
    compile_fold()


@pytest.mark.parametrize("stream", [Stream.DEPTH, Stream.BBO, Stream.PRINTS], ids=lambda it: it.name.lower())
@pytest.mark.parametrize("market", list(WORDS), ids=lambda it: it.name.lower())
def test_a_typed_venue_heals_from_the_death_of_each_stream(market: Market, stream: Stream) -> None:
    """Over sockets, the shipped link and the feed's fold: a stream dies, is found within the limit by the records' time, and is
    left and entered anew over the same connection; then the book is right. Beyond the limit and until then no record is valid; at
    every other moment a valid book is the venue's, level by level. No other stream is subscribed a second time."""

    async def whole() -> None:
        venue = SpokenVenue(market)
        app = web.Application()
        app.router.add_get("/{path:.*}", venue.serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        shipped = make_venue(market, [VenueSymbol(0, "AAA", NAMES[market][0], TICK, LOT)], Streams())
        try:
            async with Run(shipped, [instrument_of(market)], f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}") as at:
                at.behind.clock = lambda: venue.now
                await play(venue, at)
        finally:
            if venue.socket is not None:
                await venue.socket.close()
            await runner.cleanup()

    async def turn(venue: SpokenVenue, at: Run) -> None:
        venue.step()
        await venue.flush()
        await until(lambda: at.link.counts[0].messages >= venue.sent)
        at.behind.fold(at.link)

    async def play(venue: SpokenVenue, at: Run) -> None:
        state = at.behind.feed.state[0]
        await until(lambda: set(venue.subscriptions) == {Stream.DEPTH, Stream.BBO, Stream.PRINTS})
        for _ in range(60):
            await turn(venue, at)
        assert at.behind.valid[0] and at.behind.books[0] == venue.book.sides and not state["deaths"].any()
        subscribed = list(venue.subscriptions)
        venue.silent.add(stream)
        struck = venue.now
        limit = SILENCE_NS + 3 * S if stream is Stream.PRINTS else OWED_LIMIT_NS + ages.CONFIRM_NS + 2 * S
        while not state["dead"]:
            await turn(venue, at)
            assert venue.now - struck < limit
        while stream in venue.silent or state["dead"]:
            await turn(venue, at)
            if stream in venue.silent:
                assert at.behind.valid[0] is (stream is Stream.PRINTS)
            assert venue.now - struck < limit + 600 * S
        for _ in range(20):
            await turn(venue, at)
            assert at.behind.valid[0] and at.behind.books[0] == venue.book.sides
        assert venue.subscriptions == [*subscribed, stream] and len(at.link.sockets) == 1
        assert state["deaths"].tolist() == [int(it is stream) for it in Stream]
        assert any("is subscribed anew" in text for text in at.said)

    asyncio.run(asyncio.wait_for(whole(), 120))
