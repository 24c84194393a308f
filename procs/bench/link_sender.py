"""The venue's end of `bench link`: a process that sends prepared frames at a wanted rate and notes when it wrote each.

    python -m procs.bench.link_sender FOLDER

FOLDER holds `frames.npy` (bytes), `spans.npy` (a frame a row; the first is the REST snapshot) and `stamps.npy`, which gets
CLOCK_MONOTONIC just before each frame's write. One port speaks WebSocket and the few REST answers that a receiver needs.
Commands come as JSON lines on stdin, `{"first": i, "count": n, "rate": r}`; answers go to stdout, a line each.

What this module is not: a venue. It knows one symbol and no limits; `scalperctl venue` is the one to test against.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from picows import WSListener, WSMsgType, WSTransport, ws_create_server
from picows.common import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

SYMBOL: Final = "BTCUSDT"
BREATHE_S: Final = 0.0005
"""The longest time for which the loop's own work (a ping, a request) waits for the sending."""

_FILTERS: Final = [
    {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.00000000", "tickSize": "0.01000000"},
    {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
    {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True, "maxNotional": "9000000.00000000",
     "applyMaxToMarket": False, "avgPriceMins": 5},
]  # fmt: skip
_EXCHANGE_INFO: Final = {
    "timezone": "UTC", "rateLimits": [], "exchangeFilters": [],
    "symbols": [{"symbol": SYMBOL, "status": "TRADING", "baseAsset": "BTC", "baseAssetPrecision": 8, "quoteAsset": "USDT",
                 "quotePrecision": 8, "quoteAssetPrecision": 8, "isSpotTradingAllowed": True, "filters": _FILTERS}],
}  # fmt: skip


def say(**words: Any) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


class Line(WSListener):
    """One client's connection."""

    def __init__(self, owner: Sender, streams_in_url: bool) -> None:
        self._owner, self._streams_in_url = owner, streams_in_url
        self.transport: WSTransport | None = None
        self.paused = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        """A client stands; one that named its streams in the address wants them now."""
        self.transport = transport
        if self._streams_in_url:
            self._owner.subscribe(self)

    def on_ws_frame(self, transport: WSTransport, frame: Any) -> None:
        """Answer control messages."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            said = json.loads(frame.get_payload_as_bytes())
            transport.send(WSMsgType.TEXT, json.dumps({"result": None, "id": said.get("id")}).encode())
            if said.get("method") == "SUBSCRIBE":
                self._owner.subscribe(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Gone."""
        self._owner.lines = [line for line in self._owner.lines if line is not self]

    def pause_writing(self) -> None:
        """The socket is full: the client does not keep up."""
        self.paused = True

    def resume_writing(self) -> None:
        """It has room again."""
        self.paused = False


class Sender:
    """The frames, the connections, and the sending."""

    def __init__(self, folder: Path) -> None:
        text = np.load(folder / "frames.npy").tobytes()
        self.frames = [text[start:end] for start, end in np.load(folder / "spans.npy").tolist()]
        self.stamps = np.load(folder / "stamps.npy", mmap_mode="r+")
        self.lines: list[Line] = []
        self.port = 0

    def subscribe(self, line: Line) -> None:
        """From here on the line gets what is sent."""
        if line not in self.lines:
            self.lines.append(line)
            say(subscribed=len(self.lines))

    def answer(self, request: WSUpgradeRequest) -> Line | WSUpgradeResponseWithListener:
        """The route of a request: REST answers, else a WebSocket."""
        path = request.path.decode() if isinstance(request.path, bytes) else str(request.path)
        if path.endswith("/exchangeInfo") or "/exchangeInfo?" in path:
            body = json.dumps(_EXCHANGE_INFO).encode()
        elif "/depth?" in path:
            body = self.frames[0]
        elif path.endswith("/time"):
            body = json.dumps({"serverTime": time.time_ns() // 1_000_000}).encode()
        elif path.endswith("/ping"):
            body = b"{}"
        elif "/api/" in path or "/fapi/" in path:
            refusal = WSUpgradeResponse.create_error_response(404, b'{"code":-1100,"msg":"not served here"}')
            return WSUpgradeResponseWithListener(refusal, None)
        else:
            return Line(self, "streams=" in path)
        headers = {"Content-Type": "application/json", "X-MBX-USED-WEIGHT-1M": "1"}
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(body, headers), None)

    async def send(self, first: int, count: int, rate: float) -> dict[str, Any]:
        """Send `count` frames at `rate` a second to every line; what became of it."""
        clock, stamps, frames, text = time.monotonic_ns, self.stamps, self.frames, WSMsgType.TEXT
        gap_ns = 1e9 / rate
        start = breathed = clock()
        waited_ns = 0
        for i in range(count):
            due = start + int(i * gap_ns)
            now = clock()
            if now < due:
                time.sleep((due - now) / 1e9)
                now = clock()
            if now - breathed > BREATHE_S * 1e9 or i == count - 1:
                await asyncio.sleep(0)
                breathed = clock()
            if not self.lines:
                return {"sent": i, "gone": True}
            for line in self.lines:
                while line.paused:
                    at = clock()
                    await asyncio.sleep(0)
                    waited_ns += clock() - at
                stamps[first + i] = clock()
                assert line.transport is not None
                line.transport.send(text, frames[first + i])
        return {"sent": count, "seconds": (clock() - start) / 1e9, "waited_s": waited_ns / 1e9}

    async def run(self) -> None:
        """Serve until stdin ends."""
        server = await ws_create_server(self.answer, "127.0.0.1", 0, websocket_handshake_timeout=30)
        say(port=server.sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        commands: asyncio.Queue[bytes] = asyncio.Queue()
        rest = b""

        def read() -> None:
            nonlocal rest
            piece = os.read(0, 65536)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines if piece else [b""]:
                commands.put_nowait(line)

        loop.add_reader(0, read)
        while command := await commands.get():
            say(**await self.send(**json.loads(command)))
        server.close()


if __name__ == "__main__":
    asyncio.run(Sender(Path(sys.argv[1])).run())
