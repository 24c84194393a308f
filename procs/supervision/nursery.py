"""The supervisor's children: signals, pidfds, reaping, and spawning through the zygote. Decides nothing.

Deaths and births become events for procs.supervision.table; its actions come back as `spawn`, `kill` and `abandon`. Every child
is reaped here, known or not (we are the subreaper of all); a pid is never signalled after it was reaped, because signals
go through pidfds.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from procs.supervision import table as supervision
from procs.supervision.table import Actual, State
from procs.supervision.zygote import PR_SET_CHILD_SUBREAPER, Begin, FromZygote, Ready, Spawn, Spawned, prctl
from procs.supervision.zygote_client import ZygoteClient

ZYGOTE: Final = "zygote"
LAST_WAIT_S: Final = 5.0
EARLY_KEPT: Final = 64


def children() -> list[int]:
    """Pids of this process's children, zombies included."""
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _nothing(number: int, frame: object) -> None:
    """A signal's disposition: the wake-up descriptor carries the number."""


class Nursery:
    """Owns every child. `deliver(name, event)` and `hear(message)` are called from the selector's callbacks."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        states: Mapping[str, State],
        begin: Callable[[], Begin],
        zygote_log: Path,
        deliver: Callable[[str, supervision.Event], None],
        hear: Callable[[FromZygote], None],
        signalled: Callable[[signal.Signals], None],
        log: Any,
    ) -> None:
        self._selector, self._states, self._begin, self._zygote_log = selector, states, begin, zygote_log
        self._deliver, self._hear, self._signalled, self._log = deliver, hear, signalled, log
        self._zygote: ZygoteClient | None = None
        self._pidfds: dict[str, int] = {}
        self._queued: dict[str, int] = {}  # spawns that wait for a zygote: stage -> incarnation
        self._early: dict[int, int] = {}  # reaped before the zygote named them: pid -> code

    def open(self, stack: contextlib.ExitStack) -> None:
        """Becomes subreaper and takes the signals; what it changes is put back by `stack`, children killed and reaped."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
            stack.callback(end.close)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            disposition = signal.SIG_IGN if number == signal.SIGHUP else _nothing
            stack.callback(signal.signal, number, signal.signal(number, disposition))
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False))
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        stack.callback(prctl, PR_SET_CHILD_SUBREAPER, 0)
        stack.callback(self.end_all)

        def woken() -> None:
            with contextlib.suppress(BlockingIOError):
                for number in ours.recv(4096):
                    if number in (signal.SIGTERM, signal.SIGINT):
                        self._signalled(signal.Signals(number))
            self.reap()

        self._selector.register(ours, selectors.EVENT_READ, woken)

    # --- what the supervisor asks for -------------------------------------------------------------------------------

    def spawn(self, name: str, incarnation: int) -> None:
        """Starts an incarnation; the zygote at once, a stage as soon as there is a zygote that is ready."""
        if name == ZYGOTE:
            self._exec_zygote(incarnation)
        else:
            self._queued[name] = incarnation
            self.flush()

    def kill(self, name: str, signum: int) -> None:
        """Sends a signal to a process that lives or is not reaped yet; else nothing."""
        if name in self._pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfds[name], signum)

    def abandon(self) -> None:
        """The zygote does not answer: SIGKILL, whatever state it is in. Its death brings the next one."""
        self.kill(ZYGOTE, signal.SIGKILL)

    def flush(self) -> None:
        """Hands queued spawns to a ready zygote."""
        if self._zygote is None or not self._states[ZYGOTE].ready:
            return
        for name, incarnation in list(self._queued.items()):
            del self._queued[name]
            state = self._states[name]
            if state.incarnation == incarnation and state.actual is Actual.STARTING and not state.pid:
                # counts as handed over even if not taken: then the answer's limit, or the zygote's death, decides
                self._zygote.request(Spawn(name, incarnation, time.monotonic_ns()))
                self._deliver(name, supervision.Requested(incarnation))

    # --- the zygote -------------------------------------------------------------------------------------------------

    def _exec_zygote(self, incarnation: int) -> None:
        self._close_zygote()
        client = ZygoteClient(self._begin(), self._zygote_log)
        self._zygote = client
        self._pidfds[ZYGOTE] = client.pidfd
        self._selector.register(client.channel, selectors.EVENT_READ, self._on_channel)
        self._selector.register(client.pidfd, selectors.EVENT_READ, self.reap)
        self._deliver(ZYGOTE, supervision.Spawned(client.pid, incarnation))

    def _close_zygote(self) -> None:
        client, self._zygote = self._zygote, None
        if client is not None:
            self._pidfds.pop(ZYGOTE, None)
            for end in (client.channel, client.pidfd):
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(end)
            client.close()

    def _on_channel(self) -> None:
        client = self._zygote
        if client is None:
            return
        said = client.messages()
        # Not "nothing said": an event of the last zygote's channel may be delivered when this one is already here.
        if client.hung_up:  # its pidfd tells the rest
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(client.channel)
        for message in said:
            if isinstance(message, Spawned):
                self._on_spawned(message)
                continue
            if isinstance(message, Ready):
                self._deliver(ZYGOTE, supervision.Observed(0, True))
            self._hear(message)

    def _on_spawned(self, message: Spawned) -> None:
        code = self._early.pop(message.pid, None)
        if code is None:
            try:
                fd = os.pidfd_open(message.pid)
            except ProcessLookupError:  # cannot be: nobody but us reaps it
                self._log.error("lost child", stage=message.stage, pid=message.pid)
                return
            self._drop_pidfd(message.stage)
            self._pidfds[message.stage] = fd
            self._selector.register(fd, selectors.EVENT_READ, self.reap)
        self._deliver(message.stage, supervision.Spawned(message.pid, message.incarnation))
        if code is not None:
            self._on_death(message.pid, code)

    # --- deaths -----------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Every child that is dead, known or not."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._on_death(pid, os.waitstatus_to_exitcode(status))

    def _on_death(self, pid: int, code: int) -> None:
        name = next((n for n, s in self._states.items() if s.pid == pid), None)
        if name is None:  # a stage's orphan, or a child that the zygote has not named yet
            self._early[pid] = code
            while len(self._early) > EARLY_KEPT:
                self._early.pop(next(iter(self._early)))
            return
        if name == ZYGOTE:
            self._on_channel()  # it may have said why, or have named children, before it died
            self._close_zygote()
            self._early.clear()
            for stage, state in self._states.items():  # what it did not answer is asked of the next one
                if state.actual is Actual.STARTING and not state.pid:
                    self._queued[stage] = state.incarnation
        else:
            self._drop_pidfd(name)
        self._deliver(name, supervision.Died(pid, code))

    def _drop_pidfd(self, name: str) -> None:
        fd = self._pidfds.pop(name, None)
        if fd is not None:
            self._selector.unregister(fd)
            os.close(fd)

    def end_all(self) -> None:
        """Kills and reaps whatever is left: stages, zygote, orphans of either."""
        deadline = time.monotonic() + LAST_WAIT_S
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline:
                for pid in children():  # ours and not reaped, so no pid here can be somebody else's
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)  # children die at once by SIGKILL; each wait ends with the first
            self._log.error("children left", pids=children())
        for name in [n for n in self._pidfds if n != ZYGOTE]:
            self._drop_pidfd(name)
        self._close_zygote()
