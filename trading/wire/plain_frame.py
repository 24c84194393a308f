"""The plain frame: a venue's message already in integers, as the feed fold takes it beside raw Binance frames.

Venues without a compiled scanner are decoded by typed Python decoders (trading.venues); what they find crosses to the compiled
side in this one form: int64 words, little-endian, 8-byte aligned, in the same arena or spool where raw frames lie.

    0 MAGIC | 1 kind (FrameKind) | 2 symbol | 3 ts_exchange_ns | 4 first_id | 5 last_id | 6 prev_id | 7 flags | 8 checksum
    9 n_levels | 10 price_ticks * 2 + side, lots | ...

No JSON text begins like MAGIC, so a reader needs no other mark. Levels: price_ticks * 2 + side (0 bid, 1 ask) and absolute
lots (0 removes). Kinds:

- DEPTH: `prev_id` is the `last_id` of the message before (UNCHECKED: the venue sends none).
- SNAPSHOT: at most MAX_SNAPSHOT_LEVELS a side. IN_BAND: `first_id` is how many levels a side the stream covers (Kraken's
  depth; levels that fall out behind it are dropped), 0: the venue says itself when a level goes.
- TRADE, AGG_TRADE: one level, its side is the *maker's* (bid: the seller was the aggressor); `last_id` is the trade's id, which
  grows by the symbol; 0: the venue sends none that does.
- BBO: the bid then the ask; an empty side is price 0, lots 0. `last_id` is of the same numbering as the depth's, else 0.
  SUMMARY: it may come late, and owes nothing.
- MARK: one level: mark price in 1e-8, times 2; funding rate in 1e-8, signed. `last_id`: the next funding time in Unix ns or 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.jit import Words
from trading.wire.binance_layout import FrameKind

MAGIC: Final = int.from_bytes(b"\x00PLAINF\x00", "little")
W_MAGIC, W_KIND, W_SYMBOL, W_TS, W_FIRST, W_LAST, W_PREV, W_FLAGS, W_CHECKSUM, W_LEVELS = range(10)
HEAD: Final = 10
"""Words before the first level."""

IN_BAND: Final = 1
"""SNAPSHOT: sent within the stream, whole and current at once; it needs no diff to connect to."""
HAS_CHECKSUM: Final = 2
"""`checksum` is the venue's CRC32 of its book after this message."""

SUMMARY: Final = 4
"""BBO: of a channel that sums up now and then. Its silence means nothing, and it may be older than the book."""

UNCHECKED: Final = -1
"""`prev_id` of a diff whose venue sends no sequence: the checksum, or the connection, is all there is."""


def plain_frame(
    kind: FrameKind,
    symbol: int,
    ts_exchange_ns: int,
    levels: Words,
    *,
    first_id: int = 0,
    last_id: int = 0,
    prev_id: int = UNCHECKED,
    flags: int = 0,
    checksum: int = 0,
) -> bytes:
    """The words as bytes. levels: int64, shape (n, 2): price_ticks * 2 + side, lots."""
    n = len(levels)
    words = np.empty(HEAD + 2 * n, np.int64)
    words[:HEAD] = MAGIC, kind, symbol, ts_exchange_ns, first_id, last_id, prev_id, flags, checksum, n
    words[HEAD:] = levels.reshape(-1)
    return words.tobytes()


def read_plain_frame(raw: bytes) -> tuple[Words, Words]:
    """(head, levels): int64 of shape (HEAD,) and (n, 2). ValueError for bytes that are no plain frame."""
    words = np.frombuffer(raw, np.int64) if len(raw) % 8 == 0 else np.zeros(0, np.int64)
    if words.size < HEAD or words[W_MAGIC] != MAGIC or words.size != HEAD + 2 * int(words[W_LEVELS]):
        raise ValueError(f"{len(raw)} bytes that are no plain frame")
    return words[:HEAD], words[HEAD:].reshape(-1, 2)
