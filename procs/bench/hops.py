"""Where the time goes between a frame and its order, hop by hop, at a given rate and way of waiting: `scalperctl bench hops`.

An instance of its own runs with all its processes, journals on, and is looked at for some seconds from outside: the histograms
of every input and output on the board, less what they held before (procs.fold.stamps draws what they count). A hop is a ring
and one of its readers:

    publish   the writer's work, from taking the cause (letting the frame in) until the record was published
    wake      published until the reader was woken; only where it slept
    take      woken (published, where it was awake) until the record was taken: schedule, merge, records before it
    compute   the reader's work, from taking until it published what follows on the way to the wire

All are of this machine but the two hops behind the simulated venue, which are marked. Beside it, in the same run: a bare futex
between two processes at the same rate, which is what a wake costs here at the least, and FastMM live against its own simulator,
where it is installed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs import topology
from procs.bench.others import fastmm, fastmm_told
from procs.bench.pair import bare_futex
from procs.cli import processes, running, status
from procs.cli.figures import complaints, snapshot
from procs.cli.latencies import ANSWER, KINDS, ORDER, Spread, histogram, measured, spread, venue_in
from procs.cli.outcome import USAGE, CliError
from procs.cli.starting import Launch
from procs.cli.table import Column, clean_text, count, span, table
from procs.memory import board
from procs.memory.board import Words
from procs.memory.segments import Memory, attach
from procs.profiles.config import load_profile, parse_override
from procs.supervision import control
from shm.percentiles import Snapshot

INSTANCE: Final = "bench-hops"
RATE: Final = 3000.0
SECONDS: Final = 10.0
WARM_S: Final = 2.0
LIMIT_S: Final = 60.0

Way = tuple[str, str]
Figures = dict[tuple[str, ...], Snapshot]


def run(
    files: Sequence[str] = (),
    seconds: float = SECONDS,
    rate: float | None = None,
    wait: str = "block",
    overrides: Sequence[str] = (),
    placement: str = "separate",
    peers: bool = True,
) -> dict[str, Any]:
    """Measure for `seconds` at `rate` messages a second (recordings without one: at their own pace).

    `overrides` are KEY=VALUE over the profile, as --set takes them. Raises CliError, ConfigError, RecordingError.
    """
    overrides = (f"pipeline.placement={placement}", *overrides)
    with tempfile.TemporaryDirectory(prefix="scalper-bench-") as journals:
        found = _measured(files, seconds, rate, wait, overrides, {"pipeline.journal": True, "pipeline.journal_dir": journals})
    beside: dict[str, Any] = {"bare_futex": bare_futex(found["messages_per_s"])}
    if peers:
        beside["fastmm"] = fastmm(seconds)
    return {**found, "peers": beside}


def _measured(
    files: Sequence[str], seconds: float, rate: float | None, wait: str, overrides: Sequence[str], settings: dict[str, Any]
) -> dict[str, Any]:
    name = "replay" if files else "paper"
    settings |= {"pipeline.wait": wait} | ({} if files else {"generator.duration_s": 10_000_000.0})
    wished = dict(parse_override(text) for text in overrides)
    paths = [os.path.abspath(file) for file in files]
    where = {"instance": INSTANCE, **({"source.kind": "recording", "source.files": paths} if files else {})}
    profile = load_profile(name, {**settings, **wished, **where})
    own = own_rate(files) if files else profile.generator.events_per_s
    speed = round(rate / own, 6) if rate else 1.0 if files else round(RATE / own, 6)
    words = ["--config", name, "--instance", INSTANCE, *(("--recording", *paths) if files else ())]
    said = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]
    for text in (*said, *overrides, f"source.speed={speed}"):
        words += ["--set", text]
    launched = Launch(load_profile(name, {**settings, **wished, **where, "source.speed": speed}), words)
    try:
        launched.must_run(600.0)
        memory = attach(INSTANCE, readonly=True)
        launched.until(lambda: bool(_one(memory, ORDER).count), "no order left", LIMIT_S)
        time.sleep(WARM_S)
        found = _window(memory, seconds, launched)
        with contextlib.suppress(control.ControlError):
            running.ask(INSTANCE, {"do": "stop"})
        launched.until(lambda: launched.ended() is not None, "the pipeline did not end", LIMIT_S)
        found["complaints"] += complaints(snapshot(memory), ended=True, whole=False)
    finally:
        if launched.ended() is None:
            launched.give_up()
    asked = rate or (own if files else RATE)
    market = [Path(file).name for file in files] if files else f"embedded, seed {profile.generator.seed}"
    head = {
        "bench": "hops", "market": market, "rate": round(asked, 1), "wait": wait, "overrides": list(overrides),
        "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    return {**head, **found}


def own_rate(files: Sequence[str]) -> float:
    """Messages a second of recordings at their own pace. Raises CliError where they do not say it."""
    from procs.recordings.files import look
    from procs.recordings.files import measured as sized

    found = [sized(one) for one in (look(Path(file)) for file in files) if one is not None]
    elapsed = sum(one.last_ns - one.first_ns for one in found)
    if elapsed <= 0:
        raise CliError(f"{', '.join(files)}: no recording whose pace could be told; name a recording of frames", USAGE)
    return sum(one.frames for one in found) / elapsed * 1e9


# ---- the window -------------------------------------------------------------------------------------------------------


def _one(memory: Memory, way: Way) -> Snapshot:
    return histogram(memory.board_words, *way, "origin")


def outputs_of(stage: str) -> tuple[str, ...]:
    """The rings that a stage writes but for its intake log, in the order of its outputs."""
    log = topology.intake(stage)
    return tuple(ring.name for ring in topology.outputs(stage) if ring is not log)


def counted(words: Words) -> Figures:
    """Every histogram that a hop is made of, as it stands: (stage, input, kind) and (stage, output)."""
    found: Figures = {
        (stage.name, ring.name, kind): histogram(words, stage.name, ring.name, kind)
        for stage, ring in measured() for kind in KINDS
    }  # fmt: skip
    for stage in topology.STAGES:
        if stage.hot:
            page = board.page(words, stage.stage_id)
            for o, ring in enumerate(outputs_of(stage.name)):
                found[stage.name, ring] = Snapshot(board.of_output(page, o))
    return found


def _window(memory: Memory, seconds: float, launched: Launch) -> dict[str, Any]:
    """The figures of `seconds` of a pipeline that runs."""
    said = status.collect(INSTANCE, 0.0)
    entries = [*said["stages"], said["supervisor"] | {"name": "supervisor"}, *([said["zygote"]] if said["zygote"] else [])]
    names: dict[int, list[str]] = {}  # a process may have several stages
    for entry in entries:
        if entry["pid"]:
            names.setdefault(int(entry["pid"]), []).append(str(entry["name"]))
    feed = board.page(memory.board_words, topology.stage_id("feed"))
    load = os.getloadavg()[0]
    before, frames, started = counted(memory.board_words), int(feed[board.FRAMES]), time.monotonic_ns()
    cpu_before = {pid: processes.cpu_ns(pid) for pid in names}
    time.sleep(seconds)
    after, frames, elapsed = counted(memory.board_words), int(feed[board.FRAMES]) - frames, time.monotonic_ns() - started
    used = processes.shares(cpu_before, {pid: processes.cpu_ns(pid) for pid in names}, elapsed)
    if feed[board.FINISHED]:
        raise CliError(
            f"the recording ended while it was measured: name more of them, or fewer --seconds (log: {launched.log})", USAGE
        )
    gained = {key: seen.since(before[key]) for key, seen in after.items()}
    order = gained[(*ORDER, "origin")]
    return {
        "seconds": round(elapsed / 1e9, 2),
        "frames": frames,
        "messages_per_s": round(frames / elapsed * 1e9, 1),
        "load_average": round(load, 2),
        "frame_to_order": spread(order),
        "over_the_venue": spread(gained[(*ANSWER, "origin")]),
        "hops": rows(gained),
        "cpu_cores": round(processes.total(used.values()) / 100, 4),
        "cpu": {"+".join(names[pid]): None if share is None else round(share / 100, 4) for pid, share in used.items()},
        "pss_mb": round(said["total_pss_kb"] / 1024, 1),
        "complaints": [] if order.count else [f"no order left within {seconds:g} s: measure longer"],
    }


def rows(gained: Mapping[tuple[str, ...], Snapshot]) -> list[dict[str, Any]]:
    """A row for each hop over which something came, in the order of the records' flow."""
    found = []
    for stage, ring in measured():
        seen = {kind: gained[stage.name, ring.name, kind] for kind in KINDS}
        if not seen["origin"].count:
            continue
        writer = next((one.name for one in topology.STAGES if one.part == ring.writer and one.hot), "")
        follows = stage.reference if ring.name == stage.feedback and stage.reference else outputs_of(stage.name)[0]
        nothing = Snapshot(np.zeros(board.HISTOGRAM_WORDS, np.int64))
        found.append({
            "hop": f"{ring.name} to {stage.name}",
            "ring": ring.name,
            "reader": stage.name,
            "venue_in": venue_in(stage, ring),
            "publish": spread(gained.get((writer, ring.name), nothing)),
            "wake": spread(seen["wake"]),
            "take": spread(seen["wait"]),
            "compute": spread(gained[stage.name, follows]),
            "compute_to": follows,
            "whole": spread(seen["hop"]),
            "from_frame": spread(seen["origin"]),
        })  # fmt: skip
    return found


