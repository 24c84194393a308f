"""Candles and last prices from trades that we have ourselves: a recording, or the journal and ring of a running pipeline.

The last resort before "stale": a price somebody paid, at the time when he paid it. A bucket without trades stays absent, and a
candle that may lack trades says so.

Who gives a RunTrades vouches that its market is a real one: a generated market's prices are nobody's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from procs.prices.answer import Candle, SourceFailed, UnknownSymbol, UnknownTimeframe
from procs.prices.endpoints import Ticker
from sim.recordings import bounded

Columns = npt.NDArray[np.int64]
TRADE_EVENTS: Final = ("trade", "aggTrade")


@dataclass(frozen=True, slots=True)
class SymbolTrades:
    """One symbol's trades in integers, int64 of one length. `gapless`: ids count up by one."""

    ts_ns: Columns
    ids: Columns
    ticks: Columns
    lots: Columns
    sells: Columns
    tick: Decimal
    lot: Decimal
    gapless: bool = False


class TradeSource(Protocol):
    """Where trades are."""

    @property
    def name(self) -> str:
        """How answers call it."""

    def trades(self, symbol: str) -> SymbolTrades:
        """What there is of the symbol, at least one. Raises UnknownSymbol, SourceFailed."""


def plain_name(symbol: str) -> str:
    """ "BTC/USDT" and "btcusdt" as "BTCUSDT"."""
    return symbol.replace("/", "").replace("-", "").upper()


class TradeCandles:
    """Answers as an endpoint does, from the trades of `source`. `now_ns` says which candle is still open."""

    def __init__(self, source: TradeSource, *, now_ns: Callable[[], int]) -> None:
        self.source: Final = source
        self._now_ns = now_ns

    @property
    def name(self) -> str:
        """The source of the trades."""
        return self.source.name

    def ohlcv(self, symbol: str, timeframe: str, limit: int) -> tuple[Candle, ...]:
        """The last `limit` candles that had trades, oldest first. Raises UnknownTimeframe, UnknownSymbol, SourceFailed."""
        from trading.candles import CandleError, CandleFlag, candles_of, parse_size

        try:
            size = parse_size(timeframe)
        except CandleError as error:
            raise UnknownTimeframe(f"{self.name}: {error}") from None
        t = self.source.trades(symbol)
        rows = candles_of(t.ts_ns, t.ids, t.ticks, t.lots, t.sells, [size], counts_ids=t.gapless)[size][-limit:]
        now = self._now_ns()
        doubtful = CandleFlag.INCOMPLETE | CandleFlag.OVERFLOW
        found = []
        for c in rows:
            flags, start = int(c["flags"]), int(c["open_time_ns"])
            opened, high, low, close = (
                int(c[name]) * t.tick for name in ("open_ticks", "high_ticks", "low_ticks", "close_ticks")
            )
            last = bool(flags & CandleFlag.OPEN)  # our last trade is hardly the last of its bucket: it may lack some in any case
            found.append(
                Candle(
                    start,
                    opened,
                    high,
                    low,
                    close,
                    int(c["volume_lots"]) * t.lot,
                    open_ended=last and start + size > now,
                    incomplete=last or bool(flags & doubtful),
                )
            )
        return tuple(found)

    def ticker(self, symbol: str) -> Ticker:
        """The last trade's price and time; no bid, no ask."""
        t = self.source.trades(symbol)
        last = int(np.lexsort((t.ids, t.ts_ns))[-1])
        return Ticker(int(t.ticks[last]) * t.tick, None, None, int(t.ts_ns[last]))

    def last_ns(self, symbol: str) -> int:
        """When the last trade was made."""
        return int(self.source.trades(symbol).ts_ns.max())


class _Event(msgspec.Struct, frozen=True):
    """A trade of Binance, spot or USD-M; other events lack most fields."""

    e: str = ""
    s: str = ""
    T: int = 0
    t: int = 0
    a: msgspec.Raw = msgspec.Raw(b"0")  # aggTrade's id; levels in depth events
    p: str = ""
    q: str = ""
    m: bool = False


class _Line(msgspec.Struct, frozen=True):
    data: _Event = _Event()


