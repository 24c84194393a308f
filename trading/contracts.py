"""What a symbol is a contract on: linear or inverse, how much one is worth, and in what it is settled.

A quantity of a linear instrument is so many units of its base currency (times the contract's size), paid for and settled in its
quote currency. An inverse contract is worth a fixed sum of the quote currency, and is settled in the base currency, "the coin".
The venue says which (exchangeInfo), else the profile, else the row of `trading.venues.names`: recordings tell nothing of it.

What this module is not: the money; trading.instruments computes it.
"""

from __future__ import annotations

from typing import Final

from trading.venues.names import INVERSE, LINEAR, Market

CONTRACTS: Final = (LINEAR, INVERSE)
_QUOTES: Final = (
    "USDT", "USDC", "FDUSD", "TUSD", "BUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "GBP", "JPY", "BRL", "COP", "IDR", "KRW", "USD",
)  # fmt: skip
_END_IN_USD: Final = ("FDUSD", "TUSD", "BUSD")
_SHORTEST_COIN: Final = 3


def contract_of(market: Market, name: str, contract: str = "", size: str = "") -> tuple[str, str]:
    """(LINEAR or INVERSE, contract size) of a symbol: what is given, else by the venue's row."""
    for start, units in market.facts.inverse:
        if name.startswith(start):
            return contract or INVERSE, size or (units if contract in ("", INVERSE) else "1")
    return contract or LINEAR, size or "1"


def pair_of(name: str) -> str:
    """A name without delivery date or PERP: BTCUSD_PERP and BTCUSD_241227 are BTCUSD."""
    return name.partition("_")[0]


def quote_of(name: str) -> str:
    """The quote currency by the usual endings of names, "" for another."""
    pair = pair_of(name)
    for quote in _QUOTES:
        # BNBUSD_PERP and DOTUSD are BNB and DOT in dollars, not BN in BUSD and DO in TUSD
        dollars = quote in _END_IN_USD and (name.endswith("_PERP") or len(pair) < len(quote) + _SHORTEST_COIN)
        if pair.endswith(quote) and not dollars:
            return quote
    return ""


def asset_of(name: str, inverse: bool) -> str:
    """What profit and fees of a symbol are paid in, by its name: the coin of an inverse contract, else the quote currency."""
    if not inverse:
        return quote_of(name)
    pair, quote = pair_of(name), quote_of(name)
    return pair[: len(pair) - len(quote)] if quote and pair != quote else pair
