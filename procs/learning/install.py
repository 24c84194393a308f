"""Puts models of the registry into a pipeline, a batch or a data set: each into its own symbol, and nowhere else.

`ml.model` names what votes, `features.garch` and `features.microprice` what the features are computed with; each one name,
or several with commas, one a symbol. A symbol that none was made for keeps the settings' figures and has no batch model.

What this module is not: it publishes nothing into a running pipeline; procs.learning.publishing does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from procs.learning import registry
from procs.learning.extras import LearningError
from procs.learning.model_file import FITTED, Fitted, Model
from trading.features import vector as feature_vector
from trading.features.microprice import set_microprice
from trading.features.model_layout import LINEAR, MICRO_IMBALANCES, MICRO_SPREADS, MODEL_ROW
from trading.jit import Floats, Recs
from trading.models import trees as tree_ensemble
from trading.settings import Ml, Strategy

ARRAYS = {"linear": ("mean", "scale", "w"), "online": ("seen", "mean", "var", "w", "z", "g")}


def place(model: Model) -> str:
    """How errors name it."""
    return f"model {model.name}@{model.version}"


def identity(name: str) -> int:
    """NAME@VERSION as a number for an image; 0 for none."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "little") | 1 if name else 0


def check(model: Model, ml: Ml) -> None:
    """LearningError where a model that votes reads another feature vector, or answers another question than the profile's."""
    if model.feature_version != feature_vector.VERSION or tuple(model.features) != feature_vector.NAMES:
        raise LearningError(
            f"{place(model)} reads feature vector {model.feature_version}, this version has "
            f"{feature_vector.VERSION}: train it anew"
        )
    if model.horizon_ms != ml.horizon_ms:
        raise LearningError(
            f"{place(model)} looks {model.horizon_ms} ms ahead, ml.horizon_ms is {ml.horizon_ms}: make the two equal"
        )
    if model.cost_bps != ml.cost_bps:
        raise LearningError(
            f"{place(model)} asks for moves beyond {model.cost_bps:g} bps, ml.cost_bps is {ml.cost_bps:g}: make the two equal"
        )


def clear(image: Recs) -> None:
    """Take the batch model out of MODEL_IMAGE (1,), and leave what was fitted."""
    names = image.dtype.names
    assert names is not None
    for key in (*names[names.index("batch_kind") :], "model_id", "wants_garch", "wants_micro"):
        image[key] = 0


def put(model: Model, state: Recs, image: Recs) -> None:
    """Put a model into one symbol's FEATURE_STATE (1,) and MODEL_IMAGE (1,). LearningError where its figures are damaged."""
    arrays = {key: np.array(model.arrays.get(key, []), np.float64) for key in ARRAYS.get(model.kind, ())}
    if any(len(values) != MODEL_ROW or not np.isfinite(values).all() for values in arrays.values()):
        raise LearningError(f"{place(model)} has arrays that are not {MODEL_ROW} numbers long: train it anew")
    mine = identity(f"{model.name}@{model.version}")
    if model.kind == "garch":
        _put_garch(model, state, image)
        image["garch_id"] = mine
    elif model.kind == "microprice":
        _put_microprice(model, state, image)
        image["micro_id"] = mine
    elif model.kind == "online":
        for key, values in arrays.items():
            state[f"model_{key}"][0] = values
    else:
        clear(image)
        if model.kind == "linear":
            for key, values in arrays.items():
                image[f"batch_{key}"][0] = values
            image["batch_kind"] = LINEAR
        else:
            _put_trees(model, image)
        image["batch_version"], image["model_id"] = model.version, mine
        image["wants_garch"], image["wants_micro"] = identity(model.reads.garch), identity(model.reads.microprice)


def _put_garch(model: Model, state: Recs, image: Recs) -> None:
    fit = model.garch
    if fit is None or not (fit.omega > 0.0 and fit.alpha >= 0.0 and fit.beta >= 0.0 and fit.alpha + fit.beta < 1.0):
        raise LearningError(f"{place(model)} holds no GARCH whose variance has a mean: train it anew")
    for to in (state, image):
        to["garch_omega"], to["garch_alpha"], to["garch_beta"] = fit.omega, fit.alpha, fit.beta
    state["garch"] = fit.omega / (1.0 - fit.alpha - fit.beta)


def _table(model: Model) -> Floats:
    table = np.array(model.microprice, np.float64)
    if table.shape != (MICRO_SPREADS, MICRO_IMBALANCES) or not np.isfinite(table).all():
        raise LearningError(f"{place(model)} holds no table of {MICRO_SPREADS} x {MICRO_IMBALANCES}: train it anew")
    return table


def _put_microprice(model: Model, state: Recs, image: Recs) -> None:
    table = _table(model)
    set_microprice(state, 0, table)
    image["micro_fitted"], image["micro_table"][0] = 1, table.reshape(-1)


