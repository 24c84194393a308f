"""Two lines of every stream (`live.lines: 2`): either is cut again and again, and nothing is lost or doubled."""

from __future__ import annotations

import random
import time

import live_world as lw
import pytest

from sim.local_venue import generated
from sim.worlds.served import ServedVenue
from trading.records import Kind

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
SECONDS = 25.0
QUICK = {"live.lines": 2, "live.backoff_min_ms": 50, "live.backoff_max_ms": 400}


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(("market", "seed"), [("binance_spot", 11), ("binance_usdm", 12)])
def test_cutting_either_line_loses_and_doubles_nothing(market: str, seed: int) -> None:
    """A random line of the two is cut at random moments, never both at once: the market ring has every trade id and every
    depth update id exactly once, no STALE, and the venue's books."""
    keys = [(market, "BTCUSDT"), (market, "ETHUSDT")]
    rng = random.Random(seed)
    with ServedVenue(generated(events_per_s=400.0), seed=seed) as served:
        with lw.live("live-lines", served, keys, QUICK) as run:
            due, cuts = time.monotonic(), 0

            def both_up() -> bool:
                rows = lw.lines_figures(run)
                up = [line for row in rows for line in row["lines"] if line["symbols_up"] == len(keys)]
                return len(up) >= 2 and len(served.venue.connections) >= 2

            run.until("both lines are up", both_up, 30)

            def cut() -> None:
                nonlocal due, cuts
                if time.monotonic() >= due and served.both_listen(2 * len(keys) * 3):
                    cuts += served.cut(rng)
                    due = time.monotonic() + rng.uniform(0.2, 1.2)

            run.go_on(SECONDS, cut)
            kept = run.end()
        truth = served.truth
    records, feed = lw.records(kept, "market"), lw.counters(kept, "feed")
    compared = lw.compare(lw.records(kept, "depth"), keys, lw.scales_of(kept), truth)
    assert compared.wrong == [] and compared.strange == []
    count = 0
    for symbol, key in enumerate(keys):
        own = records[records["symbol"] == symbol]
        kinds = own["kind"].tolist()
        began = kinds.index(Kind.SNAPSHOT)
        assert Kind.STALE not in kinds and kinds.count(Kind.SNAPSHOT) == 1
        synced = own[began:]
        for kind, known in ((Kind.DEPTH, list(truth.tops[key])), (Kind.TRADE, truth.trades[key])):
            seen = lw.of_kind(synced, symbol, kind)
            assert lw.missing_and_double(seen, known) == ([], []), (key, kind)
            assert seen == sorted(seen)
            count += len(seen)
    print(f"{cuts} cuts, {count} ids exactly once, {compared.checked} books, {feed['frames']} frames read")
    assert cuts >= 10 and feed["gaps"] == 0
