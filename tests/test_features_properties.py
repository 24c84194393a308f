"""What must hold of the features whatever the market: symmetry, causality, checkpoints, and gates that each decide alone."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from features_markets import drive_features, mirror, random_walk, start_features, table

from trading.features.bars import BOOK_MAX_AGE_NS
from trading.features.patterns import Pattern
from trading.features.signals import SIGNALS, Signal, reason, reasons
from trading.jit import Recs
from trading.records import MAX_SIGNALS, SIGNAL_RECORD, Kind, Side
from trading.scoring import one_pass as features
from trading.scoring.ensemble import Gate
from trading.scoring.one_pass import StrategyError, make_params
from trading.settings import Features, Gates, Strategy, Thresholds

Array = npt.NDArray[np.float64]

OPEN = Strategy(
    features=Features(
        bar_ms=200, ema_fast=3, ema_slow=8, atr_bars=5, spread_half_life=60.0, spread_expansion=1e9, acceleration_half_life=10.0,
        volume_half_life_s=3.0, volume_multiple=1.5, flow_window_s=4, momentum_half_life_s=5.0, rsi_bars=5, rsi_lookback=10,
        squeeze_bars=10, squeeze_sigma=1.5, pattern_bars=8, timeframes_s=(1, 2, 3, 5, 8), divergence_trades=12,
        quantile_half_life_s=20.0,
    ),
    thresholds=Thresholds(long=60.0, short=40.0),
    gates=Gates(max_spread_bps=1e6, volatility_min_pct=0.0, microstructure_min_score=0.0, min_confidence=0.0),
)
"""Gates that let everything pass: a test closes one of them."""


def run(recs: Recs, strategy: Strategy, symbols: int = 1) -> tuple[Recs, Array, Recs]:
    """Signal records, strengths and the final global counts."""
    world = start_features(strategy, symbols)
    out, strengths = np.zeros(len(recs), SIGNAL_RECORD), np.zeros((len(recs), MAX_SIGNALS))
    drive_features(recs, features.on_market, world, out, strengths, 0, len(recs))
    return out, strengths, world[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_mirrored_market_mirrors_every_signed_signal(seed: int) -> None:
    """Turn the market upside down and each directional strength and the score turn; spread, confidence, urgency stay.

    Prices are large beside their moves, so that dividing by a price on either side of the mirror is the same to 1e-5.
    """
    about = 6_000_000_000
    recs = random_walk(seed, 5000, stale_every=1500, start_ticks=about)
    strategy = Strategy(
        features=msgspec.structs.replace(OPEN.features, micro_trend_scale_bps=5e-4, spread_expansion=1.5),
        gates=OPEN.gates,
        thresholds=OPEN.thresholds,
    )
    out, strengths, _ = run(recs, strategy)
    turned, turned_strengths, _ = run(mirror(recs, about), strategy)
    for spec in SIGNALS:
        if spec.signal == Signal.MODEL:
            assert not strengths[:, Signal.MODEL].any(), "models are off by default"
            continue
        sign = -1.0 if spec.directional else 1.0
        column = strengths[:, spec.signal]
        np.testing.assert_allclose(turned_strengths[:, spec.signal], sign * column, atol=1e-4, err_msg=spec.key)
        assert (np.abs(column) > 1e-3).any()
        if spec.directional:
            assert (column > 0.01).any() and (column < -0.01).any()
    np.testing.assert_allclose(turned["score"], 100 - out["score"], atol=1e-2)
    np.testing.assert_allclose(turned["confidence"], out["confidence"], atol=1e-3)
    np.testing.assert_allclose(turned["urgency"], out["urgency"], atol=1e-2)
    np.testing.assert_array_equal(turned["side"], -out["side"])
    np.testing.assert_array_equal(turned["gate"], out["gate"])
    assert (out["side"] == Side.BUY).any() and (out["side"] == Side.SELL).any()


@pytest.mark.parametrize(("prices", "quantities"), [(1, 8), (4, 1), (3, 7), (1, 10**4), (1, 10**6), (2, 5 * 10**8)])
def test_scale_does_not_matter(prices: int, quantities: int) -> None:
    """All prices times one number and all quantities times another: every strength, score and side is what it was.

    So one strategy means the same for a coin of 60,000 and one of 0.00001, in single coins and by the hundred million:
    lots are 1e-8, a level of a cheap coin holds 10**17 of them, and sums over windows do not fit an int64.
    """
    recs = random_walk(5, 4000, stale_every=1500)
    larger = recs.copy()
    for name in ("bid_ticks", "ask_ticks", "price_ticks"):
        larger[name] *= prices
    for name in ("bid_lots", "ask_lots", "qty_lots"):
        larger[name] *= quantities
    out, strengths, _ = run(recs, OPEN)
    again, again_strengths, _ = run(larger, OPEN)
    np.testing.assert_allclose(again_strengths, strengths, rtol=1e-9, atol=1e-12)
    for name in ("score", "confidence", "urgency"):
        np.testing.assert_allclose(again[name], out[name], rtol=1e-9, atol=1e-9)
    for name in ("side", "gate", "ready_mask"):
        np.testing.assert_array_equal(again[name], out[name])
    assert (out["side"] != Side.NONE).any()


def test_the_future_does_not_reach_back() -> None:
    """Two markets that agree up to a record have byte-identical outputs up to it."""
    recs = random_walk(3, 1500, symbols=2, stale_every=400)
    other = recs.copy()
    other[900:] = random_walk(4, 600, symbols=2)
    other["ts_ns"][900:] += recs["ts_ns"][899] - other["ts_ns"][900] + 1
    first, _, _ = run(recs, OPEN, 2)
    second, _, _ = run(other, OPEN, 2)
    assert first[:900].tobytes() == second[:900].tobytes()
    assert first[900:].tobytes() != second[900:].tobytes()


@pytest.mark.parametrize("cut", [0, 1, 37, 700, 1111])
def test_a_copy_of_the_state_continues_the_same(cut: int) -> None:
    """State copied as bytes at any record and put back gives byte-identical outputs and state at the end."""
    recs = random_walk(8, 1200, symbols=2, stale_every=300, gap_every=300)
    world = start_features(OPEN, 2)
    out, strengths = np.zeros(len(recs), SIGNAL_RECORD), np.zeros((len(recs), MAX_SIGNALS))
    drive_features(recs, features.on_market, world, out, strengths, 0, cut)
    kept = world[0].tobytes(), world[1].tobytes()
    drive_features(recs, features.on_market, world, out, strengths, cut, len(recs))
    again, _, params, instruments = start_features(OPEN, 2)
    again = np.frombuffer(kept[0], features.FEATURE_STATE).copy()
    glob = np.frombuffer(kept[1], features.FEATURE_GLOBAL).copy()
    other = np.zeros_like(out)
    drive_features(recs, features.on_market, (again, glob, params, instruments), other, strengths, cut, len(recs))
    assert other[cut:].tobytes() == out[cut:].tobytes()
    assert (again.tobytes(), glob.tobytes()) == (world[0].tobytes(), world[1].tobytes())


def test_what_was_in_the_row_before_does_not_show() -> None:
    """An output row full of old bytes becomes the same record, but for the words that are the stage's."""
    recs = random_walk(2, 300, stale_every=50)
    out, strengths, _ = run(recs, OPEN)
    world = start_features(OPEN)
    dirty = np.zeros(len(recs), SIGNAL_RECORD)
    dirty.view("u1")[:] = 0xA5
    drive_features(recs, features.on_market, world, dirty, strengths, 0, len(recs))
    stage = ("cause_seq", "cause_ring", "ts_origin_mono_ns", "ts_publish_mono_ns", "seq", "spare")
    for name in SIGNAL_RECORD.names or ():
        if name in stage:
            assert set(dirty[name].tobytes()) == {0xA5}, name
        else:
            np.testing.assert_array_equal(dirty[name], out[name], err_msg=name)


