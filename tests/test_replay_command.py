"""`scalperctl replay`: which session it means, what it says, and with which exit code it ends."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fold_world import undisturbed
from test_cli_commands import own_places, run  # noqa: F401  fixtures
from test_refold import written

from procs import rundir
from procs.cli import last_run
from procs.cli.outcome import FAILED, NOT_RUNNING, OK, USAGE
from procs.fold.plan import plan_of
from procs.journal.file import journal_path
from procs.profiles.config import load_profile, profile_json
from procs.profiles.schema import Profile
from trading.jit import Recs

ID = "20240808T000000Z-4711"


@pytest.fixture(scope="module")
def profile() -> Profile:
    """A short generated market."""
    return load_profile("paper", {"source.speed": "max", "generator.duration_s": 14.0})


@pytest.fixture(scope="module")
def kept(profile: Profile) -> dict[str, Recs]:
    """All its records."""
    return undisturbed(plan_of(profile))


@pytest.fixture
def session(profile: Profile, kept: dict[str, Recs]) -> Path:
    """The folder of a run of it, as the recorder and the supervisor leave one."""
    folder = rundir.state_dir(profile.instance) / last_run.JOURNALS / ID
    folder.mkdir(parents=True)
    written(folder, kept)
    last_run.note(last_run.LastRun(
        instance=profile.instance, profile=msgspec.Raw(profile_json(profile)), journal_dir=str(folder), started=1.0, ended=15.0,
        frames=1000,
    ))  # fmt: skip
    return folder


def test_a_session_is_verified_by_id_by_folder_and_by_instance(
    capsys: pytest.CaptureFixture[str], session: Path, kept: dict[str, Recs]
) -> None:
    """Three names of one run; 0 where all is equal, and every ring of which there is a journal is in the table or named as what
    entered."""
    code, out, _ = run(capsys, "replay", ID, "--verify", "--json")
    found = json.loads(out)
    assert code == OK and found["equal"] and found["whole"] and not found["living"] and found["session"] == ID
    assert {one["ring"]: one["equal"] for one in found["rings"] if not one["ring"].startswith("intake.")} == {
        name: len(recs) for name, recs in kept.items()
        if name not in ("control", "frames") and not name.startswith("intake.")
    }  # fmt: skip
    assert found["not_compared"] == {"control": "is what entered"}
    for name in (str(session), "paper"):
        code, out, _ = run(capsys, "replay", name, "--verify")
        assert code == OK and f"session {ID} folds again" in out and "differs" not in out


def test_the_first_difference_of_a_ring_is_shown(
    capsys: pytest.CaptureFixture[str], session: Path, kept: dict[str, Recs]
) -> None:
    """1 where a record is another one: ring, sequence, field, what it was, what it is."""
    path, width = journal_path(session, "signals"), kept["signals"].dtype.itemsize
    altered = kept["signals"][7].copy()
    altered["bid_ticks"] += 1
    with path.open("r+b") as file:
        file.seek(4096 + 7 * width)
        file.write(altered.tobytes())
    code, out, _ = run(capsys, "replay", ID, "--verify", "--json")
    found = {one["ring"]: one["difference"] for one in json.loads(out)["rings"]}
    was, now = int(altered["bid_ticks"]), int(kept["signals"][7]["bid_ticks"])
    assert code == FAILED and found.pop("signals") == {"sequence": 7, "field": "bid_ticks", "was": was, "now": now}
    assert set(found.values()) == {None}
    code, out, _ = run(capsys, "replay", ID, "--verify")
    assert code == FAILED and f"differs: record 7, bid_ticks: was {was}, is {now}" in out
    assert f"session {ID} does not fold again: signals differs" in out


def test_without_verify_it_is_the_report_of_what_is_made_anew(capsys: pytest.CaptureFixture[str], session: Path) -> None:
    """The same figures as `report` has of the journals."""
    code, out, _ = run(capsys, "replay", ID, "--json")
    again = json.loads(out)
    assert code == OK
    code, out, _ = run(capsys, "report", "--run", ID, "--json")
    before = json.loads(out)
    assert code == OK
    for figure in ("order_digest", "fill_digest"):
        assert before["ran"][figure] == again["ran"][figure]
    code, out, _ = run(capsys, "replay", ID)
    assert code == OK and f"REPLAY OF {ID}" in out


def test_what_cannot_be_folded_again_is_said(capsys: pytest.CaptureFixture[str], session: Path) -> None:
    """One sentence with the place, and the documented code: no such run, no such instance, no name, a journal that is missing or
    damaged."""
    for word, code, said in (
        ("20240808T000000Z-1", USAGE, "no run"), ("nobody", NOT_RUNNING, "nobody"), ("No Name", USAGE, "instance"),
        ("/nowhere/at-all", USAGE, "/nowhere/at-all"),
    ):  # fmt: skip
        found, out, err = run(capsys, "replay", word, "--verify")
        assert found == code and out == "" and said in err and err.count("\n") == 1, word
    path = journal_path(session, "orders")
    with path.open("r+b") as file:
        file.seek(-8, 2)
        file.write(np.int64(3).tobytes())
    code, _, err = run(capsys, "replay", ID, "--verify")
    assert code == FAILED and "orders.journal" in err and "damaged" in err
    path.unlink()
    code, _, err = run(capsys, "replay", ID, "--verify")
    assert code == FAILED and "lacks orders" in err and "pipeline.journal" in err
