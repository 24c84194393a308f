"""HOW indices move: atomics, the slot-sequence ring, wait strategies. Knows bytes and words, nothing of trading.

What to use for what (docs/rings.md shows all of it in a program that runs):

    create_ring, open_writer, open_reader, open_observer    a ring by its name: tools, notebooks, processes of your own
    Writer, Reader, Observer                                the ends that those return; also over words mapped already
    fence_reader                                            take a dead reader out of the writer's way (supervisors)
    AsyncReader                                             a Reader for asyncio
    PlainWriter, latest, copied_from                        without numba, for who must stay small and start at once
    RingError (RingFull, RingClosed), RingLayoutError       what can go wrong

Compiled loops use ringbuf.ring and ringbuf.batch themselves. A name is imported when it is first asked for, so that who needs
no compiler loads none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ringbuf.asyncio_wait import AsyncReader
    from ringbuf.endpoint import (
        Observer,
        Reader,
        RingClosed,
        RingError,
        RingFull,
        Writer,
        create_ring,
        fence_reader,
        open_observer,
        open_reader,
        open_writer,
    )
    from ringbuf.layout import RingLayoutError
    from ringbuf.plain import PlainWriter, copied_from, latest

_WHERE: Final = {
    "asyncio_wait": ("AsyncReader",),
    "endpoint": (
        "Observer", "Reader", "RingClosed", "RingError", "RingFull", "Writer", "create_ring", "fence_reader", "open_observer",
        "open_reader", "open_writer",
    ),
    "layout": ("RingLayoutError",),
    "plain": ("PlainWriter", "copied_from", "latest"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    for module, names in _WHERE.items():
        if name in names:
            return getattr(importlib.import_module(f"ringbuf.{module}"), name)
    raise AttributeError(f"module 'ringbuf' has no attribute {name!r}")


__all__ = [
    "AsyncReader",
    "Observer",
    "PlainWriter",
    "Reader",
    "RingClosed",
    "RingError",
    "RingFull",
    "RingLayoutError",
    "Writer",
    "copied_from",
    "create_ring",
    "fence_reader",
    "latest",
    "open_observer",
    "open_reader",
    "open_writer",
]
