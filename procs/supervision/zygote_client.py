"""The supervisor's end of a process that takes packets: the zygote, or a child that it has forked ahead. Decides nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import msgspec

from procs.supervision.packets import MAX_PACKET, Begin, FromZygote, ToChild, ToZygote

SINGLE_THREADED: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
"""Environment of the zygote: a fork of a process with threads may deadlock in the child."""

_decoder: Final = msgspec.json.Decoder(FromZygote)
_UNSHARED: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
CHILD_FD: Final = 3


class Child:
    """A child of ours. `pidfd` becomes readable at its death, `channel` when it says something."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        """`pid` must not be reaped; the channel is this object's from here on. Raises OSError."""
        self.pid, self.channel, self.hung_up = pid, channel, False
        channel.setblocking(False)
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:
            channel.close()
            raise

    def send(self, message: ToZygote | ToChild) -> bool:
        """Says it; False if it is not taken: the child is dead or stuck."""
        try:
            self.channel.send(msgspec.json.encode(message), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def messages(self) -> list[tuple[FromZygote, socket.socket | None]]:
        """All that it has said since the last look, with the channel that came along."""
        found: list[tuple[FromZygote, socket.socket | None]] = []
        with contextlib.suppress(BlockingIOError):
            try:
                while True:
                    raw, descriptors, _, _ = socket.recv_fds(self.channel, MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
                    if not raw:
                        break
                    found.append((_decoder.decode(raw), socket.socket(fileno=descriptors[0]) if descriptors else None))
            except (ConnectionResetError, msgspec.MsgspecError):
                pass
            self.hung_up = True
        return found

    def kill(self, signum: int) -> None:
        """Sends a signal; one to a dead child is no error."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signum)

    def close(self) -> None:
        """Closes the descriptors; a living zygote, or a child that waits, ends by the hang-up."""
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def exec_zygote(begin: Begin, log: Path) -> Child:
    """Execs a zygote and tells it what to load. Raises OSError."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    path = os.pathsep.join(dict.fromkeys(p for p in (root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)) if p))
    environment = {k: v for k, v in os.environ.items() if k not in _UNSHARED}
    environment |= SINGLE_THREADED | begin.numba | {"PYTHONPATH": path}
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        # A session of its own: the terminal's ^C and ^Z are for the supervisor, which ends the stages in order.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "procs.supervision.zygote", str(CHILD_FD), str(os.getpid())],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), CHILD_FD),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)],
        )
    except BaseException:
        channel.close()
        raise
    finally:
        theirs.close()
    zygote = Child(pid, channel)
    zygote.send(begin)  # if it is not taken the zygote is dead already, which its pidfd says
    return zygote
