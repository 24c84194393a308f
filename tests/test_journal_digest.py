"""Digests: equal for the same decisions, different for any other, blind to stamps."""

from __future__ import annotations

import numpy as np
import pytest

from procs.journal.digest import digest, digest_fills, digest_orders
from trading.records import MARKET_RECORD, ORDER_RECORD, REPORT_RECORD, SIGNAL_RECORD, ExecType, Kind


def filled(dtype: np.dtype, count: int, seed: int = 3) -> np.ndarray:
    """Records whose every byte is random."""
    return np.frombuffer(np.random.default_rng(seed).bytes(dtype.itemsize * count), dtype).copy()


@pytest.mark.parametrize("dtype", [MARKET_RECORD, SIGNAL_RECORD, ORDER_RECORD, REPORT_RECORD], ids=lambda d: str(len(d.names)))
def test_each_field_counts_but_stamps_spare_and_sequence(dtype: np.dtype) -> None:
    """Changing one field changes the digest if and only if the field belongs to the record's identity."""
    recs = filled(dtype, 5)
    before = digest(recs, dtype)
    for name in dtype.names or ():
        other = recs.copy()
        view = other.view("u1").reshape(5, -1)
        view[2, dtype.fields[name][1]] ^= 1
        outside = name.endswith("_mono_ns") or name in ("spare", "seq")
        assert (digest(other, dtype) == before) == outside, name


def test_order_and_number_of_records_count() -> None:
    """Swapped, missing and repeated records are told apart; batching is not seen."""
    recs = filled(ORDER_RECORD, 70_000)
    whole = digest(recs, ORDER_RECORD)
    assert whole != digest(recs[::-1], ORDER_RECORD)
    assert whole != digest(recs[:-1], ORDER_RECORD)
    assert whole != digest(np.concatenate([recs, recs[-1:]]), ORDER_RECORD)
    assert digest(np.repeat(recs[:10], 2)[::2], ORDER_RECORD) == digest(recs[:10], ORDER_RECORD)
    assert digest(recs[:0], ORDER_RECORD) != digest(np.zeros(0, REPORT_RECORD), REPORT_RECORD)


def test_orders_and_fills_are_picked() -> None:
    """Ends, refusals and reports that are no fills do not count."""
    orders = filled(ORDER_RECORD, 4)
    orders["kind"] = [Kind.NEW, Kind.REFUSED, Kind.CANCEL, Kind.END]
    assert digest_orders(orders) == digest(orders[[0, 2]], ORDER_RECORD)
    reports = filled(REPORT_RECORD, 4)
    reports["kind"] = [Kind.REPORT, Kind.REPORT, Kind.END, Kind.REPORT]
    reports["exec_type"] = [ExecType.FILL, ExecType.ACK, ExecType.FILL, ExecType.FILL]
    assert digest_fills(reports) == digest(reports[[0, 3]], REPORT_RECORD)
    with pytest.raises(ValueError, match="192 bytes"):
        digest(reports, ORDER_RECORD)
