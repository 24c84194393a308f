"""Whether the pipeline lives, from the board alone: readiness, heartbeats that move, and who has finished.

A heartbeat's age is the time since *we* saw it move, as of our own last look: a pause of ours is nobody's silence. Nothing is
asked of any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from procs import topology
from procs.gateway.shapes import StageRow, Way
from procs.memory import board
from procs.memory.board import Words
from shm.percentiles import Snapshot

SOURCES: Final = ("feed", "features")
"""The stages without which nothing new comes."""
RECORDER: Final = "recorder"


@dataclass(slots=True)
class _Beat:
    page: Words
    count: int = -1
    moved_ns: int = 0


class Pulse:
    """The stages' signs of life. Times are CLOCK_MONOTONIC ns of the caller."""

    def __init__(self, board_words: Words, stages: Sequence[str], limit_ns: int, now_ns: int) -> None:
        self._limit_ns = limit_ns
        self._looked_ns = now_ns
        self._router = board.page(board_words, topology.stage_id("router"))
        self._beats = {
            name: _Beat(board.page(board_words, topology.stage_id(name)), moved_ns=now_ns)
            for name in stages
        }

    def look(self, now_ns: int) -> None:
        """Note which heartbeats have moved."""
        self._looked_ns = now_ns
        for beat in self._beats.values():
            count = int(beat.page[board.HEARTBEAT])
            if count != beat.count:
                beat.count, beat.moved_ns = count, now_ns

    def way(self, ring: str) -> Way:
        """The way from the frame to the router by one input: `orders` leave there, `executions` are the venue's answers."""
        seen = Snapshot(board.of_input(self._router, topology.STAGE["router"].inputs.index(ring), board.ORIGIN))
        return Way(count=seen.count, p50_ns=seen.percentile(50), p99_ns=seen.percentile(99), max_ns=seen.max_ns)

    def rows(self) -> list[StageRow]:
        """Every stage as it was at the last look."""
        return [
            StageRow(
                name=name,
                state=self._state(beat),
                beat_age_ms=round((self._looked_ns - beat.moved_ns) / 1e6, 3),
                records=int(beat.page[board.RECORDS]),
            )
            for name, beat in self._beats.items()
        ]

    def _state(self, beat: _Beat) -> str:
        if beat.page[board.FINISHED]:
            return "finished"
        if self._looked_ns - beat.moved_ns > self._limit_ns:
            return "silent"
        return "running" if beat.page[board.READY] else "starting"

    def problems(self) -> list[str]:
        """What is wrong, a sentence each: stages have to be running, but for a recorder that was told to keep nothing."""
        found = [
            self._sentence(row) for row in self.rows()
            if row.state != "running" and (row.state != "finished" or topology.STAGE[row.name].hot)
        ]  # fmt: skip
        recorder = self._beats.get(RECORDER)
        trouble = board.disk_trouble(recorder.page) if recorder else ""
        return [*found, trouble] if trouble else found

    def down(self) -> str:
        """Why nothing new can come: "" while it can. A stage that is being restarted is not down, it is back at once."""
        for row in self.rows():
            if row.name in SOURCES and row.state in ("finished", "silent"):
                return self._sentence(row)
        return ""

    @staticmethod
    def _sentence(row: StageRow) -> str:
        match row.state:
            case "finished":
                return f"{row.name} has finished its work: the market has ended"
            case "silent":
                return f"{row.name} has shown no sign of life for {row.beat_age_ms:.0f} ms: see `scalperctl status`"
            case _:
                return f"{row.name} is starting"
