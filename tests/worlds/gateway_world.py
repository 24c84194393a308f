"""A gateway over memory on the heap, and an ASGI application served on loopback by the least of servers. Holds no tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np
from cli_worlds import HeapMemory

from procs import topology
from procs.fold.plan import plan_of
from procs.gateway.answers import Answers
from procs.gateway.stage import answers_of
from procs.memory import board
from procs.profiles.config import load_profile
from procs.profiles.schema import Profile, SymbolSettings
from trading.features.vector import VERSION
from trading.records import MARKET_RECORD, SIGNAL_RECORD, VECTOR_RECORD, Flag, Kind, Side
from trading.settings import SignalFiles, UserSignal

S = 1_000_000_000
START_NS = 1_723_075_200 * S  # 2024-08-08T00:00Z
NAMES = ("BTCUSDT", "ETHUSDT")
BID, ASK = 6_000_000, 6_000_010
LOT = 100_000_000
"""One coin."""


class GatewayWorld:
    """Rings and board on the heap, a clock that stands until it is moved, and the answers over them."""

    def __init__(self, names: Sequence[str] = NAMES, own: Sequence[UserSignal] = (), **settings: Any) -> None:
        """`own`: signals of the user's, as a start leaves them in the profile."""
        symbols = [{"name": name, "tick_size": "0.01", "lot_size": "0.00000001", "step_size": "0.00001"} for name in names]
        self.profile: Profile = load_profile("paper", {"symbols": symbols, **settings})
        assert isinstance(self.profile.symbols[0], SymbolSettings)
        self.profile = msgspec.structs.replace(self.profile, signals=SignalFiles(user=tuple(own)))
        self.memory = HeapMemory()
        self.now_ns = 5 * S
        self.event_ns = START_NS
        self.update_id = 100
        for name in topology.Run().names:
            self.memory.page(name)[board.READY] = 1
        self.answers: Answers = self.build()

    def build(self) -> Answers:
        """New answers over the memory as it is now: a gateway that has just started."""
        rings = {name: self.memory.ring(name) for name in ("market", "signals", "vectors")}
        return answers_of(self.profile, plan_of(self.profile), self.memory.board_words, rings, lambda: self.now_ns)

    def pass_ms(self, ms: float, *, dead: Sequence[str] = ()) -> None:
        """Let the clock go on; every stage but the dead ones beats."""
        self.now_ns += int(ms * 1e6)
        for name in topology.Run().names:
            if name not in dead:
                self.memory.page(name)[board.HEARTBEAT] += 1

    def market(self, symbol: int = 0, kind: Kind = Kind.DEPTH, **fields: Any) -> None:
        """Publish a market record: five levels a side, a tick apart, one coin each."""
        rec = np.zeros(1, MARKET_RECORD)
        self.event_ns += S // 10
        self.update_id += 1
        rec["ts_ns"], rec["ts_exchange_ns"], rec["ts_recv_ns"] = self.event_ns, self.event_ns - 1000, self.event_ns
        rec["kind"], rec["symbol"], rec["update_id"] = int(kind), symbol, self.update_id
        rec["flags"] = int(Flag.BOOK_VALID) if kind != Kind.STALE else 0
        rec["ts_publish_mono_ns"] = self.now_ns
        rec["bid_ticks"][0], rec["ask_ticks"][0] = BID - np.arange(5), ASK + np.arange(5)
        rec["bid_lots"][0] = rec["ask_lots"][0] = LOT
        for name, value in fields.items():
            rec[name] = value
        self.memory.publish("market", rec)

    def trade(self, ticks: int, lots: int = LOT, symbol: int = 0, **fields: Any) -> None:
        """Publish a print."""
        self.market(symbol, Kind.TRADE, price_ticks=ticks, qty_lots=lots, **fields)

    def signal(self, symbol: int = 0, side: Side = Side.BUY, **fields: Any) -> None:
        """Publish a signal record that asks for a side, with two signals active and one that warms up."""
        rec = np.zeros(1, SIGNAL_RECORD)
        rec["ts_ns"], rec["kind"], rec["symbol"], rec["flags"] = self.event_ns, int(Kind.SIGNAL), symbol, int(Flag.BOOK_VALID)
        rec["ts_publish_mono_ns"] = self.now_ns
        rec["score"], rec["confidence"], rec["urgency"] = 75.0 if side >= 0 else 25.0, 0.8, 60.0
        rec["mid"], rec["spread_bps"], rec["volatility"], rec["atr_ticks"] = 0.5 * (BID + ASK), 1 / 60, 0.0001, 2000.0
        rec["microprice"], rec["microstructure"], rec["vpin"], rec["order_flow"] = 0.5 * (BID + ASK) + 2.5, 71.0, 0.25, -0.5
        rec["reason"] = 1  # book_imbalance votes most
        rec["long_threshold"], rec["short_threshold"] = 70.0, 30.0
        rec["side"], rec["ready_mask"], rec["active_mask"] = int(side), 0b0111, 0b0101
        rec["strength"][0, :4] = 0.41, 0.0, -0.5, 0.0
        for name, value in fields.items():
            rec[name] = value
        self.memory.publish("signals", rec)

    def vector(self, symbol: int = 0, **fields: Any) -> None:
        """Publish a feature vector: feature k is k / 10, and all but the last ten are warm."""
        rec = np.zeros(1, VECTOR_RECORD)
        rec["ts_ns"], rec["kind"], rec["symbol"], rec["flags"] = self.event_ns, int(Kind.VECTOR), symbol, int(Flag.BOOK_VALID)
        rec["ts_publish_mono_ns"], rec["version"], rec["warm_mask"] = self.now_ns, VERSION, (1 << 40) - 1
        rec["values"][0, :40] = np.arange(40) / 10
        for name, value in fields.items():
            rec[name] = value
        self.memory.publish("vectors", rec)

    def both(self, symbol: int = 0, **fields: Any) -> None:
        """A market record, its signal and its features."""
        self.market(symbol)
        self.signal(symbol, **fields)
        self.vector(symbol)


class Loopback:
    """An ASGI application on a loopback port of its own, in a thread: HTTP/1.1, requests without bodies, connections kept.

    It stands in for uvicorn where the extra `web` is not installed, so that the application is always tried over sockets.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loopback")
        self.port = 0

    def __enter__(self) -> Loopback:
        self._thread.start()
        assert self._started.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._talk(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            method, target, _ = head[0].decode("latin-1").split(" ")
            path, _, query = target.partition("?")
            headers = [(k.strip().lower(), v.strip()) for k, _, v in (line.partition(b":") for line in head[1:] if line)]
            scope = {"type": "http", "method": method, "path": unquote(path), "headers": headers, "root_path": ""}
            scope |= {"query_string": query.encode("latin-1"), "raw_path": path.encode("latin-1"), "scheme": "http"}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    lines = [f"HTTP/1.1 {message['status']} .".encode(), *(k + b": " + v for k, v in message["headers"])]
                    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
                else:
                    writer.write(message.get("body", b""))

            await self._app(scope, lambda: None, send)
            await writer.drain()
