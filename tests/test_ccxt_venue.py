"""The ccxt line with the unmodified ccxt.pro against a small Binance on loopback: sync, gap, lost connection, trades, quotes."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from aiohttp import WSMsgType, web
from prices_venue import Clock, SmallVenue

from procs.receiver.ccxt_line import CcxtLine
from trading.venues.protocol import Item, Missed, Plain, VenueSymbol
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import W_KIND, W_LAST, W_TS, read_plain_frame

BTC = VenueSymbol(0, "BTCUSDT", "BTCUSDT", "0.01", "0.00001")
T_MS = 1_723_161_255_000


def diff(first: int, last: int, bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> dict[str, Any]:
    """A depth event."""
    return {"e": "depthUpdate", "E": T_MS + last, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": asks}


class StreamingVenue(SmallVenue):
    """Each subscription to a book is answered by the next of `rounds`: (id of the snapshot, events after it, whether the
    connection breaks then)."""

    def __init__(self, rounds: list[tuple[int, list[dict[str, Any]], bool]]) -> None:
        super().__init__(Clock())
        self.rounds, self.round, self.snapshots = rounds, -1, asyncio.Event()
        self.others = {
            "trade": {"e": "trade", "E": T_MS, "s": "BTCUSDT", "t": 77, "p": "100.50", "q": "0.25", "T": T_MS, "m": True},
            "bookTicker": {"u": 1, "s": "BTCUSDT", "b": "100.00", "B": "1.5", "a": "101.00", "A": "2.5"},
        }

    async def __aenter__(self) -> StreamingVenue:
        app = web.Application()
        app.router.add_get("/api/v3/{call:.*}", self._answer)
        app.router.add_get("/stream/ws/{n}", self.streams)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def _answer(self, request: web.Request) -> web.Response:
        if request.match_info["call"] != "depth":
            return await super()._answer(request)
        last = self.rounds[self.round][0]
        self.snapshots.set()
        return web.json_response({"lastUpdateId": last, "bids": [["100.00", "1.00000"]], "asks": [["101.00", "2.00000"]]})

    async def streams(self, request: web.Request) -> web.WebSocketResponse:
        """A stream connection."""
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type != WSMsgType.TEXT:
                continue
            said = message.json()
            if said.get("method") != "SUBSCRIBE":
                continue
            await ws.send_json({"result": None, "id": said["id"]})
            for stream in said["params"]:
                kind = stream.split("@")[1]
                if kind in self.others:
                    await ws.send_json(self.others[kind])
                elif self.round + 1 < len(self.rounds):
                    self.round += 1
                    await self._book(ws)
        return ws

    async def _book(self, ws: web.WebSocketResponse) -> None:
        """One round: its events, the first of which is already in the snapshot, then the end of the connection, or none."""
        last, events, broken = self.rounds[self.round]
        self.snapshots.clear()
        await ws.send_json(diff(last - 3, last, [("100.00", "1.00000")], []))
        await self.snapshots.wait()
        for event in events:
            await ws.send_json(event)
        if broken:
            assert ws._req is not None and ws._req.transport is not None
            ws._req.transport.abort()


def test_the_unmodified_ccxt_gives_the_venues_book_through_gap_and_disconnect() -> None:
    """Snapshot and diffs, a gap in the ids, a connection that breaks: each time missed and down, then a snapshot; the last book,
    the trade and the quote are the venue's to the last digit."""

    async def main() -> None:
        rounds = [
            (105, [diff(106, 107, [("100.25", "3.00000")], []), diff(120, 121, [], [])], False),  # 108 to 119 are missing
            (130, [diff(131, 132, [], [("100.75", "0.50000")])], True),
            (140, [diff(141, 145, [("100.00", "0.00000"), ("99.99", "7.00001")], [("101.00", "2.50000")])], False),
        ]
        told: list[Item | tuple[int, bool]] = []
        book: tuple[dict[int, int], dict[int, int]] = ({}, {})
        done = asyncio.Event()

        def take(item: Item, recv_ns: int) -> None:
            told.append(item)
            if isinstance(item, Plain):
                head, levels = read_plain_frame(item.frame)
                if head[W_KIND] == FrameKind.SNAPSHOT:
                    book[0].clear()
                    book[1].clear()
                if head[W_KIND] in (FrameKind.SNAPSHOT, FrameKind.DEPTH):
                    for key, lots in levels.tolist():
                        book[key & 1][key >> 1] = lots
                        if not lots:
                            del book[key & 1][key >> 1]
            kinds = {int(read_plain_frame(i.frame)[0][W_KIND]) for i in told if isinstance(i, Plain)}
            if book[0].get(9999) and {FrameKind.TRADE, FrameKind.BBO} <= kinds:
                done.set()

        async with StreamingVenue(rounds) as venue:
            line = CcxtLine("binance", [BTC], take, lambda s, up: told.append((s, up)), rest=venue.url,
                            stream=venue.url.replace("http", "ws"), rng=random.Random(3), backoff_s=(0.01, 0.02))  # fmt: skip
            running = asyncio.create_task(line.run())
            finished = asyncio.create_task(done.wait())
            await asyncio.wait([running, finished], return_when=asyncio.FIRST_COMPLETED, timeout=120)
            assert done.is_set(), (told[-5:], running)
            await line.stop()
            await running
        assert book == ({9999: 700_001}, {10100: 250_000})
        missed = [item.why for item in told if isinstance(item, Missed)]
        assert len(missed) == 2 and "ChecksumError" in missed[0] and line.counts.gaps == 1
        assert [item[1] for item in told if isinstance(item, tuple)] == [True, False] * 3
        heads = [read_plain_frame(i.frame) for i in told if isinstance(i, Plain)]
        (trade,) = [(h, levels) for h, levels in heads if h[W_KIND] == FrameKind.TRADE]
        assert (trade[0][W_LAST], trade[0][W_TS], trade[1].tolist()) == (77, T_MS * 1_000_000, [[10050 * 2, 25_000]])
        quote = next(levels for h, levels in heads if h[W_KIND] == FrameKind.BBO)
        assert quote.tolist() == [[10000 * 2, 150_000], [10100 * 2 + 1, 250_000]]

    asyncio.run(asyncio.wait_for(main(), 120))
