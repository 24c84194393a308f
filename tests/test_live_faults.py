"""A venue that misbehaves by a seeded schedule, and the live pipeline's books through it and after it."""

from __future__ import annotations

from pathlib import Path

import live_world as lw
import pytest

from procs.recordings.checking import check
from procs.recordings.files import chains, expand
from sim.local_venue import Limits, generated
from sim.worlds.served import ServedVenue
from trading.records import Kind

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
SECONDS = 18.0
SCHEDULE = (
    "drop:p=0.004",
    "duplicate:p=0.02",
    "reorder:p=0.01",
    "corrupt:p=0.003",
    "corrupt:p=0.002,how=cut",
    "gap:every=7s,n=4",
    "stall:every=6s,for=700ms",
    "disconnect:at=5s,every=9s",
    "disconnect:at=9s,every=11s,how=close",
    "refuse:at=5s,every=9s,n=2",
    "limit:at=3s,every=8s,n=1",
    "stale_snapshot:p=0.3,age=3s",
    "slow_snapshot:p=0.2,delay=400ms",
)
QUICK = {"live.backoff_min_ms": 50, "live.backoff_max_ms": 1000, "live.resyncs_per_minute": 120}


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(("market", "seed", "lines"), [("binance_spot", 21, 1), ("binance_usdm", 22, 1), ("binance_spot", 23, 2)])
def test_books_are_right_or_stale_through_every_fault(market: str, seed: int, lines: int, tmp_path: Path) -> None:
    """Every kind of fault on both symbols: a book that is shown is the venue's at that update id, never another; once the
    faults end all books are valid again; request weight and connects stay within the budget; the raw recording says the same."""
    keys = [(market, "BTCUSDT"), (market, "ETHUSDT")]
    raw = tmp_path / "raw"
    limits = Limits(connects_per_5_minutes=60)
    with ServedVenue(generated(events_per_s=300.0), seed=seed, limits=limits) as served:
        with lw.live("live-faults", served, keys, {**QUICK, "live.lines": lines, "record.raw": True,
                                                   "record.folder": str(raw)}) as run:  # fmt: skip
            served.begin_faults(SCHEDULE, seed)
            run.go_on(SECONDS)
            served.no_more_faults()
            recovered = run.until("all books are valid again", lambda: all(run.valid()), 45)
            run.go_on(3.0)
            assert all(run.valid())
            rows = lw.lines_figures(run)
            kept = run.end()
        truth, hits = served.truth, served.hits
        spent, weight = dict(served.venue.budget.used_max), limits.weight_per_minute[market[8:]]
        connections, banned = served.venue.stats.connections, served.venue.stats.statuses
    feed = lw.counters(kept, "feed")
    compared = lw.compare(lw.records(kept, "depth"), keys, lw.scales_of(kept), truth)
    market_recs = lw.records(kept, "market")
    stale = int((market_recs["kind"] == Kind.STALE).sum())
    print(f"{market} x{lines}: {hits}; {compared.checked} books equal, {stale} times stale, {feed['resyncs']} resyncs, "
          f"valid again after {recovered:.2f} s; weight {spent} of {weight}, {connections} connections")  # fmt: skip
    assert compared.wrong == [] and compared.strange == [] and compared.checked > 4 * SECONDS
    assert feed["oracle_checked"] == feed["oracle_equal"] > 0
    for kind in ("drop", "duplicate", "reorder", "corrupt", "gap", "stall", "disconnect", "refuse", "limit"):
        assert hits.get(kind, 0) > 0, kind
    assert stale > 0 or lines == 2
    assert max(spent.values()) <= weight and 418 not in banned
    assert connections <= limits.connects_per_5_minutes and sum(row["connects_used"] for row in rows) <= 300
    for chain in chains(expand([raw])):
        verdict = check(chain)
        assert verdict.oracle_checked == verdict.oracle_equal > 0, verdict.wrong
        # of USD-M's two connections the one with the books is declared LOST when it is cut: the other one still stands
        assert verdict.frames > 0 and verdict.lost <= (hits["disconnect"] if market == "binance_usdm" else 0)
