"""The supervisor's end of the zygote: exec, requests, messages. Decides nothing (procs.supervision.table does)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import msgspec

from procs.supervision.zygote import MAX_PACKET, SINGLE_THREADED, Begin, FromZygote, Spawn

_decoder: Final = msgspec.json.Decoder(FromZygote)
_UNSHARED: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
CHILD_FD: Final = 3


class ZygoteClient:
    """One zygote process. `pidfd` becomes readable at its death, `channel` when it says something."""

    def __init__(self, begin: Begin, log: Path) -> None:
        """Execs the zygote and tells it what to load. Raises OSError."""
        root = str(Path(__file__).resolve().parent.parent.parent)
        path = os.pathsep.join(dict.fromkeys(p for p in (root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)) if p))
        environment = {k: v for k, v in os.environ.items() if k not in _UNSHARED}
        environment |= SINGLE_THREADED | begin.numba | {"PYTHONPATH": path}
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        try:
            # A session of its own: the terminal's ^C and ^Z are for the supervisor, which ends the stages in order.
            self.pid = os.posix_spawn(
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
            self.channel.close()
            raise
        finally:
            theirs.close()
        self.pidfd = os.pidfd_open(self.pid)
        self.hung_up = False
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # dead already: its pidfd says so
            self.channel.send(msgspec.json.encode(begin), socket.MSG_NOSIGNAL)
        self.channel.setblocking(False)

    def request(self, spawn: Spawn) -> bool:
        """Asks for a stage; False if the zygote does not take it (it is dead or stuck)."""
        try:
            self.channel.send(msgspec.json.encode(spawn), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def messages(self) -> list[FromZygote]:
        """All that it has said since the last look."""
        found: list[FromZygote] = []
        with contextlib.suppress(BlockingIOError):
            try:
                while raw := self.channel.recv(MAX_PACKET):
                    found.append(_decoder.decode(raw))
            except (ConnectionResetError, msgspec.MsgspecError):
                pass
            self.hung_up = True
        return found

    def kill(self, signum: int) -> None:
        """Sends a signal; one to a dead zygote is no error."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signum)

    def close(self) -> None:
        """Closes the descriptors; a living zygote ends by the hang-up."""
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
