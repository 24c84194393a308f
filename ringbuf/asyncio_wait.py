"""Reading a ring from asyncio: a thread sleeps on the futex and wakes the event loop.

The thread exists from the first empty poll to `close`, and only sleeps while the loop waits for it. It touches no
bookkeeping of the reader, so a cancelled `poll` leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ringbuf import ring, waiting
from ringbuf.endpoint import Reader, RingClosed
from ringbuf.layout import READER_DOORBELL

Recs = npt.NDArray[Any]


class AsyncReader:
    """A Reader whose `poll` waits without blocking the event loop. One task at a time may wait.

        async with AsyncReader(open_reader(name, RECORD)) as reader:
            async for rec in reader: ...

    Closing it closes the Reader.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader: Final = reader
        self._arrived = asyncio.Event()
        self._asked = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None

    async def poll(self, most: int = 256) -> Recs:
        """At least one record and at most `most`, copied and released. RingClosed when closed before one came."""
        while True:
            if self._stop:
                raise RingClosed("this end of the ring was closed; open it again")
            found = self.reader.poll(most)
            if len(found):
                return found
            self._arrived.clear()
            self._ask(asyncio.get_running_loop())
            await self._arrived.wait()

    async def __aiter__(self) -> AsyncIterator[Recs]:
        while True:
            try:
                found = await self.poll()
            except RingClosed:
                return
            for rec in found:
                yield rec

    async def close(self) -> None:
        """End the thread, wake who waits (RingClosed), close the reader. Again is allowed."""
        if self._stop:
            return
        self._stop = True
        self._asked.set()
        if self._thread is not None:
            reader = self.reader
            ring.ring_doorbell(reader.doorbells, int(reader.ctl[READER_DOORBELL + reader.reader]))
            await asyncio.to_thread(self._thread.join)
        self._arrived.set()
        self.reader.close()

    async def __aenter__(self) -> AsyncReader:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._sleep, args=(loop,), name="ring-waiter", daemon=True)
            self._thread.start()
        self._asked.set()

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        reader = self.reader
        while True:
            self._asked.wait()
            self._asked.clear()
            while not self._stop and not waiting.wait_readable(
                reader.ctl, reader.slots, np.int64(reader.head), reader.reader, reader.doorbells,
                waiting.BLOCK, 0, waiting.MAX_NAP_NS,
            ):  # fmt: skip
                pass
            if self._stop:
                return
            try:
                loop.call_soon_threadsafe(self._arrived.set)
            except RuntimeError:  # the loop was closed without closing us
                return


__all__ = ["AsyncReader"]
