"""The venue of docs/add-a-venue.md at work: live-paper on a server that speaks its protocol, then a recording, proved right."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corner_venue import Server, follow, scalperctl
from live_world import own_name

from procs import rundir, topology
from procs.cli import last_run
from procs.cli.figures import stage_figures
from procs.cli.outcome import OK
from procs.journal.file import JournalReader, journal_path
from procs.memory import segments
from shm import cleanup
from shm.errors import SegmentError
from trading.records import Flag, Kind

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
NAMES = ("AB", "CD")
RECORDS = 400
"""Market records of a run that is long enough."""
START_S = 780.0
"""Until all kernels are compiled."""


def options(server: Server) -> list[str]:
    """The profile's overrides for that server."""
    told = {
        "live.venue": "corner",
        "live.endpoints": [server.endpoint],
        "symbols": [{"name": name} for name in NAMES],
    }
    return [word for key, value in told.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def followed(instance: str) -> dict[str, Any]:
    """The feed's counters when the market ring has RECORDS records; fails when it takes a minute."""
    memory = segments.attach(instance, readonly=True)
    supervisor, until = os.pidfd_open(rundir.holder(instance)), time.monotonic() + 60.0
    try:
        while (counters := stage_figures(memory.board_words, "features")["counters"])["records"] < RECORDS:
            assert time.monotonic() < until, counters
            assert not select.select([supervisor], [], [], 0.05)[0], "the pipeline ended"
        found: dict[str, Any] = stage_figures(memory.board_words, "feed")["counters"]
        return found
    finally:
        os.close(supervisor)
        with contextlib.suppress(SegmentError, BufferError):
            memory.close()


@pytest.mark.usefixtures("own_folders")
def test_the_documents_venue_is_traded_recorded_and_checked(tmp_path: Path) -> None:
    """With one file and one row: rules from the venue, valid books of every symbol, prints, no gap and no frame unknown; then the
    same venue recorded by the command, and the recording proved right."""
    tree, instance = follow(tmp_path / "tree"), own_name("corner")
    with Server(*NAMES) as server:
        words = ["--config", "live-paper", "--instance", instance, "--timeout", f"{START_S:g}", *options(server)]
        started = scalperctl(tree, "start", *words, timeout_s=START_S + 60)
        assert started.returncode == OK, started.stderr
        try:
            feed = followed(instance)
        finally:
            stopped = scalperctl(tree, "stop", "--instance", instance)
        assert stopped.returncode == OK, stopped.stderr
        assert feed["gaps"] == feed["unknown"] == feed["malformed"] == 0
        kept = last_run.load(instance)
        assert kept is not None and kept.exit_code == 0 and cleanup.list_segments(instance) == []
        reader = JournalReader(journal_path(Path(kept.journal_dir), "market"), topology.RING["market"].record)
        reader.check()
        records = reader.records()
        for symbol in range(len(NAMES)):
            own = records[records["symbol"] == symbol]
            valid = (own["flags"] & int(Flag.BOOK_VALID)) != 0
            first = int(np.argmax(valid))
            assert valid.any() and valid[first:].all() and (own["kind"] == Kind.TRADE).sum() > 5, NAMES[symbol]
            assert (own["bid_ticks"][first:, 0] < own["ask_ticks"][first:, 0]).all()

        folder, address = tmp_path / "raw", server.endpoint
        recorded = scalperctl(
            tree, "record", "--venue", "corner", "--symbols", ",".join(NAMES), "--out", str(folder), "--seconds", "4", "--json",
            "--endpoint", f"stream={address['stream']},rest={address['rest']}", "--instance", own_name("corner-rec"),
            timeout_s=START_S,
        )  # fmt: skip
    assert recorded.returncode == OK, recorded.stdout + recorded.stderr
    said = json.loads(recorded.stdout)
    assert said["ok"] and said["frames"] > 400 and said["unknown"] == said["gaps"] == 0
    checked = scalperctl(tree, "data", "check", str(folder), "--json", timeout_s=START_S)
    assert checked.returncode == OK, checked.stdout + checked.stderr
    verdicts = {tuple(it["symbols"]): it for it in json.loads(checked.stdout)}
    assert set(verdicts) == {("AB",), ("CD",)}
    for verdict in verdicts.values():
        assert verdict["ok"] and verdict["venue"] == "corner" and verdict["unknown"] == 0 and verdict["depth_messages"] > 100
