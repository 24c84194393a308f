"""Recordings through the stages in one process: complete, right at the venue's own word, and the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from fold_world import identities

from procs import topology
from procs.fold.plan import plan_of
from procs.memory import board
from procs.profiles.config import load_profile
from procs.research import backtest
from ringbuf.layout import TAIL
from sim.recordings.recording import stage
from trading.jit import Recs
from trading.records import ExecType, Kind, OrderStatus

CASES = {
    "spot BTCUSDT": (("spot_btcusdt_20240808", "spot_btcusdt_20240809"), 99_574, 1072),
    "USD-M BTCUSDT": (("usdm_btcusdt_20240808",), None, 629),
}


def test_a_backtest_that_is_told_to_end_ends_in_order() -> None:
    """Asked after some rounds, it ends soon: every ring has its END, no order is left open, a fold gets every record of its ring,
    and progress was told with the market's time."""
    plan = plan_of(load_profile("paper", {"source.speed": "max", "generator.duration_s": 600.0}))
    said: list[tuple[int, int, int]] = []
    rounds, told = [0], []

    def stop() -> bool:
        rounds[0] += 1
        if rounds[0] >= 20:
            told.append(rounds[0])
        return bool(told)

    class Counted:
        """Counts records that are only lent."""

        def __init__(self) -> None:
            self.records = 0

        def __call__(self, recs: Recs) -> None:
            self.records += len(recs)

    rings = ("market", "signals", "orders", "wire", "reports")
    run = backtest.run(plan, keep=rings, folds={"quotes": Counted}, progress=lambda *now: said.append(now), stop=stop)
    whole = len(run.kept["market"])
    assert told and 1000 < whole < 20 * 256 * 8 and run.rounds < 2 * whole
    for ring in rings:
        assert run.kept[ring][-1]["kind"] == Kind.END, ring
    counted = run.folded["quotes"]
    assert isinstance(counted, Counted) and counted.records == int(run.world.rings["quotes"][TAIL])
    assert said and all(frames > 0 and expected == 0 and market_ns > 0 for frames, expected, market_ns in said)
    reports = run.kept["reports"][run.kept["reports"]["kind"] == Kind.REPORT]
    last = {int(row["order_id"]): int(row["order_status"]) for row in reports}
    assert not set(last.values()) & {OrderStatus.OPEN, OrderStatus.PARTIAL, OrderStatus.PENDING_NEW}


@pytest.mark.slow
@pytest.mark.recordings
@pytest.mark.parametrize("name", CASES)
def test_a_recording_is_read_whole_and_gives_the_same_records_twice(name: str, recordings: Path, tmp_path: Path) -> None:
    """Every message is read, the book equals the venue's best bid/ask every time the two meet, orders and fills happen, each
    session is closed on every ring, and a second run agrees in every ring."""
    files, frames, meetings = CASES[name]
    paths = [recordings / "hftbacktest_binance" / f"{file}.gz" for file in files]
    staged = stage(paths, tmp_path / "spool")
    profile = load_profile("replay", {"source.files": [str(path) for path in paths]})
    rings = tuple(entry.name for entry in topology.RINGS)
    first, second = (backtest.run(plan_of(profile, staged), keep=rings) for _ in range(2))
    feed = board.page(first.world.board, topology.stage_id("feed"))
    assert int(feed[board.FRAMES]) == staged.n_frames and frames in (None, staged.n_frames)
    assert (feed[board.ORACLE_CHECKED], feed[board.ORACLE_EQUAL]) == (meetings, meetings)
    assert feed[board.MALFORMED] == feed[board.UNKNOWN] == 0
    reports = first.kept["reports"]
    fills = (reports["kind"] == Kind.REPORT) & (reports["exec_type"] == ExecType.FILL)
    assert int((first.kept["orders"]["kind"] == Kind.NEW).sum()) > 100 and int(fills.sum()) > 10
    for ring in ("market", "depth", "signals", "quotes", "orders", "refusals", "wire", "executions", "reports"):
        assert first.kept[ring][-1]["kind"] == Kind.END, ring
    assert identities(first.kept) == identities(second.kept)
