"""The units under real systemd: booted in a container by scripts/test-systemd, which makes the tree and sets SCALPER_TREE.

The tests run in the order in which they stand, as an operator would act, on one booted machine. Each command runs inside
the container through nsenter: no bus and no machined of the host are needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(900)]

SERVICE = "scalper.service"
INSTANCE = "paper"
PATIENCE_S = 60.0
"""Only a hang is longer: a limit for what should come, not a claim about how soon."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"

NSPAWN = """
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
mkdir -p /sys/fs/cgroup/scalper-test-systemd && echo $$ >/sys/fs/cgroup/scalper-test-systemd/cgroup.procs || exit 1
exec systemd-nspawn --quiet --directory="$1" --boot --register=no --keep-unit --private-network --console=pipe \
    --capability=CAP_IPC_LOCK
"""
"""A private view of cgroup v2 (this machine may have v1, or none), and systemd as the container's init in a group of its own.

CAP_IPC_LOCK because nspawn lets nobody lock memory without it, which a real machine does within LimitMEMLOCK.
"""

PROBE = """
import ctypes, mmap, os, resource
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    if libc.syscall(number, *args) < 0 and ctypes.get_errno() in (1, 38):
        print(name, os.strerror(ctypes.get_errno()))
page = mmap.mmap(-1, 4096)
page[0] = 1
address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
call("membarrier register", 324, 1 << 2, 0, 0)
call("membarrier", 324, 1 << 1, 0, 0)
call("futex wake", 202, address, 1, 1, None, None, 0)
call("mlock", 149, address, ctypes.c_long(4096))
call("mbind", 237, address, ctypes.c_long(4096), 0, None, 0, 0)
call("move_pages", 279, 0, 1, ctypes.byref(address), None, ctypes.byref(ctypes.c_int()), 0)
call("pidfd_open", 434, os.getpid(), 0)
call("prctl subreaper", 157, 36, 1, 0, 0, 0)
os.sched_setaffinity(0, os.sched_getaffinity(0))
if resource.getrlimit(resource.RLIMIT_RTPRIO)[0] > 0:  # some virtual machines let nobody raise it
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
for forbidden in ("/etc/scalper-probe", "/usr/scalper-probe", "/sys/kernel/scalper-probe"):
    try:
        open(forbidden, "w")
        print("could write", forbidden)
    except OSError:
        pass
if libc.unshare(0x10000000) == 0:
    print("could make a user namespace")
"""
"""Prints what the sandbox wrongly refuses or allows; nothing when all is well."""


