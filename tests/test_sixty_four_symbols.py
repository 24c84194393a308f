"""1, 4, 20 and 64 symbols of one venue's real rules, the cheapest and the dearest among them, through all stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from listed_symbols import CHEAPEST_AND_DEAREST, LISTED, write_recordings

from procs import topology
from procs.fold.plan import Plan, plan_of
from procs.memory import board
from procs.profiles.config import load_profile
from procs.research import backtest
from sim.recordings.recording import stage
from trading.records import ExecType, Flag, Kind
from trading.results.round_trips import values_e8

RUPIAH = {
    "risk.equity": 1e9, "risk.max_position_notional": 5e8, "risk.max_order_notional": 2e8, "quoting.order_notional": 1e8,
    "quoting.max_inventory_notional": 4e8,
}  # fmt: skip
"""The default limits for an account in rupiah or pesos, about."""


def planned(folder: Path, names: tuple[str, ...], seconds: float, events: float, overrides: dict[str, Any]) -> Plan:
    """The plan of a replay of made-up recordings."""
    paths = write_recordings(folder, names, seconds=seconds, events_per_s=events)
    profile = load_profile("replay", {"source.files": [str(path) for path in paths], **overrides})
    return plan_of(profile, stage(paths, folder / "spool"))


def run(plan: Plan) -> backtest.Run:
    """It run; every frame decoded, every book valid, every one of them equal to the best bid and offer wherever the two meet."""
    outcome = backtest.run(plan, keep=("market", "orders", "reports", "refusals"))
    feed = board.page(outcome.world.board, topology.stage_id("feed"))
    assert feed[board.MALFORMED] == feed[board.UNKNOWN] == 0
    assert feed[board.ORACLE_CHECKED] == feed[board.ORACLE_EQUAL] > 0
    market = outcome.kept["market"]
    valid = market[(market["flags"] & int(Flag.BOOK_VALID)) != 0]
    assert sorted(set(valid["symbol"].tolist())) == list(range(plan.symbols))
    return outcome


def books_add_up(plan: Plan, outcome: backtest.Run) -> int:
    """Risk's cash, turnover and fees of every symbol are those of Python's integers over its fills; how many fills there were."""
    reports = outcome.kept["reports"]
    fills = reports[(reports["kind"] == Kind.REPORT) & (reports["exec_type"] == ExecType.FILL)]
    values = values_e8(plan.instruments, fills["symbol"], fills["last_ticks"], fills["last_lots"]).tolist()
    state = outcome.stages["risk"].state["state"]
    for s in range(plan.symbols):
        own = [(int(f["side"]), v, int(f["fee_e8"])) for f, v in zip(fills, values, strict=True) if f["symbol"] == s]
        cash, turnover = -sum(side * value + fee for side, value, fee in own), sum(value for _, value, _ in own)
        assert (int(state[s]["cash_e8"]), int(state[s]["turnover_e8"])) == (cash, turnover), plan.names[s]
    return len(fills)


@pytest.mark.parametrize(("overrides", "quotes"), [({}, ("USDT",)), (RUPIAH, ("COP", "IDR"))], ids=["defaults", "in rupiah"])
def test_the_cheapest_and_the_dearest_are_traded(tmp_path: Path, overrides: dict[str, Any], quotes: tuple[str, ...]) -> None:
    """SHIB, PEPE, FLOKI, BTTC, and bitcoin in pesos and rupiah: with the default limits the coins are traded, with limits of
    their money the others; no order is beyond its limit, and the books add up in every symbol."""
    plan = planned(tmp_path, CHEAPEST_AND_DEAREST, 22.0, 4.0, overrides)
    outcome = run(plan)
    orders = outcome.kept["orders"]
    orders = orders[orders["kind"] == Kind.NEW]
    traded = {plan.names[s] for s in set(orders["symbol"].tolist())}
    assert {name for name in CHEAPEST_AND_DEAREST if name.endswith(quotes)} <= traded
    limits = orders[orders["price_ticks"] > 0]
    worth = values_e8(plan.instruments, limits["symbol"], limits["price_ticks"], limits["qty_lots"])
    assert worth.min() > 0 and worth.max() <= plan.strategy.risk.max_order_notional * 1e8
    books_add_up(plan, outcome)


@pytest.mark.slow
@pytest.mark.parametrize("symbols", [1, 4, 20, 64])
def test_so_many_recorded_symbols(tmp_path: Path, symbols: int) -> None:
    """So many symbols in one backtest: all books valid and right, orders and fills happen, and the money adds up in each."""
    names = tuple(LISTED)[-symbols:] if symbols == 64 else tuple(LISTED)[:symbols]
    plan = planned(tmp_path, names, 40.0, 3.0 if symbols > 4 else 20.0, {})
    outcome = run(plan)
    assert len(outcome.kept["orders"]) > 0
    assert books_add_up(plan, outcome) > 0


@pytest.mark.slow
@pytest.mark.parametrize("symbols", [1, 4, 20, 64])
def test_so_many_generated_symbols(symbols: int) -> None:
    """The embedded market has so many symbols of the listed ticks and steps with no setting but their names and sizes."""
    sizes = [
        {"name": name, "tick_size": one.tick_size, "step_size": one.step_size, "min_qty": one.step_size, "max_qty": one.max_qty}
        for name, one in list(LISTED.items())[-symbols:]
    ]
    overrides = {"symbols": sizes, "source.speed": "max", "generator.duration_s": 10.0, "generator.events_per_s": 10.0}
    run(plan_of(load_profile("paper", overrides)))
