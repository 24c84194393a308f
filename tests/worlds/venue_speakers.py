"""Small servers that speak OKX's and Kraken's public protocols on a loopback port, and a link with a real feed fold behind it.

A speaker keeps its own books, as texts, and computes the venue's checksums from them by the venue's rule. Tests make it trade,
leave out a message, refuse, swallow or cut. Frames are written by hand, so that decimals are the venue's.

What this is not: a market. The mid never moves, so a book that is right is never crossed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import numpy as np
from aiohttp import WSMsgType, web
from receiver_world import LIVE, RingWorld

from procs.profiles.schema import LiveSettings
from procs.receiver.link import VenueLink
from procs.receiver.say import Say
from sim.worlds.feed import Feed
from trading.books import fold as market
from trading.instruments import Instrument
from trading.records import Flag, Kind
from trading.venues.protocol import Venue

MID = 100_000  # ticks
LEVELS = 40


class Book:
    """One symbol's truth: ticks to lots a side, and the sequence."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for side in (0, 1):
            for n in range(1, LEVELS + 1):
                self.sides[side][MID + (n if side else -n)] = rng.randrange(1, 10**9)
        self.seq = rng.randrange(10**6, 10**7)

    def step(self) -> list[tuple[int, int, int]]:
        """(side, ticks, lots) of some changes, one of them within the best ten."""
        changed = {}
        for n in range(self.rng.randrange(1, 4)):
            side = self.rng.randrange(2)
            off = self.rng.randrange(1, 9 if n == 0 else LEVELS + 20)
            ticks = MID + (off if side else -off)
            gone = self.rng.random() < 0.3 and len(self.sides[side]) > LEVELS - 10 and ticks in self.sides[side]
            changed[side, ticks] = 0 if gone else self.rng.randrange(1, 10**9)
        for (side, ticks), lots in changed.items():
            if lots:
                self.sides[side][ticks] = lots
            else:
                self.sides[side].pop(ticks, None)
        return [(side, ticks, lots) for (side, ticks), lots in changed.items()]

    def best(self, side: int, most: int) -> list[tuple[int, int]]:
        """(ticks, lots), best first."""
        return sorted(self.sides[side].items(), reverse=side == 0)[:most]

    def whole(self) -> list[tuple[int, int, int]]:
        """Every level."""
        return [(side, ticks, lots) for side in (0, 1) for ticks, lots in self.best(side, 10**6)]


class Speaker:
    """The server. Subclasses say what a message means and how a book is written."""

    def __init__(self, names: Sequence[str], seed: int = 1) -> None:
        self.names = list(names)
        rng = random.Random(seed)
        self.books = {name: Book(rng) for name in names}
        self.sockets: list[web.WebSocketResponse] = []
        self.hearing: dict[tuple[int, str], bool] = {}  # (socket, name) -> its book is subscribed
        self.subscriptions: list[str] = []  # of books, by name, in their order
        self.refusals = 0  # so many of the next book subscriptions are refused
        self.swallowed = 0  # confirmed, but no snapshot comes
        self.left_out: set[str] = set()  # whose next change nobody is told
        self.pages: Callable[[str, dict[str, str]], bytes] = lambda path, query: b"{}"
        self.asked: list[str] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Speaker]:
        """On a free port."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._any)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            yield self
        finally:
            for socket in self.sockets:
                await socket.close()
            await runner.cleanup()

    async def _any(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            self.asked.append(request.path_qs)
            return web.Response(body=self.pages(request.path, dict(request.query)))
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.sockets.append(socket)
        number = len(self.sockets) - 1
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                for answer in self.said(number, message.data):
                    await socket.send_str(answer)
        for key in [key for key in self.hearing if key[0] == number]:
            del self.hearing[key]
        return socket

    async def trade(self, name: str, times: int = 1) -> None:
        """Change a book and tell who hears it, or nobody where the change is to be left out."""
        book = self.books[name]
        for _ in range(times):
            before = book.seq
            changed = book.step()
            book.seq += random.Random(before).randrange(1, 9)
            if name in self.left_out:
                self.left_out.discard(name)
                continue
            text = self.change(name, changed, before)
            for number, heard in list(self.hearing):
                if heard == name and not self.sockets[number].closed:
                    await self.sockets[number].send_str(text)

    def enter(self, number: int, name: str) -> tuple[str, ...] | None:
        """A subscription of a book: the snapshot that follows its confirmation, if any; None: it is refused."""
        self.subscriptions.append(name)
        if self.refusals:
            self.refusals -= 1
            return None
        self.hearing[number, name] = True
        if self.swallowed:
            self.swallowed -= 1
            del self.hearing[number, name]
            return ()
        return (self.snapshot(name),)

    def cut(self) -> None:
        """End all connections without a word."""
        for socket in self.sockets:
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()

    def said(self, number: int, text: str) -> list[str]:
        """The answers to a client's message."""
        return []

    def snapshot(self, name: str) -> str:
        """The frame of a whole book."""
        return ""

    def change(self, name: str, changed: Sequence[tuple[int, int, int]], before: int) -> str:
        """The frame of changes."""
        return ""


