"""A venue of ccxt at work: procs.receiver.ccxt_line watches it, this ties what it finds to the frames ring.

The same surface as procs.receiver.link.VenueLink, of which it has little: ccxt holds the sockets, the limits and the snapshots.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from procs.receiver.frames import NOWHERE, FrameWriter
from procs.receiver.say import Say
from trading.venues.names import CCXT
from trading.venues.protocol import Item, Missed, Plain, Refused, Streams, Unknown, VenueError, VenueSymbol

RETRY_S: Final = 60.0


class CcxtLink:
    """One ccxt venue on one line number. `make` builds the line (tests give a fake)."""

    def __init__(
        self,
        market: str,
        symbols: Sequence[VenueSymbol],
        streams: Streams,
        writer: FrameWriter,
        say: Say,
        rng: random.Random,
        number: int,
        *,
        stream_url: str = "",
        rest_url: str = "",
        make: Any = None,
    ) -> None:
        self.name: Final = market
        self.number: Final = number
        self.symbols: Final = tuple(symbol.index for symbol in symbols)
        self._writer, self._say = writer, say
        self.messages = self.gaps = self.lost = self.unknown = self.refused = 0
        self._up: set[int] = set()
        if make is None:
            from procs.receiver.ccxt_line import CcxtLine  # type: ignore[import-not-found,unused-ignore]

            make = CcxtLine
        self._line: Final = make(
            market.removeprefix(CCXT), symbols, self._found, self._tell,
            streams=streams, rest=rest_url, stream=stream_url, rng=rng,
        )  # fmt: skip
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Told down first, as every line is; then watch."""
        self._writer.line_down(self.number, self.symbols, time.time_ns())
        self._task = asyncio.get_running_loop().create_task(self._run())

    def tick(self) -> None:
        """Nothing is due here."""

    def sample(self) -> None:
        """Nor here."""

    def want(self, symbol: int, reason: int) -> None:
        """The book anew: the line's next frame of the symbol is a snapshot."""
        self._line.want(symbol)

    def odd(self, payload: bytes, line: int) -> None:
        """The feed made nothing of a plain frame of ours."""
        self._say(f"line {line}: the feed refused a plain frame of {len(payload)} bytes", "odd plain")

    async def stop(self) -> None:
        """End the watching."""
        await self._line.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def row(self) -> dict[str, Any]:
        """This venue's figures, for lines.json."""
        return {
            "venue": self.name,
            "transport": "ccxt",
            "lines": [
                {
                    "line": self.number,
                    "copy": "A",
                    "state": "UP" if self._up else "CONNECTING",
                    "symbols": len(self.symbols),
                    "symbols_up": len(self._up),
                    "messages": self.messages,
                    "plain_frames": self.messages,
                    "gaps": self.gaps,
                    "lost": self.lost,
                    "unknown": self.unknown,
                    "refused": self.refused,
                }
            ],
        }

    async def _run(self) -> None:
        while True:
            try:
                await self._line.run()
                return
            except VenueError as error:
                self._say(f"{self.name}: {error}", f"ccxt {self.name}")
            except Exception as error:  # a defect in one venue's client must not end the others' lines
                self._say(f"{self.name}: {type(error).__name__}: {error}", f"ccxt {self.name}")
            await asyncio.sleep(RETRY_S)

    def _found(self, item: Item, now: int) -> None:
        if isinstance(item, Plain):
            self.messages += 1
            if self._writer.frame(item.frame, item.symbol, self.number, self.messages, time.monotonic_ns(), now) == NOWHERE:
                self.lost += 1
                self._missing((item.symbol,), now)
        elif isinstance(item, Missed):
            self._missing(item.symbols, now)
            self._say(item.why, f"missed {self.name}")
        elif isinstance(item, Refused):
            self.refused += 1
            self._say(item.text, f"refused {self.name}")
        elif isinstance(item, Unknown):
            self.unknown += 1
            self._say(item.why, f"unknown {self.name}")

    def _missing(self, symbols: Sequence[int], now: int) -> None:
        self.gaps += len(symbols)
        self._writer.lost(self.number, symbols, now)

    def _tell(self, symbol: int, stands: bool) -> None:
        if stands:
            self._up.add(symbol)
            self._writer.line_up(self.number, (symbol,), time.time_ns())
        else:
            self._up.discard(symbol)
            self._writer.line_down(self.number, (symbol,), time.time_ns())
