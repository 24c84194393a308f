"""A part that does not run refuses no run: which settings are judged, and what a plan makes of a recording's symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from listed_symbols import CHEAPEST_AND_DEAREST, LISTED

from procs.cli.main import main
from procs.fold.plan import PlanError, plan_of
from procs.profiles import relations
from procs.profiles.config import load_profile
from procs.profiles.schema import Profile
from procs.profiles.strict_yaml import ConfigError
from sim.recordings.spool import StagedRecording, StagedSymbol
from trading.instruments import Market
from trading.ranges import LEVEL_LOTS, MAX_MONEY
from trading.settings import Strategy, contradiction

LIVE: dict[str, Any] = {"source.kind": "live", "symbols": [{"name": "BTCUSDT"}]}
RECORD = {**LIVE, "world": "record"}
CONTRADICTIONS: list[dict[str, Any]] = [
    {"features.ema_fast": 50, "features.ema_slow": 20},
    {"thresholds.short": 60.0},
    {"features.garch_alpha": 0.5, "features.garch_beta": 0.6},
    {"features.timeframes_s": [5, 1, 15, 60, 300]},
    {"features.timeframe_weights": [0.0] * 5},
]


def the_wrong_way_round(low: str, high: str) -> dict[str, Any]:
    """Overrides that break a relation: the low one is an eighth above the high one."""
    if low == "live.depth_interval_ms":  # intervals are a short list
        return {low: 1000, high: 900}
    value = relations._value(Profile(), high)
    return {low: value + value // 8}


@pytest.mark.parametrize(("low", "high"), [(low, high) for low, _, high in relations._BELOW])
def test_a_relation_binds_where_both_of_its_parts_run(low: str, high: str) -> None:
    """Refused where both run; taken where one does not: no live source, no quoting, nothing but recording."""
    overrides = the_wrong_way_round(low, high)
    with pytest.raises(ConfigError, match=low):
        load_profile("paper", {**(LIVE if low.startswith("live.") else {}), **overrides})
    if low.startswith("live."):
        assert load_profile("paper", overrides)
    elif not low.startswith("supervisor."):
        assert load_profile("paper", {**RECORD, **overrides})
    if low.startswith("quoting."):
        assert load_profile("paper", {"quoting.enabled": False, **overrides})


@pytest.mark.parametrize("overrides", CONTRADICTIONS)
def test_features_that_contradict_each_other_are_told_by_the_profile(overrides: dict[str, Any]) -> None:
    """What the features' stage would refuse at its start is refused at its key before anything starts; a recorder has none."""
    with pytest.raises(ConfigError) as error:
        load_profile("paper", overrides)
    assert str(error.value).count(next(iter(overrides)).split(".")[1]) >= 1
    assert load_profile("paper", {**RECORD, **overrides})


def test_the_defaults_do_not_contradict_each_other() -> None:
    """A strategy without any setting is sound."""
    assert contradiction(Strategy()) is None


def test_a_recorder_is_asked_for_no_weight_exchange_or_learner() -> None:
    """Weights of 0, an unknown exchange and a learner without models refuse a run that decides, not one that only records."""
    nothing = {f"weights.{name}": 0.0 for name in Profile().weights.__struct_fields__}
    for overrides in (nothing, {"pipeline.exchange": "elsewhere"}, {"ml.learner.enabled": True}):
        assert load_profile("paper", {**RECORD, **overrides})
        with pytest.raises(ConfigError):
            load_profile("paper", overrides)


@pytest.mark.parametrize("key", ["risk.equity", "risk.max_position_notional", "risk.max_order_notional"])
def test_money_has_a_bound_at_its_key(key: str) -> None:
    """More money than is counted exactly is refused at its key; the bound itself is taken."""
    with pytest.raises(ConfigError, match=key):
        load_profile("paper", {key: 2 * MAX_MONEY})
    bound = dict.fromkeys(("risk.equity", "risk.max_position_notional", "risk.max_order_notional"), MAX_MONEY)
    assert load_profile("paper", bound).risk.max_position_notional == MAX_MONEY


