"""The segment through which a batch model gets into a running pipeline: two images, and one store that changes which counts.

    /scalper.<instance>.model        only where ml.enabled
       0  number of the image that is wanted (0: the model of the start)      the publisher's
       1  number of the image that is in force                              the features stage's
       8  image of even numbers, then image of odd numbers (trading.model_layout.MODEL_IMAGE)

A stage is an exact fold, so *when* a model comes into force must not be chance. The features stage looks at word 0 between two
batches; where a new number stands there it writes that number into its state and makes a checkpoint, before it computes
anything with the new model; then it confirms in word 1. So whatever is computed again after a crash is computed with the model
of the first time: from a checkpoint before the change with the old one, from the one at the change with the new. While a
stage computes again what had been published it takes no new model. A publisher that finds the last one not confirmed is
refused: until then the image that it would write over may be needed.

What this module is not: it trains and promotes nothing.
"""

from __future__ import annotations

from typing import Final

from procs.board import Words
from procs.learning.extras import LearningError
from shm.layout import SegmentKind
from shm.segment import Segment
from trading.model_layout import MODEL_IMAGE, MODEL_IMAGE_FIELDS

CHANNEL: Final = "model"
WANTED: Final = 0
IN_FORCE: Final = 1
IMAGES: Final = 8
IMAGE_WORDS: Final = MODEL_IMAGE.itemsize // 8
CHANNEL_WORDS: Final = IMAGES + 2 * IMAGE_WORDS
LAYOUT: Final = MODEL_IMAGE.itemsize * 1000 + len(MODEL_IMAGE_FIELDS)


def segment_name(instance: str) -> str:
    """The segment's name."""
    return f"/scalper.{instance}.{CHANNEL}"


def create(instance: str) -> Segment:
    """Make the segment (the pipeline's creator does). Raises shm.errors.SegmentError."""
    return Segment.create(
        segment_name(instance), CHANNEL_WORDS * 8, layout_hash=LAYOUT, kind=int(SegmentKind.STATE), segment_id=0, prefault=False
    )


def attach(instance: str, *, readonly: bool = False) -> Segment:
    """Open the segment. Raises shm.errors.SegmentError; SegmentMissing where the pipeline runs without models."""
    return Segment.attach(segment_name(instance), layout_hash=LAYOUT, kind=int(SegmentKind.STATE), readonly=readonly)


def publish(words: Words, image: Words) -> int:
    """Ask the features stage to take the image (IMAGE_WORDS,); returns its number. Raises LearningError if one is under way.

    One publisher at a time: the caller holds registry.publishing.
    """
    wanted = int(words[WANTED])
    if wanted != int(words[IN_FORCE]):
        raise LearningError(f"model change {wanted} is not in force yet: is the pipeline running? Try again when it is")
    number = wanted + 1
    start = IMAGES + (number & 1) * IMAGE_WORDS
    words[start : start + IMAGE_WORDS] = image
    # one aligned 8-byte store after the image: x86 keeps the order, and the stage reads it with acquire
    words[WANTED] = number
    return number
