"""Which compiled kernels this process uses: those that came with the program where they serve, else what is compiled here.

`chosen()` gives the cache folder, made if missing; `Choice.variables()` is the environment that makes numba use it, to be set
before numba is imported. SCALPER_KERNELS=compile leaves the program's own kernels aside.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from procs import rundir
from procs.kernels import keys, packs

CACHES_KEPT: Final = 4
LOCATOR: Final = "procs.kernels.locator.BySource"
WISH: Final = "SCALPER_KERNELS"
CACHE_DIR: Final = "NUMBA_CACHE_DIR"


@dataclass(frozen=True, slots=True)
class Choice:
    """The kernels that are used."""

    folder: Path
    level: str  # of x86-64 that they are compiled for; "": this very CPU
    ours: bool  # they came with the program
    why: str  # why those that came with the program are not used, as a sentence; "" if there are none, or if they are

    def variables(self) -> dict[str, str]:
        """The environment of a process that shall use them."""
        return numba_variables(self.folder, self.level)


def numba_variables(folder: Path | str, level: str = "") -> dict[str, str]:
    """The environment that makes numba keep its code in this folder, and compile for this level ("": as it would anyhow)."""
    target = {keys.CPU_NAME: level, keys.CPU_FEATURES: ""} if level else {}
    return {CACHE_DIR: str(folder), "NUMBA_CACHE_LOCATOR_CLASSES": LOCATOR, **target}


def chosen(extra: Iterable[Path] = (), kernel_packs: Path = packs.PACKS) -> Choice:
    """The kernels to use and their folder, made if missing; the oldest of more than CACHES_KEPT are removed.

    Raises rundir.RunDirError if the folder cannot be made.
    """
    base, sources = rundir.kernels_base(), keys.sources_key(extra)
    asked = keys.asked_level()
    other_cpu = not asked and (keys.CPU_NAME in os.environ or keys.CPU_FEATURES in os.environ)
    level, why = "", ""
    if not (other_cpu or keys.asked_of_numba() or os.environ.get(WISH) == "compile"):  # packs are made with numba's own settings
        level, why = packs.fit(kernel_packs, sources, [asked] if asked else keys.levels_of(keys.cpu()))
    folder = base / keys.kernel_key(sources, level or asked)
    fresh = not folder.exists()
    if level and fresh:
        try:
            packs.unpack(kernel_packs, level, folder)
        except (packs.PackError, OSError) as error:
            level, why = "", str(error)
            folder = base / keys.kernel_key(sources, asked)
            fresh = not folder.exists()
    if why:
        why = f"the kernels that came with the program are not used, {why}: they are compiled here, which takes some minutes once"
    return Choice(_made(folder, fresh), level or asked, bool(level), why)


def _made(folder: Path, fresh: bool) -> Path:
    """The folder, ours and marked as used; where it is new, the oldest others go."""
    rundir.own_folder(folder)
    os.utime(folder)
    if fresh:
        with contextlib.suppress(OSError):
            old = sorted((f for f in folder.parent.iterdir() if f != folder), key=lambda f: f.stat().st_mtime, reverse=True)
            for stale in old[CACHES_KEPT - 1 :]:
                shutil.rmtree(stale, ignore_errors=True)
    return folder


def compiled(folder: Path) -> bool:
    """Whether every stage's kernels are in this cache."""
    return (folder / packs.COMPLETE).exists()


def use() -> Choice | None:
    """Make this process and its children use them; before numba is imported. None where the environment names a cache already."""
    if CACHE_DIR in os.environ:
        return None
    found = chosen()
    os.environ.update(found.variables())
    return found
