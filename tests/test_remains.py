"""A killed process is dead at once although its memory is still there; what has the memory then goes as well."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 120.0


def parent(how: str) -> None:
    """Plays the subreaper: a child that has something to remain, how it ends, and what is reaped after it."""
    from procs.supervision import remains
    from procs.supervision.forking import PR_SET_CHILD_SUBREAPER, prctl

    prctl(PR_SET_CHILD_SUBREAPER, 1)
    told, said = os.pipe()
    go, begin = os.pipe()
    stage = os.fork()
    if stage == 0:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
        os.write(said, str(remains.keep()).encode())
        if how == "exit":
            os.read(go, 1)
            os._exit(7)
        signal.pause()
        os._exit(4)
    left = int(os.read(told, 20))
    os.kill(left, signal.SIGSTOP)  # it would end by itself before we have looked
    found: dict[str, Any] = {"stage": stage, "left": left}
    if how != "exit":
        for name, pid in (("of_stage", stage), ("of_left", left)):
            found[name] = [line.split()[0] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        os.kill(left, signal.SIGTERM)  # as systemd does to all of a unit
        os.kill(left, signal.SIGUSR1)
        os.kill(stage, signal.SIGKILL if how == "kill" else signal.SIGTERM)
    os.write(begin, b".")
    os.waitid(os.P_PID, stage, os.WEXITED | os.WNOWAIT)
    found["mapped"] = len(Path(f"/proc/{left}/maps").read_text().splitlines())
    os.kill(left, signal.SIGCONT)
    found["ends"] = [[pid, os.waitstatus_to_exitcode(status)] for pid, status in (os.waitpid(stage, 0), os.waitpid(left, 0))]
    print(json.dumps(found))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="there is code for x86-64 alone")
@pytest.mark.parametrize(("how", "code"), [("kill", -signal.SIGKILL), ("term", 3), ("exit", 7)])
def test_a_dead_process_leaves_its_memory_to_another(how: str, code: int) -> None:
    """However it ends, it is reaped while the other has its memory; that one heeds no signal, falls to the subreaper and ends."""
    done = subprocess.run([sys.executable, __file__, how], cwd=ROOT, env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=LIMIT_S)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ends"] == [[found["stage"], code], [found["left"], 0]]
    assert found["mapped"] > 10 and found.get("of_stage") == found.get("of_left")


if __name__ == "__main__":
    parent(sys.argv[1])
