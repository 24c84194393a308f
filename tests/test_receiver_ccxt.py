"""A ccxt venue's line tied to the frames ring, with a fake in the place of procs.receiver.ccxt_line."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from receiver_world import RingWorld, until

from procs.receiver import ccxt_link
from procs.receiver.ccxt_link import CcxtLink
from procs.receiver.say import Say
from trading.records import Kind, Stream
from trading.venues.protocol import Item, Missed, Plain, Refused, Streams, Unknown, VenueError, VenueSymbol


class FakeLine:
    """Says what it was made with, and what it is told to."""

    def __init__(
        self, venue_id: str, symbols: Sequence[VenueSymbol], emit: Callable[[Item, int], None],
        tell_line: Callable[[int, bool], None], **rest: Any,
    ) -> None:  # fmt: skip
        self.venue_id, self.symbols, self.emit, self.tell, self.rest = venue_id, symbols, emit, tell_line, rest
        self.wanted: list[int] = []
        self.heard: dict[tuple[int, str], int] = {}
        self.begun_anew: list[tuple[int, str]] = []
        self.runs = 0
        self.over = asyncio.Event()
        self.fail: list[Exception] = []

    async def run(self) -> None:
        """Until stopped."""
        self.runs += 1
        if self.fail:
            raise self.fail.pop()
        await self.over.wait()

    async def stop(self) -> None:
        """End."""
        self.over.set()

    async def again(self, symbol: int, kind: str) -> None:
        """A stream anew."""
        self.begun_anew.append((symbol, kind))

    def want(self, symbol: int) -> None:
        """A snapshot next."""
        self.wanted.append(symbol)


def test_what_ccxt_finds_goes_into_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames, gaps and the line's state; a line that fails is started again; one that ends is stopped in order."""
    monkeypatch.setattr(ccxt_link, "RETRY_S", 0.001)

    async def body() -> None:
        world, said, made = RingWorld(), list[str](), list[FakeLine]()

        def make(*given: Any, **rest: Any) -> FakeLine:
            made.append(FakeLine(*given, **rest))
            return made[0]

        class Kept(Say):
            """Keeps the lines."""

            def __call__(self, text: str, key: str = "") -> None:
                said.append(text)

        symbols = [VenueSymbol(0, "A", "A/USD"), VenueSymbol(1, "B", "B/USD")]
        writer, rng = world.writer(), random.Random(1)
        link = CcxtLink("ccxt:gate", symbols, Streams(), writer, Kept("t"), rng, 7, rest_url="http://x", make=make)
        line = made[0]
        line.fail = [VenueError("no such market"), ValueError("a defect")]
        assert line.venue_id == "gate" and line.rest["rest"] == "http://x"
        link.start()
        await until(lambda: line.runs == 3)
        assert any("no such market" in text for text in said) and any("a defect" in text for text in said)
        line.tell(1, True)
        line.emit(Plain(1, b"frame"), 10**18)
        line.emit(Missed((1,), "gap"), 10**18)
        line.emit(Unknown("odd"), 10**18)
        line.emit(Refused("no"), 10**18)
        line.tell(1, False)
        link.want(1, 5)
        link.odd(b"frame", 7)
        row = link.row()["lines"][0]
        assert (row["messages"], row["gaps"], row["unknown"], row["refused"], row["state"]) == (1, 1, 1, 1, "CONNECTING")
        assert line.wanted == [1]
        link.want_streams(1, 1 << Stream.BBO | 1 << Stream.MARK)
        link.tick()
        link.tick()
        await until(lambda: bool(line.begun_anew))
        assert line.begun_anew == [(1, "quote")]
        first, second = link.row()["streams"]
        assert first["wanted"] == [] and second["wanted"][0]["stream"] == "bbo" and second["wanted"][0]["tries"] == 1
        assert second["ages_s"] == {"depth": None, "bbo": None, "prints": None}
        line.heard[1, "quote"] = time.time_ns() + 1
        link.tick()
        assert link.row()["streams"][1]["wanted"] == [] and any("B: bbo is subscribed anew" in text for text in said)
        kinds = [(kind, symbol, line_number) for kind, symbol, line_number, _ in world.read()]
        assert kinds == [
            (Kind.LINE_DOWN, 0, 7), (Kind.LINE_DOWN, 1, 7), (Kind.LINE_UP, 1, 7), (Kind.FRAME, 1, 7), (Kind.LOST, 1, 7),
            (Kind.LINE_DOWN, 1, 7),
        ]  # fmt: skip
        await link.stop()
        assert line.over.is_set()

    asyncio.run(asyncio.wait_for(body(), 120))
