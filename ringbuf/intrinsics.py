"""Atomics, fences and the few system calls that compiled code makes itself.

A plain `while a[0] == 0` is hoisted by LLVM into an endless jump, so every word that another process may change is
read and written through these. On x86-64 acquire loads and release stores compile to plain `mov` (total store
order); what they forbid is the compiler's reordering.

All take an int64 array and an index. No bounds are checked: callers pass indices from ringbuf.layout.
Not here: anything that knows what the words mean.
"""

# numba intrinsics are compile-time generators: mypy sees only Any there.
from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

I64: Final = ir.IntType(64)
I32: Final = ir.IntType(32)
I8P: Final = ir.IntType(8).as_pointer()

SYS_SCHED_YIELD: Final = 24
SYS_FUTEX: Final = 202
SYS_MEMBARRIER: Final = 324
FUTEX_WAIT: Final = 0
FUTEX_WAKE: Final = 1
MEMBARRIER_GLOBAL_EXPEDITED: Final = 1 << 1
MEMBARRIER_REGISTER_GLOBAL_EXPEDITED: Final = 1 << 2
CLOCK_MONOTONIC: Final = 1


def _pointer(context: Any, builder: Any, arrtype: Any, arr: Any, index: Any) -> Any:
    array = context.make_array(arrtype)(context, builder, arr)
    return builder.gep(array.data, [index])


def _pointer2(context: Any, builder: Any, arrtype: Any, arr: Any, row: Any, column: Any) -> Any:
    array = context.make_array(arrtype)(context, builder, arr)
    width = builder.extract_value(array.shape, 1)
    return builder.gep(array.data, [builder.add(builder.mul(row, width), column)])


@intrinsic
def load_acquire(typingctx: Any, arr: Any, index: Any) -> Any:
    """`arr[index]`, not before which any later access moves. int64[::1], int64 -> int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(context, builder, sig.args[0], args[0], args[1]), "acquire", 8)

    return types.int64(arr, types.int64), codegen


@intrinsic
def store_release(typingctx: Any, arr: Any, index: Any, value: Any) -> Any:
    """`arr[index] = value`, after which no earlier access moves."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[2], _pointer(context, builder, sig.args[0], args[0], args[1]), "release", 8)
        return context.get_dummy_value()

    return types.void(arr, types.int64, types.int64), codegen


@intrinsic
def load_acquire2(typingctx: Any, arr: Any, row: Any, column: Any) -> Any:
    """`arr[row, column]` with acquire order. int64[:, ::1]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer2(context, builder, sig.args[0], *args), "acquire", 8)

    return types.int64(arr, types.int64, types.int64), codegen


@intrinsic
def store_release2(typingctx: Any, arr: Any, row: Any, column: Any, value: Any) -> Any:
    """`arr[row, column] = value` with release order. int64[:, ::1]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[3], _pointer2(context, builder, sig.args[0], *args[:3]), "release", 8)
        return context.get_dummy_value()

    return types.void(arr, types.int64, types.int64, types.int64), codegen


@intrinsic
def copy_words(typingctx: Any, target: Any, to: Any, source: Any, start: Any, count: Any) -> Any:
    """`target[to:to + count] = source[start:start + count]` of two int64[::1] that do not overlap: three times a loop's speed."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        there = _pointer(context, builder, sig.args[0], args[0], args[1])
        here = _pointer(context, builder, sig.args[2], args[2], args[3])
        cgutils.raw_memcpy(builder, there, here, args[4], 8)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), codegen


def _read_modify_write(operation: str) -> Any:
    def typing(typingctx: Any, arr: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
            return builder.atomic_rmw(operation, pointer, args[2], "seq_cst")

        return types.int64(arr, types.int64, types.int64), codegen

    return typing


fetch_add = intrinsic(_read_modify_write("add"))  # type: ignore[arg-type,unused-ignore]
fetch_or = intrinsic(_read_modify_write("or"))  # type: ignore[arg-type,unused-ignore]
fetch_and = intrinsic(_read_modify_write("and"))  # type: ignore[arg-type,unused-ignore]
exchange = intrinsic(_read_modify_write("xchg"))  # type: ignore[arg-type,unused-ignore]


def _fence(order: str) -> Any:
    def typing(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.fence(order)
            return context.get_dummy_value()

        return types.void(), codegen

    return typing


fence_acquire = intrinsic(_fence("acquire"))
fence_release = intrinsic(_fence("release"))
fence = intrinsic(_fence("seq_cst"))


def _void_intrinsic(name: str) -> Any:
    def typing(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), name)
            builder.call(function, [])
            return context.get_dummy_value()

        return types.void(), codegen

    return typing


pause = intrinsic(_void_intrinsic("llvm.x86.sse2.pause"))


@intrinsic
def evict(typingctx: Any, arr: Any, index: Any) -> Any:
    """Drop the cache line of `arr[index]` from all caches (clflush): the next access goes to memory. For measurements."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.bitcast(_pointer(context, builder, sig.args[0], *args), I8P)
        signature = ir.FunctionType(ir.VoidType(), [I8P])
        builder.call(cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.sse2.clflush"), [pointer])
        return context.get_dummy_value()

    return types.void(arr, types.int64), codegen


@intrinsic
def cycles(typingctx: Any) -> Any:
    """The time-stamp counter (rdtsc), about 10 ns a call; its rate is the machine's, see procs doctor."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, []), "llvm.readcyclecounter")
        return builder.call(function, [])

    return types.int64(), codegen


def _clock(builder: Any, clock_id: int) -> Any:
    timespec = ir.LiteralStructType([I64, I64])
    spot = cgutils.alloca_once(builder, timespec)
    signature = ir.FunctionType(I32, [I32, timespec.as_pointer()])
    function = cgutils.get_or_insert_function(builder.module, signature, "clock_gettime")
    builder.call(function, [I32(clock_id), spot])
    value = builder.load(spot)
    seconds, nanos = builder.extract_value(value, 0), builder.extract_value(value, 1)
    return builder.add(builder.mul(seconds, I64(1_000_000_000)), nanos)


@intrinsic
def mono_ns(typingctx: Any) -> Any:
    """CLOCK_MONOTONIC in ns (vDSO, no system call)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _clock(builder, CLOCK_MONOTONIC)

    return types.int64(), codegen


def _syscall(builder: Any, number: int, *args: Any) -> Any:
    """libc's `syscall`: the result, or -1. A null pointer stands for an absent argument."""
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, [I64], var_arg=True), "syscall")
    return builder.call(function, [I64(number), *args])