def with_gate(**changes: float) -> Strategy:
    """OPEN with other gates."""
    return msgspec.structs.replace(OPEN, gates=msgspec.structs.replace(OPEN.gates, **changes))


def with_features(**changes: float) -> Strategy:
    """OPEN with other features."""
    return msgspec.structs.replace(OPEN, features=msgspec.structs.replace(OPEN.features, **changes))


CLOSED = {
    Gate.WARM: with_features(atr_bars=1000),
    Gate.SPREAD: with_gate(max_spread_bps=1e-6),
    Gate.VOLATILITY: with_gate(volatility_min_pct=100.0),
    Gate.MICROSTRUCTURE: with_gate(microstructure_min_score=100.0),
    Gate.SPREAD_VETO: with_features(spread_compression=1e-9, spread_expansion=1e-8),
}


@pytest.mark.parametrize("gate", CLOSED)
def test_one_closed_gate_holds_every_side_back(gate: Gate) -> None:
    """Where all gates are open the market asks for sides; close one, and that one is told and no side is asked for."""
    recs = random_walk(6, 1500)
    free, _, counts = run(recs, OPEN)
    held, _, held_counts = run(recs, CLOSED[gate])
    sides = free["side"] != Side.NONE
    assert sides.sum() > 50 and (free["gate"][sides] == Gate.NONE).all()
    assert (held["gate"][sides] == gate).all()
    assert not held["side"].any()
    assert counts["sides"][0] == sides.sum() and held_counts["sides"][0] == 0
    assert held_counts["gates"][0][gate] == (held["gate"] == gate).sum()


