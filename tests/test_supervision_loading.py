"""Loading kernels without what only compiling needs: the same answers, and the compiler where it is wanted after all."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import warm_kernels

from procs.kernels import choice
from procs.supervision import compiling

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


AT_ONCE = """
import json, sys
from procs.supervision import at_once
at_once_is_possible = at_once.compile_at_once()
import kernels
said = {"possible": at_once_is_possible, "outer": kernels.outer(5)}
said["parts"] = at_once.PART in kernels.inner.overloads[next(iter(kernels.inner.overloads))].library.__dict__
said["inner"] = kernels.inner(6)
said["whole"] = at_once.PART not in kernels.inner.overloads[next(iter(kernels.inner.overloads))].library.__dict__
said["later"] = kernels.later(6)
print(json.dumps(said))
"""


def test_what_only_kernels_call_is_compiled_into_them_alone(tmp_path: Path) -> None:
    """A callee gets no code of its own until Python calls it; answers are numba's own, and the cache serves numba's own way."""
    (tmp_path / "kernels.py").write_text(KERNELS)
    root = str(Path(__file__).resolve().parent.parent)
    env = dict(os.environ) | {"PYTHONPATH": f"{root}{os.pathsep}{tmp_path}", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-P", "-c", AT_ONCE], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"possible": True, "outer": 3, "parts": True, "inner": 19, "whole": True, "later": 26}
    loaded = said_by(tmp_path, "as ever", "outer", "inner", "later")
    assert loaded["hits"] == 3 and loaded["answers"] == [3, 16, 22 + 1]


QUICKLY = """
import hashlib, sys
from numba import types
if "quick" in sys.argv:
    from procs.kernels import quick_numba
    assert quick_numba.quicken()
from ringbuf.ring import published_tail
from trading.features.rolling_rank import add
words, floats, whole, number = types.Array(types.int64, 1, "C"), types.Array(types.float64, 1, "C"), types.int64, types.float64
for kernel, takes in (
    (published_tail, (words, types.Array(types.int64, 2, "C"), whole)),
    (add, (floats, whole, number, number, number, number, whole)),
):
    kernel.compile(takes)
    lines = [line for line in kernel.inspect_asm(takes).splitlines() if line.startswith("\\t") and not line.startswith("\\t.")]
    print(len(lines), hashlib.sha256("".join(lines).encode()).hexdigest())
"""


def test_quick_numba_makes_the_same_machine_code(tmp_path: Path) -> None:
    """With what numba does only for its developers left out, two kernels of ours come out instruction for instruction."""
    said = []
    for mode in ("as ever", "quick"):
        env = {name: text for name, text in os.environ.items() if not name.startswith("NUMBA_")}
        env |= {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "NUMBA_CACHE_DIR": str(tmp_path / mode)}
        command = [sys.executable, "-P", "-c", QUICKLY, mode]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1] and all(int(line.split()[0]) > 20 for line in said[0].splitlines()) and said[0].count("\n") == 2


def test_what_tests_share_is_compiled_where_they_look_for_it(tmp_path: Path) -> None:
    """The processes that compile it name numba's locator as pipelines and tests do, and the cache that they were given."""
    told = warm_kernels.environment(tmp_path)
    assert told.items() >= choice.numba_variables(tmp_path).items() and told[choice.CACHE_DIR] == str(tmp_path)


def test_the_loop_of_all_stages_is_compiled_by_itself() -> None:
    """What is compiled once for all stages exists, and takes one array: a stage's block, or a group's words."""
    for module, kernel in compiling.LOOP_KERNELS:
        compiled = getattr(importlib.import_module(module), kernel)
        assert list(inspect.signature(compiled.py_func).parameters.values())[0].annotation == "Words", kernel
