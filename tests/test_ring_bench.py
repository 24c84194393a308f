"""The benchmarks' own claims: the wake race loses nothing and has teeth; the ring benchmark measures, checks and prints."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from procs.bench import ring, wake
from procs.bench.pair import BenchError, run_pair, two_cores

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: two processes cannot race on it")

RACES = 20_000


def test_no_wake_is_lost() -> None:
    """With the membarrier on the sleeper's side none of 20,000 aligned races is lost."""
    wake._compile()
    assert wake.race(RACES, fenced=True) == {"races": RACES, "lost": 0}


def test_the_race_has_teeth() -> None:
    """The same race without the membarrier loses at least one wake, within 200,000 races."""
    wake._compile()
    assert wake.race(10 * RACES, fenced=False, most_lost=1)["lost"] >= 1


def test_wake_result_is_complete() -> None:
    """A short run gives every figure, and a text and JSON that hold them."""
    result = wake.run(2_000, rounds=1)
    text = wake.format(json.loads(json.dumps(result)))
    assert result["fenced"] == {"races": 2_000, "lost": 0} and "lost 0" in text and "bare futex" in text
    assert result["latency"]["ours_p50_us"] > 0 and result["writer"]["each_push_ns"] > 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler for the peer ring")
def test_ring_result_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short run checks every word on both sides and gives every figure, as text and as JSON."""
    for name, value in (("BURST", 20_000), ("TRIPS", 2_000), ("PAIRS", 2_048)):
        monkeypatch.setattr(ring, name, value)
    result = ring.run(0.0, with_others=False)
    text = ring.format(json.loads(json.dumps(result)))
    assert set(result["slots"]) == {"64", "128"} and set(result["goals"]) == set(ring.GOALS)
    assert "round trip p50" in text and result["records_checked"] > 100_000


def test_a_failing_side_is_an_error() -> None:
    """A child that raises, or hangs past its limit, ends the pair with BenchError, and no process is left."""
    with pytest.raises(BenchError, match="status 1"):
        run_pair(lambda: 1 // 0, lambda: 0, two_cores(), urgent=False)
    with pytest.raises(BenchError, match="hung"):
        run_pair(lambda: os.read(os.pipe()[0], 1), lambda: 0, two_cores(), urgent=False, limit_s=1)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
