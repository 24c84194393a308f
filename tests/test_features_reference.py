"""The features kernels against an independent batch computation in plain numpy, at every record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from features_markets import drive_features, random_walk, start_features
from market_feed import RECORDINGS, market_records
from reference_decision import ORDER, Reference

from trading.features.vector import NAMES
from trading.jit import Recs
from trading.records import MAX_SIGNALS, SIGNAL_RECORD, Flag, Kind
from trading.scoring import one_pass as features
from trading.scoring.batch import feature_matrix, market_microstructure_score, signals_of
from trading.scoring.ensemble import Gate
from trading.settings import Features, Gates, Strategy, Weights

Array = npt.NDArray[Any]

WALK = Strategy(
    features=Features(
        bar_ms=200, ema_fast=3, ema_slow=8, atr_bars=5, spread_half_life=60.0, volatility_lambda=0.9, acceleration_half_life=10.0,
        volume_half_life_s=3.0, volume_multiple=1.5, flow_window_s=4, momentum_half_life_s=5.0, rsi_bars=5, rsi_lookback=10,
        squeeze_bars=10, squeeze_sigma=1.5, pattern_bars=8, timeframes_s=(1, 2, 3, 5, 8), divergence_trades=12,
        impact_half_life_trades=40.0, kyle_window_s=20, vpin_bucket_trades=5.0, vpin_buckets=8, profile_half_life_trades=100.0,
        quantile_half_life_s=20.0, timeframe_weights=(3.0, 1.0, 1.0, 0.5, 0.25), profile_bin_bps=0.2,
    ),
    gates=Gates(volatility_min_pct=0.03, microstructure_min_score=45.0, min_confidence=0.4),
)  # fmt: skip


def run(recs: Recs, strategy: Strategy, symbols: int = 1) -> tuple[Recs, Array]:
    """Signal records and full-precision strengths of the kernels; strengths are 0 where the book is not usable."""
    out, strengths = np.zeros(len(recs), SIGNAL_RECORD), np.zeros((len(recs), MAX_SIGNALS))
    drive_features(recs, features.on_market, start_features(strategy, symbols), out, strengths, 0, len(recs))
    return out, np.where((out["flags"] & Flag.BOOK_VALID)[:, None] > 0, strengths, 0.0)


def near(got: Array, wanted: Array, name: str) -> None:
    """Equal to 1e-9, and says which."""
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11, err_msg=name)


def compare(recs: Recs, out: Recs, strengths: Array, strategy: Strategy) -> Reference:
    """Every field of every signal record of one symbol."""
    want = Reference(recs, strategy)
    e, b, t = want.e, want.b, want.t
    u = e.usable
    bits = 1 << np.arange(len(ORDER))
    np.testing.assert_array_equal(out["ready_mask"], want.ready @ bits)
    for k, name in enumerate(ORDER):
        near(strengths[:, k], want.strengths[:, k], name)
    assert not strengths[:, len(ORDER) :].any()  # no model votes
    np.testing.assert_array_equal(out["strength"], strengths.astype(np.float32))
    for name, wanted in {
        "volatility": b.volatility,
        "atr_ticks": np.nan_to_num(b.atr),
        "mid": e.mid,
        "spread_bps": e.spread_bps,
        "confidence": want.confidence,
        "urgency": want.urgency,
        "score": want.score,
        "long_threshold": want.long,
        "short_threshold": want.short,
    }.items():
        near(out[name], np.where(u, wanted, 50.0 if name == "score" else 0.0), name)
    for name, wanted in {"microstructure": t.score, "vpin": e.vpin, "order_flow": want.ofi_share}.items():
        np.testing.assert_allclose(out[name], np.where(u, wanted, 0), rtol=1e-6, atol=1e-6, err_msg=name)
    for name, wanted in {"gate": want.gate, "side": want.side, "regime": t.regime * u, "patterns": b.bar_bits * u}.items():
        np.testing.assert_array_equal(out[name], wanted, err_msg=name)
    sure = want.score != 50.0
    np.testing.assert_array_equal(out["active_mask"][sure], (want.active @ bits)[sure])
    np.testing.assert_array_equal(out["reason"][sure], want.reason[sure])
    np.testing.assert_array_equal(out["flags"], np.where(u, int(Flag.BOOK_VALID), 0))
    for name in ("bid", "ask"):
        for unit in ("ticks", "lots"):
            np.testing.assert_array_equal(out[f"{name}_{unit}"], np.where(u, e.book[f"{name}_{unit}"][:, 0], 0))
    np.testing.assert_array_equal(out["ts_ns"], recs["ts_ns"])
    assert (out["kind"] == Kind.SIGNAL).all()
    return want


def compare_vector(recs: Recs, want: Reference, strategy: Strategy) -> None:
    """Every feature of every record, and which are warm; the batch functions say the same as the kernels one by one."""
    matrix, names, ready = feature_matrix(recs, strategy)
    wanted = want.features()
    assert names == NAMES == tuple(wanted)
    for k, (name, (value, warm)) in enumerate(wanted.items()):
        np.testing.assert_array_equal(ready[:, k], warm, err_msg=name)
        near(matrix[:, k], np.where(warm, value, 0.0), name)
    assert np.isfinite(matrix).all()
    score = market_microstructure_score(recs, strategy)
    near(np.nan_to_num(score), want.t.score, "market_microstructure_score")


@pytest.mark.parametrize("seed", range(3))
def test_a_random_walk_with_stale_books_and_silences(seed: int) -> None:
    """On a random market with stale books and silences every output and every feature equals the batch computation."""
    recs = random_walk(seed, 6000, stale_every=1500, gap_every=1000)
    out, strengths = run(recs, WALK)
    want = compare(recs, out, strengths, WALK)
    compare_vector(recs, want, WALK)
    spoke = (want.strengths[want.e.usable] != 0).any(0)
    assert spoke.all(), f"each signal spoke: {spoke}"
    assert {Gate.NONE, Gate.WARM, Gate.BOOK} <= {Gate(g) for g in want.gate}
    assert len(set(want.t.regime)) >= 3
    assert signals_of(recs, WALK).tobytes() == out.tobytes()


@pytest.mark.parametrize("seed", range(2))
def test_a_random_walk_with_outages(seed: int) -> None:
    """What is forgotten when the book comes back after 6 to 600 seconds, and what is not, is what the batch computation says."""
    recs = random_walk(seed, 6000, stale_every=900, gap_every=800, outage_every=700)
    out, strengths = run(recs, WALK)
    want = compare(recs, out, strengths, WALK)
    compare_vector(recs, want, WALK)
    assert len(want.e.gaps) > 5


def test_a_cheap_coin() -> None:
    """With 5e16 lots a level and 1e15 a print all is as exact as with few."""
    recs = random_walk(1, 6000, stale_every=1500, lots=5 * 10**8)
    out, strengths = run(recs, WALK)
    compare_vector(recs, compare(recs, out, strengths, WALK), WALK)


def test_symbols_do_not_touch_each_other() -> None:
    """Three interleaved symbols give each what it gets alone."""
    recs = random_walk(11, 6000, symbols=3, stale_every=900)
    out, strengths = run(recs, WALK, symbols=3)
    matrix, _, ready = feature_matrix(recs, WALK)
    for symbol in range(3):
        own = recs["symbol"] == symbol
        compare(recs[own], out[own], strengths[own], WALK)
        assert (out["symbol"][own] == symbol).all()
        alone = recs[own].copy()
        alone["symbol"] = 0
        single, _, single_ready = feature_matrix(alone, WALK)
        assert matrix[own].tobytes() == single.tobytes() and (ready[own] == single_ready).all()


@pytest.mark.parametrize("weights", [(1.0, 0.0, 2.0, 0.0, 3.0), (0.0, 3.0, 0.5, 2.0, 0.0)])
def test_other_settings(weights: tuple[float, ...]) -> None:
    """The batch computation agrees under other weights, windows and levels too (a weight of 0 leaves a signal out)."""
    imbalance, trend, cross, spread, others = weights
    w = Weights(
        book_imbalance=imbalance, micro_trend=trend, ema_cross=cross, spread=spread, order_flow=others, patterns=others,
        multi_timeframe=others / 2,
    )  # fmt: skip
    f = msgspec.structs.replace(
        WALK.features, bar_ms=500, imbalance_levels=2, imbalance_threshold=0.1, micro_trend_trades=4, ema_fast=2, ema_slow=4,
        atr_bars=3, divergence_trades=64, vpin_buckets=64, flow_window_s=16, volume_window_ms=700,
    )  # fmt: skip
    strategy = Strategy(features=f, weights=w)
    recs = random_walk(5, 4000)
    out, strengths = run(recs, strategy)
    compare_vector(recs, compare(recs, out, strengths, strategy), strategy)
    zero = sum(1 << k for k, weight in enumerate(weights[:4]) if weight == 0)
    assert not (out["active_mask"] & zero).any()


@pytest.mark.recordings
@pytest.mark.parametrize(("name", "limit"), [
    ("spot BTCUSDT", 8_000),
    pytest.param("spot BTCUSDT", 10**9, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    pytest.param("spot ETHUSDT", 10**9, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
])  # fmt: skip
def test_the_recorded_market(name: str, limit: int, recordings: Path) -> None:
    """At every record of real recordings, through the real feed, every output and feature equals the batch computation: of the
    first 8,000 by default, of all with -m slow."""
    recs = market_records(RECORDINGS[name], recordings)[:limit]
    out, strengths = run(recs, Strategy())
    want = compare(recs, out, strengths, Strategy())
    compare_vector(recs, want, Strategy())
    assert (out["gate"] == Gate.NONE).any() and (out["side"] != 0).any()
    assert (want.strengths != 0).any(0).all(), "each signal spoke"


def test_a_record_of_a_foreign_symbol_is_not_answered() -> None:
    """A symbol outside the table changes nothing and gives no record."""
    state, glob, params, instruments = start_features(Strategy())
    before, out = state.tobytes(), np.zeros(1, SIGNAL_RECORD)
    recs = random_walk(1, 1)
    for symbol in (-1, 1, 2**31 - 1):
        recs["symbol"] = symbol
        assert features.on_market(recs, 0, state, glob, params, instruments, out, 0) == 0
    assert state.tobytes() == before and not out.view("u1").any()
