"""What a session's records do not say and its folds yet depend on, kept in files beside its journals so that it folds again.

    model_<number>_<since>.npy    the models that came into force when `since` market records had been taken: the images of a
                                  set of procs.memory.model_channel, int64
    signals_stopped.json          {"<which>": record}: a user's signal that was cut off, and from which record on

The recorder writes them (`Beside.look`), procs.research.refold reads them. All else that enters has its time in an intake log.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from procs.whole_files import read_small, write_whole
from trading.jit import Words
from trading.own_signals.guard import GUARD_PLACES, STOP_FROM

STOPPED_FILE: Final = "signals_stopped.json"
LARGEST: Final = 1 << 28
"""Bytes that a file may have: models of 64 symbols take less."""

_NAME: Final = re.compile(r"model_(\d{1,9})_(\d{1,18})\.npy")


class ModelSet(NamedTuple):
    """Models in force from market record `since` on (counted from 0). `images`: int64, one image after the other."""

    number: int
    since: int
    images: Words


class Beside:
    """Keeps the files of one session.

    `number()` tells which set is in force, 0: what the start gave; `in_force()` (number, since, images) of it.
    A disk that is full keeps a file out until there is room again: journals matter more.
    """

    def __init__(
        self, folder: Path, guard: Words, number: Callable[[], int], in_force: Callable[[], tuple[int, int, Words]]
    ) -> None:
        self._folder, self._guard, self._number, self._in_force = folder, guard, number, in_force
        self._model = max((number for number, _ in _names(folder)), default=0)
        self._stopped = stopped(folder)

    def look(self) -> None:
        """Write what is new."""
        now = {k: int(record) for k, record in enumerate(self._guard[STOP_FROM : STOP_FROM + GUARD_PLACES]) if record}
        if now != self._stopped and now:
            with contextlib.suppress(OSError):
                write_whole(self._folder / STOPPED_FILE, json.dumps(now).encode() + b"\n", mode=0o644)
                self._stopped = now
        if self._number() in (0, self._model):
            return
        number, since, images = self._in_force()
        raw = io.BytesIO()
        np.save(raw, images, allow_pickle=False)
        with contextlib.suppress(OSError):
            write_whole(self._folder / f"model_{number}_{since}.npy", raw.getvalue(), mode=0o644)
            self._model = number


def _names(folder: Path) -> list[tuple[int, int]]:
    found = (_NAME.fullmatch(name) for name in (os.listdir(folder) if folder.is_dir() else ()))
    return sorted((int(name[1]), int(name[2])) for name in found if name)


def models(folder: Path) -> list[ModelSet]:
    """The sets that came into force, in their order. Raises ValueError where a file is none of ours or one is missing."""
    names = _names(folder)
    if [number for number, _ in names] != list(range(1, len(names) + 1)):
        raise ValueError(f"{folder}: of the models that came into force only {[n for n, _ in names]} were kept")
    sets: list[ModelSet] = []
    for number, since in names:
        path = folder / f"model_{number}_{since}.npy"
        try:
            images: Any = np.load(io.BytesIO(read_small(path, LARGEST)), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        if images.dtype != np.int64 or images.ndim != 1:
            raise ValueError(f"{path} holds no images of models")
        sets.append(ModelSet(number, since, images))
    return sets


def stopped(folder: Path) -> dict[int, int]:
    """The user's signals that were cut off: {which: record}. Empty where none was, or the file cannot be read."""
    try:
        said = json.loads(read_small(folder / STOPPED_FILE, 1 << 16))
        found = {int(k): int(record) for k, record in said.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {k: record for k, record in found.items() if 0 <= k < GUARD_PLACES and record > 0}
