"""One supervisor over real processes, as a test starts it: its log as events, its stages, what it leaves behind."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from supervised_stages import (
    new_board,
)  # fmt: skip

from procs import rundir
from procs.supervision import control

LIMIT_S = 120.0
HERE = Path(__file__).resolve().parent


class Run:
    """A supervisor in a process of its own, its log lines as they come."""

    def __init__(self, folder: Path, overrides: dict[str, Any], commands: dict[str, int]) -> None:
        self.instance = "t"
        self.board_path = folder / "board"
        self.board = new_board(self.board_path)
        for stage, command in commands.items():
            self.board[stage, 3] = command
        env = dict(os.environ) | {"PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE}"}
        arguments = [sys.executable, str(HERE / "supervised_stages.py"), self.instance, str(self.board_path)]
        self.process = subprocess.Popen([*arguments, json.dumps(overrides)], stderr=subprocess.PIPE, env=env)
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)
        self.lines: list[dict[str, Any]] = []
        self._rest = b""
        self._seen = 0

    def _more(self, until: float) -> bool:
        assert self.process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stderr, selectors.EVENT_READ)
            if not selector.select(max(0.0, until - time.monotonic())):
                raise AssertionError(f"nothing within {LIMIT_S} s; last lines: {self.lines[-8:]}")
        raw = self.process.stderr.read()
        if not raw:
            return False
        *whole, self._rest = (self._rest + raw).split(b"\n")
        for line in whole:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": line.decode()})
        return True

    def until(self, event: str, **fields: Any) -> dict[str, Any]:
        """The next log line (after the last one returned) with this event and these fields."""
        limit = time.monotonic() + LIMIT_S
        while True:
            while self._seen < len(self.lines):
                line = self.lines[self._seen]
                self._seen += 1
                if line.get("event") == event and all(line.get(k) == v for k, v in fields.items()):
                    return line
            if not self._more(limit):
                raise AssertionError(f"ended without {event} {fields}: {self.lines}")

    def running(self) -> dict[str, int]:
        """Waits for the phase and returns each process's pid."""
        self.until("phase", phase="running")
        return self.pids()

    def pids(self) -> dict[str, int]:
        """Each process's pid as the status says."""
        return {s["name"]: s["pid"] for s in control.request(self.instance, {"do": "status"})["stages"]}

    def descriptors(self) -> int:
        """Open descriptors of the supervisor once it has hung up on everybody who asked it something before."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
            last.settimeout(LIMIT_S)
            last.connect(str(rundir.run_dir(self.instance) / control.SOCKET_NAME))
            last.send(b"{}")
            last.recv(control.MAX_REPLY)  # answered: whoever closed before this one connected is let go by now
            last.shutdown(socket.SHUT_WR)
            assert last.recv(1) == b""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def end(self) -> int:
        """Reads to the end and returns the exit code."""
        limit = time.monotonic() + LIMIT_S
        while self._more(limit):
            pass
        return self.process.wait(LIMIT_S)

    def left(self) -> dict[str, Any]:
        """What the run said it left behind."""
        return next(line for line in self.lines if line.get("event") == "left")


def gone(fds: list[int]) -> bool:
    """Whether all these pidfds' processes end within the limit."""
    limit = time.monotonic() + LIMIT_S
    with selectors.DefaultSelector() as selector:
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, limit - time.monotonic()))
            if not ready:
                return False
            for key, _ in ready:
                selector.unregister(key.fd)
                os.close(key.fd)
    return True
