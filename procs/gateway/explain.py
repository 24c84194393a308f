"""One SIGNAL_RECORD in words: side, gate, regime, and each signal with its state and its reason.

Records are read by field names and signals by their table, so that what is added there is shown here without a change.
What this module is not: it reads no ring; the gateway and `scalperctl signals` do.
"""

from __future__ import annotations

import importlib
import math
from functools import cache
from importlib.util import find_spec
from typing import Any

from procs.gateway.shapes import Decision, Gate, Regime, SignalWord
from trading import ensemble, signals
from trading.records import Side
from trading.settings import Features


def finite(value: Any) -> float:
    """A float that JSON can hold: what is no number is 0, as what is not warm is."""
    number = float(value)
    return number if math.isfinite(number) else 0.0


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


@cache
def _regimes() -> dict[int, str]:
    if find_spec("trading.regime") is None:
        return {}
    return {int(member): str(member.name) for member in importlib.import_module("trading.regime").Regime}


def regime_of(value: int) -> Regime:
    """A regime with its name; NONE for 0."""
    return Regime(number=value, name=_regimes().get(value, "NONE" if value == 0 else str(value)))


def words_of(record: Any, features: Features) -> list[SignalWord]:
    """Every signal of the table: its state, strength and sentence."""
    active, ready = int(record["active_mask"]), int(record["ready_mask"])
    specs = [spec for spec in signals.SIGNALS if active >> spec.signal & 1]
    told = {spec.signal: text for spec, text in zip(specs, signals.reasons(record, features), strict=True)}
    found = []
    for spec in signals.SIGNALS:
        strength = finite(record["strength"][spec.signal])
        if spec.signal in told:
            found.append(SignalWord(key=spec.key, state="active", strength=strength, reason=told[spec.signal]))
        elif ready >> spec.signal & 1:
            text = "says nothing now" if strength == 0 else "does not vote: no side to speak for, or no weight"
            found.append(SignalWord(key=spec.key, state="silent", strength=strength, reason=text))
        else:
            found.append(SignalWord(key=spec.key, state="warming", strength=0.0, reason="has not seen enough of the market yet"))
    return found


def decision_of(record: Any, features: Features) -> Decision:
    """The whole record in words."""
    return Decision(
        side=side_name(int(record["side"])),
        score=finite(record["score"]),
        confidence=finite(record["confidence"]),
        urgency=finite(record["urgency"]),
        long_threshold=finite(record["long_threshold"]),
        short_threshold=finite(record["short_threshold"]),
        gate=gate_of(int(record["gate"])),
        regime=regime_of(int(record["regime"])),
        signals=words_of(record, features),
    )
