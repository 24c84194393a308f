"""Kernels that look at recorded text: where lines and frames begin, and what the printed numbers reveal.

They do not decode frames (that is the feed's work) and build no book: one pass finds the receive stamps, a second
one the symbol, the market's signature, the common tick of all prices and the decimals of all quantities.
"""

from __future__ import annotations

from typing import Final

from trading.instruments import NAME_BYTES
from trading.jit import Bytes, Words, kernel
from trading.records import TS_END

# what `split_lines` leaves in its `result`
CONSUMED: Final = 0
LINES: Final = 1  # lines passed in this call, blank ones too
PROBLEM: Final = 2
EVENTS: Final = 3  # lines in which the recorder speaks, passed over: {"scalper":...}
LOST: Final = 4  # of these, those that declare frames lost
RESULT_WORDS: Final = 5

OK: Final = 0
NOT_NUMERIC: Final = 1
NO_FRAME: Final = 2
NOT_OBJECT: Final = 3
STAMP_RANGE: Final = 4

OLDEST_NS: Final = 10**18  # September 2001: whatever is less was not Unix time in ns

# what `survey` counts
PRICE_GCD: Final = 0  # of all prices in units of 10**-PRICE_SCALE
N_QTY: Final = 1
PRINTED_DECIMALS: Final = 2  # most decimals that a quantity is printed with
N_DEPTH: Final = 3
N_BBO: Final = 4
N_TRADE: Final = 5
N_SNAPSHOT: Final = 6
N_SPOT: Final = 7  # frames only Binance spot sends
N_USDM: Final = 8  # frames only Binance's futures send, of both kinds
N_COINM: Final = 9  # of these, those of COIN-M
NAME_LEN: Final = 10
NAME: Final = 11  # ASCII codes, a word each
QTY_DECIMALS: Final = NAME + NAME_BYTES  # [k]: quantities that need k decimals
MAX_DECIMALS: Final = 10
LARGEST_QTY: Final = QTY_DECIMALS + MAX_DECIMALS + 1  # greatest quantity in whole coins, rounded up
TALLY_WORDS: Final = LARGEST_QTY + 1

PRICE_SCALE: Final = 9  # so that 2e9 (BTC in IDR) fits with all of them

_QUOTE: Final = ord('"')
_OWN: Final = tuple(b'{"scalper":"')
_LOST: Final = tuple(b'lost"')
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
def split_lines(text: Bytes, begin: int, end: int, recv: Words, start: Words, length: Words, result: Words) -> int:
    """Find the complete lines `<recv_ns> {json}` in text[begin:end]; returns how many frames.

    Row k of `recv`, `start` and `length` gets the stamp, the frame's first byte and its length. `result` says up to
    which byte lines were consumed, how many they were, and the problem that stopped the walk (OK: text or rows ran out).
    """
    count = 0
    at = begin
    result[LINES] = 0
    result[PROBLEM] = OK
    result[EVENTS] = 0
    result[LOST] = 0
    while at < end and count < recv.size:
        stop = at
        while stop < end and text[stop] != 10:
            stop += 1
        if stop == end:
            break
        last = stop
        while last > at and (text[last - 1] == 13 or text[last - 1] == 32):
            last -= 1
        if last > at:
            stamp = 0
            digits = 0
            k = at
            while k < last and text[k] >= 48 and text[k] <= 57 and digits < 19:
                stamp = stamp * 10 + (text[k] - 48)
                digits += 1
                k += 1
            if digits == 0 or (k < last and text[k] != 32):
                result[PROBLEM] = NOT_NUMERIC
                break
            if k + 1 >= last:
                result[PROBLEM] = NO_FRAME
                break
            if stamp < OLDEST_NS or stamp >= TS_END:
                result[PROBLEM] = STAMP_RANGE
                break
            if text[k + 1] != 123 or text[last - 1] != 125:
                result[PROBLEM] = NOT_OBJECT
                break
            if _begins(text, k + 1, last, _OWN):
                result[EVENTS] += 1
                result[LOST] += _begins(text, k + 1 + len(_OWN), last, _LOST)
            else:
                recv[count] = stamp
                start[count] = k + 1
                length[count] = last - k - 1
                count += 1
        result[LINES] += 1
        at = stop + 1
    result[CONSUMED] = at
    return count