@intrinsic
def futex_wait(typingctx: Any, arr: Any, index: Any, expected: Any, timeout_ns: Any) -> Any:
    """Sleep while the low 32 bits of `arr[index]` equal those of `expected`, at most `timeout_ns`; 0 woken, -1 else.

    The word may be shared between processes (no FUTEX_PRIVATE_FLAG).
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = _pointer(context, builder, sig.args[0], args[0], args[1])
        timespec = ir.LiteralStructType([I64, I64])
        spot = cgutils.alloca_once(builder, timespec)
        billion = I64(1_000_000_000)
        seconds, nanos = builder.sdiv(args[3], billion), builder.srem(args[3], billion)
        value = builder.insert_value(builder.insert_value(ir.Constant(timespec, ir.Undefined), seconds, 0), nanos, 1)
        builder.store(value, spot)
        low = builder.and_(args[2], I64(0xFFFFFFFF))
        return _syscall(builder, SYS_FUTEX, word, I64(FUTEX_WAIT), low, spot, I64(0), I64(0))

    return types.int64(arr, types.int64, types.int64, types.int64), codegen


@intrinsic
def futex_wake(typingctx: Any, arr: Any, index: Any, count: Any) -> Any:
    """Wake up to `count` sleepers of `arr[index]`; how many were woken."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = _pointer(context, builder, sig.args[0], args[0], args[1])
        return _syscall(builder, SYS_FUTEX, word, I64(FUTEX_WAKE), args[2], I64(0), I64(0), I64(0))

    return types.int64(arr, types.int64, types.int64), codegen


@intrinsic
def membarrier(typingctx: Any, command: Any) -> Any:
    """membarrier(2); 0, or -1 where the kernel refuses."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _syscall(builder, SYS_MEMBARRIER, args[0], I64(0), I64(0))

    return types.int64(types.int64), codegen


@intrinsic
def sched_yield(typingctx: Any) -> Any:
    """Let another runnable task have the core."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _syscall(builder, SYS_SCHED_YIELD)
        return context.get_dummy_value()

    return types.void(), codegen


def _array_at(context: Any, builder: Any, array_type: Any, address: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> Any:
    array = context.make_array(array_type)(context, builder)
    data = builder.inttoptr(address, array.data.type)
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
    arrayobj.populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()


@intrinsic
def words_at(typingctx: Any, address: Any, count: Any) -> Any:
    """An int64[::1] view of `count` words at an address. Nobody counts references to it: the caller keeps the memory."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _array_at(context, builder, sig.return_type, args[0], (args[1],), (I64(8),))

    return types.Array(types.int64, 1, "C")(types.int64, types.int64), codegen


@intrinsic
def words2_at(typingctx: Any, address: Any, rows: Any, width: Any) -> Any:
    """An int64[:, ::1] view of `rows` times `width` words at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        strides = (builder.mul(args[2], I64(8)), I64(8))
        return _array_at(context, builder, sig.return_type, args[0], (args[1], args[2]), strides)

    return types.Array(types.int64, 2, "C")(types.int64, types.int64, types.int64), codegen


@intrinsic
def bytes_at(typingctx: Any, address: Any, count: Any) -> Any:
    """A uint8[::1] view of `count` bytes at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _array_at(context, builder, sig.return_type, args[0], (args[1],), (I64(1),))

    return types.Array(types.uint8, 1, "C")(types.int64, types.int64), codegen


@intrinsic
def recs_at(typingctx: Any, address: Any, count: Any, dtype: Any) -> Any:
    """A view of `count` records of a structured dtype (a global of the kernel) at an address, which must suit its alignment."""
    record = dtype.dtype if isinstance(dtype, types.DType) else dtype
    array_type = types.Array(record, 1, "C")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _array_at(context, builder, sig.return_type, args[0], (args[1],), (I64(record.size),))

    return array_type(types.int64, types.int64, dtype), codegen
