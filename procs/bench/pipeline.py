"""How many raw frames a second come through all processes, how long each hop takes, and what each stage costs.

Two measurements of the same market (a recording, or the embedded one):

1. The pipeline as it is: an instance of its own with all processes, as fast as it goes, no journal. Frames a second from the
   feed's first frame to the moment when the last stage has finished (both seen from outside, to about 2 ms); hop latencies
   from the board (at full speed rings are full, so these are mostly time spent queueing; at 1x they are the pipeline's own).
2. The same stages in one process (as procs.research.backtest runs them): time in each stage's poll, per record that it takes.
   This is what a stage costs without waiting, and its share says where the time goes. Divided among the cores (a group uses
   one) it is the limit that no hand-over can exceed; a poll's call from Python is in it.

The figures hold for this market: one with more trades per message costs risk and exchange more.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from procs import topology
from procs.cli import last_run
from procs.cli.figures import complaints, snapshot
from procs.cli.latencies import hops
from procs.cli.outcome import FAILED, CliError
from procs.cli.starting import Launch
from procs.cli.table import Column as C
from procs.cli.table import count, span, table
from procs.fold.block import R_SINCE, registers
from procs.fold.checkpoint import show_cursors
from procs.fold.loop import poll
from procs.fold.merge import flush_outputs
from procs.memory import board
from procs.memory.board import Words
from procs.memory.segments import Memory, attach
from procs.profiles.config import load_profile
from procs.profiles.schema import Profile
from ringbuf.jit import kernel
from shm.errors import SegmentError

INSTANCE: Final = "bench-pipeline"
TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.002


def run(files: Sequence[str] = (), seconds: float = 600.0, placement: str = "separate") -> dict[str, Any]:
    """Measure with recordings, or with `seconds` of the embedded market. Raises CliError, ConfigError, RecordingError."""
    words = ["--config", "replay" if files else "paper", "--speed", "max", "--instance", INSTANCE]
    settings: dict[str, Any] = {"pipeline.journal": False, "pipeline.placement": placement}
    if files:
        settings |= {"source.files": [os.path.abspath(file) for file in files]}
        words += ["--recording", *map(os.path.abspath, files)]
    else:
        settings |= {"generator.duration_s": seconds}
    for key in ("pipeline.journal", "pipeline.placement", "generator.duration_s"):
        if key in settings:
            words += ["--set", f"{key}={str(settings[key]).lower()}"]
    profile = load_profile("replay" if files else "paper", {**settings, "instance": INSTANCE, "source.speed": "max"})
    through, alone = _through_processes(profile, words), _in_one_process(profile)
    cores = len(os.sched_getaffinity(0))
    threads = sum(process.members[0].hot for process in topology.Run.of(profile).processes)
    ns = sum(cost["total_ns"] for cost in alone["stages"].values()) / max(through["frames"], 1)
    return {
        "bench": "pipeline",
        "placement": placement,
        "market": [Path(file).name for file in files] if files else f"embedded, {seconds:g} s, seed {profile.generator.seed}",
        "cores": cores,
        "limit_messages_per_s": round(min(cores, threads) * 1e9 / ns, 1) if ns else None,
        **through,
        **alone,
    }


# ---- 1: all processes -------------------------------------------------------------------------------------------------


def _through_processes(profile: Profile, words: list[str]) -> dict[str, Any]:
    launched = Launch(profile, words)
    watch = _Watch(profile.instance)
    try:
        launched.must_run(TIMEOUT_S, watch.look, poll_s=POLL_S)
        limit = time.monotonic() + TIMEOUT_S
        while launched.ended() is None:
            if time.monotonic() > limit:
                raise CliError(f"the run did not end within {TIMEOUT_S:g} s: see {launched.log}", FAILED)
            launched.follow(lambda text: None)
            watch.look()
            time.sleep(POLL_S)
        watch.look()
    finally:
        if launched.ended() is None:
            launched.give_up()
    if watch.memory is None or not watch.started_ns or not watch.ended_ns:
        raise CliError(
            f"the run was over before it could be looked at: measure with more --seconds (log: {launched.log})", FAILED
        )
    opened = [watch.memory]
    figures, found = snapshot(opened[0]), hops(opened[0].board_words)
    kept = last_run.load(profile.instance)
    counters = next(stage["counters"] for stage in figures["stages"] if stage["name"] == "feed")
    frames = counters["frames"]
    elapsed = (watch.ended_ns - watch.started_ns) / 1e9
    return {
        "frames": frames,
        "frame_bytes": counters["frame_bytes"],
        "seconds": round(elapsed, 4),
        "messages_per_s": round(frames / elapsed, 1),
        "records_per_s": round(sum(ring["tail"] for ring in figures["rings"]) / elapsed, 1),
        "megabytes_per_s": round(counters["frame_bytes"] / elapsed / 1e6, 2),
        "decisions": {ring["name"]: ring["tail"] for ring in figures["rings"] if ring["name"] in ("signals", "quotes", "orders")},
        "hops": found,
        "rings": {ring["name"]: {"tail": ring["tail"], "stalls": ring["stalls"]} for ring in figures["rings"]},
        "checkpoints": {stage["name"]: stage["counters"]["checkpoints"] for stage in figures["stages"]},
        "complaints": complaints(figures, ended=True),
        "exit_code": kept.exit_code if kept is not None else None,
    }


class _Watch:
    """When the first frame was let in, and when the last stage had finished."""

    def __init__(self, instance: str) -> None:
        self.memory: Memory | None = None
        self.started_ns = self.ended_ns = 0
        self._instance = instance
        self._before_ns = time.monotonic_ns()

    def look(self) -> None:
        """Open the memory as soon as it is there; then compare the words with the last look's."""
        if self.memory is None:
            with contextlib.suppress(SegmentError):
                self.memory = attach(self._instance, readonly=True)
            if self.memory is None:
                return
        now = time.monotonic_ns()
        words = self.memory.board_words
        if not self.started_ns and int(board.page(words, topology.stage_id("feed"))[board.FRAMES]):
            self.started_ns = self._before_ns
        hot = [stage.stage_id for stage in topology.Run().hot]
        if not self.ended_ns and all(int(board.page(words, number)[board.FINISHED]) for number in hot):
            self.ended_ns = now
        self._before_ns = now


