"""From SIGKILL to consuming again: each process of a living pipeline is killed many times, under load.

"Again" is the next incarnation's: another pid on its page, READY, and its loop's heartbeat has moved since. In between lie the
supervisor's pidfd, a fork from the zygote, attaching, the checkpoint, following the intake log. At the end the pipeline is
stopped in order, and whatever was lost, doubled or computed differently is a complaint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Final

from procs import topology
from procs.cli import last_run, running
from procs.cli.figures import complaints, snapshot
from procs.cli.starting import Launch
from procs.cli.table import Column, count, span, table
from procs.memory import board
from procs.memory.segments import Memory, attach
from procs.profiles.config import load_profile
from procs.supervision import control

INSTANCE: Final = "bench-restart"
SPEED: Final = 10
SETTINGS: Final = {
    "source.speed": SPEED,
    "generator.duration_s": 86_400,
    "pipeline.journal": True,
    "supervisor.max_restarts": 1_000_000,
    "supervisor.backoff_min_ms": 0,
    "supervisor.backoff_max_ms": 0,
}
POLL_S: Final = 0.0001
BETWEEN_S: Final = 0.25
"""Longer than it takes until all is as before: children wait again, and the memory of the last one killed is gone."""
LIMIT_S: Final = 20.0


def run(kills: int = 20, placement: str = "separate") -> dict[str, Any]:
    """Kill every process `kills` times; figures in ms. Raises CliError if one does not come back.

    A group is back when the last of its stages is.
    """
    with tempfile.TemporaryDirectory(prefix="scalper-bench-") as journals:
        return _measured(kills, {**SETTINGS, "pipeline.placement": placement, "pipeline.journal_dir": journals})


def _measured(kills: int, settings: dict[str, Any]) -> dict[str, Any]:
    words = ["--config", "paper", "--instance", INSTANCE]
    for key, value in settings.items():
        words += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    profile = load_profile("paper", {**settings, "instance": INSTANCE})
    hosts = {host.name: [stage.name for stage in host.members] for host in topology.Run.of(profile).processes}
    launched = Launch(profile, words)
    try:
        launched.must_run(600.0)
        memory = attach(INSTANCE, readonly=True)
        risk = board.page(memory.board_words, topology.stage_id("risk"))
        launched.until(lambda: int(risk[board.RECORDS]) > 100, "risk took no 100 records", LIMIT_S)
        taken: dict[str, list[float]] = {name: [] for name in hosts}
        for _ in range(kills):
            for name in taken:
                taken[name].append(_killed(memory, name, hosts[name], launched))
                time.sleep(BETWEEN_S)
        with contextlib.suppress(control.ControlError):
            running.ask(INSTANCE, {"do": "stop"})
        launched.until(lambda: launched.ended() is not None, "the pipeline did not end", LIMIT_S)
    finally:
        if launched.ended() is None:
            launched.give_up()
    figures = snapshot(memory)
    kept = last_run.load(INSTANCE)
    every = [value for values in taken.values() for value in values]
    return {
        "bench": "restart",
        "kills": len(every),
        "load": f"embedded market at {SPEED}x, journal on",
        "placement": settings["pipeline.placement"],
        "cores": len(os.sched_getaffinity(0)),
        "all": spread_ms(every),
        "stages": {name: spread_ms(values) for name, values in taken.items()},
        "recoveries": {stage["name"]: stage["counters"]["recoveries"] for stage in figures["stages"]},
        "complaints": complaints(figures, ended=True),
        "exit_code": kept.exit_code if kept is not None else None,
    }


def _killed(memory: Memory, name: str, stages: Sequence[str], launched: Launch) -> float:
    """Milliseconds from SIGKILL to consuming again."""
    pages = [board.page(memory.board_words, topology.stage_id(stage)) for stage in stages]
    pid = int(pages[0][board.PID])
    started = time.perf_counter_ns()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    problem = f"{name} did not come back"
    launched.until(lambda: all(page[board.PID] != pid and page[board.READY] for page in pages), problem, LIMIT_S, POLL_S)
    beats = [int(page[board.HEARTBEAT]) for page in pages]
    for page, beat in zip(pages, beats, strict=True):
        launched.until(lambda page=page, beat=beat: page[board.HEARTBEAT] != beat, problem, LIMIT_S, POLL_S)  # type: ignore[misc]
    return (time.perf_counter_ns() - started) / 1e6


def spread_ms(values: list[float]) -> dict[str, float]:
    """count, p50, p99 (nearest rank) and max of some milliseconds."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}

    def at(percent: int) -> float:
        return round(ordered[max(-(-percent * len(ordered) // 100), 1) - 1], 3)

    return {"count": len(ordered), "p50_ms": at(50), "p99_ms": at(99), "max_ms": round(ordered[-1], 3)}


def format(result: dict[str, Any]) -> str:
    """The result as text."""
    columns = (Column("PROCESS", right=False), Column("KILLS"), Column("P50"), Column("P99"), Column("MAX"))
    rows = []
    for name, figures in [*result["stages"].items(), ("all", result["all"])]:
        spans = [span(figures[key] * 1e6) for key in ("p50_ms", "p99_ms", "max_ms")]
        rows.append([name, count(figures["count"]), *spans])
    how = f"{result['load']}, {result['placement']}, {result['cores']} cores"
    lines = [f"SIGKILL to consuming again, {how}", "", *table(columns, rows, 100)]
    lines += [f"! {text}" for text in result["complaints"]] or ["", "nothing was lost, doubled or computed differently"]
    return "\n".join(lines)
