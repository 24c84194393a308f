"""The recorder: journals every ring to disk, whole slots as they are, and gates the rings until it has them.

It is no fold: its state is its files. After a crash it goes on behind the last whole slot that a journal holds, so nothing
is doubled; its cursor moves only after the write, so nothing is lost. When the disk is full it stops taking: the rings fill
up, the pipeline stands, and nothing is lost either; it tries again until there is room.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs import board, pipeline, topology
from procs.config import Profile
from procs.fold import IDLE_NS
from procs.journal import JournalFull, JournalWriter, journal_path
from procs.topology import Ring
from ringbuf.intrinsics import futex_wait, load_acquire, store_release
from ringbuf.jit import Words, kernel
from ringbuf.layout import CAPACITY, CURSOR, reader_line
from ringbuf.ring import I_HEAD, I_RELEASED, LOC_WORDS, Input, input_, ready, release

NAME: Final = "recorder"
SLEEP_NS: Final = 20_000_000
"""Longest nap: a writer that finds its ring full rings the bell, so this only bounds how late the files are."""
FULL_RETRY_S: Final = 0.5
FAULT_DISK_FULL: Final = 1


@kernel
def count_ready(ctl: Words, words: Words, head: int) -> int:
    """Published records from `head` on, at most up to the end of the slots (so that they lie in one piece)."""
    mask = ctl[CAPACITY] - 1
    most = ctl[CAPACITY] - (head & mask)
    count = 0
    while count < most and ready(ctl, words, head + count):
        count += 1
    return count


@kernel
def sleep_on(doorbells: Words, number: int, seen: int, most_ns: int) -> None:
    """Sleep until the bell rings or the time is over."""
    futex_wait(doorbells, number, seen, most_ns)


@kernel
def bell(doorbells: Words, number: int) -> int:
    """The bell's count."""
    return load_acquire(doorbells, number)


@kernel
def show(page: Words, index: int, value: int) -> None:
    """Store one word of the page."""
    store_release(page, index, value)


class Track:
    """One ring and its journal."""

    def __init__(self, entry: Ring, words: Words, folder: Path, instance: str, sync_every: int) -> None:
        loc = np.zeros(LOC_WORDS, np.int64)
        reader = entry.reader_index(NAME)
        self.end: Final[Input] = input_(words, entry.record, loc, reader)
        self.journal: Final = JournalWriter.open(
            journal_path(folder, entry.name), entry.name, entry.record, instance, sync_every=sync_every
        )
        cursor = int(self.end.ctl[reader_line(reader) + CURSOR])
        loc[I_HEAD] = max(cursor, self.journal.next_sequence)
        loc[I_RELEASED] = -1

    def take(self, doorbells: Words) -> int:
        """Write what is there; how many records. Raises JournalFull."""
        end = self.end
        head = int(end.loc[I_HEAD])
        count = count_ready(end.ctl, end.words, head)
        if count == 0 and end.loc[I_RELEASED] == head:
            return 0
        row = head & (int(end.ctl[CAPACITY]) - 1)
        try:
            if count:
                self.journal.append(end.recs[row : row + count])
        finally:
            # after a full disk: as far as the journal got
            end.loc[I_HEAD] = max(head, self.journal.next_sequence)
            release(end.ctl, end.loc, doorbells)
        return count


def durable(entry: Ring) -> int:
    """Appends after which the journal is synced: money at once, market data when the system likes."""
    return 1 if entry.name in ("orders", "wire", "executions", "control") else 0


def main(profile: Profile, runtime: Mapping[str, Any]) -> int:
    """One incarnation of the recorder; returns the exit code."""
    memory = pipeline.attach(runtime["instance"])
    page = board.page(memory.board_words, topology.stage_id(NAME))
    doorbells = memory.board_words[: board.DOORBELL_WORDS]
    number = board.doorbell(topology.stage_id(NAME))
    page[board.PID], page[board.INCARNATION] = os.getpid(), int(runtime.get("incarnation", 0))
    page[board.STARTED_NS] = time.monotonic_ns()
    stop = [False]
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.__setitem__(0, True))
    if not profile.pipeline.journal:
        page[board.READY] = page[board.FINISHED] = 1
        return 0
    folder = Path(runtime["journal_dir"])
    live = bool(runtime.get("live", False))
    tracks = [
        Track(entry, memory.ring(entry.name), folder, runtime["instance"], durable(entry) if live else 0)
        for entry in topology.RINGS
    ]
    if int(runtime.get("incarnation", 0)) > 1:
        page[board.RECOVERIES] += 1
    page[board.READY] = 1
    order = topology.start_order(profile.source.kind == "live", profile.world != "record")
    others = [board.page(memory.board_words, topology.stage_id(name)) for name in order if topology.STAGE[name].hot]
    while not (stop[0] or page[board.STOP]):
        seen = bell(doorbells, number)
        over = all(other[board.FINISHED] for other in others)
        work, full = 0, False
        for track in tracks:
            try:
                work += track.take(doorbells)
            except JournalFull as error:
                if page[board.FAULT] != FAULT_DISK_FULL:
                    print(f"recorder: {error}", file=sys.stderr, flush=True)
                page[board.FAULT], full = FAULT_DISK_FULL, True
                sleep_on(doorbells, number, seen, int(FULL_RETRY_S * 1e9))
                break
        else:
            page[board.FAULT] = 0
        page[board.RECORDS] += work
        show(page, board.HEARTBEAT, int(page[board.HEARTBEAT]) + 1)
        if work:
            page[board.WORK_POLLS] += 1
        elif over and not full:
            page[board.FINISHED] = 1
            break
        if work < 256:
            page[board.SLEEPS] += 1
            sleep_on(doorbells, number, seen, SLEEP_NS)
    for track in tracks:
        with contextlib.suppress(JournalFull):
            for _ in range(2):  # what was there when we were told to stop: up to the end of the slots, and from their beginning
                page[board.RECORDS] += track.take(doorbells)
            track.journal.close()
    return 0


def warm(profile: Profile) -> None:
    """Compile or load the few kernels that the recorder calls."""
    from procs.stage import aligned_words
    from ringbuf import layout

    entry = topology.RING["control"]
    words = aligned_words(layout.payload_bytes(2, entry.record) // 8)
    layout.format_ring(words, entry.record, 2)
    loc = np.zeros(LOC_WORDS, np.int64)
    end = input_(words, entry.record, loc, 0)
    count_ready(end.ctl, end.words, 0)
    release(end.ctl, end.loc, end.ctl)
    sleep_on(end.ctl, 100, bell(end.ctl, 100) + 1, 0)
    show(end.ctl, 101, 0)


assert SLEEP_NS <= IDLE_NS