def _put_trees(model: Model, image: Recs) -> None:
    trees = [
        tree_ensemble.Tree(
            tuple(tree_ensemble.Node(*node) for node in zip(t.feature, t.threshold, t.left, t.right)), tuple(t.leaf)
        )
        for t in model.trees
    ]
    try:
        tree_ensemble.install(image, trees)
    except tree_ensemble.TreeError as error:
        raise LearningError(f"{place(model)}: {error}") from None


def named(text: str, key: str, names: Sequence[str]) -> dict[int, Model]:
    """The models that a profile's key names, by symbol index. Raises LearningError for one that is of none of the symbols."""
    found: dict[int, Model] = {}
    for name in registry.several(text):
        model = registry.load(name)
        kinds = FITTED if key != "ml.model" else ()
        if (model.kind in FITTED) != bool(kinds) or (kinds and key != f"features.{model.kind}"):
            where = f"features.{model.kind}" if model.kind in FITTED else "ml.model"
            raise LearningError(f"{place(model)} is of kind {model.kind}: name it in {where}, not in {key}")
        mine = [k for k, symbol in enumerate(names) if symbol in model.span.symbols]
        if not mine:
            raise LearningError(
                f"{place(model)} was trained on {' '.join(model.span.symbols)}, this is {' '.join(names)}: take it out of {key}, "
                "or train one for these"
            )
        for k in mine:
            if k in found:
                raise LearningError(f"{key} names two models of {names[k]}, {place(found[k])} and {place(model)}: name one")
            found[k] = model
    return found


def _bars_fit(model: Model, strategy: Strategy) -> None:
    if model.garch is not None and model.garch.bar_ms != strategy.features.bar_ms:
        raise LearningError(
            f"{place(model)} was fitted to bars of {model.garch.bar_ms} ms, features.bar_ms is {strategy.features.bar_ms}: "
            "make the two equal"
        )


def fitted(strategy: Strategy, names: Sequence[str]) -> tuple[dict[int, Model], dict[int, Model]]:
    """(GARCH, microprice) by symbol index, as the profile names them. Raises LearningError."""
    garch = named(strategy.features.garch, "features.garch", names)
    for model in garch.values():
        _bars_fit(model, strategy)
    return garch, named(strategy.features.microprice, "features.microprice", names)


def reads(strategy: Strategy, name: str) -> Fitted:
    """What the features of a symbol are computed with by this profile; tables of other symbols are passed over."""
    garch, micro = calibrated(strategy, name)
    return Fitted(*(f"{m.name}@{m.version}" if m else "" for m in (garch, micro)))


def calibrated(strategy: Strategy, name: str) -> tuple[Model | None, Model | None]:
    """The (GARCH, microprice) of one symbol, None where the profile names none of it."""
    found: list[Model | None] = []
    for text in (strategy.features.garch, strategy.features.microprice):
        models = [registry.load(one) for one in registry.several(text)]
        found.append(next((m for m in models if name in m.span.symbols), None))
    for model in found:
        if model is not None:
            _bars_fit(model, strategy)
    return found[0], found[1]


def check_fitted(images: Recs, names: Sequence[str]) -> None:
    """LearningError where a batch model would read features computed otherwise than those it was trained on."""
    for image, name in zip(images, names):
        if image["batch_kind"] and (image["wants_garch"] != image["garch_id"] or image["wants_micro"] != image["micro_id"]):
            raise LearningError(
                f"{name}: its model was trained with another features.garch or features.microprice than is in force: "
                "use those that `scalperctl model report` names, or train it anew"
            )


def microprices(strategy: Strategy, names: Sequence[str], into: Recs) -> None:
    """Put the microprice that the profile names into each symbol's record of `into`. Raises LearningError."""
    for k, model in named(strategy.features.microprice, "features.microprice", names).items():
        set_microprice(into, k, _table(model))


def start(strategy: Strategy, names: Sequence[str]) -> Callable[[Recs, Recs], None]:
    """What a start puts into FEATURE_STATE (n,) and MODEL_IMAGE (n,) of these symbols. Raises LearningError."""
    chosen = [*fitted(strategy, names)]
    voting = named(strategy.ml.model, "ml.model", names) if strategy.ml.enabled else {}
    for model in voting.values():
        check(model, strategy.ml)

    def into(state: Recs, images: Recs) -> None:
        for models in (*chosen, voting):
            for k, model in models.items():
                put(model, state[k : k + 1], images[k : k + 1])
        check_fitted(images, names)

    return into


def features_alone(strategy: Strategy, name: str) -> Callable[[Recs, Recs], None]:
    """What the features of one symbol are computed with, without any model that votes."""
    models = [m for m in calibrated(strategy, name) if m is not None]

    def into(state: Recs, images: Recs) -> None:
        for model in models:
            put(model, state, images)

    return into
