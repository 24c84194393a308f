"""What `bench start` reads out of a pipeline's log, its text, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from procs.bench import start
from procs.bench.pair import BenchError
from procs.cli.main import main
from procs.cli.outcome import USAGE


def way(name: str, compiled: dict[str, float], digest: str = "a b") -> dict[str, Any]:
    """One row, as `run` makes it."""
    took = {"wall_s": 2.5, "cpu_s": 1.25}
    return {"name": name, "start": {**took, "compiled": compiled, "loaded": {"feed": 0.2}}, "report": {**took, "digest": digest}}


def test_stages_are_read_out_of_the_log(tmp_path: Path) -> None:
    """Each stage's seconds of compiling and of loading, whichever stream the log is on; other lines are passed over."""
    lines = [
        {"event": "kernels", "stage": "feed", "how": "compiled", "seconds": 61.5, "of": "1/7"},
        {"event": "kernels compiled", "kernels": 300, "seconds": 80.0},
        {"event": "kernels", "stage": "feed", "how": "loaded", "seconds": 0.5, "of": "1/7"},
    ]
    log = tmp_path / "start.log"
    log.write_text("no json\n" + json.dumps(lines[0]) + "\n")
    log.with_suffix(".err").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    assert start._kernels(log) == ({"feed": 61.5}, {"feed": 0.5})


def test_the_text_has_every_way_and_what_each_stage_took() -> None:
    """A row for each way with seconds and CPU, the slowest stage first, and complaints in place of the last sentence."""
    result = {"cores": 2, "ways": [way("compiling", {"risk": 20.0, "feed": 61.5}), way("wheel", {})], "complaints": []}
    text = start.format(result)
    assert "compiling, 2 stages: feed 61.5 s, risk 20.0 s" in text and "wheel" in text and "same each way" in text
    assert start.format({**result, "complaints": ["the reports differ in orders or fills"]}).endswith("in orders or fills")


def test_what_is_no_wheel_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    """One sentence names the file and what makes one."""
    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(BenchError, match=r"x\.whl is no wheel that can be read .*scripts/build-wheel"):
        start.run(wheel=str(tmp_path / "x.whl"))
    with pytest.raises(BenchError, match="absent.whl"):
        start.run(wheel=str(tmp_path / "absent.whl"))


def test_an_option_that_a_bench_does_not_take_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It is named with those that it takes, before anything is measured; none is passed over without a word."""
    assert main(["bench", "hops", "--kills", "3"]) == USAGE
    assert "bench hops has no --kills: it takes --recording" in capsys.readouterr().err
    assert main(["bench", "ring", "--seconds", "3"]) == USAGE
    assert "bench ring has no --seconds: it has no options but --json" in capsys.readouterr().err
