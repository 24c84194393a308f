"""What a tick and a lot are for each symbol, as one table that every kernel reads.

Conversion from the venue's decimal strings is exact: a price is `tick_units * 10**-price_decimals` per tick, a
quantity `10**-qty_decimals` per lot. A lot is the venue's finest quantity, which is finer than its order step on
Binance spot (prints and levels there are no multiples of the step size). What fits is stated in trading.ranges.

Two kinds of money: `notional_e8` is in the quote currency, which limits and sizes are written in; `settled_e8` is in what the
instrument is settled in, which fees and profit are paid in. They are one and the same for a linear instrument. An inverse
contract has a fixed notional, contracts * size, and settles in the coin: contracts * size / price, so that a falling value is
the profit of a purchase. `gain_sign` says which way round it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np

from trading.contracts import CONTRACTS, contract_of
from trading.jit import Recs, Words, kernel
from trading.ranges import MAX_UNITS, SATURATED
from trading.symbol_names import NAME_BYTES as NAME_BYTES
from trading.symbol_names import name_fault
from trading.venues.names import DEFAULT, INVERSE, Facts, SequenceRule
from trading.venues.names import Market as Market  # by this name most modules know it


class InstrumentError(ValueError):
    """An instrument's figures do not fit together; the message names symbol and field."""


MAX_SHIFT: Final = 18
"""Decimals of ticks * lots beyond those of money: 10**18 is the greatest divisor."""
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
        ("notional_mul", "i8"),  # notional_e8 = ticks * lots * mul // div; without the ticks where the contract is inverse
        ("notional_div", "i8"),
        ("inverse", "i8"),  # 1: an inverse contract
        ("coin_mul", "i8"),  # of an inverse contract: settled_e8 = lots * mul / (ticks * div)
        ("coin_div", "i8"),
        ("contract_size", "f8"),  # linear: units of the base currency in a quantity of 1; inverse: units of the quote currency
        ("tick_size", "f8"),
        ("lot_size", "f8"),
        ("maker_fee_e6", "i8"),  # parts per million of notional; negative is a rebate
        ("taker_fee_e6", "i8"),
        ("make_market", "i8"),  # 1: the quoter keeps quotes in it
        ("take_signals", "i8"),  # 1: entries by the ensemble's signals
    ],
    align=True,
)


MAX_QTY: Final = "9000"
"""The greatest order of BTCUSDT: the default, which a recording takes for unsaid."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol. Sizes are decimal strings as the venue prints them ("0.01")."""

    name: str
    market: Market = DEFAULT
    tick_size: str = "0.01"
    lot_size: str = "0.00000001"
    step_size: str = "0.00001"
    min_qty: str = "0.00001"
    max_qty: str = MAX_QTY
    min_notional: str = "5"
    maker_fee_bps: float = DEFAULT.facts.maker_fee_bps
    taker_fee_bps: float = DEFAULT.facts.taker_fee_bps
    make_market: bool = True
    take_signals: bool = True
    contract: str = ""  # linear or inverse; "": as trading.contracts says
    contract_size: str = ""


def by_market(fact: Callable[[Facts], int], otherwise: int) -> Words:
    """What the rows of trading.venues.names say, by the venue's number, for kernels: int64, shape (MOST_MARKETS,); `otherwise`
    where there is no row."""
    table = np.full(MOST_MARKETS, otherwise, np.int64)
    for market in Market:
        table[market] = fact(market.facts)
    return table


_FUTURE: Final = by_market(lambda facts: int(facts.sequence is SequenceRule.USDM), 0)


@kernel
def is_future(market: int) -> bool:
    """Whether a market's frames are those of Binance's futures: they have a time of the transaction, and name the diff before."""
    return _FUTURE[market] != 0


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
    if lots > MAX_UNITS and field != "max_qty":
        raise InstrumentError(f"{symbol}: {field} {text} is more than {MAX_UNITS} lots of 1e-{qty_decimals}: correct the two")
    return min(int(lots), MAX_UNITS)


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
        row["min_notional_e8"] = min(int(Decimal(it.min_notional) * 10**8), SATURATED)
        contract, size = contract_of(it.market, it.name, it.contract, it.contract_size)
        if contract not in CONTRACTS:
            raise InstrumentError(f"{it.name}: contract is {contract!r}, wanted one of {', '.join(CONTRACTS)}")
        size_decimals, size_units = _decimals(size, it.name, "contract_size")
        row["inverse"], row["contract_size"] = contract == INVERSE, float(Decimal(size))
        # ticks * lots counts units of tick_size * lot_size = tick_units * 10**-(price_decimals + qty_decimals)
        shift = 8 - qty_decimals - size_decimals - (0 if row["inverse"] else price_decimals)
        mul = size_units * (1 if row["inverse"] else tick_units) * 10 ** max(shift, 0)
        if mul > MAX_UNITS or -shift > MAX_SHIFT:
            sizes = f"a tick of {it.tick_size} with a lot of {it.lot_size} and a contract of {size}"
            remedy = "correct tick_size, lot_size or contract_size"
            raise InstrumentError(f"{it.name}: {sizes} is beyond what values are counted in: {remedy}")
        row["notional_mul"] = mul
        row["notional_div"] = 10 ** max(-shift, 0)
        if row["inverse"]:
            coin = Fraction(size_units * 10 ** (8 + price_decimals), tick_units * 10 ** (qty_decimals + size_decimals))
            if max(coin.numerator, coin.denominator) >= 1 << 61:
                raise InstrumentError(f"{it.name}: contract_size {size} is too large for tick_size {it.tick_size}")
            row["coin_mul"], row["coin_div"] = coin.numerator, coin.denominator
        row["tick_size"], row["lot_size"] = float(Decimal(it.tick_size)), float(Decimal(it.lot_size))
        row["maker_fee_e6"], row["taker_fee_e6"] = round(it.maker_fee_bps * 100), round(it.taker_fee_bps * 100)
        row["make_market"], row["take_signals"] = it.make_market, it.take_signals
    return table


