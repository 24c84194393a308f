"""The features stage with models: chosen at the start, changed while it runs, and an exact fold through all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fold_world import STAGES, Session, small_market

from procs import backtest
from procs.learning import channel, registry
from procs.learning.figures import Figure, Verdict
from procs.learning.install import put
from procs.learning.model_file import Model, Span, TreeData
from procs.stage import LoopSettings
from trading import feature_vector
from trading.feature_layout import FEATURE_STATE
from trading.jit import Recs, Words
from trading.model_layout import MODEL_IMAGE
from trading.signals import Signal

SECONDS = 40.0
MODEL = int(Signal.MODEL)
ON = {"ml.enabled": True, "ml.required": False, "ml.online": False, "ml.every_ms": 0}


def always(leaf: float, name: str = "always") -> Model:
    """A model that says the same of everything."""
    return Model(
        name=name, kind="trees", feature_version=feature_vector.VERSION, features=list(feature_vector.NAMES), horizon_ms=1000,
        cost_bps=1.0, span=Span(0, 1, 500, ["BTCUSDT"], ["day1"]), importance={}, trees=[TreeData([], [], [], [], [leaf])],
        verdict=Verdict(rows=500, blocks=50, level=0.99, auc=Figure(0.6, 0.55, 0.65), brier_gain=Figure(0.01, 0.005, 0.02)),
    )  # fmt: skip


def image(leaf: float) -> Words:
    """Its words, as a publisher sends them."""
    found = np.zeros(1, MODEL_IMAGE)
    put(always(leaf), np.zeros(1, FEATURE_STATE), found)
    return found.view(np.int64)


def strengths(signals: Recs) -> Recs:
    """The model's strength on every record."""
    return signals["strength"][:, MODEL]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry below a folder of the test."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_profiles_model_votes_from_the_start() -> None:
    """A promoted model named by the profile speaks on every record with enough features, and changes orders' causes alone."""
    registry.save(always(1.0))
    registry.promote("always")
    kept = backtest.run(small_market(SECONDS, **ON, **{"ml.model": "always"}), keep=("signals",)).kept["signals"]
    spoke = strengths(kept) != 0
    assert spoke.sum() > 500
    np.testing.assert_allclose(strengths(kept)[spoke], np.tanh(0.5), rtol=1e-6)


@pytest.mark.parametrize("crash_every", [0, 1, 3])
def test_a_model_comes_into_force_once_whatever_crashes(crash_every: int) -> None:
    """Two models published while the stage runs and dies: nothing that was published is ever computed differently.

    The stage dies after a poll and before its checkpoint, also in the round in which a model is published.
    """
    session = Session(small_market(SECONDS, **ON), LoopSettings(checkpoint_every=1024))
    words = session.world.models = np.zeros(channel.words_for(1), np.int64)
    words[channel.SYMBOLS] = 1
    session.stages["features"] = session.modules["features"].build(session.plan, session.world, session.loop)
    leaves, rounds = [1.0, -1.0], 0
    while not all(session.done(name) for name in STAGES):
        rounds += 1
        for name in STAGES:
            if session.done(name):
                continue
            work = session.poll(name)
            if name == "features":
                published = session.tail("signals")
                if leaves and published > (6000 if len(leaves) == 1 else 4000) and words[0] == words[1]:
                    channel.publish(words, image(leaves.pop(0)))
                if crash_every and rounds % crash_every == 0 and not session.done(name):
                    session.crash(name)
                    work = session.poll(name)
            session.settle(name, work)
        session.record()
        assert rounds < 100_000
    assert session.diverged() == 0
    assert words[channel.WANTED] == words[channel.IN_FORCE] == 2 and session.crashes >= (crash_every > 0)
    found = strengths(session.kept()["signals"])
    said = found[found != 0]
    assert len(said) > 500
    up, down = np.flatnonzero(found > 0), np.flatnonzero(found < 0)
    assert len(up) and len(down) and up.max() < down.min(), "the second model follows the first, and each comes once"
    np.testing.assert_allclose(np.abs(said), np.tanh(0.5), rtol=1e-6)
