"""What the decorators of trading.jit promise: an enum's member is a number, a tuple of arrays is free, a callee compiles once."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import pytest

from trading.jit import Recs, kernel, lean
from trading.records import ORDER_RECORD, ExecType, Kind, Refusal, Side

TABLE = np.arange(10)


class Pair(NamedTuple):
    """Two arrays that go together."""

    first: Recs
    second: Recs


@kernel
def same(value: int) -> int:
    """The value."""
    return value


@kernel
def with_members(recs: Recs) -> tuple[int, int, int, int, int, int]:
    """Compare, index, shift, negate, choose and call with members; store one."""
    rec = recs[0]
    refusal = Refusal.NONE
    if rec.kind == Kind.NEW and Kind.DEPTH <= rec.kind <= Kind.RESUME and rec.side == Side.SELL:
        refusal = Refusal.MAX_QTY
    rec.refusal = refusal
    fill = ExecType.FILL
    return same(Kind.NEW), same(refusal), TABLE[fill], 1 << fill, -refusal, same(rec.kind) + same(7)


@kernel
def with_numbers(recs: Recs) -> tuple[int, int, int, int, int, int]:
    """The same with the numbers themselves."""
    rec = recs[0]
    refusal = 0
    if rec.kind == 40 and 10 <= rec.kind <= 61 and rec.side == -1:
        refusal = 7
    rec.refusal = refusal
    fill = 3
    return same(40), same(refusal), TABLE[fill], 1 << fill, -refusal, same(rec.kind) + same(7)


@lean
def taken_apart(pair: Pair) -> int:
    """Take both arrays out of the tuple, write to one."""
    pair.second[0].qty_lots = pair.first[0].kind
    return int(pair.second[0].qty_lots + len(pair.first))


@lean
def allocating(n: int) -> float:
    """Wants memory."""
    return float(np.zeros(n).sum())


@pytest.mark.parametrize("side", [Side.SELL, Side.BUY])
def test_a_member_is_its_number(side: Side) -> None:
    """Kernels with members of an IntEnum answer and store what kernels with plain numbers do."""
    a, b = np.zeros(1, ORDER_RECORD), np.zeros(1, ORDER_RECORD)
    a["kind"] = b["kind"] = Kind.NEW
    a["side"] = b["side"] = side
    assert with_members(a) == with_numbers(b)
    assert a.tobytes() == b.tobytes() and a[0]["refusal"] == (Refusal.MAX_QTY if side == Side.SELL else 0)


def test_a_callee_is_compiled_once() -> None:
    """Members of three enums, a literal and an int32 of a record reach a callee as int64: one compilation serves them all."""
    with_members(np.zeros(1, ORDER_RECORD))
    assert len(same.signatures) <= 1  # 0 where it came out of the cache with its caller


def test_a_lean_kernel_counts_no_reference_and_allocates_nothing() -> None:
    """It works on the arrays of a tuple without a call into numba's runtime; one that wants memory does not compile."""
    pair = Pair(np.zeros(3, ORDER_RECORD), np.zeros(1, ORDER_RECORD))
    pair.first["kind"] = Kind.NEW
    assert taken_apart(pair) == int(Kind.NEW) + 3
    here = numba.njit(nogil=True, error_model="numpy", _nrt=False)(taken_apart.py_func)  # what came out of a cache shows no code
    here(pair)
    assert not any("NRT_" in text for text in here.inspect_llvm().values())
    with pytest.raises(numba.core.errors.NumbaError):
        allocating(3)
