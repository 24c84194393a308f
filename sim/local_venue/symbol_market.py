"""The truth about one symbol: its book, trades, candles and touch, and what was said of them.

Frames of the source come in here, already on the venue's clock; what has changed is told to the listeners at once. What this is
not: it knows no stream, no client and no time of its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sim.local_venue.bars import GRACE_MS, HOUR, MINUTE, SECOND, Bars
from sim.local_venue.book import ASK, BID, VenueBook, text_of, units_of
from sim.local_venue.source import SymbolSpec

TRADES_KEPT: Final = 50_000
FUNDING_MS: Final = 8 * HOUR
AGG_MS: Final[dict[str, int]] = {"spot": 1, "usdm": 100, "coinm": 100}
"""How long prints of one price and side may join one aggregate trade."""


@dataclass(frozen=True, slots=True)
class Trade:
    """One print; texts as the venue sent them."""

    id: int
    price: str
    qty: str
    at_ms: int
    event_ms: int
    buyer_is_maker: bool


@dataclass(slots=True)
class AggTrade:
    """Prints of one price and side, one after another; `qty` in 1e-8."""

    id: int
    price: str
    qty: int
    first_id: int
    last_id: int
    at_ms: int
    buyer_is_maker: bool


@dataclass(frozen=True, slots=True)
class Diff:
    """One update of the book, as the source had it, in the venue's ids and times."""

    first_id: int
    last_id: int
    previous_id: int
    bids: list[Any]
    asks: list[Any]
    event_ms: int
    at_ms: int


class Listener(Protocol):
    """Who wants to hear of changes."""

    def on_diff(self, symbol: SymbolMarket, diff: Diff) -> None:
        """The book has changed."""

    def on_bbo(self, symbol: SymbolMarket) -> None:
        """The touch has changed."""

    def on_trade(self, symbol: SymbolMarket, trade: Trade) -> None:
        """A print."""

    def on_agg(self, symbol: SymbolMarket, trade: AggTrade) -> None:
        """An aggregate trade is complete."""


