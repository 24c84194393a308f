"""Order of stores made from Python. For headers only; compiled loops have ringbuf's atomics.

CPython stores a numpy int64 element with one 8-byte `mov`, and does not reorder statements. What is left is the
processor: x86 keeps stores in order, so there a plain store *is* a release store. Elsewhere membarrier(GLOBAL) puts a
barrier on every running thread of the machine, which takes milliseconds and needs no partner; headers are written
a few times in a pipeline's life.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Final

import numpy as np
import numpy.typing as npt

_MEMBARRIER: Final = {"aarch64": 283, "riscv64": 283}
_MEMBARRIER_GLOBAL: Final = 1
STORES_IN_ORDER: Final = platform.machine() in ("x86_64", "AMD64")

assert STORES_IN_ORDER or platform.machine() in _MEMBARRIER, f"no store order known for {platform.machine()}"


def store_release(words: npt.NDArray[np.int64], index: int, value: int) -> None:
    """Store words[index] = value after every earlier store is visible to other processes."""
    if not STORES_IN_ORDER:
        ctypes.CDLL(None, use_errno=True).syscall(_MEMBARRIER[platform.machine()], _MEMBARRIER_GLOBAL, 0, 0)
    words[index] = value
