"""The decorator for ring kernels: compiled once and cached, without the GIL, without allocation."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

kernel: Final = njit(cache=True, nogil=True, error_model="numpy")

Words = npt.NDArray[np.int64]
Recs = npt.NDArray[np.void]
AnyArray = npt.NDArray[Any]
