"""What each address answers, as bytes and a status: no web framework, no sockets, no clock but the one that it is given.

    ROUTES            the table: path, what it says, parameters; the server and the OpenAPI document are both made from it
    Answers.get       path and query to (status, JSON)

Every answer looks at the rings first, so it is as new as the memory is. Unknown symbols are 404, unknown timeframes 422, what is
too old or not there yet is 503 with its age.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from procs.gateway.explain import decision_of, finite, health_by_name, patterns_of, warm
from procs.gateway.market_view import TIMEFRAMES, MarketView
from procs.gateway.pulse import Pulse
from procs.gateway.shapes import (
    Ages,
    BookAnswer,
    ErrorAnswer,
    FeaturesAnswer,
    FeatureValue,
    HealthAnswer,
    Level,
    Microstructure,
    Problem,
    Shape,
    SignalAnswer,
    SymbolAge,
    SymbolRow,
    SymbolsAnswer,
    Timeframe,
)
from procs.gateway.suggest import Suggestions
from procs.memory.board import Words
from trading.contracts import asset_of
from trading.features.bars import minute_pct
from trading.features.patterns import names as pattern_names
from trading.features.vector import FEATURES
from trading.instruments import Market
from trading.own_signals.guard import complaints
from trading.records import LEVELS, Flag, Kind
from trading.settings import Strategy
from trading.venues.names import INVERSE, LINEAR

DEFAULT_TIMEFRAME: Final = "1m"
OK, NOT_FOUND, UNPROCESSABLE, UNAVAILABLE = 200, 404, 422, 503
Reply = tuple[int, bytes]


class Refused(Exception):
    """There is no such answer: a status and the reason."""

    def __init__(self, status: int, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(kind=kind, message=message, **more)


@dataclass(frozen=True, slots=True)
class Route:
    """One address. `prefix` ends with a slash where a symbol follows; `answer` is the shape of a 200."""

    prefix: str
    summary: str
    answer: type[Shape]
    takes_tf: bool = False
    statuses: tuple[int, ...] = (NOT_FOUND, UNAVAILABLE)

    @property
    def takes_symbol(self) -> bool:
        """Whether a symbol follows."""
        return self.prefix.endswith("/")

    @property
    def path(self) -> str:
        """As OpenAPI writes it."""
        return self.prefix + "{symbol}" if self.takes_symbol else self.prefix


ROUTES: Final = (
    Route(
        "/signal/", "The decision for a symbol, with its reasons, and how an entry would be sent", SignalAnswer, True,
        (NOT_FOUND, UNPROCESSABLE, UNAVAILABLE),
    ),
    Route("/book/", f"The best {LEVELS} levels of a symbol's book", BookAnswer),
    Route("/features/", "The latest value of every feature of a symbol", FeaturesAnswer),
    Route("/symbols", "The symbols of the run", SymbolsAnswer, statuses=()),
    Route("/healthz", "Whether the pipeline lives and its data is fresh", HealthAnswer, statuses=(UNAVAILABLE,)),
)  # fmt: skip


class Answers:
    """The answers of one run. `clock`: CLOCK_MONOTONIC in ns, as the records' stamps; `guard`: see trading.own_signals.guard."""

    def __init__(
        self,
        instance: str,
        strategy: Strategy,
        view: MarketView,
        pulse: Pulse,
        guard: Words,
        stale_after_ms: int,
        clock: Callable[[], int],
    ) -> None:
        self._instance, self._strategy, self._guard = instance, strategy, guard
        self.view, self.pulse = view, pulse
        self._stale_ms = stale_after_ms
        self._clock = clock
        self._suggestions = Suggestions(strategy, view.instruments)
        self._kept: dict[tuple[int, str], tuple[tuple[int, int], SignalAnswer]] = {}
        self._index = {name: number for number, name in enumerate(view.names)}
        self._encode = msgspec.json.Encoder().encode
        self._pages: dict[str, Callable[[str, str], tuple[int, Shape]]] = {
            "/signal/": lambda symbol, tf: (OK, self._signal(symbol, tf)),
            "/book/": lambda symbol, tf: (OK, self._book(symbol)),
            "/features/": lambda symbol, tf: (OK, self._values(symbol)),
            "/symbols": lambda symbol, tf: (OK, self._symbols()),
            "/healthz": lambda symbol, tf: self._health(),
        }
        assert set(self._pages) == {route.prefix for route in ROUTES}

    # ---- from an address to bytes ----------------------------------------------------------------------------------

    def get(self, path: str, query: Mapping[str, str]) -> Reply | None:
        """The answer to GET `path`; None where it is none of ROUTES."""
        for route in ROUTES:
            if path == route.prefix and not route.takes_symbol:
                return self.reply(route, "", DEFAULT_TIMEFRAME)
            if route.takes_symbol and path.startswith(route.prefix) and "/" not in path[len(route.prefix) :]:
                return self.reply(route, path[len(route.prefix) :], query.get("tf", DEFAULT_TIMEFRAME))
        return None

    def reply(self, route: Route, symbol: str, tf: str) -> Reply:
        """The answer of one route."""
        try:
            self.look()
            status, answer = self._pages[route.prefix](symbol, tf)
        except Refused as refused:
            return refusal(refused)
        return status, self._encode(answer)

    def look(self) -> int:
        """Bring view and pulse up to date; how many records that took."""
        self.pulse.look(self._clock())
        return self.view.look()

    # ---- what every symbol's answer needs --------------------------------------------------------------------------

    def _number(self, symbol: str) -> int:
        number = self._index.get(symbol)
        if number is None:
            known = list(self.view.names)
            raise Refused(NOT_FOUND, "unknown_symbol", f"no symbol {symbol[:64]!r} in this run", known=known)
        return number

    def _age(self, publish_mono_ns: int) -> float:
        return round((self._clock() - publish_mono_ns) / 1e6, 3)

    def _fresh(self, record: Any | None, what: str, symbol: str) -> float:
        """The record's age in ms. Refused where there is none, or it is too old, or nothing new can come."""
        age = None if record is None else self._age(int(record["ts_publish_mono_ns"]))
        down = "the market has ended" if self.view.ended else self.pulse.down()
        if down:
            raise Refused(UNAVAILABLE, "pipeline_down", down, age_ms=age)
        if age is None:
            raise Refused(UNAVAILABLE, "not_ready", f"no {what} record of {symbol} yet: the pipeline has just started")
        if age > self._stale_ms:
            text = f"the last {what} record of {symbol} is {age / 1e3:.1f} s old: the limit is gateway.stale_after_ms"
            raise Refused(UNAVAILABLE, "stale", f"{text} ({self._stale_ms})", age_ms=age)
        return age

    def _levels(self, number: int, market: Any, side: str) -> list[Level]:
        scale = self.view.scales[number]
        pairs = zip(market[f"{side}_ticks"].tolist(), market[f"{side}_lots"].tolist(), strict=True)
        return [
            Level(price=scale.price(ticks), qty=scale.qty(lots), price_ticks=ticks, qty_lots=lots)
            for ticks, lots in pairs if ticks
        ]  # fmt: skip

    # ---- the pages -------------------------------------------------------------------------------------------------

    def _signal(self, symbol: str, tf: str) -> SignalAnswer:
        number = self._number(symbol)
        if tf not in TIMEFRAMES:
            raise Refused(UNPROCESSABLE, "unknown_timeframe", f"no timeframe {tf[:64]!r}", known=list(TIMEFRAMES))
        market, signal = self.view.market.newest_of(number), self.view.signals.newest_of(number)
        ages = Ages(market_ms=self._fresh(market, "market", symbol), signal_ms=self._fresh(signal, "signal", symbol))
        assert market is not None and signal is not None, "else refused"
        of = int(market["seq"]), int(signal["seq"])
        kept = self._kept.get((number, tf))
        if kept is None or kept[0] != of:  # between two records nothing but the ages changes
            self._kept[number, tf] = kept = of, self._told(number, tf, market, signal)
        return msgspec.structs.replace(kept[1], ages=ages)

    def _told(self, number: int, tf: str, market: Any, signal: Any) -> SignalAnswer:
        scale = self.view.scales[number]
        timing = self._suggestions.timing(scale, signal, market)
        return SignalAnswer(
            symbol=self.view.names[number],
            tf=tf,
            ts_ns=int(signal["ts_ns"]),
            ages=Ages(market_ms=0.0),
            decision=decision_of(signal, self._strategy, health_by_name(self._strategy, self._guard)),
            microstructure=self._microstructure(number, market, signal),
            timeframe=self._timeframe(number, tf),
            timing=timing,
            size=self._suggestions.size(number, scale, signal, market, timing.order_type),
            candles={name: self.view.candles(number, name) for name in dict.fromkeys((tf, *TIMEFRAMES))},
        )

    def _microstructure(self, number: int, market: Any, signal: Any) -> Microstructure:
        scale = self.view.scales[number]
        bids, asks = self._levels(number, market, "bid"), self._levels(number, market, "ask")
        bid, ask = (bids[0] if bids else None), (asks[0] if asks else None)
        mid = spread = top = None
        microprice = warm(signal["microprice"])
        tick = scale.tick_size
        if bid is not None and ask is not None:
            lots = bid.qty_lots + ask.qty_lots
            mid = 0.5 * (bid.price_ticks + ask.price_ticks) * tick
            spread = scale.price(ask.price_ticks - bid.price_ticks)
            if lots:
                top = (bid.qty_lots - ask.qty_lots) / lots
        bid_lots, ask_lots = sum(level.qty_lots for level in bids), sum(level.qty_lots for level in asks)
        depth = (bid_lots - ask_lots) / (bid_lots + ask_lots) if bid_lots + ask_lots else None
        volatility, atr = finite(signal["volatility"]), finite(signal["atr_ticks"]) * tick
        return Microstructure(
            bid=bid, ask=ask, mid=mid, microprice=None if microprice is None else microprice * tick, spread=spread,
            spread_bps=finite(signal["spread_bps"]), score=warm(signal["microstructure"]), vpin=warm(signal["vpin"]),
            order_flow=finite(signal["order_flow"]), patterns=patterns_of(signal),
            top_imbalance=top, depth_imbalance=depth, volatility=volatility, volatility_pct_minute=float(minute_pct(volatility)),
            atr=atr, atr_bps=1e4 * atr / mid if mid else None,
        )  # fmt: skip

    def _timeframe(self, number: int, tf: str) -> Timeframe:
        figures, tick = self.view.timeframe(number, tf), self.view.scales[number].tick_size
        last = self.view.candles(number, tf).closed

        def price(ticks: float | None) -> float | None:
            return None if ticks is None else ticks * tick

        volatility = figures.volatility
        return Timeframe(
            tf=tf, candles=figures.candles, warm=figures.warm,
            trend=None if figures.trend is None else ("FLAT", "UP", "DOWN")[figures.trend],
            ema_fast=price(figures.ema_fast), ema_slow=price(figures.ema_slow), rsi=figures.rsi, atr=price(figures.atr),
            atr_bps=1e4 * figures.atr / figures.ema_slow if figures.atr is not None and figures.ema_slow else None,
            volatility=volatility, volatility_pct_minute=None if volatility is None else float(minute_pct(volatility)),
            patterns=list(pattern_names(figures.patterns)), last=last,
        )  # fmt: skip

    def _book(self, symbol: str) -> BookAnswer:
        number = self._number(symbol)
        market = self.view.market.newest_of(number)
        age = self._fresh(market, "market", symbol)
        assert market is not None, "else refused"
        return BookAnswer(
            symbol=symbol,
            state=book_state(market),
            update_id=int(self.view.update_ids[number]),
            ts_ns=int(market["ts_ns"]),
            ts_exchange_ns=int(market["ts_exchange_ns"]),
            ages=Ages(market_ms=age),
            bids=self._levels(number, market, "bid"),
            asks=self._levels(number, market, "ask"),
        )

    def _values(self, symbol: str) -> FeaturesAnswer:
        number = self._number(symbol)
        market_ms = self._fresh(self.view.market.newest_of(number), "market", symbol)
        row = self.view.vectors.newest_of(number)
        if row is None:
            raise Refused(UNAVAILABLE, "not_ready", f"no features of {symbol} yet: the pipeline has just started")
        warm = int(row["warm_mask"])
        return FeaturesAnswer(
            symbol=symbol,
            version=int(row["version"]),
            ts_ns=int(row["ts_ns"]),
            market_seq=int(row["cause_seq"]),
            state="valid" if int(row["flags"]) & Flag.BOOK_VALID else "stale",
            ages=Ages(market_ms=market_ms, signal_ms=self._age(int(row["ts_publish_mono_ns"]))),
            features={
                feature.name: FeatureValue(value=finite(row["values"][k]), unit=feature.unit, warm=bool(warm >> k & 1))
                for k, feature in enumerate(FEATURES)
            },
        )

    def _symbols(self) -> SymbolsAnswer:
        rows = []
        for number, (name, row, scale) in enumerate(zip(self.view.names, self.view.instruments, self.view.scales, strict=True)):
            rows.append(
                SymbolRow(
                    name=name,
                    market=Market(int(row["market"])).label,
                    tick_size=scale.price(1),
                    lot_size=scale.qty(1),
                    min_notional=scale.money(scale.min_notional_e8),
                    contract=INVERSE if scale.inverse else LINEAR,
                    contract_size=f"{float(row['contract_size']):.15g}",
                    settles_in=asset_of(name, scale.inverse),
                    take_signals=bool(row["take_signals"]),
                    seen=self.view.market.newest_of(number) is not None,
                )
            )
        return SymbolsAnswer(symbols=rows, timeframes=list(TIMEFRAMES))

    def _health(self) -> tuple[int, HealthAnswer]:
        problems = self.pulse.problems()
        if self.view.ended:
            problems.append("the market has ended")
        symbols = []
        for number, name in enumerate(self.view.names):
            market, signal = self.view.market.newest_of(number), self.view.signals.newest_of(number)
            age = None if market is None else self._age(int(market["ts_publish_mono_ns"]))
            if age is None:
                problems.append(f"{name}: no market record yet")
            elif age > self._stale_ms:
                problems.append(f"{name}: the last market record is {age / 1e3:.1f} s old")
            symbols.append(
                SymbolAge(
                    name=name,
                    market_ms=age,
                    signal_ms=None if signal is None else self._age(int(signal["ts_publish_mono_ns"])),
                    book="none" if market is None else book_state(market),
                )
            )
        answer = HealthAnswer(
            ok=not problems,
            instance=self._instance,
            problems=problems,
            warnings=complaints(health_by_name(self._strategy, self._guard)),
            stages=self.pulse.rows(),
            symbols=symbols,
            lost=self.view.lost,
            frame_to_order=self.pulse.way("orders"),
            venue_answer=self.pulse.way("executions"),
        )
        return (UNAVAILABLE if problems else OK), answer


def book_state(market: Any) -> str:
    """Whether a MARKET_RECORD's book may be used."""
    usable = bool(int(market["flags"]) & Flag.BOOK_VALID) and int(market["kind"]) != Kind.STALE
    return "valid" if usable else "stale"


def refusal(refused: Refused) -> Reply:
    """A refusal as the server sends it."""
    return refused.status, msgspec.json.encode(ErrorAnswer(error=refused.problem))
