"""A named piece of shared memory: create, attach, view, close, unlink.

The order of creation is what makes a crash harmless. The file is made exclusively and locked; its space is reserved
(`posix_fallocate`: a sparse file on a full tmpfs would end in SIGBUS much later); its pages are placed; its header is
filled; the magic is stored last; the lock is given up. Whoever attaches before that is told "incomplete"; whatever a
killed creator leaves has no magic and no lock, and cleanup.py may remove it.

The payload is plain bytes. What is in it, and how two processes agree about it, is the business of ringbuf and procs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from shm import backing, header, hugepages, numa
from shm.cleanup import State, inspect
from shm.errors import (
    REMEDY_CLEAN,
    REMEDY_FOREIGN,
    REMEDY_INCOMPLETE,
    LayoutMismatch,
    NotASegment,
    SegmentClosed,
    SegmentError,
    SegmentExists,
    SegmentIncomplete,
    SegmentLeftBehind,
    SegmentReadOnly,
    SegmentSpace,
    from_os_error,
)
from shm.header import Header
from shm.layout import HEADER_BYTES, HEADER_WORDS, MAX_KIND, MAX_PAYLOAD_BYTES, MAX_SEGMENT_ID
from shm.numa import Placement

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int64]
T = TypeVar("T")

_CREATE_TRIES: Final = 16
DEFAULT_MODE: Final = 0o600


class Segment:
    """An open segment. Made by `create` or `attach`; closing it never invalidates numpy views that are still alive.

    `placement` says what was got of NUMA node, huge pages, pre-faulting and locking.
    """

    def __init__(
        self, name: str, path: Path, mapping: mmap.mmap, seen: os.stat_result, payload_bytes: int, placement: Placement
    ) -> None:
        self.name: Final = name
        self.path: Final = path
        self.placement = placement
        self._seen = seen
        self._mapping: mmap.mmap | None = mapping
        page = np.frombuffer(mapping, dtype=np.int64, count=HEADER_WORDS)
        self._header: Header | None = Header(page, path, seen)
        self._payload: Bytes | None = np.frombuffer(mapping, dtype=np.uint8, count=payload_bytes, offset=HEADER_BYTES)
        assert self._payload.ctypes.data % 64 == 0
        self._readonly: Final = not self._payload.flags.writeable

    @classmethod
    def create(
        cls,
        name: str,
        payload_bytes: int,
        *,
        layout_hash: int,
        kind: int,
        segment_id: int,
        mode: int = DEFAULT_MODE,
        numa_node: int | None = None,
        huge: bool = False,
        lock: bool = False,
        prefault: bool = True,
        directory: str | os.PathLike[str] | None = None,
    ) -> Segment:
        """Make a new segment of `payload_bytes` zero bytes (a positive multiple of 8), writable, at /scalper.<instance>.<what>.

        layout_hash: any int64; kind: 0..65535; segment_id: 0..2^31-1; mode: permission bits, exactly (no umask);
        numa_node, huge, lock, prefault: wishes, see `placement` for what came of them; directory: instead of /dev/shm
        (default: environment SCALPER_SHM_DIR). Errors: SegmentExists (or its kind SegmentLeftBehind), SegmentSpace,
        SegmentPermission, SegmentLimit, SegmentNameInvalid; nothing is left behind after any. ValueError for sizes and
        numbers out of range.
        """
        if not 0 < payload_bytes <= MAX_PAYLOAD_BYTES or payload_bytes % 8:
            raise ValueError(f"payload_bytes {payload_bytes} is not a multiple of 8 in 8..{MAX_PAYLOAD_BYTES}")
        if not 0 <= kind < MAX_KIND or not 0 <= segment_id < MAX_SEGMENT_ID or not -(1 << 63) <= layout_hash < 1 << 63:
            raise ValueError(f"kind {kind}, segment_id {segment_id} or layout_hash {layout_hash} is out of range")
        if mode & ~0o666:
            raise ValueError(f"mode {mode:#o} has bits other than read and write")
        place = backing.directory_of(directory)
        path = backing.path_of(name, place)
        fd = _open_locked(name, place, mode)
        mapping: mmap.mmap | None = None
        try:
            try:
                mapping, placement, huge_there = _reserve(fd, place, HEADER_BYTES + payload_bytes, numa_node, huge)
                placement |= _settle(mapping, numa_node, huge_there, lock, prefault)
                page = np.frombuffer(mapping, dtype=np.int64, count=HEADER_WORDS)
                header.write(page, kind=kind, layout_hash=layout_hash, segment_id=segment_id, payload_bytes=payload_bytes)
                return cls(name, path, mapping, os.fstat(fd), payload_bytes, placement)
            except OSError as error:
                raise _no_room(path, place, payload_bytes, error) from error
        except BaseException:
            backing.remove(path)
            raise
        finally:
            backing.unlock(fd)
            os.close(fd)

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        layout_hash: int | None = None,
        kind: int | None = None,
        readonly: bool = False,
        mode: int = DEFAULT_MODE,
        directory: str | os.PathLike[str] | None = None,
    ) -> Segment:
        """Map an existing segment after checking its file and every word of its header.

        layout_hash, kind: what the caller expects, None for whatever it is; readonly: the pages are mapped without write
        permission; mode: the widest file mode that is accepted. Errors: SegmentMissing, SegmentIncomplete,
        NotASegment, SegmentDamaged, LayoutMismatch, SegmentPermission, SegmentLimit, SegmentNameInvalid.
        """
        place = backing.directory_of(directory)
        path = backing.path_of(name, place)
        fd = backing.open_existing(name, place, readonly=readonly)
        try:
            seen = os.fstat(fd)
            backing.check_access(path, seen, mode)
            if seen.st_size == 0:
                raise SegmentIncomplete(str(path), "its creator has not finished it", REMEDY_INCOMPLETE)
            if not HEADER_BYTES < seen.st_size <= MAX_PAYLOAD_BYTES * 2:
                raise NotASegment(str(path), f"not a segment ({seen.st_size} bytes)", REMEDY_FOREIGN)
            # Read, not mapped: a page that a creator on a full tmpfs has not reserved yet would be a SIGBUS.
            page = header.read(fd)
            if page is None:
                raise NotASegment(str(path), "it shrank while being opened", "remove it")
            header.check(page, str(path), seen.st_size)
            found = Header(page, path, seen)
            for what, wanted, has in (("kind", kind, found.kind), ("layout", layout_hash, found.layout_hash)):
                if wanted is not None and wanted != has:
                    raise LayoutMismatch(
                        str(path),
                        f"its {what} is {has}, this program expects {wanted}",
                        REMEDY_CLEAN,
                    )
            mapping = _map(fd, seen.st_size, readonly=readonly)
        except ValueError as error:  # what mmap says to a file that is shorter than it was
            raise NotASegment(str(path), "it shrank while being opened", "remove it") from error
        except OSError as error:
            raise from_os_error(str(path), error) from error
        finally:
            os.close(fd)
        return cls(name, path, mapping, seen, found.payload_bytes, Placement())

    @property
    def header(self) -> Header:
        """The header page, live. SegmentClosed after close()."""
        return self._open(self._header)

    @property
    def payload(self) -> Bytes:
        """The bytes behind the header: uint8, shape (payload_bytes,), 64-byte aligned; not writeable if attached read-only."""
        return self._open(self._payload)

    @property
    def words(self) -> Words:
        """The payload as int64, shape (payload_bytes // 8,)."""
        return self.payload.view(np.int64)

    @property
    def readonly(self) -> bool:
        """Was it attached without write permission?"""
        return self._readonly

    @property
    def closed(self) -> bool:
        """Has close() been called?"""
        return self._mapping is None

    def prefault(self) -> Placement:
        """Map every page into the calling process's page table; a forked child does this once for itself."""
        self.placement |= numa.prefault(*_range(self._open(self._mapping)), write=not self.readonly)
        return self.placement

    def lock(self) -> Placement:
        """Keep the calling process's mapping out of swap, if the system lets it."""
        self.placement |= numa.lock(*_range(self._open(self._mapping)))
        return self.placement

    def close(self) -> None:
        """Let go of the memory; again is allowed. Views that others still hold stay valid until they die."""
        mapping, self._mapping, self._header, self._payload = self._mapping, None, None, None
        if mapping is not None:
            with contextlib.suppress(BufferError):  # views are alive: the last of them takes the mapping along
                mapping.close()

    def unlink(self) -> bool:
        """Remove the name, also after close(). False if it is gone already, or now belongs to another segment.

        Whoever has it mapped keeps the memory. SegmentReadOnly from a read-only attachment, SegmentBusy.
        """
        if self._readonly:
            raise SegmentReadOnly(str(self.path), "a read-only attachment may not remove it", "let its creator do it")
        if not backing.same_file(self.path, self._seen):
            return False
        with backing.locked(self.path, self._seen):
            return backing.remove(self.path)

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Segment {self.path}{' closed' if self.closed else ''}>"

    def _open(self, part: T | None) -> T:
        if part is None:
            raise SegmentClosed(str(self.path), "the segment was closed", "attach it again")
        return part


def _open_locked(name: str, place: Path | None, mode: int) -> int:
    """A new, empty, locked file. Between making and locking a cleaner may have taken it for a dead one's: then again."""
    path = backing.path_of(name, place)
    for _ in range(_CREATE_TRIES):
        try:
            fd = backing.open_new(name, place, mode)
        except FileExistsError:
            state = inspect(name, place)
            if state is None:
                continue  # removed since
            if state.state in (State.DEAD, State.ABANDONED):
                raise SegmentLeftBehind(
                    str(path), "a dead pipeline left it behind", "run `scalperctl clean`, then start again"
                ) from None
            if state.state is State.FOREIGN:
                raise NotASegment(str(path), f"a foreign file has this name ({state.note})", REMEDY_FOREIGN) from None
            raise SegmentExists(
                str(path), f"a living pipeline holds it ({state.holders()})", "stop it first or choose another instance name"
            ) from None
        if backing.try_lock(fd) and backing.same_file(path, os.fstat(fd)):
            return fd
        os.close(fd)
    raise SegmentExists(str(path), "others keep creating and removing it", "stop the other start or clean-up, then retry")


def _map(fd: int, file_bytes: int, *, readonly: bool) -> mmap.mmap:
    return mmap.mmap(fd, file_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | (0 if readonly else mmap.PROT_WRITE))


def _range(mapping: mmap.mmap) -> tuple[int, int]:
    return int(np.frombuffer(mapping, dtype=np.uint8).ctypes.data), len(mapping)


def _reserve(fd: int, place: Path | None, total_bytes: int, node: int | None, huge: bool) -> tuple[mmap.mmap, Placement, bool]:
    """Size the file, map it, wish for a node and huge pages, then reserve every page. OSError if there is no room.

    The wishes come first because the reservation already takes the pages.
    """
    support = hugepages.huge_support(place) if huge or place is not None else hugepages.HugeSupport("none", 0)
    grain = support.page_bytes if support.kind == "hugetlbfs" or huge and support.page_bytes else numa.PAGE_BYTES
    file_bytes = -(-total_bytes // grain) * grain
    placement = Placement(notices=(support.notice,) if huge and support.notice else ())
    os.ftruncate(fd, file_bytes)
    mapping = _map(fd, file_bytes, readonly=False)
    try:
        if node is not None:
            placement |= numa.bind(*_range(mapping), node)
        if huge and support.advise:
            numa.advise_huge(*_range(mapping))
            numa.prefault(*_range(mapping))  # only a fault honours the advice; a failure shows in the next line
        os.posix_fallocate(fd, 0, file_bytes)
    except BaseException:
        mapping.close()
        raise
    return mapping, placement, huge and support.page_bytes > 0


def _settle(mapping: mmap.mmap, node: int | None, huge: bool, lock: bool, prefault: bool) -> Placement:
    """Pre-fault and lock the pages, then look where they are."""
    placement = Placement()
    if prefault or node is not None or huge:
        placement |= numa.prefault(*_range(mapping))
    if lock:
        placement |= numa.lock(*_range(mapping))
    if node is not None:
        placement |= numa.check(*_range(mapping), node)
    if huge:
        got = hugepages.huge_bytes_of(_range(mapping)[0])
        notices = () if got else ("no huge pages: the kernel had none to give, free memory is too small or in pieces",)
        placement |= Placement(huge_bytes=got, notices=notices)
    return placement


def _no_room(path: Path, place: Path | None, payload_bytes: int, error: OSError) -> SegmentError:
    """The typed error of a failed creation; for lack of space with the figures that help."""
    found = from_os_error(str(path), error)
    if not isinstance(found, SegmentSpace):
        return found
    where = place or backing.SHM_DIRECTORY
    space = os.statvfs(where)
    if hugepages.huge_support(place).kind == "hugetlbfs":
        free = f"{space.f_bavail} of {space.f_blocks} pages of {space.f_bsize} bytes"
        return SegmentSpace(
            str(path),
            f"{payload_bytes + HEADER_BYTES} bytes do not fit, {free} are free",
            "set more aside in /proc/sys/vm/nr_hugepages",
        )
    free = f"{space.f_bavail * space.f_frsize} of {space.f_blocks * space.f_frsize} free"
    return SegmentSpace(
        str(path),
        f"{payload_bytes + HEADER_BYTES} bytes do not fit, {where} has {free}",
        f"run `scalperctl clean`, choose smaller rings, or `mount -o remount,size=N {where}`",
    )
