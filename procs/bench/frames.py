"""The receiver's rate (`run`, `format`; also `python -m procs.bench.frames [FRAMES [BYTES]]`).

Three figures of one run on this machine: CPU ns a frame of the ring's writer alone; frames/s from a loopback server (a process
of its own that sends as fast as it can) through the WebSocket client into the ring, with a reader that releases; and the part
of a core that an idle receiver uses for its promises.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from procs.memory.arena import PAD
from procs.memory.segments import aligned_words
from procs.profiles.schema import LiveSettings
from procs.receiver.frames import FrameWriter
from procs.receiver.link import VenueLink
from procs.receiver.say import Say
from ringbuf import layout
from ringbuf.layout import CURSOR, TAIL, reader_line
from trading.instruments import Market
from trading.records import FRAME_RECORD
from trading.venues.protocol import (
    ConnectionPlan,
    Decoder,
    Ignored,
    InstrumentRules,
    Item,
    Limits,
    RestRequest,
    Streams,
    Venue,
    VenueSymbol,
)

CAPACITY: Final = 16_384
ARENA: Final = 16 << 20
HEAD: Final = b'{"stream":"btcusdt@depth@100ms","data":'
IDLE_S: Final = 3.0


class _Deaf(Decoder):
    def decode(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        return (Ignored("all"),)


class OneStream(Venue):
    """A native venue of one symbol whose frames begin with its stream's name, as Binance's do."""

    market = Market.BINANCE_SPOT
    stream_url = "ws://127.0.0.1:1"
    rest_url = "http://127.0.0.1:1"
    limits = Limits()

    def __init__(self) -> None:
        super().__init__([VenueSymbol(0, "BTCUSDT", "BTCUSDT")], Streams())
        self._streams = {b"btcusdt@depth@100ms": 0}

    def connections(self) -> Sequence[ConnectionPlan]:
        """One."""
        return [ConnectionPlan("/stream", (), (0,))]

    def decoder(self) -> Decoder:
        """Reads nothing."""
        return _Deaf()

    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """Nothing."""
        return ()

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """None."""
        return None

    def instruments_request(self) -> RestRequest:
        """Never asked."""
        return RestRequest("/")

    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """Never asked."""
        return {}

    def stream_code(self, raw: bytes) -> int:
        """By the stream's name: one comparison, one search, one look-up."""
        if raw[:11] != b'{"stream":"':
            return -1
        return self._streams.get(raw[11 : raw.find(b'"', 11, 96)], -1)


def frame_of(size: int) -> bytes:
    """A frame of about `size` bytes."""
    return HEAD + b'"' + b"x" * max(0, size - len(HEAD) - 3) + b'"}'


