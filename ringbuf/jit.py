"""The decorators for compiled loops: compiled once and cached, without the GIL, without allocation.

Two, because of reference counts. numba counts a reference for every array of a tuple at every call, with a locked
instruction each, and keeps about twenty of them in a push and a pop: 235 ns a record instead of 7 on one core. Without
its runtime there is nothing to count with and nothing to allocate with: a `lean` kernel that would allocate does not
compile. What it may not do is return an array that it was not given; such kernels stay with `kernel`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from shm.jit import general

_compiled: Final = njit(cache=True, nogil=True, error_model="numpy")
_compiled_lean: Final = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called."""
    return general(_compiled(function))


def lean(function: Callable[..., Any]) -> Any:
    """`kernel` without numba's runtime."""
    return general(_compiled_lean(function))


Words = npt.NDArray[np.int64]
Recs = npt.NDArray[np.void]
