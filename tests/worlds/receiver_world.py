"""A world for the receiver's tests: a frames ring on the heap with a reader, a small venue of two kinds, and a server for it.

The venue "Tiny" is what trading.venues.protocol asks for and nothing more. Native: frames `{"s":<symbol>,...}` go to the feed as
they are. Plain: `{"t":<symbol>,"n":<number>}` becomes a plain trade. Everything else is control, the same in both.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from procs import topology
from procs.memory.arena import PAD
from procs.memory.segments import aligned_words
from procs.profiles.schema import LiveSettings
from procs.receiver.frames import FrameWriter
from procs.receiver.link import VenueLink
from procs.receiver.say import Say
from ringbuf import layout
from ringbuf.layout import CURSOR, reader_line
from trading.instruments import Market
from trading.records import FRAME_RECORD, Kind
from trading.venues.protocol import (
    STREAMS,
    Closing,
    ConnectionPlan,
    Decoder,
    Ignored,
    InstrumentRules,
    Item,
    Limits,
    Plain,
    Refused,
    RestRequest,
    Streams,
    Subscribed,
    Unknown,
    Venue,
    VenueError,
    VenueSymbol,
)
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import plain_frame


class RingWorld:
    """A frames ring and its arena on the heap, and one gating reader of it."""

    def __init__(self, capacity: int = 256, arena: int = 1 << 16) -> None:
        self.words = aligned_words(layout.payload_bytes(capacity, FRAME_RECORD) // 8)
        layout.format_ring(self.words, FRAME_RECORD, capacity, ring_id=topology.RING["frames"].ring_id)
        self.arena = np.zeros(arena + PAD, np.uint8)
        self.ctl, self.slots, self.recs = layout.views(self.words, FRAME_RECORD)
        self.capacity = capacity
        self.head = 0

    def writer(self) -> FrameWriter:
        """A writing end; it goes on where the last one got to."""
        return FrameWriter(self.words, self.arena)

    def peek(self) -> list[tuple[Kind, int, int, bytes]]:
        """(kind, symbol, line, bytes) of what is there from the head on; nothing is released."""
        found, head = [], self.head
        while (rec := self.recs[head & (self.capacity - 1)])["seq"] == head + 1:
            at, length = int(rec["at"]), int(rec["length"])
            assert 0 <= at <= at + length <= self.arena.size - PAD and at % 8 == 0
            found.append((Kind(int(rec["kind"])), int(rec["symbol"]), int(rec["flags"]), self.arena[at : at + length].tobytes()))
            head += 1
            if len(found) == self.capacity:
                break
        return found

    def read(self, most: int = 1 << 30) -> list[tuple[Kind, int, int, bytes]]:
        """The same, up to `most`, released."""
        found = self.peek()[:most]
        self.head += len(found)
        self.ctl[reader_line(0) + CURSOR] = self.head
        return found


class TinyDecoder(Decoder):
    """Reads the small protocol."""

    def decode(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        """One item a frame."""
        try:
            said = json.loads(raw)
        except ValueError:
            return [Unknown("no JSON")]
        if "t" in said:
            levels = np.array([[200, said["n"]]], np.int64)
            return [Plain(said["t"], plain_frame(FrameKind.TRADE, said["t"], recv_ns, levels, last_id=said["n"]))]
        if "ok" in said:
            return [Subscribed(said["ok"], tuple(said.get("symbols", ())))]
        if "no" in said:
            return [Refused(said["no"])]
        if "bye" in said:
            return [Closing(said["bye"])]
        return [Ignored("beat")] if "beat" in said else [Unknown("strange")]


class Tiny(Venue):
    """The venue. `plans`: symbols by connection; `confirm`: it subscribes by messages that the venue confirms."""

    market = Market.BINANCE_SPOT

    def __init__(
        self,
        symbols: int = 2,
        *,
        native: bool = True,
        confirm: bool = True,
        plans: Sequence[Sequence[int]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__([VenueSymbol(n, f"S{n}USD", f"s{n}") for n in range(symbols)], Streams())
        self.native, self._confirm = native, confirm
        self._plans = plans or [range(symbols)]
        self._limits = limits or Limits(client_messages_per_s=100.0)

    @property
    def limits(self) -> Limits:
        """As given."""
        return self._limits

    @property
    def stream_url(self) -> str:
        """Nowhere: tests give the server's."""
        return "ws://127.0.0.1:1"

    @property
    def rest_url(self) -> str:
        """Nowhere."""
        return "http://127.0.0.1:1"

    def connections(self) -> Sequence[ConnectionPlan]:
        """One message for each plan's symbols."""
        return [
            ConnectionPlan(f"/ws/{n}", (json.dumps({"sub": list(plan), "id": 1}).encode(),) if self._confirm else (), tuple(plan))
            for n, plan in enumerate(self._plans)
        ]

    def decoder(self) -> Decoder:
        """A new one."""
        return TinyDecoder()

    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """Plain kind: anew within the stream."""
        return () if self.native else (json.dumps({"again": symbol}).encode(),)

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """Native kind: by REST."""
        return RestRequest("/depth", {"symbol": f"s{symbol}"}, 10) if self.native else None

    def instruments_request(self) -> RestRequest:
        """All."""
        return RestRequest("/info", {}, 20)

    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """{name: [tick, lot, trading]}."""
        try:
            found = json.loads(raw)
            return {n: InstrumentRules(n, tick, lot, lot, lot, "1000", "5", on) for n, (tick, lot, on) in found.items()}
        except (ValueError, AttributeError):
            raise VenueError("tiny: no list of instruments") from None

    def time_request(self) -> RestRequest | None:
        """The clock."""
        return RestRequest("/time", {}, 1)

    def parse_time(self, raw: bytes) -> int:
        """ns."""
        return int(raw)

    def is_market_frame(self, raw: bytes) -> bool:
        """Native kind: those that begin so."""
        return self.native and raw.startswith(b'{"s":')

    def stream_code(self, raw: bytes) -> int:
        """The digits behind it."""
        if not self.is_market_frame(raw):
            return -1
        symbol = int(raw[5 : raw.index(b",")])
        return symbol * STREAMS if symbol < len(self.symbols) else -1


