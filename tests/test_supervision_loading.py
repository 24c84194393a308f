"""Loading kernels without what only compiling needs: the same answers, and the compiler where it is wanted after all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

KERNELS = """
from numba import njit

@njit(cache=True)
def inner(n):
    return 3 * n + 1

@njit(cache=True)
def outer(n):
    return inner(n) - inner(n - 1)

@njit(cache=True)
def later(n):
    return inner(n) + 7
"""
PROGRAM = """
import json, sys
from procs.supervision import loading
import kernels
lean, calls = loading.load_lean() if sys.argv[1] == "lean" else None, sys.argv[2:]
said = {"lean": lean, "answers": [getattr(kernels, name)(5) for name in calls]}
said["heavy"] = "numba.np.linalg" in sys.modules
said["hits"] = sum(sum(getattr(kernels, name).stats.cache_hits.values()) for name in calls)
loading.forget_bitcode()
found = [one.library for name in calls for one in getattr(kernels, name).overloads.values()]
said["kept"] = [loading.KEPT in one.__dict__ or one._shared_module is not None for one in found]
said["after"] = [getattr(kernels, name)(6) for name in calls]
print(json.dumps(said))
"""


def said_by(folder: Path, *words: str) -> dict[str, Any]:
    """What the program prints in a process of its own, with the cache in `folder`."""
    (folder / "kernels.py").write_text(KERNELS) if not (folder / "kernels.py").exists() else None
    root = str(Path(__file__).resolve().parent.parent)
    env = dict(os.environ) | {"PYTHONPATH": f"{root}{os.pathsep}{folder}", "NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM, *words], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_kernels_load_without_the_compiler_and_it_comes_when_it_is_needed(tmp_path: Path) -> None:
    """Cached kernels answer alike and bring no implementation in; one that the cache lacks links a loaded one's bitcode."""
    compiled = said_by(tmp_path, "as ever", "outer", "inner")
    assert compiled["answers"] == [3, 16] and compiled["heavy"] and compiled["hits"] < 2
    loaded = said_by(tmp_path, "lean", "outer", "inner")
    assert loaded["lean"] and loaded["hits"] == 2 and not loaded["heavy"]
    assert (loaded["answers"], loaded["after"], loaded["kept"]) == ([3, 16], [3, 19], [False, False])
    missed = said_by(tmp_path, "lean", "inner", "later")
    assert missed["answers"] == [16, 23] and missed["heavy"] and missed["hits"] == 1
