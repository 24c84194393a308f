"""The verdict of `bench gateway`, from rounds as they may come, its text, and the line that CI keeps of any benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from procs.bench import gateway


def rounds(without: list[int], under: list[int]) -> list[dict[str, int]]:
    """Rows of p99 in ns."""
    return [{"without": a, "with": b} for a, b in zip(without, under, strict=True)]


@pytest.mark.parametrize(
    ("without", "under", "unchanged", "words"),
    [
        ([10_000, 12_000, 11_000], [11_000, 12_500, 11_500], True, "unchanged within noise"),
        ([10_000, 10_100, 10_050], [20_000, 21_000, 19_000], False, "slower under load"),
        ([20_000, 20_100, 20_050], [10_000, 10_000, 10_000], False, "quicker under load"),
        ([10_000, 30_000, 11_000], [25_000, 12_000, 21_000], True, "unchanged within noise"),
        ([10_000], [90_000], None, "one round says nothing of the noise: take more rounds"),
    ],
)
def test_the_difference_is_held_against_the_noise(
    without: list[int], under: list[int], unchanged: bool | None, words: str
) -> None:
    """The median of the rounds' differences, against how far the rounds without load lie apart; one round says nothing."""
    said = gateway.verdict(rounds(without, under))
    assert (said["unchanged"], said["words"], said["rounds"]) == (unchanged, words, len(without))
    assert said["noise_ns"] == max(without) - min(without)


def result() -> dict[str, Any]:
    """As `run` gives it."""
    each = rounds([10_000, 12_000], [11_000, 13_000])
    spread = {"count": 1000, "p50_ns": 5000, "p99_ns": 11_000, "p999_ns": 12_000, "max_ns": 13_000, "mean_ns": 5000.0}
    return {
        "bench": "gateway", "market": "the embedded market", "cores": 2, "load_average": 0.5,
        "autogroup": True, "path": "/signal/BTCUSDT?tf=1m",
        "seconds_each": 20.0, "wanted_per_s": 1000.0, "requests": 20_000, "per_s": 1000.0, "statuses": {"200": 20_000},
        "response_p50_ms": 1.0, "response_p99_ms": 2.0, "response_max_ms": 3.0, "hop": "features", "without": spread,
        "with": spread, "rounds_p99_ns": each, "verdict": gateway.verdict(each), "complaints": ["one thing"],
    }  # fmt: skip


def test_the_text_has_the_rounds_and_the_verdict() -> None:
    """Both windows of every round, the difference, the noise, and what is complained of."""
    text = gateway.format(result())
    assert "verdict: unchanged within noise: median difference +1.0 us, rounds without load lie 2.0 us apart" in text
    assert "slower in 2 of 2 rounds" in text and "two groups (autogroup)" in text and text.endswith("! one thing")


def test_the_line_for_the_log(tmp_path: Path) -> None:
    """Ratios and the few figures that have none, by their paths; nothing of a benchmark that left no JSON."""
    peers = [{"name": "pandas", "ratio": 812.5, "ns_an_update": 1.0}, {"ratio": 3}]
    made = {**result(), "slots": {"64": {"throughput_ratio": 1.75}}, "peers": peers}
    (tmp_path / "out").write_text(json.dumps(made))
    program = Path(__file__).resolve().parents[1] / "scripts" / "bench-summary"
    command = [sys.executable, "-P", str(program), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = done.stdout
    assert done.returncode == 0
    assert "slots.64.throughput_ratio 1.75" in said and "peers.pandas.ratio 812.5" in said
    assert "verdict.difference_ns 1,000" in said and "with.p99_ns 11000" in said and said.endswith("! one thing\n")
    (tmp_path / "out").write_text("Traceback")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
