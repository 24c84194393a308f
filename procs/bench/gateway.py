"""Does a load on the gateway reach the hot path? The features hop's p99 with and without 1,000 requests a second.

A pipeline of its own runs the embedded market, or replays recordings, at its own pace. It is measured in rounds of two windows,
one with the load and one without, the order turned round each time, so that what the machine does besides falls on both alike.
How far the rounds without load lie apart is the noise; the verdict holds the difference against it. The load comes from another
process (gateway_load), which takes CPU from the same cores: on a machine with few of them its share is in the figures too.

Response times are printed because they are known; they are not a benchmark of HTTP.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

from procs import topology
from procs.cli import running
from procs.cli.doctor import AUTOGROUP
from procs.cli.latencies import histogram, spread
from procs.cli.outcome import FAILED, USAGE, CliError
from procs.cli.staging import child_environment
from procs.cli.starting import Launch
from procs.cli.symbols import symbols_of
from procs.cli.table import Column, clean_text, count, span, table
from procs.gateway.packages import missing
from procs.memory import board
from procs.memory.segments import Memory, attach
from procs.profiles.config import load_profile
from procs.supervision import control
from shm.percentiles import Snapshot

INSTANCE: Final = "bench-gateway"
RATE: Final = 1000.0
LEAST_SHARE: Final = 0.95
"""Of the wanted rate that has to be reached."""
CONNECTIONS: Final = 16
ROUNDS: Final = 6
WARM_S: Final = 3.0
LIMIT_S: Final = 60.0
HOP: Final = ("features", "market")
KINDS: Final = ("without", "with")


def run(files: Sequence[str] = (), seconds: float = 60.0, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure over `seconds` with and as many without the load, in `rounds`. Raises CliError."""
    absent = missing()
    if absent:
        raise CliError(absent, USAGE)
    settings: dict[str, Any] = {"pipeline.journal": False, "gateway.enabled": True, "gateway.port": 0, "source.speed": 1}
    settings |= {} if files else {"generator.duration_s": 86_400}
    name = "replay" if files else "paper"
    words = ["--config", name, "--instance", INSTANCE, *(("--recording", *files) if files else ())]
    for key, value in settings.items():
        words += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
    recorded = {"source.kind": "recording", "source.files": [str(file) for file in files]} if files else {}
    launched = Launch(load_profile(name, {**settings, **recorded, "instance": INSTANCE}), words)
    try:
        launched.must_run(600.0)
        memory = attach(INSTANCE, readonly=True)
        page = board.page(memory.board_words, topology.stage_id("gateway"))
        launched.until(lambda: bool(page[board.READY] and page[board.PORT]), "the gateway did not start", LIMIT_S)
        path = f"/signal/{symbols_of(INSTANCE)[0].name}?tf=1m"
        result = {
            "market": " ".join(files) or "the embedded market",
            **measured(memory, int(page[board.PORT]), path, seconds, rounds),
        }
        with contextlib.suppress(control.ControlError):
            running.ask(INSTANCE, {"do": "stop"})
        launched.until(lambda: launched.ended() is not None, "the pipeline did not end", LIMIT_S)
        return result
    finally:
        if launched.ended() is None:
            launched.give_up()


