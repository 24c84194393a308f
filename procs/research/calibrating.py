"""Recordings through the feed's fold into a calibration of each symbol, and the part of a profile that says it.

What this module is not: the figures are trading.quoting.calibration's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from procs.recordings.folding import Folded
from sim.recordings.venue_staging import stage_any
from trading.instruments import Instrument
from trading.quoting import calibration
from trading.quoting.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol's. `delay_ms`: median and 99th percentile from the venue's stamp to ours, None where it gives none."""

    instrument: Instrument
    found: Calibration | None
    delay_ms: tuple[float, float] | None

    @property
    def figures(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self.found) if self.found else None
        return {"symbol": self.instrument.name, "is_fit": bool(self.found and self.found.is_fit), "found": found,
                "delay_ms": self.delay_ms}  # fmt: skip


def calibrate(
    files: Sequence[str | Path], bar_ms: int, beyond_bps: float = 0.0, progress: Callable[[int, int], None] | None = None
) -> list[Symbol]:
    """Every symbol of the recordings, by the sweeps that reach `beyond_bps` from the mid. Raises RecordingError."""
    bar_ns = bar_ms * 1_000_000
    with tempfile.TemporaryDirectory(prefix="scalper-calibrate-") as folder:
        spool = Path(folder) / "spool"
        folded = Folded(spool, stage_any([Path(file) for file in files], spool, progress=progress))
        state = calibration.begin(len(folded.instruments))
        delays: list[list[np.ndarray]] = [[] for _ in folded.instruments]
        for chunk in folded.chunks():
            calibration.gather(chunk.market, state, bar_ns, beyond_bps)
            stamped = chunk.market[chunk.market["ts_exchange_ns"] > 0]
            for n, kept in enumerate(delays):
                mine = stamped[stamped["symbol"] == n]
                kept.append((mine["ts_recv_ns"] - mine["ts_exchange_ns"])[::7].copy())  # a seventh tells the quantiles as well
        found = calibration.finish(state, bar_ns)
    return [Symbol(it, one, _quantiles(kept)) for it, one, kept in zip(folded.instruments, found, delays)]


def _quantiles(pieces: list[np.ndarray]) -> tuple[float, float] | None:
    delays = np.concatenate(pieces) if pieces else np.zeros(0)
    if not len(delays):
        return None
    p50, p99 = np.percentile(delays, (50, 99)) / 1e6
    return round(float(p50), 3), round(float(p99), 3)


def fragment(symbols: Sequence[Symbol], rule: str) -> str:
    """The lines of a profile; "" where no symbol is fit. `rule` "": the rule is left as it is."""
    fits = [one for one in symbols if one.found is not None and one.found.is_fit]
    if not fits:
        return ""
    lines = ["quoting:", *([f"  rule: {rule}"] if rule else []), "  intensity:", "    source: constant", "    fits:"]
    for one in fits:
        assert one.found is not None
        bid, ask = one.found.bid, one.found.ask
        lines += [
            f"      - symbol: {one.instrument.name}",
            *(f"        {key}: {value:.6g}" for key, value in (
                ("bid_a", bid.a), ("bid_k", bid.k), ("ask_a", ask.a), ("ask_k", ask.k),
                ("volatility_bps", one.found.volatility_bps),
            )),
        ]  # fmt: skip
    return "\n".join(lines) + "\n"
