"""The bare clients of `bench link`: they take frames, note when, and do nothing else.

    python -m procs.bench.link_counter picows|websockets URL FOLDER

The k-th frame's CLOCK_MONOTONIC goes to `seen.npy[k + 1]` in FOLDER, the count of frames to `seen.npy[0]`; both the
transport's own cost and Python's callback are in it, no decoding. Ends with its connection or by a signal.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


async def by_picows(url: str, seen: Any) -> None:
    """With picows."""
    from picows import WSListener, WSMsgType, WSTransport, ws_connect

    clock, text = time.monotonic_ns, WSMsgType.TEXT

    class Counter(WSListener):
        def __init__(self) -> None:
            self.n = 0

        def on_ws_frame(self, transport: WSTransport, frame: Any) -> None:
            if frame.msg_type == text:
                self.n += 1
                seen[self.n] = clock()
                seen[0] = self.n

    transport, _ = await ws_connect(Counter, url)
    await transport.wait_disconnected()


async def by_websockets(url: str, seen: Any) -> None:
    """With websockets, without compression, as Binance has none."""
    import websockets

    n = 0
    async with websockets.connect(url, compression=None, max_size=2**24, max_queue=None) as line:
        async for _ in line:
            n += 1
            seen[n] = time.monotonic_ns()
            seen[0] = n


if __name__ == "__main__":
    ways = {"picows": by_picows, "websockets": by_websockets}
    asyncio.run(ways[sys.argv[1]](sys.argv[2], np.load(Path(sys.argv[3], "seen.npy"), mmap_mode="r+")))
