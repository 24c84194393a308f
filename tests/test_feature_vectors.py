"""The feature vector: symmetric, causal, exact across checkpoints, with models on too; and the ring's rows are the batch's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from features_markets import mirror, random_walk
from fold_world import small_market
from market_feed import RECORDINGS
from test_features_properties import OPEN
from test_learning_kernels import grown

from procs import topology
from procs.fold.plan import plan_of
from procs.memory import segments as pipeline
from procs.profiles.config import load_profile
from procs.profiles.schema import Profile
from procs.research import backtest
from procs.research.columns import recording_columns
from procs.stages.recorder import journalled
from ringbuf.layout import GATING, READER_LINES
from sim.recordings.recording import stage
from trading.features.signals import Signal
from trading.features.vector import FEATURES, NAMES, VERSION
from trading.instruments import Instrument
from trading.jit import Recs
from trading.models.trees import install
from trading.records import Flag, Kind
from trading.scoring.batch import Pass
from trading.settings import Ml, Strategy

LEARNS = msgspec.structs.replace(
    OPEN, ml=Ml(enabled=True, horizon_ms=500, cost_bps=0.05, every_ms=0, warm_outcomes=50, min_confidence=0.0, required=False)
)

SIGNED = {
    "top_imbalance", "book_imbalance", "pressure", "weighted_mid_gap", "microprice_gap",
    "ofi_1", "ofi_2", "ofi_3", "ofi_4", "ofi_5",
    "aggressor_imbalance", "recent_imbalance", "control_gap_bps", "value_score", "micro_momentum_bps", "trade_run",
    "velocity_bps", "acceleration", "ema_gap", "band_z", "trend_agreement",
}  # fmt: skip
"""Features that say which way; rsi does so about 50, the others do not."""


def models_on(symbols: int = 1, strategy: Strategy = LEARNS) -> Pass:
    """A pass with an online model that learns and a batch of trees, both of which vote."""
    trees = [grown(np.random.default_rng(7), 8) for _ in range(20)]

    def start(state: Recs, images: Recs) -> None:
        for symbol in range(symbols):
            install(images[symbol : symbol + 1], trees)

    return Pass([Instrument(f"S{k}") for k in range(symbols)], strategy, start=start)


def test_a_mirrored_market_mirrors_the_row() -> None:
    """Upside down each feature that says which way turns and the others stay, at every record, with models on."""
    about = 6_000_000_000 - 6_000_000_000 % 1001 + 500  # profile bins are 1001 ticks wide: so that they are mirrored too
    strategy = msgspec.structs.replace(
        LEARNS, features=msgspec.structs.replace(OPEN.features, profile_bin_bps=1001.5 / (1e-4 * about), spread_expansion=1.5)
    )
    recs = random_walk(1, 5000, stale_every=1500, start_ticks=about)
    signals, row, warm = models_on(strategy=strategy).all(recs)
    _, turned, turned_warm = models_on(strategy=strategy).all(mirror(recs, about))
    np.testing.assert_array_equal(turned_warm, warm)
    for k, name in enumerate(NAMES):
        wanted = -row[:, k] if name in SIGNED else np.where(warm[:, k], 100.0 - row[:, k], 0.0) if name == "rsi" else row[:, k]
        # where both sides refill at one record the bids come first
        near = 0.05 if name == "resilience_s" else 1e-4
        np.testing.assert_allclose(turned[:, k], wanted, rtol=near, atol=1e-4 * np.abs(row[:, k]).max(), err_msg=name)
        assert warm[:, k].any() and (row[:, k] != 0).any(), name
        assert name not in SIGNED or ((row[:, k] > 0).any() and (row[:, k] < 0).any()), name
    assert (signals["strength"][:, Signal.MODEL] != 0).mean() > 0.3


def test_the_future_does_not_reach_back_into_row_or_models() -> None:
    """Two markets that agree up to a record have byte-identical rows, masks and signals up to it, with models that learn."""
    recs = random_walk(3, 3000, symbols=2, stale_every=400, outage_every=900)
    other = recs.copy()
    other[2200:] = random_walk(4, 800, symbols=2)
    other["ts_ns"][2200:] += recs["ts_ns"][2199] - other["ts_ns"][2200] + 1
    first, second = models_on(2).all(recs), models_on(2).all(other)
    assert (first[0]["strength"][:2200, Signal.MODEL] != 0).sum() > 200
    for one, another in zip(first, second, strict=True):
        assert one[:2200].tobytes() == another[:2200].tobytes() and one[2200:].tobytes() != another[2200:].tobytes()


@pytest.mark.parametrize("cut", [1, 1000, 2345])
def test_a_copy_of_the_state_gives_the_same_rows(cut: int) -> None:
    """State copied as bytes at any record and put back: rows, masks, signals and state at the end are byte-identical."""
    recs = random_walk(8, 3000, symbols=2, stale_every=300, gap_every=300, outage_every=900)
    whole = models_on(2)
    whole.all(recs[:cut])
    kept = whole.state.copy(), whole.glob.copy()
    wanted = whole.all(recs[cut:])
    again = models_on(2)
    again.state[:], again.glob[:] = kept
    found = again.all(recs[cut:])
    for one, another in zip(found, wanted, strict=True):
        assert one.tobytes() == another.tobytes()
    assert (again.state.tobytes(), again.glob.tobytes()) == (whole.state.tobytes(), whole.glob.tobytes())


def test_dead_prints_make_cold_what_is_made_of_them() -> None:
    """While records say PRINTS_DEAD the features of prints are cold and 0; all others, and all afterwards, are as ever."""
    recs = random_walk(6, 2500)
    _, row, warm = models_on().all(recs)
    recs["flags"][2000:2100] |= int(Flag.PRINTS_DEAD)
    _, held, held_warm = models_on().all(recs)
    part = slice(2000, 2100)
    cold = warm[part].any(axis=0) & ~held_warm[part].any(axis=0)
    named = {name for name, it in zip(NAMES, cold, strict=True) if it}
    assert {"micro_momentum_bps", "aggressor_imbalance", "trade_run"} <= named and "top_imbalance" not in named
    assert not held[part][:, cold].any()
    np.testing.assert_array_equal(held[part][:, ~cold], row[part][:, ~cold])
    np.testing.assert_array_equal(held_warm[2100:], warm[2100:])


def test_what_is_not_warm_is_zero() -> None:
    """Also what was warm before an interruption or an outage."""
    recs = random_walk(5, 4000, stale_every=150, outage_every=500)
    _, row, warm = models_on().all(recs)
    assert not row[~warm].any()
    cold = np.maximum.accumulate(warm, 0) & ~warm & warm.any(1)[:, None]
    assert cold.any(0).sum() > 20, "features do grow cold"


def test_the_models_row_is_the_published_one() -> None:
    """What the models were asked about at a record is what is published after it."""
    recs = random_walk(2, 1500)
    passed = models_on()
    for i in range(len(recs)):
        row, warm = passed.matrix(recs[i : i + 1])
        assert passed.state["model_row"][0, : len(NAMES)].tobytes() == row[0].tobytes()
        assert int(passed.state["model_mask"][0]) == int((warm[0] * (1 << np.arange(50, dtype=np.int64))).sum())


def checked(kept: dict[str, Recs], row: Recs, warm: Recs) -> None:
    """The ring's records say the matrix bit for bit, and name the market records that they stand for."""
    market, vectors = kept["market"], kept["vectors"]
    assert vectors[-1]["kind"] == market[-1]["kind"] == Kind.END and len(vectors) == len(market)
    market, vectors = market[:-1], vectors[:-1]
    assert (vectors["kind"] == Kind.VECTOR).all() and (vectors["version"] == VERSION).all()
    np.testing.assert_array_equal(vectors["cause_seq"], np.arange(len(market)))
    for name in ("ts_ns", "symbol", "ts_origin_mono_ns"):
        np.testing.assert_array_equal(vectors[name], market[name])
    assert (vectors["cause_ring"] == topology.RING["market"].ring_id).all()
    assert np.ascontiguousarray(vectors["values"]).tobytes() == np.ascontiguousarray(row).tobytes()
    np.testing.assert_array_equal((vectors["warm_mask"][:, None] >> np.arange(50)) & 1 == 1, warm)
    np.testing.assert_array_equal(vectors["flags"] & Flag.BOOK_VALID, kept["signals"][:-1]["flags"] & Flag.BOOK_VALID)