class OkxSpeaker(Speaker):
    """OKX v5: ticks of 0.1, lots of 1e-8, numbers without zeros behind; checksums, and each message names the one before."""

    def number(self, units: int, decimals: int) -> str:
        """As OKX prints it."""
        whole, part = divmod(units, 10**decimals)
        return f"{whole}.{part:0{decimals}d}".rstrip("0").rstrip(".")

    def checksum(self, book: Book) -> int:
        """CRC32 of the best 25, interleaved, signed."""
        sides = [[f"{self.number(p, 1)}:{self.number(q, 8)}" for p, q in book.best(side, 25)] for side in (0, 1)]
        texts = [text for pair in zip(*sides, strict=True) for text in pair]
        crc = zlib.crc32(":".join(texts).encode())
        return crc - (1 << 32) if crc >= 1 << 31 else crc

    def said(self, number: int, text: str) -> list[str]:
        """subscribe, unsubscribe, ping."""
        if text == "ping":
            return ["pong"]
        request = json.loads(text)
        known = {"id": request["id"]} if "id" in request else {}
        answers: list[str] = []
        for arg in request["args"]:
            name = arg["instId"]
            if request["op"] == "unsubscribe":
                self.hearing.pop((number, name), None)
                answers.append(json.dumps({**known, "event": "unsubscribe", "arg": arg, "connId": "a4d3ae55"}))
                continue
            frames = self.enter(number, name) if arg["channel"] == "books" else ()
            if frames is None:
                refusal = {"event": "error", "code": "60014", "msg": "Requests too frequent", "connId": "a4d3ae55"}
                answers.append(json.dumps({**known, **refusal}))
            else:
                answers += [json.dumps({**known, "event": "subscribe", "arg": arg, "connId": "a4d3ae55"}), *frames]
        return answers

    def _frame(self, name: str, action: str, levels: Sequence[tuple[int, int, int]], before: int) -> str:
        book = self.books[name]
        sides = [
            [[self.number(p, 1), self.number(q, 8) if q else "0", "0", "1"] for s, p, q in levels if s == side] for side in (0, 1)
        ]
        data = {"asks": sides[1], "bids": sides[0], "ts": "1700000000123", "checksum": self.checksum(book), "prevSeqId": before,
                "seqId": book.seq}  # fmt: skip
        return json.dumps({"arg": {"channel": "books", "instId": name}, "action": action, "data": [data]})

    def snapshot(self, name: str) -> str:
        """prevSeqId -1."""
        return self._frame(name, "snapshot", self.books[name].whole(), -1)

    def change(self, name: str, changed: Sequence[tuple[int, int, int]], before: int) -> str:
        """prevSeqId is the last one's seqId."""
        return self._frame(name, "update", changed, before)


class KrakenSpeaker(Speaker):
    """Kraken v2: prices with one decimal, quantities with eight, numbers as text came; a checksum in every message, no ids."""

    def checksum(self, book: Book) -> int:
        """CRC32 of the best ten asks, then bids, digits without point and zeros before."""
        return zlib.crc32("".join(f"{p}{q}" for side in (1, 0) for p, q in book.best(side, 10)).encode())

    def said(self, number: int, text: str) -> list[str]:
        """subscribe, unsubscribe, ping."""
        request = json.loads(text)
        if request["method"] == "ping":
            return ['{"method":"pong","time_in":"2023-09-24T14:10:23.799685Z"}']
        params, method = request["params"], request["method"]
        known = {"req_id": request["req_id"]} if "req_id" in request else {}
        answers: list[str] = []
        for name in params["symbol"]:
            result = {"channel": params["channel"], "symbol": name}
            frames: tuple[str, ...] | None = ()
            if params["channel"] == "book" and method == "subscribe":
                frames = self.enter(number, name)
            elif params["channel"] == "book" and self.hearing.pop((number, name), None) is None:
                refusal = {"method": method, "success": False, "error": "Subscription Not Found", "symbol": name}
                answers.append(json.dumps({**refusal, **known}))
                continue
            if frames is None:
                refusal = {"method": method, "success": False, "error": "Exceeded msg rate", "symbol": name}
                answers.append(json.dumps({**refusal, **known}))
            else:
                answers += [json.dumps({"method": method, "success": True, "result": result, **known}), *frames]
        return answers

    def _frame(self, name: str, kind: str, levels: Sequence[tuple[int, int, int]]) -> str:
        sides = [
            ",".join(
                f'{{"price":{p // 10}.{p % 10},"qty":{q // 10**8}.{q % 10**8:08d}}}' for s, p, q in levels if s == side
            ) for side in (0, 1)
        ]  # fmt: skip
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{name}","bids":[{sides[0]}],"asks":[{sides[1]}],'
            f'"checksum":{self.checksum(self.books[name])},"timestamp":"2023-10-06T17:35:55.440295Z"}}]}}'
        )

    def snapshot(self, name: str) -> str:
        """type snapshot."""
        return self._frame(name, "snapshot", self.books[name].whole())

    def change(self, name: str, changed: Sequence[tuple[int, int, int]], before: int) -> str:
        """type update."""
        return self._frame(name, "update", changed)


