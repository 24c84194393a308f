"""A pipeline's memory without a pipeline: real segments' words on the heap, filled by hand, for tests of what the CLI shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from procs import topology
from procs.memory import board
from procs.memory import segments as pipeline
from procs.memory.board import Words
from ringbuf import layout


@dataclass
class HeapMemory:
    """What procs.memory.segments.Memory offers to readers, on the heap."""

    instance: str = "synthetic"
    board_words: Words = field(default_factory=lambda: np.zeros(board.BOARD_WORDS, np.int64))
    rings: dict[str, Words] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in topology.RINGS:
            words = np.zeros(layout.payload_bytes(entry.capacity, entry.record) // 8, np.int64)
            pipeline.format_ring(words, entry)
            self.rings[entry.name] = words

    def ring(self, name: str) -> Words:
        """A ring's payload words."""
        return self.rings[name]

    def page(self, stage: str) -> Words:
        """A stage's page."""
        return board.page(self.board_words, topology.stage_id(stage))

    def publish(self, name: str, records: np.ndarray) -> None:
        """Put records on a ring as its writer does, without waiting for anybody."""
        entry = topology.RING[name]
        ctl, slots, recs = layout.views(self.rings[name], entry.record)
        for record in records:
            tail = int(ctl[layout.TAIL])
            row = tail & (entry.capacity - 1)
            recs[row] = record
            slots[row, -1] = tail + 1
            ctl[layout.TAIL] = tail + 1

    def read(self, name: str, reader: str, head: int) -> None:
        """Put a reader's cursor."""
        line = layout.reader_line(topology.RING[name].reader_index(reader))
        self.rings[name][line + layout.CURSOR] = head

    def read_all(self) -> None:
        """Every reader at its ring's tail."""
        for entry in topology.RINGS:
            for reader in entry.readers:
                self.read(entry.name, reader, int(self.rings[entry.name][layout.TAIL]))


def status_reply(**more: object) -> dict[str, object]:
    """What the supervisor answers to `status`, all stages running."""
    names = [*topology.Run().names, "zygote"]
    stages = [
        {
            "name": name, "process": name, "wanted": "UP", "actual": "RUNNING", "ready": True, "pid": 100 + n, "incarnation": 1,
            "restarts": 0, "crashes": 0, "since_s": 12.5, "silent_ms": None if name == "zygote" else 3, "last_end": None,
            "log": f"/log/{name}.log",
        }
        for n, name in enumerate(names)
    ]  # fmt: skip
    return {
        "instance": "synthetic", "world": "paper", "pid": 99, "phase": "running", "uptime_s": 61.0, "halted": None,
        "warm": {"done": 7, "total": 7, "compiled": 0, "seconds": 1.5}, "progress": 123_456, "stages": stages, **more,
    }  # fmt: skip
