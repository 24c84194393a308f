"""The learner as a process of a pipeline: it trains on the embedded market, is killed, publishes; nobody else notices."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import kill_run
import pytest

from procs.cli import status
from procs.learning import registry
from procs.memory import board
from procs.memory import model_channel as channel

pytestmark = pytest.mark.timeout(900)  # the first start after an edit compiles the kernels
LIMIT_S = 180.0


def wait_for(run: kill_run.Run, done: Callable[[], bool]) -> None:
    """Until `done`, while the run lives."""
    limit = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < limit and not run.ended(), [one.sentence for one in registry.attempts()]
        run.look_away()


@pytest.mark.slow
@pytest.mark.usefixtures("own_folders")
def test_a_learner_trains_and_publishes_into_the_running_pipeline() -> None:
    """The embedded market has buying pressure that its book betrays: a model of it is promoted and comes into force.

    A learner that is killed in between is started again; no other process is, no record is lost, and all ends in order.
    """
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: the ml extra has it")
    market = kill_run.Source("paper", {"generator.duration_s": 36000.0, "source.speed": 20})
    settings = {
        "ml.enabled": True, "ml.online": False, "ml.required": False, "ml.horizon_ms": 500, "ml.cost_bps": 0.1,
        "ml.learner.enabled": True, "ml.learner.kind": "linear", "ml.learner.every_minutes": 0.05, "ml.learner.min_rows": 300,
    }  # fmt: skip
    run = kill_run.Run("test-learner", market, settings)
    try:
        run.ready()
        page = run.page("learner")
        wait_for(run, lambda: bool(registry.attempts("test-learner")))
        first = int(page[board.PID])
        others = {name: int(run.page(name)[board.PID]) for name in ("feed", "features", "quoter", "risk", "router", "exchange")}
        os.kill(first, signal.SIGKILL)
        wait_for(run, lambda: int(page[board.PID]) != first and bool(page[board.READY]))
        wait_for(run, lambda: any(one.published for one in registry.attempts("test-learner")))
        segment = channel.attach("test-learner", readonly=True)
        assert int(segment.words[channel.IN_FORCE]) >= 1
        segment.close()
        assert {name: int(run.page(name)[board.PID]) for name in others} == others
        told = status.collect("test-learner", 0.0)
        assert told["healthy"] and told["learner"][0]["symbol"] == "BTCUSDT" and told["learner"][0]["verdict"]["rows"] > 200
        shown = "\n".join(status.lay_out(told, 120, lambda text, style="": text))
        assert "learner, last training:\n  BTCUSDT" in shown and "learned-btcusdt@" in shown
        run.stop()
        assert run.wait_end() == 0
    finally:
        run.close()
    assert [one for one in kill_run.checks(run, {}, None) if not one[1]] == []
