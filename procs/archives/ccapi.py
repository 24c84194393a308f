"""ccapi's CSV: best bid and offer once a second, and trades. The file's name says the symbol (eth-usd_2021-07-01_trade.csv.gz).

time_seconds,bid_price_bid_size,ask_price_ask_size     2271.58_1.6477 is price_quantity
time_seconds,price,size,is_buyer_maker
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from procs.archives.events import Print, Quote, Told
from procs.archives.sources import Source
from procs.recordings.words import truth

_QUOTES: Final = ("time_seconds", "bid_price_bid_size", "ask_price_ask_size")
_TRADES: Final = ("time_seconds", "price", "size", "is_buyer_maker")
_NAME: Final = re.compile(r"^([A-Za-z0-9]{2,12})-([A-Za-z0-9]{2,12})_\d{4}-\d\d-\d\d_")


def is_quotes(source: Source) -> bool:
    """By the header."""
    return source.columns == _QUOTES


def is_trades(source: Source) -> bool:
    """By the header."""
    return source.columns == _TRADES


def symbol_of(source: Source) -> str:
    """ETHUSD of eth-usd_2021-07-01_trade.csv.gz."""
    found = _NAME.match(source.name)
    return (found[1] + found[2]).upper() if found else ""


def quotes(source: Source, told: Told, symbol: str) -> Iterator[Quote]:
    """One a row."""
    for number, (time, bid, ask) in source.rows():
        if number > 1:
            told.rows += 1
            ns = told.in_order(told.stamp(time, number))
            (bid_price, _, bid_qty), (ask_price, _, ask_qty) = bid.split("|")[0].partition("_"), ask.split("|")[0].partition("_")
            yield Quote(ns, ns, bid_price, bid_qty, ask_price, ask_qty)


def trades(source: Source, told: Told, symbol: str) -> Iterator[Print]:
    """One a row."""
    for number, (time, price, qty, maker) in source.rows():
        if number > 1:
            told.rows += 1
            exch_ns = told.stamp(time, number)
            seller = truth(maker, told.place(number))  # the buyer made, so the seller took
            yield Print(told.in_order(exch_ns), exch_ns, price, qty, seller)
