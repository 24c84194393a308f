"""One address of one venue, asked through ccxt: candles and last prices, checked before they count as an answer.

ccxt is imported when something is first asked (0.5 s, 110 MB), in a thread, so that the loop goes on. Its own throttle is
replaced by the budget that all addresses of the venue share, and by what the receivers of this machine leave of the venue's.

What this module is not: it caches nothing and asks nobody else; procs.prices.source does.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from procs.prices.answer import BadAnswer, Candle, SourceFailed, UnknownSymbol, UnknownTimeframe, checked_candles
from procs.prices.budget import Budgets
from procs.prices.shared import SharedUnits, shared_units
from trading.venues.ccxt_market import ccxt_id, exact, find_market, replaced_addresses
from trading.venues.names import Market
from trading.venues.protocol import VenueError

MS_NS: Final = 1_000_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ticker:
    """What an endpoint says of a symbol now."""

    last: Decimal
    bid: Decimal | None
    ask: Decimal | None
    as_of_ns: int  # 0: it does not say


class Endpoint(Protocol):
    """A source that is asked over the network. Its methods raise SourceFailed, UnknownSymbol, UnknownTimeframe."""

    @property
    def name(self) -> str:
        """How answers call it."""

    async def ohlcv(self, symbol: str, timeframe: str, limit: int) -> tuple[Candle, ...]:
        """The last `limit` candles, oldest first."""

    async def ticker(self, symbol: str) -> Ticker:
        """The last price."""

    async def close(self) -> None:
        """Let go of connections."""


class CcxtEndpoint:
    """A venue as a profile names it ("binance_spot", "ccxt:gate") at its own address, or at `rest` (scheme and host)."""

    def __init__(
        self,
        venue: str,
        rest: str = "",
        *,
        budgets: Budgets | None = None,
        timeout_s: float = 10.0,
        now_ns: Callable[[], int] = time.time_ns,
        exchange: Any = None,
        venues_dir: Path | None = None,
    ) -> None:
        self.venue: Final = venue
        self.venue_id: Final = ccxt_id(venue)
        facts = Market.of(venue).facts
        self._kind, self._kinds = facts.kind, facts.ccxt_lists
        self._rest, self._budgets, self._timeout_s, self._now_ns = rest, budgets or Budgets(), timeout_s, now_ns
        self._exchange = exchange
        self._venues_dir = venues_dir
        self._shared: SharedUnits | None = None
        self._heard: Any = None
        self._errors: Any = None
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        """Venue and address."""
        return f"{self.venue} at {self._rest}" if self._rest else self.venue

    async def _open(self) -> Any:
        async with self._opening:
            if self._errors is None:
                module = await asyncio.to_thread(importlib.import_module, "ccxt.async_support")
                if self._exchange is None:
                    self._exchange = self._made(module)
                self._errors = module
            if not self._exchange.markets:
                await self._exchange.load_markets()
        return self._exchange

    def _made(self, module: Any) -> Any:
        if self.venue_id not in module.exchanges:
            raise SourceFailed(f"ccxt knows no venue {self.venue_id!r}: correct its id")
        exchange = getattr(module, self.venue_id)({"enableRateLimit": True, "timeout": int(self._timeout_s * 1000)})
        exchange.urls["api"] = replaced_addresses(exchange.urls["api"], self._rest)
        if self._kinds:
            exchange.options["fetchMarkets"] = {"types": list(self._kinds)}  # else it asks two futures hosts too
        budget = self._budgets.of(self.venue_id, float(exchange.rateLimit))

        self._shared = shared = shared_units(self.venue, self._rest, float(exchange.rateLimit), self._venues_dir)

        async def throttle(cost: float | None = None) -> None:
            units = 1.0 if cost is None else float(cost)
            await budget.spend(units)
            if shared is not None:
                await shared.spend(units)

        exchange.throttle = throttle
        return exchange

    def _market(self, exchange: Any, symbol: str) -> Mapping[str, Any]:
        try:
            return find_market(exchange.markets, symbol, self._kind)
        except VenueError as error:
            raise UnknownSymbol(f"{self.name}: {error}") from None

    async def ohlcv(self, symbol: str, timeframe: str, limit: int) -> tuple[Candle, ...]:
        """See Endpoint."""

        async def ask(exchange: Any) -> tuple[Candle, ...]:
            market = self._market(exchange, symbol)
            sizes = exchange.timeframes or {}
            if timeframe not in sizes or not exchange.has.get("fetchOHLCV"):
                known = ", ".join(sizes) or "none"
                raise UnknownTimeframe(f"{self.name} has no candles of {timeframe!r}: it has {known}")
            rows = await exchange.fetch_ohlcv(market["symbol"], timeframe, None, limit)
            now, size = self._now_ns(), int(exchange.parse_timeframe(timeframe)) * 1_000_000_000
            return checked_candles([_candle(row, now, size) for row in rows[-limit:]])

        return await self._asked(ask)

    async def ticker(self, symbol: str) -> Ticker:
        """See Endpoint."""

        async def ask(exchange: Any) -> Ticker:
            market = self._market(exchange, symbol)
            found = await exchange.fetch_ticker(market["symbol"])
            last = exact(found["last"])
            if last <= 0:
                raise BadAnswer(f"it gave an impossible price ({last})")
            bid, ask_ = (exact(found[key]) if found.get(key) else None for key in ("bid", "ask"))
            return Ticker(last, bid, ask_, int((found.get("timestamp") or 0) * MS_NS))

        return await self._asked(ask)

    async def _asked(self, ask: Callable[[Any], Any]) -> Any:
        """The answer, with ccxt's errors made ours."""
        try:
            return await ask(await self._open())
        except (SourceFailed, UnknownSymbol, UnknownTimeframe):
            raise
        except VenueError as error:
            raise BadAnswer(f"it gave an impossible number: {error}") from None
        except (KeyError, IndexError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
            raise BadAnswer(f"its answer cannot be read ({type(error).__name__}: {error})") from error
        except Exception as error:
            errors = self._errors
            if errors is None or not isinstance(error, errors.BaseError):
                raise
            if isinstance(error, errors.BadSymbol):
                raise UnknownSymbol(f"{self.name} has no symbol {' '.join(str(error).split())[:200]}") from None
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if not isinstance(error, errors.OperationFailed):  # the venue answered, and refuses this request
                raise BadAnswer(said) from None
            refused = isinstance(error, (errors.RateLimitExceeded, errors.DDoSProtection))
            raise SourceFailed(said, self._retry_after() if refused else 0.0) from None
        finally:
            headers = getattr(self._exchange, "last_response_headers", None)
            if self._shared is not None and headers and headers is not self._heard:  # else they speak of an older minute
                self._heard = headers
                self._shared.observe(headers)

    def _retry_after(self) -> float:
        """Seconds for which the venue wants to be left alone; 30 where it refuses without saying how long."""
        headers = self._exchange.last_response_headers or {}
        text = next((str(v) for k, v in headers.items() if k.lower() == "retry-after"), "")
        return min(float(text), 86_400.0) if text.isascii() and text.isdigit() else 30.0

    async def close(self) -> None:
        """Close ccxt's connections."""
        if self._exchange is not None:
            await self._exchange.close()


def _candle(row: Any, now_ns: int, size_ns: int) -> Candle:
    """A candle of one ccxt row [ms, open, high, low, close, volume]."""
    start = int(row[0]) * MS_NS
    opened, high, low, close, volume = (exact(v) for v in row[1:6])
    return Candle(start, opened, high, low, close, volume, open_ended=start + size_ns > now_ns)


def endpoints_of(
    venue: str, addresses: Sequence[str] = (), *, budgets: Budgets | None = None, timeout_s: float = 10.0,
    venues_dir: Path | None = None,
) -> list[Endpoint]:  # fmt: skip
    """The endpoints to ask in turn. `addresses`: "http..." is another address of `venue`, "ccxt:<id>" another venue; without any
    the venue's own, and those that it offers besides. `venues_dir`: where this machine's processes share the venue's budget.
    Raises VenueError for a venue that is none."""
    shared = budgets or Budgets()
    if not addresses:
        ccxt_id(venue)
        wanted = [(venue, rest) for rest in ("", *Market.of(venue).facts.other_rest)]
    else:
        wanted = [(venue, text) if text.startswith(("http://", "https://")) else (text, "") for text in addresses]
    return [CcxtEndpoint(name, rest, budgets=shared, timeout_s=timeout_s, venues_dir=venues_dir) for name, rest in wanted]
