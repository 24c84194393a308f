"""The words for what records hold as numbers: kinds, sides, states, reasons, signals, symbols, and prices as decimals.

Lines for people, JSON objects and columns (procs.recordings.reading, procs.recordings.columns) take their words from here, so
that they are the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any, Final

from procs import topology
from trading.books.state import Want
from trading.features.patterns import Pattern
from trading.features.regime import Regime
from trading.features.signals import N_SIGNALS, SIGNALS
from trading.instruments import Instrument, instrument_table
from trading.records import (
    INTAKE_CLOCK,
    INTAKE_CUT,
    MAX_SIGNALS,
    ExecType,
    Kind,
    OrderStatus,
    OrderType,
    Purpose,
    Refusal,
    Side,
    TimeInForce,
)
from trading.scoring.ensemble import Gate

KINDS: Final = {
    "market": ("depth", "trade", "bbo", "snapshot", "stale", "mark"),
    "depth": ("level", "snapshot", "stale", "edge"),
    "signals": ("signal",),
    "vectors": ("vector",),
    "quotes": ("quote",),
    "orders": ("new", "cancel"),
    "refusals": ("refused",),
    "wire": ("new", "cancel"),
    "executions": ("report",),
    "reports": ("report",),
    "control": ("halt", "resume"),
    "frames": ("frame", "raw", "line_up", "line_down", "lost"),
    "resync": ("want_snapshot", "want_stream", "odd_frame"),
    "intake": ("intake",),
}
"""What the records of each ring may be, by ring; `level` is one level of the depth ring."""
assert {ring.name.partition(".")[0] for ring in topology.RINGS} == set(KINDS), "every ring has its kinds"

_RINGS: Final = {ring.ring_id: ring.name for ring in topology.RINGS} | {-1: "raw frame"}
_ENUMS: Final[dict[str, type[IntEnum]]] = {
    "kind": Kind, "side": Side, "order_type": OrderType, "time_in_force": TimeInForce, "purpose": Purpose, "exec_type": ExecType,
    "order_status": OrderStatus, "refusal": Refusal, "gate": Gate, "regime": Regime,
}  # fmt: skip
_REASONS: Final[dict[str, type[IntEnum]]] = {"control": Refusal, "resync": Want}
FLOAT_PRICES: Final = {
    "mid": "mid", "microprice": "microprice", "atr_ticks": "atr", "fair_price": "fair_price", "half_spread": "half_spread",
    "skew": "skew", "decision_ticks": "decision_price",
}  # fmt: skip
"""Fields that count ticks as floats, and what they are called as prices."""
MASKS: Final = ("ready_mask", "active_mask", "patterns")
SWITCHES: Final = ("maker", "approved")


def decimal_text(units: int, decimals: int) -> str:
    """`units * 10**-decimals` as a plain decimal: (-1, 2) -> "-0.01"."""
    return f"{Decimal(units).scaleb(-decimals):f}"


def ring_kinds(ring: str) -> tuple[str, ...]:
    """What the records of a ring may be."""
    return KINDS.get(ring.partition(".")[0], ())


def time_text(ns: int) -> str:
    """ISO 8601 with nanoseconds, UTC."""
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"


def whole_name(field: str) -> str:
    """What a field that counts whole ticks or lots is called as a price or a quantity; "" for other fields."""
    stem, _, unit = field.rpartition("_")
    if field in FLOAT_PRICES or unit not in ("ticks", "lots"):
        return ""
    word = "price" if unit == "ticks" else "qty"
    return word if stem in ("price", "qty") else f"{stem}_{word}"


def _inputs_of(log: str) -> dict[int, str]:
    """What stands for an input in an intake log (procs.fold.merge)."""
    stage = next(stage for stage in topology.STAGES if log == f"intake.{stage.part}")
    return dict(enumerate(stage.inputs)) | {INTAKE_CLOCK: "clock", INTAKE_CUT: "cut"}


def _members(kind: type[IntEnum]) -> dict[int, str]:
    return {int(member): member.name.lower() for member in kind}


class Names:
    """The words for a journal's or a recording's numbers. signals: names of the user's own, which follow the built-in ones."""

    def __init__(self, known: Sequence[Instrument], signals: Sequence[str] = ()) -> None:
        self.known = tuple(known)
        self.table = instrument_table(known) if known else None
        own = (*signals, *(f"own_{k}" for k in range(len(signals), MAX_SIGNALS - N_SIGNALS)))
        self.signals = (*(spec.key for spec in SIGNALS), *own)

    def has(self, index: int) -> bool:
        """Whether it is known what a tick and a lot of this symbol are."""
        return 0 <= index < len(self.known)

    def symbol(self, index: int) -> str:
        """The symbol's name, its number where nobody knows it; - for none."""
        return self.known[index].name if self.has(index) else str(index) if index >= 0 else "-"

    def venue(self, index: int) -> str:
        """The label of the symbol's venue; - for none."""
        return self.known[index].market.label if self.has(index) else "-"

    def price(self, index: int, ticks: int) -> str:
        """A price, or a number of ticks."""
        if self.table is None or not self.has(index):
            return f"{ticks} ticks"
        row = self.table[index]
        return decimal_text(ticks * int(row["tick_units"]), int(row["price_decimals"]))

    def price_of(self, index: int, ticks: float) -> Any:
        """A price of a broken number of ticks, or that number."""
        if self.table is None or not self.has(index):
            return f"{ticks:.12g} ticks"
        row = self.table[index]
        return float(f"{ticks * int(row['tick_units']) / 10.0 ** int(row['price_decimals']):.12g}")

    def qty(self, index: int, lots: int) -> str:
        """A quantity, or a number of lots."""
        if self.table is None or not self.has(index):
            return f"{lots} lots"
        text = decimal_text(lots, int(self.table[index]["qty_decimals"]))
        return text.rstrip("0").rstrip(".") if "." in text else text

    def codes(self, ring: str, field: str) -> dict[int, str] | None:
        """The words of a field that holds one of several; None for a field that is a number."""
        if field == "cause_ring":
            return _RINGS
        if field == "ring" and ring.startswith("intake"):
            return _inputs_of(ring)
        if field == "reason":
            if ring == "signals":
                return {0: "none"} | {k + 1: name for k, name in enumerate(self.signals)}
            return _members(_REASONS[ring]) if ring in _REASONS else None
        return _members(_ENUMS[field]) if field in _ENUMS else None

    def bits(self, field: str, mask: int) -> list[str]:
        """The names of what a mask holds."""
        if field == "patterns":
            return [str(it.name).lower() for it in Pattern if it and mask & it]
        return [name for k, name in enumerate(self.signals) if mask >> k & 1]
