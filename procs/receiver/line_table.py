"""Figures of every connection, as one JSON file in the run directory, replaced whole once a second: the CLI reads, never asks.

    {"version": 1, "at_ns": Unix ns, "pid": ..., "frames": {...}, "venues": [{"venue": "binance_spot", ..., "lines": [{...}]}]}

`streams`: by symbol, the age of each of its streams over all lines (null: nothing yet), and what is `wanted` anew and why.
`age_s`: of the connection; `gaps`: symbols of which the feed was told that frames are missing; `lost`: frames without room.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from procs.pacing import SECOND
from procs.whole_files import read_small, write_whole

if TYPE_CHECKING:
    from procs.receiver.frames import FrameWriter
    from procs.receiver.line_socket import LineCounts
    from procs.receiver.lines import Line
    from procs.receiver.link import VenueLink

FILE: Final = "lines.json"
VERSION: Final = 1
SILENT: Final = "nothing of the symbol comes"
NEVER: Final = "it has brought nothing since it was subscribed"
PROVED: Final = "the symbol's other streams go on without it"
BEHIND: Final = "another line brings what this one does not"
"""Why a stream is subscribed anew (`why`)."""
LARGEST: Final = 1 << 22
"""Bytes that the file may have."""


def venue_row(link: VenueLink) -> dict[str, Any]:
    """One venue's figures with its lines."""
    now = time.monotonic_ns()
    best, rest, desk = link.clock.best, link.rest, link.desk
    return {
        "venue": link.name,
        "transport": link.transport,
        "stream_url": link.stream_url,
        "clock_offset_ns": None if best is None else best.offset_ns,
        "clock_error_ns": None if best is None else best.error_ns,
        "clock_offset_at_least_ns": link.clock.floor_ns,
        "rest_requests": rest.requests,
        "rest_weight_used": rest.budget.used(now),
        "rest_weight_limit": rest.budget.own.limit,
        "rest_limited": rest.limited,
        "rest_failed": rest.failed,
        "rest_blocked_s": round(rest.blocked_s(), 1),
        "connects_used": link.lines.connects.used(now),
        "resyncs_wanted": desk.wanted,
        "resyncs_delivered": desk.delivered_count,
        "resyncs_failed": desk.failed_count,
        "resyncs_waiting": desk.waiting,
        "odd_frames": link.odd_frames,
        "streams_asked_anew": link.watch.asked,
        "streams": link.watch.rows({symbol.index: symbol.name for symbol in link.venue.symbols}, now),
        "lines": [
            line_row(strand.copy, line, link.counts[line.number], line.number in link.sockets, now)
            for strand in link.lines.strands
            for line in strand.pair
        ],
    }


def line_row(copy: int, line: Line, counts: LineCounts, open_: bool, now: int) -> dict[str, Any]:
    """One line's figures; the two lines of a strand take turns."""
    return {
        "line": line.number,
        "copy": "AB"[copy],
        "state": str(line.state),
        "symbols": len(line.plan.symbols),
        "symbols_up": len(line.told),
        "age_s": round((now - line.opened_ns) / SECOND, 1) if open_ and line.opened_ns else None,
        "last_message_s": round((now - line.seen_ns) / SECOND, 3) if line.seen_ns else None,
        "connects": line.connects,
        "downs": line.downs,
        "failures": line.failures,
        "last_end": line.last_end,
        "messages": counts.messages,
        "bytes": counts.bytes,
        "plain_frames": counts.plain,
        "gaps": counts.gaps,
        "lost": counts.lost,
        "unknown": counts.unknown,
        "refused": counts.refused,
        "ignored": dict(counts.ignored),
    }


def write_table(folder: Path, writer: FrameWriter, venues: Sequence[dict[str, Any]], clock: tuple[int, int] = (0, 0)) -> None:
    """Replace the file. A folder that cannot be written costs the figures, nothing else.

    `clock`: what the session's time is ahead of the wall clock (ns), and how often that was set.
    """
    frames = {"frames": writer.frames, "bytes": writer.bytes, "dropped": writer.dropped, "owed": writer.owed}
    table = {"version": VERSION, "at_ns": time.time_ns(), "pid": os.getpid(), "frames": frames, "venues": list(venues)}
    table["clock"] = {"lead_s": round(clock[0] / SECOND, 3), "steps": clock[1]}
    with contextlib.suppress(OSError):
        write_whole(folder / FILE, msgspec.json.encode(table), mode=0o644)


def read_table(folder: Path) -> dict[str, Any] | None:
    """The figures as last written; None where there are none."""
    try:
        table = msgspec.json.decode(read_small(folder / FILE, LARGEST))
    except (OSError, msgspec.MsgspecError):
        return None
    return table if isinstance(table, dict) and table.get("version") == VERSION else None