# ---- 2: one process ---------------------------------------------------------------------------------------------------


def _in_one_process(profile: Profile) -> dict[str, Any]:
    from procs.fold.plan import plan_of
    from procs.fold.warm import warm_stage
    from sim.recordings.recording import stage

    with tempfile.TemporaryDirectory(prefix="scalper-bench-") as folder:
        staged = None
        if profile.source.kind == "recording":
            staged = stage([Path(file) for file in profile.source.files], Path(folder) / "spool")
        plan = plan_of(profile, staged)
        for entry in plan.run.hot:
            warm_stage(entry.name, profile)
        costs, checkpoint_ns, frames, elapsed = _polled(plan)
    whole = sum(cost["total_ns"] for cost in costs.values())
    for cost in costs.values():
        cost["ns_per_record"] = round(cost["total_ns"] / cost["records"], 1) if cost["records"] else None
        cost["share"] = round(cost["total_ns"] / whole, 4) if whole else None
    return {
        "stages": costs,
        "checkpoint_ns": checkpoint_ns,
        "one_process_messages_per_s": round(frames / elapsed, 1),
    }


@kernel
def _give_back(b: Words) -> None:
    """Let the writers have the slots back: what a checkpoint does, without the copy."""
    flush_outputs(b)
    registers(b)[R_SINCE] = 0
    show_cursors(b)


