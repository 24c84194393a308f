"""What README prints is what the program prints: headings, processes, rings and sentences of its examples, and its figures."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_worlds import HeapMemory, status_reply

from procs import topology
from procs.cli import status
from procs.cli.demo import Demonstration
from procs.cli.figures import snapshot
from procs.cli.stats import lay_out_stats
from procs.cli.table import plain
from procs.prices.source import PriceSource
from procs.profiles.config import load_profile
from procs.supervision.nursery import STANDBYS
from sim.settings import SimulatedExchange
from trading.features.signals import SIGNALS

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
WORDS = ("none one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
         "seventeen eighteen nineteen twenty").split()  # fmt: skip


def block_with(words: str) -> list[str]:
    """The lines of the example that holds these words."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```$", README, re.M | re.S)
    return next(block for block in blocks if words in block).splitlines()


def shape(line: str) -> str:
    """A line without its figures: every number is 0, every run of blanks one."""
    return " ".join(re.sub(r"\d[\d,.]*", "0", line).split())


def test_the_demo_ends_as_readme_says(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict and the hint, word for word but for the figures, in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    launched: Any = SimpleNamespace(log="x")
    profile = load_profile("paper", {"source.speed": 20.0})
    demonstration = Demonstration(launched, profile, 20.0, quiet=False)
    demonstration._verdict(snapshot(HeapMemory()), [])  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert shape(said) == shape(" ".join(block_with("all well:")))  # where lines break depends on the figures


def test_readme_shows_the_table_of_status() -> None:
    """The columns' titles, and every process of the profile `paper` in order."""
    reply = status_reply(instance="paper")
    stages: list[Any] = list(reply["stages"])  # type: ignore[call-overload]
    shared = {"heartbeat_age_ms": 3, "pss_kb": 1024, "cpu_pct": 0.5, "core": None}
    rows = {entry["name"]: {**entry, "state": entry["actual"], **shared} for entry in stages}
    own = [rows[stage.name] for stage in topology.Run().essential]
    zygote = {**rows["zygote"], "heartbeat_age_ms": None}
    aside = {"pid": 9, "pss_kb": 1024, "cpu_pct": 0.1}
    said = {**reply, "stages": own, "zygote": zygote, "standbys": [aside] * STANDBYS, "supervisor": aside}
    printed = status.lay_out({**said, "total_pss_kb": 1024, "cpu_pct_total": 0.5}, 120, plain)
    shown = block_with("PROCESS")
    assert shape(shown[0]) == shape(printed[0])
    assert shown[2].split() == printed[2].split()
    assert [line.split()[0] for line in shown[3:]] == [line.split()[0] for line in printed[3:]]
    assert {len(line.split()) for line in shown[3:10]} == {len(line.split()) for line in printed[3:10]}


def test_readme_shows_the_table_of_stats() -> None:
    """The columns' titles, and the first rings with their readers in order."""
    printed = lay_out_stats(snapshot(HeapMemory()), 120, plain)  # type: ignore[arg-type]
    shown = block_with("TAIL (WRITE)")
    assert shown[0].split() == printed[0].split()
    for line, like in zip(shown[1:], printed[1:], strict=False):
        assert [word for word in line.split() if word.isalpha()] == [word for word in like.split() if word.isalpha()]


def test_readmes_figures_are_the_programs() -> None:
    """Numbers that README writes in words or digits: signals, the simulated latency, the prices' memory, the demo's length."""
    built_in = [spec for spec in SIGNALS if spec.key != "model"]
    assert f"computes {WORDS[len(built_in)]} signals" in README
    law = SimulatedExchange().latency
    assert f"seeded latency of {law.entry_min_ms:g} to {law.entry_max_ms:g} ms one way" in " ".join(README.split())
    assert (law.entry_min_ms, law.entry_max_ms) == (law.response_min_ms, law.response_max_ms)
    keeps = PriceSource.__init__.__kwdefaults__["ttl_s"]
    assert f"It keeps answers for {keeps:g} s" in README
    from procs.cli.arguments import parser

    assert f"for {parser('demo').parse_args(['demo']).seconds:g} s, prints a report" in README