# ---- text -------------------------------------------------------------------------------------------------------------


def _two(figures: Spread) -> str:
    return f"{span(figures['p50_ns'])} / {span(figures['p99_ns'])}" if figures["count"] else "-"


def format(result: dict[str, Any]) -> str:
    """The result as text; every pair is p50 / p99."""
    market = result["market"] if isinstance(result["market"], str) else ", ".join(result["market"])
    own = result["frame_to_order"]
    over = f", {' '.join(map(clean_text, result['overrides']))}" if result["overrides"] else ""
    lines = [
        f"frame to order: p50 {span(own['p50_ns'])}, p99 {span(own['p99_ns'])} ({own['count']:,} orders); "
        f"{result['cpu_cores']:.2f} of {result['cores']} cores, {result['pss_mb']:.0f} MB",
        f"{result['messages_per_s']:,.0f} messages/s of {clean_text(market)} for {result['seconds']:g} s, "
        f"wait: {result['wait']}{over}, load average {result['load_average']:.1f}",
        "",
    ]
    columns = (Column("HOP (P50 / P99)", right=False), Column("RECORDS", keep=1), Column("PUBLISH", keep=2), Column("WAKE"),
               Column("TAKE"), Column("COMPUTE"), Column("FROM FRAME"))  # fmt: skip
    body = [
        [one["hop"] + ("*" if "hop" in one["venue_in"] else ""), count(one["from_frame"]["count"]),
         *(_two(one[key]) for key in ("publish", "wake", "take", "compute", "from_frame"))]
        for one in result["hops"]
    ]  # fmt: skip
    lines += [*table(columns, body, 140), "* the simulated venue's delay is in TAKE, and from there on in FROM FRAME", ""]
    bare, fast = result["peers"]["bare_futex"], result["peers"].get("fastmm")
    if "missing" in bare:
        lines.append(f"bare futex: {bare['missing']}")
    else:
        lines.append(f"bare futex between two processes at this rate: {span(bare['p50_ns'])} / {span(bare['p99_ns'])}")
    if fast is not None:
        lines.append(fastmm_told(fast))
    lines.append("CPU: " + ", ".join(f"{name} {used:.3f}" for name, used in result["cpu"].items() if used is not None))
    return "\n".join(lines + [f"! {text}" for text in result["complaints"]])