class RecordedTrades:
    """The trades in recordings (`<recv_ns> {frame}` lines of Binance, plain or gzip), read once, when first asked."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files: Final = tuple(files)
        self._found: dict[str, SymbolTrades] | None = None

    @property
    def name(self) -> str:
        """The first file, and how many more."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"trades of {self.files[0].name}{more}"

    def trades(self, symbol: str) -> SymbolTrades:
        """See TradeSource."""
        if self._found is None:
            self._found = self._read()
        found = self._found.get(plain_name(symbol))
        if found is None:
            raise UnknownSymbol(f"{self.name}: no trade of {symbol}: it holds {', '.join(sorted(self._found)) or 'none at all'}")
        return found

    def _read(self) -> dict[str, SymbolTrades]:
        line_of, event_of = msgspec.json.Decoder(_Line), msgspec.json.Decoder(_Event)
        rows: dict[str, list[tuple[int, int, str, str, bool]]] = {}
        for path in self.files:
            try:
                for _, line in bounded.lines(path):
                    if b"rade" not in line:
                        continue
                    raw = line.partition(b" ")[2]
                    event = line_of.decode(raw).data if b'"data"' in raw else event_of.decode(raw)
                    if event.e in TRADE_EVENTS and event.p and event.q:
                        number = event.t if event.e == "trade" else int(bytes(event.a))
                        rows.setdefault(event.s.upper(), []).append((event.T, number, event.p, event.q, event.m))
            except (OSError, EOFError, zlib.error, msgspec.MsgspecError, ValueError) as error:
                raise SourceFailed(f"{path} cannot be read to its end ({error}): see `scalperctl data check`") from None
        return {name: _as_columns(found) for name, found in rows.items()}


def _as_columns(rows: list[tuple[int, int, str, str, bool]]) -> SymbolTrades:
    """Integers in units of the finest decimal that occurs; a trade that two lines brought counts once."""
    rows = list({number: (ms, number, p, q, m) for ms, number, p, q, m in rows}.values())
    tick, lot = (Decimal(1).scaleb(-_decimals(r[k] for r in rows)) for k in (2, 3))
    columns = [[_stamp(r[0]), r[1], int(Decimal(r[2]) / tick), int(Decimal(r[3]) / lot), int(r[4])] for r in rows]
    ts, ids, ticks, lots, sells = np.array(columns, np.int64).T
    return SymbolTrades(ts, ids, ticks, lots, sells, tick, lot, gapless=True)


def _stamp(time: int) -> int:
    """Milliseconds, or microseconds where the stream was asked for them, in ns."""
    return time * (1_000 if time > 10**14 else 1_000_000)


def _decimals(texts: Any) -> int:
    """The most digits after the point that any text needs."""
    return max(len(text.partition(".")[2].rstrip("0")) for text in texts)


@dataclass(frozen=True, slots=True)
class RunSymbol:
    """A symbol of a run: its name and the decimals of its ticks and lots."""

    name: str
    tick: Decimal
    lot: Decimal
    gapless: bool


class RunTrades:
    """The trades of a running pipeline. `records` gives its MARKET_RECORDs as they are now, oldest first (journal or ring)."""

    def __init__(self, name: str, symbols: Sequence[RunSymbol], records: Callable[[], Any]) -> None:
        self._name, self._symbols, self._records = name, tuple(symbols), records

    @property
    def name(self) -> str:
        """The pipeline."""
        return self._name

    def trades(self, symbol: str) -> SymbolTrades:
        """See TradeSource."""
        from trading.records import Flag, Kind

        number = next((i for i, s in enumerate(self._symbols) if s.name == plain_name(symbol)), -1)
        if number < 0:
            raise UnknownSymbol(
                f"{self.name} has no symbol {symbol}: it has {', '.join(s.name for s in self._symbols) or 'none'}"
            )
        recs = self._records()
        own = recs[(recs["symbol"] == number) & (recs["kind"] == Kind.TRADE) & (recs["price_ticks"] > 0) & (recs["qty_lots"] > 0)]
        if not len(own):
            raise SourceFailed(f"no trade of {symbol} in it yet")
        s = self._symbols[number]
        sells = ((own["flags"] & int(Flag.AGGRESSOR_SELL)) != 0).astype(np.int64)
        ts, ids, ticks, lots = (own[name].astype(np.int64) for name in ("ts_exchange_ns", "update_id", "price_ticks", "qty_lots"))
        return SymbolTrades(ts, ids, ticks, lots, sells, s.tick, s.lot, gapless=s.gapless)
