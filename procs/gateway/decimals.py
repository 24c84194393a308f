"""Ticks and lots as the decimals that a venue prints: exact, from one row of the instrument table. No floats."""

from __future__ import annotations

from typing import Any


def decimal_text(units: int, decimals: int) -> str:
    """`units` of 10**-decimals: (-12345, 2) -> "-123.45"."""
    if decimals <= 0:
        return str(units)
    whole, rest = divmod(abs(units), 10**decimals)
    return f"{'-' if units < 0 else ''}{whole}.{rest:0{decimals}d}"


class Scale:
    """One symbol's ticks and lots. `instrument`: a row of trading.instruments.INSTRUMENT."""

    def __init__(self, instrument: Any) -> None:
        self.price_decimals = int(instrument["price_decimals"])
        self.tick_units = int(instrument["tick_units"])
        self.qty_decimals = int(instrument["qty_decimals"])
        self.tick_size = float(instrument["tick_size"])
        self.min_notional_e8 = int(instrument["min_notional_e8"])
        self.inverse = bool(instrument["inverse"])
        self._mul, self._div = int(instrument["notional_mul"]), int(instrument["notional_div"])

    def price(self, ticks: int) -> str:
        """A price."""
        return decimal_text(int(ticks) * self.tick_units, self.price_decimals)

    def qty(self, lots: int) -> str:
        """A quantity."""
        return decimal_text(int(lots), self.qty_decimals)

    def money(self, value_e8: int) -> str:
        """1e-8 of the quote currency, to its cent, rounded down."""
        return decimal_text(value_e8 // 10**6, 2)

    def notional_e8(self, ticks: int, lots: int) -> int:
        """Value of a quantity at a price, as trading.instruments.notional_e8 computes it."""
        return (1 if self.inverse else int(ticks)) * int(lots) // self._div * self._mul
