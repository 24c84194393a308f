"""Gives a promoted model to a running pipeline, for its symbol alone; what the other symbols have stays in force."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from procs.learning import install, registry
from procs.learning.extras import LearningError
from procs.learning.model_file import FITTED, Model
from procs.memory import model_channel as channel
from procs.memory.board import Words
from procs.profiles.schema import Profile
from shm.errors import SegmentMissing
from trading.features.layout import FEATURE_STATE
from trading.features.model_layout import MODEL_IMAGE

LOOK_S = 0.001


def names_of(profile: Profile, spool: str | None) -> tuple[str, ...]:
    """The pipeline's symbols in their order."""
    from procs.fold.plan import load_recording, plan_of

    return plan_of(profile, load_recording(Path(spool) if spool else None)).names


def refuse(profile: Profile, model: Model) -> None:
    """LearningError where this pipeline takes no such model while it runs."""
    if profile.world == "replay":
        raise LearningError(
            f"{profile.instance} replays in virtual time: when a model comes would be chance; name it in the profile"
        )
    if model.kind == "online":
        raise LearningError("an online model lives in the pipeline's own state: name it in ml.model and start anew")
    if model.kind not in FITTED:
        if not profile.ml.enabled:
            raise LearningError(f"{profile.instance} runs without models: start it with ml.enabled: true")
        install.check(model, profile.ml)


def images_with(words: Words, profile: Profile, names: tuple[str, ...], model: Model) -> Words:
    """The images in force with this model in its place, as words. Raises LearningError."""
    images, state = np.zeros(len(names), MODEL_IMAGE), np.zeros(len(names), FEATURE_STATE)
    number = int(words[channel.IN_FORCE])
    if number:
        at = channel.place(words, number)
        images.view(np.int64)[:] = words[at : at + len(names) * channel.IMAGE_WORDS]
    else:
        install.start(profile, names)(state, images)
    mine = [k for k, name in enumerate(names) if name in model.span.symbols]
    if not mine:
        raise LearningError(
            f"{install.place(model)} was trained on {' '.join(model.span.symbols)}, {profile.instance} has {' '.join(names)}"
        )
    if model.garch is not None and model.garch.bar_ms != profile.features.bar_ms:
        raise LearningError(
            f"{install.place(model)} was fitted to bars of {model.garch.bar_ms} ms, features.bar_ms is {profile.features.bar_ms}"
        )
    for k in mine:
        install.put(model, state[k : k + 1], images[k : k + 1])
    install.check_fitted(images, names)
    return images.view(np.int64)


def publish(profile: Profile, names: tuple[str, ...], model: Model, timeout_s: float) -> tuple[int, float]:
    """Publish and wait until it is in force; (the change's number, seconds that it took). Raises LearningError, SegmentError."""
    refuse(profile, model)
    began = time.monotonic()
    with registry.publishing():
        try:
            segment = channel.attach(profile.instance)
        except SegmentMissing:
            raise LearningError(
                f"{profile.instance} has no room for models: start it with ml.enabled: true, or with features.garch or "
                "features.microprice"
            ) from None
        try:
            try:
                number = channel.publish(segment.words, images_with(segment.words, profile, names, model))
            except channel.ChannelBusy as error:
                raise LearningError(str(error)) from None
            while int(segment.words[channel.IN_FORCE]) != number:
                if time.monotonic() - began > timeout_s:
                    raise LearningError(
                        f"{install.place(model)} was published, but {profile.instance} has not taken it in {timeout_s:g} s: "
                        "see `scalperctl status`"
                    )
                time.sleep(LOOK_S)
        finally:
            segment.close()
    return number, time.monotonic() - began
