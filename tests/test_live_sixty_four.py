"""64 symbols of one venue's real rules, live on the local venue."""

from __future__ import annotations

from pathlib import Path

import kill_run
import live_world as lw
import numpy as np
import pytest
from listed_symbols import LISTED

from procs.recordings.checking import check
from procs.recordings.files import chains, expand
from sim.local_venue import generated
from sim.worlds.served import Key, ServedVenue

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

KEYS: tuple[Key, ...] = tuple(("binance_spot", name) for name in LISTED)


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize("world", ["paper", "record"])
def test_sixty_four_live_symbols(world: str, tmp_path: Path) -> None:
    """64 symbols of the local venue, which serves their rules, in live-paper and in a recorder: no gap, nothing malformed, all
    books valid; and what was recorded is judged whole, symbol by symbol."""
    raw = tmp_path / "raw"
    overrides = {"record.raw": True, "record.folder": str(raw), "world": world}
    with ServedVenue(generated(tuple(LISTED), ("spot",), rules=LISTED, events_per_s=3.0)) as served:
        # 60 snapshots of 1000 levels are a minute's share of the venue's weight
        with lw.live(f"many-{world}", served, KEYS, overrides, valid_s=180.0) as running:
            running.go_on(20.0)
            kept = running.end()
        truth = served.truth
    feed = lw.counters(kept, "feed")
    assert kill_run.complaints(kept.figures, ended=True) == []  # type: ignore[arg-type]
    assert (feed["gaps"], feed["unknown"], feed["malformed"]) == (0, 0, 0) and feed["oracle_checked"] == feed["oracle_equal"] > 0
    if world == "paper":
        compared = lw.compare(lw.records(kept, "depth"), KEYS, lw.scales_of(kept), truth)
        assert compared.checked > 500 and compared.wrong == [] and compared.strange == []
    verdicts = [check(chain) for chain in chains(expand([raw]))]
    assert sorted(name for verdict in verdicts for name in verdict.symbols) == sorted(LISTED)
    assert all(verdict.gaps == verdict.malformed == verdict.unknown == 0 and verdict.books_valid == 1 for verdict in verdicts)
    assert np.all([verdict.frames > 10 for verdict in verdicts])
