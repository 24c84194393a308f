"""What the typed decoders share: exact levels, plain frames of them, rising ids for venues that send none, and a decoder's outer
shell.

A decoder is a class over TypedDecoder that says in `_read` what a frame means; whatever its types or numbers refuse
comes out as Unknown here, with Missed before it where a book has thereby lost a message. Nothing escapes as an exception.

What this module is not: it knows no venue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from trading.venues.decimals import Inexact, Scale, lot_for, plain_decimal, scale
from trading.venues.protocol import Decoder, InstrumentRules, Item, Missed, Plain, Unknown, VenueError, VenueSymbol
from trading.wire.binance_layout import MAX_SNAPSHOT_LEVELS, FrameKind
from trading.wire.plain_frame import HAS_CHECKSUM, IN_BAND, UNCHECKED, plain_frame

__all__ = [
    "ASK", "BID", "CHECK_ADDRESS", "Ids", "Level", "SymbolTable", "TypedDecoder", "bbo", "book_change", "book_snapshot", "chunks",
    "Expected", "levels_of", "raw_text", "rules", "to_json", "trade",
]  # fmt: skip

BID: Final = 0
ASK: Final = 1

Level = tuple[int, int]
"""(price_ticks * 2 + side, lots), as plain frames have it."""

CHECK_ADDRESS: Final = "check the address of its REST interface"
"""The remedy for an answer that is another than the one asked for."""

to_json: Final = msgspec.json.Encoder().encode


class Expected:
    """Around the reading of a REST answer: what types or numbers refuse becomes a VenueError that says what the answer is not."""

    def __init__(self, venue: str, otherwise: str) -> None:
        self._text = f"{venue}: {otherwise}"

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """VenueError in place of what was refused; what a defect raised passes."""
        if isinstance(error, msgspec.MsgspecError | ValueError | IndexError | RecursionError):
            raise VenueError(f"{self._text} ({error}); {CHECK_ADDRESS}") from None


def raw_text(raw: msgspec.Raw) -> str:
    """A JSON number or string exactly as it was sent, without quotes."""
    return bytes(raw).decode("ascii").strip('" \t\r\n')


def levels_of(pairs: Iterable[tuple[str, str]], side: int, unit: Scale) -> list[Level]:
    """(price, quantity) texts as levels. Raises Inexact."""
    return [(unit.ticks(price) * 2 + side, unit.lots(qty)) for price, qty in pairs]


def _words(levels: Sequence[Level]) -> np.ndarray:
    return np.array(levels, np.int64).reshape(-1, 2)


def book_snapshot(
    symbol: int,
    ts_ns: int,
    levels: Sequence[Level],
    last_id: int,
    checksum: int | None = None,
    *,
    covered: int = 0,
) -> Plain:
    """A whole book sent within the stream. `covered`: levels a side of which the venue speaks; 0: of all.

    Of each side the best MAX_SNAPSHOT_LEVELS are kept: what lies beyond is unknown, as with any snapshot.
    """
    for side in (BID, ASK):
        if sum(key & 1 == side for key, _ in levels) > MAX_SNAPSHOT_LEVELS:
            kept = sorted((lv for lv in levels if lv[0] & 1 == side), reverse=side == BID)[:MAX_SNAPSHOT_LEVELS]
            levels = [lv for lv in levels if lv[0] & 1 != side] + kept
    flags = IN_BAND | (0 if checksum is None else HAS_CHECKSUM)
    return Plain(
        symbol,
        plain_frame(
            FrameKind.SNAPSHOT, symbol, ts_ns, _words(levels), first_id=covered, last_id=last_id, flags=flags,
            checksum=checksum or 0,
        ),
    )  # fmt: skip


def book_change(
    symbol: int,
    ts_ns: int,
    levels: Sequence[Level],
    last_id: int,
    prev_id: int = UNCHECKED,
    checksum: int | None = None,
) -> Plain:
    """Changed levels of a book, which follow the message `prev_id` (0: none, so that it will not connect)."""
    return Plain(
        symbol,
        plain_frame(
            FrameKind.DEPTH, symbol, ts_ns, _words(levels), first_id=last_id, last_id=last_id, prev_id=prev_id,
            flags=0 if checksum is None else HAS_CHECKSUM, checksum=checksum or 0,
        ),
    )  # fmt: skip


def trade(
    symbol: int, ts_ns: int, price_ticks: int, lots: int, seller_took: bool, trade_id: int, *, counted: bool = True
) -> Plain:
    """A print; `trade_id` 0: the venue sends none that grows. counted: its ids rise by one, so that a gap is a print missed."""
    kind = FrameKind.TRADE if counted else FrameKind.AGG_TRADE
    level = _words([(price_ticks * 2 + (BID if seller_took else ASK), lots)])
    return Plain(symbol, plain_frame(kind, symbol, ts_ns, level, first_id=trade_id, last_id=trade_id))


def block_trade(symbol: int, ts_ns: int, trade_id: int) -> Plain:
    """A print of a deal that was made beside the book. It is counted, and its id with the others'; its price, which need not
    keep to the tick, is nobody's."""
    level = _words([(2 + ASK, 1)])
    return Plain(symbol, plain_frame(FrameKind.ASIDE, symbol, ts_ns, level, first_id=trade_id, last_id=trade_id))


