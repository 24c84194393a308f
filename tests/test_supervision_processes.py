"""The supervisor over real processes: starts, deaths, hangs, stops. Waits are on log lines and pidfds, with a limit."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised_runs import LIMIT_S, Run, gone
from supervised_stages import (
    CRASH,
    CRASH_AT_START,
    HALTED,
    HANG,
    HEARTBEAT,
    IGNORE_TERM,
    NEVER_READY,
    OBEY,
    ORPHAN,
    QUIT,
    STAGES,
)  # fmt: skip

from procs import rundir
from procs.supervision import control, killswitch, nursery


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for everything that an instance keeps."""
    for variable, name in (("XDG_RUNTIME_DIR", "r"), ("XDG_STATE_HOME", "s"), ("XDG_CACHE_HOME", "c")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    for variable in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(rundir, "SYSTEM_STATE", tmp_path / "no-system")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Any]:
    """Starts runs, and ends those that a test left."""
    runs: list[Run] = []

    def begin(overrides: dict[str, Any] | None = None, **commands: int) -> Run:
        runs.append(Run(folder, overrides or {}, commands))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait(LIMIT_S)
        assert run.process.stderr is not None
        run.process.stderr.close()


def test_a_finished_run_ends_with_0_and_leaves_nothing(start: Any, folder: Path) -> None:
    """Stages start in order; an orderly stop runs END through all; no process, descriptor, segment or socket is left."""
    run = start()
    pids = run.running()
    started = [line["stage"] for line in run.lines if line.get("now") == "STARTING" and line["stage"] != "zygote"]
    assert started == list(STAGES)
    fds = [os.pidfd_open(pid) for pid in pids.values()]
    assert control.request("t", {"do": "stop"})["phase"] == "draining"
    assert run.end() == 0
    assert gone(fds)
    assert run.left()["fds"] == 0 and run.left()["children"] == 0
    assert not (folder / "r/scalper/t/control.sock").exists()
    assert not Path(f"{run.board_path}.segments").exists()
    assert sorted(p.name for p in (folder / "r/scalper/t").iterdir()) == ["lock", "log"]
    assert rundir.holder("t") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_orderly_stop(start: Any, number: int) -> None:
    """SIGTERM and SIGINT drain; SIGHUP changes nothing."""
    run = start()
    run.running()
    run.process.send_signal(signal.SIGHUP)
    run.process.send_signal(number)
    run.until("phase", phase="draining")
    assert run.end() == 0


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_comes_back_at_once(start: Any, stage: str) -> None:
    """kill -9 of any stage: the next incarnation is ready, the others keep their processes."""
    run = start()
    before = run.running()
    os.kill(before[stage], signal.SIGKILL)
    crash = run.until("crash", stage=stage)
    assert crash["ended_by"] == "SIGKILL" and crash["now"] == "STARTING"
    run.until("state", stage=stage, now="RUNNING")
    after = run.pids()
    assert after[stage] != before[stage]
    assert {k: v for k, v in after.items() if k != stage} == {k: v for k, v in before.items() if k != stage}
    run.process.terminate()
    assert run.end() == 0


def standbys(run: Run, *killed: int) -> list[int]:
    """Pids of the children that were forked ahead, once as many wait as are kept, none of them `killed`."""
    for _ in range(100_000):
        found: list[int] = control.request("t", {"do": "status"})["standbys"]
        if len(found) == nursery.STANDBYS and not set(found) & set(killed):
            return found
    raise AssertionError(f"{len(found)} children wait")


