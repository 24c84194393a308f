"""What a tick and a lot are for each symbol, as one table that every kernel reads.

Conversion from the venue's decimal strings is exact: a price is `tick_units * 10**-price_decimals` per tick, a
quantity `10**-qty_decimals` per lot. A lot is the venue's finest quantity, which is finer than its order step on
Binance spot (prints and levels there are no multiples of the step size).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from trading.jit import Recs, Words, kernel
from trading.symbol_names import NAME_BYTES as NAME_BYTES
from trading.symbol_names import name_fault
from trading.venues.names import DEFAULT, Facts
from trading.venues.names import Market as Market  # by this name most modules know it


class InstrumentError(ValueError):
    """An instrument's figures do not fit together; the message names symbol and field."""


MOST_MARKETS: Final = 64
"""Numbers that a venue may have are below."""

INSTRUMENT: Final = np.dtype(
    [
        ("name", "u1", NAME_BYTES),  # ASCII, upper case, zero-padded
        ("name_len", "i8"),
        ("market", "i8"),  # Market
        ("price_decimals", "i8"),
        ("tick_units", "i8"),  # tick size in units of 10**-price_decimals
        ("qty_decimals", "i8"),  # a lot is 10**-qty_decimals
        ("step_lots", "i8"),  # orders: quantity is a multiple of this
        ("min_qty_lots", "i8"),
        ("max_qty_lots", "i8"),
        ("min_notional_e8", "i8"),
        ("notional_mul", "i8"),  # notional_e8 = ticks * lots * mul // div
        ("notional_div", "i8"),
        ("tick_size", "f8"),
        ("lot_size", "f8"),
        ("maker_fee_e6", "i8"),  # parts per million of notional; negative is a rebate
        ("taker_fee_e6", "i8"),
        ("make_market", "i8"),  # 1: the quoter keeps quotes in it
        ("take_signals", "i8"),  # 1: entries by the ensemble's signals
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol. Sizes are decimal strings as the venue prints them ("0.01")."""

    name: str
    market: Market = DEFAULT
    tick_size: str = "0.01"
    lot_size: str = "0.00000001"
    step_size: str = "0.00001"
    min_qty: str = "0.00001"
    max_qty: str = "9000"
    min_notional: str = "5"
    maker_fee_bps: float = DEFAULT.facts.maker_fee_bps
    taker_fee_bps: float = DEFAULT.facts.taker_fee_bps
    make_market: bool = True
    take_signals: bool = True


def by_market(fact: Callable[[Facts], int], otherwise: int) -> Words:
    """What the rows of trading.venues.names say, by the venue's number, for kernels: int64, shape (MOST_MARKETS,); `otherwise`
    where there is no row."""
    table = np.full(MOST_MARKETS, otherwise, np.int64)
    for market in Market:
        table[market] = fact(market.facts)
    return table


def _decimals(text: str, symbol: str, field: str) -> tuple[int, int]:
    """(decimals, units) of a positive decimal string: "0.50" -> (1, 5), "0.01" -> (2, 1)."""
    try:
        value = Decimal(text).normalize()
    except ArithmeticError:
        raise InstrumentError(f"{symbol}: {field} is {text!r}, wanted a decimal such as \"0.01\"") from None
    if not value.is_finite() or value <= 0:
        raise InstrumentError(f"{symbol}: {field} is {text!r}, wanted a positive decimal")
    exponent = int(value.as_tuple().exponent)
    if exponent >= 0:
        return 0, int(value)
    return -exponent, int(value.scaleb(-exponent))


def _lots(text: str, qty_decimals: int, symbol: str, field: str) -> int:
    lots = Decimal(text).scaleb(qty_decimals)
    if lots != lots.to_integral_value():
        raise InstrumentError(f"{symbol}: {field} {text} is no multiple of the lot size 1e-{qty_decimals}")
    return int(lots)


def instrument_table(instruments: Sequence[Instrument]) -> Recs:
    """The INSTRUMENT records of these symbols, in order; a symbol's index is its id on every ring."""
    table = np.zeros(len(instruments), INSTRUMENT)
    for row, it in zip(table, instruments, strict=True):
        if fault := name_fault(it.name):
            raise InstrumentError(f"symbol {it.name!r} {fault}")
        name = it.name.encode("ascii")
        price_decimals, tick_units = _decimals(it.tick_size, it.name, "tick_size")
        qty_decimals, lot_units = _decimals(it.lot_size, it.name, "lot_size")
        if lot_units != 1:
            raise InstrumentError(f"{it.name}: lot_size {it.lot_size} is no power of ten")
        row["name"][: len(name)] = np.frombuffer(name, np.uint8)
        row["name_len"] = len(name)
        row["market"] = it.market
        row["price_decimals"], row["tick_units"], row["qty_decimals"] = price_decimals, tick_units, qty_decimals
        row["step_lots"] = _lots(it.step_size, qty_decimals, it.name, "step_size")
        row["min_qty_lots"] = _lots(it.min_qty, qty_decimals, it.name, "min_qty")
        row["max_qty_lots"] = _lots(it.max_qty, qty_decimals, it.name, "max_qty")
        row["min_notional_e8"] = int(Decimal(it.min_notional) * 10**8)
        # ticks * lots counts units of tick_size * lot_size = tick_units * 10**-(price_decimals + qty_decimals)
        shift = 8 - price_decimals - qty_decimals
        row["notional_mul"] = tick_units * 10 ** max(shift, 0)
        row["notional_div"] = 10 ** max(-shift, 0)
        row["tick_size"], row["lot_size"] = float(Decimal(it.tick_size)), float(Decimal(it.lot_size))
        row["maker_fee_e6"], row["taker_fee_e6"] = round(it.maker_fee_bps * 100), round(it.taker_fee_bps * 100)
        row["make_market"], row["take_signals"] = it.make_market, it.take_signals
    return table


@kernel
def notional_e8(instruments: Recs, symbol: int, price_ticks: int, qty_lots: int) -> int:
    """Value of a quantity at a price, in 1e-8 of the quote currency (rounded towards minus infinity)."""
    it = instruments[symbol]
    return (price_ticks * qty_lots // it.notional_div) * it.notional_mul


@kernel
def fee_e8(value_e8: int, rate_e6: int) -> int:
    """Fee on a notional at a rate in parts per million, rounded half up to 1e-8."""
    return (value_e8 * rate_e6 + 500_000) // 1_000_000