def test_figures_of_a_symbol_that_cannot_be_counted_in() -> None:
    """A lot too fine for the step, and a tick too fine for the lot, are refused at their keys."""
    with pytest.raises(ConfigError, match=r"lot_size.*coarser"):
        load_profile("paper", {"symbols": [{"name": "AUSDT", "lot_size": "0.000000000000001", "step_size": "1000"}]})
    fine = {"name": "AUSDT", "tick_size": "0.000000000000001", "lot_size": "0.000000000000001"}
    with pytest.raises(ConfigError, match=r"tick_size.*coarser"):
        load_profile("paper", {"symbols": [fine]})
    with pytest.raises(ConfigError, match=r"tick_size.*more than"):
        load_profile("paper", {"symbols": [{"name": "AUSDT", "tick_size": "2000000000"}]})
    most = {"name": "AUSDT", "tick_size": "1000000000", "min_notional": "9" * 15, "lot_size": "1"}
    most |= {"step_size": "1", "min_qty": "1"}
    assert plan_of(load_profile("paper", {"symbols": [most]})).symbols == 1


def staged(name: str, **changes: Any) -> StagedSymbol:
    """A symbol as a recording tells it."""
    fields: dict[str, Any] = {
        "name": name, "market": Market.BINANCE_SPOT, "n_frames": 1, "n_bytes": 1, "first_recv_ns": 1, "last_recv_ns": 2,
        "price_decimals": 8, "tick_units": 1, "qty_decimals": 0, "step_decimals": 0,
    }  # fmt: skip
    return StagedSymbol(**{**fields, **changes})


def recording(*symbols: StagedSymbol) -> StagedRecording:
    """A recording of them."""
    return StagedRecording(Path("x"), symbols, 1, 1, 1, 2, 0)


def test_a_profile_that_only_names_a_cheap_coin_takes_the_recordings_sizes() -> None:
    """Where the profile's defaults (of BTCUSDT) are no multiples of the recording's lot, the recording's step, least and greatest
    quantity hold; what somebody wrote for the symbol stays."""
    profile = load_profile("paper", {"symbols": [{"name": "SHIBUSDT"}, {"name": "PEPEUSDT", "step_size": "1", "min_qty": "100"}]})
    table = plan_of(profile, recording(staged("SHIBUSDT"), staged("PEPEUSDT"))).instruments
    assert (int(table[0]["step_lots"]), int(table[0]["min_qty_lots"]), int(table[0]["max_qty_lots"])) == (1, 1, LEVEL_LOTS)
    assert int(table[1]["min_qty_lots"]) == 100
    with pytest.raises(PlanError, match="SHIBUSDT: the profile says"):
        plan_of(profile, recording(staged("SHIBUSDT", market=Market.BINANCE_USDM)))


def test_the_default_limits_fit_every_listed_symbol() -> None:
    """The default profile plans all 64 symbols, the cheapest and the dearest among them, with the limits as they are."""
    assert len(LISTED) == 64 and set(CHEAPEST_AND_DEAREST) <= set(LISTED)
    symbols = [
        {"name": name, "tick_size": one.tick_size, "lot_size": "0.00000001", "step_size": one.step_size, "min_qty": one.step_size,
         "max_qty": one.max_qty}
        for name, one in LISTED.items()
    ]  # fmt: skip
    assert plan_of(load_profile("paper", {"symbols": symbols})).symbols == 64
    with pytest.raises(ConfigError, match="write at most 64"):
        load_profile("paper", {"symbols": [*symbols, {"name": "ONEMORE"}]})


@pytest.mark.parametrize("speed", ["nan", "-1", "banana", "0"])
def test_a_backtest_refuses_a_speed_that_is_none(speed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A backtest waits for nobody, but a setting that is none is not passed over in silence."""
    assert main(["backtest", "--set", f"source.speed={speed}"]) == 2
    assert "source.speed" in capsys.readouterr().err
