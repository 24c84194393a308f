"""One decorator for every compiled kernel, so that all are compiled alike.

`cache=True` keeps machine code on disk (the start-up code keys the cache directory by a hash of all kernel
sources, because numba does not notice an edited *imported* kernel), `nogil` lets a hot loop run beside the
main thread, `error_model="numpy"` spares the check before each division: kernels guard their divisors.
No fastmath: results must not depend on how LLVM reorders a sum.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

kernel: Final = njit(cache=True, nogil=True, error_model="numpy")

Recs = npt.NDArray[np.void]
"""A one-dimensional array of records (see trading.records), or of state records."""

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
