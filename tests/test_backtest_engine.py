"""The engine of backtests against the same stages over rings: every order, refusal, report, signal and quote equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from procs.cli.main import exit_code_of
from procs.cli.outcome import FAILED
from procs.fold.plan import Plan, plan_of
from procs.profiles.config import load_profile
from procs.research import backtest, engine
from sim.recordings.venue_staging import stage_any
from trading.jit import Recs
from trading.records import Kind

RINGS = ("orders", "wire", "reports", "refusals", "signals", "quotes", "market")
NOT_COMPARED = {"ts_origin_mono_ns", "ts_publish_mono_ns"}
"""This machine's stamps. Of a market record its cause too: the frame, which nobody needs here."""
BTC, ETH = {"name": "BTCUSDT"}, {"name": "ETHUSDT"}


def generated(seconds: float, **more: Any) -> Plan:
    """A plan of the embedded market."""
    return plan_of(load_profile("paper", {"source.speed": "max", "generator.duration_s": seconds, **more}))


def same(plan: Plan) -> dict[str, int]:
    """Compare both; how many records there were of each ring."""
    mine = engine.run(plan, keep=RINGS).kept
    theirs = backtest.run(plan, keep=RINGS).kept
    for ring in RINGS:
        here, there = mine[ring], theirs[ring][theirs[ring]["kind"] != Kind.END]
        assert len(here) == len(there), ring
        for name in here.dtype.names or ():
            if name not in NOT_COMPARED and (ring, name) not in {("market", "cause_ring"), ("market", "cause_seq")}:
                assert np.array_equal(here[name], there[name], equal_nan=here[name].dtype.kind == "f"), (ring, name)
    return {ring: len(mine[ring]) for ring in RINGS}


DELAYS = ("entry_min", "entry_max", "response_min", "response_max")
WORLDS: dict[str, dict[str, Any]] = {
    "market making and scalping, two symbols": {"symbols": [BTC, ETH]},
    "an exchange almost without delay": {f"exchange.latency.{name}_ms": 1e-6 for name in DELAYS},
    "a loss limit that trips": {
        "risk.max_daily_loss_pct": 0.001, "risk.max_drawdown_pct": 0.001, "thresholds.long": 55.0, "thresholds.short": 45.0,
    },
    "glft around the weighted mid": {
        "quoting.rule": "glft", "quoting.around": "weighted_mid", "quoting.intensity.source": "measured",
        "quoting.intensity.least_sweeps": 20.0, "quoting.min_spread_bps": 0.5, "execution.max_hold_minutes": 0.1,
    },
}  # fmt: skip


@pytest.mark.parametrize("world", WORLDS)
def test_the_engine_decides_as_the_stages_do(world: str) -> None:
    """A generated market: equal in every field but stamps, to the last report after the session's end."""
    counts = same(generated(20.0, **WORLDS[world]))
    assert counts["orders"] > 5 and counts["reports"] > 5 and counts["signals"] == counts["market"] > 2_000
    assert "limit" in world or counts["reports"] > 50


RECORDED = (("usdm_btcusdt_20240808",), ("spot_btcusdt_20240808", "spot_btcusdt_20240809"), ("usdm_ethusdt_20240808",))


@pytest.mark.slow
@pytest.mark.parametrize("names", RECORDED)
def test_the_engine_decides_as_the_stages_do_on_recordings(recordings: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    """The same on recorded markets."""
    files = [recordings / "hftbacktest_binance" / f"{name}.gz" for name in names]
    if not all(file.exists() for file in files):
        pytest.skip(f"no recording {names}")
    staged = stage_any(files, tmp_path / "spool")
    source = {"source.kind": "recording", "source.files": [str(file) for file in files], "source.speed": "max"}
    assert same(plan_of(load_profile("replay", source), staged))["orders"] > 500


def test_out_that_is_full_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are handed out in many small parts are the same rows."""
    plan = generated(20.0)
    whole = engine.run(plan, keep=RINGS)
    monkeypatch.setattr(engine, "ROWS", 40)
    parts = engine.run(plan, keep=RINGS)
    assert all(np.array_equal(whole.kept[ring], parts.kept[ring]) for ring in RINGS) and whole.rows == parts.rows


def test_a_run_that_is_told_to_end_ends_in_order() -> None:
    """Asked after a piece it ends there: no order is left open, folds got every record, progress was told the market's time."""
    said: list[tuple[int, int, int]] = []
    seen: list[int] = []

    def fold() -> engine.Fold:
        return lambda recs: seen.append(len(recs))

    def stop() -> bool:
        return len(said) >= 2

    plan = generated(600.0)
    run = engine.run(plan, keep=("orders", "reports"), folds={"signals": fold}, progress=lambda *now: said.append(now), stop=stop)
    assert len(said) == 2 and said[1][0] == run.frames > said[0][0] and 0 < said[0][2] < said[1][2] < 599e9
    assert sum(seen) == run.rows["signals"] == run.rows["market"]
    last = {int(row["order_id"]): int(row["leaves_lots"]) for row in run.kept["reports"]}
    new = run.kept["orders"][run.kept["orders"]["kind"] == Kind.NEW]["order_id"]
    assert set(new.tolist()) <= set(last) and not any(last.values())


def test_too_much_under_way_is_said() -> None:
    """What does not fit is a sentence with a remedy, never a wrong result."""
    with pytest.raises(engine.EngineFull, match="lower risk.max_open_orders") as caught:
        engine._checked(engine.engine.LOST)
    assert exit_code_of(caught.value) == FAILED


def test_rows_are_numbered() -> None:
    """Rows have sequences from 1 on, as those of rings."""
    kept: Recs = engine.run(generated(10.0), keep=("orders",)).kept["orders"]
    assert kept["seq"].tolist() == list(range(1, len(kept) + 1))
