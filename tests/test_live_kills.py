"""SIGKILL to the receiver and to the feed of a live pipeline: what may be lost is declared, what need not be is not lost."""

from __future__ import annotations

import random

import live_world as lw
import pytest

from procs.memory import board
from sim.local_venue import generated
from sim.worlds.served import ServedVenue
from trading.records import Kind

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
KEYS = [("binance_spot", "BTCUSDT"), ("binance_spot", "ETHUSDT")]
QUICK = {
    "live.backoff_min_ms": 50, "live.backoff_max_ms": 400, "supervisor.max_restarts": 100, "supervisor.backoff_min_ms": 0,
    "supervisor.backoff_max_ms": 0,
}  # fmt: skip


@pytest.mark.usefixtures("own_folders")
def test_a_killed_feed_loses_nothing() -> None:
    """Eight kills: the next incarnation reads the frames that its predecessor had not published. From the first snapshot on the
    market ring has every depth update id and every trade id exactly once, and is never stale."""
    rng = random.Random(31)
    with ServedVenue(generated(events_per_s=400.0)) as served:
        with lw.live("live-feed", served, KEYS, QUICK) as run:
            for _ in range(8):
                run.go_on(rng.uniform(0.3, 1.5))
                run.back("feed", run.kill_stage("feed"))
            run.go_on(2.0)
            assert all(run.valid())
            kept = run.end()
        truth = served.truth
    records, feed = lw.records(kept, "market"), lw.counters(kept, "feed")
    compared = lw.compare(lw.records(kept, "depth"), KEYS, lw.scales_of(kept), truth)
    assert compared.wrong == [] and compared.strange == [] and feed["diverged"] == 0
    count = 0
    for symbol, key in enumerate(KEYS):
        own = records[records["symbol"] == symbol]
        kinds = own["kind"].tolist()
        assert Kind.STALE not in kinds and kinds.count(Kind.SNAPSHOT) == 1
        synced = own[kinds.index(Kind.SNAPSHOT) :]
        for kind, known in ((Kind.DEPTH, list(truth.tops[key])), (Kind.TRADE, truth.trades[key])):
            seen = lw.of_kind(synced, symbol, kind)
            assert lw.missing_and_double(seen, known) == ([], [])
            count += len(seen)
    print(f"8 kills of the feed: {count} ids exactly once, {compared.checked} books, {feed['frames']} frames")
    assert feed["recoveries"] >= 1


@pytest.mark.usefixtures("own_folders")
def test_a_killed_receiver_is_a_gap_that_is_told() -> None:
    """Six kills: every book goes stale, the feed says so, a snapshot makes it valid again; between two such marks no update is
    missing, and no book is ever wrong."""
    rng = random.Random(32)
    took = []
    with ServedVenue(generated(events_per_s=400.0)) as served:
        with lw.live("live-receiver", served, KEYS, QUICK) as run:
            for n in range(6):
                run.go_on(rng.uniform(0.3, 1.5))
                before = int(run.page("feed")[board.RESYNCS])
                run.back("receiver", run.kill_stage("receiver"))
                took.append(run.until(f"the books come back ({n})", lambda b=before: (  # type: ignore[misc]
                    int(run.page("feed")[board.RESYNCS]) >= b + len(KEYS) and all(run.valid())), 40))  # fmt: skip
            run.go_on(1.0)
            kept = run.end()
        truth, spent = served.truth, dict(served.venue.budget.used_max)
        connections = served.venue.stats.connections
    records, feed = lw.records(kept, "market"), lw.counters(kept, "feed")
    compared = lw.compare(lw.records(kept, "depth"), KEYS, lw.scales_of(kept), truth)
    assert compared.wrong == [] and compared.strange == [] and feed["oracle_checked"] == feed["oracle_equal"] > 0
    for symbol, key in enumerate(KEYS):
        own = records[records["symbol"] == symbol]
        kinds = own["kind"].tolist()
        assert kinds.count(Kind.STALE) >= 6
        run_of: list[int] = []
        valid = False
        for kind, update_id in zip(kinds, own["update_id"].tolist(), strict=True):
            if kind in (Kind.STALE, Kind.SNAPSHOT):
                valid = kind == Kind.SNAPSHOT
                if run_of:
                    assert lw.missing_and_double(run_of, list(truth.tops[key])) == ([], [])
                run_of = []
            elif kind == Kind.DEPTH:
                assert valid
                run_of.append(update_id)
    print(f"6 kills of the receiver: back after {min(took):.2f} to {max(took):.2f} s, weight {spent}, {connections} connections")
    assert connections <= 12 and max(spent.values()) < 3000
