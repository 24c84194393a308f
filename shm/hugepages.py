"""Huge pages under shared memory: what the place of the segments offers, and what a mapping got.

Two ways lead there, and both are the machine's owner's decision:
  - a hugetlbfs mount (pages set aside beforehand): name it as the directory of the segments;
  - a tmpfs mounted with huge=always, within_size or advise. For /dev/shm: `mount -o remount,huge=advise /dev/shm`.
/sys/kernel/mm/transparent_hugepage/shmem_enabled governs mounts only through `force` and `deny`; its other words are
for memory that has no mount (memfd, System V).

When to use: rings and state beyond a few MiB on cores of their own. A segment takes whole
huge pages, its header included, and one that is smaller than a page gains nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shm.backing import SHM_DIRECTORY

MOUNTS: Final = Path("/proc/self/mounts")
SHMEM_ENABLED: Final = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
PMD_SIZE: Final = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
SMAPS: Final = Path("/proc/self/smaps")


@dataclass(frozen=True, slots=True)
class HugeSupport:
    """What a place offers. `kind`: hugetlbfs, tmpfs or none; `page_bytes`: 0 with none; `notice`: why there are none.

    `advise`: a mapping must ask by madvise.
    """

    kind: str
    page_bytes: int
    advise: bool = False
    notice: str = ""


def _mount_of(directory: Path, mounts: Path) -> tuple[str, list[str]]:
    """(file system type, options) of the mount that holds a directory; ("", []) if it is not listed."""
    target = os.path.realpath(directory)
    best: tuple[int, str, list[str]] = (-1, "", [])
    for line in mounts.read_text().splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        point = fields[1].replace("\\040", " ")
        # the last of several mounts on one point is the one in force, hence >=
        if (target == point or target.startswith(point.rstrip("/") + "/")) and len(point) >= best[0]:
            best = (len(point), fields[2], fields[3].split(","))
    return best[1], best[2]


def huge_support(
    directory: Path | None = None, mounts: Path = MOUNTS, shmem_enabled: Path = SHMEM_ENABLED, pmd_size: Path = PMD_SIZE
) -> HugeSupport:
    """What huge pages segments in `directory` (None: /dev/shm) can get. Raises nothing."""
    place = directory or SHM_DIRECTORY
    try:
        kind, options = _mount_of(place, mounts)
        if kind == "hugetlbfs":
            return HugeSupport("hugetlbfs", os.statvfs(place).f_bsize)
        if kind != "tmpfs":
            return HugeSupport("none", 0, notice=f"no huge pages: {place} is {kind or 'no mount'}, neither tmpfs nor hugetlbfs")
        page_bytes = int(pmd_size.read_text())
        chosen = re.search(r"\[(\w+)\]", shmem_enabled.read_text())
        system = chosen[1] if chosen else "never"
    except (OSError, ValueError) as error:
        return HugeSupport("none", 0, notice=f"no huge pages: this kernel does not tell ({error})")
    wish = next((option[5:] for option in options if option.startswith("huge=")), "never")
    if system == "deny":
        return HugeSupport("none", 0, notice=f"no huge pages: {shmem_enabled} says deny")
    if system == "force" or wish in ("always", "within_size"):
        return HugeSupport("tmpfs", page_bytes)
    if wish == "advise":
        return HugeSupport("tmpfs", page_bytes, advise=True)
    remedy = f"`mount -o remount,huge=advise {place}` allows them"
    return HugeSupport("none", 0, notice=f"no huge pages: {place} is mounted without huge=; {remedy}")


def huge_bytes_of(address: int, smaps: Path = SMAPS) -> int:
    """Bytes of the mapping at `address` that huge pages map into this process; 0 also if the kernel does not tell."""
    inside, kernel_page, resident, huge = False, 0, 0, 0
    try:
        lines = smaps.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            if inside:
                break
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside:
            key, _, value = line.partition(":")
            amount = value.split()[0] if value.split() else "0"
            if key == "KernelPageSize":
                kernel_page = int(amount) << 10
            elif key in ("Shared_Hugetlb", "Private_Hugetlb"):
                resident += int(amount) << 10
            elif key in ("ShmemPmdMapped", "FilePmdMapped"):
                huge += int(amount) << 10
    return resident if kernel_page > os.sysconf("SC_PAGESIZE") else huge
