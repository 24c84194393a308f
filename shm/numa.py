"""Where pages are: NUMA nodes from sysfs, binding by mbind, asking by move_pages, pre-faulting, locking.

Placement is an optimisation: nothing here raises for what a machine lacks. Each call returns a `Placement` that says
what was got, and in plain sentences what was not and why; `scalperctl doctor` prints those.

Why MPOL_PREFERRED and not MPOL_BIND: on a full node the latter ends in the OOM killer, the former in a notice.
Why raw system calls and not libnuma: three calls, and one dependency less to find at run time.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

SYSFS: Final = Path("/sys/devices/system/node")
PAGE_BYTES: Final = mmap.PAGESIZE
MAX_NODES: Final = 1024

_CALLS: Final = {"x86_64": {"mbind": 237, "move_pages": 279}, "aarch64": {"mbind": 235, "move_pages": 239}}
_MPOL_PREFERRED: Final = 1
_MPOL_MF_MOVE: Final = 2
_MADV_POPULATE_READ: Final = 22
_MADV_POPULATE_WRITE: Final = 23
_MADV_HUGEPAGE: Final = 14
_CHUNK_PAGES: Final = 1 << 14

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Node:
    """One NUMA node: its cpus, memory in bytes, and distance to every node in `discover`'s order (10 is itself)."""

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int
    free_bytes: int
    distances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """What was got for a range of memory. `notices` are sentences for people: what was not got, and why."""

    node_wanted: int | None = None
    pages_by_node: tuple[tuple[int, int], ...] = ()  # (node, pages), as move_pages saw it
    prefaulted: bool = False
    locked: bool = False
    huge_bytes: int = 0  # mapped by huge pages
    notices: tuple[str, ...] = ()

    def __or__(self, other: Placement) -> Placement:
        """Both together: the later word on each point, and all notices."""
        return Placement(
            other.node_wanted if other.node_wanted is not None else self.node_wanted,
            other.pages_by_node or self.pages_by_node,
            self.prefaulted or other.prefaulted,
            self.locked or other.locked,
            max(self.huge_bytes, other.huge_bytes),
            self.notices + other.notices,
        )


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The numbers in a kernel list such as `0-3,8`. ValueError if it is none."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)


def discover(sysfs: Path = SYSFS) -> tuple[Node, ...]:
    """The machine's NUMA nodes by rising id. A kernel without NUMA is one node with every cpu."""
    nodes = []
    for folder in sorted(sysfs.glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        try:
            lines = [line.split() for line in (folder / "meminfo").read_text().splitlines()]  # Node 0 MemFree: 123 kB
            memory = {fields[2].rstrip(":"): int(fields[3]) << 10 for fields in lines}
            nodes.append(
                Node(
                    int(folder.name[4:]),
                    parse_cpu_list((folder / "cpulist").read_text()),
                    memory["MemTotal"],
                    memory["MemFree"],
                    tuple(int(word) for word in (folder / "distance").read_text().split()),
                )
            )
        except (OSError, ValueError, KeyError, IndexError):
            continue  # a node that is going away, or a container that hides it
    if nodes:
        return tuple(nodes)
    total, free = os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES, os.sysconf("SC_AVPHYS_PAGES") * PAGE_BYTES
    return (Node(0, tuple(range(os.cpu_count() or 1)), total, free, (10,)),)


def node_of_cpu(cpu: int, nodes: tuple[Node, ...]) -> int | None:
    """The node that a cpu belongs to, None if no node has it."""
    return next((node.id for node in nodes if cpu in node.cpus), None)


def _syscall(name: str, *arguments: int) -> int:
    """Result of a system call, or minus the errno."""
    number = _CALLS.get(platform.machine(), {}).get(name)
    if number is None:
        return -errno.ENOSYS
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(argument) for argument in arguments)))
    return result if result >= 0 else -ctypes.get_errno()


def _call(name: str, address: int, nbytes: int, *arguments: int) -> int:
    """0, or minus the errno, of a libc function that takes an address and a length."""
    function = getattr(_libc, name)
    result = int(function(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), *(ctypes.c_int(argument) for argument in arguments)))
    return 0 if result == 0 else -ctypes.get_errno()


def _why(code: int) -> str:
    return os.strerror(-code).lower()


def _pages(address: int, nbytes: int) -> tuple[int, int]:
    """Start and length of the whole pages that hold a range."""
    start = address & -PAGE_BYTES
    return start, (address + nbytes - start + PAGE_BYTES - 1) & -PAGE_BYTES