def test_confidence_alone_holds_back_signals_that_disagree() -> None:
    """With all gates of the market open, a score beyond its threshold on little agreement is held by CONFIDENCE alone."""
    lax = msgspec.structs.replace(with_gate(min_confidence=0.5), thresholds=Thresholds(long=52.0, short=48.0))
    out, _, _ = run(random_walk(6, 1500), lax)
    held = out["gate"] == Gate.CONFIDENCE
    assert held.any() and not out["side"][held].any()
    beyond = (out["score"] >= 52) | (out["score"] <= 48)
    assert beyond[held].all() and (out["confidence"][held] < 0.5).all()
    free = (out["gate"] == Gate.NONE) & beyond
    assert free.any() and (out["confidence"][free] >= 0.5).all() and (out["side"][free] != 0).all()


@pytest.mark.parametrize(("late_ns", "gate"), [(0, Gate.NONE), (1, Gate.BOOK)])
def test_an_old_book_alone_holds_back(late_ns: int, gate: Gate) -> None:
    """A print whose book last changed BOOK_MAX_AGE_NS ago passes; one nanosecond later BOOK holds it."""
    recs = random_walk(6, 1500)
    at = int(
        np.flatnonzero((recs["kind"] == Kind.TRADE) & (np.arange(1500) > 1000) & (np.roll(recs["kind"], 1) != Kind.TRADE))[0]
    )
    recs["ts_ns"][at:] += recs["ts_ns"][at - 1] + BOOK_MAX_AGE_NS + late_ns - recs["ts_ns"][at]
    out, _, _ = run(recs, OPEN)
    assert out["gate"][at - 1] == Gate.NONE
    assert out["gate"][at] == gate


@pytest.mark.parametrize("flaw", ["stale", "invalid", "no bid", "no ask", "crossed", "locked", "no bid lots"])
def test_an_unusable_book_holds_back_at_once(flaw: str) -> None:
    """STALE, invalid, one-sided, crossed or locked: gate BOOK, no side, nothing said; the next good record is answered."""
    recs = random_walk(6, 1202)
    r = recs[1200]
    if flaw == "stale":
        r["kind"] = Kind.STALE
    elif flaw == "invalid":
        r["flags"] = 0
    elif flaw == "no bid":
        r["bid_ticks"][0] = r["bid_lots"][0] = 0
    elif flaw == "no ask":
        r["ask_ticks"][0] = r["ask_lots"][0] = 0
    elif flaw == "no bid lots":
        r["bid_lots"][0] = 0
    else:
        r["ask_ticks"][0] = r["bid_ticks"][0] - (flaw == "crossed")
    out, strengths, _ = run(recs, OPEN)
    assert out["gate"][1199] == Gate.NONE
    said = out[1200]
    assert (said["gate"], said["side"], said["score"], said["ready_mask"], said["mid"]) == (Gate.BOOK, 0, 50.0, 0, 0.0)
    assert not said["strength"].any()
    assert out["gate"][1201] == Gate.WARM and out["mid"][1201] > 0
    assert not out["ready_mask"][1201] & 1, "the imbalance starts anew"


