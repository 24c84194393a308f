"""Kernels that look at recorded text: where frames begin and end, and what the printed numbers reveal.

They do not decode frames (that is the feed's work) and build no book: one pass finds the receive stamps, a second
one the symbol, the market's signature, the common tick of the prices and the decimals of the quantities.

The tick is the book's: prices of levels and of best bid/offer messages. Prints are kept apart, and neither mark, index nor
settlement prices nor prints that are no trades (a futures' `X` other than MARKET) count for anything. Blanks may stand between
JSON's words, line breaks too: a frame goes on over lines until it closes, unless one begins as only a new frame does.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.instruments import NAME_BYTES
from trading.jit import Bytes, Words, kernel
from trading.records import TS_END
from trading.stamps import OLDEST_NS

# what `split_lines` leaves in its `result`
CONSUMED: Final = 0
LINES: Final = 1  # lines passed in this call, blank ones too
PROBLEM: Final = 2
EVENTS: Final = 3  # lines in which the recorder speaks, passed over: {"scalper":...}
LOST: Final = 4  # of these, those that declare frames lost
HEAD: Final = 5  # place of the last {"scalper":"file"...}, and ...
HEAD_END: Final = 6  # ... past it; 0: none came
IN_UNIT: Final = 7  # stamps in UNITS[k]
UNITS: Final = ("ns", "us", "ms", "s")
RESULT_WORDS: Final = IN_UNIT + len(UNITS)

OK: Final = 0
NOT_NUMERIC: Final = 1
NO_FRAME: Final = 2
NOT_OBJECT: Final = 3
STAMP_RANGE: Final = 4

# what `survey` counts
PRICES: Final = 0  # the book's prices: their greatest common divisor, the decimals that it is counted in, how many they are
PRINTS: Final = 3  # the same of prints
N_QTY: Final = 6
PRINTED_DECIMALS: Final = 7  # most decimals that a quantity is printed with
N_DEPTH: Final = 8
N_BBO: Final = 9
N_TRADE: Final = 10
N_SNAPSHOT: Final = 11
N_SPOT: Final = 12  # frames only Binance spot sends
N_USDM: Final = 13  # frames only Binance's futures send
N_PAIR: Final = 14  # frames that name a pair (`ps`), as only Binance COIN-M's do
N_ASIDE: Final = 15  # prints that are no trades
NAME_LEN: Final = 16
NAME: Final = 17  # ASCII codes, a word each
QTY_DECIMALS: Final = NAME + NAME_BYTES  # [k]: quantities that need k decimals
MAX_DECIMALS: Final = 10
LARGEST_QTY: Final = QTY_DECIMALS + MAX_DECIMALS + 1  # greatest quantity in whole coins, rounded up
TALLY_WORDS: Final = LARGEST_QTY + 1
DIVISOR, DECIMALS, COUNT = range(3)  # of PRICES and PRINTS

_MOST_UNITS: Final = 10**18
_QUOTE: Final = ord('"')
_COMMA, _COLON, _BACKSLASH = ord(","), ord(":"), ord("\\")
_OPENS, _CLOSES = ord("["), ord("]")
_OPEN_BRACE, _CLOSE_BRACE = ord("{"), ord("}")
_BLANK: Final = 32  # whatever is not above it is a blank, a tab or a line break between words
_NEWLINE: Final = 10
_DEPTH: Final = tuple(b'depthUpdate"')
_TRADE: Final = tuple(b'trade"')
_AGG_TRADE: Final = tuple(b'aggTrade"')
_BBO: Final = tuple(b'bookTicker"')
_MARKET: Final = tuple(b'MARKET"')
_LAST_UPDATE: Final = tuple(b'lastUpdateId"')
_SYMBOLS: Final = tuple(b'symbols"')
_SYMBOL: Final = tuple(b'symbol"')
_OWN: Final = tuple(b'{"scalper":"')
_LOST: Final = tuple(b'lost"')
_FILE: Final = tuple(b'file"')
_DOT: Final = ord(".")
_ZERO: Final = ord("0")


@kernel
def _begins(text: Bytes, at: int, end: int, word: tuple[int, ...]) -> bool:
    if end - at < len(word):
        return False
    for i in range(len(word)):
        if text[at + i] != word[i]:
            return False
    return True


@kernel
def _stamp(text: Bytes, at: int, end: int, found: Words) -> int:
    """Read the Unix time at text[at], whole or with a fraction, into found[0] (ns) and found[1] (which of UNITS); the place
    past it. -1: no number; found[0] is 0 for one that is no time in any unit. What is finer than a nanosecond is cut off."""
    value = 0
    k = at
    while k < end and 48 <= text[k] <= 57 and k - at < 19:
        value = value * 10 + (text[k] - 48)
        k += 1
    if k == at:
        return -1
    scale = 1
    unit = 0
    if value < 0 or value >= TS_END:
        unit = 4  # beyond int64, or beyond all times
    while unit < 4 and value * scale < OLDEST_NS:
        scale *= 1000
        unit = 4 if value > (TS_END - 1) // scale else unit + 1
    found[0] = value * scale if unit < 4 else 0
    found[1] = unit
    if k < end and text[k] == _DOT:
        k += 1
        begin = k
        while k < end and 48 <= text[k] <= 57:
            scale //= 10
            found[0] += (text[k] - 48) * scale if unit < 4 else 0
            k += 1
        if k == begin:
            return -1
    return k


@kernel
def _frame_place(text: Bytes, at: int, end: int) -> int:
    """Where the frame of a line begins whose stamp ends at `at`; -1 if no blank stands there, `end` if no frame."""
    k = at
    while k < end and (text[k] == 32 or text[k] == 9):
        k += 1
    return -1 if k == at and k < end else k


@kernel
def _begins_a_frame(text: Bytes, at: int, end: int, found: Words) -> bool:
    """Whether the line at `at` is `<time> {`, which no frame holds: in JSON no number is followed by a brace."""
    k = _stamp(text, at, end, found)
    if k < 0:
        return False
    k = _frame_place(text, k, end)
    return k >= 0 and k < end and text[k] == _OPEN_BRACE


@kernel
def _string_end(text: Bytes, at: int, end: int) -> int:
    """Place of the quote that closes the string whose first byte is at `at`; `end` if it does not close."""
    k = at
    while k < end and text[k] != _QUOTE:
        k += 2 if text[k] == _BACKSLASH else 1
    return min(k, end)


@kernel
def _closing(text: Bytes, at: int, end: int) -> int:
    """Past the brace that closes the object at text[at]; -1 if none does before `end`."""
    depth = 0
    k = at
    while k < end:
        c = text[k]
        if c == _QUOTE:
            k = _string_end(text, k + 1, end)
        elif c == _OPEN_BRACE or c == _OPENS:
            depth += 1
        elif c == _CLOSE_BRACE or c == _CLOSES:
            depth -= 1
            if depth == 0:
                return k + 1
        k += 1
    return -1


@kernel
def _after_blanks(text: Bytes, at: int, end: int) -> int:
    while at < end and text[at] <= _BLANK:
        at += 1
    return at


@kernel
def _several_lines(text: Bytes, begin: int, end: int, found: Words) -> int:
    """Past the frame at `begin` that goes on over lines; 0: more text is wanted, -1: a new frame begins before it closes."""
    stop = _closing(text, begin, end)
    k = begin
    while k < (stop if stop > 0 else end):
        if text[k] == _NEWLINE and _begins_a_frame(text, k + 1, end, found):
            return -1
        k += 1
    return max(stop, 0)


@kernel
def split_lines(
    text: Bytes, begin: int, end: int, final: int, recv: Words, start: Words, length: Words, result: Words
) -> int:
    """Find the complete frames `<time> {json}` in text[begin:end]; returns how many.

    Row k of `recv`, `start` and `length` gets the stamp in ns, the frame's first byte and its length. `result` says up to
    which byte lines were consumed, how many they were, and the problem that stopped the walk (OK: text or rows ran out).
    `final`: 1 where no text follows.
    """
    count = 0
    at = begin
    found = np.zeros(2, np.int64)
    result[:] = 0
    while at < end and count < recv.size:
        stop = at
        while stop < end and text[stop] != _NEWLINE:
            stop += 1
        if stop == end:
            break
        last = stop
        while last > at and (text[last - 1] == 13 or text[last - 1] == 32):
            last -= 1
        if last > at:
            k = _stamp(text, at, last, found)
            place = _frame_place(text, k, last) if k >= 0 else -1
            if k < 0 or place < 0:
                result[PROBLEM] = NOT_NUMERIC
                break
            if place >= last:
                result[PROBLEM] = NO_FRAME
                break
            recv[count] = found[0]
            unit = found[1]
            if found[0] == 0:
                result[PROBLEM] = STAMP_RANGE
                break
            if text[place] != _OPEN_BRACE:
                result[PROBLEM] = NOT_OBJECT
                break
            following = _after_blanks(text, stop, end)
            goes_on = text[last - 1] != _CLOSE_BRACE
            if following < end:  # behind a brace that closes no frame only these can follow
                c = text[following]
                goes_on = goes_on or c == _COMMA or c == _CLOSE_BRACE or c == _CLOSES
            elif final == 0:
                goes_on = goes_on or _closing(text, place, last) != last
            if goes_on:
                last = _several_lines(text, place, end, found)
                if last == 0:
                    break
                stop = last
                while stop >= 0 and stop < end and text[stop] != _NEWLINE:
                    stop = stop + 1 if text[stop] <= _BLANK else -1
                if last < 0 or stop < 0:
                    result[PROBLEM] = NOT_OBJECT
                    break
                if stop == end:
                    break
            result[IN_UNIT + unit] += 1
            if _begins(text, place, last, _OWN):
                result[EVENTS] += 1
                result[LOST] += _begins(text, place + len(_OWN), last, _LOST)
                if _begins(text, place + len(_OWN), last, _FILE):
                    result[HEAD] = place
                    result[HEAD_END] = last
            else:
                start[count] = place
                length[count] = last - place
                count += 1
        for k in range(at, stop + 1):
            result[LINES] += text[k] == _NEWLINE
        at = stop + 1
    result[CONSUMED] = at
    return count


@kernel
def _gcd(a: int, b: int) -> int:
    while b != 0:
        a, b = b, a % b
    return a


@kernel
def _price(text: Bytes, at: int, end: int, tally: Words, which: int) -> bool:
    """Take the decimal number at text[at] into the divisor of `which` (PRICES or PRINTS); anything else is passed over."""
    value = needed = zeros = 0
    behind = False
    k = at
    while k < end and text[k] != _QUOTE:
        c = text[k]
        if c == _DOT and not behind and k > at:
            behind = True
        elif c == _ZERO and behind:
            zeros += 1  # counted when a digit follows for which they matter
        elif 48 <= c <= 57:
            for _ in range(zeros + 1):
                if value >= _MOST_UNITS // 10:
                    return False
                value *= 10
            value += c - 48
            needed += zeros + 1 if behind else 0
            zeros = 0
        else:
            return False
        k += 1
    if value == 0:
        return k > at
    divisor, decimals = tally[which + DIVISOR], tally[which + DECIMALS]
    while needed < decimals and value < _MOST_UNITS:
        value *= 10
        needed += 1
    while decimals < needed and divisor < _MOST_UNITS:
        divisor *= 10
        decimals += 1
    if needed != decimals:
        return False  # no instrument has so dear and so fine prices
    if divisor == 0 or value % divisor != 0:
        divisor = _gcd(value, divisor)
    tally[which + DIVISOR], tally[which + DECIMALS] = divisor, decimals
    tally[which + COUNT] += 1
    return True


@kernel
def _quantity(text: Bytes, at: int, end: int, tally: Words) -> None:
    """Count the decimals that the quantity at text[at] is printed with, and those that it needs; note the greatest."""
    decimals = -1
    needed = 0
    whole = 0
    k = at
    while k < end and text[k] != _QUOTE:
        if text[k] == _DOT and decimals < 0:
            decimals = 0
        elif text[k] >= 48 and text[k] <= 57 and decimals < MAX_DECIMALS:
            if decimals >= 0:
                decimals += 1
                if text[k] != _ZERO:
                    needed = decimals
            else:
                whole = min(whole * 10 + (text[k] - 48), 10**17)
        else:
            return
        k += 1
    if k == at:
        return
    tally[N_QTY] += 1
    tally[QTY_DECIMALS + needed] += 1
    tally[PRINTED_DECIMALS] = max(tally[PRINTED_DECIMALS], decimals)
    tally[LARGEST_QTY] = max(tally[LARGEST_QTY], whole + (1 if needed > 0 else 0))


@kernel
def _symbol_agrees(text: Bytes, at: int, end: int, tally: Words) -> bool:
    """Compare the name at text[at] with the one in `tally`, or note it there when it is the first.

    What cannot be a name (a sign in it) is a damaged frame, which the fold judges; it names nobody.
    """
    stop = at
    while stop < end and text[stop] != _QUOTE:
        if text[stop] >= 33 and text[stop] <= 47:
            return True
        stop += 1
    size = stop - at
    if size == 0 or size > NAME_BYTES:
        return False
    if tally[NAME_LEN] == 0:
        tally[NAME_LEN] = size
        for j in range(size):
            tally[NAME + j] = text[at + j]
    if tally[NAME_LEN] != size:
        return False
    for j in range(size):
        if tally[NAME + j] != text[at + j]:
            return False
    return True


@kernel
def survey(text: Bytes, start: Words, length: Words, n: int, tally: Words, rules: Words) -> int:
    """Add frames 0..n-1 to `tally`; returns the first frame of another symbol than the first one's, else -1.

    rules[i] becomes 1 where frame i is a venue's list of instruments: it is of no symbol, and adds nothing.
    """
    for i in range(n):
        end = start[i] + length[i]
        # where the values of a frame's keys begin, behind their quotes; 0: there is no such text
        event = price = qty = bid = bid_qty = ask = ask_qty = kind = symbol = 0
        named = previous = pair = snapshot = in_level = False
        before = 0  # the last byte that was neither blank nor in a string
        rules[i] = 0
        k = start[i]
        while k < end:
            c = text[k]
            if c != _QUOTE:
                if c > _BLANK:
                    before = c
                    in_level = in_level and c != _OPENS
                k += 1
                continue
            at = k + 1
            stop = _string_end(text, at, end)
            k = _after_blanks(text, stop + 1, end)
            if k >= end or text[k] != _COLON:
                if before == _OPENS:  # ["price","qty"]
                    in_level = _price(text, at, end, tally, PRICES)
                elif in_level:
                    _quantity(text, at, end, tally)
                    in_level = False
                before = _QUOTE
                continue
            k = _after_blanks(text, k + 1, end)
            before = _COLON
            if k >= end or text[k] != _QUOTE:
                if _begins(text, at, end, _LAST_UPDATE):
                    snapshot = True
                elif stop == at + 2 and text[at] == 112 and text[at + 1] == 117:  # "pu"
                    previous = True
                elif k < end and text[k] == _OPENS and _begins(text, at, end, _SYMBOLS):
                    rules[i] = 1
                    break
                continue
            value = k + 1
            if stop == at + 1:
                c = text[at]
                if c == 98:  # b
                    bid = value
                elif c == 66:  # B
                    bid_qty = value
                elif c == 97:  # a
                    ask = value
                elif c == 65:  # A
                    ask_qty = value
                elif c == 112:  # p
                    price = value
                elif c == 113:  # q
                    qty = value
                elif c == 88:  # X
                    kind = value
                elif c == 101:  # e
                    event = value
                elif c == 115:  # s
                    named = True
                    if not _symbol_agrees(text, value, end, tally):
                        return i
            elif stop == at + 2 and text[at] == 112 and text[at + 1] == 115:  # "ps"
                pair = True
            elif _begins(text, at, end, _SYMBOL):
                symbol = value
            before = _QUOTE
            k = _string_end(text, value, end) + 1
        if rules[i] == 1:
            continue
        if snapshot and symbol > 0 and not named and not _symbol_agrees(text, symbol, end, tally):
            return i
        depth = event > 0 and _begins(text, event, end, _DEPTH)
        trade = event > 0 and (_begins(text, event, end, _TRADE) or _begins(text, event, end, _AGG_TRADE))
        bbo = bid > 0 and (event == 0 or _begins(text, event, end, _BBO))
        if bbo:
            _price(text, bid, end, tally, PRICES)
            _price(text, ask if ask > 0 else end, end, tally, PRICES)
            _quantity(text, bid_qty if bid_qty > 0 else end, end, tally)
            _quantity(text, ask_qty if ask_qty > 0 else end, end, tally)
        elif trade and kind > 0 and not _begins(text, kind, end, _MARKET):
            tally[N_ASIDE] += 1
        elif trade:
            _price(text, price if price > 0 else end, end, tally, PRINTS)
            _quantity(text, qty if qty > 0 else end, end, tally)
        tally[N_DEPTH] += depth
        tally[N_BBO] += bbo
        tally[N_TRADE] += trade
        tally[N_SNAPSHOT] += snapshot
        tally[N_SPOT] += (depth and not previous) or (bbo and event == 0)
        tally[N_USDM] += (depth and previous) or (bbo and event > 0)
        tally[N_PAIR] += pair
    return -1
