"""`stats` and `latency`: what rings and histograms say, of a living pipeline or, once it has ended, of its last moment."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, cast

from procs import rundir
from procs.cli import pace, running
from procs.cli.figures import Reader, RingFigures, Snapshot, complaints, snapshot, with_rates
from procs.cli.last_run import LastRun
from procs.cli.latencies import Hop, headline, hops, kept
from procs.cli.outcome import OK, UNHEALTHY
from procs.cli.progress import writes_over
from procs.cli.runs import meant
from procs.cli.table import Cell, Column, Paint, count, paint_for, rate, share, span, table, wrapped
from procs.memory.segments import Memory
from procs.profiles.config import profile_from_json
from procs.profiles.schema import Profile

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
    Column("INPUT", right=False),
    Column("RECORDS", keep=1),
    Column("HOP P50"),
    Column("P99"),
    Column("MAX", keep=2),
    Column("FROM FRAME P50"),
    Column("P99"),
    Column("MAX", keep=3),
    Column("WHAT IT MEANS", right=False, keep=4),
)
HOP_NOTES: Final = (
    "hop: from publishing to being taken; from frame: from the frame's arrival to being taken; both are this machine's own.",
    "over the venue and back: its delay (simulated: exchange.latency) is in these, but not in the hop of reports.",
)


def sampled(memory: Memory, window_s: float) -> Snapshot:
    """A snapshot with rates over `window_s` seconds (0: without)."""
    before = snapshot(memory)
    if window_s <= 0:
        return before
    started = time.monotonic()
    time.sleep(window_s)
    return with_rates(before, snapshot(memory), time.monotonic() - started)


def _reader_cells(ring: RingFigures, reader: Reader, hurried: bool) -> list[Cell]:
    used = reader["lag"] / ring["capacity"] if ring["capacity"] else 0.0
    style = "" if hurried else "red" if used > 0.9 else "yellow" if used > 0.5 else ""
    name = reader["name"] if reader["gating"] else f"{reader['name']} (does not gate)"
    return [
        (name, "" if reader["gating"] else "dim"),
        count(reader["head"]),
        count(reader["lag"]),
        (share(used), style),
        (count(reader["overruns"]), "red" if reader["overruns"] else ""),
    ]


def ring_rows(figures: Snapshot, hurried: bool = False) -> list[list[Cell]]:
    """One line a reader; the ring's own figures stand in its first. `hurried`: a full ring is the replay's own pace."""
    found: list[list[Cell]] = []
    for ring in figures["rings"]:
        own: list[Cell] = [
            (ring["name"], "bold"), count(ring["capacity"]), count(ring["tail"]), rate(ring.get("rate")), count(ring["stalls"])
        ]  # fmt: skip
        for n, reader in enumerate(ring["readers"]):
            found.append([*(own if n == 0 else [""] * len(own)), *_reader_cells(ring, reader, hurried)])
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


def lay_out_stats(figures: Snapshot, width: int, paint: Paint, said: Sequence[str] = (), hurried: bool = False) -> list[str]:
    """Rings, stages and feed as lines; `said`: sentences below them; `hurried`: see `ring_rows`."""
    return [
        *table(RING_COLUMNS, ring_rows(figures, hurried), width, paint),
        "",
        *table(STAGE_COLUMNS, stage_rows(figures), width, paint),
        "",
        *(part for line in (*feed_lines(figures), *filter(None, said)) for part in wrapped(line, width)),
    ]


def lay_out_hops(found: list[Hop], width: int, paint: Paint) -> list[str]:
    """One line an input. Below, apart, those that a record reaches over the venue: its delay is no latency of this machine."""
    text = []
    for note, rows in zip(
        HOP_NOTES, ([hop for hop in found if bool(hop["venue_in"]) == behind] for behind in (False, True)), strict=True
    ):
        if rows:
            text += ["", *wrapped(note, width), *table(HOP_COLUMNS, [_hop_row(hop) for hop in rows], width, paint)]
    return text[1:]


def _hop_row(hop: Hop) -> list[Cell]:
    cells: list[Cell] = [hop["stage"], hop["input"], count(hop["origin"]["count"])]
    for figures in (hop["hop"], hop["origin"]):
        cells += [span(figures[key]) for key in ("p50_ns", "p99_ns", "max_ns")] if figures["count"] else ["-"] * 3
    return [*cells, hop["meaning"]]


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
        profile = profile_from_json(bytes(run.profile))
        return _print_stats(figures, kept(run.hops), profile, args.json, True, width, paint)
    profile = running.running_profile(instance) or Profile()
    with running.looking_at(instance) as memory:
        while True:
            figures = sampled(memory, args.window)
            if args.watch and not args.json and writes_over(sys.stdout):
                sys.stdout.write("\x1b[H\x1b[2J")
            code = _print_stats(figures, hops(memory.board_words), profile, args.json, False, width, paint)
            if not args.watch:
                return code
            sys.stdout.flush()
            if not rundir.holder(instance):
                return OK
            time.sleep(max(1.0 - args.window, 0.0))


def _print_stats(
    figures: Snapshot, found: list[Hop], profile: Profile, as_json: bool, ended: bool, width: int, paint: Paint
) -> int:
    wrong = complaints(figures, ended=ended)
    if as_json:
        whole: dict[str, Any] = {**figures, "hops": found, "pace": pace.pace_of(profile)}
        whole |= {"running": not ended, "complaints": wrong}
        print(json.dumps(whole))
    else:
        said = (headline(found), pace.note(profile))
        print("\n".join(lay_out_stats(figures, width, paint, said, pace.hurried(profile))))
        for text in wrong:
            print("\n".join(paint(line, "red") for line in wrapped(f"! {text}", width)))
    return UNHEALTHY if wrong else OK


def latency(args: argparse.Namespace) -> int:
    """The command."""
    instance, run = meant(args, figures=True)
    if run is None:
        with running.looking_at(instance) as memory:
            found = hops(memory.board_words)
    else:
        found = kept(run.hops)
    if args.json:
        print(json.dumps({"instance": instance, "running": run is None, "hops": found}, indent=2))
        return OK
    width, paint = shutil.get_terminal_size((120, 40)).columns, paint_for(sys.stdout)
    if run is not None:
        print(paint(_when(run), "bold") + "\n")
    print("\n".join(lay_out_hops(found, width, paint)))
    profile = profile_from_json(bytes(run.profile)) if run is not None else running.running_profile(instance)
    for said in filter(None, (headline(found), pace.note(profile) if profile is not None else "")):
        print("\n" + "\n".join(wrapped(said, width)))
    return OK