def test_many_kills_leave_no_zombie_and_no_descriptor(start: Any) -> None:
    """Sixty kills, over all stages, the zygote and a child that waits: every one comes back, and nothing accumulates."""
    run = start({"supervisor": {"max_restarts": 1000, "backoff_min_ms": 0, "backoff_max_ms": 0}})
    pids = run.running()
    names = [*STAGES, "zygote", "standby"]
    waiting = standbys(run)
    descriptors = run.descriptors()
    for n in range(60):
        name = names[n % len(names)]
        killed = pids[name] if name != "standby" else waiting[0]
        os.kill(killed, signal.SIGKILL)
        if name != "standby":
            run.until("state", stage=name, now="RUNNING")
        pids, waiting = run.pids(), standbys(run, killed)
    assert run.descriptors() <= descriptors
    for _ in range(100_000):  # the memory of those killed last goes a little later
        with open(f"/proc/{run.process.pid}/task/{run.process.pid}/children", encoding="ascii") as file:
            if (found := sorted(map(int, file.read().split()))) == sorted([*pids.values(), *waiting]):
                break
    assert found == sorted([*pids.values(), *waiting])
    assert sum(line.get("event") == "kernels" for line in run.lines) == len(STAGES), "one zygote loaded, the others followed it"
    run.process.terminate()
    assert run.end() == 0
    assert run.left() == run.left() | {"fds": 0, "children": 0}


def test_a_child_that_waited_becomes_the_stage_or_the_zygote(start: Any) -> None:
    """A stage and the zygote that die at once are two of those that waited; nothing is loaded, and new ones wait."""
    run = start()
    pids, waiting = run.running(), standbys(run)
    os.kill(run.process.pid, signal.SIGSTOP)  # so that it sees both at once
    fds = [os.pidfd_open(pids[name]) for name in ("middle", "zygote")]
    for name in ("middle", "zygote"):
        os.kill(pids[name], signal.SIGKILL)
    assert gone(fds)
    os.kill(run.process.pid, signal.SIGCONT)
    run.until("state", stage="middle", now="RUNNING")
    after = run.pids()
    assert {after["middle"], after["zygote"]} == set(waiting) and after["sink"] == pids["sink"]
    standbys(run, *waiting)
    assert sum(line.get("event") == "kernels" for line in run.lines) == len(STAGES)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_zygote_and_all_who_could_follow_it(start: Any, number: int) -> None:
    """Where nobody is left who waited, or they hang, a stage waits for a zygote that loads anew; the other stages live on."""
    run = start()
    pids = run.running()
    waiting = standbys(run)
    os.kill(run.process.pid, signal.SIGSTOP)
    for pid in waiting:
        os.kill(pid, number)
    os.kill(pids["zygote"], signal.SIGKILL)
    os.kill(run.process.pid, signal.SIGCONT)
    run.until("kernels")
    os.kill(pids["middle"], signal.SIGKILL)
    run.until("crash", stage="middle")
    run.until("state", stage="middle", now="RUNNING")
    after = run.pids()
    assert after["sink"] == pids["sink"] and after["zygote"] not in (pids["zygote"], *waiting)
    standbys(run, *waiting)


def test_a_zygote_killed_while_it_follows(start: Any) -> None:
    """Stage and zygote are killed, and the next zygote as soon as it has a pid, five times: all come back, the rest lives on."""
    run = start({"supervisor": {"max_restarts": 1000, "backoff_min_ms": 0, "backoff_max_ms": 0}})
    pids = run.running()
    sink, killed = pids["sink"], set[int]()
    for _ in range(5):
        for name in ("zygote", "middle", "zygote"):
            while pids[name] is None or pids[name] in killed:
                pids = run.pids()
            os.kill(pids[name], signal.SIGKILL)
            killed.add(pids[name])
        while not all(one["ready"] and one["pid"] not in killed for one in control.request("t", {"do": "status"})["stages"]):
            pids = run.pids()
    standbys(run)
    assert run.pids()["sink"] == sink
    run.process.terminate()
    assert run.end() == 0
    assert run.left() == run.left() | {"fds": 0, "children": 0}


def test_a_stuck_zygote_is_replaced(start: Any) -> None:
    """A SIGSTOPped zygote forks nobody: stages come from those that wait, it is killed, and one of them takes its place."""
    run = start()
    pids, waiting = run.running(), standbys(run)
    os.kill(pids["zygote"], signal.SIGSTOP)
    os.kill(pids["source"], signal.SIGKILL)
    run.until("state", stage="source", now="RUNNING")
    run.until("zygote is stuck")
    run.until("state", stage="zygote", now="RUNNING")
    after = run.pids()
    assert {after["source"], after["zygote"]} == set(waiting)
    standbys(run, *waiting)


