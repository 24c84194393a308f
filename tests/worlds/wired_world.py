"""A pipeline whose frames come over the frames ring, all in one process: the test is its receiver.

The frames are the embedded market's, so that a market of any length can be made, stopped and gone on with.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from fold_world import STAGES, Session, small_market

from procs.fold.assembly import LoopSettings
from procs.memory.arena import PAD
from procs.receiver.frames import FrameWriter
from sim.market import generator
from trading.books.fold import WHOLE
from trading.jit import Words

HOUR_NS = 3_600_000_000_000
ARENA = 4 << 20


class WiredSession(Session):
    """`deliver` brings the market's next frames, `promise` lets time go on without any."""

    def __init__(self, loop: LoopSettings | None = None, **overrides: Any) -> None:
        plan = small_market(**overrides)
        live = replace(plan, run=replace(plan.run, source="live"), speed=0.0, snapshot_levels=WHOLE)
        super().__init__(live, loop)
        self.world.arena = np.zeros(ARENA + PAD, np.uint8)
        self.build("feed")
        self.writer = FrameWriter(self.world.rings["frames"], self.world.arena, self.world.board)
        self.now_ns = 0
        self.wire: list[tuple[Words, bytes]] = []  # slots and bytes of all that was delivered
        self.lag_ns = -HOUR_NS  # what CLOCK_MONOTONIC is ahead of the receiver's promises: it never comes to speak
        self._made = np.zeros(plan.symbols, generator.GEN_STATE), np.zeros(1, generator.GEN_GLOBAL)
        self._params, self._bytes = generator.make_params(plan.generator), np.zeros(generator.MAX_FRAME_BYTES, np.uint8)
        generator.init(*self._made, self._params, plan.instruments)
        for symbol in range(plan.symbols):
            self.writer.line_up(0, [symbol], 1)
            self._keep(b"")

    def deliver(self, frames: int) -> None:
        """The next frames come in, each at its time."""
        for _ in range(frames):
            end = generator.next_frame(*self._made, self._params, self.plan.instruments, self._bytes)
            assert end, "the market has ended"
            gen = self._made[1][0]
            self.now_ns = int(gen["recv_ns"])
            payload, origin = self._bytes[:end].tobytes(), time.monotonic_ns() - self.lag_ns
            assert self.writer.frame(payload, int(gen["symbol"]), 0, 0, origin, self.now_ns) >= 0
            self._keep(payload)

    def _keep(self, payload: bytes) -> None:
        slots = self.views["frames"][1]
        self.wire.append((slots[(self.writer.tail - 1) & (self.writer.capacity - 1)].copy(), payload))

    def promise(self, ns: int) -> None:
        """So much time goes by without a frame."""
        self.now_ns += ns
        self.writer.promise(self.now_ns)

    def settle_all(self, names: tuple[str, ...] = STAGES) -> None:
        """Poll all stages until none has anything left to do."""
        quiet = 0
        while quiet < 20:  # time creeps through the merges
            work = sum(self._turn(name) for name in names)
            quiet = 0 if work else quiet + 1

    def _turn(self, name: str) -> int:
        work = self.poll(name)
        self.settle(name, work)
        self.record()
        return work