def bind(address: int, nbytes: int, node: int) -> Placement:
    """Ask the kernel to take the pages of a range from `node`, and to move there what this process alone maps.

    For shared memory the wish sticks to the file, so one process does it for all. What came of it: `check`.
    """
    if not 0 <= node < MAX_NODES:
        return Placement(notices=(f"NUMA node {node} does not exist: memory stays where the kernel puts it",))
    mask = np.zeros(MAX_NODES // 64, dtype=np.uint64)
    mask[node // 64] = np.uint64(1 << (node % 64))
    start, length = _pages(address, nbytes)
    code = _syscall("mbind", start, length, _MPOL_PREFERRED, mask.ctypes.data, MAX_NODES + 1, _MPOL_MF_MOVE)
    if code < 0:
        reason = "there is no such node" if code == -errno.EINVAL else _why(code)
        return Placement(
            node, notices=(f"memory is not bound to NUMA node {node} ({reason}): it stays where the kernel puts it",)
        )
    return Placement(node)


def nodes_of(address: int, nbytes: int) -> npt.NDArray[np.int64]:
    """Node of each page of a range, shape (pages,); -ENOENT for a page never touched here, other negatives: minus an errno."""
    start, length = _pages(address, nbytes)
    addresses = np.arange(start, start + length, PAGE_BYTES, dtype=np.int64)
    status = np.full(addresses.size, -errno.ENOENT, dtype=np.int32)
    for first in range(0, addresses.size, _CHUNK_PAGES):
        part, answer = addresses[first : first + _CHUNK_PAGES], status[first : first + _CHUNK_PAGES]
        code = _syscall("move_pages", 0, part.size, part.ctypes.data, 0, answer.ctypes.data, 0)
        if code < 0:
            answer[:] = code
    return status.astype(np.int64)


def check(address: int, nbytes: int, node: int | None = None) -> Placement:
    """Where the pages of a range are now; a notice if `node` was wanted and some are elsewhere."""
    found = nodes_of(address, nbytes)
    seen, counts = np.unique(found[found >= 0], return_counts=True)
    by_node = tuple(zip(seen.tolist(), counts.tolist(), strict=True))
    refused = found[(found < 0) & (found != -errno.ENOENT)]
    if refused.size:
        return Placement(node, by_node, notices=(f"cannot ask where the memory is ({_why(int(refused[0]))})",))
    if node is not None and dict(by_node).get(node, 0) < found.size:
        return Placement(node, by_node, notices=(f"{dict(by_node).get(node, 0)} of {found.size} pages are on NUMA node {node}",))
    return Placement(node, by_node)


def prefault(address: int, nbytes: int, *, write: bool = True) -> Placement:
    """Put every page of a range into this process's page table now, so that no hot loop takes a fault.

    Content is never changed. Kernels before 5.14 get one read a page instead (a first write then still faults).
    """
    start, length = _pages(address, nbytes)
    code = _call("madvise", start, length, _MADV_POPULATE_WRITE if write else _MADV_POPULATE_READ)
    if code == 0:
        return Placement(prefaulted=True)
    if code != -errno.EINVAL:
        return Placement(notices=(f"the memory is not pre-faulted ({_why(code)}): first touches will cost a fault each",))
    touched = np.ctypeslib.as_array((ctypes.c_uint8 * length).from_address(start))[::PAGE_BYTES]
    int(touched.sum(dtype=np.int64))
    return Placement(
        prefaulted=True, notices=("this kernel cannot pre-fault for writing: the first write of each page costs a fault",)
    )


def lock(address: int, nbytes: int) -> Placement:
    """Keep a range out of swap (mlock); a notice with the limit and the remedy if the system refuses."""
    start, length = _pages(address, nbytes)
    code = _call("mlock", start, length)
    if code == 0:
        return Placement(locked=True, prefaulted=True)
    remedy = (
        "raise LimitMEMLOCK or `ulimit -l`" if code in (-errno.ENOMEM, -errno.EPERM, -errno.EAGAIN) else "it may be swapped out"
    )
    return Placement(notices=(f"{length} bytes are not locked in memory ({_why(code)}): {remedy}",))


def advise_huge(address: int, nbytes: int) -> int:
    """madvise(MADV_HUGEPAGE) on a page-aligned range: 0, or minus the errno."""
    return _call("madvise", *_pages(address, nbytes), _MADV_HUGEPAGE)
