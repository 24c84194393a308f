"""`lines`: the venue's connections as the receiver last wrote them down, once a second. It is read, never asked.

`procs.receiver.line_table` says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from typing import Any, Final

from procs import rundir
from procs.cli import running
from procs.cli.outcome import NOT_RUNNING, OK, UNHEALTHY, CliError
from procs.cli.table import Cell, Column, Paint, clean_text, count, paint_for, span, table, wrapped
from procs.receiver.clock import SLEW
from procs.receiver.line_table import NEVER, SILENT, read_table

STALE_S: Final = 5.0
"""A table that is older was not written by a living receiver."""
COLUMNS: Final = (
    Column("LINE"),
    Column("VENUE", right=False, keep=1),
    Column("COPY", right=False, keep=4),
    Column("STATE", right=False),
    Column("SYMBOLS"),
    Column("AGE"),
    Column("LAST"),
    Column("MESSAGES"),
    Column("MB", keep=2),
    Column("GAPS"),
    Column("LOST"),
    Column("UNKNOWN", keep=3),
    Column("DOWNS"),
    Column("ENDED BY", right=False, keep=5),
)


STREAM_COLUMNS: Final = (
    Column("VENUE", right=False, keep=1),
    Column("SYMBOL", right=False),
    Column("DEPTH"),
    Column("BBO"),
    Column("PRINTS"),
    Column("MARK", keep=2),
    Column("SUBSCRIBED ANEW", right=False, keep=3),
)
QUIET: Final = (SILENT, NEVER)
"""Nothing proves that something is missing: the market may be idle."""


def figures_of(instance: str) -> dict[str, Any]:
    """The connections' figures of a living instance. CliError NOT_RUNNING where it has none."""
    for folder in rundir.run_dir_candidates(instance):
        found = read_table(folder)
        if found is not None:
            found["table_age_s"] = round(time.time() - found["at_ns"] / 1e9, 3)
            return found
    raise CliError(
        f"instance {instance!r} has no connections: its market data does not come from a venue, or its receiver has not begun "
        f"(`{running.command_for(instance, 'status')}` tells)",
        NOT_RUNNING,
    )


def troubles(found: dict[str, Any], instance: str) -> list[str]:
    """What is wrong, a clause each."""
    wrong = []
    if found["table_age_s"] > STALE_S:
        wrong.append(f"the receiver wrote this {found['table_age_s']:.0f} s ago: see `{running.command_for(instance, 'status')}`")
    if found["frames"]["dropped"]:
        dropped = found["frames"]["dropped"]
        wrong.append(f"{dropped} frames found no room: the feed or the disk is too slow, or raise live.arena_mb")
    lead = found.get("clock", {}).get("lead_s", 0.0)
    if lead >= 1.0:
        wrong.append(
            f"the wall clock was set back: the session's time is {lead:.0f} s ahead of it and comes back to it in "
            f"{lead * SLEW / 60:.0f} min"
        )
    for venue in found["venues"]:
        covered = {line["state"] for line in venue["lines"]}
        if "UP" not in covered:
            ends = {clean_text(line["last_end"]) for line in venue["lines"] if line["last_end"]}
            wrong.append(f"no line to {venue['venue']} is up" + (f" ({'; '.join(sorted(ends))})" if ends else ""))
        for row in venue.get("streams", ()):
            for it in row["wanted"]:
                if it["why"] in QUIET:
                    continue
                where = "" if it["line"] is None else f" on line {it['line']}"
                wrong.append(
                    f"{clean_text(row['symbol'])} {it['stream']} of {venue['venue']}{where} is dead for {it['dead_s']:.0f} s "
                    f"({it['why']}): tried {it['tries']} times"
                )
    return wrong


def stream_rows(found: dict[str, Any]) -> list[list[Cell]]:
    """One row a symbol: the age of each of its streams, and what is said of those that are subscribed anew."""
    shown: list[list[Cell]] = []
    for venue in found["venues"]:
        for row in venue.get("streams", ()):
            wanted = {it["stream"]: it["why"] for it in row["wanted"]}
            cells: list[Cell] = [venue["venue"], clean_text(row["symbol"])]
            for stream in ("depth", "bbo", "prints", "mark"):
                there, age = stream in row["ages_s"], row["ages_s"].get(stream)
                text = "" if not there else "never" if age is None else span(age * 1e9)
                why = wanted.get(stream)
                cells.append((text, "" if why is None else "yellow" if why in QUIET else "red"))
            cells.append("; ".join(f"{stream}: {why}" for stream, why in wanted.items()))
            shown.append(cells)
    return shown


def rows(found: dict[str, Any]) -> list[list[Cell]]:
    """One row a line that is, or was, in use."""
    shown: list[list[Cell]] = []
    for venue in found["venues"]:
        for line in venue["lines"]:
            if line["state"] == "IDLE" and not line["messages"]:
                continue  # the other half of a pair that takes over at the next rotation
            style = "green" if line["state"] == "UP" else "yellow"
            last, age = line["last_message_s"], line["age_s"]
            shown.append([
                str(line["line"]), venue["venue"], line["copy"], (line["state"], style),
                f"{line['symbols_up']}/{line['symbols']}",
                "-" if age is None else span(age * 1e9), "-" if last is None else span(last * 1e9), count(line["messages"]),
                f"{line['bytes'] / 1e6:.1f}", (count(line["gaps"]), "yellow" if line["gaps"] else ""),
                (count(line["lost"]), "red" if line["lost"] else ""), count(line["unknown"]), count(line["downs"]),
                clean_text(line["last_end"])[:40],
            ])  # fmt: skip
    return shown


def _sentence(venue: dict[str, Any]) -> str:
    said = f"{venue['venue']}: {venue['stream_url']}, by {venue['transport']}"
    offset, error = venue.get("clock_offset_ns"), venue.get("clock_error_ns")
    if offset is not None and error is not None:
        way = "ahead of" if offset > 0 else "behind"
        said += f"; its clock is {span(abs(offset))} {way} ours (give or take {span(error)})"
    if venue.get("rest_weight_limit"):
        said += f"; REST weight {venue['rest_weight_used']} of {venue['rest_weight_limit']} in the last minute"
        said += f"; {venue['resyncs_delivered']} snapshots fetched, {venue['resyncs_waiting']} waiting"
    return said


def render(found: dict[str, Any], wrong: list[str], width: int, paint: Paint) -> list[str]:
    """The view as lines, at most `width` columns wide; `wrong`: what `troubles` found."""
    text = table(COLUMNS, rows(found), width, paint)
    text += ["", *table(STREAM_COLUMNS, stream_rows(found), width, paint), ""]
    text += [line for venue in found["venues"] for line in wrapped(_sentence(venue), width)]
    return text + [paint(line, "red") for clause in wrong for line in wrapped(f"! {clause}", width)]


def lines(args: argparse.Namespace) -> int:
    """The command."""
    instance = running.instance_for(args)
    found = figures_of(instance)
    wrong = troubles(found, instance)
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(render(found, wrong, shutil.get_terminal_size((120, 24)).columns, paint_for(sys.stdout))))
    return UNHEALTHY if wrong else OK
