"""The ensemble's score, confidence, urgency and gates as functions: ranges, monotony, order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.features.layout import FEATURE_PARAMS, FEATURE_STATE
from trading.features.signals import N_SIGNALS, SIGNALS, Signal, Voice
from trading.records import MAX_SIGNALS, Side
from trading.scoring.ensemble import GATE_SENTENCES, Gate, combine, first_gate, model_gate, urgency, wanted_side

ALL = (1 << N_SIGNALS) - 1
WEIGHTS = np.zeros(MAX_SIGNALS)
WEIGHTS[:N_SIGNALS] = 0.5
WEIGHTS[:3] = 1.0
MASKS = [sum(1 << s.signal for s in SIGNALS if s.voice == voice) for voice in (Voice.STANDING, Voice.CONFIRMING)]
FIRST_FOUR = 0b1111

grid = st.integers(-8, 8).map(lambda n: n / 8)  # binary fractions: sums are exact, so ties are ties
strengths = st.lists(grid, min_size=N_SIGNALS, max_size=N_SIGNALS)
masks = st.integers(0, ALL)
units = st.floats(0, 1)


def vote(values: list[float], mask: int = ALL) -> tuple[float, float, int, int]:
    """`combine` of a list of strengths under WEIGHTS."""
    padded = np.zeros(MAX_SIGNALS)
    padded[: len(values)] = values
    score, confidence, active, reason = combine(padded, WEIGHTS, mask, *MASKS)
    return score, confidence, active, reason


@pytest.mark.parametrize(
    ("values", "score", "confidence", "active", "reason"),
    [
        ([0.0, 0.0, 0.0, 0.0], 50.0, 0.0, 0b0000, 0),
        ([0.0, 0.0, 0.0, 1.0], 50.0, 0.0, 0b0000, 0),  # a confirmation of nothing
        ([0.6, 0.0, 0.0, 0.0], 60.0, 1 / 3, 0b0001, 1),
        ([0.6, 0.0, 0.6, 0.0], 70.0, 2 / 3, 0b0101, 1),
        ([-0.6, 0.0, -0.9, 0.0], 25.0, 2 / 3, 0b0101, 3),
        ([1.0, 1.0, 1.0, 0.0], 100.0, 1.0, 0b0111, 1),
        ([1.0, 1.0, 1.0, 1.0], 100.0, 1.0, 0b1111, 1),
        ([0.6, 0.0, 0.0, 1.0], 50 + 50 * 1.1 / 3.5, 1.5 / 3.5, 0b1001, 1),  # confirmed
        ([-0.6, 0.0, 0.0, 1.0], 50 - 50 * 1.1 / 3.5, 1.5 / 3.5, 0b1001, 1),
        ([0.6, 0.0, 0.0, -1.0], 50 + 50 * 0.1 / 3.5, 0.1 / 1.1 / 3.5, 0b1001, 1),  # spoken against
        ([0.2, 0.0, 0.0, -1.0], 50.0, 0.0, 0b1001, 1),  # never turned
        ([0.5, -0.5, 0.0, 0.0], 50.0, 0.0, 0b0011, 0),
        ([1.0, 1.0, -0.8, 0.0], 70.0, 1.2 / 2.8 * 2 / 3, 0b0111, 1),
    ],
)
def test_examples_worked_by_hand(values: list[float], score: float, confidence: float, active: int, reason: int) -> None:
    """The first four alone, weights 1, 1, 1, 0.5: score, confidence, active bits and reason are what the module's text says."""
    got = vote(values, FIRST_FOUR)
    assert got[:2] == pytest.approx((score, confidence), abs=1e-12)
    assert got[2:] == (active, reason)


@settings(max_examples=300, deadline=None)
@given(strengths, masks)
def test_ranges_and_symmetry(values: list[float], mask: int) -> None:
    """Score in 0..100, confidence in 0..1; turning all directional strengths turns the score and nothing else."""
    score, confidence, active, reason = vote(values, mask)
    assert 0 <= score <= 100 and 0 <= confidence <= 1 + 1e-12 and not active & ~mask
    turned = [-v if spec.directional else v for v, spec in zip(values, SIGNALS, strict=True)]
    other = vote(turned, mask)
    assert other[0] == pytest.approx(100 - score, abs=1e-9)
    assert other[1] == pytest.approx(confidence, abs=1e-12)
    assert other[2:] == (active, reason)


@settings(max_examples=300, deadline=None)
@given(strengths, masks, st.integers(0, N_SIGNALS - 1), grid)
def test_a_vote_towards_the_side_never_lowers_score_or_confidence(values: list[float], mask: int, which: int, to: float) -> None:
    """Moving one strength towards the side that is asked for (or up, for a confirming one) is monotone."""
    score, confidence, _, _ = vote(values, mask)
    if score == 50:
        return
    sign = 1.0 if score > 50 else -1.0
    better = list(values)
    direction = sign if SIGNALS[which].directional else 1.0
    better[which] = direction * max(direction * values[which], direction * to)
    more = vote(better, mask)
    assert sign * more[0] >= sign * score - 1e-9
    assert more[1] >= confidence - 1e-12


@settings(max_examples=200, deadline=None)
@given(strengths, masks)
def test_what_is_not_ready_does_not_count(values: list[float], mask: int) -> None:
    """A signal whose ready bit is 0 may hold any strength."""
    other = [v if mask >> k & 1 else -1.0 for k, v in enumerate(values)]
    assert vote(values, mask) == vote(other, mask)


