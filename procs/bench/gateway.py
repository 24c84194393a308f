"""Does a load on the gateway reach the hot path? The features hop's latency with and without 1,000 requests a second.

A pipeline of its own runs the embedded market at its own pace. Windows with and without the load take turns, so that what the
machine does besides falls on both; each kind's histograms are added up. The load comes from another process (gateway_load),
which takes CPU from the same cores: on a machine with few of them its share is in the figures too.

What this module is not: no benchmark of HTTP; response times are printed because they are known.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from procs import board, control, topology
from procs.board import Words
from procs.cli import running
from procs.cli.latencies import W_MAX, histograms, since, spread
from procs.cli.outcome import FAILED, USAGE, CliError
from procs.cli.staging import child_environment
from procs.cli.starting import Launch
from procs.cli.table import Column, count, span, table
from procs.config import load_profile
from procs.gateway.packages import missing
from procs.pipeline import Memory, attach

INSTANCE: Final = "bench-gateway"
SYMBOL: Final = "BTCUSDT"
PATH: Final = f"/signal/{SYMBOL}?tf=1m"
RATE: Final = 1000.0
CONNECTIONS: Final = 16
ROUNDS: Final = 3
WARM_S: Final = 3.0
LIMIT_S: Final = 60.0
HOP: Final = "features"


def run(seconds: float = 60.0) -> dict[str, Any]:
    """Measure over `seconds` with and as many without the load. Raises CliError."""
    absent = missing()
    if absent:
        raise CliError(absent, USAGE)
    settings: dict[str, Any] = {
        "generator.duration_s": 86_400, "pipeline.journal": False, "gateway.enabled": True, "gateway.port": 0,
    }  # fmt: skip
    words = ["--config", "paper", "--instance", INSTANCE]
    for key, value in settings.items():
        words += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    launched = Launch(load_profile("paper", {**settings, "instance": INSTANCE}), words)
    try:
        code = launched.wait_ready(600.0, lambda text: None)
        if code is not None:
            launched.explain(code)
            raise CliError(f"the bench's pipeline did not start: see {launched.log}", FAILED)
        memory = attach(INSTANCE, readonly=True)
        page = board.page(memory.board_words, topology.stage_id("gateway"))
        wait_for(lambda: bool(page[board.READY] and page[board.PORT]), "the gateway did not start", launched)
        result = measured(memory, int(page[board.PORT]), seconds)
        with contextlib.suppress(control.ControlError):
            running.ask(INSTANCE, {"do": "stop"})
        wait_for(lambda: launched.ended() is not None, "the pipeline did not end", launched)
        return result
    finally:
        if launched.ended() is None:
            launched.give_up()


def wait_for(done: Callable[[], bool], problem: str, launched: Launch) -> None:
    """Until `done`; CliError after LIMIT_S."""
    limit = time.monotonic() + LIMIT_S
    while not done():
        if time.monotonic() > limit:
            raise CliError(f"{problem} within {LIMIT_S:g} s: see {launched.log}", FAILED)
        time.sleep(0.01)


def measured(memory: Memory, port: int, seconds: float) -> dict[str, Any]:
    """The figures of a pipeline that runs, with its gateway at `port`."""
    _loaded(port, WARM_S)
    share = seconds / ROUNDS
    gained: dict[str, Words] = {}
    loads: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        _add(gained, "without", _window(memory, lambda: time.sleep(share)))
        _add(gained, "with", _window(memory, lambda: loads.append(_loaded(port, share))))
    statuses: dict[str, int] = {}
    for found in loads:
        for status, number in found["statuses"].items():
            statuses[status] = statuses.get(status, 0) + number
    wrong = [f"{number:,} answers had status {status}" for status, number in statuses.items() if status != "200"]
    return {
        "bench": "gateway",
        "cores": len(os.sched_getaffinity(0)),
        "path": PATH,
        "seconds_each": seconds,
        "wanted_per_s": RATE,
        "requests": sum(found["requests"] for found in loads),
        "per_s": round(sum(found["per_s"] for found in loads) / len(loads), 1),
        "statuses": statuses,
        "response_p50_ms": sorted(found["p50_ms"] for found in loads)[len(loads) // 2],
        "response_p99_ms": max(found["p99_ms"] for found in loads),
        "response_max_ms": max(found["max_ms"] for found in loads),
        "hop": HOP,
        "without": spread(gained["without"]),
        "with": spread(gained["with"]),
        "complaints": wrong,
    }


def _loaded(port: int, seconds: float) -> dict[str, Any]:
    arguments = [str(port), PATH, str(RATE), str(seconds), str(CONNECTIONS)]
    said = subprocess.run(
        [sys.executable, "-m", "procs.bench.gateway_load", *arguments], capture_output=True, text=True, env=child_environment()
    )
    if said.returncode:
        raise CliError(f"the load failed: {said.stderr.strip().splitlines()[-1:] or 'no reason given'}", FAILED)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def _window(memory: Memory, act: Callable[[], None]) -> Words:
    before = histograms(memory.board_words, HOP)[0].copy()
    act()
    return since(before, histograms(memory.board_words, HOP)[0].copy())


def _add(gained: dict[str, Words], kind: str, found: Words) -> None:
    kept = gained.setdefault(kind, np.zeros_like(found))
    top = max(int(kept[W_MAX]), int(found[W_MAX]))
    kept += found
    kept[W_MAX] = top


def format(result: dict[str, Any]) -> str:
    """The result as text."""
    columns = (Column("LOAD", right=False), Column("RECORDS"), Column("P50"), Column("P99"), Column("P99.9"), Column("MAX"))
    rows = []
    for name in ("without", "with"):
        figures = result[name]
        spans = [span(figures[key]) for key in ("p50_ns", "p99_ns", "p999_ns", "max_ns")]
        rows.append([name, count(figures["count"]), *spans])
    lines = [
        f"market record published to taken by {result['hop']}, {result['seconds_each']:g} s with and without load, "
        f"{result['cores']} cores",
        f"GET {result['path']}: {result['requests']:,} requests, {result['per_s']:,.0f} a second, response p50 "
        f"{result['response_p50_ms']:.2f} ms, p99 {result['response_p99_ms']:.2f} ms, max {result['response_max_ms']:.2f} ms",
        "",
        *table(columns, rows, 100),
    ]
    return "\n".join(lines + [f"! {text}" for text in result["complaints"]])
