"""A live session with faults, kills and an operator folds again from its journals, to the last record of every ring.

SCALPER_SESSION_S is how long each session lasts; three minutes are run by hand: SCALPER_SESSION_S=180 scripts/test-live -k refold
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import live_world as lw
import pytest
from test_live_faults import QUICK, SCHEDULE

from procs import topology
from procs.cli.main import main
from procs.profiles.config import load_profile
from sim.local_venue import Limits, generated
from sim.worlds.served import ServedVenue
from trading.records import Kind

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
SECONDS = float(os.environ.get("SCALPER_SESSION_S", "15"))
KEYS = [("binance_spot", "BTCUSDT"), ("binance_spot", "ETHUSDT")]
BACK = {
    **QUICK, "live.backoff_max_ms": 400, "supervisor.max_restarts": 100, "supervisor.backoff_min_ms": 0,
    "supervisor.backoff_max_ms": 0, "record.raw": True,
}  # fmt: skip


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize("placement", ["separate", "grouped"])
def test_a_session_with_faults_and_kills_folds_again(
    placement: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A venue that misbehaves, two SIGKILLs to each process, a halt and its end: from raw frames and journals every ring that the
    stages wrote, the feed's too, comes again equal, record for record."""
    rng = random.Random(51)
    overrides = {**BACK, "pipeline.placement": placement, "record.folder": str(tmp_path / "raw")}
    wanted = load_profile("live-paper", {**overrides, "symbols": [{"name": name, "market": market} for market, name in KEYS]})
    victims = [one.members[0].name for one in topology.Run.of(wanted).processes if one.essential] * 2
    rng.shuffle(victims)
    with ServedVenue(generated(events_per_s=300.0), seed=51, limits=Limits(connects_per_5_minutes=200)) as served:
        with lw.live("live-refold", served, KEYS, overrides) as run:
            began = time.monotonic()
            served.begin_faults(SCHEDULE, 51)
            for n, name in enumerate(victims):
                run.go_on(rng.uniform(0.2, 1.8) * SECONDS / len(victims) if n else 1.0)
                run.back(name, run.kill_stage(name))
                if n == len(victims) // 2:
                    assert main(["halt", "trip", "--instance", run.instance, "--reason", "a test"]) == 0
            assert main(["halt", "reset", "--instance", run.instance, "--reason", "a test"]) == 0
            served.no_more_faults()
            run.go_on(max(SECONDS - (time.monotonic() - began), 2.0))
            capsys.readouterr()
            assert main(["replay", run.instance, "--verify", "--json"]) == 0
            found = json.loads(capsys.readouterr().out)
            assert found["living"] and found["equal"] and sum(one["equal"] for one in found["rings"]) > 1000
            kept = run.end()
    capsys.readouterr()
    code = main(["replay", kept.id, "--verify", "--json"])
    found = json.loads(capsys.readouterr().out)
    print(f"{placement}: {len(victims)} kills; {sum(one['equal'] for one in found['rings'])} records, {found['seconds']} s")
    assert [(one["ring"], one["difference"]) for one in found["rings"] if one["difference"]] == []
    assert code == 0 and found["equal"] and found["whole"], [one for one in found["rings"] if one["equal"] != one["journal"]]
    assert {"market", "depth", "resync", "signals", "quotes", "orders", "wire", "executions", "reports", "intake.risk"} <= {
        one["ring"] for one in found["rings"]
    }
    assert {int(kind) for kind in lw.records(kept, "control")["kind"]} == {Kind.HALT, Kind.RESUME}