def measured(memory: Memory, port: int, path: str, seconds: float, rounds: int) -> dict[str, Any]:
    """The figures of a pipeline that runs, with its gateway at `port`."""
    _loaded(port, path, WARM_S)
    share = seconds / rounds
    gained: dict[str, Snapshot] = {}
    loads: list[dict[str, Any]] = []
    each: list[dict[str, Any]] = []
    acts: dict[str, Callable[[], None]] = {
        "without": lambda: time.sleep(share), "with": lambda: loads.append(_loaded(port, path, share)),
    }  # fmt: skip
    for number in range(rounds):
        row: dict[str, Any] = {}
        for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
            found = _window(memory, acts[kind])
            _still_runs(memory, seconds)
            gained[kind] = gained[kind].merged(found) if kind in gained else found
            row[kind] = spread(found)["p99_ns"]
        each.append(row)
    statuses: dict[str, int] = {}
    for load in loads:
        for status, number in load["statuses"].items():
            statuses[status] = statuses.get(status, 0) + number
    per_s = sum(load["per_s"] for load in loads) / len(loads)
    wrong = [f"{number:,} answers had status {status}" for status, number in statuses.items() if status != "200"]
    if per_s < LEAST_SHARE * RATE:
        wrong.append(f"the load reached {per_s:,.0f} requests a second, {RATE:,.0f} are wanted: is the machine busy?")
    return {
        "bench": "gateway",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "autogroup": AUTOGROUP.exists() and AUTOGROUP.read_text().strip() == "1",
        "path": path,
        "seconds_each": seconds,
        "wanted_per_s": RATE,
        "requests": sum(load["requests"] for load in loads),
        "per_s": round(per_s, 1),
        "statuses": statuses,
        "response_p50_ms": sorted(load["p50_ms"] for load in loads)[len(loads) // 2],
        "response_p99_ms": max(load["p99_ms"] for load in loads),
        "response_max_ms": max(load["max_ms"] for load in loads),
        "hop": HOP[0],
        "without": spread(gained["without"]),
        "with": spread(gained["with"]),
        "rounds_p99_ns": each,
        "verdict": verdict(each),
        "complaints": wrong,
    }


def verdict(each: Sequence[dict[str, int]]) -> dict[str, Any]:
    """What the rounds' p99 say: their median difference, against the noise, which is how far the rounds without load lie apart.

    One round has no spread: then nothing is said (`unchanged` is None).
    """
    without = [row["without"] for row in each]
    difference = float(median(row["with"] - row["without"] for row in each))
    noise = max(without) - min(without)
    unchanged = None if len(each) < 2 else abs(difference) <= noise
    slower = sum(row["with"] > row["without"] for row in each)
    words = {
        None: "one round says nothing of the noise: take more rounds",
        True: "unchanged within noise",
        False: "slower under load" if difference > 0 else "quicker under load",
    }[unchanged]
    return {
        "unchanged": unchanged, "difference_ns": difference, "noise_ns": noise, "slower_rounds": slower, "rounds": len(each),
        "words": words,
    }  # fmt: skip


def _still_runs(memory: Memory, seconds: float) -> None:
    if board.page(memory.board_words, topology.stage_id("feed"))[board.FINISHED]:
        raise CliError(
            f"the recording ended while it was measured: name more of them, or fewer --seconds (it takes {2 * seconds:g} s)",
            USAGE,
        )


def _loaded(port: int, path: str, seconds: float) -> dict[str, Any]:
    arguments = [str(port), path, str(RATE), str(seconds), str(CONNECTIONS)]
    said = subprocess.run(
        [sys.executable, "-P", "-m", "procs.bench.gateway_load", *arguments],
        capture_output=True, text=True, env=child_environment(), start_new_session=True,
    )  # fmt: skip
    if said.returncode:
        raise CliError(f"the load failed: {said.stderr.strip().splitlines()[-1:] or 'no reason given'}", FAILED)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def _window(memory: Memory, act: Callable[[], None]) -> Snapshot:
    before = histogram(memory.board_words, *HOP)
    act()
    return histogram(memory.board_words, *HOP).since(before)


def format(result: dict[str, Any]) -> str:
    """The result as text."""
    columns = (Column("LOAD", right=False), Column("RECORDS"), Column("P50"), Column("P99"), Column("P99.9"), Column("MAX"))
    rows = []
    for name in KINDS:
        figures = result[name]
        spans = [span(figures[key]) for key in ("p50_ns", "p99_ns", "p999_ns", "max_ns")]
        rows.append([name, count(figures["count"]), *spans])
    said = result["verdict"]
    each = "  ".join(f"{span(row['without'])}/{span(row['with'])}" for row in result["rounds_p99_ns"])
    lines = [
        f"market record published to taken by {result['hop']}, {result['seconds_each']:g} s with and without load, "
        f"{result['cores']} cores, load average {result['load_average']}, {clean_text(result['market'])}",
        f"GET {result['path']}: {result['requests']:,} requests, {result['per_s']:,.0f} a second, response p50 "
        f"{result['response_p50_ms']:.2f} ms, p99 {result['response_p99_ms']:.2f} ms, max {result['response_max_ms']:.2f} ms",
        "",
        *table(columns, rows, 100),
        "",
        f"p99 of each round, without/with: {each}",
        f"verdict: {said['words']}: median difference {said['difference_ns'] / 1e3:+.1f} us, rounds without load lie "
        f"{said['noise_ns'] / 1e3:.1f} us apart, slower in {said['slower_rounds']} of {said['rounds']} rounds",
    ]
    if result["autogroup"]:
        lines.append("the load's session and the pipeline's share the cores as two groups (autogroup): see `scalperctl doctor`")
    return "\n".join(lines + [f"! {text}" for text in result["complaints"]])
