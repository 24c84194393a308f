"""One round of the learner: train on what this run has recorded, judge, keep, promote, publish; a symbol at a time.

Every step is whole or not there, so that a kill at any point leaves nothing half done: a version is linked into place, a
promotion replaces its file, a publication is one store. What a killed learner had promoted but not published, the next one
publishes (`resume`).

The process is procs.learning.stage, the rule procs.learning.promotion.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from procs.journal.file import JournalReader
from procs.journal.format import JournalError, journal_path
from procs.learning import publishing, registry, training
from procs.learning.datasets import History, data_set, split
from procs.learning.extras import LearningError
from procs.learning.model_file import FITTED, Model
from procs.learning.registry import Attempt
from procs.profiles.schema import Profile
from shm.errors import SegmentError
from trading.records import MARKET_RECORD, Kind

TAKEN_S: Final = 5.0
"""The features stage takes a model between two batches; longer than this it is not there."""

Publish = Callable[[Model], int]
"""Bring a promoted model into force; its change's number. Raises LearningError or SegmentError."""


def model_name(profile: Profile, symbol: str) -> str:
    """What a symbol's models are called."""
    return f"{profile.ml.learner.name}-{symbol.lower()}"


def recorded(profile: Profile, journal_dir: str, names: Sequence[str]) -> list[History]:
    """What this run has recorded, as far back as the learner looks, by symbol; empty while there is nothing."""
    path, told = journal_path(journal_dir, "market"), profile.ml.learner
    if not path.exists():
        return []
    recs = JournalReader(path, MARKET_RECORD).records()[-told.max_records :]
    if not len(recs):
        return []
    since = int(recs["ts_ns"][-1]) - int(told.window_minutes * 60e9)
    return split(recs[(recs["ts_ns"] >= since) & (recs["kind"] != Kind.END)], names, Path(journal_dir).name)


def publisher(profile: Profile, names: tuple[str, ...]) -> Publish:
    """Into the running pipeline."""
    return lambda model: publishing.publish(profile, names, model, TAKEN_S)[0]


def _published(attempt: Attempt, publish: Publish) -> Attempt:
    try:
        return msgspec.structs.replace(attempt, published=publish(registry.load(attempt.model)))
    except (LearningError, SegmentError) as error:
        return msgspec.structs.replace(attempt, why=f"promoted, but not published: {error}")


def one(profile: Profile, past: History, run: str, publish: Publish | None) -> Attempt:
    """Train one symbol; what came of it, also kept in the registry. Raises OSError where that cannot be written."""
    told, began, name = profile.ml.learner, time.monotonic(), model_name(profile, past.symbol)
    found = Attempt(time=registry.now_text(), instance=profile.instance, run=run, symbol=past.symbol, records=len(past.recs))

    def noted(**changes: object) -> Attempt:
        nonlocal found
        found = msgspec.structs.replace(found, seconds=round(time.monotonic() - began, 3), **changes)
        registry.note_attempt(name, found)
        return found

    try:
        sets = None
        if told.kind not in FITTED:
            sets = [data_set(past, profile)]
            found = msgspec.structs.replace(found, rows=int(sets[0].told.sum()))
            if found.rows < told.min_rows:
                return noted(why=f"{found.rows} rows move beyond ml.cost_bps, ml.learner.min_rows is {told.min_rows}")
        model = registry.save(training.train(name, told.kind, [past], profile, sets=sets))
    except LearningError as error:
        return noted(why=str(error))
    found = msgspec.structs.replace(found, model=f"{model.name}@{model.version}", verdict=model.verdict)
    if model.verdict.refused:
        return noted(why=model.verdict.refused)
    registry.promote(found.model)
    noted(promoted=True)  # from here on a learner that comes after this one knows what is left to do
    if publish is not None:
        found = _published(found, publish)
    return noted()


def round_of(
    profile: Profile, journal_dir: str, names: tuple[str, ...], publish: Publish | None, tell: Callable[[str], None]
) -> list[Attempt]:
    """Every symbol once. Raises OSError where the registry cannot be written."""
    try:
        pasts = recorded(profile, journal_dir, names)
    except JournalError as error:
        tell(f"the journal cannot be read: {error}")
        return []
    found = []
    for past in pasts:
        found.append(one(profile, past, journal_dir, publish))
        tell(found[-1].sentence)
    return found


def resume(profile: Profile, journal_dir: str, names: tuple[str, ...], publish: Publish, tell: Callable[[str], None]) -> None:
    """Publish what a learner of this run promoted and was killed before it had published it."""
    for symbol in names:
        name = model_name(profile, symbol)
        attempt = registry.attempt(name)
        if attempt is None or attempt.run != journal_dir or not attempt.promoted or attempt.published or attempt.why:
            continue
        done = _published(attempt, publish)
        registry.note_attempt(name, done)
        tell(done.sentence)


def wait_s(profile: Profile, journal_dir: str, names: Sequence[str], now_s: float) -> float:
    """Seconds until the next round: a period after the last one of this run, or after now where there was none."""
    period = 60.0 * profile.ml.learner.every_minutes
    attempts = [registry.attempt(model_name(profile, symbol)) for symbol in names]
    last = [registry.seconds_of(a.time) for a in attempts if a is not None and a.run == journal_dir]
    return float(np.clip(max(last) + period - now_s, 0.0, period)) if last else period
