"""The recorder: journals every ring to disk, whole slots as they are, and gates the rings until it has them.

The slots of the ring `frames` only say where bytes lie. Where raw recordings are wanted its frames become the text files
of `procs.recordings.frame_log`, and the slots have a journal besides. The ring `vectors` has one where `pipeline.journal_vectors`
asks for it: all in it follows from `market`.

It is no fold: its state is its files. After a crash it goes on behind the last whole slot that a journal holds, so nothing
is doubled; its cursor moves only after the write, so nothing is lost. When a disk is full or fails it stops taking: that
ring fills up, the pipeline stands, and nothing is lost either; it tries again until it can write. What befalls one file keeps
no other ring from its own: journals and raw recordings may lie on different disks. Only the wire does not wait: a receiver
that finds the frames ring full drops frames and says so, and the recording declares it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from procs import rundir, topology
from procs.fold.assembly import IDLE_NS
from procs.fold.plan import load_recording
from procs.journal.beside import Beside
from procs.journal.file import (
    JournalDamaged,
    JournalError,
    JournalFormatError,
    JournalFull,
    JournalMismatch,
    JournalWriter,
    journal_path,
)
from procs.journal.format import laid_out
from procs.logs import stage_log
from procs.memory import board
from procs.memory import segments as pipeline
from procs.memory.board import FAULT_DISK, FAULT_DISK_FULL
from procs.memory.model_channel import IMAGES, IN_FORCE, in_force
from procs.profiles.schema import Profile
from procs.recordings.frame_log import FrameLog, FrameLogError, FrameLogFull, FrameSource, Policy
from procs.recordings.frame_log_format import Taken, head_of
from procs.recordings.instruments import note, note_signals
from procs.recordings.raw_frames import RawRecording
from procs.topology import Ring
from ringbuf.endpoint import Reader
from ringbuf.intrinsics import load_acquire, store_release
from ringbuf.jit import Words, kernel
from ringbuf.layout import CURSOR, reader_line
from ringbuf.ring import ready, sleep_on
from trading.instruments import Instrument
from trading.venues.names import NATIVE

NAME: Final = "recorder"
LOG: Final = stage_log(NAME)
SLEEP_NS: Final = 20_000_000
"""Longest nap: a writer that finds its ring full rings the bell, so this only bounds how late the files are."""
RETRY_NS: Final = 500_000_000
"""How soon a file that could not be written is tried again."""
NO_RETRY: Final = (JournalDamaged, JournalFormatError, JournalMismatch)
"""Time mends none of these: a recorder that meets one at its start is not ready."""
FRAMES: Final = "frames"
VECTORS: Final = "vectors"
RECEIVER: Final = "receiver"
"""It ends after the feed; what it writes until then is recorded as well."""
FLUSH_FRAMES: Final = topology.RING[FRAMES].capacity // 4
"""Frames that wait for the disk at most: the ring must keep room for what comes meanwhile."""
MOST_TEXT: Final = 1 << 20
Bytes = NDArray[np.uint8]


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

    def __init__(
        self, entry: Ring, words: Words, doorbells: Words, folder: Path, instance: str, sync_every: int
    ) -> None:
        """Raises JournalError."""
        released = int(words[reader_line(entry.reader_index(NAME)) + CURSOR])  # by a recorder before us, once it was in its file
        self.journal: Final = JournalWriter.open(
            journal_path(folder, entry.name), entry.name, entry.record, instance, sync_every=sync_every, vouched=released
        )
        begin = self.journal.next_sequence
        self.reader: Final = Reader(words, entry.record, entry.reader_index(NAME), doorbells, start=begin)

    def take(self, now_ns: int, *, last: bool = False) -> int:
        """Write what is there; how many records. `last`: also what lies behind the end of the slots. Raises JournalError."""
        count = self._take()
        return count + self._take() if last else count

    def _take(self) -> int:
        recs = self.reader.view(self.reader.capacity)
        if len(recs):
            try:
                self.journal.append(recs)
            finally:  # after a full disk: as far as the journal got
                self.reader.release(max(0, self.journal.next_sequence - self.reader.head))
        return len(recs)

    def close(self) -> None:
        """Sync and close the journal. Raises JournalError."""
        self.journal.close()


class RingFrames:
    """The frames ring and its arena as a FrameSource. arena: uint8, the bytes that the slots point into."""

    def __init__(self, words: Words, arena: Bytes, doorbells: Words, journal: JournalWriter | None = None) -> None:
        """`journal`: keeps the slots as well, so that the feed can be folded again (procs.recordings.raw_frames)."""
        entry = topology.RING[FRAMES]
        self._journal: Final = journal
        self._reader: Final = Reader(words, entry.record, entry.reader_index(NAME), doorbells)
        self._arena: Final = arena
        self._taken = 0  # and not released

    def take(self, most: int) -> list[Taken]:
        """The next frames, copied out of the arena. Raises JournalError."""
        head = self._reader.head + self._taken
        recs = self._reader.view(most, self._taken)
        if self._journal is not None:  # what a dead recorder took and did not release comes again
            self._journal.append(recs[max(self._journal.next_sequence - head, 0) :])
        columns = (recs[name].tolist() for name in ("ts_ns", "kind", "symbol", "flags", "at", "length"))
        found = [
            Taken(head + k, ts_ns, kind, symbol, line, self._arena[at : at + length].tobytes())
            for k, (ts_ns, kind, symbol, line, at, length) in enumerate(zip(*columns, strict=True))
        ]
        self._taken += len(recs)
        return found

    def release(self, seq: int) -> None:
        """Give slots and arena below `seq` back to the receiver."""
        assert seq == self._reader.head + self._taken, "a flush covers all that was taken"
        self._reader.release(self._taken)
        self._taken = 0


class FramesTrack:
    """The wire and its files: takes frames, and writes them when there is enough or it is time."""

    def __init__(
        self, source: FrameSource, log: FrameLog, flush_s: float, most_bytes: int, slots: JournalWriter | None = None
    ) -> None:
        """`most_bytes` of text wait at most, and no frame longer than `flush_s`. `slots`: the source's journal, to be closed."""
        self._source, self.log, self._slots = source, log, slots
        self._flush_ns, self._most_bytes = int(flush_s * 1e9), most_bytes
        self._waiting = 0
        self._since_ns = 0
        self._full = False

    def take(self, now_ns: int, *, last: bool = False) -> int:
        """One round; how many frames were taken. `last`: all that is there, and to disk. Raises FrameLogError."""
        work = 0
        while not self._full:
            frames = self._source.take(FLUSH_FRAMES - self._waiting)
            if frames and not self._waiting:
                self._since_ns = now_ns
            self.log.take(frames)
            self._waiting += len(frames)
            work += len(frames)
            enough = self._waiting >= FLUSH_FRAMES or self.log.pending_bytes >= self._most_bytes
            if enough or (self._waiting and (last or now_ns - self._since_ns >= self._flush_ns)):
                self._flush()
            if not (frames and last):
                return work
        self._flush()
        return work

    def close(self) -> None:
        """Close the files. Raises FrameLogError, JournalError."""
        try:
            if self._slots is not None:
                self._slots.close()
        finally:
            self.log.close()

    def _flush(self) -> None:
        self._full = True  # until it is not: nothing more is taken before all this is on disk
        self._source.release(self.log.flush())
        self._waiting, self._full = 0, False