@pytest.mark.parametrize("how", ["command", "SIGSTOP"])
def test_a_hang_is_killed_and_restarted(start: Any, how: str) -> None:
    """A heartbeat that stands still, by a hung loop or a stopped process, ends in SIGKILL and a new incarnation."""
    run = start({"supervisor.heartbeat_timeout_ms": 1000})
    pids = run.running()
    if how == "SIGSTOP":
        os.kill(pids["middle"], signal.SIGSTOP)
    else:
        run.board["middle", 3] = HANG
    kill = run.until("kill", stage="middle")
    assert "no heartbeat" in kill["reason"]
    run.board["middle", 3] = OBEY
    run.until("state", stage="middle", now="RUNNING")
    assert run.pids()["middle"] != pids["middle"]


def test_never_ready_is_a_crash(start: Any) -> None:
    """A stage that lives but does not get ready within start_timeout_ms is killed and tried again."""
    run = start({"supervisor.start_timeout_ms": 1000}, middle=NEVER_READY)
    run.until("kill", stage="middle")
    run.board["middle", 3] = OBEY
    run.running()


def test_a_crash_loop_trips_the_kill_switch(start: Any) -> None:
    """Past the restart intensity: FATAL, latched on disk, risk told, the other stages live; a person's restart leaves it."""
    run = start({"supervisor.max_restarts": 3})
    pids = run.running()
    run.board["source", 3] = CRASH_AT_START
    os.kill(pids["source"], signal.SIGKILL)
    run.until("crash loop")
    run.until("halted")
    status = control.request("t", {"do": "status"})
    assert status["halted"] and status["phase"] == "running"
    assert {s["name"]: s["actual"] for s in status["stages"]}["source"] == "FATAL"
    assert run.board["middle", HALTED] == 1 and killswitch.status("t")
    assert status["stages"][0]["pid"] == pids["sink"]
    assert any(line.get("last_line") == "cannot start: told so" for line in run.lines)
    run.board["source", 3] = OBEY
    control.request("t", {"do": "restart", "stage": "source"})
    run.until("state", stage="source", now="RUNNING")
    assert run.board["middle", HALTED] == 1, "a restart does not lift the halt"
    control.request("t", {"do": "resume", "reason": "mended"})
    assert run.board["middle", HALTED] == 0 and not killswitch.status("t")
    control.request("t", {"do": "stop"})
    assert run.end() == 0


def test_a_crash_loop_ends_a_start(start: Any) -> None:
    """A stage that is given up before all were ready ends the start at once, with its last line and the kill switch's state."""
    run = start({"supervisor.max_restarts": 2}, middle=CRASH_AT_START)
    assert run.end() == 3
    said = next(line for line in run.lines if line.get("event") == "did not start")
    assert said["problem"].startswith("middle ended 3 times within 60 s, last by exit 3: cannot start: told so; the kill switch")
    assert "scalperctl halt reset --instance t" in said["problem"] and killswitch.status("t")
    assert run.left()["children"] == 0


def test_a_start_that_never_gets_ready_ends(start: Any) -> None:
    """Starts that are too slow to fill the window of a crash loop are given up all the same, after as many tries."""
    overrides = {"supervisor.max_restarts": 2, "supervisor.start_timeout_ms": 1000, "supervisor.window_s": 0.5}
    run = start(overrides, middle=NEVER_READY)
    assert run.end() == 3
    said = next(line for line in run.lines if line.get("event") == "did not start")
    assert "middle was not ready after 3 starts" in said["problem"]


def test_a_pipeline_that_stands_still_is_told(start: Any) -> None:
    """What the pipeline says keeps it from going on is logged as it comes and goes, and stands in the status meanwhile."""
    run = start()
    run.running()
    assert control.request("t", {"do": "status"})["trouble"] is None
    run.board["source", HALTED] = 1
    assert run.until("stands still")["problem"] == "no room left"
    assert control.request("t", {"do": "status"})["trouble"] == "no room left"
    run.board["source", HALTED] = 0
    run.until("goes on again")
    run.board["source", HALTED] = 1
    run.until("stands still")
    control.request("t", {"do": "stop"})
    assert run.end() == 5, "what could not be written to the end is no clean stop"


