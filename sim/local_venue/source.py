"""Where the venue's market comes from: recordings, or the embedded market. Both are Binance frames with receive times.

A source is read as often as wanted, always from its beginning; the same source gives the same frames. Recordings are read in
plain Python (gunzip and msgspec): no kernel has to be compiled or loaded. The generator's kernels are imported when one is made.

What this is not: a judge of sequences. That is sim.local_venue.market's.
"""

from __future__ import annotations

import heapq
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from sim.local_venue.book import plain_text, text_of, units_of
from sim.local_venue.stream_names import MARKETS, MarketName
from sim.recordings import bounded
from trading.contracts import asset_of, contract_of, pair_of, quote_of
from trading.ranges import MAX_SYMBOLS
from trading.stamps import stamp_of
from trading.symbol_names import name_fault
from trading.venues.names import Market

Frame = tuple[int, int, dict[str, Any]]
"""Receive time in ns, index of the symbol, the event (or REST snapshot) as the venue sent it, without its stream's wrapper."""

SURVEYED: Final = 4000
"""Lines of a recording that are looked at before it is used."""
GENERATED_WIRE_NS: Final = 1_000_000
"""sim.market.generator.WIRE_NS: from an event to the receipt of its frame; there is no wire inside the venue."""
STEP_SHARE: Final = 0.99
_QUANTITIES: Final[dict[str, tuple[int, int]]] = {"spot": (8, 10**3), "usdm": (3, 10**5), "coinm": (0, 10**8)}
"""Decimals of quantities, and the step in 1e-8, of the embedded market's symbols; COIN-M's are whole contracts."""
VENUE: Final = {"spot": Market.BINANCE_SPOT, "usdm": Market.BINANCE_USDM, "coinm": Market.BINANCE_COINM}
LEAST_PRICE: Final = 0.03
"""A symbol without rules of its own starts at a twentieth of the one before, from above again behind this."""
_decode: Final = msgspec.json.Decoder().decode


class SourceError(ValueError):
    """A source cannot be used; the message names the file, where it can the line, and the remedy."""


@dataclass(frozen=True, slots=True)
class SymbolSpec:
    """One symbol of one market, with the sizes that its exchangeInfo shows. `native_ms` is how often its diffs come at most."""

    name: str
    market: MarketName
    tick_size: str
    step_size: str
    price_decimals: int
    qty_decimals: int
    native_ms: int
    has_bbo: bool = True
    max_price: int = 10**6
    max_qty: int = 9000
    min_notional: str = "5.00000000"

    @property
    def is_future(self) -> bool:
        """Whether it is traded on one of the futures markets."""
        return self.market != "spot"

    @property
    def pair(self) -> str:
        """The name without its delivery date or PERP."""
        return pair_of(self.name)

    @property
    def delivery(self) -> str:
        """yymmdd of a future's delivery, "" for a perpetual and on spot."""
        date = self.name.partition("_")[2]
        return date if date.isdigit() else ""

    @property
    def perpetual(self) -> bool:
        """Whether it is a future that never ends."""
        return self.is_future and not self.delivery

    @property
    def contract_size(self) -> int:
        """What a contract is worth in the quote asset (COIN-M); 1 elsewhere."""
        return int(contract_of(VENUE[self.market], self.name)[1])

    @property
    def quote(self) -> str:
        """The quote asset, guessed from the name."""
        quote = quote_of(self.name)
        return quote if quote and quote != self.pair else self.pair[-4:]

    @property
    def base(self) -> str:
        """The base asset."""
        return self.pair[: -len(self.quote)]


class SymbolRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the embedded market is to keep to in one symbol, as the venue's exchangeInfo prints it, and where its price starts."""

    tick_size: str
    step_size: str
    price: float
    max_qty: str = "9000"
    min_notional: str = "5.00000000"


def load_rules(path: Path) -> dict[str, SymbolRules]:
    """Rules of a JSON file: {"SHIBUSDT": {"tick_size": "0.00000001", "step_size": "1.00", "price": 0.0000123}}. Raises
    SourceError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, SymbolRules])
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}; check the path") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: {error}; write {{\"SYMBOL\": {{\"tick_size\", \"step_size\", \"price\"}}}}") from None


class Source(ABC):
    """Frames of some symbols."""

    symbols: tuple[SymbolSpec, ...]
    clock_offset_ns: int = 0
    """What to add to receive times so that no event lies in the clock's future."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """All frames from the beginning, in the order of their receive times."""


