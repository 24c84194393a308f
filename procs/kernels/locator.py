"""Tells numba where a kernel's machine code lies: below the cache folder, by its module's place in the project, not on the disk.

numba's own way has the absolute path of the source in it, so that a second clone or an installation would compile everything
again. The folder itself is named by all kernel sources (procs.kernels.keys). Rooms without kernels of others are left out of that
name, so their own folders carry a hash of the room. Files of others (a user's signals, tests) lie where numba puts them.

numba imports this module by NUMBA_CACHE_LOCATOR_CLASSES, in whatever process compiles; it imports nothing of ours but the table,
and what makes numba quick (procs.kernels.quick_numba), which begins here.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Final

import numba
from numba.core.caching import UserProvidedCacheLocator

from procs.kernels import quick_numba
from procs.kernels.keys import NO_KERNELS, PACKAGES, ROOT

quick_numba.quicken()
NUMBA: Final = Path(numba.__file__).resolve().parent


@functools.cache
def _place(folder: str) -> str:
    """Where kernels of this folder lie, relative to the cache; "" if the folder is neither the project's nor numba's."""
    real = Path(folder).resolve()
    if real.is_relative_to(NUMBA):
        return ("numba" / real.relative_to(NUMBA)).as_posix()
    room = real.relative_to(ROOT) if real.is_relative_to(ROOT) else None
    if room is None or not room.parts or room.parts[0] not in PACKAGES:
        return ""
    if room.as_posix() not in NO_KERNELS:
        return room.as_posix()
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(real.glob("*.py")):
        raw = file.read_bytes()
        digest.update(f"{file.name}:{len(raw)}:".encode() + raw)
    return f"{room.as_posix()}-{digest.hexdigest()}"


class BySource(UserProvidedCacheLocator):
    """numba's locator for NUMBA_CACHE_DIR, but for the name of the folder."""

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """The folder below the cache in which the code of this file's kernels lies."""
        return _place(str(Path(py_file).parent)) or super().get_suitable_cache_subpath(py_file)