def test_what_stands_in_the_latchs_place_halts(start: Any, folder: Path) -> None:
    """A link where the latch belongs is not followed and nothing is reserved: the run starts halted."""
    (rundir.state_dir("t") / "halt.json").symlink_to(folder / "nowhere" / "x")
    run = start()
    assert "cannot be read" in run.until("starts halted")["latch"]
    run.running()
    assert run.board["middle", HALTED] == 1


def test_a_crash_loop_ends_a_replay(start: Any, folder: Path) -> None:
    """A replay has no orders at a venue: it fails with 3 and latches nothing."""
    run = start({"supervisor.max_restarts": 2, "world": "replay"}, middle=CRASH_AT_START)
    assert run.end() == 3
    assert run.left()["children"] == 0 and not killswitch.status("t")


def test_exit_0_without_the_end_is_a_crash(start: Any) -> None:
    """A stage that returns 0 although END did not come through is restarted."""
    run = start()
    run.running()
    run.board["sink", 3] = QUIT
    assert run.until("crash", stage="sink")["ended_by"] == "exit 0"
    run.board["sink", 3] = OBEY


def test_a_crash_while_draining_is_restarted(start: Any) -> None:
    """END must come through: a stage that dies during the stop comes back and finishes; the exit code is 0."""
    run = start()
    pids = run.running()
    run.board["middle", 3] = IGNORE_TERM  # keeps END to itself for now
    control.request("t", {"do": "stop"})
    os.kill(pids["middle"], signal.SIGKILL)
    run.until("crash", stage="middle")
    run.board["middle", 3] = OBEY
    assert run.end() == 0
    assert any(line.get("stage") == "sink" and line.get("now") == "EXITED" for line in run.lines)


def test_a_stop_that_takes_too_long_ends_by_signals(start: Any) -> None:
    """A stage that neither ends nor heeds SIGTERM is killed, feed first; the exit code says so."""
    run = start({"supervisor.stop_timeout_ms": 100}, middle=IGNORE_TERM)
    run.running()
    control.request("t", {"do": "stop"})
    assert run.end() == 5
    assert any(line.get("event") == "kill" and line["stage"] == "middle" for line in run.lines)
    assert run.left() == run.left() | {"fds": 0, "children": 0}


def test_a_second_signal_does_not_wait(start: Any) -> None:
    """SIGINT twice: the drain is cut short."""
    run = start({"supervisor.stop_timeout_ms": 3_000_000}, middle=IGNORE_TERM)
    run.running()
    run.process.send_signal(signal.SIGINT)
    run.until("phase", phase="draining")
    run.process.send_signal(signal.SIGINT)
    run.until("phase", phase="stopping")
    assert run.end() == 5


def test_nothing_outlives_a_killed_supervisor(start: Any) -> None:
    """kill -9 of the supervisor: the kernel kills zygote and stages; the name is free again."""
    run = start()
    fds = [os.pidfd_open(pid) for pid in run.running().values()]
    run.process.kill()
    assert gone(fds)
    run.process.wait(LIMIT_S)
    assert rundir.holder("t") == 0
    again = start()
    again.running()


def test_orphans_of_a_stage_are_reaped(start: Any) -> None:
    """A stage's child that outlives it falls to the supervisor, and is not left behind."""
    run = start({}, middle=ORPHAN)
    pids = run.running()
    with open(f"/proc/{pids['middle']}/task/{pids['middle']}/children", encoding="ascii") as file:
        orphan = os.pidfd_open(int(file.read().split()[0]))
    run.board["middle", 3] = OBEY
    os.kill(pids["middle"], signal.SIGKILL)
    run.until("state", stage="middle", now="RUNNING")
    run.process.terminate()
    assert run.end() == 0
    assert gone([orphan]) and run.left()["children"] == 0


def test_two_of_one_name(start: Any) -> None:
    """The second is refused with the holder's pid and a remedy, and the first is not disturbed."""
    run = start()
    pids = run.running()
    second = start()
    line = second.until("busy")
    assert f"pid {run.process.pid}" in line["problem"] and "scalperctl stop" in line["problem"]
    assert second.end() == 4
    assert run.pids() == pids