def test_the_rings_rows_are_the_batchs() -> None:
    """On the embedded market, with the online model on: what the features process publishes is what the batch computes."""
    plan = small_market(30.0, **{"ml.enabled": True, "ml.required": False})
    kept = backtest.run(plan, keep=("market", "signals", "vectors")).kept
    found, row, warm = Pass([Instrument(name) for name in plan.names], plan.strategy).all(kept["market"][:-1])
    checked(kept, row, warm)
    assert (found["score"] == kept["signals"]["score"][:-1]).all() and warm.any(0).sum() > 40


@pytest.mark.slow
@pytest.mark.recordings
def test_the_rings_rows_are_the_columns_of_a_recording(recordings: Path, tmp_path: Path) -> None:
    """Over recorded frames the ring's rows are the columns of `scalperctl features`, bit for bit."""
    paths = [recordings / "hftbacktest_binance" / f"{name}.gz" for name in RECORDINGS["spot BTCUSDT"][1]]
    staged = stage(paths, tmp_path / "spool")
    profile = load_profile("replay", {"source.files": [str(path) for path in paths]})
    kept = backtest.run(plan_of(profile, staged), keep=("market", "signals", "vectors")).kept
    pieces = list(recording_columns(paths, profile))
    columns = np.column_stack([np.concatenate([piece[name] for piece in pieces]) for name in NAMES])
    warm = ~np.isnan(columns)
    checked(kept, np.where(warm, columns, 0.0), warm)
    assert len(columns) > 90_000 and warm.any(0).all() and len(FEATURES) == columns.shape[1]


def test_vectors_are_journalled_only_where_the_profile_says_so() -> None:
    """Without the setting the recorder neither keeps the ring nor makes its writer wait; nobody else may either."""
    assert topology.RING["vectors"].readers == ("recorder",)
    for wanted in (False, True):
        profile = load_profile("paper", {"pipeline.journal_vectors": wanted})
        assert isinstance(profile, Profile)
        assert ("vectors" in {ring.name for ring in journalled(profile)}) == wanted
        memory = pipeline.create(f"vectors-{int(wanted)}", pipeline.Placement(), vectors=profile.pipeline.journal_vectors)
        try:
            assert memory.ring("vectors")[READER_LINES + GATING] == wanted and memory.ring("signals")[READER_LINES + GATING] == 1
        finally:
            memory.destroy()
