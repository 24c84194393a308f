"""Profile live-paper on the local venue, with nothing changed but addresses and symbols; and its raw recording replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kill_run
import live_world as lw
import numpy as np
import pytest

from procs.recordings.files import chains, expand
from sim.local_venue import Source, generated, recorded
from sim.worlds.served import Key, ServedVenue
from trading.records import MARKET_RECORD, ExecType, Kind, identity_words

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
SECONDS = 10.0
TRADING_S = 32.0
"""The strategy's bars are warm after a quarter of a minute."""
SPOT = (("binance_spot", "BTCUSDT"), ("binance_spot", "ETHUSDT"))
USDM = (("binance_usdm", "BTCUSDT"), ("binance_usdm", "ETHUSDT"))
COINM = (("binance_coinm", "BTCUSD_PERP"), ("binance_usdm", "BTCUSDT_241227"))
MARKETS: dict[str, tuple[tuple[str, ...], float, tuple[Key, ...]]] = {
    "generated, both markets": ((), 2.0, (SPOT[0], USDM[1])),
    "generated, COIN-M and a delivery date": ((), 2.0, COINM),
    "recorded COIN-M": (("cm_ethusd_perp_20240808", "cm_ethusd_perp_20240809"), 3.0, (("binance_coinm", "ETHUSD_PERP"),)),
    "recorded spot": (("spot_btcusdt_20240808", "spot_btcusdt_20240809"), 10.0, SPOT[:1]),
    "recorded usdm": (("usdm_btcusdt_20240808",), 3.0, USDM[:1]),
}


def source_of(files: tuple[str, ...], keys: tuple[Key, ...], recordings: Path | None) -> Source:
    """The venue's market."""
    if not files:
        if keys == COINM:
            return generated(("BTCUSDT", "BTCUSDT_241227"), ("usdm", "coinm"), events_per_s=300.0)
        return generated(events_per_s=300.0)
    assert recordings is not None
    folder = "binance_coinm" if files[0].startswith("cm_") else "hftbacktest_binance"
    return recorded(*(recordings / folder / f"{name}.gz" for name in files))


@pytest.fixture
def folder_of_recordings(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """The recordings, only where the case needs them."""
    files = MARKETS[request.node.callspec.params["case"]][0]
    yield request.getfixturevalue("recordings") if files else None


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize("case", list(MARKETS))
def test_live_paper_trades_on_books_that_are_the_venues(case: str, folder_of_recordings: Path | None) -> None:
    """Ready, orders, fills, an orderly end with nothing left; 0 gaps; the book is the venue's own at every update id, and its
    best bid/offer whenever both stand at one id."""
    files, speed, keys = MARKETS[case]
    with ServedVenue(source_of(files, keys, folder_of_recordings), speed=speed, loop=bool(files)) as served:
        with lw.live("live-paper", served, keys) as run:
            run.go_on(SECONDS if files else TRADING_S)
            kept = run.end()
        truth = served.truth
        assert max(served.venue.budget.used_max.values()) < 1000
    feed, market = lw.counters(kept, "feed"), lw.records(kept, "market")
    compared = lw.compare(lw.records(kept, "depth"), keys, lw.scales_of(kept), truth)
    reports = lw.records(kept, "reports")
    fills = int((reports["exec_type"] == ExecType.FILL).sum())
    orders = len(lw.records(kept, "orders")) - 1
    print(f"{case}: {feed['frames']} frames, {compared.checked} books, oracle {feed['oracle_equal']}/{feed['oracle_checked']}, "
          f"{orders} orders, {fills} fills")  # fmt: skip
    assert kill_run.complaints(kept.figures, ended=True) == []  # type: ignore[arg-type]
    assert (feed["gaps"], feed["unknown"], feed["malformed"]) == (0, 0, 0) and Kind.STALE not in market["kind"].tolist()
    assert feed["oracle_checked"] == feed["oracle_equal"] > 0
    assert compared.checked > 5 * SECONDS and compared.wrong == [] and compared.strange == []
    assert files or (orders > 0 and fills > 0)
    for name in ("market", "signals", "quotes", "orders", "executions", "reports"):
        assert lw.records(kept, name)[-1]["kind"] == Kind.END, name


def market_identity(recs: Any) -> Any:
    """What a market record says, without when and why it was published; END and START-up markers left out."""
    words = [w for w in identity_words(MARKET_RECORD).tolist() if w not in (0, 1, 2)]  # ts_ns, cause
    chosen = recs[recs["kind"] != Kind.END].copy()
    return chosen.view("<i8").reshape(len(chosen), -1)[:, words]


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize("keys", [SPOT, USDM, COINM], ids=["spot", "usdm", "coinm"])
def test_the_raw_frames_of_a_live_run_replay_to_the_same_books(keys: tuple[Key, ...], tmp_path: Path) -> None:
    """What came off the wire, replayed by `--config replay` through the same stages: every market record is the live run's,
    kind, ids, times and all levels; every book of the depth ring is the same at the same update id."""
    raw = tmp_path / "raw"
    with ServedVenue(source_of((), keys, None)) as served:
        with lw.live("live-raw", served, keys, {"record.raw": True, "record.folder": str(raw)}) as run:
            run.go_on(SECONDS)
            kept = run.end()
    found = sorted(path for chain in chains(expand([raw])) for path in (f.path for f in chain))
    assert len(found) == len(keys)
    replayed = {"source.kind": "recording", "source.files": [str(p) for p in found], "source.speed": "max"}
    replay = kill_run.Run(lw.own_name("live-again"), kill_run.Source("replay", replayed, tuple(found)), {})
    try:
        replay.ready()
        assert replay.wait_end() == 0
    finally:
        replay.close()
    again = kill_run.last_run.wanted(lw.own_name("live-again"))
    mine, theirs = lw.records(kept, "market"), lw.records(again, "market")
    units, units_again = lw.scales_of(kept), lw.scales_of(again)
    assert units == units_again
    first, second = market_identity(mine), market_identity(theirs)
    # the receiver ends after the feed: the recording holds a moment more than the live run had read
    assert 500 < len(first) <= len(second) < len(first) + 300
    assert np.array_equal(first, second[: len(first)])
    books, books_again = (list(lw.books(lw.records(r, "depth"), units)) for r in (kept, again))
    assert 0 < len(books) and books == books_again[: len(books)]
    print(f"{len(mine)} market records, {len(books)} books: the same")