def test_an_import_error_is_told(start: Any) -> None:
    """A stage module that cannot be imported: exit 1, the error's own words, nothing left."""
    run = start({"module": "no_such_stage_module"})
    assert run.end() == 1
    failed = next(line for line in run.lines if line.get("event") == "failed")
    assert "no_such_stage_module" in failed["problem"] and "zygote.log" in failed["problem"]
    assert run.left() == run.left() | {"fds": 0, "children": 0}


def test_a_latched_instance_starts_halted(start: Any, folder: Path) -> None:
    """The latch survives the process that set it; the next start tells risk before any stage runs."""
    killswitch.trip("t", "a person", "look at the fills")
    run = start()
    assert "look at the fills" in run.until("starts halted")["latch"]
    run.running()
    assert run.board["middle", HALTED] == 1
    killswitch.reset("t", "a person", "looked")
    run.until("resumed")
    assert run.board["middle", HALTED] == 0


def test_halt_by_request_and_by_file(start: Any) -> None:
    """`halt` latches and tells risk; a latch set by another process does too."""
    run = start()
    run.running()
    assert "why not" in control.request("t", {"do": "halt", "reason": "why not"})["halted"]
    run.until("halted")
    assert run.board["middle", HALTED] == 1 and killswitch.status("t")
    control.request("t", {"do": "resume", "reason": "because"})
    run.until("resumed")
    assert run.board["middle", HALTED] == 0
    killswitch.trip("t", "watchdog", "by file")
    run.until("halted")
    assert run.board["middle", HALTED] == 1


def test_operator_restart(start: Any) -> None:
    """`restart` gives a new incarnation and counts no crash; unknown stages are refused by name."""
    run = start()
    pids = run.running()
    control.request("t", {"do": "restart", "stage": "sink"})
    run.until("state", stage="sink", now="RUNNING")
    stage = control.request("t", {"do": "status"})["stages"][0]
    assert stage["pid"] != pids["sink"] and stage["crashes"] == 0 and stage["incarnation"] == 2
    with pytest.raises(control.ControlError, match=r"no stage 'snk': there are sink, middle, source"):
        control.request("t", {"do": "restart", "stage": "snk"})


def test_systemd_hears_ready_progress_and_stopping(start: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY once all stages are ready; WATCHDOG while every heartbeat moves, and none while one stands still; STOPPING."""
    path = folder / "notify"
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(path))
        server.settimeout(LIMIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        run = start({"supervisor.heartbeat_timeout_ms": 2000})
        said: list[str] = []

        def hear(what: str) -> None:
            while not said or what not in said[-1]:
                said.append(server.recv(4096).decode())

        hear("READY=1")
        assert not any("WATCHDOG" in s for s in said)
        hear("WATCHDOG=1")
        pids = run.running()
        os.kill(pids["middle"], signal.SIGSTOP)
        with contextlib.suppress(BlockingIOError):
            server.setblocking(False)
            while True:
                server.recv(4096)
        server.settimeout(LIMIT_S)
        said.clear()
        hear("STATUS=")  # the hang is found and the stage killed: until then at most one more beat was fed
        assert sum("WATCHDOG" in s for s in said) <= 1
        run.until("state", stage="middle", now="RUNNING")
        hear("WATCHDOG=1")
        control.request("t", {"do": "stop"})
        hear("STOPPING=1")
        assert run.end() == 0


def test_stop_and_wait(start: Any) -> None:
    """The client's stop returns when the supervisor is gone."""
    run = start()
    run.running()
    # the supervisor is our child: it must be reaped to be gone, which `communicate` elsewhere would do
    assert control.stop_and_wait("t", LIMIT_S)
    assert run.end() == 0
    with pytest.raises(control.NotRunningError):
        control.request("t", {"do": "ping"})


def test_heartbeats_are_seen(start: Any) -> None:
    """A stage that crashes after running long is restarted at once, with its words and count in the status."""
    run = start()
    run.running()
    run.board["source", 3] = CRASH
    run.until("crash", stage="source", ended_by="exit 9")
    run.board["source", 3] = OBEY
    run.until("state", stage="source", now="RUNNING")
    assert run.board["source", HEARTBEAT] > 0
    stage = control.request("t", {"do": "status"})["stages"][2]
    assert stage["last_end"] == "exit 9" and stage["crashes"] >= 1
