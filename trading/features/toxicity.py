"""Who knows more: VPIN, and how the impact of prints fades.

VPIN (Easley, Lopez de Prado, O'Hara 2012) over the last `vpin_buckets` buckets of volume, `sum |Vb - Vs| / sum V`, with the
venue's own aggressor flags. A bucket's volume is `vpin_bucket_trades` average prints, set anew when it opens, so
that it needs no figure of the market beforehand; a print that overflows a bucket is split.

Impact (Bouchaud et al. 2004): `R(l) = E[sign_t (m_{t+l} - m_t)]`, l prints later, m the mid just before a print, as a
weighted mean over prints. `impact_phi` is the least-squares ratio of successive lags, the exponential fit
`R(l+1) = phi R(l)`: at 1 and above nothing fades, which is what informed flow looks like.

What this module is not: it sees no book beyond the mid.
"""

from __future__ import annotations

import math
from typing import Final

from trading.features.bars import RING, Fields, Rec, keep_of
from trading.jit import Floats, Recs, lean
from trading.settings import Features

IMPACT_LAGS: Final = 16

VPIN_WARM_TRADES: Final = 50
"""Prints whose average size opens the first bucket."""

SIZE_KEEP: Final = 0.5 ** (1.0 / 500.0)
MOST_HALF_LIFE: Final = 1e4
"""A half-life beyond this says that nothing fades."""

_MASK: Final = RING - 1
_LAG_MASK: Final = IMPACT_LAGS - 1

FIELDS: Final[Fields] = (
    # vpin
    ("size_sum", "f8"),
    ("size_weight", "f8"),
    ("bucket_lots", "i8"),  # volume of the open bucket; 0: none yet
    ("bucket_filled", "i8"),
    ("bucket_signed", "i8"),
    ("buckets", "i8"),
    ("bucket_imbalances", "i8", RING),
    ("bucket_volumes", "i8", RING),
    ("vpin_imbalance", "f8"),  # sums over the last buckets
    ("vpin_volume", "f8"),
    ("vpin", "f8"),  # 0 until the buckets are full
    # impact
    ("impact_run", "i8"),
    ("impact_samples", "i8"),
    ("impact_weight", "f8"),
    ("impact_mids", "i8", IMPACT_LAGS),
    ("impact_signs", "i8", IMPACT_LAGS),
    ("impact_sums", "f8", IMPACT_LAGS),
    ("impact_phi", "f8"),
    ("impact_half_life", "f8"),
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("keep_impact", "f8"),
    ("warm_impact", "i8"),
    ("vpin_trades", "f8"),
    ("vpin_buckets", "i8"),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["keep_impact"], p["warm_impact"] = keep_of(f.impact_half_life_trades), math.ceil(f.impact_half_life_trades)
    p["vpin_trades"], p["vpin_buckets"] = f.vpin_bucket_trades, f.vpin_buckets


@lean
def _open_bucket(s: Rec, p: Rec) -> None:
    s.bucket_lots = max(1, int(p.vpin_trades * s.size_sum / s.size_weight))
    s.bucket_filled = s.bucket_signed = 0


@lean
def _close_bucket(s: Rec, p: Rec) -> None:
    at = s.buckets & _MASK
    if at == 0:  # once a ring all is added up anew: rounding does not gather
        s.vpin_imbalance = s.vpin_volume = 0.0
        for k in range(1, min(s.buckets, p.vpin_buckets) + 1):
            s.vpin_imbalance += float(s.bucket_imbalances[(s.buckets - k) & _MASK])
            s.vpin_volume += float(s.bucket_volumes[(s.buckets - k) & _MASK])
    if s.buckets >= p.vpin_buckets:
        old = (s.buckets - p.vpin_buckets) & _MASK
        s.vpin_imbalance -= float(s.bucket_imbalances[old])
        s.vpin_volume -= float(s.bucket_volumes[old])
    s.bucket_imbalances[at], s.bucket_volumes[at] = abs(s.bucket_signed), s.bucket_lots
    s.vpin_imbalance += float(s.bucket_imbalances[at])
    s.vpin_volume += float(s.bucket_lots)
    s.buckets += 1
    if s.buckets >= p.vpin_buckets:
        s.vpin = s.vpin_imbalance / s.vpin_volume


@lean
def take_volume(s: Rec, p: Rec, sign: int, lots: int) -> None:
    """Fill the buckets with a print (already counted in `prints`)."""
    s.size_sum = s.size_sum * SIZE_KEEP + (1.0 - SIZE_KEEP) * lots
    s.size_weight = s.size_weight * SIZE_KEEP + (1.0 - SIZE_KEEP)
    if s.bucket_lots == 0:
        if s.prints < VPIN_WARM_TRADES:
            return
        _open_bucket(s, p)
    while lots > 0:
        part = min(lots, s.bucket_lots - s.bucket_filled)
        s.bucket_filled += part
        s.bucket_signed += sign * part
        lots -= part
        if s.bucket_filled == s.bucket_lots:
            _close_bucket(s, p)
            _open_bucket(s, p)


@lean
def take_impact(s: Rec, p: Rec, sign: int) -> None:
    """Take a print for R(l); the mid in the state is that before it. All lags are fed together or not at all."""
    run, mid = s.impact_run, s.twice_mid
    if run >= IMPACT_LAGS:
        keep = p.keep_impact
        gain = 0.5 * (1.0 - keep)
        for lag in range(1, IMPACT_LAGS + 1):
            at = (run - lag) & _LAG_MASK
            s.impact_sums[lag - 1] = s.impact_sums[lag - 1] * keep + gain * (s.impact_signs[at] * (mid - s.impact_mids[at]))
        s.impact_weight = s.impact_weight * keep + (1.0 - keep)
        s.impact_samples += 1
    s.impact_mids[run & _LAG_MASK], s.impact_signs[run & _LAG_MASK] = mid, sign
    s.impact_run = run + 1


@lean
def successive_ratio(x: Floats, n: int) -> float:
    """Least-squares phi of `x[i+1] = phi x[i]` over the first n values; 0 where all are 0."""
    product = square = 0.0
    for i in range(n - 1):
        product += x[i] * x[i + 1]
        square += x[i] * x[i]
    return product / square if square > 0.0 else 0.0


@lean
def half_life(phi: float) -> float:
    """Steps in which `phi**n` halves: 0 for phi <= 0 (gone at once), MOST_HALF_LIFE where it does not fade."""
    if phi <= 0.0:
        return 0.0
    if phi >= 1.0:
        return MOST_HALF_LIFE
    return min(MOST_HALF_LIFE, -math.log(2.0) / math.log(phi))
