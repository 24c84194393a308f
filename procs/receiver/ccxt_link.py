"""A venue of ccxt at work: procs.receiver.ccxt_line watches it, this ties what it finds to the frames ring.

The same surface as procs.receiver.link.VenueLink, of which it has little: ccxt holds the sockets, the limits and the snapshots.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Final

from procs.pacing import backoff
from procs.receiver.frames import NOWHERE, FrameWriter
from procs.receiver.line_table import PROVED
from procs.receiver.say import Say
from procs.receiver.stream_watch import LONGEST_PAUSE_NS, PAUSE_NS, Wish
from trading.records import Stream
from trading.venues.names import CCXT
from trading.venues.protocol import Item, Missed, Plain, Refused, Streams, Unknown, VenueError, VenueSymbol

RETRY_S: Final = 60.0
KINDS: Final = {Stream.DEPTH: "depth", Stream.BBO: "quote", Stream.PRINTS: "trade"}
"""What procs.receiver.ccxt_line calls the streams."""


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
        self._names: Final = {symbol.index: symbol.name for symbol in symbols}
        self._wishes: dict[tuple[int, Stream], Wish] = {}
        self._again: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Told down first, as every line is; then watch."""
        self._writer.line_down(self.number, self.symbols, time.time_ns())
        self._task = asyncio.get_running_loop().create_task(self._run())

    def tick(self) -> None:
        """Subscribe anew what has not come back."""
        now = time.time_ns()
        for (symbol, stream), wish in list(self._wishes.items()):
            if self._heard(symbol, stream) > max(wish.since_ns, wish.asked_ns):
                del self._wishes[symbol, stream]
            elif now >= wish.not_before_ns:
                wish.tries += 1
                wish.asked_ns, wish.not_before_ns = now, now + int(backoff(wish.tries, PAUSE_NS, LONGEST_PAUSE_NS))
                task = asyncio.get_running_loop().create_task(self._line.again(symbol, KINDS[stream]))
                self._again.add(task)
                task.add_done_callback(self._again.discard)

    def sample(self) -> None:
        """Nor here."""

    def want(self, symbol: int, reason: int) -> None:
        """The book anew: the line's next frame of the symbol is a snapshot."""
        self._line.want(symbol)

    def want_streams(self, symbol: int, mask: int) -> None:
        """The feed has found these streams of the symbol dead (bit i: Stream i)."""
        now = time.time_ns()
        for stream in KINDS:
            if mask >> stream & 1 and (symbol, stream) not in self._wishes:
                self._wishes[symbol, stream] = Wish(PROVED, now, not_before_ns=now)
                self._say(f"{self._names[symbol]}: {stream.name.lower()} is subscribed anew: {PROVED}", f"dead {symbol} {stream}")

    def _heard(self, symbol: int, stream: Stream) -> int:
        return int(self._line.heard.get((symbol, KINDS[stream]), 0))

    def _stream_rows(self) -> list[dict[str, Any]]:
        now, rows = time.time_ns(), []
        for symbol, name in self._names.items():
            ages = {stream.name.lower(): (now - at) / 1e9 if (at := self._heard(symbol, stream)) else None for stream in KINDS}
            wanted = [wish.row(stream, now) for (of, stream), wish in self._wishes.items() if of == symbol]
            rows.append({"symbol": name, "ages_s": ages, "wanted": wanted})
        return rows

    def odd(self, payload: bytes, line: int) -> None:
        """The feed made nothing of a plain frame of ours."""
        self._say(f"line {line}: the feed refused a plain frame of {len(payload)} bytes", "odd plain")

    async def stop(self) -> None:
        """End the watching."""
        await self._line.stop()
        for task in list(self._again):
            task.cancel()
        await asyncio.gather(*self._again, return_exceptions=True)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def row(self) -> dict[str, Any]:
        """This venue's figures, for lines.json."""
        return {
            "venue": self.name,
            "transport": "ccxt",
            "streams": self._stream_rows(),
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
