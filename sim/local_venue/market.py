"""All symbols of the venue on one virtual clock: `step` takes the source's frames up to a time and gives what the streams say.

The clock is the caller's: a test steps it, a server lets it follow the real one. Streams cost nothing until somebody subscribes.
Diffs are gathered to each stream's interval (a stream no coarser than the source's own diffs passes them on as they are), with
`U`, `u` and `pu` continuous within each stream, so that a client by the venue's rules gets the exact book.

What this is not: it knows no connection and no fault; sim.local_venue.server and sim.local_venue.faults do.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Final

from sim.local_venue import messages
from sim.local_venue.bars import GRACE_MS, bucket, following
from sim.local_venue.messages import Body, Message
from sim.local_venue.source import Frame, Source, SourceError
from sim.local_venue.stream_names import MARKETS, MarketName, Stream, parse_stream
from sim.local_venue.symbol_market import AGG_MS, FUNDING_MS, AggTrade, Diff, SymbolMarket, Trade

MS: Final = 1_000_000
LOOP_PAUSE_NS: Final = 100 * MS
"""Between the last frame of a recording and its first one again."""


class Topic:
    """One stream that somebody listens to."""

    def __init__(self, market: Market, name: MarketName, stream: Stream, symbol: SymbolMarket) -> None:
        self.market, self.name, self.stream, self.symbol = market, name, stream, symbol
        self.listeners = 0
        symbol_diffs_ms = symbol.spec.native_ms
        self.passing = stream.kind == "depth" and stream.interval_ms <= symbol_diffs_ms
        self._first_id = 0
        self._last_id = symbol.book.last_id
        self._changes: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self._times = (0, 0)
        self._trades = symbol.bars.trades
        self._bar_ms = bucket(stream.arg, market.now_ms) if stream.kind == "kline" else 0

    def say(self, body: Body) -> None:
        """One event of this stream, now."""
        self.market.out(Message(self.name, self.stream, body, self.market.now_ns))

    def on_diff(self, diff: Diff) -> None:
        """Gather the diff, or pass it on."""
        if not self._first_id:
            self._first_id = diff.first_id
            if self._last_id < diff.previous_id:  # the source skipped updates: this stream shows it as the venue would
                self._last_id = diff.previous_id
        for side, levels in ((self._changes[0], diff.bids), (self._changes[1], diff.asks)):
            side.update(levels)
        self._times = (diff.event_ms, diff.at_ms)
        if self.passing:
            self._depth(diff.event_ms)

    def _depth(self, event_ms: int) -> None:
        if not self._first_id:
            return
        last_id = self.symbol.book.last_id
        sides = [sorted(side.items(), key=lambda level: float(level[0])) for side in self._changes]
        sides[0].reverse()
        ids = (self._first_id, last_id, self._last_id)
        self.say(messages.depth_update(self.symbol, ids, sides[0], sides[1], (event_ms, self._times[1])))
        self._first_id, self._last_id = 0, last_id
        self._changes = ({}, {})

    def _klines(self, now_ms: int) -> None:
        interval = self.stream.arg
        bars = self.symbol.bars.between(interval, self._bar_ms, bucket(interval, now_ms))
        changed = self.symbol.bars.trades != self._trades
        for bar in bars:
            closed = following(interval, bar.start_ms) <= now_ms - GRACE_MS
            if closed or changed:
                self.say(messages.kline(self.symbol, interval, bar, now_ms, closed))
        self._trades = self.symbol.bars.trades
        self._bar_ms = bucket(interval, now_ms)

    def on_timer(self, now_ms: int) -> None:
        """The stream's interval is over."""
        symbol, kind = self.symbol, self.stream.kind
        if kind == "depth":
            self._depth(now_ms)
        elif kind == "partial":
            if symbol.book.last_id != self._last_id:
                self.say(messages.partial_depth(symbol, int(self.stream.arg), self._last_id, now_ms))
                self._last_id = symbol.book.last_id
        elif kind == "kline":
            self._klines(now_ms)
        elif kind == "markPrice":
            self.say(messages.mark_price(symbol, now_ms))
        elif symbol.bars.trades != self._trades:
            self._trades = symbol.bars.trades
            if kind == "ticker":
                self.say(messages.ticker(symbol, now_ms))
            elif kind == "windowTicker":
                self.say(messages.ticker(symbol, now_ms, self.stream.arg))
            elif kind == "miniTicker":
                self.say(messages.mini_ticker(symbol, now_ms))
            elif kind == "avgPrice":
                self.say(messages.average_price(symbol, now_ms))


