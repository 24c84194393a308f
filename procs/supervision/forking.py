"""The zygote at work: it forks children ahead, and each waits at a channel of its own for what it is to be.

    zygote ---fork---> middle ---fork---> child            The child's parent is the middle, which exits at once; so the
       |                  x exit             |             child falls to the nearest subreaper, the supervisor. Only
       |---- reaps the middle                |             then does the zygote let it go on (it closes the pipe), so
       |---- closes the go pipe -----------> | waits       that PR_SET_PDEATHSIG is set on the right parent.
       |---- Bred, and its channel ---> supervisor
                                             | <--- Spawn: runs a stage
                                             | <--- Lead: is the zygote from here on

The two forks copy the page tables of all that is loaded, most of a restart's time; loading all that again would take seconds. So
the forks are made while nobody waits, and the child that becomes a stage, or the next zygote, has it all.

A child that leads goes on in the loop in which it was forked, in the last zygote's place: no stack grows from zygote to zygote.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from procs.logs import stage_log, take_over_logging
from procs.supervision import remains
from procs.supervision.packets import MAX_PACKET, Barren, Begin, Bred, Breed, FromZygote, Ready, Spawn, ToChild

LOG_ROTATE_BYTES: Final = 4_194_304
PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36

Runner = Callable[[str, Mapping[str, Any]], int]
Code = TypeVar("Code", int, int | None)

_breeds: Final = msgspec.json.Decoder(Breed)
_orders: Final = msgspec.json.Decoder(ToChild)

_libc: Final = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int | bytes) -> None:
    """prctl(2) with one argument; OSError if the kernel refuses."""
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(option, argument, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def die_with(parent: int) -> None:
    """SIGKILL for this process when its parent dies; ends it at once if the parent is not `parent` any more."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def fork_child(supervisor: int) -> int:
    """Double-forks. Returns the child's pid once it is the supervisor's; 0 in the child, from then on. Raises OSError."""
    go_read, go_write = os.pipe()
    pid_read, pid_write = os.pipe()
    try:
        middle = os.fork()
    except OSError:
        _close(go_read, go_write, pid_read, pid_write)
        raise
    if middle == 0:
        try:
            child = os.fork()
            if child != 0:
                os.write(pid_write, child.to_bytes(4, "little"))
                os._exit(0)
            _close(go_write, pid_read, pid_write)
            os.read(go_read, 1)  # end of file: the middle is reaped, or the zygote is dead
            os.close(go_read)
            die_with(supervisor)
        except BaseException:  # the frames above are the zygote's
            os._exit(1)
        return 0
    _close(go_read, pid_write)
    raw = os.read(pid_read, 4)
    os.waitpid(middle, 0)
    _close(go_write, pid_read)
    if len(raw) != 4:
        raise OSError("the fork failed: out of processes or memory?")
    return int.from_bytes(raw, "little")


def _close(*descriptors: int) -> None:
    for fd in descriptors:
        os.close(fd)


@dataclass(slots=True)
class Zygote:
    """What is loaded, and the channel at which this process waits: the zygote's, or that of a child forked ahead."""

    begin: Begin
    profile: Any
    runner: Runner
    supervisor: int
    channel: socket.socket

    def tell(self, message: FromZygote, *descriptors: int) -> None:
        """Say it to the supervisor, who gets copies of the descriptors. Raises OSError if it hung up."""
        socket.send_fds(self.channel, [msgspec.json.encode(message)], descriptors)

    def lead(self) -> int:
        """Fork a child ahead whenever one is asked for, until the supervisor hangs up; then the exit code."""
        while raw := self.channel.recv(MAX_PACKET):
            _breeds.decode(raw)
            self._breed()
        return 0

    def _breed(self) -> None:
        """Returns in the zygote, and in a child that is now the zygote."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            try:
                pid = fork_child(self.supervisor)
            except OSError as e:
                self.tell(Barren(str(e)))
                return
            if pid != 0:
                self.tell(Bred(pid), ours.fileno())
                return
            self.channel.close()
            ours.close()
            self.channel = theirs.dup()
        code = exit_code_of("standby", self._stand_by)
        if code is None:
            return
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)

    def _stand_by(self) -> int | None:
        """In the child: all that is the same for every stage, then what it is told to be. A stage's exit code; None: leads."""
        prctl(PR_SET_NAME, b"scalper:standby")
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) not in (signal.SIG_DFL, None):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.umask(0o077)
        remains.ready()
        os.close(open_log(self.begin.log_dir, "zygote"))  # what else each does once: its pages become this process's own
        take_over_logging(stage_log("standby"))
        stand_by = getattr(sys.modules[self.runner.__module__], "stand_by", None)
        if stand_by is not None:
            stand_by()
        raw = self.channel.recv(MAX_PACKET)
        if not raw:  # not needed any more
            return 0
        order = _orders.decode(raw)
        if isinstance(order, Spawn):
            self.channel.close()
            prctl(PR_SET_NAME, b"scalper:remains")  # what it starts is called the same
            remains.keep()
            return self._be_stage(order)
        began = time.perf_counter()
        prctl(PR_SET_NAME, b"scalper:zygote")
        gc.freeze()
        self.tell(Ready(time.perf_counter() - began))
        return None

    def _be_stage(self, spawn: Spawn) -> int:
        prctl(PR_SET_NAME, f"scalper:{spawn.stage}".encode()[:15])
        log = open_log(self.begin.log_dir, spawn.stage)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        take_over_logging(stage_log(spawn.stage))
        runtime = {
            **self.begin.runtime,
            "stage": spawn.stage,
            "incarnation": spawn.incarnation,
            "requested_mono_ns": spawn.requested_ns,
            "supervisor_pid": self.supervisor,
            "profile": self.profile,
        }
        return exit_code_of(spawn.stage, partial(self.runner, spawn.stage, runtime))


def open_log(folder: str, stage: str) -> int:
    """The stage's log, for appending; one that has grown large is put aside as <stage>.log.1."""
    path = Path(folder) / f"{stage}.log"
    with contextlib.suppress(OSError):
        if path.lstat().st_size > LOG_ROTATE_BYTES:
            path.replace(f"{path}.1")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def exit_code_of(name: str, run: Callable[[], Code]) -> Code | int:
    """Runs it; an exception goes to the log and becomes 1. Nothing gets out: the caller's frames are the zygote's."""
    try:
        return run()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1
    except BaseException:
        stage_log(name).error("died", exc_info=True)
        return 1
