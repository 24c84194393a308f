"""What an unusable book and an outage leave of every signal, what a silence weighs, and what a moved threshold says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from features_markets import random_walk
from test_features_properties import OPEN, run
from user_signal_files import HEAD, strategy_of

from procs.research.signal_files import load
from trading.features.signals import N_SIGNALS, Signal
from trading.instruments import Instrument
from trading.jit import Recs
from trading.records import Flag, Kind, Side
from trading.scoring.batch import Pass, signals_of
from trading.scoring.ensemble import Gate
from trading.settings import Thresholds

AT = 2500
"""Where the book goes stale in these markets: long after everything is warm."""

S = 10**9


def cut(seconds: float, records: int = 3000, kind: Kind = Kind.BBO) -> Recs:
    """A market whose book is stale at AT; the next record, of this kind, comes so many seconds later."""
    recs = random_walk(17, records)
    recs[AT]["kind"], recs[AT]["flags"] = Kind.STALE, 0
    recs["ts_ns"][AT + 1 :] += int(seconds * S) - (recs["ts_ns"][AT + 1] - recs["ts_ns"][AT])
    recs[AT + 1]["kind"] = kind
    if kind == Kind.TRADE:
        recs[AT + 1]["price_ticks"], recs[AT + 1]["qty_lots"] = recs[AT + 1]["bid_ticks"][0], 1000
    return recs


def test_dead_prints_hold_back_what_is_made_of_them() -> None:
    """While records say PRINTS_DEAD no signal made of prints is ready or votes and no side is asked for; those of the book are as
    they were; afterwards all is as if nothing had been."""
    recs = random_walk(17, 3000)
    clean, strengths, _ = run(recs, OPEN)
    recs["flags"][AT : AT + 50] |= int(Flag.PRINTS_DEAD)
    out, held, _ = run(recs, OPEN)
    of_prints = 0
    for signal in (Signal.MICRO_TREND, Signal.VOLUME_SPIKE, Signal.ORDER_FLOW, Signal.VOLUME_PRICE_DIVERGENCE):
        of_prints |= 1 << signal
    during, after = slice(AT, AT + 50), slice(AT + 50, None)
    assert (clean["ready_mask"][during] & of_prints == of_prints).all()
    assert (out["ready_mask"][during] == clean["ready_mask"][during] & ~of_prints).all()
    assert (out["active_mask"][during] & of_prints == 0).all() and (out["vpin"][during] == 0).all()
    assert (out["side"][during] == Side.NONE).all() and (out["gate"][during] == Gate.WARM).all()
    assert (out["flags"][during] & Flag.BOOK_VALID != 0).all()
    assert out[after].tobytes() == clean[after].tobytes() and out[:AT].tobytes() == clean[:AT].tobytes()
    np.testing.assert_array_equal(held[:, Signal.BOOK_IMBALANCE], strengths[:, Signal.BOOK_IMBALANCE])


@pytest.mark.parametrize("kind", [Kind.BBO, Kind.TRADE])
@pytest.mark.parametrize("seconds", [5.1, 600.0])
def test_nothing_said_before_an_outage_votes_after_it(seconds: float, kind: Kind) -> None:
    """At the first good record no signal votes and the score is neutral; each begins when it has seen enough again."""
    recs = cut(seconds, kind=kind)
    out, strengths, _ = run(recs, OPEN)
    before, after = out[AT - 1], out[AT + 1]
    everything = (1 << N_SIGNALS) - 1 & ~(1 << Signal.MODEL)
    assert before["ready_mask"] == everything and before["active_mask"] != 0
    spread = 1 << Signal.SPREAD
    assert after["active_mask"] & ~spread == 0 and after["ready_mask"] & ~spread & ~(1 << Signal.MULTI_TIMEFRAME) == 0
    assert (after["score"], after["confidence"], after["side"], after["gate"]) == (50.0, 0.0, Side.NONE, Gate.WARM)
    assert not np.delete(strengths[AT + 1], Signal.SPREAD).any()
    assert out["ready_mask"][-1] == everything
    # prints and book are those of the new market alone: the windows are what they are in a market that begins there
    anew, fresh, _ = run(recs[AT + 1 :], OPEN)
    for signal in (Signal.BOOK_IMBALANCE, Signal.MICRO_TREND, Signal.VOLUME_PRICE_DIVERGENCE):
        np.testing.assert_allclose(strengths[AT + 1 :, signal], fresh[:, signal], rtol=1e-9, atol=1e-12, err_msg=signal.name)


def test_a_short_interruption_restarts_only_what_needs_an_unbroken_book() -> None:
    """Imbalance, acceleration and momentum wait; what prints, seconds and bars said is still true."""
    out, strengths, _ = run(cut(0.3), OPEN)
    waits = {Signal.BOOK_IMBALANCE, Signal.ACCELERATION, Signal.MOMENTUM_DECAY}
    for signal in set(Signal) - {Signal.MODEL}:
        assert bool(out["ready_mask"][AT + 1] >> signal & 1) == (signal not in waits), signal
        if signal in waits:
            assert strengths[AT + 1, signal] == 0.0
    for signal in (Signal.MICRO_TREND, Signal.EMA_CROSS, Signal.MULTI_TIMEFRAME):
        assert strengths[AT + 1, signal] == strengths[AT - 1, signal]


def test_the_spread_waits_for_a_book_change() -> None:
    """A print that carries the first good book says nothing of the spread: its average is by book change."""
    out, _, _ = run(cut(0.3, kind=Kind.TRADE), OPEN)
    assert not out["ready_mask"][AT + 1] >> Signal.SPREAD & 1 and out["gate"][AT + 1] == Gate.WARM
    change = AT + 2 + int(np.flatnonzero(cut(0.3)["kind"][AT + 2 :] != Kind.TRADE)[0])
    assert out["ready_mask"][change] >> Signal.SPREAD & 1


def test_volume_that_was_not_seen_is_no_calm() -> None:
    """Ten silent minutes of an outage do not make the market's usual volume a spike."""
    out, strengths, _ = run(cut(600.0, 6000), OPEN)
    spikes = np.abs(strengths[:, Signal.VOLUME_SPIKE]) > 0
    usual = spikes[1000:AT].mean()
    assert 0 < usual < 0.5
    assert spikes[AT + 1 :].mean() < 2 * usual and not spikes[AT + 1 : AT + 100].any()


