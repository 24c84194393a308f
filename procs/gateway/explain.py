"""One SIGNAL_RECORD in words: side, gate, regime, and each signal with its state and its reason.

Records are read by field names and signals by the strategy's table, so that what is added there, a user's own signals among
it, is shown here without a change.
"""

from __future__ import annotations

import math
from typing import Any

from procs.gateway.shapes import Decision, Gate, OwnSignal, Regime, SignalWord
from trading.features import regime
from trading.features.patterns import names as pattern_names
from trading.features.signals import N_SIGNALS, Signal, SignalSpec, sentence_of
from trading.own_signals.guard import Health, health_of
from trading.records import Side
from trading.scoring import ensemble
from trading.settings import Strategy
from trading.user_signals import signal_table


def finite(value: Any) -> float:
    """A float that JSON can hold: what is no number is 0, as what is not warm is."""
    number = float(value)
    return number if math.isfinite(number) else 0.0


def warm(value: Any) -> float | None:
    """A figure of which 0 means that it is not warm."""
    return finite(value) or None


def side_name(value: int) -> str:
    """BUY, SELL or NONE."""
    return Side(value).name if value in (-1, 0, 1) else "NONE"


def gate_of(value: int) -> Gate:
    """A gate with its sentence."""
    try:
        gate = ensemble.Gate(value)
    except ValueError:
        return Gate(name=str(value), sentence="a gate that this program does not know")
    return Gate(name=gate.name, sentence=ensemble.GATE_SENTENCES[gate])


def regime_of(value: int) -> Regime:
    """A regime with its name; NONE for 0."""
    names = {int(member): str(member.name) for member in regime.Regime}
    return Regime(number=value, name=names.get(value, "NONE" if value == 0 else str(value)))


def patterns_of(record: Any) -> list[str]:
    """The patterns on the pipeline's bar that closed last, in words."""
    return list(pattern_names(int(record["patterns"])))


def health_by_name(strategy: Strategy, guard: Any) -> dict[str, Health]:
    """What became of each of the user's signals; `guard`: trading.own_signals.guard's words, on the features' page of the
    board."""
    return {one.name: health_of(guard, k) for k, one in enumerate(strategy.signals.user)}


def words_of(record: Any, strategy: Strategy, health: dict[str, Health]) -> list[SignalWord]:
    """Every signal of the strategy, the user's last: its state, strength and sentence."""
    return [_word(spec, record, strategy, health.get(spec.key)) for spec in signal_table(strategy)]


def _word(spec: SignalSpec, record: Any, strategy: Strategy, health: Health | None) -> SignalWord:
    bit, strength = 1 << spec.signal, finite(record["strength"][spec.signal])
    if int(record["active_mask"]) & bit:
        state, reason = "active", sentence_of(spec, strength, strategy.features, int(record["patterns"]))
    elif health is not None and health.off_from:
        state, reason = "off", ""
    elif spec.signal == Signal.MODEL and not strategy.ml.enabled:
        state, strength, reason = "off", 0.0, "no model votes: ml.enabled is false"
    elif int(record["ready_mask"]) & bit:
        state, reason = "silent", "says nothing now"
        if strength != 0:
            reason = "does not vote: no side to speak for, or no weight"
    else:
        state, strength, reason = "warming", 0.0, "has not seen enough of the market yet"
    if spec.signal < N_SIGNALS or health is None:
        return SignalWord(key=spec.key, state=state, strength=strength, reason=reason)
    own = OwnSignal(not_finite=health.not_finite, faults=health.faults, off_from=health.off_from or None)
    told = "; ".join(text for text in (reason, health.sentence) if text)
    return SignalWord(key=spec.key, state=state, strength=strength, reason=told, own=own)


def decision_of(record: Any, strategy: Strategy, health: dict[str, Health]) -> Decision:
    """The whole record in words."""
    leading = int(record["reason"]) - 1
    keys = [spec.key for spec in signal_table(strategy)]
    return Decision(
        side=side_name(int(record["side"])),
        score=finite(record["score"]),
        confidence=finite(record["confidence"]),
        urgency=finite(record["urgency"]),
        long_threshold=finite(record["long_threshold"]),
        short_threshold=finite(record["short_threshold"]),
        gate=gate_of(int(record["gate"])),
        regime=regime_of(int(record["regime"])),
        leading=keys[leading] if 0 <= leading < len(keys) else None,
        signals=words_of(record, strategy, health),
    )