@settings(max_examples=200, deadline=None)
@given(units, units, units, units, st.floats(0, 5), st.floats(0, 5))
def test_urgency_never_falls_with_what_drives_it(e1: float, e2: float, c1: float, c2: float, v1: float, v2: float) -> None:
    """Urgency is in 0..100 and monotone in the score's distance from neutral, confidence and volatility."""
    low = urgency(50 + 50 * min(e1, e2), min(c1, c2), min(v1, v2))
    high = urgency(50 - 50 * max(e1, e2), max(c1, c2), max(v1, v2))
    assert -1e-9 <= low <= high + 1e-9 <= 100 + 1e-6


@pytest.mark.parametrize(
    ("patterns", "score", "confidence", "active", "reason"),
    [
        (0.0, 70.0, 2 / 3, 0b101, 1),  # an occasional signal that is silent does not count
        (0.6, 50 + 50 * 1.5 / 3.3, 2.3 / 3.3, 0b101 | 1 << 11, 1),  # weight 0.5 * 0.6 joins both sides of the quotient
        (-0.6, 50 + 50 * 0.9 / 3.3, 0.9 / 1.5 * 2 / 3.3, 0b101 | 1 << 11, 1),
    ],
)
def test_an_occasional_signal_counts_by_its_size(
    patterns: float, score: float, confidence: float, active: int, reason: int
) -> None:
    """Book imbalance and EMA cross at 0.6, micro trend silent, and a pattern."""
    values = [0.0] * N_SIGNALS
    values[0] = values[2] = 0.6
    values[Signal.PATTERNS] = patterns
    got = vote(values, 0b111 | 1 << Signal.PATTERNS)
    assert got[:2] == pytest.approx((score, confidence), abs=1e-12)
    assert got[2:] == (active, reason)


PASSES: dict[str, Any] = {
    "warm": True,
    "fresh": True,
    "spread_bps": 6.0,
    "max_spread_bps": 6.0,
    "volatility_pct": 0.08,
    "volatility_min_pct": 0.08,
    "microstructure": 60.0,
    "microstructure_min_score": 60.0,
    "spread_strength": 0.0,
    "side": int(Side.BUY),
    "confidence": 0.5,
    "min_confidence": 0.5,
}
FAILS: dict[Gate, dict[str, Any]] = {  # in FORMULAS' order
    Gate.WARM: {"warm": False},
    Gate.BOOK: {"fresh": False},
    Gate.SPREAD: {"spread_bps": 6.01},
    Gate.VOLATILITY: {"volatility_pct": 0.079},
    Gate.MICROSTRUCTURE: {"microstructure": 59.9},
    Gate.SPREAD_VETO: {"spread_strength": -0.01},
    Gate.CONFIDENCE: {"confidence": 0.49},
}


def gate_of(figures: dict[str, Any]) -> Gate:
    """`first_gate` of a state and settings with these figures."""
    s, p = np.zeros(1, FEATURE_STATE)[0], np.zeros(1, FEATURE_PARAMS)[0]
    for key in ("spread_bps", "microstructure"):
        s[key] = figures[key]
    s["strength"][Signal.SPREAD] = figures["spread_strength"]
    for key in ("max_spread_bps", "volatility_min_pct", "microstructure_min_score", "min_confidence"):
        p[key] = figures[key]
    asked = (figures[key] for key in ("warm", "fresh", "volatility_pct", "side", "confidence"))
    return Gate(first_gate(s, p, *asked))


def test_a_market_at_every_bound_passes() -> None:
    """The bounds themselves are allowed."""
    assert gate_of(PASSES) == Gate.NONE


@pytest.mark.parametrize("gate", FAILS)
def test_each_gate_decides_alone(gate: Gate) -> None:
    """With everything else at its bound one failing figure closes its own gate."""
    assert gate_of({**PASSES, **FAILS[gate]}) == gate


def test_the_first_of_several_closed_gates_is_told() -> None:
    """Opening one closed gate after another tells each in FORMULAS' order."""
    order = list(FAILS)
    for n in range(len(order)):
        failing = dict(PASSES)
        for gate in order[n:]:
            failing |= FAILS[gate]
        assert gate_of(failing) == order[n]


def test_confidence_holds_back_only_a_side() -> None:
    """Where no side is wanted low confidence is no reason."""
    assert gate_of({**PASSES, "confidence": 0.0, "side": int(Side.NONE)}) == Gate.NONE


@pytest.mark.parametrize(
    ("side", "strength", "gate"),
    [(1, 0.2, 0), (1, 0.0, 8), (1, -0.2, 8), (-1, -0.2, 0), (-1, 0.2, 8), (0, -0.2, 0)],
)
def test_the_model_gate_wants_a_model_on_the_side(side: int, strength: float, gate: int) -> None:
    """It holds back a side for which no model speaks, be it that all abstain (0) or that they speak against it."""
    assert model_gate(side, strength) == Gate(gate)


def test_sides_at_and_between_the_thresholds() -> None:
    """At or beyond a threshold there is a side, between them none."""
    wanted = [wanted_side(score, 70.0, 30.0) for score in (0, 30, 30.001, 50, 69.999, 70, 100)]
    assert wanted == [-1, -1, 0, 0, 0, 1, 1]


def test_tables_are_complete() -> None:
    """Each signal has a row, each gate a sentence."""
    assert [spec.signal for spec in SIGNALS] == list(Signal)
    assert set(GATE_SENTENCES) == set(Gate)
