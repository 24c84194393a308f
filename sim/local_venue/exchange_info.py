"""`exchangeInfo` of every market: symbols with their filters, and the limits in force."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from sim.local_venue.book import text_of
from sim.local_venue.limits import Limits
from sim.local_venue.source import SymbolSpec

NEVER_MS: Final = 4_133_404_800_000
"""The delivery date of a perpetual."""
_ORDER_TYPES: Final = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"]
_FUTURES_ORDER_TYPES: Final = [
    "LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET",
]  # fmt: skip
_STP: Final = ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"]


def _rate(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _whole(value: int, decimals: int) -> str:
    return text_of(value * 10**8, decimals)


def _filters(spec: SymbolSpec) -> list[dict[str, Any]]:
    price, qty, tick = spec.price_decimals, spec.qty_decimals, spec.tick_size
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": _whole(spec.max_price, price), "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": spec.step_size, "maxQty": _whole(spec.max_qty, qty), "stepSize": spec.step_size},
    ]


def spot(symbols: Sequence[SymbolSpec], now_ms: int, limits: Limits) -> dict[str, Any]:
    """Spot's."""
    rows = []
    for spec in symbols:
        filters = [
            *_filters(spec),
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "MARKET_LOT_SIZE", "minQty": _whole(0, 8), "maxQty": _whole(100, 8), "stepSize": _whole(0, 8)},
            {"filterType": "TRAILING_DELTA", "minTrailingAboveDelta": 10, "maxTrailingAboveDelta": 2000,
             "minTrailingBelowDelta": 10, "maxTrailingBelowDelta": 2000},
            {"filterType": "PERCENT_PRICE_BY_SIDE", "bidMultiplierUp": "5", "bidMultiplierDown": "0.2", "askMultiplierUp": "5",
             "askMultiplierDown": "0.2", "avgPriceMins": 5},
            {"filterType": "NOTIONAL", "minNotional": spec.min_notional, "applyMinToMarket": True,
             "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
        ]  # fmt: skip
        rows.append({
            "symbol": spec.name, "status": "TRADING", "baseAsset": spec.base, "baseAssetPrecision": 8, "quoteAsset": spec.quote,
            "quotePrecision": 8, "quoteAssetPrecision": 8, "baseCommissionPrecision": 8, "quoteCommissionPrecision": 8,
            "orderTypes": _ORDER_TYPES, "icebergAllowed": True, "ocoAllowed": True, "otoAllowed": True,
            "quoteOrderQtyMarketAllowed": True, "allowTrailingStop": True, "cancelReplaceAllowed": True, "amendAllowed": True,
            "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "filters": filters, "permissions": [],
            "permissionSets": [["SPOT"]], "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
            "allowedSelfTradePreventionModes": _STP,
        })  # fmt: skip
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [
            _rate("REQUEST_WEIGHT", "MINUTE", 1, limits.weight_per_minute["spot"]),
            _rate("ORDERS", "SECOND", 10, 100),
            _rate("ORDERS", "DAY", 1, 200_000),
            _rate("RAW_REQUESTS", "MINUTE", 5, 61_000),
        ],
        "exchangeFilters": [],
        "symbols": rows,
    }


def usdm(symbols: Sequence[SymbolSpec], now_ms: int, limits: Limits) -> dict[str, Any]:
    """USD-M's."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": _futures_rates(limits, "usdm"),
        "exchangeFilters": [],
        "assets": [
            {"asset": asset, "marginAvailable": True, "autoAssetExchange": "-10000"}
            for asset in sorted({spec.quote for spec in symbols})
        ],
        "symbols": [_usdm_row(spec) for spec in symbols],
    }


def coinm(symbols: Sequence[SymbolSpec], now_ms: int, limits: Limits) -> dict[str, Any]:
    """COIN-M's: contracts of a fixed worth in the quote asset, settled in the base asset."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": _futures_rates(limits, "coinm"),
        "exchangeFilters": [],
        "symbols": [_coinm_row(spec) for spec in symbols],
    }


def _futures_rates(limits: Limits, market: str) -> list[dict[str, Any]]:
    return [
        _rate("REQUEST_WEIGHT", "MINUTE", 1, limits.weight_per_minute[market]),
        _rate("ORDERS", "MINUTE", 1, 1200),
        _rate("ORDERS", "SECOND", 10, 300),
    ]


def _dated(spec: SymbolSpec) -> dict[str, Any]:
    """What a future's row says of its delivery: at 8:00 UTC of the day in its name."""
    ends_ms = NEVER_MS
    with suppress(ValueError):  # a perpetual, or no date
        ends_ms = int(datetime.strptime(spec.delivery, "%y%m%d").replace(hour=8, tzinfo=UTC).timestamp() * 1000)
    return {
        "symbol": spec.name, "pair": spec.pair, "contractType": "CURRENT_QUARTER" if spec.delivery else "PERPETUAL",
        "deliveryDate": ends_ms, "onboardDate": 1_569_398_400_000,
    }  # fmt: skip


def _usdm_row(spec: SymbolSpec) -> dict[str, Any]:
    filters = [
        *_filters(spec),
        {"filterType": "MARKET_LOT_SIZE", "minQty": spec.step_size, "maxQty": _whole(120, spec.qty_decimals),
         "stepSize": spec.step_size},
        {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 10},
        {"filterType": "MIN_NOTIONAL", "notional": "5"},
        {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500", "multiplierDecimal": "4"},
    ]  # fmt: skip
    return _dated(spec) | {
        "status": "TRADING", "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000", "baseAsset": spec.base, "quoteAsset": spec.quote, "marginAsset": spec.quote,
        "pricePrecision": spec.price_decimals, "quantityPrecision": spec.qty_decimals, "baseAssetPrecision": 8,
        "quotePrecision": 8, "underlyingType": "COIN", "underlyingSubType": ["PoW"], "triggerProtect": "0.0500",
        "liquidationFee": "0.012500", "marketTakeBound": "0.05", "maxMoveOrderLimit": 10000, "filters": filters,
        "orderTypes": _FUTURES_ORDER_TYPES, "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }  # fmt: skip


def _coinm_row(spec: SymbolSpec) -> dict[str, Any]:
    filters = [
        *_filters(spec),
        {"filterType": "MARKET_LOT_SIZE", "minQty": spec.step_size, "maxQty": "1000", "stepSize": spec.step_size},
        {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 100},
        {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500", "multiplierDecimal": "4"},
    ]
    return _dated(spec) | {
        "contractStatus": "TRADING", "contractSize": spec.contract_size, "marginAsset": spec.base, "baseAsset": spec.base,
        "quoteAsset": spec.quote, "maintMarginPercent": "2.5000", "requiredMarginPercent": "5.0000",
        "pricePrecision": spec.price_decimals, "quantityPrecision": spec.qty_decimals, "baseAssetPrecision": 8,
        "quotePrecision": 8, "equalQtyPrecision": 4, "maxMoveOrderLimit": 10000, "triggerProtect": "0.0500",
        "underlyingType": "COIN", "underlyingSubType": ["PoW"], "filters": filters, "orderTypes": _FUTURES_ORDER_TYPES,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"], "liquidationFee": "0.015000", "marketTakeBound": "0.05",
    }  # fmt: skip


def empty(now_ms: int) -> dict[str, Any]:
    """That of options, which this venue does not have, and of COIN-M where it is not served."""
    return {
        "timezone": "UTC", "serverTime": now_ms, "rateLimits": [], "exchangeFilters": [], "symbols": [], "optionSymbols": [],
        "optionContracts": [], "optionAssets": [],
    }  # fmt: skip