class AllTopic(Topic):
    """A stream of all symbols (`!ticker@arr` and its like)."""

    def __init__(self, market: Market, name: MarketName, stream: Stream, symbols: list[SymbolMarket]) -> None:
        super().__init__(market, name, stream, symbols[0])
        self.symbols = symbols
        self._seen = [0] * len(symbols)

    def on_timer(self, now_ms: int) -> None:
        """An array of those that have changed."""
        bodies = []
        for n, symbol in enumerate(self.symbols):
            if self.stream.kind == "markPrice":
                bodies.append(messages.mark_price(symbol, now_ms))
            elif symbol.bars.trades != self._seen[n]:
                self._seen[n] = symbol.bars.trades
                of = messages.ticker if self.stream.kind == "ticker" else messages.mini_ticker
                bodies.append(of(symbol, now_ms))
        if bodies:
            self.market.out(Message(self.name, self.stream, bodies, self.market.now_ns))


class Market:
    """The venue's truth and its clock.

    `start_ns`: where the venue's clock (Unix time, ns) begins, or a clock to ask when the source is ready (the generator may have
    to be compiled first); None: at the source's own time. With `loop` a recording begins
    anew when it ends: one large diff leads from its last book to its first, ids and times go on rising.
    """

    def __init__(self, source: Source, *, start_ns: int | Callable[[], int] | None = None, loop: bool = False) -> None:
        self.source = source
        self.loop = loop
        self.rounds = 0
        self.frames = 0
        self.symbols: dict[tuple[MarketName, str], SymbolMarket] = {}
        self._by_index = [SymbolMarket(spec) for spec in source.symbols]
        for symbol in self._by_index:
            self.symbols[symbol.spec.market, symbol.spec.name] = symbol
            symbol.listeners.append(self)
        self._topics: dict[tuple[MarketName, str], Topic] = {}
        self._heard: dict[tuple[str, str, str], list[Topic]] = {}  # (market, symbol, kind) -> topics
        self._timers: list[tuple[int, int, Callable[[int], None]]] = []
        self._timer_count = 0
        self._said: list[Message] = []
        self.funding: list[tuple[int, SymbolMarket, str]] = []
        """Settlements: (ms, symbol, mark price)."""
        self._shift_ns = 0
        self._frames = source.frames()
        self._next: Frame | None = None
        self._last_recv_ns = 0
        self.now_ns = 0
        self._advance_frame()
        if self._next is None:
            raise SourceError("the source holds no frame; give one that does")
        self._first_live_ns: int = 0
        self._seed()
        if start_ns is not None:
            begin_ns = start_ns() if callable(start_ns) else start_ns
            self._shift_ns = (begin_ns - self.now_ns) // MS * MS
            self._restamp()
        self.started_ns: int = self.now_ns
        self._at(self.now_ms - self.now_ms % FUNDING_MS + FUNDING_MS, self._settle)

    @property
    def markets(self) -> list[MarketName]:
        """The markets that are served."""
        return [name for name in MARKETS if any(key[0] == name for key in self.symbols)]

    @property
    def now_ms(self) -> int:
        """The venue's clock in ms."""
        return self.now_ns // MS

    @property
    def ended(self) -> bool:
        """Whether the source has no further frame."""
        return self._next is None

    @property
    def next_ns(self) -> int | None:
        """When the next thing happens, None when nothing will."""
        due = [self._frame_ns(self._next)] if self._next is not None else []
        if self._timers:
            due.append(self._timers[0][0])
        return min(due) if due else None

    def _frame_ns(self, frame: Frame) -> int:
        return frame[0] + self.source.clock_offset_ns + self._shift_ns

    def _advance_frame(self) -> None:
        self._next = next(self._frames, None)
        if self._next is None and self.loop and self.frames:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """The next round of the source, behind the last one; frames before its snapshots are passed over without time."""
        frames: Iterator[Frame] = self.source.frames()
        first = next(frames, None)
        if first is None:
            return
        self.rounds += 1
        for symbol in self._by_index:
            symbol.restart()
        self._shift_ns += (self._last_recv_ns - self._first_live_ns + LOOP_PAUSE_NS) // MS * MS
        self._frames, self._next = frames, first

    def _seed(self) -> None:
        """Go to the moment at which every symbol has its snapshot."""
        while not all(symbol.seeded for symbol in self._by_index):
            if self._next is None:
                missing = ", ".join(symbol.spec.name for symbol in self._by_index if not symbol.seeded)
                raise SourceError(
                    f"the recording of {missing} holds no REST snapshot (a line with lastUpdateId), so its book is unknown; "
                    "give the file that begins it as well"
                )
            self._take_frame()
        self._first_live_ns = self._last_recv_ns
        self._said.clear()

    def _restamp(self) -> None:
        """Bring what was taken while seeding to the shifted clock: it has no history there."""
        shift_ms = self._shift_ns // MS
        self.now_ns += self._shift_ns
        for symbol in self._by_index:
            symbol.forget_history(shift_ms)

    def _take_frame(self) -> None:
        assert self._next is not None
        recv_ns, index, event = self._next
        at_ns = max(self._frame_ns(self._next), self.now_ns)  # a new round's frames before its snapshot lie in the past
        self.now_ns = at_ns
        self._last_recv_ns = recv_ns
        self.frames += 1
        self._by_index[index].take(event, at_ns, self._shift_ns // MS)
        self._advance_frame()

    def _at(self, due_ms: int, call: Callable[[int], None]) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (due_ms * MS, self._timer_count, call))

    def step(self, until_ns: int) -> list[Message]:
        """Let everything happen up to and including `until_ns`; returns what the streams say, in order."""
        while True:
            due = self.next_ns
            if due is None or due > until_ns:
                break
            if self._timers and self._timers[0][0] <= due:
                at_ns, _, call = heapq.heappop(self._timers)
                self.now_ns = max(self.now_ns, at_ns)
                call(at_ns // MS)
            else:
                self._take_frame()
        self.now_ns = max(self.now_ns, until_ns)
        said, self._said = self._said, []
        return said

    def run(self, seconds: float) -> list[Message]:
        """`step` by so many seconds of the venue's clock."""
        return self.step(self.now_ns + round(seconds * 1e9))

    def out(self, message: Message) -> None:
        """A topic speaks."""
        self._said.append(message)

    def find(self, market: str, name: str) -> SymbolMarket | None:
        """The symbol, None when there is none of that name (upper case)."""
        return next((symbol for (of, called), symbol in self.symbols.items() if (of, called) == (market, name)), None)

    def of(self, market: str) -> list[SymbolMarket]:
        """All symbols of one market."""
        return [symbol for (name, _), symbol in self.symbols.items() if name == market]

    def subscribe(self, market: MarketName, name: str) -> None:
        """One more listens to this stream; a name that means nothing is silently taken, as the venue does."""
        topic = self._topics.get((market, name))
        if topic is None:
            stream = parse_stream(market, name)
            if stream is None:
                return
            if stream.symbol:
                symbol = self.find(market, stream.symbol)
                if symbol is None:
                    return
                topic = Topic(self, market, stream, symbol)
                heard = [stream.symbol]
            else:
                symbols = self.of(market)
                if not symbols:
                    return
                topic = AllTopic(self, market, stream, symbols)
                heard = [symbol.spec.name for symbol in symbols] if stream.arg == "all" else []
            self._topics[market, name] = topic
            for symbol_name in heard:
                self._heard.setdefault((market, symbol_name, stream.kind), []).append(topic)
            if stream.interval_ms and not topic.passing:
                self._tick(topic)
        topic.listeners += 1

    def _tick(self, topic: Topic) -> None:
        """Call the topic at each full interval for as long as somebody listens."""
        interval = topic.stream.interval_ms
        late = GRACE_MS if topic.stream.kind == "kline" else 0  # a candle is closed when its last prints are in

        def call(now_ms: int) -> None:
            if topic.listeners:
                topic.on_timer(now_ms)
                self._at(now_ms - now_ms % interval + interval + late, call)

        self._at(self.now_ms - self.now_ms % interval + interval + late, call)

    def unsubscribe(self, market: MarketName, name: str) -> None:
        """One less listens."""
        topic = self._topics.get((market, name))
        if topic is None:
            return
        topic.listeners -= 1
        if topic.listeners <= 0:
            del self._topics[market, name]
            for topics in self._heard.values():
                if topic in topics:
                    topics.remove(topic)

    def _topics_of(self, symbol: SymbolMarket, kind: str) -> list[Topic]:
        return self._heard.get((symbol.spec.market, symbol.spec.name, kind), [])

    def on_diff(self, symbol: SymbolMarket, diff: Diff) -> None:
        """Listener: tell the depth streams."""
        for topic in self._topics_of(symbol, "depth"):
            topic.on_diff(diff)

    def on_bbo(self, symbol: SymbolMarket) -> None:
        """Listener: tell the bookTicker streams."""
        topics = self._topics_of(symbol, "bookTicker")
        if topics:
            bid, bid_qty, ask, ask_qty = symbol.bbo
            body: Body = {"u": symbol.bbo_id, **messages.names(symbol), "b": bid, "B": bid_qty, "a": ask, "A": ask_qty}
            if symbol.spec.is_future:
                body = {"e": "bookTicker", **body, "T": symbol.bbo_ms[1], "E": symbol.bbo_ms[0]}
            for topic in topics:
                topic.say(body)

    def on_trade(self, symbol: SymbolMarket, trade: Trade) -> None:
        """Listener: tell the trade streams; see that its aggregate is told in time."""
        topics = self._topics_of(symbol, "trade")
        if topics:
            body: Body = {"e": "trade", "E": trade.event_ms}
            if symbol.spec.is_future:
                body |= {"T": trade.at_ms, "s": symbol.spec.name, "t": trade.id, "p": trade.price, "q": trade.qty,
                         "X": "MARKET", "m": trade.buyer_is_maker}  # fmt: skip
            else:
                body |= {"s": symbol.spec.name, "t": trade.id, "p": trade.price, "q": trade.qty, "T": trade.at_ms,
                         "m": trade.buyer_is_maker, "M": True}  # fmt: skip
            for topic in topics:
                topic.say(body)
        if symbol.aggregate_is_new:
            self._at(self.now_ms + AGG_MS[symbol.spec.market], lambda _: symbol.flush_aggregate(trade.id))

    def on_agg(self, symbol: SymbolMarket, trade: AggTrade) -> None:
        """Listener: tell the aggTrade streams."""
        for topic in self._topics_of(symbol, "aggTrade"):
            topic.say({"e": "aggTrade", "E": max(self.now_ms, trade.at_ms), "s": symbol.spec.name, **symbol.agg_fields(trade)})

    def _settle(self, now_ms: int) -> None:
        """Funding is settled every eight hours, on the clock."""
        self.funding += [(now_ms, symbol, symbol.mark_text()) for symbol in self._by_index if symbol.spec.perpetual]
        self._at(now_ms + FUNDING_MS, self._settle)
