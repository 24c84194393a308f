"""A stage that the pipeline can do without, over real processes: its end delays nothing, trips nothing, and fails nothing."""

from __future__ import annotations

from typing import Any

import pytest
from supervised_stages import ASIDE, CRASH_AT_START, HALTED, HANG, NEVER_READY, OBEY, STAGES, STOP
from test_supervision_processes import folder, start  # noqa: F401

from procs.supervision import control, killswitch


@pytest.mark.parametrize("command", [CRASH_AT_START, NEVER_READY, OBEY, HANG])
def test_a_stage_that_nobody_needs_delays_and_trips_nothing(start: Any, command: int) -> None:  # noqa: F811
    """Whether it runs, crashes for ever, hangs or never gets ready: the pipeline runs, nothing is latched, the end is 0."""
    run = start({"aside": True, "supervisor.max_restarts": 3, "supervisor.heartbeat_timeout_ms": 1000}, aside=command)
    pids = run.running()
    if command == CRASH_AT_START:
        assert run.until("given up", stage=ASIDE)["pipeline"] == "goes on without it"
        status = control.request("t", {"do": "status"})
        assert {s["name"]: s["actual"] for s in status["stages"]}[ASIDE] == "FATAL"
        assert status["phase"] == "running" and not status["halted"] and not killswitch.status("t")
        run.board[ASIDE, 3] = OBEY
        control.request("t", {"do": "restart", "stage": ASIDE})
        run.until("state", stage=ASIDE, now="RUNNING")
    elif command == HANG:
        assert "no heartbeat" in run.until("crash", stage=ASIDE)["ended_by"]
    assert {name: pid for name, pid in run.pids().items() if name in STAGES} == {name: pids[name] for name in STAGES}
    assert run.board["middle", HALTED] == 0
    control.request("t", {"do": "stop"})
    assert run.end() == 0
    assert run.left() == run.left() | {"fds": 0, "children": 0}


def test_a_stage_that_nobody_needs_ends_with_the_others(start: Any) -> None:  # noqa: F811
    """When END came through all others it is ended by SIGTERM; given up, it does not hinder the end either."""
    run = start({"aside": True})
    run.running()
    run.until("state", stage=ASIDE, now="RUNNING")
    run.board["source", STOP] = 1
    assert run.end() == 0
    assert any(line.get("stage") == ASIDE and line.get("now") == "STOPPED" for line in run.lines)