@kernel
def _gcd(a: int, b: int) -> int:
    while b != 0:
        a, b = b, a % b
    return a


@kernel
def _price(text: Bytes, at: int, end: int, tally: Words) -> None:
    """Take the decimal number at text[at] into the common tick; anything else is passed over."""
    value = 0
    decimals = -1
    k = at
    while k < end and text[k] != _QUOTE:
        if text[k] == _DOT and decimals < 0:
            decimals = 0
        elif text[k] == _ZERO and decimals >= PRICE_SCALE:
            pass
        elif text[k] >= 48 and text[k] <= 57 and k - at < 20 and decimals < PRICE_SCALE and value < 10**17:
            value = value * 10 + (text[k] - 48)
            if decimals >= 0:
                decimals += 1
        else:
            return
        k += 1
    for _ in range(PRICE_SCALE - max(decimals, 0)):
        if value > 9 * 10**17:
            return
        value *= 10
    if value > 0 and (tally[PRICE_GCD] == 0 or value % tally[PRICE_GCD] != 0):
        tally[PRICE_GCD] = _gcd(value, tally[PRICE_GCD])


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
def survey(text: Bytes, start: Words, length: Words, n: int, tally: Words) -> int:
    """Add frames 0..n-1 to `tally`; returns the first frame of another symbol than the first one's, else -1."""
    for i in range(n):
        begin = start[i]
        end = begin + length[i]
        depth = bbo = trade = snapshot = named = previous = pair = False
        k = begin + 1
        while k < end - 6:
            if text[k] != _QUOTE:
                k += 1
                continue
            c = text[k + 1]
            if text[k - 1] == 91:  # ["price","qty"]
                _price(text, k + 1, end, tally)
                k += 1
                while k < end and text[k] != _QUOTE:
                    k += 1
                if k + 3 < end and text[k + 1] == 44 and text[k + 2] == _QUOTE:
                    _quantity(text, k + 3, end, tally)
                    k += 3
                    while k < end and text[k] != _QUOTE:
                        k += 1
            elif text[k + 2] == _QUOTE and text[k + 3] == 58:  # "x":
                if text[k + 4] == _QUOTE:
                    if c == 98 or c == 97 or c == 112:  # b a p
                        _price(text, k + 5, end, tally)
                        bbo = bbo or c == 98
                    elif c == 66 or c == 65 or c == 113:  # B A q
                        _quantity(text, k + 5, end, tally)
                    elif c == 115:  # s
                        if not _symbol_agrees(text, k + 5, end, tally):
                            return i
                    elif c == 101:  # e
                        named = True
                        depth = depth or text[k + 5] == 100
                        trade = trade or text[k + 5] == 116 or text[k + 5] == 97
            elif c == 112 and text[k + 3] == _QUOTE and text[k + 2] == 117:  # "pu"
                previous = True
            elif c == 112 and text[k + 3] == _QUOTE and text[k + 2] == 115:  # "ps"
                pair = True
            elif c == 108 and text[k + 5] == 85:  # "lastUpdateId"
                snapshot = True
            k += 1
        bbo = bbo and not depth and not trade
        tally[N_DEPTH] += depth
        tally[N_BBO] += bbo
        tally[N_TRADE] += trade
        tally[N_SNAPSHOT] += snapshot
        tally[N_SPOT] += (depth and not previous) or (bbo and not named)
        future = (depth and previous) or (bbo and named)
        tally[N_USDM] += future
        tally[N_COINM] += future and pair
    return -1
