"""The byte arena beside the frames ring: where the bytes of frames lie, each frame in one piece.

    /scalper.<instance>.frames      | frame | frame | ... skipped end | frame ... |  PAD readable bytes |
                                    0       8-byte aligned starts               size

A FRAME record says `at` (first byte) and `length`. The bytes stay as they are until every gating reader of the frames ring has
released the record; the writer is procs.receiver.frames. Readers may read words: at least PAD bytes follow the end of any frame.

Nothing here needs numba: the supervisor makes the segment, the recorder and the command line read it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from procs.profiles.relations import ARENA_SHARE
from procs.profiles.schema import Profile
from shm.backing import segment_name
from shm.layout import SegmentKind
from shm.segment import Segment

Bytes = npt.NDArray[np.uint8]

PAD: Final = 64
ALIGN: Final = 8
ARENA: Final = "frames"
"""The `what` of the segment's name and its key in procs.memory.segments.Memory.segments."""
LAYOUT: Final = 0x61_72_65_6E_61_01  # "arena", version 1
MIN_BYTES: Final = 4096
LARGEST_SHARE: Final = ARENA_SHARE
"""A frame may take one part in so many of the arena, so that one giant does not empty it of everybody else's."""


def arena_bytes(profile: Profile) -> int:
    """Payload bytes of the arena's segment, PAD included; 0 where the profile has no live source and so no arena."""
    return profile.live.arena_mb * (1 << 20) + PAD if profile.source.kind == "live" else 0


def create_arena(instance: str, payload_bytes: int, *, prefault: bool = False) -> Segment:
    """Make the arena (the pipeline's creator does). Raises shm.errors.SegmentError."""
    if payload_bytes < MIN_BYTES + PAD:
        raise ValueError(f"an arena of {payload_bytes} bytes: at least {MIN_BYTES + PAD}")
    return Segment.create(
        segment_name(instance, ARENA), payload_bytes, layout_hash=LAYOUT, kind=int(SegmentKind.ARENA), segment_id=0,
        prefault=prefault,
    )  # fmt: skip


def attach_arena(instance: str, *, readonly: bool = True) -> Segment:
    """Open the arena. Raises shm.errors.SegmentError; SegmentMissing where the pipeline has no live source."""
    return Segment.attach(segment_name(instance, ARENA), layout_hash=LAYOUT, kind=int(SegmentKind.ARENA), readonly=readonly)


def arena_view(segment: Segment) -> Bytes:
    """All of it as contiguous uint8, PAD included: what the compiled feed indexes with `at`."""
    return segment.payload
