"""The zygote: loads, forks single-threaded, hands its children to the subreaper, and dies with it.

The parent is a process of its own (this file as a program), because it must be a subreaper with no other children.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
LIMIT_S = 120.0
GENERATIONS = 4


def warm(profile: Any) -> None:
    """As a stage module's."""
    if profile.instance == "bad-warm":
        raise RuntimeError("kernel does not compile")
    if profile.instance == "cold":
        # as numba does: machine code appears in the cache, the process has grown by compiling
        Path(os.environ["NUMBA_CACHE_DIR"], "kernel.nbc").touch()
    if profile.instance == "threads":
        import threading

        threading.Thread(target=signal.pause, daemon=True).start()


def run_stage(name: str, runtime: Mapping[str, Any]) -> int:
    """Reports on itself into a file, then does what its name says."""
    status = Path("/proc/self/status").read_text()
    sockets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                sockets.append(int(fd))
    told = {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "comm": Path("/proc/self/comm").read_text().strip(),
        "started_ns": time.monotonic_ns(),
        "requested_ns": runtime["requested_mono_ns"],
        "incarnation": runtime["incarnation"],
        "instance": runtime["profile"].instance,
        "extra": runtime["extra"],
        "sockets": sockets,
        "blocked": next(line for line in status.splitlines() if line.startswith("SigBlk")),
        "ignored": next(line for line in status.splitlines() if line.startswith("SigIgn")),
        "threads_env": os.environ["OPENBLAS_NUM_THREADS"],
        "depth": len(list(traceback.walk_stack(None))),
    }
    path = Path(runtime["run_dir"]) / f"{name}.{runtime['incarnation']}.json"
    path.with_suffix(".new").write_text(json.dumps(told))
    path.with_suffix(".new").rename(path)
    match name:
        case "returns":
            return 7
        case "raises":
            raise RuntimeError("words for the log")
        case "exits":
            sys.exit(5)
        case _:
            signal.pause()
            return 0


def parent(folder: str, instance: str, stages: list[str], then: str) -> None:
    """Plays the supervisor: starts a zygote, asks for stages, prints what it hears and how they end."""
    import msgspec

    from procs.profiles.config import load_profile, profile_json
    from procs.supervision.forking import PR_SET_CHILD_SUBREAPER, prctl
    from procs.supervision.packets import Begin, Bred, Breed, Failed, Lead, Ready, Spawn
    from procs.supervision.zygote_client import Child, exec_zygote

    prctl(PR_SET_CHILD_SUBREAPER, 1)
    profile = load_profile("paper", {"instance": instance})
    begin = Begin(
        profile=msgspec.Raw(profile_json(profile)),
        stages=dict.fromkeys(stages, "test_zygote_fork" if instance != "no-module" else "no_such_module"),
        runner="test_zygote_fork:run_stage",
        runtime={"run_dir": folder, "extra": [1, "x"]},
        numba={"NUMBA_CACHE_DIR": folder},
        log_dir=folder,
    )
    client = exec_zygote(begin, Path(folder) / "zygote.log")
    heard: list[Any] = []
    said: list[str] = []

    def hear(of: Child, kind: type) -> Any:
        while True:
            for entry in heard:
                if isinstance(entry[0], kind):
                    heard.remove(entry)
                    return entry
            if not select.select([of.channel], [], [], LIMIT_S)[0]:
                raise TimeoutError(f"no {kind}")
            new = of.messages()
            heard.extend(new)
            said.extend(type(m).__name__ for m, _ in new)
            if any(isinstance(m, Failed) for m, _ in new):
                print(json.dumps({"failed": [m.error for m, _ in new if isinstance(m, Failed)][0]}), flush=True)
                sys.exit(0)
            if not new:
                raise EOFError(f"the zygote hung up; wanted {kind}")

    def bred(by: Child) -> Child:
        assert by.send(Breed())
        message, channel = hear(by, Bred)
        return Child(message.pid, channel)

    def ends(child: Child) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])

    hear(client, Ready)
    if instance == "cold":
        print(json.dumps({"said": said}), flush=True)
    if then == "lead":
        told: list[Any] = []
        for n in range(GENERATIONS):
            heir = bred(client)
            client.kill(signal.SIGKILL)
            end = ends(client)
            client.close()
            assert heir.send(Lead())
            hear(heir, Ready)
            client = heir
            stage = bred(client)
            stage.send(Spawn(stages[0], n, time.monotonic_ns()))
            comm = Path(f"/proc/{client.pid}/comm").read_text().strip()
            told.append({"end": end, "comm": comm, "code": ends(stage), "pid": stage.pid})
            stage.close()
        waits = bred(client)
        client.close()
        ended = ends(client)
        waits.close()
        print(json.dumps({"told": told, "zygote": ended, "standby": ends(waits)}), flush=True)
        return
    children = {}
    for n, stage in enumerate(stages, 1):
        children[stage] = bred(client)
        children[stage].send(Spawn(stage, n, time.monotonic_ns()))
    print(json.dumps({"pids": {name: child.pid for name, child in children.items()}, "zygote": client.pid}), flush=True)
    if then == "wait":
        signal.pause()
    if then == "close":
        client.close()
        codes = {name: ends(child) for name, child in children.items()}
        print(json.dumps({"codes": codes, "zygote": ends(client)}), flush=True)


def start(folder: Path, instance: str, stages: list[str], then: str) -> subprocess.Popen[str]:
    """The parent program, running."""
    env = dict(os.environ) | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    arguments = [sys.executable, __file__, str(folder), instance, json.dumps(stages), then]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, env=env, text=True)


