"""A user's signal in a pipeline of processes: the values of batch and test kit; one that does not come back is switched off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kill_run
import numpy as np
import pytest
from features_markets import BTC
from user_signal_files import LATE, NAN, documented, strategy_of

from procs.cli.signal_check import with_signals
from procs.fold.plan import plan_of
from procs.journal.beside import stopped as stopped_signals
from procs.profiles.config import load_profile
from procs.research import backtest, refold
from procs.research.columns import recording_columns, signal_values
from procs.research.signal_files import load
from trading.features.signals import N_SIGNALS
from trading.own_signals.guard import health_of
from trading.records import Kind
from trading.scoring.batch import Pass

DECIDED = ("score", "confidence", "side", "gate", "ready_mask", "active_mask", "strength", "reason")
pytestmark = pytest.mark.timeout(900)  # the first start after an edit compiles the kernels


def profile_file(folder: Path, name: str, params: str, rest: str) -> Path:
    """A profile that names the signal `name` of mine.py beside it."""
    file = folder / "mine.yaml"
    file.write_text(f"{rest}\nsignals:\n  user:\n    - {{file: ./mine.py, name: {name}, weight: 0.5, params: {params}}}\n")
    return file


def finished(run: kill_run.Run) -> dict[str, Any]:
    """Run it to its end; its journals."""
    try:
        run.ready()
        assert run.wait_end() == 0
    finally:
        run.close()
    return kill_run.journals(kill_run.last_run.wanted(run.instance))


@pytest.mark.slow
@pytest.mark.usefixtures("own_folders")
def test_pipeline_batch_and_test_kit_say_the_same(tmp_path: Path, recordings: Path) -> None:
    """The documented signal over a recording: the journal's strengths are those of the batch columns and of the test kit, bit for
    bit, at every record."""
    recording = recordings / "hftbacktest_binance" / "spot_btcusdt_20240808.gz"
    (tmp_path / "mine.py").write_text(documented())
    profile = profile_file(tmp_path, "print_pressure", "{threshold: 0.3}", "instance: user-values\nworld: replay")
    overrides = {"source.speed": "max", "source.kind": "recording", "source.files": [str(recording)]}
    market = kill_run.Source(str(profile), overrides, (recording,))
    found = finished(kill_run.Run("user-values", market, {}))["signals"]
    found = found[found["kind"] == Kind.SIGNAL]
    ready = (found["ready_mask"] >> N_SIGNALS & 1).astype(bool)
    wanted = np.where(ready, found["strength"][:, N_SIGNALS].astype(np.float64), np.nan)
    assert ready.mean() > 0.9 and np.abs(found["strength"][:, N_SIGNALS]).max() > 0.3

    kit = signal_values(recording, tmp_path / "mine.py", "print_pressure", {"threshold": 0.3})
    assert np.array_equal(kit["ts_ns"], found["ts_ns"])
    np.testing.assert_array_equal(kit["strength"], wanted)
    assert kit["state.prints"][-1] > 1000
    strategy = strategy_of(tmp_path / "mine.py", documented(), "print_pressure", threshold=0.3)
    pieces = list(recording_columns([recording], strategy))
    np.testing.assert_array_equal(np.concatenate([piece["signal_print_pressure"] for piece in pieces]), wanted)
    np.testing.assert_array_equal(np.concatenate([piece["score"] for piece in pieces]), found["score"])


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["separate", "grouped"])
@pytest.mark.usefixtures("own_folders")
def test_a_signal_that_never_comes_back_is_switched_off_and_the_pipeline_lives(tmp_path: Path, placement: str) -> None:
    """Past its trial, at one record, a signal loops for ever: after two time-outs it is off by name from that record on, and
    every record is what it is with a signal that was stopped there. In a group, the log says who was at work."""
    (tmp_path / "mine.py").write_text(LATE)
    profile = profile_file(
        tmp_path, "broken", "{at: 6500, what: 2}", "instance: user-hangs\nworld: replay\nsymbols: [{name: BTCUSDT}]"
    )
    wishes: dict[str, Any] = {"generator.duration_s": 60.0, "source.speed": "max", "supervisor.heartbeat_timeout_ms": 1000}
    wishes |= {"pipeline.placement": placement}
    run = kill_run.Run("user-hangs", kill_run.Source(str(profile), wishes), wishes)
    journals = finished(run)
    said = run.launched.log.read_text()
    assert said.count("features ended in a user's signal") == 1 and said.count("signal switched off") == 1
    said = said.replace('": "', '":"')
    assert '"signal":"broken"' in said
    assert said.count('"at_work":"features"') == (2 if placement == "grouped" else 0)
    market, found = (journals[name][journals[name]["kind"] != Kind.END] for name in ("market", "signals"))
    off = int(np.flatnonzero(found["ready_mask"] >> N_SIGNALS & 1)[-1]) + 2
    assert 6500 <= off < len(market) - 1000
    assert (found["ready_mask"][off - 1 :] >> N_SIGNALS & 1 == 0).all()

    stopped = Pass([BTC], user=(user := load(strategy_of(tmp_path / "mine.py", LATE, at=6500, what=2))))
    stopped.guard[2] = off
    wanted = stopped.signals(market)
    assert user.settings and stopped.status["off_at"][0] == off
    for name in DECIDED:
        assert np.array_equal(found[name], wanted[name]), name

    settled = with_signals(load_profile(profile, {**wishes, "instance": "user-hangs"}))
    tested = backtest.run(plan_of(settled), keep=("signals",))
    assert health_of(backtest.guard_of(tested.world), 0).off_from == off
    again = tested.kept["signals"]
    again = again[again["kind"] != Kind.END]
    for name in DECIDED:
        assert np.array_equal(found[name], again[name]), f"the backtest's {name}"

    folder = Path(kill_run.last_run.wanted("user-hangs").journal_dir)
    assert stopped_signals(folder) == {0: off}
    again_folded = refold.refold(refold.Session(plan_of(settled), refold.opened(folder), stopped=stopped_signals(folder)))
    assert [one for one in again_folded if not one.equal or one.reached < one.total] == []


@pytest.mark.parametrize("mistake", ["not a number", pytest.param("out of bounds", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("own_folders")
def test_a_wrong_answer_is_cut_off_and_the_pipeline_lives(mistake: str, tmp_path: Path) -> None:
    """NaN, and an index out of bounds past the trial, in a pipeline: no process ends, the log says what happened, and every
    record is that of the same signal in batch, whose strength is 0 there."""
    text, params = (NAN, "{}") if mistake == "not a number" else (LATE, "{at: 6500, what: 1}")
    (tmp_path / "mine.py").write_text(text)
    profile = profile_file(tmp_path, "broken", params, "instance: user-wrong\nworld: replay\nsymbols: [{name: BTCUSDT}]")
    wishes = {"generator.duration_s": 60.0, "source.speed": "max"}
    run = kill_run.Run("user-wrong", kill_run.Source(str(profile), wishes), wishes)
    journals = finished(run)
    told = [json.loads(line) for line in run.launched.log.read_text().splitlines() if line.startswith("{")]
    market, found = (journals[name][journals[name]["kind"] != Kind.END] for name in ("market", "signals"))
    assert len(market) == len(found) > 7000
    assert not [line for line in told if line["event"] == "crash"]
    strategy = strategy_of(tmp_path / "mine.py", text, **({} if text is NAN else {"at": 6500, "what": 1}))
    batch = Pass([BTC], strategy, user=load(strategy))
    wanted = batch.signals(market)
    for name in DECIDED:
        assert np.array_equal(found[name], wanted[name]), name
    last = [line for line in told if line["event"] == "user signal" and line.get("signal") == "broken"][-1]
    health = batch.health()["broken"]
    assert {name: last[name] for name in health.figures} == health.figures and last["problem"] == health.sentence
    if text is NAN:
        assert health.not_finite > 100 and not health.off_from
    else:
        assert 6500 <= health.off_from < len(market) - 1000 and health.faults == 1
