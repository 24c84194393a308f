"""The invented venue of docs/add-a-venue.md: the document followed to the letter in a tree of its own, and a server for it.

The tree holds nothing but trading/venues with the document's module and row; all else is the project's own, which every Python
child finds behind it. So what is compiled once serves here too.

What this module is not: a test, and no part of the document.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "add-a-venue.md"
ROWS = re.compile(r"^    [A-Z_]+ = \d+, (?:(?!\n\n).)*\n(?=\n)", re.M | re.S)
"""The rows of Market, to the end of the last one."""
FIRST_PLACE = """import importlib.util, os, sys


class Place:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("trading.venues.corner", "trading.venues.names"):
            file = os.path.join(os.path.dirname(__file__), *name.split(".")) + ".py"
            return importlib.util.spec_from_file_location(name, file)
        return None


sys.meta_path.insert(0, Place)
"""
"""Python runs it in every child: the two modules that the document tells to write stand in place of the project's own."""


def blocks() -> tuple[str, str, str]:
    """The document's module, row and test."""
    module, row, test = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    return module, row, test


def follow(folder: Path) -> Path:
    """Do what the document says in a copy of trading/venues below `folder`; the tree's root."""
    module, row, _ = blocks()
    venues = folder / "trading" / "venues"
    shutil.copytree(ROOT / "trading" / "venues", venues, ignore=shutil.ignore_patterns("__pycache__"))
    (venues / "corner.py").write_text(module, encoding="utf-8")
    text = (venues / "names.py").read_text(encoding="utf-8")
    (rows,) = ROWS.findall(text)
    (venues / "names.py").write_text(text.replace(rows, rows + row), encoding="utf-8")
    (folder / "sitecustomize.py").write_text(FIRST_PLACE, encoding="utf-8")
    return folder


def call(tree: Path, *words: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Python with these words, in that tree."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-P", *words], env=environment, capture_output=True, text=True, timeout=timeout_s)


def scalperctl(tree: Path, *words: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """The command line, in that tree."""
    return call(tree, "-m", "procs.cli.main", *words, timeout_s=timeout_s)


def to_json(said: dict[str, Any]) -> str:
    """As the venue writes it."""
    return json.dumps(said, separators=(",", ":"))


class Book:
    """One instrument: a book around 1000 ticks that moves at random, never crossed, and its prints. Ticks of 0.5, lots of 0.1."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.rng = name, random.Random(seed)
        self.mid, self.n, self.prints = 1000, 1, 0
        self.levels: dict[tuple[str, int], int] = {
            (side, self.mid + sign * k): self.rng.randint(1, 99)
            for side, sign in (("bids", -1), ("asks", 1)) for k in range(1, 21)
        }  # fmt: skip

    def _said(self, levels: dict[tuple[str, int], int], at_ms: int, *, whole: bool) -> str:
        sides = {
            side: [[f"{ticks * 0.5:.1f}", f"{lots / 10:.1f}"] for (of, ticks), lots in levels.items() if of == side]
            for side in ("bids", "asks")
        }
        return to_json({"op": "book", "name": self.name, "n": self.n, "whole": whole, "at": at_ms, **sides})

    def whole(self, at_ms: int) -> str:
        """All of it."""
        return self._said(self.levels, at_ms, whole=True)

    def change(self, at_ms: int) -> str:
        """The next change: some quantities, at times a step of the middle."""
        changed = {key: self.rng.randint(1, 99) for key in self.rng.sample(sorted(self.levels), 3)}
        if self.rng.random() < 0.2:
            step = self.rng.choice((-1, 1)) if 900 < self.mid < 1100 else (1 if self.mid <= 900 else -1)
            self.mid += step
            gone, come = ("asks", "bids") if step > 0 else ("bids", "asks")
            changed = {(gone, self.mid): 0, (come, self.mid - step): 5}
            changed |= {(gone, self.mid + 20 * step): 7, (come, self.mid - 21 * step): 0}  # 20 levels a side remain
        self.n += 1
        self.levels = {key: lots for key, lots in (self.levels | changed).items() if lots}
        return self._said(changed, at_ms, whole=False)

    def print(self, at_ms: int) -> str:
        """A print at the touch."""
        self.prints += 1
        side = self.rng.choice(("buy", "sell"))
        bids, asks = ([ticks for of, ticks in self.levels if of == one] for one in ("bids", "asks"))
        price = f"{(min(asks) if side == 'buy' else max(bids)) * 0.5:.1f}"
        said = {"op": "print", "name": self.name, "n": self.prints, "at": at_ms, "price": price, "qty": "0.2", "side": side}
        return to_json(said)


def now_ms() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000


class Listener:
    """One connection: the names that it joined, and what waits to be sent, in order."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._waiting: asyncio.Queue[str] = asyncio.Queue()

    def tell(self, text: str) -> None:
        """Send it after all before."""
        self._waiting.put_nowait(text)

    async def speak(self, socket: web.WebSocketResponse) -> None:
        """Until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while True:
                await socket.send_str(await self._waiting.get())


class Server:
    """Corner on a free port of the loopback, in a thread of its own: changes every 10 ms, prints every 50, beats every second."""

    def __init__(self, *names: str) -> None:
        self.books = {name: Book(name, seed) for seed, name in enumerate(names)}
        self.port = 0
        self._listeners: dict[web.WebSocketResponse, Listener] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="corner", daemon=True)
        self._over = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._market: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> dict[str, str]:
        """As `live.endpoints` has it."""
        return {"venue": "corner", "stream": f"ws://127.0.0.1:{self.port}", "rest": f"http://127.0.0.1:{self.port}"}

    def __enter__(self) -> Server:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/names", self._names)
        app.router.add_get("/feed", self._feed)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self._market = asyncio.create_task(self._move())

    async def _end(self) -> None:
        self._over.set()
        assert self._runner is not None and self._market is not None
        await self._market
        for socket in list(self._listeners):
            await socket.close()
        await self._runner.cleanup()

    async def _names(self, request: web.Request) -> web.Response:
        return web.json_response([{"name": name, "tick": "0.50", "step": "0.1", "open": True} for name in self.books])

    async def _feed(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        listener = self._listeners[socket] = Listener()
        speaking = asyncio.create_task(listener.speak(socket))
        try:
            async for message in socket:
                said = json.loads(message.data) if message.type is WSMsgType.TEXT else {}
                if said.get("op") == "join":
                    names = [name for name in said["names"] if name in self.books]
                    listener.tell(to_json({"op": "joined", "names": names}))
                    for name in names:
                        listener.tell(self.books[name].whole(now_ms()))
                    listener.names.update(names)
        finally:
            del self._listeners[socket]
            speaking.cancel()
        return socket

    async def _move(self) -> None:
        turn = 0
        while not self._over.is_set():
            for name, book in self.books.items():
                told = [book.change(now_ms()), *([book.print(now_ms())] if turn % 5 == 0 else [])]
                for listener in self._listeners.values():
                    for text in told if name in listener.names else ():
                        listener.tell(text)
            for listener in self._listeners.values() if turn % 100 == 0 else ():
                listener.tell('{"op":"beat"}')
            turn += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 0.01)
