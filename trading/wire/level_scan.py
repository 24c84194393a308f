"""Scanning `[["61837.63000000","0.00010000"],...]`: the levels of a frame, nine tenths of its bytes, straight into depth rows.

A venue writes the numbers of one frame alike: so many digits before the price's point, so many behind it, so many behind the
quantity's. The first level's shape is measured, and the run of levels that have it is then scanned at fixed places:

    ["61837.63000000","0.00010000"],
      `-a-' `--f---'     `--h---'       only the digits before the quantity's point may differ in number

Where the next level begins is so known before this one's digits are looked at: the processor works on several levels at
once. All that a level must be (punctuation, digits, zeros past the instrument's decimals) is gathered into one word, which is
0 for a sound one; whatever is not goes the long way, which decides.
"""

from __future__ import annotations

from typing import Any, Final

from trading.jit import Recs, kernel
from trading.wire.binance_layout import Frame
from trading.wire.scan import (
    CLOSE_BRACKET,
    COMMA,
    DOT,
    HIGH_BITS,
    OPEN_BRACKET,
    PAST_NINE,
    POW10,
    QUOTE,
    ZEROS,
    byte_at,
    eight_digits,
    leading_digits,
    scan_decimal,
    skip_space,
    word_at,
)

_TWO_BYTES: Final = 0xFFFF
_THREE_BYTES: Final = 0xFFFFFF
_OPENS: Final = int.from_bytes(b'["', "little")
_MIDDLE: Final = int.from_bytes(b'","', "little")
_CLOSES: Final = int.from_bytes(b'"],', "little")
_ENDS: Final = int.from_bytes(b'"]]', "little")
_COMMA_OR_BRACKET: Final = _CLOSES ^ _ENDS  # the bits in which these differ
_ZERO: Final = ord("0")
_LONGEST_LEVEL: Final = 48  # so far from the end no word read of a level with up to 8 digits a part goes past it


@kernel
def scan_units(p: int, end: int, decimals: int, multiple: int) -> tuple[int, int]:
    """A decimal in quotes as a count of `multiple * 10**-decimals`: (count, place past the closing quote) or (0, -1)."""
    if p >= end or byte_at(p) != QUOTE:
        return 0, -1
    units, p = scan_decimal(p + 1, end, decimals)
    if p < 0 or p >= end or byte_at(p) != QUOTE:
        return 0, -1
    if multiple != 1:
        count = units // multiple
        if count * multiple != units:
            return 0, -1
        units = count
    return units, p + 1


@kernel
def _shape(p: int) -> tuple[int, int, int]:
    """(a, f, h) of the level at `p`, each 1..8; a is 0 if it is not written so. _LONGEST_LEVEL bytes can be read."""
    a = leading_digits(p + 2)
    q = p + 3 + a
    f = leading_digits(q)
    if a == 0 or f == 0 or a + f < 5 or byte_at(q - 1) != DOT:  # shorter ones: a word would begin before the level
        return 0, 0, 0
    q += f + 3
    b = leading_digits(q)
    q += b + 1
    h = leading_digits(q)
    if b == 0 or h == 0 or byte_at(q - 1) != DOT:
        return 0, 0, 0
    return a, f, h


