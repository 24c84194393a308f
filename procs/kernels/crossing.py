"""Compile for another level of CPU what a cache holds, running none of it: `python -P -m procs.kernels.crossing CACHE`.

`scripts/build-wheel` uses this for levels that its machine lacks. NUMBA_CPU_NAME says for which level, NUMBA_CACHE_DIR where to.
Kernels are found in CACHE by their modules, and there with the types for which they were compiled; for the same types they are
compiled again.
"""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path
from typing import Any

from numba.core import config
from numba.core.dispatcher import Dispatcher

from procs.kernels.keys import PACKAGES


def modules_in(cache: Path) -> list[str]:
    """The modules whose kernels lie in a cache that procs.kernels.locator has laid out."""
    found = set()
    for index in cache.rglob("*.nbi"):
        *rooms, name = index.relative_to(cache).parts
        if rooms and rooms[0] in PACKAGES:
            found.add(".".join([*(room.split("-")[0] for room in rooms), name.split(".")[0]]))
    return sorted(found)


def cross(cache: Path, into: Path) -> int:
    """Compile everything; the number of kernels."""
    config.CACHE_DIR = str(cache)
    for name in modules_in(cache):
        importlib.import_module(name)
    wanted: list[tuple[Any, Any]] = []
    dispatchers: list[Any] = [found for found in gc.get_objects() if isinstance(found, Dispatcher)]
    dispatchers = [found for found in dispatchers if hasattr(found._cache, "_cache_file")]
    for dispatcher in dispatchers:
        wanted += [(dispatcher, key[0]) for key in dispatcher._cache._cache_file._load_index()]
    config.CACHE_DIR = str(into)
    for dispatcher in dispatchers:
        dispatcher.enable_caching()
    for dispatcher, signature in wanted:
        dispatcher.compile(signature)
    return len(wanted)


if __name__ == "__main__":
    print(cross(Path(sys.argv[1]), Path(config.CACHE_DIR)), "kernels")
