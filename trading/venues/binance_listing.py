"""Binance's exchangeInfo: the types of the answer, of spot and both futures markets, and the request weight that it grants."""

from __future__ import annotations

from typing import Final

import msgspec

from trading.venues.building import CHECK_ADDRESS, Expected
from trading.venues.protocol import VenueError


class Filter(msgspec.Struct, frozen=True):
    """A filter of a symbol; absent fields keep their defaults."""

    filterType: str = ""
    tickSize: str = ""
    stepSize: str = ""
    minQty: str = ""
    maxQty: str = ""
    minNotional: str = ""
    notional: str = ""


class ListedSymbol(msgspec.Struct, frozen=True):
    """What is listed of a symbol."""

    symbol: str
    status: str = ""
    contractStatus: str = ""  # COIN-M's word for `status`
    contractSize: int | float | str = ""  # COIN-M alone
    quantityPrecision: int = 8
    baseAssetPrecision: int = 8
    filters: list[Filter] = []


class RateLimit(msgspec.Struct, frozen=True):
    """A limit of the address."""

    rateLimitType: str = ""
    interval: str = ""
    intervalNum: int = 1
    limit: int = 0


class ExchangeInfo(msgspec.Struct, frozen=True):
    """The answer."""

    symbols: list[ListedSymbol] = []
    rateLimits: list[RateLimit] = []


_SECONDS: Final = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}


def rest_weight_limit(raw: bytes) -> int:
    """Request weight a minute that an exchangeInfo answer grants. Raises VenueError."""
    info = exchange_info(raw)
    a_minute = [
        it.limit * 60 // (_SECONDS[it.interval] * it.intervalNum)
        for it in info.rateLimits
        if it.rateLimitType == "REQUEST_WEIGHT" and it.interval in _SECONDS and it.intervalNum > 0
    ]
    if not a_minute or min(a_minute) <= 0:
        raise VenueError(f"binance: exchangeInfo names no REQUEST_WEIGHT limit; {CHECK_ADDRESS}")
    return min(a_minute)


def exchange_info(raw: bytes) -> ExchangeInfo:
    """The answer, read. Raises VenueError."""
    with Expected("binance", "the answer is no exchangeInfo"):
        return msgspec.json.decode(raw, type=ExchangeInfo)
