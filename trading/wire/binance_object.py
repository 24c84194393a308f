"""Walking the members of a Binance frame: keys in any order, the envelope's inner object, levels straight into rows.

Each member that is ours leaves its mark in `seen` and its value (integer, place of a string, levels) in the frame's fields;
`trading.wire.binance_frames` judges afterwards what they make together. Places are kept as offsets from the frame's start: an
address in the state would differ from run to run.
"""

from __future__ import annotations

from typing import Any, Final

from trading.instruments import NAME_BYTES
from trading.jit import Recs, kernel
from trading.records import Flag
from trading.wire.binance_layout import (
    I_AGG_ID,
    I_EVENT_TIME,
    I_FIRST_ID,
    I_LAST_ID,
    I_PREV_ID,
    I_SNAPSHOT_ID,
    I_TIME,
    I_TRADE_ID,
    K_ASK,
    K_ASK_QTY,
    K_ASKS,
    K_BID,
    K_BID_QTY,
    K_BIDS,
    K_DATA,
    K_EVENT_TIME,
    K_FIRST_ID,
    K_KIND,
    K_LAST_ID,
    K_LAST_UPDATE,
    K_MAKER,
    K_ORIGIN,
    K_PREV,
    K_PRICE,
    K_QTY,
    K_RATE,
    K_STREAM,
    K_SYMBOL,
    K_TIME,
    K_TRADE_ID,
    LONG_KEY,
    SEEN_BOOK_SIDE,
    SEEN_DIFF_SIDE,
    SEEN_MAKER,
    T_ASK,
    T_ASK_QTY,
    T_BID,
    T_BID_QTY,
    T_KIND,
    T_ORIGIN,
    T_PRICE,
    T_QTY,
    T_RATE,
    T_STREAM,
    T_SYMBOL,
    TEXT_BIT,
    V_FALSE,
    V_TRUE,
    Frame,
)
from trading.wire.level_scan import scan_levels
from trading.wire.scan import (
    BACKSLASH,
    CLOSE_BRACE,
    COLON,
    COMMA,
    OPEN_BRACE,
    OPEN_BRACKET,
    QUOTE,
    byte_at,
    pack,
    scan_integer,
    skip_space,
    skip_string,
    skip_value,
)

_ASK_FLAG: Final = int(Flag.ASK)
_AT: Final = ord("@")


@kernel
def _scan_key(p: int, end: int) -> tuple[int, int]:
    """(packed key, place past its closing quote); keys that cannot be ours come as 0. `p` is past the opening quote."""
    if p + 1 < end and byte_at(p + 1) == QUOTE and 48 <= byte_at(p) <= 122 and byte_at(p) != BACKSLASH:
        return byte_at(p), p + 2
    q = skip_string(p, end)
    if q < 0:
        return 0, -1
    n = q - 1 - p
    if n <= 8:
        return pack(p, n, end), q
    if n == 12 and pack(p, 8, end) == K_LAST_UPDATE[0] and pack(p + 8, 4, end) == K_LAST_UPDATE[1]:
        return LONG_KEY, q
    return 0, q


@kernel
def _integer_slot(key: int) -> int:
    if key == K_EVENT_TIME:
        return I_EVENT_TIME
    if key == K_TIME:
        return I_TIME
    if key == K_FIRST_ID:
        return I_FIRST_ID
    if key == K_LAST_ID:
        return I_LAST_ID
    if key == K_PREV:
        return I_PREV_ID
    if key == K_TRADE_ID:
        return I_TRADE_ID
    if key == LONG_KEY:
        return I_SNAPSHOT_ID
    if key == K_ASK:
        return I_AGG_ID
    return -1


@kernel
def _text_slot(key: int) -> int:
    if key == K_KIND:
        return T_KIND
    if key == K_SYMBOL:
        return T_SYMBOL
    if key == K_PRICE:
        return T_PRICE
    if key == K_QTY:
        return T_QTY
    if key == K_BID:
        return T_BID
    if key == K_BID_QTY:
        return T_BID_QTY
    if key == K_ASK:
        return T_ASK
    if key == K_ASK_QTY:
        return T_ASK_QTY
    if key == K_RATE:
        return T_RATE
    if key == K_ORIGIN:
        return T_ORIGIN
    return -1


@kernel
def _mark(frame: Frame, bit: int) -> None:
    """Note that a field has come; a second time is a fault (which of the two would be true?)."""
    if frame.seen & bit != 0:
        frame.faults += 1
    frame.seen |= bit


@kernel
def _note_key(frame: Frame, key: int) -> None:
    """Note that a key has come; a second time is a fault, also with a value of a type that nobody wants."""
    if 65 <= key <= 122:
        bit = 1 << (key - 65)
    elif key == K_PREV:
        bit = 1 << 58
    elif key == LONG_KEY:
        bit = 1 << 59
    elif key == K_BIDS:
        bit = 1 << 60
    elif key == K_ASKS:
        bit = 1 << 61
    else:
        return
    if frame.keys & bit != 0:
        frame.faults += 1
    frame.keys |= bit


@kernel
def _same_name(at: int, n: int, instrument: Any) -> bool:
    """Whether `n` bytes at address `at` spell the instrument's name, in either case."""
    if n != instrument.name_len:
        return False
    for i in range(n):
        c = byte_at(at + i)
        if 97 <= c <= 122:
            c -= 32
        if c != instrument.name[i]:
            return False
    return True


@kernel
def find_symbol(at: int, n: int, hint: int, instruments: Recs) -> int:
    """Index of the instrument whose name stands at `byte_at(at:at + n)`, -1 if there is none.

    Spot and futures may share a name: the hinted symbol wins, then one of the hinted symbol's market, then the first.
    """
    if n < 1 or n > NAME_BYTES:
        return -1
    count = instruments.shape[0]
    hinted = 0 <= hint < count
    if hinted and _same_name(at, n, instruments[hint]):
        return hint
    first = -1
    for i in range(count):
        if _same_name(at, n, instruments[i]):
            if not hinted or instruments[i].market == instruments[hint].market:
                return i
            if first < 0:
                first = i
    return first


