"""The learner's rounds on journals of markets whose edge is known, killed anywhere; and what is fitted for the features."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from features_markets import random_walk

from procs.cli.starting import refuse_without_packages
from procs.journal.file import JournalWriter, journal_path
from procs.learning import fitting, install, learner, packages, publishing, registry, synthetic, training
from procs.learning.datasets import CHUNK, History, data_set, mids
from procs.learning.extras import LearningError
from procs.learning.figures import Figure, Verdict
from procs.learning.model_file import Garch, Model, Span, TreeData
from procs.memory import model_channel as channel
from procs.profiles.config import load_profile
from procs.profiles.schema import Profile
from procs.profiles.strict_yaml import ConfigError
from procs.research.columns import recording_columns
from trading.features import vector as feature_vector
from trading.features.layout import FEATURE_STATE
from trading.features.model_layout import MICRO_IMBALANCES, MICRO_SPREADS, MODEL_IMAGE, TREES
from trading.instruments import Instrument
from trading.jit import Recs, Words
from trading.records import MARKET_RECORD
from trading.scoring import batch
from trading.settings import Features, Strategy

NAMES = ("BTCUSDT",)
LEARNER = {
    "ml.enabled": True, "ml.horizon_ms": 1000, "ml.cost_bps": 0.25, "ml.learner.enabled": True, "ml.learner.kind": "linear",
}  # fmt: skip
GOOD = Verdict(
    rows=500, blocks=50, level=0.99, auc=Figure(0.6, 0.55, 0.65), brier_gain=Figure(0.01, 0.005, 0.02), brier=0.24,
    baseline_brier=0.25, log_loss=0.68, baseline_log_loss=0.69, ups=0.5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry below a folder of the test."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def profile(**over: Any) -> Profile:
    """Paper, with the learner on."""
    return load_profile("paper", {**LEARNER, **over}, pin=registry.all_pinned)


def journal(folder: Path, recs: Recs) -> str:
    """The records as the recorder would have written them."""
    slots = np.ascontiguousarray(recs).copy()
    slots["seq"] = 1 + np.arange(len(slots))
    folder.mkdir(parents=True, exist_ok=True)
    with JournalWriter.open(journal_path(folder, "market"), "market", MARKET_RECORD, "paper") as writer:
        writer.append(slots)
    return str(folder)


def fitted_model(kind: str, name: str, **parts: Any) -> Model:
    """A table of BTCUSDT that passed."""
    return Model(
        name=name, kind=kind, feature_version=feature_vector.VERSION, features=list(feature_vector.NAMES), horizon_ms=1000,
        cost_bps=0.25, span=Span(0, 1, 500, ["BTCUSDT"], ["day1"]), importance={}, verdict=GOOD, **parts,
    )  # fmt: skip


def words_of() -> Words:
    """A channel for one symbol on the heap."""
    words = np.zeros(channel.words_for(1), np.int64)
    words[channel.SYMBOLS] = 1
    return words


def to_heap(words: Words, told: Profile) -> learner.Publish:
    """A publisher into such a channel, whose stage takes everything at once."""

    def publish(model: Model) -> int:
        publishing.refuse(told, model)
        words[channel.IN_FORCE] = channel.publish(words, publishing.images_with(words, told, NAMES, model))
        return int(words[channel.IN_FORCE])

    return publish


def in_force(words: Words) -> Recs:
    """The image of the one symbol."""
    at = channel.place(words, int(words[channel.IN_FORCE]))
    return words[at : at + channel.IMAGE_WORDS].view(MODEL_IMAGE)


@pytest.mark.parametrize(("kind", "library"), [("linear", "sklearn"), ("trees", "lightgbm")])
def test_a_planted_edge_is_found_promoted_and_published(tmp_path: Path, kind: str, library: str) -> None:
    """From the journal alone; on a market without one every version is kept, none promoted, and what is in force stays."""
    pytest.importorskip(library, reason=f"{library} is not installed: the ml extra has it")
    told, words, heard = profile(**{"ml.learner.kind": kind}), words_of(), []
    for number, edge in enumerate((synthetic.PLANTED_EDGE, 0.0)):
        run = journal(tmp_path / str(number), synthetic.market(1, edge)[0].recs)
        said = learner.round_of(told, run, NAMES, to_heap(words, told), heard.append)
        assert [a.model for a in said] == [f"learned-btcusdt@{number + 1}"]
        assert said[0].promoted == (edge != 0.0) == (said[0].published == 1) and bool(said[0].why) == (edge == 0.0)
        assert registry.attempt("learned-btcusdt") == said[0] and registry.attempts("paper") == said
    assert registry.versions("learned-btcusdt") == [1, 2]
    assert [p.version for p in registry.promotions("learned-btcusdt")] == [1]
    assert int(words[channel.IN_FORCE]) == 1 and in_force(words)["batch_version"][0] == 1
    assert "in force as change 1" in heard[0] and "not promoted; its AUC" in heard[1]


def test_too_little_is_said_and_trains_nothing(tmp_path: Path) -> None:
    """No journal yet, few records: a sentence at most, no version; it looks back no further than it is told."""
    told = profile(**{"ml.learner.max_records": 1000})
    assert learner.round_of(told, str(tmp_path / "none"), NAMES, None, print) == []
    recs = synthetic.market(1, 0.0)[0].recs
    run = journal(tmp_path / "some", recs)
    said = learner.round_of(told, run, NAMES, None, lambda _: None)
    assert said[0].records == 1000 and not said[0].model and "ml.learner.min_rows is 500" in said[0].why
    assert registry.versions("learned-btcusdt") == []
    minute = profile(**{"ml.learner.window_minutes": 1})
    assert np.ptp(learner.recorded(minute, run, NAMES)[0].recs["ts_ns"]) <= 60e9
    assert 0.0 < learner.wait_s(told, run, NAMES, registry.seconds_of(said[0].time) + 1.0) == 599.0
    assert learner.wait_s(told, "another run", NAMES, 0.0) == 600.0


def test_a_kill_at_any_step_leaves_the_registry_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL before each file operation in turn: all that is there can be read, and the next learner finishes what is left."""
    told, past = profile(), History("BTCUSDT", "x", np.zeros(1, MARKET_RECORD))
    tree = fitted_model("trees", "learned-btcusdt", trees=[TreeData([], [], [], [], [1.0])])
    monkeypatch.setattr(learner, "data_set", lambda *_: msgspec.defstruct("Rows", [("told", Any)])(np.ones(9999)))
    monkeypatch.setattr(training, "train", lambda *_, **__: tree)
    done = steps = 0
    while not done:
        pid = os.fork()
        if pid == 0:
            left = steps

            def dies(call: Any) -> Any:
                def wrapped(*given: Any, **named: Any) -> Any:
                    nonlocal left
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left -= 1
                    return call(*given, **named)

                return wrapped

            for name in ("fsync", "link", "unlink", "replace"):
                setattr(os, name, dies(getattr(os, name)))
            learner.one(told, past, "run", to_heap(words_of(), told))
            os._exit(0)
        done = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        for version in registry.versions("learned-btcusdt"):
            assert registry.load(f"learned-btcusdt@{version}", promoted=False).trees
        voted = registry.promotions("learned-btcusdt")
        attempt, words = registry.attempt("learned-btcusdt"), words_of()
        learner.resume(told, "run", NAMES, to_heap(words, told), lambda _: None)
        waiting = attempt is not None and attempt.promoted and not attempt.published
        assert int(words[channel.IN_FORCE]) == int(waiting) and (not waiting or voted)
        steps += 1
    assert steps > 8
    for left_behind in registry.folder().glob("*/.new-*"):
        os.utime(left_behind, (0, 0))
    registry.tidy()
    assert not list(registry.folder().glob("*/.new-*")) and len(registry.versions("learned-btcusdt")) >= 3


