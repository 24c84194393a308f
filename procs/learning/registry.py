"""The models on disk: versions that never change, and which of them may vote.

    <state>/models/NAME/3.json        version 3, read-only, written once
    <state>/models/NAME/promoted      {"promoted": [{"version", "time"}, ...]}, the latest last; replaced whole
    <state>/models/NAME/attempt       what the learner's last training of it came to; replaced whole

A profile's `ml.model: NAME` means the version promoted last, `NAME@3` that one; `pinned` makes the first the second when a
pipeline starts, so that a stage that comes again after a crash computes with the model that it had, whatever was
promoted meanwhile.

It needs neither numpy nor numba, for the supervisor and the command line load it.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from procs import rundir
from procs.learning.extras import LearningError
from procs.learning.figures import Verdict
from procs.learning.model_file import Model, decode, encode
from procs.whole_files import PARTIAL, read_small, write_whole

NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
PROMOTED: Final = "promoted"
ATTEMPT: Final = "attempt"
LEFT_BEHIND_S: Final = 3600.0
TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
MAX_BYTES: Final = 16 << 20


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a version may vote since then (UTC, ISO 8601)."""

    version: int
    time: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A learner's training (UTC, ISO 8601) for one symbol of a run: what was made of it, and why nothing more was."""

    time: str
    instance: str
    run: str  # the run's journals
    symbol: str
    records: int
    rows: int = 0  # of them, rows that move beyond costs
    seconds: float = 0.0
    model: str = ""  # NAME@VERSION; empty: none was made
    verdict: Verdict | None = None
    promoted: bool = False
    published: int = 0  # number of the change; 0: not published
    why: str = ""

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        figures = ""
        if self.verdict is not None:
            figure = self.verdict.gain if self.verdict.measure else self.verdict.auc
            name = f"gain in {self.verdict.measure}" if self.verdict.measure else "AUC"
            low = f" (99% from {figure.low:.3g} to {figure.high:.3g})" if figure.low is not None else ""
            figures = f", {self.verdict.rows} rows out of sample"
            figures += f", {name} {figure.value:.3g}{low}" if figure.value is not None else ""
        end = f"in force as change {self.published}" if self.published else "promoted" if self.promoted else "not promoted"
        said = f"{self.model or 'no model'} from {self.records} records in {self.seconds:.1f} s{figures}: {end}"
        return f"{self.symbol} {self.time}: {said}" + (f"; {self.why}" if self.why else "")


class _Promoted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    promoted: list[Promotion]


def now_text() -> str:
    """This moment, UTC."""
    return time.strftime(TIME, time.gmtime())


def seconds_of(text: str) -> float:
    """Unix time of what `now_text` gave; 0 for anything else."""
    try:
        return float(calendar.timegm(time.strptime(text, TIME)))
    except ValueError:
        return 0.0


def folder() -> Path:
    """Where all models are (not created)."""
    return rundir.state_base() / "models"


def _of(name: str) -> Path:
    if not NAME.fullmatch(name):
        raise LearningError(f"{name!r} is no model's name: 1 to 32 of a-z, 0-9, - and _")
    return folder() / name


def _write(target: Path, text: bytes, *, replace: bool) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(target, text, replace=replace, sync=True)


def names() -> list[str]:
    """Every model's name."""
    return sorted(p.name for p in folder().iterdir() if p.is_dir() and NAME.fullmatch(p.name)) if folder().is_dir() else []


def versions(name: str) -> list[int]:
    """The versions of a model, rising."""
    place = _of(name)
    found = [int(p.stem) for p in place.glob("*.json") if p.stem.isdigit()] if place.is_dir() else []
    return sorted(found)


def promotions(name: str) -> list[Promotion]:
    """Every promotion of a model, the latest last."""
    file = _of(name) / PROMOTED
    try:
        return msgspec.json.decode(read_small(file, MAX_BYTES), type=_Promoted).promoted
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise LearningError(f"{file}: cannot be read ({error}); remove it and promote again") from None


def note_attempt(name: str, attempt: Attempt) -> None:
    """Keep what the last training of a model came to."""
    _write(_of(name) / ATTEMPT, msgspec.json.encode(attempt), replace=True)