def test_a_silence_weighs_what_it_lasted() -> None:
    """A silence of seconds told by one record is the same to the microstructure score as one told slot by slot.

    Mark prices move time on and change nothing else. Impact is left out: its fit is renewed at the end of a second, so a silence
    told at once does not see it between two slots.
    """
    strategy = msgspec.structs.replace(OPEN, features=msgspec.structs.replace(OPEN.features, impact_half_life_trades=1e6))
    recs = random_walk(23, 4000, gap_every=150)
    pieces = []
    for i, rec in enumerate(recs):
        if i:
            stamps = np.arange(recs["ts_ns"][i - 1] + 50_000_000, rec["ts_ns"], 50_000_000)
            marks = np.zeros(len(stamps), recs.dtype)
            marks["ts_ns"], marks["kind"] = stamps, Kind.MARK
            pieces.append(marks)
        pieces.append(recs[i : i + 1])
    told = np.concatenate(pieces)
    at_once, one_by_one = signals_of(recs, strategy), signals_of(told, strategy)[told["kind"] != Kind.MARK]
    assert (np.diff(recs["ts_ns"]) > 10 * S).sum() > 5 and (at_once["microstructure"] > 0).mean() > 0.5
    np.testing.assert_allclose(one_by_one["microstructure"], at_once["microstructure"], rtol=1e-5, atol=1e-5)


def moved(factor: float) -> Recs:
    """Signals of a market in which every regime moves the thresholds by this factor."""
    lax = Thresholds(long=56.0, short=44.0, calm_factor=factor, turbulent_factor=factor, trending_factor=factor)
    return run(random_walk(6, 6000), msgspec.structs.replace(OPEN, thresholds=lax))[0]


def test_a_moved_threshold_alone_decides_and_says_so() -> None:
    """A score between the profile's threshold and the one in force asks for no side: gate THRESHOLD, and both in the record."""
    plain, out = moved(1.0), moved(1.5)
    regimes = np.isin(out["regime"], (1, 3, 4))
    held = out["gate"] == Gate.THRESHOLD
    assert held.any() and regimes[held].all() and not out["side"][held].any()
    assert (plain["side"][held] != Side.NONE).all() and (plain["gate"][held] == Gate.NONE).all()
    np.testing.assert_array_equal(plain["score"], out["score"])
    warm = out["gate"] != Gate.BOOK
    np.testing.assert_allclose(out["long_threshold"][warm], np.where(regimes, 59.0, 56.0)[warm])
    np.testing.assert_allclose(out["short_threshold"][warm], np.where(regimes, 41.0, 44.0)[warm])
    score = out["score"]
    assert (((score >= 56) & (score < out["long_threshold"])) | ((score <= 44) & (score > out["short_threshold"])))[held].all()
    assert (out["side"][~held] == plain["side"][~held]).all() and not (plain["gate"] == Gate.THRESHOLD).any()


WAITS = HEAD + (
    "@signal(state={'calls': int}, voice='standing')\ndef broken(state, event, out):\n    state.calls += 1\n"
    "    out.ready = 1 if state.calls > 2000 else 0\n    out.strength = 0.0\n"
)
FAILS = HEAD + (
    "@signal(state={'calls': int, 'ring': (float, 8)}, voice='standing')\ndef broken(state, event, out):\n"
    "    state.calls += 1\n    out.ready = 0\n    state.ring[state.calls // 256] = 1.0\n"
)


@pytest.mark.parametrize(("text", "until"), [(WAITS, 2000), (FAILS, 2047)])
def test_a_standing_signal_of_the_users_is_waited_for(text: str, until: int, tmp_path: Path) -> None:
    """Gate WARM holds until it is ready; once it is switched off nobody waits for it any more."""
    recs = random_walk(17, 3000)
    strategy = msgspec.structs.replace(OPEN, signals=strategy_of(tmp_path / "mine.py", text).signals)
    user = load(strategy)
    found, without = Pass([Instrument("S0")], strategy, user=user).signals(recs), signals_of(recs, OPEN)
    assert (found["gate"][:until] == Gate.WARM).all()
    assert (without["gate"][1500:until] != Gate.WARM).all() and (found["gate"][until + 1 :] != Gate.WARM).all()