def test_no_output_is_ever_nan() -> None:
    """From the first record on, in dead and in one-lot markets, every float is finite and within its range."""
    recs = random_walk(9, 800, gap_every=40, mean_ns=300_000_000)
    recs["bid_ticks"], recs["ask_ticks"] = 100 - np.arange(5), 101 + np.arange(5)  # a mid that never moves
    recs["price_ticks"][recs["kind"] == Kind.TRADE] = 100
    for market in (recs, random_walk(10, 800, stale_every=20, start_ticks=100_000)):
        out, strengths, _ = run(market, Strategy())
        floats = [n for n in SIGNAL_RECORD.names or () if SIGNAL_RECORD[n].base.kind == "f"]
        assert {"score", "microprice", "strength"} <= set(floats)
        for name in floats:
            assert np.isfinite(out[name]).all(), name
        assert (np.abs(strengths) <= 1).all()
        assert ((out["score"] >= 0) & (out["score"] <= 100) & (out["confidence"] >= 0) & (out["confidence"] <= 1)).all()
        assert ((out["urgency"] >= 0) & (out["urgency"] <= 100)).all()


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Strategy(features=Features(ema_fast=13, ema_slow=13)), ["features.ema_fast (13)", "features.ema_slow (13)"]),
        (Strategy(features=Features(spread_compression=2.0)), ["features.spread_compression (2.0)", "features.spread_expansion"]),
        (Strategy(thresholds=Thresholds(long=40.0)), ["thresholds.short (30.0)", "thresholds.long (40.0)"]),
        (Strategy(features=Features(garch_alpha=0.2, garch_beta=0.8)), ["garch_alpha (0.2)", "features.garch_beta (0.8)"]),
        (Strategy(features=Features(regime_calm_quantile=0.75)), ["features.regime_calm_quantile (0.75)", "hysteresis (0.1)"]),
        (Strategy(features=Features(timeframes_s=(1, 5, 5, 60, 300))), ["features.timeframes_s [1, 5, 5, 60, 300]"]),
        (Strategy(features=Features(timeframes_s=(1, 5))), ["features.timeframes_s has 2 items", "write 5"]),
        (Strategy(features=Features(timeframe_weights=(0.0,) * 5)), ["features.timeframe_weights", "weights.multi_timeframe"]),
    ],
)
def test_settings_that_contradict_each_other_are_refused(strategy: Strategy, words: list[str]) -> None:
    """The message is one sentence that names both keys and their values."""
    with pytest.raises(StrategyError) as error:
        make_params(strategy, table())
    assert all(word in str(error.value) for word in words)


SENTENCES = [
    (Signal.ACCELERATION, -0.5, "mid accelerates down by 1.50 deviations"),
    (Signal.VOLUME_SPIKE, 0.75, "volume of 1000 ms 3.00x its average, buyers aggress"),
    (Signal.VOLUME_SPIKE, -1.0, "volume of 1000 ms at least 4.00x its average, sellers aggress"),
    (Signal.ORDER_FLOW, 0.41, "10 s of order flow and aggressors +0.41: buying"),
    (Signal.BOOK_SQUEEZE, -0.6, "close 2.40 deviations under the mean of 20 bars, after a squeeze"),
    (Signal.RSI_DIVERGENCE, -0.4, "new high of 20 bars with RSI 8.0 points under its highest"),
    (Signal.RSI_DIVERGENCE, 0.4, "new low of 20 bars with RSI 8.0 points over its lowest"),
    (Signal.MOMENTUM_DECAY, 0.3, "momentum that carries on 0.60 deviations up"),
    (Signal.VOLUME_PRICE_DIVERGENCE, 0.25, "25% of 50 trades' volume went up while the price falls"),
    (Signal.PATTERNS, -0.5, "patterns on 1000 ms bars -0.50"),
    (Signal.MULTI_TIMEFRAME, 0.5, "trends of 1s 5s 15s 60s 300s bars agree +0.50"),
    (Signal.MODEL, -0.25, "models expect the next move beyond costs down, confidence 0.25"),
]


def test_reasons_read_like_sentences() -> None:
    """Each signal explains itself, with the settings' figures in it; silent ones say so."""
    f = Features()
    assert reason(Signal.BOOK_IMBALANCE, 0.41, f) == "5-level imbalance +0.41 over 0.30"
    assert reason(Signal.BOOK_IMBALANCE, -0.41, f) == "5-level imbalance -0.41 under -0.30"
    assert reason(Signal.MICRO_TREND, 1.0, f) == "last trade at least 1.00 bps from the 10-trade vwap, 3 rises in a row"
    assert reason(Signal.EMA_CROSS, -0.25, f) == "EMA 5 0.25 ATR under EMA 13 on 1000 ms bars"
    assert reason(Signal.SPREAD, 0.5, f) == "spread 0.35x its average, compressed: confirms"
    assert reason(Signal.SPREAD, -1.0, f) == "spread at least 3.00x its average, expanded: vetoes"
    assert reason(Signal.MICRO_TREND, 0.0, f) == "micro_trend is silent"
    for signal, strength, sentence in SENTENCES:
        assert reason(signal, strength, f) == sentence
    assert {signal for signal, _, _ in SENTENCES} == set(Signal) - {0, 1, 2, 3}
    named = reason(Signal.PATTERNS, 1.0, f, Pattern.BREAKOUT_UP | Pattern.INSIDE | Pattern.PIN_UP)
    assert named == "patterns on 1000 ms bars +1.00: pin up, inside bar, break-out up"
    record = np.zeros((), SIGNAL_RECORD)
    record["active_mask"], record["strength"][:3] = 0b101, (0.41, 0.2, -0.25)
    assert reasons(record, f) == [reason(Signal.BOOK_IMBALANCE, 0.41, f), reason(Signal.EMA_CROSS, -0.25, f)]