def test_a_learner_that_cannot_be_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a replay, without models, without a journal, without its library: one sentence each, before anything is started."""
    for said, over in {
        "virtual time": {"world": "replay", "source.speed": "max"},
        "ml.enabled is false": {"ml.enabled": False},
        "pipeline.journal is false": {"pipeline.journal": False},
    }.items():
        with pytest.raises(ConfigError, match=said):
            profile(**over)
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(Exception, match=r"scikit-learn cannot be imported: install the extra `ml`"):
        refuse_without_packages(profile())
    refuse_without_packages(load_profile("paper"))


def test_a_fitted_microprice_and_garch_are_in_force_everywhere(tmp_path: Path) -> None:
    """Stage, batch and data set compute with the tables that the profile names, alike; another symbol keeps the settings'."""
    table = np.arange(40.0).reshape(MICRO_SPREADS, MICRO_IMBALANCES) / 40.0
    for model in (
        fitted_model("microprice", "micro", microprice=table.tolist()),
        fitted_model("garch", "vol", garch=Garch(bar_ms=1000, omega=1e-9, alpha=0.2, beta=0.7, bars=500)),
    ):
        registry.save(model)
        registry.promote(model.name)
    told = load_profile("paper", {"features.microprice": "micro", "features.garch": "vol"}, pin=registry.all_pinned)
    assert (told.features.microprice, told.features.garch) == ("micro@1", "vol@1")
    recs = random_walk(3, CHUNK + 500)
    pair = [Instrument("BTCUSDT"), Instrument("ETHUSDT")]
    mixed = recs.copy()
    mixed["symbol"] = np.arange(len(recs)) % 2
    started = batch.Pass(pair, told, start=install.start(told, ["BTCUSDT", "ETHUSDT"]))
    by_hand = batch.Pass(pair, told, {0: table})
    for key, value in (("garch_omega", 1e-9), ("garch_alpha", 0.2), ("garch_beta", 0.7), ("garch", 1e-9 / 0.1)):
        by_hand.state[key][0] = value
    got, plain = started.all(mixed), batch.Pass(pair, told).all(mixed)
    for a, b in zip(got, by_hand.all(mixed)):
        np.testing.assert_array_equal(a, b)
    other = mixed["symbol"] == 1
    np.testing.assert_array_equal(got[1][other], plain[1][other])
    gap, vol = (list(feature_vector.NAMES).index(name) for name in ("microprice_gap", "garch_bps"))
    for k in (gap, vol):
        assert (got[1][~other][:, k] != plain[1][~other][:, k]).mean() > 0.1
    rows = data_set(History("BTCUSDT", "walk", recs), told)  # over more than one chunk
    whole = batch.Pass(pair[:1], told, start=install.start(told, ["BTCUSDT"])).matrix(recs)[0]
    np.testing.assert_array_equal(rows.x, whole[np.isin(recs["ts_ns"], rows.ts)])
    with pytest.raises(LearningError, match=r"bars of 1000 ms, features\.bar_ms is 500"):
        install.start(load_profile("paper", {"features.garch": "vol", "features.bar_ms": 500}), NAMES)