def test_children_belong_to_the_subreaper(tmp_path: Path) -> None:
    """A stage is the supervisor's child, named, with its own output, unblocked signals, no socket, and its exit code arrives."""
    stages = ["returns", "raises", "exits"]
    with start(tmp_path, "t", stages, "close") as process:
        out, _ = process.communicate(timeout=LIMIT_S)
    first, second = map(json.loads, out.splitlines())
    assert second["codes"] == {"returns": 7, "raises": 1, "exits": 5} and second["zygote"] == 0
    for n, stage in enumerate(stages, 1):
        told = json.loads((tmp_path / f"{stage}.{n}.json").read_text())
        assert told["pid"] == first["pids"][stage] and told["ppid"] == process.pid
        assert told["comm"] == f"scalper:{stage}"[:15]
        assert (told["incarnation"], told["instance"], told["extra"]) == (n, "t", [1, "x"])
        assert told["sockets"] == [] and told["blocked"].split()[1].strip("0") == ""
        assert told["threads_env"] == "1"
        assert told["started_ns"] > told["requested_ns"]
    log = (tmp_path / "raises.log").read_text()
    assert "RuntimeError: words for the log" in log and (tmp_path / "raises.log").stat().st_mode & 0o777 == 0o600


def test_a_child_takes_the_zygotes_place(tmp_path: Path) -> None:
    """A zygote that is killed is followed by its child, and that one by its own: each forks stages, and all end by a hang-up.

    Each goes on at the depth of the last one: else Python's stack would bear some dozens of them.
    """
    with start(tmp_path, "t", ["returns"], "lead") as process:
        out, _ = process.communicate(timeout=LIMIT_S)
    last = json.loads(out)
    assert len(last["told"]) == GENERATIONS and last["zygote"] == last["standby"] == 0
    for n, told in enumerate(last["told"]):
        assert told["end"] == -signal.SIGKILL and told["comm"] == "scalper:zygote" and told["code"] == 7
        said = json.loads((tmp_path / f"returns.{n}.json").read_text())
        assert (said["pid"], said["ppid"], said["comm"], said["sockets"]) == (told["pid"], process.pid, "scalper:returns", [])
        assert said["depth"] == json.loads((tmp_path / "returns.0.json").read_text())["depth"]


def test_the_supervisors_death_takes_all(tmp_path: Path) -> None:
    """SIGKILL of the parent: zygote and stages get SIGKILL from the kernel."""
    process = start(tmp_path, "t", ["a", "b"], "wait")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    fds = [os.pidfd_open(pid) for pid in (*told["pids"].values(), told["zygote"])]
    process.kill()
    process.wait(LIMIT_S)
    process.stdout.close()
    for fd in fds:
        assert select.select([fd], [], [], LIMIT_S)[0], "still alive"
        os.close(fd)


def test_a_zygote_that_compiled_starts_over(tmp_path: Path) -> None:
    """After compiling it executes itself again, as the same process, and says so; stages come from the second one."""
    with start(tmp_path, "cold", ["returns"], "close") as process:
        out, _ = process.communicate(timeout=LIMIT_S)
    lines = list(map(json.loads, out.splitlines()))
    assert lines[0]["said"] == ["Warmed", "Compiled", "Warmed", "Ready"]
    assert lines[2]["codes"] == {"returns": 7} and lines[2]["zygote"] == 0


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ("bad-warm", "RuntimeError: kernel does not compile"),
        ("threads", "started 1 threads; a fork may deadlock"),
        ("no-module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_failures_are_told(tmp_path: Path, instance: str, words: str) -> None:
    """A kernel that does not compile, a module that starts threads or is not there: told in words, traceback in the log."""
    with start(tmp_path, instance, ["a"], "close") as process:
        out, _ = process.communicate(timeout=LIMIT_S)
    assert words in json.loads(out)["failed"]
    assert "Traceback" in (tmp_path / "zygote.log").read_text()


def test_by_hand_it_says_what_to_use() -> None:
    """`python -m procs.supervision.zygote` by a person is refused with the right command."""
    command = [sys.executable, "-m", "procs.supervision.zygote"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 2 and "scalperctl start" in done.stderr


def test_a_kernel_written_over_counts_as_compiled(tmp_path: Path) -> None:
    """A source with a new date makes numba write over the kernel's file: that process has compiled and must start over, too."""
    from procs.supervision import zygote

    file = tmp_path / "stage" / "kernel.nbc"
    file.parent.mkdir()
    file.touch()
    os.utime(file, ns=(1, 1))
    before = zygote._kernels_cached(str(tmp_path))
    os.utime(file, ns=(2, 2))
    assert len(before) == len(zygote._kernels_cached(str(tmp_path)) - before) == 1


def test_log_rotation(tmp_path: Path) -> None:
    """A log that has grown past its limit is put aside at the next spawn; a link in its place is refused."""
    from procs.supervision import forking

    (tmp_path / "risk.log").write_bytes(b"x" * (forking.LOG_ROTATE_BYTES + 1))
    os.close(forking.open_log(str(tmp_path), "risk"))
    assert (tmp_path / "risk.log").stat().st_size == 0
    assert (tmp_path / "risk.log.1").stat().st_size == forking.LOG_ROTATE_BYTES + 1
    (tmp_path / "feed.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        forking.open_log(str(tmp_path), "feed")


def test_a_hang_up_before_begin(tmp_path: Path) -> None:
    """A supervisor that hangs up before it said anything: the zygote ends quietly."""
    from procs.supervision import zygote

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs:
        assert zygote.serve(theirs, os.getpid()) == 0


if __name__ == "__main__":
    parent(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4])