@kernel
def named_symbol(base: int, frame: Frame, hint: int, instruments: Recs) -> int:
    """The symbol that the frame has named so far ("s" before the stream's name); the hint if bare and it has named none."""
    if frame.seen & (1 << (TEXT_BIT + T_SYMBOL)) != 0:
        return find_symbol(base + frame.texts[T_SYMBOL], frame.text_lens[T_SYMBOL], hint, instruments)
    if frame.seen & (1 << (TEXT_BIT + T_STREAM)) != 0:
        at = base + frame.texts[T_STREAM]
        n = 0
        while n < frame.text_lens[T_STREAM] and byte_at(at + n) != _AT:
            n += 1
        return find_symbol(at, n, hint, instruments)
    return -1


@kernel
def _levels_value(
    base: int, p: int, end: int, side: int, snapshot: bool, hint: int, instruments: Recs, frame: Frame, rows: Recs
) -> int:
    """A side's levels: into the rows if the symbol is known by now, else noted for later. The place past them or -1."""
    _mark(frame, (SEEN_BOOK_SIDE if snapshot else SEEN_DIFF_SIDE) << side)
    symbol = hint if snapshot and frame.enveloped == 0 else named_symbol(base, frame, hint, instruments)
    if 0 <= symbol < instruments.shape[0]:
        if frame.levels_symbol >= 0 and frame.levels_symbol != symbol:
            frame.faults += 1
        frame.levels_symbol = symbol
        q = scan_levels(p, end, instruments[symbol], side * _ASK_FLAG, frame, rows)
        if q > 0:
            return q
        frame.faults += 1  # go on by structure alone: what follows may still say whose book this would have been
    else:
        frame.late_sides[side] = p - base
    return skip_value(p, end)


@kernel
def _text(base: int, p: int, end: int, slot: int, frame: Frame) -> int:
    """Note where the string whose quote is at `p` stands; the place past it or -1. Slot -1: nobody wants it."""
    q = skip_string(p + 1, end)
    if q > 0 and slot >= 0:
        _mark(frame, 1 << (TEXT_BIT + slot))
        frame.texts[slot] = p + 1 - base
        frame.text_lens[slot] = q - p - 2
    return q


@kernel
def _scalar(base: int, p: int, end: int, key: int, frame: Frame) -> int:
    """Take the value at `p` of a key; the place past it or -1. A value of another type than ours is stepped over."""
    c = byte_at(p)
    if c == QUOTE:
        return _text(base, p, end, _text_slot(key), frame)
    if 48 <= c <= 57:
        slot = _integer_slot(key)
        if slot >= 0:
            value, p = scan_integer(p, end)
            _mark(frame, 1 << slot)
            frame.integers[slot] = value
            return p
    elif key == K_MAKER:
        true = p + 4 < end and pack(p, 4, end) == V_TRUE
        if true or (p + 5 < end and pack(p, 4, end) == V_FALSE[0] and byte_at(p + 4) == V_FALSE[1]):
            _mark(frame, SEEN_MAKER)
            frame.maker_is_buyer = 1 if true else 0
            return p + (4 if true else 5)
    return skip_value(p, end)


@kernel
def _levels_side(key: int) -> int:
    """0 bids, 1 asks of a diff; 2 bids, 3 asks of a snapshot; -1 for other keys."""
    if key == K_BID:
        return 0
    if key == K_ASK:
        return 1
    if key == K_BIDS:
        return 2
    if key == K_ASKS:
        return 3
    return -1


@kernel
def scan_object(base: int, p: int, end: int, hint: int, instruments: Recs, frame: Frame, rows: Recs) -> int:
    """Walk the members of the object whose brace is at `p`, the envelope's inner object included; the place past it or -1."""
    inner = False
    first = True
    p += 1
    while True:
        p = skip_space(p, end)
        if p >= end:
            return -1
        if byte_at(p) == CLOSE_BRACE:
            p += 1
            if not inner:
                return p
            inner = False
            first = False
            continue
        if not first:
            if byte_at(p) != COMMA:
                return -1
            p = skip_space(p + 1, end)
        if p >= end or byte_at(p) != QUOTE:
            return -1
        first = False
        key, p = _scan_key(p + 1, end)
        if p < 0:
            return -1
        p = skip_space(p, end)
        if p >= end or byte_at(p) != COLON:
            return -1
        p = skip_space(p + 1, end)
        if p >= end:
            return -1
        if not inner:
            if key == K_STREAM and byte_at(p) == QUOTE:
                p = _text(base, p, end, T_STREAM, frame)
                if p < 0:
                    return -1
                continue
            if key == K_DATA and byte_at(p) == OPEN_BRACE and frame.enveloped == 0:
                if frame.seen & ~(1 << (TEXT_BIT + T_STREAM)) != 0:
                    return -1  # fields both outside and inside an envelope: neither can be trusted
                frame.enveloped = 1
                inner = True
                first = True
                p += 1
                continue
            if frame.enveloped != 0:
                if key == K_DATA:
                    frame.faults += 1  # two envelopes: which would be true?
                key = 0  # beside the envelope nothing is ours
        _note_key(frame, key)
        side = _levels_side(key) if byte_at(p) == OPEN_BRACKET else -1
        if side >= 0:
            p = _levels_value(base, p, end, side & 1, side >= 2, hint, instruments, frame, rows)
        else:
            p = _scalar(base, p, end, key, frame)
        if p < 0:
            return -1