def attempt(name: str) -> Attempt | None:
    """What the learner's last training came to; None where there was none, or the file is of another version."""
    try:
        return msgspec.json.decode(read_small(_of(name) / ATTEMPT, MAX_BYTES), type=Attempt)
    except (OSError, msgspec.DecodeError):
        return None


def attempts(instance: str = "") -> list[Attempt]:
    """The last training of every model that a learner trains, of one instance or of all."""
    found = [attempt(name) for name in names()]
    return [one for one in found if one is not None and instance in ("", one.instance)]


def tidy() -> None:
    """Remove what writers left that were killed an hour ago or longer; a version or promotion is never half there."""
    for path in folder().glob(f"*/.*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_BEHIND_S:
                path.unlink()


def save(model: Model) -> Model:
    """Write the model as the next version of its name; returns it with its version."""
    while True:
        version = max(versions(model.name), default=0) + 1
        whole = msgspec.structs.replace(model, version=version, created=model.created or now_text())
        try:
            _write(_of(model.name) / f"{version}.json", encode(whole), replace=False)
        except FileExistsError:
            continue  # somebody else trained at the same moment
        return load(f"{model.name}@{version}", promoted=False)


def split(text: str) -> tuple[str, int]:
    """`NAME@3` into ("NAME", 3), `NAME` into ("NAME", 0)."""
    name, at, version = text.partition("@")
    if not NAME.fullmatch(name) or (at and not version.isdigit()):
        raise LearningError(f"{text!r} names no model: write NAME or NAME@VERSION, as `scalperctl model ls` lists them")
    return name, int(version or 0)


def pinned(text: str) -> str:
    """`NAME@VERSION` of a promoted model. Raises LearningError for one that is not there or may not vote."""
    name, version = split(text)
    voted = [p.version for p in promotions(name)]
    if not version:
        if not voted:
            known = ", ".join(n for n in names() if promotions(n)) or "none"
            raise LearningError(f"model {name!r} has no promoted version (promoted: {known}): `scalperctl model promote {name}`")
        version = voted[-1]
    if version not in voted:
        raise LearningError(f"model {name}@{version} is not promoted: `scalperctl model promote {name}@{version}`")
    return f"{name}@{version}"


def several(text: str) -> list[str]:
    """The names in a list with commas; none in an empty text."""
    return [part.strip() for part in text.split(",") if part.strip()]


def all_pinned(text: str) -> str:
    """A list with commas, each name with its version. Raises LearningError."""
    return ",".join(pinned(part) for part in several(text))


def load(text: str, *, promoted: bool = True) -> Model:
    """A model by name; with `promoted` one that may vote, without it the latest version. Raises LearningError."""
    name, version = split(pinned(text) if promoted else text)
    version = version or max(versions(name), default=0)
    file = _of(name) / f"{version}.json"
    try:
        if file.stat().st_size > MAX_BYTES:
            raise LearningError(f"{file}: is larger than {MAX_BYTES} bytes, no model is; remove it")
        model = decode(file.read_bytes(), str(file))
    except FileNotFoundError:
        known = ", ".join(names()) or "none"
        raise LearningError(f"there is no model {text!r} (known: {known}): `scalperctl model train` makes one") from None
    if (model.name, model.version) != (name, version):
        raise LearningError(f"{file}: says that it is {model.name}@{model.version}; put it where it belongs")
    return model


@contextlib.contextmanager
def publishing() -> Iterator[None]:
    """One publisher at a time, of all that see this registry. Raises LearningError where another is at it."""
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder() / ".publishing", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LearningError("another model is being published: try again when it is done") from None
    finally:
        os.close(fd)


def promote(text: str) -> Model:
    """Let a version vote. Raises LearningError where it did not beat the baseline out of sample."""
    model = load(text, promoted=False)
    if model.verdict.refused:
        raise LearningError(f"{model.name}@{model.version} is not promoted: {model.verdict.refused}")
    known = [*promotions(model.name), Promotion(model.version, now_text())]
    _write(_of(model.name) / PROMOTED, msgspec.json.encode(_Promoted(known)), replace=True)
    return model
