"""The pipeline of processes, started and ended for real: the same records as the backtest, and nothing left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import kill_run
import pytest

from trading.records import Kind

pytestmark = pytest.mark.timeout(900)  # the first start after an edit compiles the kernels


def failures(run: kill_run.Run, expected: dict[str, Any]) -> list[tuple[str, bool, str]]:
    """The checks that do not hold."""
    return [told for told in kill_run.checks(run, expected, None) if not told[1]]


LISTED = [["features", "feed"], ["quoter", "router", "risk"], ["exchange"]]


@pytest.mark.parametrize("placement", ["separate", "grouped", pytest.param(LISTED, marks=pytest.mark.slow)], ids=str)
@pytest.mark.usefixtures("own_folders")
def test_the_processes_publish_what_the_backtest_publishes(tmp_path: Path, placement: Any) -> None:
    """A generated market through all processes to its end, whoever shares one: every ring as in the backtest, every journal
    whole, every reader at the tail, no segment, process or descriptor left."""
    market = kill_run.Source("paper", {"generator.duration_s": 30.0, "source.speed": "max"})
    expected, frames, _ = kill_run.yardstick(market, tmp_path)
    run = kill_run.Run("test-run", market, {"pipeline.placement": placement})
    try:
        run.ready()
        assert run.wait_end() == 0
    finally:
        run.close()
    assert run.frames() == frames
    assert failures(run, expected) == []


@pytest.mark.usefixtures("own_folders")
def test_a_stop_in_the_middle_of_a_paced_market_leaves_nothing(tmp_path: Path) -> None:
    """Stopped while it runs at the clock's pace, the pipeline ends its session in order: END through all stages, every reader
    at the tail, journals whole, nothing left."""
    market = kill_run.Source("paper", {"generator.duration_s": 3600.0, "source.speed": 1})
    run = kill_run.Run("test-drain", market, {})
    try:
        run.ready()
        limit = time.monotonic() + 120
        while run.frames() < 200:
            assert time.monotonic() < limit and not run.ended()
            run.look_away()
        run.stop()
        assert run.wait_end() == 0
    finally:
        run.close()
    assert failures(run, {}) == []
    ended = kill_run.journals(kill_run.last_run.wanted("test-drain"))
    for ring in ("market", "depth", "signals", "quotes", "orders", "refusals", "wire", "executions", "reports"):
        assert ended[ring][-1]["kind"] == Kind.END, ring


@pytest.mark.stress
@pytest.mark.parametrize("placement", ["separate", "grouped"])
@pytest.mark.usefixtures("own_folders")
def test_a_short_session_survives_its_killer(tmp_path: Path, placement: str) -> None:
    """Thirty SIGKILLs within ten seconds change no record; `scripts/test-kill` does this for longer."""
    market = kill_run.Source("paper", {"generator.duration_s": 60.0, "source.speed": 6})
    expected, frames, _ = kill_run.yardstick(market, tmp_path)
    run = kill_run.Run("test-kills", market, {"pipeline.placement": placement})
    try:
        run.ready()
        done = kill_run.harass(run, 30, 3, frames)
    finally:
        run.close()
    assert sum(done.kills.values()) == 30
    assert failures(run, expected) == []
