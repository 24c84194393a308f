"""The segment through which models get into a running pipeline: two sets of images, and one store that changes which counts.

    /scalper.<instance>.model        where ml.enabled, or where the profile names a fitted table
       0  number of the set that is wanted (0: what the start gave)           the publisher's
       1  number of the set that is in force                                the features stage's
       2  images in a set, one a symbol                                     the creator's
       3  market records before the set of even number came into force      the features stage's
       4  ... and the set of odd number
       8  set of even numbers, then set of odd numbers (trading.features.model_layout.MODEL_IMAGE each)

A stage is an exact fold, so *when* a model comes into force must not be chance. The features stage looks at word 0 between two
batches; where a new number stands there it writes that number into its state and makes a checkpoint, before it computes
anything with the new set (a fitted GARCH or microprice becomes part of that state); then it confirms in word 1. So whatever is
computed again after a crash is computed with the model of the first time: from a checkpoint before the change with the old one,
from the one at the change with the new. While a stage computes again what had been published it takes no new model. A publisher
that finds the last one not confirmed is refused: until then the image that it would write over may be needed. Words 3 and 4 say
from which market record on a set counts, so that the recorder can keep it beside the journals (procs.journal.beside).

What this module is not: it trains and promotes nothing.
"""

from __future__ import annotations

from typing import Final

from procs.memory.board import Words
from shm.backing import segment_name
from shm.layout import SegmentKind
from shm.segment import Segment
from trading.features.model_layout import MODEL_IMAGE, MODEL_IMAGE_FIELDS


class ChannelBusy(RuntimeError):
    """A model change is under way; the message says which, and what to do."""


CHANNEL: Final = "model"
WANTED: Final = 0
IN_FORCE: Final = 1
SYMBOLS: Final = 2
SINCE: Final = 3  # and the next
IMAGES: Final = 8
IMAGE_WORDS: Final = MODEL_IMAGE.itemsize // 8
assert MODEL_IMAGE.itemsize % 8 == 0
LAYOUT: Final = MODEL_IMAGE.itemsize * 1000 + len(MODEL_IMAGE_FIELDS)


def words_for(symbols: int) -> int:
    """Words of a channel for so many symbols."""
    return IMAGES + 2 * symbols * IMAGE_WORDS


def create(instance: str, symbols: int) -> Segment:
    """Make the segment (the pipeline's creator does). Raises shm.errors.SegmentError."""
    found = Segment.create(
        segment_name(instance, CHANNEL), words_for(symbols) * 8, layout_hash=LAYOUT, kind=int(SegmentKind.STATE), segment_id=0,
        prefault=False,
    )  # fmt: skip
    found.words[SYMBOLS] = symbols
    return found


def attach(instance: str, *, readonly: bool = False) -> Segment:
    """Open the segment. Raises shm.errors.SegmentError; SegmentMissing where the pipeline runs without models."""
    return Segment.attach(segment_name(instance, CHANNEL), layout_hash=LAYOUT, kind=int(SegmentKind.STATE), readonly=readonly)


def place(words: Words, number: int) -> int:
    """Where the set of this number begins."""
    return IMAGES + (number & 1) * int(words[SYMBOLS]) * IMAGE_WORDS


def in_force(words: Words) -> tuple[int, int, Words]:
    """(number, market records before it came into force, images) of the set that counts."""
    number = int(words[IN_FORCE])
    start = place(words, number)
    return number, int(words[SINCE + (number & 1)]), words[start : start + int(words[SYMBOLS]) * IMAGE_WORDS].copy()


def publish(words: Words, images: Words) -> int:
    """Ask the features stage to take these images, one a symbol; returns their number.

    One publisher at a time: the caller holds registry.publishing. Raises ChannelBusy if another change is under way.
    """
    assert len(images) % IMAGE_WORDS == 0 and len(images) <= int(words[SYMBOLS]) * IMAGE_WORDS
    wanted = int(words[WANTED])
    if wanted != int(words[IN_FORCE]):
        raise ChannelBusy(f"model change {wanted} is not in force yet: is the pipeline running? Try again when it is")
    number = wanted + 1
    start = place(words, number)
    words[start : start + len(images)] = images
    # one aligned 8-byte store after the images: x86 keeps the order, and the stage reads it with acquire
    words[WANTED] = number
    return number
