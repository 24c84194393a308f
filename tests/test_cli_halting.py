"""What the commands say of a halt that is not latched, and of a pipeline that stands still."""

from __future__ import annotations

import json

import pytest
from test_cli_commands import NAME, Supervised, own_places, run, supervised  # noqa: F401  fixtures

from procs.cli.outcome import UNHEALTHY
from procs.supervision import killswitch

# ruff: noqa: F811  an argument has its fixture's name


def test_a_halt_that_is_not_latched_says_so(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """The disk refused the latch: `halt trip` and `halt status` say NOT latched and end with 5, `status` too."""
    supervised.status |= {"unlatched": "halt.json: no room", "halted": "halted by x: y"}
    code, out, _ = run(capsys, "halt", "trip", "--reason", "no")
    assert code == UNHEALTHY and "halted by uid" in out and "NOT latched: halt.json: no room; the pipeline is halted" in out
    code, out, _ = run(capsys, "halt", "trip", "--reason", "no", "--json")
    assert code == UNHEALTHY and json.loads(out)["unlatched"].startswith("halt.json: no room")
    code, out, _ = run(capsys, "halt", "status")
    assert code == UNHEALTHY and out == f"{NAME}: halted by x: y, NOT latched: halt.json: no room\n"
    code, out, _ = run(capsys, "status", "--window", "0")
    assert code == UNHEALTHY and "the kill switch is NOT latched" in out


def test_a_halt_that_nobody_can_latch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No pipeline runs and the disk refuses: exit 5, the file and the remedy."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(killswitch, "_put", full)
    code, out, err = run(capsys, "halt", "trip", "--reason", "no", "--instance", "sleeping")
    assert code == UNHEALTHY and err == ""
    assert all(words in out for words in ("NOT latched", "halt.json", "No space left", "run this again"))


def test_a_pipeline_that_stands_still_for_want_of_disk(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` says it in the supervisor's sentence and ends with 5."""
    supervised.status["trouble"] = "the recorder has no room left on its disk: free some"
    code, out, _ = run(capsys, "status", "--window", "0")
    assert code == UNHEALTHY and "! the recorder has no room left" in out
    code, out, _ = run(capsys, "status", "--window", "0", "--json")
    assert code == UNHEALTHY and json.loads(out)["trouble"].startswith("the recorder has no room")
