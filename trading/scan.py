"""Reading JSON bytes without building anything: the primitives under every frame decoder.

Each scanner takes `(p, end)`, the addresses of the next byte and of the first byte that is not ours, and answers where it
stopped; -1 says that the bytes are not what was asked for. None reads at or past `end` (a test runs them against a guard
page). Addresses rather than arrays with indices: array arguments cost atomic reference counts and seven registers a call,
which was four fifths of a frame's time [measured]. Whoever calls holds the array while its addresses are in use.

Digits are taken eight at a time: a word of eight ASCII digits becomes a number with three multiplications (the method of
simdjson's `parse_eight_digits_unrolled`), and the first byte that is no digit is found with one addition. Numbers become
exact integers of `10**-decimals`; a string that does not fit is refused, never rounded.

What this module is not: it knows no venue, no key and no record, and it does not validate values that it skips
beyond strings and brackets.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from trading.jit import kernel

QUOTE: Final = ord('"')
COMMA: Final = ord(",")
COLON: Final = ord(":")
DOT: Final = ord(".")
OPEN_BRACE: Final = ord("{")
CLOSE_BRACE: Final = ord("}")
OPEN_BRACKET: Final = ord("[")
CLOSE_BRACKET: Final = ord("]")
_BACKSLASH: Final = ord("\\")
_SPACE: Final = ord(" ")

_EACH: Final = 0x0101010101010101  # times a byte: that byte in all eight places
_HIGH: Final = 0x80 * _EACH - (1 << 64)  # as the int64 that it is
_ZEROS: Final = ord("0") * _EACH
_PAST_NINE: Final = 0x76 * _EACH  # lifts 10..127 over the high bit and leaves 0..9 under it
_QUOTES: Final = QUOTE * _EACH
_BACKSLASHES: Final = _BACKSLASH * _EACH

MAX_UNITS: Final = 2**59
"""No scanned number is greater: ten times that, and a digit, still fits into int64."""
MAX_DECIMALS: Final = 18
MAX_NESTING: Final = 60
POW10: Final = np.array([10**i for i in range(MAX_DECIMALS + 1)], np.int64)


@intrinsic
def address_of(typingctx: Any, buf: Any) -> Any:
    """Address of the first byte of a C-contiguous uint8 array, which the caller keeps alive."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.ptrtoint(array.data, ir.IntType(64))

    if isinstance(buf, types.Array) and buf.dtype == types.uint8 and buf.ndim == 1 and buf.layout == "C":
        return types.int64(buf), codegen
    return None


@intrinsic
def byte_at(typingctx: Any, p: Any) -> Any:
    """The byte at an address, as int64. Unchecked: the caller has made sure of `p < end`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.load(builder.inttoptr(args[0], ir.IntType(8).as_pointer())), ir.IntType(64))

    return types.int64(types.int64), codegen


@intrinsic
def word_at(typingctx: Any, p: Any) -> Any:
    """The eight bytes at an address as a little-endian int64. Unchecked: the caller has made sure of `p + 8 <= end`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), align=1)

    return types.int64(types.int64), codegen