class SymbolMarket:
    """One symbol of one market."""

    funding_rate: Final = "0.00010000"

    def __init__(self, spec: SymbolSpec) -> None:
        self.spec = spec
        self.book = VenueBook()
        self.bars = Bars()
        self.trades: deque[Trade] = deque(maxlen=TRADES_KEPT)
        self.aggregates: deque[AggTrade] = deque(maxlen=TRADES_KEPT)
        self.seeded = False
        self.diff_ms = 0
        self.bbo: tuple[str, str, str, str] = ("0", "0", "0", "0")
        self.bbo_id = 0
        self.bbo_ms = (0, 0)  # event, transaction
        self.source_gaps = 0
        """Places where the source itself skipped updates; the venue's book goes on from what it has."""
        self.listeners: list[Listener] = []
        self._id_shift = 0
        self._trade_shift = 0
        self._trade_base = 0
        self._broken = False  # the source has skipped updates since its last snapshot
        self._waiting: list[dict[str, Any]] = []  # diffs before the snapshot
        self._seam = False  # the next diff continues right after a seam
        self._pending: AggTrade | None = None
        self._agg_id = 0

    def restart(self) -> None:
        """The source begins anew: everything up to its snapshot is passed over, and ids go on rising."""
        self.seeded = False
        self._waiting.clear()

    def take(self, event: dict[str, Any], at_ns: int, shift_ms: int) -> None:
        """Apply one frame of the source; `shift_ms` is to be added to the times in it."""
        kind = event.get("e")
        if kind == "depthUpdate":
            if self.seeded:
                self._diff(event, at_ns, shift_ms)
            else:
                self._waiting.append(event)
        elif "lastUpdateId" in event and "bids" in event:
            self._snapshot(event, at_ns, shift_ms)
        elif kind == "trade":
            if self.seeded:
                self._trade(event, at_ns // 1_000_000, shift_ms)
        elif "B" in event and "A" in event and self.seeded:
            self._bbo(event, at_ns, shift_ms)

    def _snapshot(self, event: dict[str, Any], at_ns: int, shift_ms: int) -> None:
        healthy = self.seeded and not self._broken
        if healthy:
            return
        book = self.book
        last_id = int(event["lastUpdateId"])
        if not self.seeded and not book.last_id:
            book.seed(event["bids"], event["asks"], last_id, at_ns)
            self._derive_bbo(at_ns // 1_000_000)
        elif self.seeded and last_id + self._id_shift <= book.last_id:
            return
        else:
            if not self.seeded:  # a new round: the snapshot's id comes right behind the last one of the round before
                self._id_shift = book.last_id + 1 - last_id
                self._trade_shift = (self.trades[-1].id + 1) if self.trades else 0
                self._seam = True
            bids, asks = book.difference(event["bids"], event["asks"])
            ms = at_ns // 1_000_000
            self._publish(Diff(book.last_id + 1, last_id + self._id_shift, book.last_id, bids, asks, ms, ms), at_ns)
        self.diff_ms = int(event["T"]) + shift_ms if "T" in event else at_ns // 1_000_000
        self.seeded, self._broken = True, False
        waiting, self._waiting = self._waiting, []
        for earlier in waiting:  # a snapshot may be older than diffs that came before it
            self._diff(earlier, at_ns, shift_ms)

    def _diff(self, event: dict[str, Any], at_ns: int, shift_ms: int) -> None:
        book = self.book
        first, last = int(event["U"]) + self._id_shift, int(event["u"]) + self._id_shift
        if last <= book.last_id:
            return
        previous = int(event.get("pu", first - self._id_shift - 1)) + self._id_shift
        if previous > book.last_id:
            self.source_gaps += 1
            self._broken = True
        elif self._seam:
            first = max(first, book.last_id + 1)
            previous = book.last_id
        self._seam = False
        event_ms = int(event["E"]) + shift_ms
        at_ms = int(event["T"]) + shift_ms if self.spec.is_future and "T" in event else event_ms
        self._publish(Diff(first, last, previous, event["b"], event["a"], event_ms, at_ms), at_ns)

    def _publish(self, diff: Diff, at_ns: int) -> None:
        self.book.apply(diff.bids, diff.asks, diff.last_id, at_ns)
        self.diff_ms = diff.at_ms
        for listener in self.listeners:
            listener.on_diff(self, diff)
        if not self.spec.has_bbo:
            before = self.bbo
            self._derive_bbo(diff.event_ms)
            if self.bbo != before:
                for listener in self.listeners:
                    listener.on_bbo(self)

    def _derive_bbo(self, at_ms: int) -> None:
        bid, ask = self.book.best(BID) or ("0", "0"), self.book.best(ASK) or ("0", "0")
        self.bbo, self.bbo_id, self.bbo_ms = (*bid, *ask), self.book.last_id, (at_ms, at_ms)

    def _bbo(self, event: dict[str, Any], at_ns: int, shift_ms: int) -> None:
        update_id = int(event["u"]) + self._id_shift
        if update_id < self.bbo_id:
            return
        self.bbo = (event["b"], event["B"], event["a"], event["A"])
        self.bbo_id = update_id
        event_ms = int(event["E"]) + shift_ms if "E" in event else at_ns // 1_000_000
        self.bbo_ms = (event_ms, int(event["T"]) + shift_ms if "T" in event else event_ms)
        for listener in self.listeners:
            listener.on_bbo(self)

    def _trade(self, event: dict[str, Any], now_ms: int, shift_ms: int) -> None:
        trade_id = int(event["t"])
        if self._trade_shift > trade_id:  # the first of a new round follows the last of the round before
            self._trade_base = self._trade_shift - trade_id
            self._trade_shift = 0
        price, qty = units_of(event["p"]), units_of(event["q"])
        if not price or not qty:
            return  # USD-M announces some of its settlements as prints of nothing
        at_ms = int(event["T"]) + shift_ms
        maker = bool(event["m"])
        trade = Trade(trade_id + self._trade_base, event["p"], event["q"], at_ms, int(event["E"]) + shift_ms, maker)
        pending = self._pending
        if pending is not None:
            same = pending.price == trade.price and pending.buyer_is_maker == maker
            if same and at_ms < pending.at_ms + AGG_MS[self.spec.market]:
                pending.qty += qty
                pending.last_id = trade.id
            else:
                self.flush_aggregate()
        if self._pending is None:
            self._agg_id += 1
            self._pending = AggTrade(self._agg_id, trade.price, qty, trade.id, trade.id, at_ms, maker)
        self.trades.append(trade)
        self.bars.add(self._bar_time(at_ms, now_ms), price, qty, trade.id, maker)
        for listener in self.listeners:
            listener.on_trade(self, trade)

    @staticmethod
    def _bar_time(at_ms: int, now_ms: int) -> int:
        """When a print counts in candles: its own time, unless that second is closed."""
        return max(at_ms, (now_ms - GRACE_MS) // SECOND * SECOND)

    @property
    def aggregate_is_new(self) -> bool:
        """Whether the print taken last has begun an aggregate trade."""
        pending = self._pending
        return pending is not None and pending.first_id == pending.last_id

    def flush_aggregate(self, first_id: int | None = None) -> None:
        """The pending aggregate trade is complete; with `first_id`, only if it is the one that began there."""
        pending = self._pending
        if pending is not None and first_id in (None, pending.first_id):
            self._pending = None
            self.aggregates.append(pending)
            for listener in self.listeners:
                listener.on_agg(self, pending)

    def agg_fields(self, trade: AggTrade) -> dict[str, Any]:
        """The fields that stream and REST have in common."""
        fields = {
            "a": trade.id, "p": trade.price, "q": text_of(trade.qty, self.spec.qty_decimals), "f": trade.first_id,
            "l": trade.last_id, "T": trade.at_ms, "m": trade.buyer_is_maker,
        }  # fmt: skip
        return fields | {"M": True} if self.spec.market == "spot" else fields

    def forget_history(self, shift_ms: int) -> None:
        """Begin at another time: prints and candles so far are gone, stamps move."""
        self.bars = Bars()
        self.trades.clear()
        self.aggregates.clear()
        self._pending = None
        self.diff_ms += shift_ms
        self.bbo_ms = (self.bbo_ms[0] + shift_ms, self.bbo_ms[1] + shift_ms)
        self.book.at_ns += shift_ms * 1_000_000

    def average_price(self, now_ms: int, minutes: int = 5) -> str:
        """Volume-weighted price of the last minutes; the last price when nothing was traded."""
        whole = self.bars.window(now_ms, minutes * MINUTE)
        if whole is not None and whole.volume:
            return text_of(whole.quote // whole.volume, self.spec.price_decimals)
        return self.trades[-1].price if self.trades else text_of(self.mid(), self.spec.price_decimals)

    def mid(self) -> int:
        """The middle of the book in 1e-8, 0 without a side."""
        bid, ask = self.book.best(BID), self.book.best(ASK)
        return (units_of(bid[0]) + units_of(ask[0])) // 2 if bid and ask else 0

    def mark_text(self) -> str:
        """The mark price: this venue takes the mid."""
        return text_of(self.mid(), 8)

    def next_funding_ms(self, now_ms: int) -> int:
        """When funding is next settled."""
        return now_ms - now_ms % FUNDING_MS + FUNDING_MS
