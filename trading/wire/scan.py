"""Reading JSON bytes without building anything: the primitives under every frame decoder.

Each scanner takes `(p, end)`, the addresses of the next byte and of the first byte that is not ours, and answers where it
stopped; -1 says that the bytes are not what was asked for. None reads at or past `end` (a test runs them against a guard
page). Addresses rather than arrays with indices: array arguments cost atomic reference counts and seven registers a call,
which was four fifths of a frame's time [measured]. Whoever calls holds the array while its addresses are in use.

Digits are taken eight at a time: a word of eight ASCII digits becomes a number with three multiplications (the method of
simdjson's `parseeight_digits_unrolled`), and the first byte that is no digit is found with one addition. Numbers become
exact integers of `10**-decimals`; a string that does not fit is refused, never rounded.

What is stepped over is held to JSON's grammar as well (a fuzzer compares with an independent parser): bytes that are no JSON
say nothing, wherever in the frame they stand.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from trading.jit import kernel, lowest_bit
from trading.ranges import MAX_UNITS

QUOTE: Final = ord('"')
COMMA: Final = ord(",")
COLON: Final = ord(":")
DOT: Final = ord(".")
OPEN_BRACE: Final = ord("{")
CLOSE_BRACE: Final = ord("}")
OPEN_BRACKET: Final = ord("[")
CLOSE_BRACKET: Final = ord("]")
BACKSLASH: Final = ord("\\")
_SPACE: Final = ord(" ")
_TAB, _NEWLINE, _RETURN = ord("\t"), ord("\n"), ord("\r")

_EACH: Final = 0x0101010101010101  # times a byte: that byte in all eight places
HIGH_BITS: Final = 0x80 * _EACH - (1 << 64)  # as the int64 that it is
ZEROS: Final = ord("0") * _EACH
PAST_NINE: Final = 0x76 * _EACH  # lifts 10..127 over the high bit and leaves 0..9 under it
_QUOTES: Final = QUOTE * _EACH
_BACKSLASHES: Final = BACKSLASH * _EACH
_BLANKS: Final = _SPACE * _EACH
_TRUE, _NULL, _FALS = (int.from_bytes(word, "little") for word in (b"true", b"null", b"fals"))

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
def fetch_ahead(typingctx: Any, p: Any) -> Any:
    """Tell the processor that the cache line at an address will be read soon. Any address is safe."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [builder.inttoptr(args[0], pointer), i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@kernel
def skip_space(p: int, end: int) -> int:
    """The first place at or after `p` that holds none of JSON's blanks (space, tab, newline, return); `end` if there is none."""
    while p < end:
        c = byte_at(p)
        if c > _SPACE or not (c == _SPACE or c == _NEWLINE or c == _TAB or c == _RETURN):
            break
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
def _hex4(p: int, end: int) -> int:
    """The value of four hexadecimal digits, -1 if they are none."""
    if p + 4 > end:
        return -1
    value = 0
    for i in range(4):
        c = byte_at(p + i)
        letter = c | 0x20
        if 48 <= c <= 57:
            value = value * 16 + c - 48
        elif 97 <= letter <= 102:
            value = value * 16 + letter - 87
        else:
            return -1
    return value


@kernel
def _skip_escape(p: int, end: int) -> int:
    """Past the escape whose backslash is at `p`, -1 if JSON has no such escape (half a surrogate pair is none)."""
    if p + 1 >= end:
        return -1
    c = byte_at(p + 1)
    if c == QUOTE or c == BACKSLASH or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116:  # / b f n r t
        return p + 2
    value = _hex4(p + 2, end) if c == 117 else -1  # u
    if value < 0 or 0xDC00 <= value < 0xE000:
        return -1
    if value < 0xD800 or value >= 0xE000:
        return p + 6
    if p + 8 > end or byte_at(p + 6) != BACKSLASH or byte_at(p + 7) != 117:
        return -1
    value = _hex4(p + 8, end)
    return p + 12 if 0xDC00 <= value < 0xE000 else -1


