"""Connections that end: by the venue's 24 h, here four seconds, with its notice before; or replaced by age before it does so."""

from __future__ import annotations

import live_world as lw
import pytest

from sim.local_venue import Limits, generated
from sim.worlds.served import ServedVenue
from trading.records import Kind

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
SECONDS = 12.0
LIFE_S = 4.0
QUICK = {"live.backoff_min_ms": 50, "live.backoff_max_ms": 400}


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(
    ("market", "lines", "told"), [("binance_spot", 1, True), ("binance_usdm", 1, True), ("binance_spot", 1, False),
                                  ("binance_spot", 2, False)],
)  # fmt: skip
def test_rotation_leaves_no_gap(market: str, lines: int, told: bool) -> None:
    """A connection lives four seconds. Either `serverShutdown` comes 1.5 s before its end, or (never told) `live.rotate_hours` is
    shorter: in three lives the market ring has every trade id and every depth update id exactly once, nothing was stale, no LOST
    was told, no frame dropped, and the books are the venue's. Where we rotate by age the venue never had to end one."""
    keys = [(market, "BTCUSDT"), (market, "ETHUSDT")]
    limits = Limits(lifetime_s=LIFE_S, shutdown_notice_s=1.5 if told else 0.0)
    rotate = {} if told else {"live.rotate_hours": 2.4 / 3600}
    with ServedVenue(generated(events_per_s=400.0), limits=limits) as served:
        with lw.live("live-rotation", served, keys, {**QUICK, **rotate, "live.lines": lines}) as run:
            run.go_on(SECONDS)
            assert all(run.valid())
            rows = lw.lines_figures(run)
            closed = dict(served.call(lambda: served.venue.stats.closed))
            kept = run.end()
        truth = served.truth
    figures = [line for row in rows for line in row["lines"]]
    connects = sum(line["connects"] for line in figures)
    connections = lines * (2 if market == "binance_usdm" else 1)
    assert connects >= connections * (1 + int(SECONDS / LIFE_S)), "replaced in every life"
    assert sum(line["gaps"] + line["lost"] for line in figures) == 0
    assert told or closed.get("end of life", 0) == 0, "replaced before the venue ended it"
    records, feed = lw.records(kept, "market"), lw.counters(kept, "feed")
    assert feed["gaps"] == 0
    compared = lw.compare(lw.records(kept, "depth"), keys, lw.scales_of(kept), truth)
    assert compared.wrong == [] and compared.strange == [] and compared.checked > 4 * SECONDS
    count = 0
    for symbol, key in enumerate(keys):
        own = records[records["symbol"] == symbol]
        kinds = own["kind"].tolist()
        synced = own[kinds.index(Kind.SNAPSHOT) :]
        assert Kind.STALE not in kinds and kinds.count(Kind.SNAPSHOT) == 1
        known = {Kind.DEPTH: list(truth.tops[key])}
        if market == "binance_spot":  # USD-M has aggTrades, whose ids are others
            known[Kind.TRADE] = truth.trades[key]
        for kind, ids in known.items():
            seen = lw.of_kind(synced, symbol, kind)
            assert lw.missing_and_double(seen, ids) == ([], []), (key, kind)
            count += len(seen)
    print(f"{market} x{lines}: {connects} connects, {closed}; {count} ids exactly once, {compared.checked} books equal")
