"""A model as a file: JSON with a schema, never code. What it is, what it was trained on, how it did out of sample.

Each is one symbol's (`span.symbols`). The kinds `garch` and `microprice` do not vote: they change how features are computed.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from procs.learning.extras import LearningError
from procs.learning.figures import Verdict

Kind = Literal["trees", "linear", "online", "garch", "microprice"]
VOTING: Final = ("trees", "linear", "online")
"""Kinds that vote."""
FITTED: Final = ("garch", "microprice")
"""Kinds that the features are computed with."""


class TreeData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tree as four lists of its nodes, and its leaves (see trading.models.trees)."""

    feature: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    leaf: list[float]


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model was trained on: Unix ns, labelled rows, symbols, names of the files."""

    from_ns: int
    to_ns: int
    rows: int
    symbols: list[str]
    sources: list[str]


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a feature was spread in training (evaluation.spread_of)."""

    edges: list[float]
    shares: list[float]


class Garch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """GARCH(1,1) of the returns of one bar size, as `features.garch_*` takes it."""

    bar_ms: int
    omega: float
    alpha: float
    beta: float
    bars: int


class Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names of what the features of a symbol are computed with, NAME@VERSION each; empty: the settings' figures."""

    garch: str = ""
    microprice: str = ""


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a model. `arrays`: linear mean/scale/w; online seen/mean/var/w/z/g; each MODEL_ROW long."""

    format: Literal[2] = 2
    name: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,32}\Z")]
    version: Annotated[int, Meta(ge=0, le=999_999)] = 0  # 0: not in the registry yet
    kind: Kind
    feature_version: int
    features: list[str]
    horizon_ms: Annotated[int, Meta(ge=10, le=3_600_000)]
    cost_bps: Annotated[float, Meta(ge=0.0)]
    created: str = ""  # UTC, ISO 8601
    libraries: dict[str, str] = {}
    span: Span
    verdict: Verdict
    importance: dict[str, float]
    spread: dict[str, Spread] = {}
    reads: Fitted = Fitted()  # what its features were computed with
    garch: Garch | None = None
    microprice: list[list[float]] = []  # ticks, by spread and imbalance (trading.features.microprice)
    arrays: dict[str, list[float]] = {}
    trees: list[TreeData] = []
    digest: str = ""  # of all the rest


def _digest(model: Model) -> str:
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(model, digest=""))).hexdigest()


def encode(model: Model) -> bytes:
    """The file's text, with its digest."""
    whole = msgspec.structs.replace(model, digest="")
    return msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(whole, digest=_digest(whole))), indent=1) + b"\n"


def decode(raw: bytes, place: str) -> Model:
    """The model of a file's text; `place` is named in errors. Raises LearningError for anything that is not whole."""
    try:
        model = msgspec.json.decode(raw, type=Model)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LearningError(f"{place}: is no model file ({error}); train it anew") from None
    if model.digest != _digest(model):
        raise LearningError(f"{place}: was changed after it was written; train it anew")
    return model
