"""Placement: what the machine gives is used and reported, what it lacks is a sentence and never an exception."""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shm import hugepages, numa
from shm.hugepages import HugeSupport, huge_bytes_of, huge_support
from shm.numa import Node, Placement, discover, node_of_cpu, nodes_of, parse_cpu_list
from shm.segment import Segment

NAME = "/scalper.place.ring"
PAGE = mmap.PAGESIZE


@pytest.fixture
def memory() -> Iterator[tuple[int, int]]:
    """Sixteen untouched shared pages: address and length."""
    mapping = mmap.mmap(-1, 16 * PAGE, flags=mmap.MAP_SHARED)
    yield ctypes.addressof(ctypes.c_char.from_buffer(mapping)), 16 * PAGE
    gc.collect()


def make(directory: Path, payload_bytes: int = 1 << 16, **wishes: object) -> Segment:
    """A segment in `directory` with the given wishes."""
    return Segment.create(
        NAME,
        payload_bytes,
        layout_hash=1,
        kind=1,
        segment_id=1,
        directory=directory,
        **wishes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-3,8\n", (0, 1, 2, 3, 8)), ("5", (5,)), ("", ()), ("\n", ()), ("0-1,4-5", (0, 1, 4, 5))]
)
def test_parse_cpu_list(text: str, numbers: tuple[int, ...]) -> None:
    """Kernel lists are read, the empty one of a node without cpus too."""
    assert parse_cpu_list(text) == numbers


def test_discover_reads_a_machine_of_two_nodes(tmp_path: Path) -> None:
    """Cpus, memory and distances come from sysfs, in order of node number; a node that cannot be read is left out."""
    for number, cpus, total in ((0, "0-3", 100), (10, "8-9", 300), (2, "4-7", 200)):
        folder = tmp_path / f"node{number}"
        folder.mkdir()
        (folder / "cpulist").write_text(cpus + "\n")
        (folder / "distance").write_text("10 21 31\n")
        (folder / "meminfo").write_text(f"Node {number} MemTotal: {total} kB\nNode {number} MemFree:   50 kB\n")
    (tmp_path / "node11").mkdir()
    (tmp_path / "online").write_text("0-2")
    nodes = discover(tmp_path)
    assert [node.id for node in nodes] == [0, 2, 10]
    assert nodes[1] == Node(2, (4, 5, 6, 7), 200 << 10, 50 << 10, (10, 21, 31))
    assert node_of_cpu(9, nodes) == 10 and node_of_cpu(64, nodes) is None


def test_discover_without_numa(tmp_path: Path) -> None:
    """A kernel without NUMA is one node that has every cpu; the machine at hand has at least one node."""
    (only,) = discover(tmp_path / "nothing")
    assert only.id == 0 and len(only.cpus) == os.cpu_count() and only.memory_bytes > only.free_bytes > 0
    assert all(node.memory_bytes > 0 for node in discover())


def test_untouched_pages_are_nowhere_and_prefault_places_them(memory: tuple[int, int]) -> None:
    """move_pages says ENOENT of untouched pages, and after pre-faulting one node for each; content stays."""
    assert (nodes_of(*memory) == -errno.ENOENT).all() and nodes_of(*memory).shape == (16,)
    assert numa.prefault(*memory) == Placement(prefaulted=True)
    known = {node.id for node in discover()}
    assert set(nodes_of(*memory).tolist()) <= known
    assert not any(ctypes.string_at(*memory))


def test_bind_then_check(memory: tuple[int, int]) -> None:
    """Memory bound to a node of this machine is found there, by count."""
    node = discover()[0].id
    got = numa.bind(*memory, node) | numa.prefault(*memory) | numa.check(*memory, node)
    if not got.notices:  # a sandbox may forbid the calls: then there is a notice instead
        assert got == Placement(node, ((node, 16),), prefaulted=True)


@pytest.mark.parametrize("node", [-1, 700, 1 << 20])
def test_bind_to_a_node_that_does_not_exist(memory: tuple[int, int], node: int) -> None:
    """A node that is not there is a sentence that names it; the memory works all the same."""
    (notice,) = numa.bind(*memory, node).notices
    assert f"node {node} " in notice and "stays where the kernel puts it" in notice
    assert numa.prefault(*memory).prefaulted


