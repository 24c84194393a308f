"""The decorators for compiled kernels, so that all are compiled alike.

`cache=True` keeps machine code on disk (the start-up code keys the cache directory by a hash of all kernel
sources, because numba does not notice an edited *imported* kernel), `nogil` lets a hot loop run beside the
main thread, `error_model="numpy"` spares the check before each division: kernels guard their divisors.
No fastmath: results must not depend on how LLVM reorders a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_compiled: Final = njit(cache=True, nogil=True, error_model="numpy")
_compiled_lean: Final = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)


def _widened(kind: Any) -> Any:
    """The type that an argument is passed as: int64 for a literal, an IntEnum's member and any narrower signed integer."""
    kind = types.unliteral(kind)
    if isinstance(kind, types.IntEnumMember):
        kind = kind.dtype
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


def lean(function: Callable[..., Any]) -> Any:
    """`kernel` without numba's runtime: for kernels that take a fold's arrays in one tuple.

    numba counts a reference, with a locked instruction, whenever an array is taken out of a tuple: 65 ns instead of 25 in
    three nested calls [measured]. Without the runtime there is nothing to count with, and nothing to allocate with: a
    lean kernel that would allocate does not compile. It may not return an array.
    """
    return general(_compiled_lean(function))


@intrinsic(prefer_literal=True)
def move(typingctx: Any, to: Any, source: Any, words: Any) -> Any:
    """Copy so many 8-byte words, a literal, from the start of one array to that of another; they may not overlap.

    Of float64 into float32 it narrows each. A loop of a known length over fields of records becomes a load and a store for each
    word, since LLVM cannot know that they do not overlap; here all are loaded, four at once, before the first is stored.
    """
    kinds = to.dtype, source.dtype
    narrow = kinds == (types.float32, types.float64)
    if not isinstance(words, types.IntegerLiteral) or not (narrow or kinds[0] == kinds[1] in (types.int64, types.float64)):
        return None
    double, count = ir.DoubleType(), words.literal_value
    element, size = (ir.FloatType(), 4) if narrow else (double, 8)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        there, here = (context.make_array(sig.args[k])(context, builder, args[k]).data for k in (0, 1))

        def at(base: Any, k: int, kind: Any) -> Any:
            place = builder.gep(base, [ir.Constant(ir.IntType(64), k)])
            return builder.bitcast(place, ir.VectorType(kind, min(4, count - k)).as_pointer())

        loaded = [builder.load(at(here, k, double), align=8) for k in range(0, count, 4)]
        for k, value in zip(range(0, count, 4), loaded, strict=True):
            if narrow:
                value = builder.fptrunc(value, ir.VectorType(element, min(4, count - k)))
            builder.store(value, at(there, k, element), align=size)
        return context.get_dummy_value()

    return types.void(to, source, words), codegen


@intrinsic
def lowest_bit(typingctx: Any, word: Any) -> Any:
    """Index of the lowest set bit of an int64; 64 when none is set."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


@intrinsic
def record_at(typingctx: Any, address: Any, k: Any, dtype: Any) -> Any:
    """Record number k of an array of a structured dtype (a global of the kernel) that begins at an address."""
    record = dtype.dtype if isinstance(dtype, types.DType) else dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = builder.add(args[0], builder.mul(args[1], ir.Constant(ir.IntType(64), record.size)))
        return builder.inttoptr(at, context.get_value_type(sig.return_type))

    return record(types.int64, types.int64, dtype), codegen


checked_kernel: Final = njit(cache=True, nogil=True, error_model="numpy", boundscheck=True)
"""For code of users: an index out of bounds is an error that the caller sees, not memory that is not theirs."""

Recs = npt.NDArray[np.void]
"""A one-dimensional array of records (see trading.records), or of state records."""

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