def bbo(
    symbol: int, ts_ns: int, unit: Scale, bid: tuple[str, str], ask: tuple[str, str], update_id: int = 0, flags: int = 0
) -> Plain:
    """Best bid and offer as (price, quantity) texts; a side without quantity is empty. `update_id` 0: on no common count with the
    book's ids, so neither newer nor older than it. `flags`: SUMMARY for a channel that sums up. Raises Inexact."""
    levels = []
    for side, (price, qty) in ((BID, bid), (ASK, ask)):
        lots = unit.lots(qty) if qty else 0
        levels.append((unit.ticks(price) * 2 + side, lots) if lots and price else (side, 0))
    frame = plain_frame(FrameKind.BBO, symbol, ts_ns, _words(levels), first_id=update_id, last_id=update_id, flags=flags)
    return Plain(symbol, frame)


class Ids:
    """Ids for symbols whose venue sends none, chained so that a message lost on our own way shows.

    An id is the arrival time in ns, made strictly rising within the connection: ids of a later connection are greater.
    A change names the id of the book message before it on this connection as `prev_id`; `cut` breaks that chain where the venue
    says that something is missing.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}

    def book(self, symbol: int, recv_ns: int) -> tuple[int, int]:
        """(id, prev_id) of a new book message."""
        prev = self._last.get(symbol, 0)
        self._last[symbol] = new = max(prev + 1, recv_ns)
        return new, prev

    def cut(self, symbol: int) -> None:
        """Something is missing: the next change will not connect to what came before."""
        self._last[symbol] = self._last.get(symbol, 0) + 1


class SymbolTable:
    """The run's symbols by the venue's name, with their scales."""

    def __init__(self, symbols: Sequence[VenueSymbol], venue: str) -> None:
        self.index: Final[dict[str, int]] = {}
        self.scale: Final[dict[int, Scale]] = {}
        for it in symbols:
            if it.venue_name in self.index:
                raise VenueError(f"{venue}: symbol {it.venue_name} is named twice; name each once")
            self.index[it.venue_name] = it.index
            try:
                self.scale[it.index] = scale(it.tick_size, it.lot_size)
            except Inexact as error:
                raise VenueError(f"{venue}: symbol {it.venue_name}: {error}; correct its tick_size and lot_size") from None

    def all(self) -> tuple[int, ...]:
        """All indices."""
        return tuple(self.index.values())


class _Refusal(Exception):
    """What `_read` may raise to give up a frame after naming whose books lost it."""

    def __init__(self, items: Sequence[Item]) -> None:
        super().__init__()
        self.items = items


_BAD_INPUT: Final = (
    ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError, msgspec.MsgspecError,
)  # fmt: skip
"""What bytes of any kind can raise in msgspec, int() and tuple unpacking; a programming error would show in the recordings'
tests."""


class TypedDecoder(Decoder):
    """Turns exceptions of `_read` into items."""

    sequenced: bool = True
    """False: the venue's messages carry nothing that would show the loss of an unreadable one, so it counts against every
    book."""

    def __init__(self, table: SymbolTable) -> None:
        self.table = table
        self._ids = Ids()

    def decode(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        """Items of the frame; Unknown, with what the books missed before it, where it is not understood."""
        try:
            return self._read(raw, recv_ns)
        except _Refusal as refusal:
            return refusal.items
        except Inexact as error:  # of a print or a best price: book messages tell theirs apart
            return (Unknown(str(error)[:200]),)
        except _BAD_INPUT as error:
            unknown = Unknown(f"{type(error).__name__}: {error}"[:300])
            if self.sequenced:
                return (unknown,)
            for symbol in self.table.all():
                self._ids.cut(symbol)
            return (Missed(self.table.all(), "a frame could not be read"), unknown)

    def _read(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        """The frame's items; may raise whatever bad input raises."""
        raise TypeError(f"{type(self).__name__} reads nothing")

    def _symbol(self, name: str) -> tuple[int, Scale]:
        """Index and scale; a name that is none of ours ends the frame as Unknown."""
        index = self.table.index.get(name)
        if index is None:
            raise _Refusal((Unknown(f"symbol {name[:48]!r} is none of ours"),))
        return index, self.table.scale[index]

    def _book_broken(self, symbol: int, error: Exception) -> Sequence[Item]:
        """A book message that cannot be used: its book has missed it, and the bytes are kept."""
        return (Missed((symbol,), str(error)[:200]), Unknown(str(error)[:200]))


def chunks(items: Sequence[str], most: int) -> list[list[str]]:
    """The items in order, at most `most` at a time."""
    return [list(items[i : i + most]) for i in range(0, len(items), most)]


def rules(
    name: str, tick: str, lot: str, step: str, min_qty: str, max_qty: str = "", min_notional: str = "", trading: bool = True,
    *, contract: str = "", contract_size: str = "",
) -> tuple[str, InstrumentRules]:  # fmt: skip
    """(name, rules) with all numbers as plain decimals; an empty maximum is 9000000000, an empty minimum notional 0.

    Raises Inexact, also for a tick or step of 0, which is none."""
    for what, size in (("tick", tick), ("step", step)):
        if plain_decimal(size) == "0":
            raise Inexact(f"a {what} size of {size} is none")
    return name, InstrumentRules(
        venue_name=name,
        tick_size=plain_decimal(tick),
        lot_size=plain_decimal(lot),
        step_size=plain_decimal(step),
        min_qty=plain_decimal(min_qty),
        max_qty=plain_decimal(max_qty or "9000000000"),
        min_notional=plain_decimal(min_notional or "0"),
        trading=trading,
        contract=contract,
        contract_size=plain_decimal(contract_size) if contract_size else "",
    )


def indexed(found: Iterable[tuple[str, InstrumentRules]], venue: str, what: str) -> Mapping[str, InstrumentRules]:
    """Rules by name; VenueError where there are none at all."""
    table = dict(found)
    if not table:
        raise VenueError(f"{venue}: {what} lists no instrument; {CHECK_ADDRESS}")
    return table


__all__ += ["indexed", "lot_for"]