def test_a_model_reads_what_it_was_trained_with(tmp_path: Path) -> None:
    """It is refused where another table is in force, at the start and when published; a table that knows the future, to train."""
    registry.save(fitted_model("microprice", "micro", microprice=np.zeros((MICRO_SPREADS, MICRO_IMBALANCES)).tolist()))
    registry.promote("micro")
    registry.save(fitted_model("trees", "edge", trees=[TreeData([], [], [], [], [1.0])]))
    registry.promote("edge")
    both = profile(**{"ml.model": "edge", "features.microprice": "micro"})
    state, images = np.zeros(1, FEATURE_STATE), np.zeros(1, MODEL_IMAGE)
    with pytest.raises(LearningError, match="trained with another"):
        install.start(both, NAMES)(state, images)
    only = profile(**{"ml.model": "edge"})
    words = words_of()
    with pytest.raises(LearningError, match="trained with another"):
        to_heap(words, only)(registry.load("micro"))
    assert to_heap(words, only)(registry.load("edge")) == 1 and in_force(words)["batch_kind"][0] == TREES
    with pytest.raises(LearningError, match="replays in virtual time"):
        publishing.refuse(msgspec.structs.replace(only, world="replay"), registry.load("edge"))
    walk = random_walk(4, 3000)
    walk["ts_ns"] -= walk["ts_ns"][0] - 1  # before the table's last record
    with pytest.raises(LearningError, match="fit it to earlier recordings"):
        training.train("m", "linear", [History("BTCUSDT", "walk", walk)], both)