def _lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Line number, receive time and event of each line."""
    number = 0
    try:
        for number, line in bounded.lines(path):
            stamp, _, text = line.partition(b" ")
            try:
                event = _decode(text)
            except (ValueError, msgspec.DecodeError):
                event = None
            found = stamp_of(stamp)
            if event is None or found is None:
                raise SourceError(f"{path}:{number}: no `<recv_ns> {{json}}` line; repair the file or cut it before that line")
            if isinstance(event, dict):
                inner = event.get("data")
                yield number, found[0], _with_stream(event, inner) if isinstance(inner, dict) else event
    except bounded.RecordingError as error:
        raise SourceError(str(error)) from None
    except (EOFError, zlib.error):
        raise SourceError(f"{path}: the gzip data ends or breaks after line {number}; fetch the file again") from None
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}; check the path") from error


def _with_stream(event: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    inner["_stream"] = event.get("stream", "")
    return inner


def _event_ns(stamp: int) -> int:
    """An event's time, sent in ms or in us."""
    return int(stamp) * (1000 if int(stamp) >= 10**15 else 1_000_000)


@dataclass(slots=True)
class _Survey:
    """What the first lines of a recording say."""

    path: Path
    first_ns: int
    spec: SymbolSpec
    ahead_ns: int  # the most that an event's time is ahead of its receipt


def _survey(path: Path) -> _Survey:
    names: set[str] = set()
    kinds: set[str] = set()
    usdm = coinm = False
    first_ns = 0
    ahead_ns = -(2**62)
    stream = ""
    prices: list[str] = []
    quantities: list[str] = []
    for number, recv_ns, event in _lines(path):
        first_ns = first_ns or recv_ns
        if "lastUpdateId" in event and "bids" in event:
            levels = [*event["bids"], *event["asks"]]
        else:
            levels = [*event.get("b", ()), *event.get("a", ())] if event.get("e") == "depthUpdate" else []
            names.add(str(event.get("s", "")))
            kinds.add(event.get("e", "bookTicker" if "B" in event else ""))
            usdm = usdm or "pu" in event or (event.get("e") == "bookTicker")
            coinm = coinm or "ps" in event
            if event.get("e") == "depthUpdate":
                stream = stream or event.get("_stream", "")
            if "E" in event:
                ahead_ns = max(ahead_ns, _event_ns(event["E"]) - recv_ns)
        prices += [level[0] for level in levels]
        quantities += [level[1] for level in levels]
        if number >= SURVEYED:
            break
    names.discard("")
    if len(names) != 1 or not prices:
        said = f"the symbols {', '.join(sorted(names))}" if names else "no symbol"
        what = f"its first {SURVEYED} lines hold {said} and {len(prices)} levels"
        raise SourceError(f"{path}: {what}; give recordings of Binance depth streams, one symbol a file")
    name, market = names.pop(), MARKETS[2 if coinm else usdm]
    interval = stream.rpartition("@")[2]
    native_ms = int(interval[:-2]) if interval.endswith("ms") and interval[:-2].isdigit() else (1000, 250)[usdm]
    spec = SymbolSpec(name, market, *_sizes(prices, quantities, market), native_ms, "bookTicker" in kinds)
    return _Survey(path, first_ns, spec, max(ahead_ns, -(10**12)))


def _sizes(prices: list[str], quantities: list[str], market: MarketName) -> tuple[str, str, int, int]:
    """Tick and step as text, and the decimals that prices and quantities are printed with."""
    price_decimals = max(len(price.partition(".")[2]) for price in prices)
    qty_decimals = max(len(qty.partition(".")[2]) for qty in quantities)
    tick = math.gcd(*map(units_of, prices))
    used = sorted(len(qty.partition(".")[2].rstrip("0")) for qty in quantities)
    step = used[min(len(used) - 1, int(len(used) * STEP_SHARE))]
    return text_of(tick, price_decimals), text_of(10 ** (8 - step), qty_decimals), price_decimals, qty_decimals


