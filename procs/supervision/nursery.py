"""The supervisor's children: signals, pidfds, reaping, and the children that wait to become a stage or the zygote.

Deaths and births become events for procs.supervision.table, which decides; its actions come back as `spawn`, `kill` and
`abandon`. Every child is reaped here, known or not (we are the subreaper of all); a pid is never signalled after it was reaped,
because signals go through pidfds.

    zygote --- Bred ---> standbys ---+--- Spawn ---> a stage
       ^                             |
       +----------- Lead ------------+

Standbys outlive their zygote. So a dead stage needs no zygote, and a dead zygote none of the seconds that loading takes; it is
executed anew only where no standby is left. Of all that died at one moment the zygote comes first: it makes the others' children.
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
from procs.supervision.forking import PR_SET_CHILD_SUBREAPER, prctl
from procs.supervision.packets import Barren, Begin, Bred, Breed, FromZygote, Lead, Ready, Spawn
from procs.supervision.table import MS, Actual, State
from procs.supervision.zygote_client import Child, exec_zygote

ZYGOTE: Final = "zygote"
STANDBYS: Final = 2
"""Kept waiting: a stage and the zygote may die at once."""
ANSWER_NS: Final = 2_000 * MS
"""So long a zygote may take to fork a child, and a child to become the zygote: more, and it is stuck."""
QUIET_NS: Final = 200 * MS
"""So long a stage is given to start before a child is forked ahead all the same: the fork would be in its way."""
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
        self._zygote: Child | None = None
        self._standbys: dict[int, Child] = {}  # pid -> child, the longest waiting first
        self._asked = 0  # for so many children the zygote has not answered yet
        self._unanswered_ns = self._kept_ns = 0
        self._pidfds: dict[str, int] = {}
        self._queued: dict[str, int] = {}  # spawns that wait for a child: stage -> incarnation
        self._early: dict[int, None] = {}  # pids reaped before the zygote named them

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

    @property
    def standbys(self) -> list[int]:
        """Pids of the children that wait to become a stage or the zygote."""
        return list(self._standbys)

    # --- what the supervisor asks for -------------------------------------------------------------------------------

    def spawn(self, name: str, incarnation: int) -> None:
        """Starts an incarnation: at once where a child waits (the zygote in any case), else as soon as there is one."""
        if name != ZYGOTE:
            self._queued[name] = incarnation
            self.flush()
            return
        while self._standbys:
            child = self._take()
            if child.send(Lead()):
                return self._has_zygote(child, incarnation, ANSWER_NS)
            child.close()
        self._has_zygote(exec_zygote(self._begin(), self._zygote_log), incarnation)

    def kill(self, name: str, signum: int) -> None:
        """Sends a signal to a process that lives or is not reaped yet; else nothing."""
        if name in self._pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfds[name], signum)

    def abandon(self) -> None:
        """The zygote does not answer: SIGKILL, whatever state it is in. Its death brings the next one."""
        if self._asked:
            self._log.warning("zygote is stuck", asked_for=self._asked, waiting=list(self._queued))
            self.kill(ZYGOTE, signal.SIGKILL)
            self._unanswered_ns = time.monotonic_ns()

    def flush(self) -> None:
        """Gives queued spawns to children that wait; for those left over a ready zygote is asked for more."""
        for name, incarnation in list(self._queued.items()):
            state = self._states[name]
            if state.incarnation != incarnation or state.actual is not Actual.STARTING or state.pid:
                del self._queued[name]
                if state.actual is Actual.STOPPING and not state.pid:
                    self._deliver(name, supervision.SpawnFailed(incarnation, "no longer wanted"))
            elif self._employ(name, incarnation):
                del self._queued[name]
        self._ask(len(self._queued))

    def keep(self, now: int) -> None:
        """Has children forked ahead, but not while a stage begins to run. Called now and then."""
        if now - self._kept_ns > ANSWER_NS // 2:  # we were paused, and the zygote perhaps as well
            self._unanswered_ns = now
        self._kept_ns = now
        if self._asked and now - self._unanswered_ns > ANSWER_NS:
            self.abandon()
        stages = (state for name, state in self._states.items() if name != ZYGOTE)
        if not any(state.actual is Actual.STARTING and now - state.since_ns < QUIET_NS for state in stages):
            self._ask(STANDBYS - len(self._standbys))

    def _ask(self, wanted: int) -> None:
        """Asks the zygote for children until so many are asked for."""
        if self._zygote is None or not self._states[ZYGOTE].ready:
            return
        if not self._asked:
            self._unanswered_ns = time.monotonic_ns()
        for _ in range(wanted - self._asked):
            self._zygote.send(Breed())  # counts even if it is not taken: the answer's limit, or the zygote's death, decides
            self._asked += 1
        for name, incarnation in self._queued.items():
            if not self._states[name].deadline_ns:
                self._deliver(name, supervision.Requested(incarnation))

    def _take(self) -> Child:
        return self._standbys.pop(next(iter(self._standbys)))

    def _employ(self, name: str, incarnation: int) -> bool:
        """Makes a child that waits this stage; False if there is none."""
        while self._standbys:
            child = self._take()
            if child.send(Spawn(name, incarnation, time.monotonic_ns())):
                self._drop_pidfd(name)
                child.channel.close()
                self._pidfds[name] = child.pidfd
                self._selector.register(child.pidfd, selectors.EVENT_READ, self.reap)
                self._deliver(name, supervision.Spawned(child.pid, incarnation))
                return True
            child.close()  # killed while it waited
        return False

    # --- the zygote -------------------------------------------------------------------------------------------------

    def _has_zygote(self, child: Child, incarnation: int, start_ns: int = 0) -> None:
        self._close_zygote()
        self._zygote = child
        self._pidfds[ZYGOTE] = child.pidfd
        self._selector.register(child.channel, selectors.EVENT_READ, self._on_channel)
        self._selector.register(child.pidfd, selectors.EVENT_READ, self.reap)
        self._deliver(ZYGOTE, supervision.Spawned(child.pid, incarnation, start_ns))

    def _close_zygote(self) -> None:
        child, self._zygote, self._asked = self._zygote, None, 0
        if child is not None:
            self._pidfds.pop(ZYGOTE, None)
            for end in (child.channel, child.pidfd):
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(end)
            child.close()

    def _on_channel(self) -> None:
        zygote = self._zygote
        if zygote is None:
            return
        said = zygote.messages()
        # Not "nothing said": an event of the last zygote's channel may be delivered when this one is already here.
        if zygote.hung_up:  # its pidfd tells the rest
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(zygote.channel)
        for message, channel in said:
            if isinstance(message, Bred):
                self._on_bred(message.pid, channel)
            elif isinstance(message, Barren):
                self._on_barren(message.error)
            else:
                if isinstance(message, Ready):
                    self._deliver(ZYGOTE, supervision.Observed(0, True))
                self._hear(message)
                if isinstance(message, Ready):
                    self.flush()
                    self.keep(time.monotonic_ns())

    def _on_bred(self, pid: int, channel: socket.socket | None) -> None:
        self._asked, self._unanswered_ns = max(self._asked - 1, 0), time.monotonic_ns()
        assert channel is not None, "it comes with its channel"
        if pid in self._early:
            del self._early[pid]
            channel.close()
        else:
            self._standbys[pid] = Child(pid, channel)
        self.flush()

    def _on_barren(self, error: str) -> None:
        """No child: of those that wait for one, nobody gets one."""
        self._asked, self._unanswered_ns = max(self._asked - 1, 0), time.monotonic_ns()
        queued = list(self._queued.items())
        self._queued.clear()
        for name, incarnation in queued:
            self._deliver(name, supervision.SpawnFailed(incarnation, f"no process: {error}"))

    # --- deaths -----------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Every child that is dead, known or not: first those that are no process of the pipeline, then the zygote."""
        found: list[tuple[int, int]] = []
        with contextlib.suppress(ChildProcessError):
            while (dead := os.waitpid(-1, os.WNOHANG))[0] != 0:
                found.append(dead)
        turn = {state.pid: 1 if name == ZYGOTE else 2 for name, state in self._states.items()}
        for pid, status in sorted(found, key=lambda dead: turn.get(dead[0], 0)):
            self._on_death(pid, os.waitstatus_to_exitcode(status))

    def _on_death(self, pid: int, code: int) -> None:
        name = next((n for n, s in self._states.items() if s.pid == pid), None)
        if name is None:
            standby = self._standbys.pop(pid, None)
            if standby is not None:
                standby.close()
                return
            self._early[pid] = None  # a stage's orphan, or a child that the zygote has not named yet
            while len(self._early) > EARLY_KEPT:
                self._early.pop(next(iter(self._early)))
            return
        if name == ZYGOTE:
            self._on_channel()  # it may have said why, or have named children, before it died
            self._close_zygote()
            self._early.clear()
            for stage, incarnation in self._queued.items():
                self._deliver(stage, supervision.Requested(incarnation, withdrawn=True))
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
        while self._standbys:
            self._take().close()
        self._close_zygote()