def _polled(plan: Any) -> tuple[dict[str, dict[str, Any]], dict[str, float], int, float]:
    """Run the plan as the backtest does, with a clock around each poll; and the cost of one checkpoint of each stage."""
    from procs.fold.assembly import LoopSettings, heap_world
    from procs.fold.block import R_DONE, R_LOW
    from procs.fold.checkpoint import save
    from ringbuf.layout import GATING, reader_line

    modules: dict[str, Any] = {stage.name: importlib.import_module(stage.module) for stage in plan.run.hot}
    world = heap_world({name: module.state_spec(plan.symbols) for name, module in modules.items()})
    for entry in topology.RINGS:
        world.rings[entry.name][reader_line(entry.reader_index("recorder")) + GATING] = 0
    bound = {name: module.build(plan, world, LoopSettings()) for name, module in modules.items()}
    costs: dict[str, dict[str, Any]] = {name: {"records": 0, "total_ns": 0, "polls": 0} for name in modules}
    clock = time.perf_counter_ns
    started = clock()
    while not all(stage.registers[R_DONE] for stage in bound.values()):
        moved = 0
        for name, stage in bound.items():
            if stage.registers[R_DONE]:
                continue
            low, before = int(stage.registers[R_LOW]), clock()
            work = poll(stage.block)
            after = clock()
            if work:
                cost = costs[name]
                cost["records"] += work
                cost["total_ns"] += after - before
                cost["polls"] += 1
            moved += work + (int(stage.registers[R_LOW]) != low)
            _give_back(stage.block)
        if not moved:
            raise CliError("the stages wait for one another: run `scalperctl backtest` for who waits", FAILED)
    elapsed = (clock() - started) / 1e9
    checkpoints = {}
    for name, stage in bound.items():
        before = clock()
        for _ in range(100):
            save(stage.block)
        checkpoints[name] = round((clock() - before) / 100, 1)
    page: Words = board.page(world.board, topology.stage_id("feed"))
    return costs, checkpoints, int(page[board.FRAMES]), elapsed


# ---- text -------------------------------------------------------------------------------------------------------------


def format(result: dict[str, Any]) -> str:
    """The result as text."""
    market = result["market"] if isinstance(result["market"], str) else ", ".join(result["market"])
    limit = "?" if result["limit_messages_per_s"] is None else f"{result['limit_messages_per_s']:,.0f}"
    lines = [
        f"{result['messages_per_s']:,.0f} messages/s ({result['megabytes_per_s']:,.1f} MB/s) from raw frames to decisions "
        f"through all processes ({result['placement']}) on {result['cores']} cores",
        f"{result['records_per_s']:,.0f} records/s over all rings; the stages' own work alone allows {limit} messages/s",
        f"{result['frames']:,} frames of {market} in {span(result['seconds'] * 1e9)}; in one process "
        f"{result['one_process_messages_per_s']:,.0f} messages/s",
        "",
    ]
    rows = [
        [name, count(cost["records"]), f"{cost['ns_per_record'] or 0:,.0f}", f"{(cost['share'] or 0) * 100:.1f}%",
         span(result["checkpoint_ns"][name]), count(result["checkpoints"].get(name))]
        for name, cost in result["stages"].items()
    ]  # fmt: skip
    columns = (C("STAGE", right=False), C("RECORDS"), C("NS A RECORD"), C("SHARE"), C("A CHECKPOINT"), C("CHECKPOINTS"))
    lines += [*table(columns, rows, 120), ""]
    hop_rows = [
        [hop["stage"], hop["input"], count(hop["hop"]["count"]), span(hop["hop"]["p50_ns"]), span(hop["hop"]["p99_ns"]),
         span(hop["hop"]["max_ns"]), span(hop["origin"]["p50_ns"]), span(hop["origin"]["p99_ns"])]
        for hop in result["hops"]
    ]  # fmt: skip
    hop_columns = (C("HOP TO", right=False), C("BY", right=False), C("RECORDS"), C("P50"), C("P99"), C("MAX"),
                   C("FROM FRAME P50"), C("P99"))  # fmt: skip
    lines += table(hop_columns, hop_rows, 120)
    lines += [f"! {text}" for text in result["complaints"]]
    return "\n".join(lines)
