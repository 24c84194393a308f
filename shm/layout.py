"""The header page with which every segment begins. Layout only; what is done with it is in header.py and owner.py.

    byte 0      8      16    24           32          40           48             56
    +-------+---------+------+-------------+------------+-------------+---------------+-------+
    | magic | version | kind | layout_hash | segment_id | total_bytes | payload_bytes | epoch |   line 0
    +-------+---------+------+-------------+------------+-------------+---------------+-------+
    | creator                                                                                 |   line 1
    +-----------------------------------------------------------------------------------------+
    | owners[0]                                                                               |   line 2
    |   ...                                                                                   |
    | owners[7]                                                                               |   line 9
    +-----------------------------------------------------------------------------------------+
    | spare (zero)                                                                            |   lines 10-63
    +=========================================================================================+
    | payload                                                                                 |   from byte 4096
    +-----------------------------------------------------------------------------------------+

    creator and owners[r], one cache line each:
    +-----+-------------+---------+---------+---------------+-------+----------+-------+
    | pid | start_ticks | boot_hi | boot_lo | pid_namespace | epoch | since_ns | spare |
    +-----+-------------+---------+---------+---------------+-------+----------+-------+

Every word is a native int64. `magic` is stored last by the creator, with release order: a segment without it is
not complete. `total_bytes` counts header and payload, not the rounding up to whole pages. `epoch` rises by one with
every claim of a role; an owner keeps in its line the epoch that its claim made. pid 0 is "no owner", and is what a
claim stores first and a valid pid what it stores last, so that a claim that is killed half-way leaves a free role.
Lines 0-9 stay where they are in every version, so that each version can clean up after every other.
`pid_namespace` is there because a pid says nothing to a process that lives in another namespace.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np

MAGIC: Final = int.from_bytes(b"scalpSHM", "little")
VERSION: Final = 1

HEADER_BYTES: Final = 4096
ROLES: Final = 8
MAX_PAYLOAD_BYTES: Final = 1 << 40
MAX_EPOCH: Final = 1 << 62
MAX_PID: Final = 1 << 22  # Linux's own PID_MAX_LIMIT on 64 bits
MAX_KIND: Final = 1 << 16
MAX_SEGMENT_ID: Final = 1 << 31
CACHE_LINE: Final = 64


class SegmentKind(IntEnum):
    """What a segment is for. Other values below MAX_KIND may be used; these are only the names that tools print."""

    RING = 1
    STATE = 2  # a stage's checkpoint
    COUNTERS = 3
    HISTOGRAMS = 4
    CONTROL = 5
    ARENA = 6  # bytes that records of a ring point into


OWNER: Final = np.dtype(
    [
        ("pid", "i8"),  # 0: nobody
        ("start_ticks", "i8"),  # clock ticks from boot to the process's start: field 22 of /proc/<pid>/stat
        ("boot_hi", "i8"),  # /proc/sys/kernel/random/boot_id, upper and lower half
        ("boot_lo", "i8"),
        ("pid_namespace", "i8"),  # inode of /proc/self/ns/pid
        ("epoch", "i8"),  # the segment's epoch that this claim made; the creator's is 0
        ("since_ns", "i8"),  # Unix ns of the claim, for people
        ("spare", "i8"),
    ]
)

HEADER: Final = np.dtype(
    [
        ("magic", "i8"),
        ("version", "i8"),
        ("kind", "i8"),
        ("layout_hash", "i8"),
        ("segment_id", "i8"),
        ("total_bytes", "i8"),
        ("payload_bytes", "i8"),
        ("epoch", "i8"),
        ("creator", OWNER),
        ("owners", OWNER, (ROLES,)),
        ("spare", "i8", (HEADER_BYTES // 8 - 8 - OWNER.itemsize // 8 * (ROLES + 1),)),
    ]
)


def _word(dtype: np.dtype[np.void], name: str) -> int:
    assert dtype.fields is not None
    return int(dtype.fields[name][1]) // 8


W_MAGIC: Final = _word(HEADER, "magic")
W_VERSION: Final = _word(HEADER, "version")
W_KIND: Final = _word(HEADER, "kind")
W_LAYOUT_HASH: Final = _word(HEADER, "layout_hash")
W_SEGMENT_ID: Final = _word(HEADER, "segment_id")
W_TOTAL_BYTES: Final = _word(HEADER, "total_bytes")
W_PAYLOAD_BYTES: Final = _word(HEADER, "payload_bytes")
W_EPOCH: Final = _word(HEADER, "epoch")
W_CREATOR: Final = _word(HEADER, "creator")
W_OWNERS: Final = _word(HEADER, "owners")

O_PID: Final = _word(OWNER, "pid")
O_START_TICKS: Final = _word(OWNER, "start_ticks")
O_BOOT_HI: Final = _word(OWNER, "boot_hi")
O_BOOT_LO: Final = _word(OWNER, "boot_lo")
O_PID_NAMESPACE: Final = _word(OWNER, "pid_namespace")
O_EPOCH: Final = _word(OWNER, "epoch")
O_SINCE_NS: Final = _word(OWNER, "since_ns")

HEADER_WORDS: Final = HEADER_BYTES // 8
OWNER_WORDS: Final = OWNER.itemsize // 8


def owner_word(role: int) -> int:
    """Index of the first header word of a role's owner line. ValueError if there is no such role."""
    if not 0 <= role < ROLES:
        raise ValueError(f"role {role} is not in 0..{ROLES - 1}")
    return W_OWNERS + role * OWNER_WORDS


assert HEADER.itemsize == HEADER_BYTES, HEADER.itemsize
assert OWNER.itemsize == CACHE_LINE, "an owner is one cache line, so that a claim disturbs nobody else's"
assert W_MAGIC == 0, "the magic is what a stranger looks at first"
assert W_CREATOR * 8 % CACHE_LINE == 0 and W_OWNERS * 8 % CACHE_LINE == 0
assert HEADER_BYTES % CACHE_LINE == 0, "the payload is cache-line aligned because the mapping is page aligned"
assert 0 < MAGIC < 1 << 63