class TinyBinance(Tiny):
    """The native kind, made as procs.receiver.markets makes a venue."""

    def __init__(self, symbols: Sequence[VenueSymbol], streams: Streams) -> None:
        super().__init__(len(symbols))


class TinyServer:
    """The venue's server on a free port of the loopback. Tests say what it sends; it remembers what it got."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.sockets: list[web.WebSocketResponse] = []
        self.got: list[str] = []
        self.pongs: list[bytes] = []
        self.upgrades = 0
        self.refuse: tuple[int, dict[str, str]] | None = None
        self.answer: Callable[[dict[str, Any]], Any] = lambda said: {"ok": said["id"]} if "sub" in said else None
        self.pages: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}  # path -> answers, the last one for ever
        self.asked: list[str] = []
        self.changed = asyncio.Condition()
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> TinyServer:
        app = web.Application()
        app.router.add_get("/ws/{n}", self._socket)
        app.router.add_get("/{path:.*}", self._page)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in self.sockets:
            await socket.close()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        answers = self.pages.get(request.path, [(404, {}, b"nothing here")])
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        await self._tell()
        return web.Response(status=status, headers=headers, body=body)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.upgrades += 1
        await self._tell()
        if self.refuse is not None:
            return web.Response(status=self.refuse[0], headers=self.refuse[1], body=b"go away")
        socket = web.WebSocketResponse(autoping=False, compress=False)
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.PONG:
                self.pongs.append(bytes(message.data))
            elif message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                self.got.append(message.data)
                reply = self.answer(json.loads(message.data))
                if reply is not None:
                    await socket.send_str(json.dumps(reply))
            await self._tell()
        await self._tell()
        return socket

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


async def until(true: Callable[[], Any], within_s: float = 60.0) -> None:
    """Wait until it is so; fails after `within_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not true():
        assert loop.time() < deadline, "it did not come about"
        passed = loop.create_future()
        loop.call_later(0.002, passed.set_result, None)
        await passed


LIVE = LiveSettings(backoff_min_ms=20, backoff_max_ms=200, silence_timeout_s=30.0, transport="picows")


class LinkWorld:
    """One link over a heap ring, ticking by itself while it is open."""

    def __init__(
        self, server: TinyServer, venue: Venue, live: LiveSettings = LIVE, *, world: RingWorld | None = None,
        raw: bool = False, state_dir: Path | None = None, scheme: str = "ws",
    ) -> None:  # fmt: skip
        self.world = world or RingWorld()
        self.writer = self.world.writer()
        self.said: list[str] = []
        say = Say("test")
        say.__class__ = type("Kept", (Say,), {"__call__": lambda _, text, key="": self.said.append(text)})
        self.link = VenueLink(
            venue, live, self.writer, say, random.Random(5), name="tiny", stream_url=f"{scheme}://127.0.0.1:{server.port}",
            rest_url=f"http://127.0.0.1:{server.port}", raw=raw, state_dir=state_dir,
        )  # fmt: skip
        self.seen: list[tuple[Kind, int, int, bytes]] = []
        self._open = True
        self.drain = True

    async def __aenter__(self) -> LinkWorld:
        self.link.start()
        loop = asyncio.get_running_loop()

        def tick() -> None:
            if self._open:
                self.link.tick()
                if self.drain:
                    self.seen += self.world.read()
                loop.call_later(0.005, tick)

        tick()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        await self.link.stop()

    def kinds(self, kind: Kind) -> list[tuple[int, int, bytes]]:
        """(symbol, line, bytes) of what was seen of this kind."""
        return [(symbol, line, raw) for what, symbol, line, raw in self.seen if what is kind]

    async def up(self, lines: int = 1) -> None:
        """Until so many lines are up."""
        await until(lambda: sum(line.state == "UP" for line in self.link.lines.lines.values()) >= lines)
