"""Rings on the heap, for tests: fresh words and their ends."""

from __future__ import annotations

import numpy as np

from ringbuf import layout, ring
from ringbuf.layout import (
    CAPACITY,
)
from ringbuf.ring import I_HEAD, LOC_WORDS, O_FLUSHED, O_GATE, O_KNOWN, O_TAIL, Input, Output

REC64 = np.dtype([("ts_ns", "i8"), ("body", "i8", 6), ("seq", "i8")])
REC128 = np.dtype([("ts_ns", "i8"), ("body", "i8", 14), ("seq", "i8")])
NO_IDENTITY = np.zeros(0, np.int64)


def fresh(capacity: int, record: np.dtype = REC64, gating: tuple[bool, ...] = (True,), lossy: bool = False) -> np.ndarray:
    """A ring's words on the heap."""
    words = np.zeros(layout.payload_bytes(capacity, record) // 8, np.int64)
    layout.format_ring(words, record, capacity, gating=gating, lossy=lossy)
    return words


def ends(words: np.ndarray, record: np.dtype, readers: int) -> tuple[Output, list[Input]]:
    """The writing end and the reading ends."""
    identity = np.arange(record.itemsize // 8 - 1)
    out = ring.output(words, record, np.zeros(LOC_WORDS, np.int64), identity)
    return out, [ring.input_(words, record, np.zeros(LOC_WORDS, np.int64), r) for r in range(readers)]


def content(n: int, width: int) -> np.ndarray:
    """Record n's words as every test writes them."""
    row = np.arange(width, dtype=np.int64) * 1_000_003 + n * 7_919
    row[-1] = n + 1
    return row


def push(out: Output, words: np.ndarray, flush: bool = True) -> bool:
    """Push the record that the tail's number calls for, as compiled stages do; False where full."""
    if ring.room(out.ctl, out.loc, 1) < 1:
        return False
    n = int(out.loc[O_TAIL])
    row = ring.begin(out)
    out.words[row, :-1] = content(n, out.words.shape[1])[:-1]
    assert ring.commit(out) == n
    if flush:
        ring.flush(out.ctl, out.loc, 0, ring.own_doorbells(words))
    return True


def pop(end: Input, words: np.ndarray, release: bool = True) -> bool:
    """Read one record, check every word of it; False where there is none."""
    head = int(end.loc[I_HEAD])
    if not ring.ready(end.ctl, end.words, head):
        return False
    row = head & (int(end.ctl[CAPACITY]) - 1)
    assert (end.words[row] == content(head, end.words.shape[1])).all()
    end.loc[I_HEAD] = head + 1
    if release:
        ring.release(end.ctl, end.loc, ring.own_doorbells(words))
    return True


def reopen(words: np.ndarray, record: np.dtype) -> Output:
    """A new writer over what a dead one left: what procs.fold.checkpoint.restore and endpoint.Writer do."""
    out, _ = ends(words, record, 0)
    out.loc[O_TAIL] = out.loc[O_KNOWN] = ring.published_tail(out.ctl, out.words, 0)
    out.loc[O_GATE] = min(ring.smallest_cursor(out.ctl), out.loc[O_TAIL])
    out.loc[O_FLUSHED] = -1
    return out