@intrinsic
def lowest_bit(typingctx: Any, word: Any) -> Any:
    """Index of the lowest set bit of an int64; 64 when none is set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


@kernel
def skip_space(p: int, end: int) -> int:
    """The first place at or after `p` that holds no blank, tab or newline; `end` if there is none."""
    while p < end and byte_at(p) <= _SPACE:
        p += 1
    return p


@kernel
def pack(p: int, n: int, end: int) -> int:
    """Up to eight bytes as one int64, first byte lowest: lets a short name be compared as a number."""
    if n <= 0:
        return 0
    if n >= 8:
        n = 8
    if p + 8 <= end:
        word = word_at(p)
        return word if n == 8 else word & ((1 << (8 * n)) - 1)
    word = 0
    for i in range(min(n, end - p)):
        word |= byte_at(p + i) << (8 * i)
    return word


@kernel
def skip_string(p: int, end: int) -> int:
    """`p` is just past the opening quote; answers the place past the closing one, -1 if it never comes."""
    while p + 8 <= end:
        word = word_at(p)
        quote = word ^ _QUOTES
        slash = word ^ _BACKSLASHES
        # the high bit of each byte that is zero after the xor; the lowest such bit is exact
        found = (((quote - _EACH) & ~quote) | ((slash - _EACH) & ~slash)) & _HIGH
        if found == 0:
            p += 8
            continue
        p += lowest_bit(found) >> 3
        if byte_at(p) == QUOTE:
            return p + 1
        p += 2
    while p < end:
        if byte_at(p) == QUOTE:
            return p + 1
        p += 2 if byte_at(p) == _BACKSLASH else 1
    return -1


@kernel
def skip_value(p: int, end: int) -> int:
    """Step over any JSON value that starts at `p`, nested ones included; -1 if it does not end or nests too deep."""
    if p >= end:
        return -1
    first = byte_at(p)
    if first == QUOTE:
        return skip_string(p + 1, end)
    if first != OPEN_BRACE and first != OPEN_BRACKET:
        begin = p
        while p < end:
            c = byte_at(p)
            letter = c | 0x20
            if not (48 <= c <= 57 or 97 <= letter <= 122 or c == 43 or c == 45 or c == 46):  # digits, letters, + - .
                break
            p += 1
        return p if p > begin else -1
    stack = 0  # one bit a level: 1 object, 0 array
    depth = 0
    while p < end:
        c = byte_at(p)
        p += 1
        if c == QUOTE:
            p = skip_string(p, end)
            if p < 0:
                return -1
        elif c == OPEN_BRACE or c == OPEN_BRACKET:
            if depth == MAX_NESTING:
                return -1
            stack = (stack << 1) | (1 if c == OPEN_BRACE else 0)
            depth += 1
        elif c == CLOSE_BRACE or c == CLOSE_BRACKET:
            if (stack & 1) != (1 if c == CLOSE_BRACE else 0):
                return -1
            stack >>= 1
            depth -= 1
            if depth == 0:
                return p
    return -1


@kernel
def _non_digits(digits: int) -> int:
    """High bit of the bytes over 9 of a word xor-ed with zeros. Exact up to the lowest one set (carries only run upwards)."""
    return ((digits + _PAST_NINE) | digits) & _HIGH


@kernel
def _eight_digits(digits: int) -> int:
    """The number that eight digit values (lowest byte: most significant digit) spell."""
    pairs = digits * 10 + (digits >> 8)
    return (
        ((pairs & 0x000000FF000000FF) * 0x000F424000000064) + (((pairs >> 16) & 0x000000FF000000FF) * 0x0000271000000001)
    ) >> 32


@kernel
def scan_integer(p: int, end: int) -> tuple[int, int]:
    """(value, place past it) of an unsigned integer of at most 18 digits; (0, -1) for anything else."""
    value = 0
    count = 0
    while p + 8 <= end:
        digits = word_at(p) ^ _ZEROS
        other = _non_digits(digits)
        if other == 0:
            if count > 8:
                return 0, -1
            value = value * 100_000_000 + _eight_digits(digits)
            count += 8
            p += 8
            continue
        k = lowest_bit(other) >> 3
        count += k
        if count == 0 or count > MAX_DECIMALS:
            return 0, -1
        if k > 0:
            value = value * POW10[k] + _eight_digits(digits << (64 - 8 * k))
        return value, p + k
    while p < end and 48 <= byte_at(p) <= 57:
        value = value * 10 + (byte_at(p) - 48)
        count += 1
        p += 1
        if count > MAX_DECIMALS:
            return 0, -1
    if count == 0:
        return 0, -1
    return value, p


@kernel
def _scan_decimal_bytewise(p: int, end: int, decimals: int) -> tuple[int, int]:
    """`scan_decimal` for numbers of any length and near the end of the buffer."""
    units = 0
    begin = p
    while p < end and 48 <= byte_at(p) <= 57:
        units = units * 10 + (byte_at(p) - 48)
        if units > MAX_UNITS:
            return 0, -1
        p += 1
    if p == begin:
        return 0, -1
    left = decimals
    if p < end and byte_at(p) == DOT:
        p += 1
        begin = p
        while p < end and 48 <= byte_at(p) <= 57:
            digit = byte_at(p) - 48
            if left > 0:
                units = units * 10 + digit
                left -= 1
                if units > MAX_UNITS:
                    return 0, -1
            elif digit != 0:
                return 0, -1
            p += 1
        if p == begin:
            return 0, -1
    if left > 0:
        if units > MAX_UNITS // POW10[left]:
            return 0, -1
        units *= POW10[left]
    return units, p


@kernel
def scan_decimal(p: int, end: int, decimals: int) -> tuple[int, int]:
    """(value in units of 10**-decimals, place past it) of an unsigned decimal such as 61837.63000000.

    Exact: (0, -1) if there are nonzero digits past `decimals`, if the value exceeds MAX_UNITS, or if it is no number.
    """
    if p + 24 > end or decimals > 8:
        return _scan_decimal_bytewise(p, end, decimals)
    digits = word_at(p) ^ _ZEROS
    other = _non_digits(digits)
    if other == 0:
        return _scan_decimal_bytewise(p, end, decimals)
    bits = lowest_bit(other) & 56  # 8 * number of digits before the point
    if bits == 0:
        return 0, -1
    units = _eight_digits(digits << (64 - bits)) * POW10[decimals]
    q = p + (bits >> 3)
    if byte_at(q) != DOT:
        return units, q
    digits = word_at(q + 1) ^ _ZEROS
    other = _non_digits(digits)
    if other == 0:
        if 48 <= byte_at(q + 9) <= 57:
            return _scan_decimal_bytewise(p, end, decimals)
        q += 9
    else:
        bits = lowest_bit(other) & 56
        if bits == 0:
            return 0, -1
        digits &= (1 << bits) - 1
        q += 1 + (bits >> 3)
    if decimals == 8:
        return units + _eight_digits(digits), q
    if (digits >> (8 * decimals)) != 0:
        return 0, -1
    if decimals > 0:
        units += _eight_digits(digits << (64 - 8 * decimals))
    return units, q
