"""The figures that a model file carries, as they stand in JSON. Needs neither numpy nor numba."""

from __future__ import annotations

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """An estimate with its interval; None where there is none to be had."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above the bound."""
        return self.low is not None and self.low > bound


class Bin(msgspec.Struct, frozen=True):
    """One bin of a reliability curve: rows, mean prediction, share of ups."""

    rows: int
    said: float
    came: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Out-of-sample figures, and whether the model may be promoted (`refused` empty) or why not."""

    rows: int
    blocks: int
    level: float
    auc: Figure
    brier_gain: Figure
    brier: float | None = None
    baseline_brier: float | None = None
    log_loss: float | None = None
    baseline_log_loss: float | None = None
    ups: float | None = None
    reliability: list[Bin] = []
    measure: str = ""  # of a fitted table: what its loss is; models that vote have AUC and Brier instead
    loss: float | None = None
    baseline_loss: float | None = None
    gain: Figure = Figure(None)  # baseline_loss - loss
    refused: str = ""

    @property
    def passed(self) -> bool:
        """Whether it beat the baseline."""
        return not self.refused
