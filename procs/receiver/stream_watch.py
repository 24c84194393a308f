"""The age of each stream of each symbol on each line, and which streams are to be subscribed anew.

Three tell that a stream has died alone:

    the feed   what the symbol's other streams show proves it (trading.books.ages)
    a line     another line of the same streams has brought messages that did not come over this one within PEER_NS
    time       nothing at all has come of the symbol for the venue's silence timeout, or nothing of a stream for so long since it
               was subscribed

Time alone proves nothing: an idle market is silent. Subscribing anew does no harm to a symbol that was only idle, and a snapshot
comes of it that shows whether the book still stands.

A wish stays until the stream flows, and is tried more and more slowly. A stream that comes back and dies again soon goes on where
it was. After STUBBORN tries the line itself is given up, if it is sure that something is missing.

What this module is not: it sends nothing and has no clock; times are monotonic ns.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from procs.pacing import MINUTE, SECOND, backoff
from procs.receiver.line_table import BEHIND, NEVER, PROVED, SILENT
from procs.receiver.lines import Line
from trading.records import Stream
from trading.venues.protocol import STREAMS, Venue, code_of
from trading.wire.binance_layout import FrameKind

STREAM_OF: Final[Mapping[int, Stream]] = {
    FrameKind.DEPTH: Stream.DEPTH, FrameKind.SNAPSHOT: Stream.DEPTH, FrameKind.BBO: Stream.BBO, FrameKind.TRADE: Stream.PRINTS,
    FrameKind.AGG_TRADE: Stream.PRINTS, FrameKind.MARK: Stream.MARK,
}  # fmt: skip
"""By which stream a plain frame of this FrameKind came."""
PAUSE_NS: Final = 5 * SECOND
LONGEST_PAUSE_NS: Final = 10 * MINUTE
PEER_NS: Final = 5 * SECOND
AGAIN_NS: Final = MINUTE
"""A stream that dies again within this time has not been healed: its pauses go on growing."""
STUBBORN: Final = 4
"""So many tries in vain for a stream that is surely dead, and the line is replaced."""
OF_THE_BOOK: Final = (Stream.DEPTH, Stream.BBO)
"""Of these the feed has proofs; of prints it knows only that they are late."""


@dataclass(slots=True)
class Wish:
    """One stream that is to flow again."""

    why: str
    since_ns: int
    line: int = -1  # of which it is wanted; -1: of all on which it does not flow
    tries: int = 0
    not_before_ns: int = 0
    asked_ns: int = 0

    def row(self, stream: Stream, now: int) -> dict[str, Any]:
        """For lines.json; `now` of the clock that `since_ns` was read from."""
        return {
            "stream": stream.name.lower(), "line": None if self.line < 0 else self.line, "why": self.why,
            "dead_s": round((now - self.since_ns) / SECOND, 1), "tries": self.tries,
        }  # fmt: skip


@dataclass(slots=True)
class _Debt:
    """What a line owes that another line has brought."""

    heard_ns: int  # by the other
    since_ns: int


class StreamWatch:
    """All streams of one venue's lines. `heard[line][code]` is set by whoever hears a message: when it came."""

    def __init__(self, venue: Venue, lines: Mapping[int, Line], silence_ns: int, rng: random.Random) -> None:
        most = max((symbol.index for symbol in venue.symbols), default=-1)
        self.heard: Final = {number: [0] * ((most + 1) * STREAMS) for number in lines}
        self.wishes: Final[dict[tuple[int, int], Wish]] = {}  # by (code, line)
        self.asked = 0
        """Times that a stream was due; a line that bears no message now is asked at the next."""
        self._lines, self._silence_ns, self._rng = lines, silence_ns, rng
        self._streams = {number: venue.carried(line.plan) for number, line in lines.items()}
        self._symbols = tuple(symbol.index for symbol in venue.symbols)
        self._healed: dict[tuple[int, int], tuple[int, int]] = {}  # tries of the last wish, and when it came true
        self._debts: dict[tuple[int, int], _Debt] = {}
        self._since: dict[tuple[int, int], int] = {}  # (line, symbol) -> when it was subscribed

    def up(self, line: int, symbols: Sequence[int], now: int) -> None:
        """The streams of these symbols are subscribed on this line: their ages begin."""
        for symbol in symbols:
            self._since[line, symbol] = now
            for stream in self._streams[line]:
                self.heard[line][code_of(symbol, stream)] = 0

    def down(self, line: int, symbols: Sequence[int]) -> None:
        """They are not any more: what was wanted of this line alone comes with its next connection."""
        for symbol in symbols:
            self._since.pop((line, symbol), None)
            for stream in self._streams[line]:
                code = code_of(symbol, stream)
                self._debts.pop((line, code), None)
                self.wishes.pop((code, line), None)

    def want(self, code: int, why: str, now: int, line: int = -1) -> bool:
        """A stream is to be subscribed anew; whether that is new."""
        key = code, line
        wish = self.wishes.get(key)
        if wish is not None:
            return False
        tries, healed_ns = self._healed.pop(key, (0, 0))
        wish = self.wishes[key] = Wish(why, now, line, not_before_ns=now)
        if tries and now - healed_ns < AGAIN_NS:
            wish.tries, wish.not_before_ns = tries, now + self._pause(tries)
        return True

    def look(self, now: int) -> list[tuple[int, str]]:
        """Find what time and the other lines tell; (code, why) of what is newly wanted. About once a second."""
        found = [*self._silent(now), *self._behind(now)]
        return [(code, why) for code, why, line in found if self.want(code, why, now, line)]

    def due(self, now: int) -> list[tuple[int, int, bool]]:
        """(line, code, whether the line itself is to be given up) of what is to be subscribed anew now.

        Those that flow again are dropped first.
        """
        asked: list[tuple[int, int, bool]] = []
        for key, wish in list(self.wishes.items()):
            code, only = key
            lines = [n for n in self.carriers(code) if only in (-1, n)]
            if any(self.heard[n][code] > max(wish.asked_ns, wish.since_ns) for n in lines):
                self._healed[key] = wish.tries, now
                del self.wishes[key]
                continue
            if now < wish.not_before_ns or not lines:
                continue
            wish.tries += 1
            wish.asked_ns, wish.not_before_ns = now, now + self._pause(wish.tries)
            self.asked += 1
            proved = wish.why is BEHIND or (wish.why is PROVED and code % STREAMS in OF_THE_BOOK)
            give_up = proved and wish.tries % STUBBORN == 0
            dead = [n for n in lines if now - self.heard[n][code] > SECOND] or lines
            asked += [(n, code, give_up) for n in dead]
        return asked

    def carriers(self, code: int) -> list[int]:
        """The lines on which a stream is subscribed."""
        symbol, stream = divmod(code, STREAMS)
        return [n for n, line in self._lines.items() if symbol in line.told and stream in self._streams[n]]

    def unanswered(self, symbol: int) -> bool:
        """Whether the symbol's streams were all subscribed anew twice because it was silent, and nothing came of it at all."""
        wish = self.wishes.get((code_of(symbol, Stream.DEPTH), -1))
        return wish is not None and wish.why is SILENT and wish.tries >= 2

    def ages_s(self, symbol: int, now: int) -> dict[str, float | None]:
        """Seconds since each stream of the symbol last brought something over any line; None: not since it was subscribed."""
        found: dict[str, float | None] = {}
        for stream in Stream:
            code = code_of(symbol, stream)
            if any(stream in streams and symbol in self._lines[n].plan.symbols for n, streams in self._streams.items()):
                last = max(heard[code] for heard in self.heard.values())
                found[stream.name.lower()] = round((now - last) / SECOND, 3) if last else None
        return found

    def rows(self, names: Mapping[int, str], now: int) -> list[dict[str, Any]]:
        """For lines.json: each symbol's ages, and what is wanted anew with its reason."""
        wanted: dict[int, list[dict[str, Any]]] = {}
        for (code, _), wish in self.wishes.items():
            symbol, stream = divmod(code, STREAMS)
            wanted.setdefault(symbol, []).append(wish.row(Stream(stream), now))
        return [
            {"symbol": names[symbol], "ages_s": self.ages_s(symbol, now), "wanted": wanted.get(symbol, [])}
            for symbol in self._symbols
        ]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _pause(self, tries: int) -> int:
        return int(backoff(tries, PAUSE_NS, LONGEST_PAUSE_NS, self._rng.random()))

    def _silent(self, now: int) -> list[tuple[int, str, int]]:
        """Symbols of which nothing comes, and streams that never spoke though they were subscribed long ago."""
        found: list[tuple[int, str, int]] = []
        for symbol in self._symbols:
            subscribed = [(n, since) for (n, of), since in self._since.items() if of == symbol]
            long = [n for n, since in subscribed if now - since >= self._silence_ns]
            if not long:
                continue
            heard = max(self.heard[n][code_of(symbol, stream)] for n, _ in subscribed for stream in self._streams[n])
            silent = now - heard >= self._silence_ns
            for stream in sorted({stream for n in long for stream in self._streams[n]}):
                code = code_of(symbol, stream)
                carriers = self.carriers(code)
                if silent or (set(carriers) <= set(long) and not any(self.heard[n][code] for n in carriers)):
                    found.append((code, SILENT if silent else NEVER, -1))
        return found

    def _behind(self, now: int) -> list[tuple[int, str, int]]:
        """Lines that do not bring what another line of the same streams has brought."""
        found: list[tuple[int, str, int]] = []
        if len(self.heard) < 3:  # a single line and its replacement
            return found
        for code in {code_of(symbol, stream) for symbol in self._symbols for stream in Stream}:
            carriers = self.carriers(code)
            if len(carriers) < 2:
                continue
            newest = max(self.heard[n][code] for n in carriers)
            for n in carriers:
                debt = self._debts.get((n, code))
                if debt is not None and self.heard[n][code] < debt.heard_ns - SECOND:
                    if now - debt.since_ns >= PEER_NS:
                        found.append((code, BEHIND, n))
                elif newest > self.heard[n][code]:
                    self._debts[n, code] = _Debt(newest, now)
                else:
                    self._debts.pop((n, code), None)
        return found