def test_unknown_machine_is_a_notice(memory: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor whose system calls are not known every answer is a notice."""
    monkeypatch.setattr(numa.platform, "machine", lambda: "vax")
    assert "not implemented" in numa.bind(*memory, 0).notices[0]
    assert (nodes_of(*memory) == -errno.ENOSYS).all()
    assert "cannot ask" in numa.check(*memory, 0).notices[0]


def test_pages_elsewhere_are_counted(memory: tuple[int, int]) -> None:
    """If pages are not on the wanted node, the notice says how many are."""
    numa.prefault(*memory)
    assert numa.check(*memory, 555).notices in (("0 of 16 pages are on NUMA node 555",), numa.check(*memory).notices)


def test_old_kernel_prefaults_by_reading(memory: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MADV_POPULATE_* every page is read once, and the notice says what that leaves."""
    ctypes.memset(memory[0], 7, memory[1])
    monkeypatch.setattr(numa, "_call", lambda *_: -errno.EINVAL)
    got = numa.prefault(*memory)
    assert got.prefaulted and "first write" in got.notices[0]
    assert ctypes.string_at(*memory) == b"\x07" * memory[1]


def test_lock_and_its_limit(memory: tuple[int, int]) -> None:
    """mlock is done where allowed; in a process without the right it is a notice that names the limit."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
            if os.geteuid() == 0:
                os.setuid(65534)
            got = numa.lock(*memory)
            status = 0 if not got.locked and "LimitMEMLOCK" in got.notices[0] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    got = numa.lock(*memory)
    assert got.locked != bool(got.notices)


def test_segment_reports_its_placement(tmp_path: Path) -> None:
    """A segment with every wish is made, and says of each wish what came of it."""
    with make(tmp_path, numa_node=discover()[0].id, lock=True, huge=True) as segment:
        got = segment.placement
        assert got.prefaulted and got.node_wanted == discover()[0].id
        assert got.locked or any("not locked" in notice for notice in got.notices)
        assert got.huge_bytes or any("no huge pages" in notice for notice in got.notices)
        assert sum(pages for _, pages in got.pages_by_node) in (0, 17)
        assert not segment.payload.any()


def test_prefault_of_an_attachment(tmp_path: Path) -> None:
    """Pre-faulting an attachment, read-only or not, puts its pages into the page table and changes nothing."""
    with make(tmp_path, prefault=False) as segment:
        assert not segment.placement.prefaulted
        segment.words[:] = 5
        for readonly in (True, False):
            with Segment.attach(NAME, directory=tmp_path, readonly=readonly) as other:
                assert other.prefault().prefaulted
                assert (nodes_of(other.words.ctypes.data, other.words.nbytes) >= 0).all() or numa.check(0, 1).notices
                assert (other.words == 5).all()


def fake(tmp_path: Path, mount: str, enabled: str) -> HugeSupport:
    """huge_support of a machine with one mount line and one shmem_enabled line."""
    (tmp_path / "mounts").write_text(f"rootfs / ext4 rw 0 0\n{mount}\n")
    (tmp_path / "enabled").write_text(enabled)
    (tmp_path / "size").write_text("2097152\n")
    return huge_support(Path("/place/of"), tmp_path / "mounts", tmp_path / "enabled", tmp_path / "size")


@pytest.mark.parametrize(
    ("mount", "enabled", "kind", "advise", "notice"),
    [
        ("tmpfs /place tmpfs rw,huge=always 0 0", "always [never] deny", "tmpfs", False, ""),
        ("tmpfs /place tmpfs rw,huge=within_size 0 0", "[never]", "tmpfs", False, ""),
        ("tmpfs /place/of tmpfs rw,huge=advise 0 0", "[never]", "tmpfs", True, ""),
        ("tmpfs /place tmpfs rw 0 0", "[never]", "none", False, "remount,huge=advise"),
        ("tmpfs /place tmpfs rw 0 0", "[always] never", "none", False, "without huge="),
        ("tmpfs /place tmpfs rw 0 0", "never [force]", "tmpfs", False, ""),
        ("tmpfs /place tmpfs rw,huge=always 0 0", "never [deny]", "none", False, "says deny"),
        ("tmpfs /plac tmpfs rw,huge=always 0 0", "[never]", "none", False, "is ext4"),
    ],
)
def test_huge_support_of_a_mount(tmp_path: Path, mount: str, enabled: str, kind: str, advise: bool, notice: str) -> None:
    """Mount options decide, force and deny overrule them, and each "no" says why."""
    got = fake(tmp_path, mount, enabled)
    assert (got.kind, got.advise) == (kind, advise) and notice in got.notice
    assert bool(got.notice) == (kind == "none") and got.page_bytes == (0 if kind == "none" else 2 << 20)


def test_huge_support_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    """Missing kernel files are a notice; smaps that are missing mean 0 bytes."""
    got = huge_support(tmp_path, tmp_path / "no", tmp_path / "no", tmp_path / "no")
    assert got.kind == "none" and "does not tell" in got.notice
    assert huge_bytes_of(0, tmp_path / "no") == 0


def mounted(point: Path, kind: str, options: str) -> bool:
    """Mount a file system for a test; False if the machine does not allow it."""
    point.mkdir()
    return os.geteuid() == 0 and not subprocess.run(["mount", "-t", kind, "-o", options, "scalper-test", point]).returncode


@pytest.mark.parametrize("option", ["always", "advise", "within_size"])
def test_huge_tmpfs(tmp_path: Path, option: str) -> None:
    """On a tmpfs with huge= a wish for huge pages is granted, or said not to be; without the wish nothing changes."""
    point = tmp_path / "huge"
    if not mounted(point, "tmpfs", f"size=32m,mode=0700,huge={option}"):
        pytest.skip("mounting a tmpfs with huge= needs root and transparent huge pages")
    try:
        with make(point, 3 << 20, huge=True) as segment:
            got = segment.placement
            # Free memory may be in pieces: huge pages are a wish. What must hold is that the answer is one of the two.
            assert got.huge_bytes in (0, 2 << 20, 4 << 20)
            assert bool(got.huge_bytes) != any("huge pages" in notice for notice in got.notices)
            segment.words[:] = np.arange(segment.words.size)
            with Segment.attach(NAME, directory=point) as other:
                assert (other.words == np.arange(segment.words.size)).all()
            segment.unlink()
        with make(point, 3 << 20) as segment:
            assert os.stat(segment.path).st_size == 4096 + (3 << 20)
    finally:
        gc.collect()
        subprocess.run(["umount", "-l", point], check=True)


def test_hugetlbfs(tmp_path: Path) -> None:
    """On hugetlbfs a segment lives on huge pages; one that does not fit is an error that names the setting."""
    from shm.errors import SegmentSpace

    free = int(Path("/proc/sys/vm/nr_hugepages").read_text())
    point = tmp_path / "tlb"
    if not mounted(point, "hugetlbfs", "pagesize=2M,mode=0700"):
        pytest.skip("mounting a hugetlbfs needs root")
    try:
        with pytest.raises(SegmentSpace, match="nr_hugepages"):
            make(point, (free + 64) << 21)
        assert not list(point.iterdir())
        if not free:
            pytest.skip("no huge pages set aside (/proc/sys/vm/nr_hugepages is 0); that this is reported was checked")
        with make(point, 1 << 20, huge=True) as segment:
            assert segment.placement.huge_bytes == 2 << 20 and os.stat(segment.path).st_size == 2 << 20
            segment.words[:] = 3
            with Segment.attach(NAME, directory=point, readonly=True) as other:
                assert (other.words == 3).all() and other.payload.size == 1 << 20
            segment.unlink()
    finally:
        gc.collect()
        subprocess.run(["umount", "-l", point], check=True)


def test_smaps_of_huge_mappings(tmp_path: Path) -> None:
    """huge_bytes_of reads the one mapping that holds the address: tmpfs by PMD-mapped bytes, hugetlbfs by its own counts."""
    (tmp_path / "smaps").write_text(
        "1000-3000 rw-s 0 00:1 1 /dev/shm/a\nKernelPageSize:        4 kB\nShmemPmdMapped:     2048 kB\nVmFlags: rd\n"
        "3000-5000 rw-s 0 00:1 1 /h/b\nKernelPageSize:     2048 kB\nShmemPmdMapped:        0 kB\nShared_Hugetlb:     4096 kB\n"
    )
    assert [huge_bytes_of(at, tmp_path / "smaps") for at in (0x1000, 0x2FFF, 0x3000, 0x5000)] == [2 << 20, 2 << 20, 4 << 20, 0]
    assert hugepages.SMAPS == Path("/proc/self/smaps")