@kernel
def _skip_special(p: int, end: int) -> int:
    """Past an escape or a character beyond ASCII in a string, -1 for a control character or what is no UTF-8."""
    c = byte_at(p)
    if c == BACKSLASH:
        return _skip_escape(p, end)
    if c < 0xC2 or c > 0xF4:
        return -1
    more = 1 if c < 0xE0 else 2 if c < 0xF0 else 3
    if p + more >= end:
        return -1
    low = 0xA0 if c == 0xE0 else 0x90 if c == 0xF0 else 0x80  # none longer than it must be
    high = 0x9F if c == 0xED else 0x8F if c == 0xF4 else 0xBF  # no surrogates, nothing past U+10FFFF
    if not low <= byte_at(p + 1) <= high:
        return -1
    for i in range(2, more + 1):
        if byte_at(p + i) & 0xC0 != 0x80:
            return -1
    return p + more + 1


@kernel
def skip_string(p: int, end: int) -> int:
    """`p` is just past the opening quote; answers the place past the closing one, -1 if it never comes or no JSON string does."""
    while p + 8 <= end:
        word = word_at(p)
        quote = word ^ _QUOTES
        slash = word ^ _BACKSLASHES
        # the high bit of each byte that is a quote, a backslash, below a blank or beyond ASCII; the lowest such bit is exact
        found = (((quote - _EACH) & ~quote) | ((slash - _EACH) & ~slash) | ((word - _BLANKS) & ~word) | word) & HIGH_BITS
        if found == 0:
            p += 8
            continue
        p += lowest_bit(found) >> 3
        if byte_at(p) == QUOTE:
            return p + 1
        p = _skip_special(p, end)
        if p < 0:
            return -1
    while p < end:
        c = byte_at(p)
        if c == QUOTE:
            return p + 1
        p = p + 1 if _SPACE <= c < 0x80 and c != BACKSLASH else _skip_special(p, end)
        if p < 0:
            return -1
    return -1


@kernel
def _skip_digits(p: int, end: int) -> int:
    """Past one digit or more, -1 where there is none."""
    begin = p
    while p < end and 48 <= byte_at(p) <= 57:
        p += 1
    return p if p > begin else -1


@kernel
def _skip_scalar(p: int, end: int) -> int:
    """Past true, false, null or a number as JSON writes it; -1 for anything else."""
    c = byte_at(p)
    if c == 116 or c == 110 or c == 102:  # t n f
        word = pack(p, 4, end)
        if word == _TRUE or word == _NULL:
            return p + 4
        return p + 5 if word == _FALS and p + 4 < end and byte_at(p + 4) == 101 else -1
    if c == 45:  # -
        p += 1
    begin = p
    p = _skip_digits(p, end)
    if p < 0 or (byte_at(begin) == 48 and p > begin + 1):
        return -1
    if p < end and byte_at(p) == DOT:
        p = _skip_digits(p + 1, end)
        if p < 0:
            return -1
    if p < end and byte_at(p) | 0x20 == 101:  # e
        p += 1
        if p < end and (byte_at(p) == 43 or byte_at(p) == 45):
            p += 1
        return _skip_digits(p, end)
    return p


@kernel
def _skip_key(p: int, end: int) -> int:
    """Past a member's key and colon; -1 if none stands at `p`, blanks aside."""
    p = skip_space(p, end)
    if p >= end or byte_at(p) != QUOTE:
        return -1
    p = skip_string(p + 1, end)
    if p < 0:
        return -1
    p = skip_space(p, end)
    return p + 1 if p < end and byte_at(p) == COLON else -1


