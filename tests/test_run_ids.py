"""Runs that are found again: by id, by folder, after the supervisor's death, and with journals elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from procs import rundir
from procs.cli import last_run
from procs.cli.last_run import LastRun
from procs.cli.main import main
from procs.cli.outcome import NOT_RUNNING, OK, USAGE, CliError
from procs.profiles.config import load_profile, profile_json


@pytest.fixture
def state(closed_places: Path) -> Path:
    """The state directory of instance "t"."""
    return rundir.state_dir("t")


def ran(folder: Path, started: float, instance: str = "t", **more: Any) -> LastRun:
    """A run that left its note and one journal, last written 5 s after it began."""
    folder.mkdir(parents=True)
    (folder / "orders.journal").write_bytes(b"x" * 3)
    os.utime(folder / "orders.journal", (started + 5, started + 5))
    profile = msgspec.Raw(profile_json(load_profile("paper", {"instance": instance})))
    run = LastRun(instance=instance, profile=profile, journal_dir=str(folder), started=started, **more)
    last_run.note(run)
    return run


def test_runs_are_listed(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All runs with journals, the newest first: one that died with the time of its last journal, one elsewhere by its link."""
    ran(state / "journal" / "20240101T000000Z-1", 1000.0, ended=1060.0, figures={"rings": []})
    ran(state / "journal" / "20240102T000000Z-2", 2000.0)
    ran(tmp_path / "big" / "20240103T000000Z-3", 3000.0, ended=3001.0, exit_code=5)
    (state / "journal" / "not-a-run").mkdir()
    (state / "journal" / "damaged").mkdir()
    (state / "journal" / "damaged" / "run.json").write_bytes(b"{")
    assert main(["runs", "--json"]) == OK
    told = json.loads(capsys.readouterr().out)
    assert [(one["run"][-1], one["seconds"], one["ended"], one["bytes"] > 3) for one in told] == [
        ("3", 1.0, "with code 5", True), ("2", 5.0, "it died", True), ("1", 60.0, "in order", True),
    ]  # fmt: skip
    assert told[0]["journals"] == str(tmp_path / "big" / "20240103T000000Z-3")
    assert main(["runs", "--instance", "t"]) == OK and "it died" in capsys.readouterr().out
    assert main(["runs", "--instance", "u"]) == NOT_RUNNING and "has no run" in capsys.readouterr().err
    assert main(["runs", "--instance", "../x"]) == USAGE


def test_a_run_is_meant_by_id_folder_or_age(state: Path, tmp_path: Path) -> None:
    """By id, by a folder that was moved, else the newest, also if it died; figures are those of one that has them."""
    done = ran(state / "journal" / "a-1", 1000.0, ended=1060.0, figures={"rings": []})
    last_run.save(done)
    ran(state / "journal" / "b-2", 2000.0)
    assert last_run.wanted("t").id == "b-2" and last_run.wanted("").id == "b-2"
    assert last_run.wanted("t", figures=True).id == "a-1"
    assert last_run.wanted("", "a-1").seconds == 60.0
    (state / "journal" / "a-1").rename(tmp_path / "kept")
    assert last_run.wanted("", str(tmp_path / "kept")).journal_dir == str(tmp_path / "kept")
    with pytest.raises(CliError, match="b-2 has no figures: its supervisor died"):
        last_run.wanted("t", "b-2", figures=True)
    for wrong in ("c-3", str(tmp_path), "../b-2"):
        with pytest.raises(CliError, match=r"`scalperctl runs` lists|name a folder of journals") as error:
            last_run.wanted("t", wrong)
        assert error.value.code == USAGE


def test_an_empty_run_is_forgotten(state: Path, tmp_path: Path) -> None:
    """A run that failed before it wrote a journal leaves no folder, no link, and is not listed; one with journals stays."""
    failed = ran(tmp_path / "big" / "c-3", 3000.0)
    (Path(failed.journal_dir) / "orders.journal").unlink()
    last_run.forget_empty("t", Path(failed.journal_dir))
    assert not Path(failed.journal_dir).exists() and list((state / "elsewhere").iterdir()) == []
    kept = ran(state / "journal" / "d-4", 4000.0)
    last_run.forget_empty("t", Path(kept.journal_dir))
    assert [run.id for run in last_run.runs("t")] == ["d-4"]
