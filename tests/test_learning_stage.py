"""The features stage with models: chosen at the start, changed while it runs, and an exact fold through all of it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from features_markets import random_walk
from fold_world import STAGES, Session, small_market
from test_refold import differences, written

from procs import topology
from procs.fold.assembly import LoopSettings, heap_world
from procs.fold.checkpoint import diverged, restore, save
from procs.fold.loop import poll
from procs.fold.merge import flush_outputs
from procs.fold.plan import plan_of
from procs.journal.beside import Beside, models
from procs.learning import registry
from procs.learning.figures import Figure, Verdict
from procs.learning.install import put
from procs.learning.model_file import Model, Span, TreeData
from procs.memory import board
from procs.memory import model_channel as channel
from procs.profiles.config import load_profile
from procs.research import backtest, refold
from ringbuf.layout import TAIL, views
from trading.features import vector as feature_vector
from trading.features.layout import FEATURE_STATE
from trading.features.model_layout import MODEL_IMAGE
from trading.features.signals import Signal
from trading.jit import Recs, Words
from trading.records import MARKET_RECORD, SIGNAL_RECORD

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


@pytest.mark.parametrize("crash_every", [0, 3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_model_comes_into_force_once_whatever_crashes(tmp_path: Path, crash_every: int) -> None:
    """Two models published while the stage runs and dies: nothing that was published is ever computed differently, and with what
    the recorder keeps of the models the session folds again.

    The stage dies after a poll and before its checkpoint, also in the round in which a model is published.
    """
    session = Session(small_market(SECONDS, **ON), LoopSettings(checkpoint_every=1024))
    words = session.world.models = np.zeros(channel.words_for(1), np.int64)
    words[channel.SYMBOLS] = 1
    session.build("features")
    leaves, rounds = [1.0, -1.0], 0
    guard = board.page(session.world.board, topology.stage_id("features"))[board.USER_GUARD :]
    beside = Beside(tmp_path, guard, lambda: int(words[channel.IN_FORCE]), lambda: channel.in_force(words))
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
        beside.look()
        assert rounds < 100_000
    assert session.diverged() == 0
    assert words[channel.WANTED] == words[channel.IN_FORCE] == 2 and session.crashes >= (crash_every > 0)
    journals = written(tmp_path, session.kept())
    again = refold.Session(session.plan, journals, models(tmp_path))
    assert len(again.models) == 2
    if crash_every:
        assert differences(refold.refold(again)) == {}
    else:  # without them it is another session
        assert "signals" in differences(refold.refold(refold.Session(session.plan, journals)))
    found = strengths(session.kept()["signals"])
    said = found[found != 0]
    assert len(said) > 500
    up, down = np.flatnonzero(found > 0), np.flatnonzero(found < 0)
    assert len(up) and len(down) and up.max() < down.min(), "the second model follows the first, and each comes once"
    np.testing.assert_allclose(np.abs(said), np.tanh(0.5), rtol=1e-6)


def test_what_was_fitted_is_part_of_the_state_and_of_one_symbol() -> None:
    """GARCH and microprice published for the second symbol: in force once, alone there, and after a crash as before it."""
    module: Any = importlib.import_module("procs.stages.features")
    plan = plan_of(load_profile("paper", {**ON, "symbols": [{"name": "BTCUSDT"}, {"name": "ETHUSDT"}]}))
    world = heap_world({"features": module.state_spec(2)})
    words = world.models = np.zeros(channel.words_for(2), np.int64)
    words[channel.SYMBOLS] = 2
    bound = module.build(plan, world, LoopSettings())
    recs = random_walk(21, 3000)
    recs["symbol"] = np.arange(3000) % 2
    ctl, slots, ring = views(world.rings["market"], MARKET_RECORD)
    ring[:3000] = recs
    published = np.zeros(2, MODEL_IMAGE)
    published["garch_omega"][1], published["garch_alpha"][1], published["garch_beta"][1] = 1e-9, 0.2, 0.7
    published["micro_fitted"][1], published["micro_table"][1] = 1, 0.25
    for done, upto in enumerate((1000, 2000)):
        slots[:upto, -1], ctl[TAIL] = 1 + np.arange(upto), upto
        assert int(poll(bound.block)) == 1000
        flush_outputs(bound.block)
        if not done:
            save(bound.block)
            channel.publish(words, published.view(np.int64))
    state = bound.state["state"]
    assert words[channel.IN_FORCE] == 1 and state["micro_fitted"].tolist() == [0, 1]
    assert state["garch_alpha"].tolist() == [plan.strategy.features.garch_alpha, 0.2]
    out = views(world.rings["signals"], SIGNAL_RECORD)[2][:2000].copy()
    gap = out["microprice"] - out["mid"]
    first, second = (np.arange(2000) % 2 == k for k in (0, 1))
    late = np.arange(2000) >= 1000
    near = (out["ask_ticks"] - out["bid_ticks"] <= 4) & (out["mid"] > 0)
    assert near[second & late].sum() > 100 and (gap[near & second & late] == 0.25).all()
    assert not (gap[near & first & late] == 0.25).all() and not (gap[near & second & ~late] == 0.25).all()
    bound.arena[:] = -1  # it dies after the publication, without a checkpoint of what came after it
    again = module.build(plan, world, LoopSettings())
    restore(again.block)
    assert again.state["state"]["micro_fitted"].tolist() == [0, 1]
    poll(again.block)
    flush_outputs(again.block)
    assert int(diverged(again.block)) == 0
    assert views(world.rings["signals"], SIGNAL_RECORD)[2][:2000].tobytes() == out.tobytes()
