"""What ccxt says of a market, as this project writes it: which market a symbol means, its rules, and addresses to reach it.

Pure: plain mappings in, values out; ccxt itself (0.5 s and 110 MB to import) is the caller's affair.

ccxt turns the decimals of a venue into floats. `exact` takes them back by their shortest representation, which is what the venue
printed for anything up to 15 significant digits; beyond that a float cannot tell two decimals apart, and `units` refuses.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import urlsplit

from trading.venues.names import CCXT, SPOT, VENUES
from trading.venues.protocol import InstrumentRules, VenueError

Number = float | int | str

FLOAT_DIGITS: Final = 15
"""Significant decimal digits that every float64 carries."""
DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE = 2, 3, 4
"""ccxt's precision modes."""
MOST_LOTS: Final = 10**15
"""Largest quantity in lots where the venue names none, so that sums stay far inside int64."""

VENUE_IDS: Final = {it.label: it.facts.ccxt for it in VENUES if it.facts.ccxt}
"""ccxt's id of the venues that a profile names without `ccxt:`."""


def ccxt_id(venue: str) -> str:
    """ccxt's id of a profile's `venue` ("binance_spot", "ccxt:gate"). Raises VenueError."""
    if venue.startswith(CCXT) and venue != CCXT:
        return venue.removeprefix(CCXT)
    if venue not in VENUE_IDS:
        known = ", ".join(sorted(VENUE_IDS))
        raise VenueError(f"{venue!r} is no venue: write one of {known}, or {CCXT}<id> for any other that ccxt knows")
    return VENUE_IDS[venue]


def exact(number: Number) -> Decimal:
    """The decimal that a number of ccxt stands for. Raises VenueError for what is no finite number."""
    try:
        value = Decimal(number) if isinstance(number, (int, str)) else Decimal(repr(float(number)))
    except (InvalidOperation, TypeError, ValueError):
        raise VenueError(f"{number!r} is no number") from None
    if not value.is_finite():
        raise VenueError(f"{number!r} is no finite number")
    return value


def units(number: Number, unit: Decimal, what: str) -> int:
    """How many `unit` a price or quantity is, exactly and at least 0. Raises VenueError where it is no whole number of them."""
    value = exact(number)
    count = value / unit
    whole = int(count)
    if whole != count or whole < 0:
        raise VenueError(f"{what} {value} is no multiple of {unit.normalize():f}: correct tick_size or lot_size in the profile")
    if whole >= MOST_LOTS and not isinstance(number, (int, str)):
        raise VenueError(f"{what} {value} has more digits than ccxt's floats carry: give the symbol a coarser lot_size")
    return whole


def find_market(markets: Mapping[str, Mapping[str, Any]], name: str, kind: str = SPOT) -> Mapping[str, Any]:
    """The market that `name` means: ccxt's own name ("BTC/USDT"), the venue's id ("BTCUSDT"), or base and quote in one word.

    Where several fit, one of `kind` ("spot" or "linear") counts. Raises VenueError with names that come close.
    """
    if name in markets:
        return markets[name]
    wanted = name.upper()
    fitting = [m for m in markets.values() if str(m.get("id", "")).upper() == wanted]
    fitting = fitting or [m for m in markets.values() if f"{m.get('base')}{m.get('quote')}".upper() == wanted and _perpetual(m)]
    fitting = sorted(fitting, key=lambda m: not m.get(kind))
    if fitting:
        return fitting[0]
    ids = {str(m.get("id", "")).upper(): None for m in markets.values()}
    close = difflib.get_close_matches(wanted, ids, 3, 0.6)
    some = f"it lists {len(markets)} others, such as {next(iter(markets), 'none')}"
    raise VenueError(f"the venue has no symbol {name!r}: " + (f"did you mean {' or '.join(close)}?" if close else some))


def _perpetual(market: Mapping[str, Any]) -> bool:
    """Spot, or a swap: a bare name never means a dated contract or an option."""
    return bool(market.get("spot") or market.get("swap"))


def _step(precision: Any, mode: int, market: str, field: str) -> Decimal:
    if precision is None or mode not in (TICK_SIZE, DECIMAL_PLACES):
        raise VenueError(f"{market}: ccxt does not say its {field}: write it into the profile and set live.fetch_rules to false")
    value = exact(precision)
    return value if mode == TICK_SIZE else Decimal(1).scaleb(-int(value))


def _text(value: Decimal) -> str:
    return f"{value.normalize():f}"


def refuse_contracts(market: Mapping[str, Any]) -> None:
    """Refuse a market whose quantities are contracts of something else than one unit of the base currency. Raises VenueError."""
    if market.get("inverse") or market.get("option") or (market.get("contractSize") or 1) != 1:
        size = market.get("contractSize")
        raise VenueError(
            f"{market.get('symbol')}: its quantities are contracts ({size}, inverse: {bool(market.get('inverse'))}), which this "
            "line would take for units of the base currency: trade a spot or linear market with contracts of 1"
        )


def rules_of(market: Mapping[str, Any], mode: int) -> InstrumentRules:
    """The rules of a ccxt market. `mode`: the exchange's precisionMode. Raises VenueError.

    A lot is the finest quantity that the venue prints: where it names the base currency's precision, that may be below the step.
    """
    refuse_contracts(market)
    name = str(market.get("symbol"))
    precision: Mapping[str, Any] = market.get("precision") or {}
    tick = _step(precision.get("price"), mode, name, "tick size")
    step = _step(precision.get("amount"), mode, name, "step size")
    finest = step
    if precision.get("base") is not None:
        finest = min(finest, _step(precision["base"], mode, name, "base precision"))
    lot = Decimal(1).scaleb(min(int(finest.normalize().as_tuple().exponent), 0))
    limits: Mapping[str, Any] = market.get("limits") or {}

    def limit(what: str, end: str, default: Decimal) -> str:
        value = (limits.get(what) or {}).get(end)
        return _text(exact(value) if value else default)

    return InstrumentRules(
        venue_name=str(market.get("id")),
        tick_size=_text(tick),
        lot_size=_text(lot),
        step_size=_text(step),
        min_qty=limit("amount", "min", step),
        max_qty=limit("amount", "max", lot * MOST_LOTS),
        min_notional=limit("cost", "min", Decimal(0)),
        trading=market.get("active") is not False,
    )


def replaced_addresses(urls: Any, rest: str = "", stream: str = "") -> Any:
    """ccxt's `urls["api"]` (nested) with scheme and host replaced: http(s) addresses by `rest`, ws(s) ones by `stream`; "" keeps.

    Paths stay, since ccxt puts the venue's together from them. One exception: ccxt tells Binance's spot streams by "/stream"
    anywhere in the address, which only their host name has: there the path gets it in front.
    """
    if isinstance(urls, Mapping):
        return {key: replaced_addresses(value, rest, stream) for key, value in urls.items()}
    if isinstance(urls, list):
        return [replaced_addresses(value, rest, stream) for value in urls]
    if not isinstance(urls, str):
        return urls
    parts = urlsplit(urls)
    new = {"http": rest, "https": rest, "ws": stream, "wss": stream}.get(parts.scheme, "")
    if not new:
        return urls
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if "/stream" in urls and "/stream" not in new + path:
        path = "/stream" + path
    return new.rstrip("/") + path