class RecordedSource(Source):
    """Recordings: lines `<recv_ns> {frame}`, gzip or plain, one symbol a file; files of one symbol are joined by time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise SourceError("no recording given; name at least one file")
        surveys = [_survey(Path(path)) for path in paths]
        self._chains: dict[tuple[str, str], list[Path]] = {}
        specs: dict[tuple[str, str], SymbolSpec] = {}
        for survey in sorted(surveys, key=lambda survey: survey.first_ns):
            key = (survey.spec.market, survey.spec.name)
            self._chains.setdefault(key, []).append(survey.path)
            specs.setdefault(key, survey.spec)
        self.symbols = tuple(specs.values())
        self.clock_offset_ns = max(survey.ahead_ns for survey in surveys)

    def _chain(self, index: int, paths: list[Path]) -> Iterator[Frame]:
        latest = 0
        for path in paths:
            for _, recv_ns, event in _lines(path):
                latest = max(latest, recv_ns)
                yield latest, index, event

    def frames(self) -> Iterator[Frame]:
        """All frames, merged by receive time."""
        chains = [self._chain(index, paths) for index, paths in enumerate(self._chains.values())]
        return heapq.merge(*chains, key=lambda frame: frame[:2]) if len(chains) > 1 else chains[0]


def coinm_name(name: str) -> str:
    """The COIN-M symbol of the same coin: BTCUSDT is BTCUSD_PERP there, BTCUSDT_241227 is BTCUSD_241227."""
    return f"{asset_of(name, True)}USD_{name.partition('_')[2] or 'PERP'}"


def _tick_decimals(price: float, market: MarketName) -> int:
    """Decimals of a tick as the venue has them for such a price, roughly."""
    magnitude = math.floor(math.log10(price))
    if market == "spot":
        return min(8, max(2, 4 - magnitude))
    return min(8, max(1 if magnitude >= 4 else 2, 3 - magnitude))


def _by_rules(name: str, market: MarketName, rules: SymbolRules) -> tuple[SymbolSpec, Any]:
    """The symbol as its rules say: a lot is the last printed place of its step, or what the step needs where a level of such lots
    would be too large. Raises SourceError."""
    from sim.market.generator import LEVEL_VALUE, MOST_LOTS
    from trading.instruments import Instrument

    try:
        tick, step, most = (units_of(text) for text in (rules.tick_size, rules.step_size, rules.max_qty))
        units_of(rules.min_notional)
    except ValueError as error:
        raise SourceError(f"{name}: {error}; write sizes as the venue's exchangeInfo prints them") from None
    if min(tick, step, most, rules.price * 1e8 / max(tick, 1)) < 1:
        raise SourceError(f"{name}: tick_size, step_size and max_qty are above 0, and the price is a tick at least; correct them")
    tick_decimals = len(plain_text(tick).partition(".")[2])
    qty_decimals = len(rules.step_size.partition(".")[2])
    if LEVEL_VALUE / rules.price * 10**qty_decimals > MOST_LOTS:
        qty_decimals = len(plain_text(step).partition(".")[2])
    printed = 8 if market == "spot" else tick_decimals
    spec = SymbolSpec(
        name, market, text_of(tick, printed), rules.step_size, printed, qty_decimals, 100,
        max_price=max(10**6, 100 * math.ceil(rules.price)), max_qty=max(1, most // 10**8), min_notional=rules.min_notional,
    )  # fmt: skip
    instrument = Instrument(
        name=name,
        market=VENUE[market],
        tick_size=plain_text(tick),
        lot_size=plain_text(10 ** (8 - qty_decimals)),
        step_size=plain_text(step),
        min_qty=plain_text(step),
    )
    return spec, instrument


class GeneratedSource(Source):
    """The embedded market (sim.market.generator): the same seed gives the same frames, for ten years."""

    def __init__(
        self, names: Sequence[str], markets: Sequence[MarketName], settings: Any, rules: Mapping[str, SymbolRules] | None = None
    ) -> None:
        from trading.instruments import Instrument

        if not names:
            raise SourceError("no symbol given; name at least one, such as BTCUSDT")
        for name in names:
            if fault := name_fault(name):
                raise SourceError(f"{name!r} {fault}: write e.g. BTCUSDT or BTCUSDT_241227")
            if "_" in name and "spot" in markets:
                raise SourceError(f"spot has no {name}: a name with _ is a future's; choose --market usdm or coinm")
        if len(set(names)) != len(names):
            raise SourceError(f"a symbol is named twice in {', '.join(names)}; name each once")
        if len(names) > MAX_SYMBOLS:
            raise SourceError(f"{len(names)} symbols; the embedded market has at most {MAX_SYMBOLS}: name fewer")
        rules = rules or {}
        self._settings = settings
        self.clock_offset_ns = -GENERATED_WIRE_NS
        self._tables: list[tuple[list[Instrument], list[float]]] = []
        specs = []
        for market in markets:
            table: list[Instrument] = []
            prices: list[float] = []
            price = settings.start_price
            ours = [coinm_name(name) for name in names] if market == "coinm" else names
            if len(set(ours)) != len(ours):
                raise SourceError(f"of {', '.join(names)} two are the same coin on {market}; name one of them")
            for name in ours:
                prices.append(rules[name].price if name in rules else price)
                if name in rules:
                    spec, instrument = _by_rules(name, market, rules[name])
                    specs.append(spec)
                    table.append(instrument)
                    continue
                tick_decimals = _tick_decimals(price, market)
                qty_decimals, step_e8 = _QUANTITIES[market]
                step = text_of(step_e8, qty_decimals)
                table.append(
                    Instrument(
                        name=name,
                        market=VENUE[market],
                        tick_size=text_of(10 ** (8 - tick_decimals), tick_decimals),
                        lot_size=text_of(10 ** (8 - qty_decimals), qty_decimals),
                        step_size=step,
                        min_qty=step,
                    )
                )
                printed = 8 if market == "spot" else tick_decimals
                tick = text_of(10 ** (8 - tick_decimals), printed)
                specs.append(SymbolSpec(name, market, tick, step, printed, qty_decimals, 100))
                price = price / 20.0 if price > LEAST_PRICE else settings.start_price
            self._tables.append((table, prices))
        self.symbols = tuple(specs)

    def _stream(self, offset: int, table: list[Any], prices: list[float]) -> Iterator[Frame]:
        import numpy as np

        from sim.market.generator import GEN_GLOBAL, GEN_STATE, MAX_FRAME_BYTES, init, make_params, next_frame
        from trading.instruments import instrument_table

        params, instruments = make_params(self._settings, prices), instrument_table(table)
        state, glob = np.zeros(len(table), GEN_STATE), np.zeros(1, GEN_GLOBAL)
        buffer = np.zeros(MAX_FRAME_BYTES, np.uint8)
        init(state, glob, params, instruments)
        view = memoryview(buffer.data)
        while size := next_frame(state, glob, params, instruments, buffer):
            event = _decode(view[:size])
            yield int(glob[0]["recv_ns"]), offset + int(glob[0]["symbol"]), event.get("data", event)

    def frames(self) -> Iterator[Frame]:
        """All frames of all markets."""
        parts: list[Iterable[Frame]] = []
        offset = 0
        for table, prices in self._tables:
            parts.append(self._stream(offset, table, prices))
            offset += len(table)
        return heapq.merge(*parts, key=lambda frame: frame[:2])


def recorded(*paths: Path | str) -> Source:
    """The market of these recordings."""
    return RecordedSource([Path(path) for path in paths])


def generated(
    symbols: Sequence[str] = ("BTCUSDT", "ETHUSDT"),
    markets: Sequence[MarketName] = ("spot", "usdm"),
    *,
    seed: int = 7,
    start_price: float = 60_000.0,
    events_per_s: float = 150.0,
    duration_s: float = 315_360_000.0,
    rules: Mapping[str, SymbolRules] | None = None,
) -> Source:
    """The embedded market. The first symbol starts at `start_price`, each further one at a twentieth of the one before, and again
    from above; one of which `rules` tells has their price, tick and step instead."""
    from sim.settings import Generator

    settings = Generator(seed=seed, start_price=start_price, events_per_s=events_per_s, duration_s=duration_s)
    return GeneratedSource(symbols, markets, settings, rules)