class FeedBehind:
    """The feed's own fold behind a ring: what it wants goes to the link, what it says of the books is kept."""

    def __init__(self, world: RingWorld, instruments: Sequence[Instrument]) -> None:
        self.world = world
        self.feed = Feed(*instruments)
        self.books: list[tuple[dict[int, int], dict[int, int]]] = [({}, {}) for _ in instruments]
        self.kinds: list[list[Kind]] = [[] for _ in instruments]
        self.valid = [False] * len(instruments)
        self.lines: list[tuple[Kind, int, int]] = []  # LINE_UP, LINE_DOWN, LOST: (kind, symbol, line)
        self.raw: list[bytes] = []
        self.clock: Callable[[], int] | None = None  # the time of a frame; None: each is a ns after the one before

    def fold(self, link: VenueLink) -> None:
        """Everything that is new."""
        feed = self.feed
        for kind, symbol, line, raw in self.world.read():
            if kind is Kind.RAW:
                self.raw.append(raw)
                continue
            if kind is Kind.FRAME:
                out, rows = feed.send(raw, symbol, None if self.clock is None else max(self.clock(), feed.now + 1))
            else:
                self.lines.append((kind, symbol, line))
                if symbol < 0:
                    continue
                feed.now += 1
                arrays = (feed.now, feed.now, feed.state, feed.glob, feed.params, feed.out, feed.rows)
                if kind is Kind.LOST:
                    m = market.on_lost(symbol, *arrays)
                else:
                    m = market.on_line(symbol, line, int(kind is Kind.LINE_UP), *arrays)
                out, rows = feed.out[:m].copy(), feed.rows[: int(feed.glob[0]["n_depth"])].copy()
            self._note(out, rows)
            wanted = int(feed.glob[0]["want_symbol"])
            if wanted >= 0:
                link.want(wanted, int(feed.glob[0]["want_reason"]))
            if dead := int(feed.glob[0]["want_streams"]):
                link.want_streams(symbol, dead)

    def _note(self, out: np.ndarray, rows: np.ndarray) -> None:
        for row in out:
            self.kinds[int(row["symbol"])].append(Kind(int(row["kind"])))
            self.valid[int(row["symbol"])] = bool(row["flags"] & Flag.BOOK_VALID)
        for row in rows:
            sides = self.books[int(row["symbol"])]
            if row["kind"] != Kind.DEPTH:
                sides[0].clear()
                sides[1].clear()
                continue
            side = sides[1 if row["flags"] & Flag.ASK else 0]
            if row["qty_lots"]:
                side[int(row["price_ticks"])] = int(row["qty_lots"])
            else:
                side.pop(int(row["price_ticks"]), None)


def compile_fold() -> None:
    """Compile or load what FeedBehind calls, before any limit of time runs."""
    world = RingWorld()
    behind = FeedBehind(world, [Instrument("BTCUSDT")])
    writer = world.writer()
    writer.frame(b"{}", 0, 0, 0, 0, 1)
    writer.line_up(0, (0,), 2)
    writer.lost(0, (0,), 3)
    behind.fold(cast(VenueLink, type("Nobody", (), {"want": lambda *_: None})))
    assert behind.lines == [(Kind.LINE_UP, 0, 0), (Kind.LOST, 0, 0)]


class Run:
    """A link and the feed behind it, ticking while it is open."""

    def __init__(
        self, venue: Venue, instruments: Sequence[Instrument], stream_url: str, rest_url: str, live: LiveSettings = LIVE,
        **more: Any,
    ) -> None:  # fmt: skip
        world = RingWorld(4096, 1 << 22)
        self.said: list[str] = []
        say = Say("test")
        say.__class__ = type("Kept", (Say,), {"__call__": lambda _, text, key="": self.said.append(text)})
        self.behind = FeedBehind(world, instruments)
        self.link = VenueLink(
            venue, live, world.writer(), say, random.Random(5), name="here", stream_url=stream_url, rest_url=rest_url, **more
        )
        self._open = True

    async def __aenter__(self) -> Run:
        self.link.start()
        loop = asyncio.get_running_loop()

        def tick() -> None:
            if self._open:
                self.link.tick()
                self.behind.fold(self.link)
                loop.call_later(0.005, tick)

        tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        await self.link.stop()

    def right(self, speaker: Speaker, symbol: int) -> bool:
        """Whether the symbol's book is valid and the venue's."""
        return self.behind.valid[symbol] and self.behind.books[symbol] == speaker.books[speaker.names[symbol]].sides
