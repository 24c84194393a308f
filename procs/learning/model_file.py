"""A model as a file: JSON with a schema, never code. What it is, what it was trained on, how it did out of sample.

`install` puts one into the features' params and state. A file from another layout of the feature vector is refused.

What this module is not: it neither trains nor promotes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from procs.learning.extras import LearningError
from procs.learning.figures import Verdict

if TYPE_CHECKING:
    from trading.jit import Recs

FORMAT: Final = 1
Kind = Literal["trees", "linear", "online"]
KINDS: Final = ("trees", "linear", "online")


class TreeData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tree as four lists of its nodes, and its leaves (see trading.tree_ensemble)."""

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


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a model. `arrays`: linear mean/scale/w; online seen/mean/var/w/z/g; each MODEL_ROW long."""

    format: Literal[1] = 1
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
    garch: Garch | None = None
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


def install(model: Model, params: Recs, state: Recs, horizon_ns: int) -> None:
    """Put the model into FEATURE_PARAMS (1,) (trees, linear) or as the online model's start into FEATURE_STATE (n,).

    Raises LearningError where it does not fit this version's feature vector or the profile's horizon.
    """
    import numpy as np

    from trading import feature_vector, tree_ensemble
    from trading.model_layout import LINEAR, MODEL_ROW

    place = f"model {model.name}@{model.version}"
    if model.feature_version != feature_vector.VERSION or tuple(model.features) != feature_vector.NAMES:
        raise LearningError(
            f"{place} reads feature vector {model.feature_version}, this version has {feature_vector.VERSION}: train it anew"
        )
    if model.horizon_ms * 1_000_000 != horizon_ns:
        raise LearningError(
            f"{place} looks {model.horizon_ms} ms ahead, ml.horizon_ms is {horizon_ns // 1_000_000}: make the two equal"
        )
    wanted = {"linear": ("mean", "scale", "w"), "online": ("seen", "mean", "var", "w", "z", "g"), "trees": ()}[model.kind]
    arrays = {key: np.array(model.arrays.get(key, []), np.float64) for key in wanted}
    if any(len(values) != MODEL_ROW or not np.isfinite(values).all() for values in arrays.values()):
        raise LearningError(f"{place} has arrays that are not {MODEL_ROW} numbers long: train it anew")
    params["batch_version"] = model.version
    if model.kind == "online":
        for key, values in arrays.items():
            state[f"model_{key}"][:] = values
    elif model.kind == "linear":
        for key, values in arrays.items():
            params[f"batch_{key}"][0] = values
        params["batch_kind"] = LINEAR
    else:
        trees = [
            tree_ensemble.Tree(
                tuple(tree_ensemble.Node(*node) for node in zip(t.feature, t.threshold, t.left, t.right)), tuple(t.leaf)
            )
            for t in model.trees
        ]
        try:
            tree_ensemble.install(params, trees)
        except tree_ensemble.TreeError as error:
            raise LearningError(f"{place}: {error}") from None
