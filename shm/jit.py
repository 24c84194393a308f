"""One decorator for every compiled kernel of shm, and the two instructions that numba has no word for.

The options are those of trading/jit.py (which shm must not import): `cache` keeps machine code on disk, `nogil` lets a
hot loop run beside the main thread, `error_model="numpy"` spares the check before each division. No fastmath.

The atomics that move ring indices are not here: ringbuf owns them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as numba_intrinsic

_compiled: Final[Any] = njit(cache=True, nogil=True, error_model="numpy")
intrinsic: Final[Any] = numba_intrinsic  # its stubs count the typing context among a call's arguments

Words = npt.NDArray[np.int64]


def _widened(kind: Any) -> Any:
    """The type that an argument is passed as: int64 for a literal and for any narrower signed integer."""
    kind = types.unliteral(kind)
    return types.int64 if isinstance(kind, types.Integer) and kind.signed and kind.bitwidth < 64 else kind


def general(compiled: Any) -> Any:
    """Make a kernel be compiled once for all integers that other kernels pass it; answers the kernel.

    Left alone, numba compiles a callee anew for every literal (`emit(b, 0, ...)`, `emit(b, 1, ...)`) and every width of a
    record's field: 350 compilations instead of 240 in the feed, a fifth of its time [measured]. It gains nothing by that,
    since LLVM sees the literal again wherever it inlines the callee.
    """
    template = compiled.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return template([_widened(kind) for kind in args], {name: _widened(kind) for name, kind in kws.items()})

    compiled.get_call_template = get_call_template
    return compiled


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called."""
    return general(_compiled(function))


@intrinsic
def leading_zeros(typingctx: Any, value: Any) -> Any:
    """Number of zero bits above the highest set bit of an int64 (64 for zero): one instruction."""
    if value not in (types.int64, types.uint64):
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(value), generate


@intrinsic
def store_relaxed(typingctx: Any, words: Any, index: Any, value: Any) -> Any:
    """Store an int64 at words[index] such that a reader in another process gets to see it: a plain `mov` on x86.

    An ordinary store would do the same work, but the compiler may keep a value that it stores in every turn of an
    endless loop in a register and never write it. No bounds are checked.
    """
    if not isinstance(words, types.Array) or words.dtype != types.int64 or words.ndim != 1:
        return None

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        at = builder.gep(array.data, [context.cast(builder, args[1], signature.args[1], types.intp)])
        builder.store_atomic(context.cast(builder, args[2], signature.args[2], types.int64), at, "monotonic", 8)
        return context.get_dummy_value()

    return types.void(words, index, value), generate
