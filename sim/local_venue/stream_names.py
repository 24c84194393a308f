"""What a stream's name means: `btcusdt@depth20@100ms` and its like, of every market.

A name of an unknown symbol is a good name; nothing ever comes of it, as on the venue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from sim.local_venue.bars import INTERVALS

MarketName = Literal["spot", "usdm", "coinm"]
MARKETS: Final[tuple[MarketName, ...]] = ("spot", "usdm", "coinm")
FUTURES: Final = ("usdm", "coinm")

KINDS: Final = (
    "trade", "aggTrade", "bookTicker", "depth", "partial", "kline", "miniTicker", "ticker", "windowTicker", "avgPrice",
    "markPrice",
)  # fmt: skip
"""Kinds of streams, as faults name them too."""

DIFF_MS: Final[dict[str, tuple[int, ...]]] = {"spot": (1000, 100), "usdm": (250, 500, 100, 0), "coinm": (250, 500, 100, 0)}
"""Intervals of diff and partial depth streams; the first one is what no suffix means."""
KLINE_MS: Final[dict[str, int]] = {"spot": 2000, "usdm": 250, "coinm": 250}
WINDOWS: Final[dict[str, int]] = {"1h": 3_600_000, "4h": 14_400_000, "1d": 86_400_000}

_DEPTH: Final = re.compile(r"depth(5|10|20)?(?:@(\d+)ms)?")


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream. `symbol` is upper case, "" means all; `arg` is the kline interval, the number of levels or the window."""

    name: str
    symbol: str
    kind: str
    arg: str = ""
    interval_ms: int = 0
    """How often it speaks; 0: as it happens."""


def parse_stream(market: MarketName, name: str) -> Stream | None:
    """The stream of that name, None when the market has none such (upper-case symbols among them)."""
    if name.startswith("!"):
        return _of_all(market, name)
    symbol, _, rest = name.partition("@")
    if not symbol or symbol != symbol.lower():
        return None
    found = _single(market, rest)
    return found and Stream(name, symbol.upper(), *found)


def _single(market: MarketName, rest: str) -> tuple[str, str, int] | None:
    if rest in ("trade", "aggTrade", "bookTicker"):
        return rest, "", 0
    match = _DEPTH.fullmatch(rest)
    if match:
        allowed = DIFF_MS[market]
        interval = int(match[2]) if match[2] else allowed[0]
        if interval not in allowed:
            return None
        return ("partial" if match[1] else "depth"), match[1] or "", interval
    kind, _, arg = rest.partition("_")
    if kind == "kline" and arg in INTERVALS and not (market in FUTURES and arg == "1s"):
        return "kline", arg, 1000 if arg == "1s" else KLINE_MS[market]
    if rest == "miniTicker":
        return "miniTicker", "", 1000 if market == "spot" else 500
    if rest == "ticker":
        return "ticker", "", 1000 if market == "spot" else 2000
    if market == "spot" and kind == "ticker" and arg in WINDOWS:
        return "windowTicker", arg, 1000
    if market == "spot" and rest == "avgPrice":
        return "avgPrice", "", 1000
    if market in FUTURES and rest in ("markPrice", "markPrice@1s"):
        return "markPrice", "", 1000 if rest.endswith("1s") else 3000
    return None


def _of_all(market: MarketName, name: str) -> Stream | None:
    intervals = {"!miniTicker@arr": 1000, "!ticker@arr": 1000}
    if name in intervals:
        return Stream(name, "", name[1:].partition("@")[0], "arr", intervals[name])
    if market in FUTURES and name == "!bookTicker":
        return Stream(name, "", "bookTicker", "all")
    if market in FUTURES and name in ("!markPrice@arr", "!markPrice@arr@1s"):
        return Stream(name, "", "markPrice", "arr", 1000 if name.endswith("1s") else 3000)
    return None
