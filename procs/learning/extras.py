"""The libraries of the `ml` extra, imported where they are needed, with one clear sentence where they are absent."""

from __future__ import annotations

import importlib
from typing import Any


class LearningError(ValueError):
    """Learning cannot go on; the message is one sentence with the remedy."""


def wanted(module: str) -> Any:
    """The module. Raises LearningError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.partition(".")[0], module.partition(".")[0])
        raise LearningError(
            f"{package} is not here ({error}): install the ml extra, `pip install 'scalper[ml]'`, or train `--kind online`"
        ) from None