def new_ring() -> tuple[Any, Any, Any]:
    """(ring words, control words, arena) on the heap."""
    words = aligned_words(layout.payload_bytes(CAPACITY, FRAME_RECORD) // 8)
    layout.format_ring(words, FRAME_RECORD, CAPACITY)
    return words, layout.views(words, FRAME_RECORD)[0], np.zeros(ARENA + PAD, np.uint8)


def writer_ns(size: int, frames: int) -> float:
    """CPU ns a frame of FrameWriter.frame alone, its two clocks included; the best of five."""
    words, ctl, arena = new_ring()
    writer, raw = FrameWriter(words, arena), frame_of(size)
    mono, wall, cursor = time.monotonic_ns, time.time_ns, reader_line(0) + CURSOR
    best = float("inf")
    for _ in range(5):
        start = time.thread_time_ns()
        for n in range(frames):
            writer.frame(raw, 0, 0, n, mono(), wall())
            if not n & 1023:
                ctl[cursor] = writer.tail
        best = min(best, (time.thread_time_ns() - start) / frames)
    assert writer.dropped == 0
    return best


def _serve(size: int, frames: int, port_pipe: int) -> None:
    """In the child: a picows server that sends `frames` frames to each client as fast as it takes them."""
    import picows

    raw = frame_of(size)

    class Sending(picows.WSListener):  # type: ignore[misc,unused-ignore]
        """Sends while the buffer takes it."""

        def on_ws_connected(self, transport: Any) -> None:
            """Begin."""
            self.left, self.transport, self.paused = frames, transport, False
            self.more()

        def more(self) -> None:
            """A burst, then let the loop write."""
            for _ in range(min(self.left, 256)):
                self.transport.send(picows.WSMsgType.TEXT, raw)
                self.left -= 1
                if self.paused:
                    return
            if self.left:
                asyncio.get_running_loop().call_soon(self.more)

        def pause_writing(self) -> None:
            """The buffer is full."""
            self.paused = True

        def resume_writing(self) -> None:
            """It is not any more."""
            self.paused = False
            self.more()

    async def serve() -> None:
        server = await picows.ws_create_server(lambda _: Sending(), "127.0.0.1", 0)
        os.write(port_pipe, server.sockets[0].getsockname()[1].to_bytes(4, "little"))
        await server.serve_forever()

    asyncio.run(serve())


async def _through(port: int, frames: int, transport: str) -> tuple[float, float, int]:
    """(wall seconds, CPU seconds, frames dropped) from the first frame to the last."""
    words, ctl, arena = new_ring()
    writer = FrameWriter(words, arena)
    live = LiveSettings(transport=transport)  # type: ignore[arg-type]
    link = VenueLink(OneStream(), live, writer, Say("bench"), random.Random(1), name="bench", stream_url=f"ws://127.0.0.1:{port}")
    loop, cursor = asyncio.get_running_loop(), reader_line(0) + CURSOR
    link.start()
    first = cpu = 0.0
    while writer.frames + writer.dropped < frames:
        if not first and writer.frames:
            first, cpu = time.perf_counter(), time.process_time()
            begun = writer.frames
        ctl[cursor] = ctl[TAIL]
        pause = loop.create_future()
        loop.call_later(0.001, pause.set_result, None)
        await pause
    wall, used = time.perf_counter() - first, time.process_time() - cpu
    await link.stop()
    share = frames / (frames - begun)
    return wall * share, used * share, writer.dropped


def rate(size: int, frames: int, transport: str) -> dict[str, float]:
    """Frames/s through a loopback connection."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _serve(size, frames, write)
        finally:
            os._exit(0)
    try:
        port = int.from_bytes(os.read(read, 4), "little")
        wall, used, dropped = asyncio.run(_through(port, frames, transport))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
    return {"frames_per_s": frames / wall, "receiver_cpu_ns_per_frame": used / frames * 1e9, "dropped": dropped}


def idle_share() -> float:
    """CPU of an idle receiver's ticks, as a part of one core."""
    from procs.receiver.stage import LINES_EVERY, TICK_S

    words, _, arena = new_ring()
    writer = FrameWriter(words, arena)
    link = VenueLink(OneStream(), LiveSettings(), writer, Say("bench"), random.Random(1), name="bench")

    async def run() -> float:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1
            writer.promise(time.time_ns())
            if count % LINES_EVERY == 0:
                link.tick()
            if count * TICK_S < IDLE_S:
                loop.call_later(TICK_S, tick)
            else:
                over.set_result(None)

        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        tick()
        await over
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return used / (time.perf_counter() - start)

    return asyncio.run(run())


def run(frames: int = 300_000, size: int = 400) -> dict[str, Any]:
    """Measure."""
    return {
        "bytes": size,
        "writer_ns_per_frame": writer_ns(size, frames),
        "picows": rate(size, frames, "picows"),
        "websockets": rate(size, max(1, frames // 10), "websockets"),
        "idle_share_of_a_core": idle_share(),
    }


def format(found: Mapping[str, Any]) -> str:
    """The figures as lines."""
    lines = [f"writer             {found['writer_ns_per_frame']:10.0f} ns CPU a frame of {found['bytes']} bytes"]
    for name in ("picows", "websockets"):
        row = found[name]
        lines.append(f"{name:<12} {row['frames_per_s']:16,.0f} frames/s, {row['receiver_cpu_ns_per_frame']:,.0f} ns CPU each")
    return "\n".join([*lines, f"idle               {found['idle_share_of_a_core']:10.2%} of a core"])


if __name__ == "__main__":
    print(format(run(*map(int, sys.argv[1:]))))