@kernel
def _wide_mul_div(a: int, b: int, c: int) -> tuple[int, int]:
    """(quotient, remainder) of a * b / c for a, b >= 0, bit by bit: exact whatever the product; (SATURATED, 0) at most."""
    whole, rest = a // c, a % c
    value = remainder = 0
    for k in range(62, -1, -1):  # Horner's rule over the bits of b, quotient and remainder side by side
        value, remainder = value * 2, remainder * 2
        if remainder >= c:
            value, remainder = value + 1, remainder - c
        if (b >> k) & 1:
            value, remainder = value + whole, remainder + rest
            if remainder >= c:
                value, remainder = value + 1, remainder - c
        if value < 0 or value >= SATURATED:
            return SATURATED, 0
    return value, remainder


@kernel
def mul_div(a: int, b: int, c: int) -> int:
    """floor(a * b / c) for a >= 0, any b, and 0 < c < 2**61, exact also where the product has 126 bits; where the quotient does
    not fit, SATURATED with its sign."""
    if float(a) * abs(float(b)) < 4.6e18:  # below SATURATED, whatever the divisor
        return a * b // c
    quotient, remainder = _wide_mul_div(a, abs(b), c)
    if b >= 0:
        return quotient
    return -quotient - 1 if remainder > 0 else -quotient


@kernel
def times(value: int, factor: int) -> int:
    """value * factor for factor > 0; SATURATED with the value's sign where that does not fit."""
    if abs(float(value)) * float(factor) >= float(SATURATED):
        return SATURATED if value > 0 else -SATURATED
    return value * factor


@kernel
def notional_e8(instruments: Recs, symbol: int, price_ticks: int, qty_lots: int) -> int:
    """Value of a quantity at a price (both >= 0), in 1e-8 of the quote currency, rounded down; SATURATED at most. An inverse
    contract's is the same at every price."""
    it = instruments[symbol]
    if it.inverse != 0:
        return times(qty_lots // it.notional_div, it.notional_mul)
    return times(mul_div(price_ticks, qty_lots, it.notional_div), it.notional_mul)


@kernel
def coin_e8(instruments: Recs, symbol: int, price_ticks: int, halves: int, qty_lots: int) -> int:
    """Worth of an inverse contract's quantity (>= 0) in 1e-8 of the coin, rounded to the nearest, half up. The price is
    `price_ticks / halves` (1, or 2 for the sum of bid and ask); 0 where there is no price."""
    it = instruments[symbol]
    parts = price_ticks * it.coin_div
    if parts <= 0:
        return 0
    mul = it.coin_mul * halves
    whole = mul // parts
    rest = mul - whole * parts
    return whole * qty_lots + (2 * rest * qty_lots + parts) // (2 * parts)


@kernel
def settled_e8(instruments: Recs, symbol: int, price_ticks: int, qty_lots: int) -> int:
    """Value of a quantity (>= 0) at a price in 1e-8 of what the instrument is settled in: the notional, or that many coins."""
    if instruments[symbol].inverse != 0:
        return coin_e8(instruments, symbol, price_ticks, 1, qty_lots)
    return notional_e8(instruments, symbol, price_ticks, qty_lots)


@kernel
def gain_sign(instruments: Recs, symbol: int) -> int:
    """1 where a rising `settled_e8` is the profit of who has bought, -1 where a falling one is (inverse)."""
    return 1 - 2 * instruments[symbol].inverse


@kernel
def lot_value(instruments: Recs, symbol: int, price_ticks: float) -> float:
    """Notional of one lot at a price, in the quote currency; for sizes, not for accounts."""
    it = instruments[symbol]
    if it.inverse != 0:
        return it.contract_size * it.lot_size
    return price_ticks * it.tick_size * it.lot_size * it.contract_size


@kernel
def loss_e8(instruments: Recs, symbol: int, price_ticks: float, lots: float, distance_ticks: float) -> float:
    """What a quantity loses over a distance in ticks, in 1e-8 of the quote currency. An inverse contract's loss, in coins, is
    valued at the price: notional * distance / price."""
    it = instruments[symbol]
    loss = lots * distance_ticks * float(it.notional_mul) / float(it.notional_div)
    if it.inverse != 0:
        return loss / max(price_ticks, 1.0)
    return loss


@kernel
def quoted_e8(instruments: Recs, symbol: int, value_e8: int, twice_ticks: int) -> int:
    """A sum of what the instrument is settled in (any sign), in 1e-8 of the quote currency at the price `twice_ticks / 2`,
    rounded towards minus infinity; as it is where the two are one."""
    it = instruments[symbol]
    if it.inverse == 0:
        return value_e8
    parts = 2
    for _ in range(it.price_decimals):
        parts *= 10
    factor = twice_ticks * it.tick_units
    whole = value_e8 // parts
    return whole * factor + (value_e8 - whole * parts) * factor // parts


@kernel
def fee_e8(value_e8: int, rate_e6: int) -> int:
    """Fee on a notional at a rate in parts per million, rounded half up to 1e-8; the product is never formed as a whole."""
    return value_e8 // 1_000_000 * rate_e6 + (value_e8 % 1_000_000 * rate_e6 + 500_000) // 1_000_000
