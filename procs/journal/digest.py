"""One short text that says whether two runs made the same records.

Only the words that make a record's identity count (trading.records.identity_words): not the time stamps of this
machine, not spare words, not the ring's slot sequence. Everything else does, the cause included, so equal digests mean:
the same decisions, in the same order, for the same reasons.

A digest does not say where two runs differ.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from trading.jit import Recs
from trading.records import ORDER_RECORD, REPORT_RECORD, ExecType, Kind, identity_words, layout_hash, words

DIGEST_BYTES: Final = 16
_BATCH: Final = 65_536  # records copied at once: a mapped journal of any length takes a few MB


def digest(recs: Recs, dtype: np.dtype) -> str:
    """blake2b (32 hex digits) of the identity words of `recs`, shape (n,), in order; the layout of `dtype` counts too."""
    if recs.dtype.itemsize != dtype.itemsize:
        raise ValueError(f"records of {recs.dtype.itemsize} bytes are not of this layout, whose records have {dtype.itemsize}")
    keep = identity_words(dtype)
    summed = hashlib.blake2b(layout_hash(dtype).to_bytes(8, "little"), digest_size=DIGEST_BYTES)
    for start in range(0, len(recs), _BATCH):
        batch = np.ascontiguousarray(recs[start : start + _BATCH]).view("<i8").reshape(-1, words(dtype))
        summed.update(np.ascontiguousarray(batch[:, keep]).data)
    return summed.hexdigest()


def digest_orders(recs: Recs) -> str:
    """Digest of the order commands (NEW and CANCEL) among ORDER_RECORDs, shape (n,)."""
    return digest(recs[np.isin(recs["kind"], (Kind.NEW, Kind.CANCEL))], ORDER_RECORD)


def digest_fills(recs: Recs) -> str:
    """Digest of the fills among REPORT_RECORDs, shape (n,)."""
    return digest(recs[(recs["kind"] == Kind.REPORT) & (recs["exec_type"] == ExecType.FILL)], REPORT_RECORD)