class Machine:
    """The booted container: runs commands in it, as root there."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The finished command with its output as text; its exit code is the caller's to judge."""
        enter = ["nsenter", "--target", str(self.leader), "--all", "env", "-i", f"PATH={PATH}"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def must(self, *command: str) -> str:
        """Standard output of a command that has to succeed; if not, the journal's end tells why."""
        done = self.run(*command)
        if done.returncode:
            journal = self.run("journalctl", "--no-pager", "-o", "cat", "-n", "40").stdout
            pytest.fail(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}\njournal:\n{journal}")
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """A file of the container."""
        self.must("sh", "-c", 'printf "%s" "$2" >"$1"', "sh", path, text)

    def show(self, unit: str, field: str) -> str:
        """One property of a unit."""
        return self.must("systemctl", "show", "--value", "--property", field, unit).strip()

    def kill(self, signal_name: str, pid: int) -> None:
        """Signals a process of the container, by its pid there; one that is gone already is no error."""
        self.run("sh", "-c", f"kill -s {signal_name} {pid}")  # the shell's own: the tree has no kill program

    def scalperctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        """scalperctl as the operator of the instance runs it."""
        return self.run("scalper-service", INSTANCE, *args)

    def status(self) -> dict[str, Any]:
        """`scalperctl status --json`, or {} while no supervisor answers."""
        done = self.scalperctl("status", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def await_that(self, what: str, condition: Callable[[], bool]) -> None:
        """Asks until it is so; each asking runs a process in the container, which is pause enough."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                journal = self.run("journalctl", "--no-pager", "-o", "cat", "-n", "40").stdout
                pytest.fail(f"not within {PATIENCE_S:.0f} s: {what}\n{self.scalperctl('status').stderr}\njournal:\n{journal}")

    def all_ready(self) -> bool:
        """Every stage runs and is ready."""
        stages = self.status().get("stages", [])
        return bool(stages) and all(stage["ready"] for stage in stages)

    def left(self) -> list[str]:
        """Processes of the service's user and its segments."""
        uid = self.must("id", "-u", "scalper").strip()
        found = self.must("find", "/proc", "-maxdepth", "1", "-uid", uid, "-name", "[0-9]*").split()
        return found + self.must("find", "/dev/shm", "-name", "scalper*").split()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted container with the units installed; powered off at the end."""
    tree = os.environ.get("SCALPER_TREE")
    if not tree:
        pytest.skip("no container tree: run scripts/test-systemd, which makes one")
    console = tmp_path_factory.mktemp("nspawn") / "console.log"
    with console.open("wb") as out:
        nspawn = subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", NSPAWN, "nspawn", tree], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        end = time.monotonic() + PATIENCE_S
        booted = None
        while booted is None:
            if nspawn.poll() is not None or time.monotonic() > end:
                pytest.fail(f"systemd-nspawn did not boot {tree}:\n{console.read_text(errors='replace')}")
            for child in psutil.Process(nspawn.pid).children():
                candidate = Machine(child.pid)
                if candidate.run("systemctl", "is-system-running", "--wait").stdout.strip() in ("running", "degraded"):
                    booted = candidate
        yield booted
        booted.run("systemctl", "poweroff")
        nspawn.wait(PATIENCE_S)
    finally:
        if nspawn.poll() is None:
            nspawn.kill()
            nspawn.wait()
        for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
            group = Path(root, "scalper-test-systemd")
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True) + [group]:
                if folder.is_dir():
                    folder.rmdir()


def test_units_are_well_formed(machine: Machine) -> None:
    """systemd-analyze finds nothing to say; its exit code alone would let unknown keys pass."""
    units = [f"/etc/systemd/system/{name}" for name in (SERVICE, "scalper.target")]
    units += [f"/etc/systemd/system/{name}" for name in ("scalper@paper.service", "scalper-failure@paper.service")]
    for unit in units[2:]:
        template = unit.replace("paper", "")
        machine.must("ln", "-sf", template, unit)
    done = machine.run("systemd-analyze", "verify", *units)
    machine.must("rm", *units[2:])
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_sandbox_lets_the_rings_work_and_nothing_else(machine: Machine) -> None:
    """Under sandbox.conf futex, membarrier, mlock, mbind, move_pages, pidfd, FIFO and JIT work; system paths are closed."""
    unit = "/run/systemd/system/scalper-probe.service"
    machine.write("/opt/scalper/probe.py", PROBE)
    machine.write(unit, "[Service]\nType=oneshot\nLimitMEMLOCK=infinity\nLimitRTPRIO=50\n"
                  "ExecStart=/opt/scalper/bin/python /opt/scalper/probe.py\n")  # fmt: skip
    machine.must("mkdir", f"{unit}.d")
    machine.must("cp", "/etc/systemd/system/scalper.service.d/sandbox.conf", f"{unit}.d/")
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "start", "scalper-probe.service")
    said = machine.must("journalctl", "-u", "scalper-probe", "-o", "cat", "--no-pager", "_COMM=python")
    assert said.strip() in ("", "-- No entries --")
    machine.must("systemd-analyze", "security", "--threshold=30", "--no-pager", SERVICE)


def test_start_is_done_when_the_pipeline_is_ready(machine: Machine) -> None:
    """`systemctl start` of the target returns after READY=1: every stage is ready, the run directory is the user's alone."""
    machine.must("systemctl", "enable", "--quiet", SERVICE)
    machine.must("systemctl", "start", "scalper.target")
    assert machine.show(SERVICE, "ActiveState") == "active"
    assert machine.all_ready()
    assert machine.show(SERVICE, "StatusText")
    assert machine.status()["supervisor"]["pid"] == int(machine.show(SERVICE, "MainPID"))
    assert machine.must("stat", "-c", "%U %a", f"/run/scalper/{INSTANCE}").split() == ["scalper", "700"]


def test_killed_stage_is_replaced(machine: Machine) -> None:
    """SIGKILL of each stage in turn: it comes back ready under another pid, and systemd has nothing to restart."""

    def is_back(name: str, old_pid: int) -> bool:
        now = {stage["name"]: stage for stage in machine.status().get("stages", [])}
        return name in now and bool(now[name]["ready"]) and now[name]["pid"] not in (0, None, old_pid)

    for stage in machine.status()["stages"]:
        machine.kill("KILL", stage["pid"])
        machine.await_that(f"stage {stage['name']} is back", partial(is_back, stage["name"], stage["pid"]))
    assert machine.show(SERVICE, "NRestarts") == "0"
    assert machine.show(SERVICE, "ActiveState") == "active"


def test_frozen_supervisor_is_killed_and_restarted(machine: Machine) -> None:
    """SIGSTOP of the supervisor: the watchdog kills it and all its stages, and the pipeline comes back ready by itself."""
    before = machine.status()
    old = [before["supervisor"]["pid"], *(stage["pid"] for stage in before["stages"])]
    machine.kill("STOP", old[0])
    machine.await_that("systemd restarted the service", lambda: machine.show(SERVICE, "NRestarts") == "1")
    machine.await_that("the service is active", lambda: machine.show(SERVICE, "ActiveState") == "active")
    assert machine.all_ready()
    assert machine.status()["supervisor"]["pid"] not in old
    assert "watchdog" in machine.must("journalctl", "-u", SERVICE, "-o", "cat", "--no-pager").lower()
    assert [pid for pid in old if machine.run("test", "-d", f"/proc/{pid}").returncode == 0] == []


def test_stop_leaves_nothing(machine: Machine) -> None:
    """Stopping the target stops the service; then no process of its user and no segment remains, and the result is success."""
    machine.must("systemctl", "stop", "scalper.target")
    assert machine.show(SERVICE, "ActiveState") in ("deactivating", "inactive")
    machine.must("systemctl", "stop", SERVICE)  # waits for the stop that is under way
    assert machine.show(SERVICE, "ActiveState") == "inactive"
    assert machine.show(SERVICE, "Result") == "success"
    assert machine.left() == []


def test_template_runs_a_profile_by_name(machine: Machine) -> None:
    """scalper@paper is the profile paper: it gets ready, and stops without a trace."""
    unit = f"scalper@{INSTANCE}.service"
    machine.must("systemctl", "start", unit)
    assert machine.show(unit, "ActiveState") == "active"
    assert machine.all_ready()
    machine.must("systemctl", "stop", unit)
    assert machine.show(unit, "Result") == "success"
    assert machine.left() == []


def test_crash_loop_trips_the_kill_switch(machine: Machine) -> None:
    """Supervisors killed beyond StartLimitBurst: the unit stays failed, its OnFailure unit latches the halt and cleans up."""
    machine.must("systemctl", "start", SERVICE)
    failure = f"scalper-failure@{INSTANCE}.service"

    def killed_for_good() -> bool:
        if machine.show(SERVICE, "ActiveState") == "failed":
            return True
        pid = machine.show(SERVICE, "MainPID")
        if pid != "0":
            machine.kill("KILL", int(pid))
        return False

    machine.await_that("the start limit is reached", killed_for_good)
    machine.await_that("the failure unit has run", lambda: machine.show(failure, "ExecMainExitTimestampMonotonic") != "0"
                       and machine.show(failure, "ActiveState") in ("inactive", "failed"))  # fmt: skip
    said = machine.must("journalctl", "-u", failure, "-o", "cat", "--no-pager")
    assert machine.show(failure, "Result") == "success", said
    assert f"instance {INSTANCE} has failed" in said
    assert "systemd: the unit" in machine.scalperctl("halt", "status").stdout
    assert machine.left() == []