@kernel
def skip_value(p: int, end: int) -> int:
    """Step over any JSON value that starts at `p`, nested ones included; -1 if it is none, does not end or nests too deep."""
    stack = 0  # one bit a level: 1 object, 0 array
    depth = 0
    while True:
        if depth > 0:
            p = skip_space(p, end)
        if p >= end:
            return -1
        c = byte_at(p)
        if c == OPEN_BRACE or c == OPEN_BRACKET:
            if depth == MAX_NESTING:
                return -1
            stack = (stack << 1) | (1 if c == OPEN_BRACE else 0)
            depth += 1
            p = skip_space(p + 1, end)
            if p >= end:
                return -1
            if byte_at(p) != (CLOSE_BRACE if c == OPEN_BRACE else CLOSE_BRACKET):
                if c == OPEN_BRACE:
                    p = _skip_key(p, end)
                    if p < 0:
                        return -1
                continue
        else:
            p = skip_string(p + 1, end) if c == QUOTE else _skip_scalar(p, end)
            if p < 0:
                return -1
        # behind a value, or at the end of an empty object or array: close what closes here, or go on behind a comma
        while depth > 0:
            p = skip_space(p, end)
            if p >= end:
                return -1
            c = byte_at(p)
            if c == COMMA:
                p += 1
                if stack & 1 != 0:
                    p = _skip_key(p, end)
                    if p < 0:
                        return -1
                break
            if c != (CLOSE_BRACE if stack & 1 != 0 else CLOSE_BRACKET):
                return -1
            p += 1
            stack >>= 1
            depth -= 1
        if depth == 0:
            return p


@kernel
def _non_digits(digits: int) -> int:
    """High bit of the bytes over 9 of a word xor-ed with zeros. Exact up to the lowest one set (carries only run upwards)."""
    return ((digits + PAST_NINE) | digits) & HIGH_BITS


@kernel
def eight_digits(digits: int) -> int:
    """The number that eight digit values (lowest byte: most significant digit) spell."""
    pairs = digits * 10 + (digits >> 8)
    return (
        ((pairs & 0x000000FF000000FF) * 0x000F424000000064) + (((pairs >> 16) & 0x000000FF000000FF) * 0x0000271000000001)
    ) >> 32


@kernel
def leading_digits(p: int) -> int:
    """How many digits stand at `p`, 8 if there are more. Eight bytes can be read there."""
    return lowest_bit(_non_digits(word_at(p) ^ ZEROS)) >> 3


@kernel
def scan_integer(p: int, end: int) -> tuple[int, int]:
    """(value, place past it) of an unsigned integer of at most 18 digits, no zero before others; (0, -1) for anything else."""
    value = 0
    count = 0
    if p + 1 < end and byte_at(p) == 48 and 48 <= byte_at(p + 1) <= 57:
        return 0, -1
    while p + 8 <= end:
        digits = word_at(p) ^ ZEROS
        other = _non_digits(digits)
        if other == 0:
            if count > 8:
                return 0, -1
            value = value * 100_000_000 + eight_digits(digits)
            count += 8
            p += 8
            continue
        k = lowest_bit(other) >> 3
        count += k
        if count == 0 or count > MAX_DECIMALS:
            return 0, -1
        if k > 0:
            value = value * POW10[k] + eight_digits(digits << (64 - 8 * k))
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
    digits = word_at(p) ^ ZEROS
    other = _non_digits(digits)
    if other == 0:
        return _scan_decimal_bytewise(p, end, decimals)
    bits = lowest_bit(other) & 56  # 8 * number of digits before the point
    if bits == 0:
        return 0, -1
    units = eight_digits(digits << (64 - bits)) * POW10[decimals]
    q = p + (bits >> 3)
    if byte_at(q) != DOT:
        return units, q
    digits = word_at(q + 1) ^ ZEROS
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
        return units + eight_digits(digits), q
    if (digits >> (8 * decimals)) != 0:
        return 0, -1
    if decimals > 0:
        units += eight_digits(digits << (64 - 8 * decimals))
    return units, q