def test_a_microprice_is_promoted_where_it_predicts(tmp_path: Path) -> None:
    """Where imbalance moves the mid against the weighted mid's guess the table wins out of sample."""
    rng = np.random.default_rng(5)
    n = 40_000
    verdicts = []
    for true in (True, False):
        recs = np.zeros(n, MARKET_RECORD)
        lots = rng.integers(1, 100, (2, n))
        # the next change of the mid goes against the heavier side, or either way
        heavy = np.where(lots[0] > lots[1], -1, 1) if true else rng.choice([-1, 1], n)
        mid = 10_000 + np.cumsum(np.append(0, np.where(rng.random(n) < 0.3, heavy, 0))[:-1])
        recs["ts_ns"] = 1 + 100_000_000 * np.arange(n)
        recs["bid_ticks"], recs["ask_ticks"] = mid[:, None] - np.arange(5), mid[:, None] + 1 + np.arange(5)
        recs["bid_lots"], recs["ask_lots"] = lots[0][:, None], lots[1][:, None]
        recs["kind"], recs["flags"] = 2, 1
        model = training.train("m", "microprice", [History("BTCUSDT", "made", recs)], Strategy())
        verdicts.append(model.verdict)
        assert np.shape(model.microprice) == (MICRO_SPREADS, MICRO_IMBALANCES)
    assert verdicts[0].passed and verdicts[0].measure == "squared error in ticks"
    assert verdicts[0].loss is not None and verdicts[0].baseline_loss is not None
    assert verdicts[0].loss < 0.8 * verdicts[0].baseline_loss


def test_a_garch_is_promoted_where_it_predicts() -> None:
    """Bars whose variance clusters: the fit of the first half says the second half's variance better than the settings'."""
    pytest.importorskip("arch", reason="arch is not installed: the ml extra has it")
    rng = np.random.default_rng(6)
    bars, omega, alpha, beta = 4000, 4e-8, 0.15, 0.8
    variance, price = omega / (1 - alpha - beta), 0.0
    recs = np.zeros(bars, MARKET_RECORD)
    mid = np.empty(bars)
    for i in range(bars):
        move = np.sqrt(variance) * rng.normal()
        price, variance = price + move, omega + alpha * move * move + beta * variance
        mid[i] = 1_000_000 * np.exp(price)
    recs["ts_ns"] = 1_000_000_000 * (1 + np.arange(bars)) + 999_999_999
    recs["bid_ticks"], recs["ask_ticks"] = mid[:, None] - np.arange(5), mid[:, None] + 1 + np.arange(5)
    recs["bid_lots"] = recs["ask_lots"] = 10
    recs["kind"], recs["flags"] = 2, 1
    past = History("BTCUSDT", "made", recs)
    assert (mids(past, Strategy()) > 0).all()
    model = training.train("vol", "garch", [past], Strategy(features=Features(garch_omega=5e-10)))
    assert model.garch is not None and model.garch.alpha == pytest.approx(alpha, abs=0.05)
    assert model.verdict.passed and model.verdict.measure == "QLIKE"
    loss = fitting.fit_garch(past, Strategy(features=Features(garch_omega=omega, garch_alpha=alpha, garch_beta=beta)))[1]
    assert not loss.passed, "settings that are right already are not beaten"


@pytest.mark.slow
@pytest.mark.recordings
@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_pipeline_and_batch_agree_with_a_table_in_force(tmp_path: Path, recordings: Path) -> None:
    """A table fitted to a day, in force on two (the second has no snapshot): `features` gives the stage's signals."""
    from procs.fold.plan import plan_of
    from procs.learning.datasets import histories
    from procs.research import backtest
    from sim.recordings.recording import stage

    first, second = (recordings / "hftbacktest_binance" / f"spot_btcusdt_2024080{d}.gz" for d in (8, 9))
    model = training.train("micro", "microprice", histories([first]), Strategy())
    registry.save(msgspec.structs.replace(model, verdict=GOOD))
    registry.promote("micro")
    days = [first, second]
    source = {"source.kind": "recording", "source.files": [str(day) for day in days], "source.speed": "max"}
    told = load_profile("replay", {"features.microprice": "micro", **source}, pin=registry.all_pinned)
    kept = backtest.run(plan_of(told, stage(days, tmp_path / "spool")), keep=("signals",)).kept["signals"]
    kept = kept[kept["symbol"] >= 0]
    columns = list(recording_columns(days, told))
    price = np.concatenate([c["microprice"] for c in columns])
    valid = np.isfinite(price)
    stage_price = kept["microprice"][: len(price)][valid] * 0.01
    np.testing.assert_allclose(price[valid], stage_price, rtol=1e-12)
    without = np.concatenate([c["microprice"] for c in recording_columns(days, Strategy())])
    assert (price[valid] != without[valid]).mean() > 0.5