def frames_track(profile: Profile, runtime: Mapping[str, Any], words: Words, arena: Bytes, doorbells: Words) -> FramesTrack:
    """The track of this run's wire. Raises FrameLogError."""
    run = int.from_bytes(hashlib.blake2b(str(runtime["journal_dir"]).encode(), digest_size=7).digest(), "little")
    log = FrameLog(raw_folder(profile), raw_names(profile), run, Policy.of(profile.record), raw_heads(profile))
    slots = _slots_of(profile, runtime, run)
    source, most = RingFrames(words, arena, doorbells, slots), min(MOST_TEXT, max(arena.size // 4, 1))
    return FramesTrack(source, log, profile.record.flush_s, most, slots)


def _slots_of(profile: Profile, runtime: Mapping[str, Any], run: int) -> JournalWriter | None:
    """The journal of the frames' slots, where the feed can be folded again from it and the raw recording. Raises JournalError."""
    recording = RawRecording(str(raw_folder(profile).resolve()), run, tuple(raw_names(profile)))
    if not profile.pipeline.journal or profile.world == "record" or not recording.whole:
        return None
    folder = Path(runtime["journal_dir"])
    recording.note(folder)
    return JournalWriter.open(journal_path(folder, FRAMES), FRAMES, topology.RING[FRAMES].record, runtime["instance"])


def instruments_of(profile: Profile, spool: str | None) -> Sequence[Instrument]:
    """What the run's ticks and lots are: those of the staged recording, or the profile's."""
    recording = load_recording(Path(spool) if spool else None)
    return profile.instruments() if recording is None else [symbol.instrument() for symbol in recording.symbols]


def keeps_raw(profile: Profile) -> bool:
    """Whether the wire is recorded: in world `record`, and in a live pipeline that says so."""
    return profile.source.kind == "live" and (profile.record.raw or profile.world == "record")


def raw_folder(profile: Profile) -> Path:
    """Where raw recordings go."""
    return Path(profile.record.folder) if profile.record.folder else rundir.state_dir(profile.instance) / "recordings"


def raw_names(profile: Profile) -> Sequence[tuple[str, str]]:
    """(market, symbol) by the symbols' indices."""
    return [(symbol.market or profile.live.venue, symbol.name) for symbol in profile.symbols]


def journalled(profile: Profile) -> Sequence[Ring]:
    """The rings of which a journal is kept: all but the wire's, and the feature vectors where the profile says so."""
    pipe = profile.pipeline
    left_out = {FRAMES} if pipe.journal_vectors else {FRAMES, VECTORS}
    return [entry for entry in topology.RINGS if pipe.journal and entry.name not in left_out]


def raw_heads(profile: Profile) -> Sequence[bytes]:
    """What the files of each symbol begin with, by index; Binance's frames need no word."""
    levels = profile.live.snapshot_levels
    return [
        b"" if market in NATIVE else head_of(
            name, market, it.venue_name or name, it.tick_size, it.lot_size, it.step_size, levels, (it.contract, it.contract_size)
        )
        for it, (market, name) in zip(profile.symbols, raw_names(profile), strict=True)
    ]


class Takes(Protocol):
    """What a lane needs of its track."""

    def take(self, now_ns: int, *, last: bool = False) -> int:
        """One round; how many records."""

    def close(self) -> None:
        """To disk, and closed."""


class Lane:
    """One track by itself: it is opened, and tried again after a failure, without a care for the others."""

    def __init__(self, make: Callable[[], Takes]) -> None:
        """`make` opens the track's files."""
        self.fault = 0
        self.hopeless = False  # until somebody moves a file away
        self._make: Final = make
        self._track: Takes | None = None
        self._retry_ns = 0
        self._said = ""

    def take(self, now_ns: int, *, last: bool = False) -> int:
        """One round; how many records. What goes wrong with the files is told, and tried again after RETRY_NS."""
        if now_ns < self._retry_ns and not last:
            return 0
        work = 0
        try:
            if self._track is None:
                self._track = self._make()
            work = self._track.take(now_ns, last=last)
        except (JournalError, FrameLogError, OSError) as error:
            self.hopeless = isinstance(error, NO_RETRY)
            full = isinstance(error, JournalFull | FrameLogFull) or getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT)
            self.fault = FAULT_DISK_FULL if full else FAULT_DISK
            self._retry_ns = now_ns + RETRY_NS
            self._say(error)
            return 0
        if self.fault:
            self.fault, self.hopeless, self._retry_ns, self._said = 0, False, 0, ""
            LOG.info("it can be written again; nothing that waited is lost")
        return work

    def conclude(self, now_ns: int) -> int:
        """The last records to disk, and the files closed; how many. A disk that is full now keeps them out for good."""
        work = self.take(now_ns, last=True)
        if self.fault:
            LOG.error("what came after that is not recorded")
        try:
            if self._track is not None:
                self._track.close()
        except (JournalError, FrameLogError, OSError) as error:
            self._say(error)
        return work

    def _say(self, error: Exception) -> None:
        """Once for each kind of failure: its text may count sequences."""
        kind = f"{type(error).__name__} {getattr(error.__cause__, 'errno', '')}"
        if kind != self._said:
            self._said = kind
            LOG.error("not written", problem=str(error))


def durable(entry: Ring, profile: Profile) -> int:
    """Appends after which the journal is synced: on live market data what orders came of is on disk at once, all else, and what
    can be computed again (a replay, the embedded market), when the system likes."""
    return 1 if profile.source.kind == "live" and entry.name in ("orders", "wire", "executions", "control") else 0


def main(profile: Profile, runtime: Mapping[str, Any]) -> int:
    """One incarnation of the recorder; returns the exit code."""
    memory: pipeline.Memory = runtime.get("memory") or pipeline.attach(runtime["instance"])
    page = board.page(memory.board_words, topology.stage_id(NAME))
    doorbells = memory.board_words[: board.DOORBELL_WORDS]
    number = board.doorbell(topology.stage_id(NAME))
    page[board.PID], page[board.INCARNATION] = os.getpid(), int(runtime.get("incarnation", 0))
    page[board.STARTED_NS] = time.monotonic_ns()
    stop = [False]
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.__setitem__(0, True))
    raw, journal = keeps_raw(profile), profile.pipeline.journal
    if not (raw or journal):
        page[board.READY] = page[board.FINISHED] = 1
        return 0
    if journal:
        note(Path(runtime["journal_dir"]), instruments_of(profile, runtime.get("spool")))
        note_signals(Path(runtime["journal_dir"]), [one.name for one in profile.signals.user])
    folder = Path(runtime["journal_dir"])
    beside: Beside | None = None
    if journal:
        guard = board.page(memory.board_words, topology.stage_id("features"))[board.USER_GUARD :]
        models = memory.models if memory.models is not None else np.zeros(IMAGES, np.int64)
        beside = Beside(folder, guard, lambda: int(models[IN_FORCE]), lambda: in_force(models))
    lanes: list[Lane] = []
    for entry in journalled(profile):
        words, sync = memory.ring(entry.name), durable(entry, profile)
        lanes.append(Lane(partial(Track, entry, words, doorbells, folder, runtime["instance"], sync)))
    if raw:
        arena = memory.segments[FRAMES].words.view(np.uint8)
        lanes.append(Lane(partial(frames_track, profile, runtime, memory.ring(FRAMES), arena, doorbells)))
    if int(runtime.get("incarnation", 0)) > 1:
        page[board.RECOVERIES] += 1
    writers = [stage for stage in topology.Run.of(profile).stages if stage.hot or (raw and stage.name == RECEIVER)]
    others = [board.page(memory.board_words, stage.stage_id) for stage in writers]
    first = True  # round, in which the files are opened: what came meanwhile is taken at once
    while not (stop[0] or page[board.STOP]):
        seen = bell(doorbells, number)
        over = all(other[board.FINISHED] for other in others)
        work = sum(lane.take(time.monotonic_ns()) for lane in lanes)
        if beside is not None:
            beside.look()
        page[board.FAULT] = max(lane.fault for lane in lanes)
        if not any(lane.hopeless for lane in lanes):
            page[board.READY] = 1
        page[board.RECORDS] += work
        show(page, board.HEARTBEAT, int(page[board.HEARTBEAT]) + 1)
        if work:
            page[board.WORK_POLLS] += 1
        elif over and not page[board.FAULT]:
            page[board.FINISHED] = 1
            break
        if work < 256 and not first:
            page[board.SLEEPS] += 1
            sleep_on(doorbells, number, seen, SLEEP_NS)
        first = False
    for lane in lanes:
        page[board.RECORDS] += lane.conclude(time.monotonic_ns())
    if beside is not None:
        beside.look()
    page[board.FAULT] = max(lane.fault for lane in lanes)  # what could not be written to the end is told after it, too
    return 0


def warm(profile: Profile) -> None:
    """Compile or load the few kernels that the recorder calls."""
    from procs.memory.segments import aligned_words
    from ringbuf import layout

    entry = topology.RING["control"]
    words = aligned_words(layout.payload_bytes(2, entry.record) // 8)
    layout.format_ring(words, entry.record, 2)
    reader = Reader(words, entry.record, 0)
    reader.release(len(reader.view()))
    ready(reader.ctl, reader.slots, 0)  # what releasing a record asks
    for entry in topology.RINGS:
        laid_out(entry.record)  # what a restarted recorder needs to know of each journal
    sleep_on(words, 100, bell(words, 100) + 1, 0)
    show(words, 101, 0)


assert SLEEP_NS <= IDLE_NS
