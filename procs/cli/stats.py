"""`stats` and `latency`: what rings and histograms say, of a living pipeline or, once it has ended, of its last moment."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from typing import Any, Final, cast

from procs import rundir
from procs.cli import running
from procs.cli.figures import Reader, RingFigures, Snapshot, complaints, snapshot, with_rates
from procs.cli.last_run import LastRun
from procs.cli.latencies import Hop, hops
from procs.cli.outcome import OK, UNHEALTHY
from procs.cli.runs import meant
from procs.cli.table import Cell, Column, Paint, clip, count, paint_for, rate, share, span, table
from procs.memory.segments import Memory

RING_COLUMNS: Final = (
    Column("RING", right=False),
    Column("CAPACITY", keep=3),
    Column("TAIL (WRITE)"),
    Column("/S", keep=1),
    Column("STALLS", keep=2),
    Column("READER", right=False),
    Column("HEAD (READ)"),
    Column("LAG"),
    Column("USE", keep=4),
    Column("OVERRUNS", keep=5),
)
STAGE_COLUMNS: Final = (
    Column("STAGE", right=False),
    Column("RECORDS"),
    Column("/S"),
    Column("BUSY"),
    Column("CHECKPOINTS", keep=2),
    Column("RECOVERIES", keep=1),
    Column("DIVERGED"),
)
HOP_COLUMNS: Final = (
    Column("STAGE", right=False),
    Column("MEASURED", right=False),
    Column("RECORDS", keep=1),
    Column("P50"),
    Column("P99"),
    Column("P99.9"),
    Column("MAX"),
)


def sampled(memory: Memory, window_s: float) -> Snapshot:
    """A snapshot with rates over `window_s` seconds (0: without)."""
    before = snapshot(memory)
    if window_s <= 0:
        return before
    started = time.monotonic()
    time.sleep(window_s)
    return with_rates(before, snapshot(memory), time.monotonic() - started)


def _reader_cells(ring: RingFigures, reader: Reader) -> list[Cell]:
    used = reader["lag"] / ring["capacity"] if ring["capacity"] else 0.0
    style = "red" if used > 0.9 else "yellow" if used > 0.5 else ""
    name = reader["name"] if reader["gating"] else f"{reader['name']} (does not gate)"
    return [
        (name, "" if reader["gating"] else "dim"),
        count(reader["head"]),
        count(reader["lag"]),
        (share(used), style),
        (count(reader["overruns"]), "red" if reader["overruns"] else ""),
    ]


def ring_rows(figures: Snapshot) -> list[list[Cell]]:
    """One line a reader; the ring's own figures stand in its first."""
    found: list[list[Cell]] = []
    for ring in figures["rings"]:
        own: list[Cell] = [
            (ring["name"], "bold"), count(ring["capacity"]), count(ring["tail"]), rate(ring.get("rate")), count(ring["stalls"])
        ]  # fmt: skip
        for n, reader in enumerate(ring["readers"]):
            found.append([*(own if n == 0 else [""] * len(own)), *_reader_cells(ring, reader)])
    return found


def stage_rows(figures: Snapshot) -> list[list[Cell]]:
    """One line a stage."""
    found: list[list[Cell]] = []
    for stage in figures["stages"]:
        counters = stage["counters"]
        diverged = counters["diverged"]
        found.append([
            stage["name"], count(counters["records"]), rate(stage.get("rate")), share(stage.get("busy")),
            count(counters["checkpoints"]), count(counters["recoveries"]), (count(diverged), "red" if diverged else ""),
        ])  # fmt: skip
    return found


def feed_lines(figures: Snapshot) -> list[str]:
    """What the feed says of its source and its books, as two lines."""
    counters = next(stage["counters"] for stage in figures["stages"] if stage["name"] == "feed")
    of = f" of {counters['frames_expected']:,}" if counters["frames_expected"] else ""
    return [
        f"feed: {counters['frames']:,}{of} frames, {counters['frame_bytes'] / 1e6:,.1f} MB, "
        f"{counters['malformed']:,} malformed, {counters['unknown']:,} unknown",
        f"books: {counters['oracle_equal']:,} of {counters['oracle_checked']:,} comparisons with the venue's best bid and offer "
        f"equal, {counters['gaps']:,} gaps, {counters['resyncs']:,} resyncs",
    ]


def lay_out_stats(figures: Snapshot, width: int, paint: Paint) -> list[str]:
    """Rings, stages and feed as lines."""
    return [
        *table(RING_COLUMNS, ring_rows(figures), width, paint),
        "",
        *table(STAGE_COLUMNS, stage_rows(figures), width, paint),
        "",
        *(clip(line, width) for line in feed_lines(figures)),
    ]


def lay_out_hops(found: list[Hop], width: int, paint: Paint) -> list[str]:
    """Two lines a stage: from publishing to being taken, and from the frame's arrival to being taken."""
    lines: list[list[Cell]] = []
    for hop in found:
        for measured, name in (("since it was published", "hop"), ("since the frame came in", "origin")):
            figures = hop["hop"] if name == "hop" else hop["origin"]
            cells: list[Cell] = [hop["stage"] if name == "hop" else "", measured, count(figures["count"])]
            if figures["count"]:
                cells += [span(figures["p50_ns"]), span(figures["p99_ns"]), span(figures["p999_ns"]), span(figures["max_ns"])]
            else:
                cells += ["-"] * 4
            lines.append(cells)
    return table(HOP_COLUMNS, lines, width, paint)


def _when(run: LastRun) -> str:
    return f"{run.instance} ended {span((time.time() - run.ended) * 1e9)} ago; its last figures:"


def stats(args: argparse.Namespace) -> int:
    """The command."""
    instance, run = meant(args, figures=True)
    width, paint = shutil.get_terminal_size((120, 40)).columns, paint_for(sys.stdout)
    if run is not None:
        figures = cast(Snapshot, run.figures)
        if not args.json:
            print(paint(_when(run), "bold") + "\n")
        return _print_stats(figures, args.json, True, width, paint)
    with running.looking_at(instance) as memory:
        while True:
            figures = sampled(memory, args.window)
            if args.watch and not args.json and sys.stdout.isatty():
                sys.stdout.write("\x1b[H\x1b[2J")
            code = _print_stats(figures, args.json, False, width, paint)
            if not args.watch:
                return code
            sys.stdout.flush()
            if not rundir.holder(instance):
                return OK
            time.sleep(max(1.0 - args.window, 0.0))


def _print_stats(figures: Snapshot, as_json: bool, ended: bool, width: int, paint: Paint) -> int:
    wrong = complaints(figures, ended=ended)
    if as_json:
        whole: dict[str, Any] = {**figures, "running": not ended, "complaints": wrong}
        print(json.dumps(whole))
    else:
        print("\n".join(lay_out_stats(figures, width, paint)))
        for text in wrong:
            print(paint(f"! {text}", "red"))
    return UNHEALTHY if wrong else OK


def latency(args: argparse.Namespace) -> int:
    """The command."""
    instance, run = meant(args, figures=True)
    if run is None:
        with running.looking_at(instance) as memory:
            found = hops(memory.board_words)
    else:
        found = cast(list[Hop], run.hops)
    if args.json:
        print(json.dumps({"instance": instance, "running": run is None, "hops": found}, indent=2))
        return OK
    width, paint = shutil.get_terminal_size((120, 40)).columns, paint_for(sys.stdout)
    if run is not None:
        print(paint(_when(run), "bold") + "\n")
    print("\n".join(lay_out_hops(found, width, paint)))
    return OK