@kernel
def _scan_run(
    p: int, end: int, a: int, f: int, h: int, price_decimals: int, qty_decimals: int, flags: int, n: int, rows: Recs
) -> tuple[int, int, bool]:
    """Levels of one shape from `p` on, into rows[n:]: (place of the first that has another, rows then, False).

    Where they were the last ones: (place past the closing bracket, rows then, True).
    """
    limit = rows.shape[0]
    # fractions are read as the eight bytes that end with them: nothing past the level is touched
    price_mask = -1 << (64 - 8 * f)
    qty_mask = -1 << (64 - 8 * h)
    price_cut = 8 * min(max(f - price_decimals, 0), 7)  # bits of the digits that the instrument has not: they must be zeros
    qty_cut = 8 * min(max(h - qty_decimals, 0), 7)
    price_zeros = 0 if f <= price_decimals else -1 << (64 - 8 * (f - price_decimals))
    qty_zeros = 0 if h <= qty_decimals else -1 << (64 - 8 * (h - qty_decimals))
    price_times = POW10[max(price_decimals - f, 0)]
    qty_times = POW10[max(qty_decimals - h, 0)]
    price_unit = POW10[price_decimals]
    qty_unit = POW10[qty_decimals]
    whole_shift = 64 - 8 * a
    in_one = a + price_decimals <= 8 and f >= price_decimals  # whole and fraction fit into one word of digits
    price_shift = 8 * price_decimals if in_one else 0
    to_dot = 2 + a
    to_middle = to_dot + 1 + f
    to_qty = to_middle + 3
    size = to_qty + 2 + h + 3  # with one digit before the quantity's point
    while n < limit and p + size <= end:
        whole = (word_at(p + 2) ^ ZEROS) << whole_shift
        part = (word_at(p + to_middle - 8) ^ ZEROS) & price_mask
        wrong = ((word_at(p) ^ _OPENS) & _TWO_BYTES) | (byte_at(p + to_dot) ^ DOT) | (part & price_zeros)
        wrong |= (word_at(p + to_middle) ^ _MIDDLE) & _THREE_BYTES
        wrong |= (((whole + PAST_NINE) | whole) | ((part + PAST_NINE) | part)) & HIGH_BITS
        part <<= price_cut
        if in_one:
            price = eight_digits((whole >> price_shift) | part)
        else:
            price = eight_digits(whole) * price_unit + eight_digits(part) * price_times
        q = p + to_qty
        if byte_at(q + 1) == DOT:
            qty = byte_at(q) - _ZERO
            wrong |= (qty + 0x76 | qty) & 0x80
            q += 2 + h
        else:
            if p + _LONGEST_LEVEL > end:
                break
            b = leading_digits(q)
            if b == 0 or byte_at(q + b) != DOT:
                break
            qty = eight_digits((word_at(q) ^ ZEROS) << (64 - 8 * b))
            q += b + 1 + h
        part = (word_at(q - 8) ^ ZEROS) & qty_mask
        wrong |= (((part + PAST_NINE) | part) & HIGH_BITS) | (part & qty_zeros)
        after = (word_at(q - 5) >> 40) & _THREE_BYTES
        wrong |= (after ^ _CLOSES) & ~_COMMA_OR_BRACKET
        if wrong != 0 or price == 0:
            break
        row = rows[n]
        row.price_ticks = price
        row.qty_lots = qty * qty_unit + eight_digits(part << qty_cut) * qty_times
        row.flags = flags
        n += 1
        p = q + 3
        if after != _CLOSES:
            if after != _ENDS:
                return p, n, False
            return p, n, True
    return p, n, False


@kernel
def scan_levels(p: int, end: int, instrument: Any, flags: int, frame: Frame, rows: Recs) -> int:
    """Append `[["price","qty"],...]` at `p` to the rows; the place past it, or -1 (then n_levels is unchanged)."""
    price_decimals = instrument.price_decimals
    tick_units = instrument.tick_units
    qty_decimals = instrument.qty_decimals
    in_runs = tick_units == 1 and price_decimals <= 8 and qty_decimals <= 8
    n = frame.n_levels
    p = skip_space(p + 1, end)
    if p < end and byte_at(p) == CLOSE_BRACKET:
        return p + 1
    while True:
        if in_runs and p + _LONGEST_LEVEL <= end:
            a, f, h = _shape(p)
            if a > 0:
                p, n, done = _scan_run(p, end, a, f, h, price_decimals, qty_decimals, flags, n, rows)
                if done:
                    frame.n_levels = n
                    return p
        if n >= rows.shape[0]:
            return -1
        p = skip_space(p, end)
        if p >= end or byte_at(p) != OPEN_BRACKET:
            return -1
        price, p = scan_units(skip_space(p + 1, end), end, price_decimals, tick_units)
        if p < 0 or price == 0:
            return -1
        p = skip_space(p, end)
        if p >= end or byte_at(p) != COMMA:
            return -1
        qty, p = scan_units(skip_space(p + 1, end), end, qty_decimals, 1)
        if p < 0:
            return -1
        p = skip_space(p, end)
        if p >= end or byte_at(p) != CLOSE_BRACKET:
            return -1
        row = rows[n]
        row.price_ticks = price
        row.qty_lots = qty
        row.flags = flags
        n += 1
        p = skip_space(p + 1, end)
        if p >= end:
            return -1
        if byte_at(p) == CLOSE_BRACKET:
            frame.n_levels = n
            return p + 1
        if byte_at(p) != COMMA:
            return -1
        p += 1
