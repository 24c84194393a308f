"""The supervisor: turns the world into events and procs.supervision.table's actions into calls, and knows the run's phases.

One thread, one selector, nothing polled faster than it must be: deaths come by pidfd and SIGCHLD, requests by the control
socket, the zygote's word by its channel; the board (heartbeats, readiness) is looked at five times a second, and every
millisecond only while a stage starts. Restarts are procs.supervision.table's decision, children procs.supervision.nursery's care,
the kill switch procs.supervision.halting's; what is supervised is a procs.supervision.contract.Pipeline. This module knows
nothing of trading.

    warming --kernels loaded--> starting --all ready--> running --stop--> draining --END came through--> done
       |                           |                       |                 |                             ^
       +---------- stop -----------+---- replay gave up ---+---- too long ---+------> stopping ------------+
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import msgspec

from procs import rundir
from procs.kernels.choice import CACHE_DIR, chosen
from procs.logs import last_line, supervisor_log
from procs.profiles.config import profile_json
from procs.profiles.schema import Profile
from procs.supervision import control, killswitch
from procs.supervision import table as supervision
from procs.supervision.contract import Pipeline
from procs.supervision.halting import Halting
from procs.supervision.notify import Notifier
from procs.supervision.nursery import ZYGOTE, Nursery
from procs.supervision.packets import Begin, Compiled, Failed, FromZygote, Ready, Waiting, Warmed
from procs.supervision.table import MS, Actual, Policy, State, Wanted
from procs.whole_files import write_whole
from shm.errors import SegmentError

EXIT_OK: Final = 0  # stopped as asked, or every stage finished its work
EXIT_FAILED: Final = 1  # could not start, or an error of the supervisor itself
EXIT_CRASH_LOOP: Final = 3  # a stage was given up
EXIT_BUSY: Final = 4  # the instance's name is taken
EXIT_UNCLEAN: Final = 5  # the orderly stop took too long; stages were ended by signals

CHECK_NS: Final = 200 * MS
START_CHECK_NS: Final = 1 * MS
START_EAGER_NS: Final = 200 * MS
PAUSE_NS: Final = 500 * MS  # our own loop late by more than this: nobody's silence counts
COMPILE_LIMIT_NS: Final = 900_000 * MS
PROFILE_NAME: Final = "profile.json"


class Supervisor:
    """One run of one instance. `run()` returns an exit code and leaves no process, segment, descriptor or socket.

    It reaps every child of this process and installs signal dispositions: call it from the main thread of a process that
    has no other children. SIGTERM and SIGINT stop in order, a second one at once; SIGHUP is ignored.
    """

    def __init__(
        self,
        profile: Profile,
        pipeline: Pipeline,
        *,
        runner: str = "procs.fold.runner:run_stage",
        log: Any = None,
        notifier: Notifier | None = None,
        lock: rundir.InstanceLock | None = None,
    ) -> None:
        """`lock`: the instance's, where the caller holds it already (and gives it back); else `run` takes it."""
        self.profile = profile
        self._lock = lock
        self.pipeline = pipeline
        self.runner = runner
        self.log = log if log is not None else supervisor_log(profile.instance)
        self.notifier = notifier if notifier is not None else Notifier.from_environment()
        s = profile.supervisor
        policy = Policy(
            max_restarts=s.max_restarts,
            window_ns=int(s.window_s * 1e9),
            backoff_min_ns=s.backoff_min_ms * MS,
            backoff_max_ns=s.backoff_max_ms * MS,
            heartbeat_ns=s.heartbeat_timeout_ms * MS,
            start_ns=s.start_timeout_ms * MS,
            term_ns=min(1000, s.stop_timeout_ms) * MS,
        )
        essential = {stage.name for stage in pipeline.stages if stage.essential}
        self.order = list(pipeline.processes)
        self.needed = [name for name, stages in pipeline.processes.items() if essential.intersection(stages)]
        self.states = {name: State(name, policy) for name in self.order}
        self.states[ZYGOTE] = State(ZYGOTE, replace(policy, heartbeat_ns=0, start_ns=COMPILE_LIMIT_NS))
        self.phase = "warming"
        self.exit_code = EXIT_OK
        self.trouble = ""
        self.warm: dict[str, Any] = {"done": 0, "total": len(pipeline.stages), "compiled": 0, "seconds": 0.0}
        self._check_ns = min(CHECK_NS, policy.heartbeat_ns // 4)
        self._fed: dict[str, tuple[int, int]] = {}
        self._fed_ns = 0
        self._drain_until_ns = 0
        self._was_ready = False
        self._started_ns = 0

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Brings the pipeline up, watches it, takes it down; returns an EXIT_ code."""
        assert threading.current_thread() is threading.main_thread(), "signals and PDEATHSIG are the main thread's"
        try:
            lock = self._lock or rundir.InstanceLock(self.profile.instance)
        except rundir.InstanceBusyError as e:
            self.log.error("busy", problem=str(e))
            return EXIT_BUSY
        except OSError as e:
            self.log.error("cannot start", problem=str(e))
            return EXIT_FAILED
        with contextlib.ExitStack() as stack:
            if self._lock is None:
                stack.callback(lock.release)
            stack.callback(self.notifier.close)
            self._selector = stack.enter_context(selectors.DefaultSelector())
            try:
                self._open(stack)
                self._loop()
                self._note_trouble()
                if self.trouble:
                    self.log.error("not all is recorded")
                    self.exit_code = self.exit_code or EXIT_UNCLEAN
            except (OSError, RuntimeError, ValueError, SegmentError) as e:
                self.log.error("failed", problem=str(e), kind=type(e).__name__)
                self.exit_code = EXIT_FAILED
            except Exception:
                self.log.error("failed", exc_info=True)
                self.exit_code = EXIT_FAILED
        self.log.info("ended", exit_code=self.exit_code)
        return self.exit_code

    def _open(self, stack: contextlib.ExitStack) -> None:
        instance = self.profile.instance
        self.folder, self.logs = rundir.run_dir(instance), rundir.log_dir(instance)
        self.halting = Halting(instance, self.pipeline, self.log)
        self.nursery = Nursery(
            self._selector,
            self.states,
            self._begin,
            self.logs / f"{ZYGOTE}.log",
            self._apply,
            self._hear,
            self._stop_by,
            self.log,
        )
        stack.callback(self.pipeline.destroy)  # after the nursery is empty
        self.nursery.open(stack)
        self.pipeline.create()
        killswitch.reserve(instance)  # before any stage; a start that failed above leaves no file
        self.halting.start()
        path = self.folder / PROFILE_NAME
        write_whole(path, profile_json(self.profile))
        stack.callback(path.unlink, missing_ok=True)
        stack.callback(control.ControlServer(self.folder, self._selector, self._respond).close)
        self._started_ns = time.monotonic_ns()
        self.log.info("starting", pid=os.getpid(), processes=dict(self.pipeline.processes), world=self.profile.world)
        self._apply(ZYGOTE, supervision.Start())

    def _begin(self) -> Begin:
        numba = chosen().variables()
        self.warm |= {"done": 0, "stage": "", "cache": numba[CACHE_DIR]}
        return Begin(
            profile=msgspec.Raw(profile_json(self.profile)),
            stages={stage.name: stage.module for stage in self.pipeline.stages},
            runner=self.runner,
            runtime={
                **self.pipeline.runtime,
                "instance": self.profile.instance,
                "run_dir": str(self.folder),
                "state_dir": str(rundir.state_dir(self.profile.instance)),
            },
            numba=numba, log_dir=str(self.logs),
        )

    def _loop(self) -> None:
        next_check = time.monotonic_ns()
        while self.phase != "done":
            before = time.monotonic_ns()
            due = min([next_check, *(d for s in self.states.values() if (d := supervision.next_deadline_ns(s)))])
            wait_ns = max(0, due - before)
            for key, _ in self._selector.select(wait_ns / 1e9):
                call: Callable[[], None] = key.data
                call()
            now = time.monotonic_ns()
            if now - before > wait_ns + PAUSE_NS:
                self.log.warning("was paused", ms=(now - before - wait_ns) // MS)
                for name in self.states:
                    self._apply(name, supervision.Paused(now - before - wait_ns))
            if now >= next_check:
                self._check(now)
                next_check = now + self._pace(now)
            for name, state in list(self.states.items()):
                deadline = supervision.next_deadline_ns(state)
                if deadline and now >= deadline:
                    self._apply(name, supervision.Tick())
            self._advance(now)
            if any(s.actual is Actual.STARTING and s.pid for n, s in self.states.items() if n != ZYGOTE):
                next_check = min(next_check, now + self._pace(now))

    def _pace(self, now: int) -> int:
        """Nanoseconds to the next look at the board: eager while a stage starts, but not for ever."""
        starting = [s.since_ns for n, s in self.states.items() if n != ZYGOTE and s.actual is Actual.STARTING and s.pid]
        if not starting:
            return self._check_ns
        return START_CHECK_NS if now - max(starting) < START_EAGER_NS else 10 * START_CHECK_NS

    def _check(self, now: int) -> None:
        for name in self.order:
            state = self.states[name]
            if state.pid and state.actual in (Actual.STARTING, Actual.RUNNING):
                seen = supervision.Observed(self.pipeline.heartbeat(name), self.pipeline.ready(name))
                self._apply(name, seen)
        self.nursery.keep(now)
        self.halting.check()
        self._note_trouble()
        self._feed_watchdog(now)

    def _note_trouble(self) -> None:
        """What keeps the pipeline from going on, said when it comes and when it goes."""
        trouble = self.pipeline.trouble()
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                self.log.error("stands still", problem=trouble)
            else:
                self.log.info("goes on again")
            if self._was_ready:
                self.notifier.status(self._words())

    # --- phases -----------------------------------------------------------------------------------------------------

    def _advance(self, now: int) -> None:
        """What follows from the states as a whole."""
        states = [self.states[name] for name in self.needed]
        if self.phase == "starting":
            self._start_next()
            if all(s.ready or s.actual is Actual.EXITED for s in states):
                self._enter("running")
                self._was_ready = True
                self._fed_ns = now
                self.notifier.ready(self._words())
        if self.phase in ("starting", "running", "draining") and all(s.actual is Actual.EXITED for s in states):
            self._enter("done" if self.needed == self.order else "stopping")  # those that nobody needs are ended by signal
        elif self.phase == "draining" and (now >= self._drain_until_ns or any(s.actual is Actual.FATAL for s in states)):
            waiting = [s.name for s in states if s.actual is not Actual.EXITED]
            self.log.warning("stop took too long", waiting_for=waiting)
            self.exit_code = self.exit_code or EXIT_UNCLEAN
            self._enter("stopping")
        if self.phase == "stopping":
            self._stop_next()

    def _start_next(self) -> None:
        for name in self.order:
            state = self.states[name]
            if state.actual is Actual.STOPPED and state.wanted is Wanted.DOWN:
                self._apply(name, supervision.Start())
                return
            if name in self.needed and not state.ready and state.actual is not Actual.EXITED:
                return

    def _stop_next(self) -> None:
        gone = (Actual.STOPPED, Actual.EXITED, Actual.FATAL)
        for name in reversed(self.order):
            state = self.states[name]
            if state.actual not in gone or state.pid:
                if state.wanted is Wanted.UP:
                    self._apply(name, supervision.Stop())
                if self.states[name].actual not in gone:
                    return
        self._enter("done")

    def _stop_by(self, number: signal.Signals) -> None:
        self._stop(number.name)

    def _stop(self, why: str) -> None:
        """Orderly end; asked for again, the end by signals."""
        if self.phase == "running":
            self.log.info("stopping", why=why, processed=self.pipeline.progress())
            self.notifier.stopping("waiting for END to run through")
            self._drain_until_ns = time.monotonic_ns() + self.profile.supervisor.stop_timeout_ms * MS
            self._enter("draining")
            self.pipeline.request_stop()
        elif self.phase in ("warming", "starting", "draining"):
            self.log.info("stopping at once", why=why, was=self.phase)
            self.exit_code = self.exit_code or (EXIT_UNCLEAN if self.phase == "draining" else EXIT_OK)
            self.notifier.stopping("ending the stages")
            self._enter("stopping")

    def _enter(self, phase: str) -> None:
        if phase != self.phase:
            self.phase = phase
            self.log.info("phase", phase=phase, ms=(time.monotonic_ns() - self._started_ns) // MS)
            if self._was_ready:
                self.notifier.status(self._words())

    # --- events and actions -----------------------------------------------------------------------------------------

    def _apply(self, name: str, event: supervision.Event) -> None:
        if isinstance(event, supervision.Died):
            if name == ZYGOTE and self.phase == "warming":
                end = supervision.end_in_words(event.code)
                raise RuntimeError(f"the zygote ended by {end} (see {self.logs / 'zygote.log'})")
            event = replace(event, finished=name != ZYGOTE and self.pipeline.finished(name))
        before = self.states[name]
        after, actions = supervision.step(before, event, time.monotonic_ns())
        if after is before:
            return
        self.states[name] = after
        told = self._of_end(name) if after.crash_count > before.crash_count else {}
        urgent = [action for action in actions if isinstance(action, supervision.Spawn)]
        for spawn in urgent:  # others wait for the stage, nobody for the words
            self._do(spawn)
        if after.actual is not before.actual or after.incarnation != before.incarnation:
            self._report(before, after, told)
        for action in (one for one in actions if one not in urgent):
            self._do(action)

    def _report(self, before: State, after: State, told: dict[str, str]) -> None:
        fields: dict[str, Any] = {"stage": after.name, "was": before.actual.value, "now": after.actual.value}
        fields |= {"incarnation": after.incarnation, "pid": after.pid or before.pid}
        if after.crash_count > before.crash_count:
            fields |= {"ended_by": after.last_end, "crashes": len(after.crashes), **told}
            self.log.warning("crash", **fields)
            if self.phase == "starting" and after.crash_count > after.policy.max_restarts and after.actual is not Actual.FATAL:
                self._give_up(after.name, f"{after.name} was not ready after {after.crash_count} starts, last {after.last_end}")
        else:
            self.log.info("state", **fields)
        if self._was_ready:
            self.notifier.status(self._words())

    def _of_end(self, name: str) -> dict[str, str]:
        """What is known of how a process ended: the stage at work in one of several, and the last line of its log."""
        at_work = self.pipeline.at_work(name) if name != ZYGOTE else ""
        told = {"at_work": at_work, "last_line": last_line(self.logs / f"{name}.log")}
        return {key: text for key, text in told.items() if text}

    def _do(self, action: supervision.Action) -> None:
        match action:
            case supervision.Spawn():
                if action.name != ZYGOTE:
                    self.pipeline.prepare(action.name, action.incarnation)
                self.nursery.spawn(action.name, action.incarnation)
            case supervision.Kill():
                if action.signum == signal.SIGKILL:
                    self.log.warning("kill", stage=action.name, pid=action.pid, reason=action.reason)
                self.nursery.kill(action.name, action.signum)
            case supervision.Abandon():
                self.nursery.abandon()
            case supervision.Trip():
                self._give_up(action.name, action.reason)

    def _hear(self, message: FromZygote) -> None:
        match message:
            case Waiting():
                self.log.info("waiting", reason="another process compiles the kernels")
            case Warmed():
                self.warm["done"] += 1
                self.warm |= {"stage": message.stage, "compiled": self.warm["compiled"] + message.compiled}
                how = "compiled" if message.compiled else "loaded"
                of = f"{self.warm['done']}/{self.warm['total']}"
                self.log.info("kernels", stage=message.stage, how=how, seconds=round(message.seconds, 3), of=of)
                if self.phase == "warming":
                    self.notifier.extend(120.0)
                    self.notifier.status(f"kernels {of}: {message.stage} {how}")
            case Compiled():
                self.log.info("kernels compiled", kernels=message.compiled, seconds=round(message.seconds, 3))
                self.warm["done"] = 0
            case Ready():
                self.warm["seconds"] = round(message.seconds, 3)
                if self.phase == "warming":
                    self._enter("starting")
            case Failed():
                self.log.error("zygote failed", what=message.what, problem=message.error)
                if self.phase == "warming":
                    raise RuntimeError(f"{message.what}: {message.error} (see {self.logs / 'zygote.log'})")

    def _give_up(self, name: str, reason: str) -> None:
        if name in self.order and name not in self.needed:
            self.log.error("given up", stage=name, reason=reason, pipeline="goes on without it")
            return
        self.exit_code = EXIT_CRASH_LOOP
        self.log.error("crash loop", reason=reason)
        latches, starts = self.profile.world != "replay", not self._was_ready
        if latches and self.phase in ("starting", "running"):
            self.halting.trip("supervisor", f"crash loop: {reason}")
        if self.phase in ("stopping", "done") or (latches and not starts and self.phase == "running"):
            return
        # What has never run is no pipeline to keep; in a replay no orders are at a venue: the run has failed.
        said = last_line(self.logs / f"{name}.log")
        problem = reason + (f": {said}" if said else "")
        if latches:
            problem += (
                "; the kill switch is tripped"
                + (f", but NOT latched ({self.halting.unlatched})" if self.halting.unlatched else "")
                + f": `scalperctl halt reset --instance {self.profile.instance} --reason TEXT` once this is mended"
            )
        self._enter("stopping")
        self.log.error("did not start" if starts else "failed", problem=problem)

    # --- watchdog and control --------------------------------------------------------------------------------------

    def _feed_watchdog(self, now: int) -> None:
        """Only when every running stage's heartbeat has moved since the last time."""
        if not self.notifier.watchdog_ns or not self._was_ready or now - self._fed_ns < self.notifier.watchdog_ns // 4:
            return
        beats = {n: (s.incarnation, s.heartbeat) for n in self.needed if (s := self.states[n]).actual is Actual.RUNNING}
        if all(self._fed.get(name) != beat for name, beat in beats.items()):
            self._fed, self._fed_ns = beats, now
            self.notifier.watchdog()

    def _words(self) -> str:
        restarts = sum(max(0, self.states[n].incarnation - 1) for n in self.order)
        up = sum(len(stages) for name, stages in self.pipeline.processes.items() if self.states[name].ready)
        first = f"{self.phase}: {up}/{len(self.pipeline.stages)} stages ready, {restarts} restarts"
        return "; ".join(filter(None, (first, self.halting.reason, self.trouble)))

    def status(self) -> dict[str, Any]:
        """What `status` answers: phase, warm-up, kill switch, and each process's wanted and actual state."""
        now, members = time.monotonic_ns(), (*self.pipeline.processes.items(), (ZYGOTE, (ZYGOTE,)))
        return {
            "instance": self.profile.instance,
            "world": self.profile.world,
            "pid": os.getpid(),
            "phase": self.phase,
            "uptime_s": round((now - self._started_ns) / 1e9, 3),
            "halted": self.halting.reason or None,
            "unlatched": self.halting.unlatched or None,
            "trouble": self.trouble or None,
            "warm": dict(self.warm),
            "standbys": self.nursery.standbys,
            "progress": self.pipeline.progress(),
            "stages": [self._row(stage, self.states[name], now) for name, stages in members for stage in stages],
        }

    def _row(self, stage: str, s: State, now: int) -> dict[str, Any]:
        return {
            "name": stage,
            "process": s.name,
            "wanted": s.wanted.value,
            "actual": s.actual.value,
            "ready": s.ready,
            "pid": s.pid or None,
            "incarnation": s.incarnation,
            "restarts": max(0, s.incarnation - 1),
            "crashes": s.crash_count,
            "since_s": round((now - s.since_ns) / 1e9, 3) if s.since_ns else None,
            "silent_ms": (now - s.heartbeat_ns) // MS if s.actual is Actual.RUNNING and s.name != ZYGOTE else None,
            "last_end": s.last_end or None,
            "log": str(self.logs / f"{s.name}.log"),
        }

    def _respond(self, message: control.AnyRequest, uid: int, pid: int) -> dict[str, Any]:
        who = f"uid {uid} (pid {pid})"
        match message:
            case control.Ping():
                return {"instance": self.profile.instance, "pid": os.getpid(), "phase": self.phase}
            case control.Status():
                return self.status()
            case control.StopPipeline():
                self._stop(f"asked by {who}")
                return {"pid": os.getpid(), "phase": self.phase}
            case control.RestartStage():
                return self._restart(message.stage, who)
            case control.Halt():
                words = self._of_a_person(self.halting.trip, who, message.reason)
                return {"halted": words, "unlatched": self.halting.unlatched or None}
            case control.Resume():
                return {"was": self._of_a_person(self.halting.reset, who, message.reason) or None}

    def _of_a_person(self, act: Callable[[str, str], str], who: str, reason: str) -> str:
        try:
            return act(who, reason)
        except (OSError, ValueError) as e:
            raise control.ControlError(str(e)) from None

    def _restart(self, stage: str, who: str) -> dict[str, Any]:
        host = {member: name for name, stages in self.pipeline.processes.items() for member in stages}
        name = host.get(stage, stage)
        state = self.states.get(name)
        if state is None:
            raise control.ControlError(f"no stage {stage!r}: there are {', '.join(dict.fromkeys((*host, *self.states)))}")
        if self.phase != "running":
            raise control.ControlError(f"the pipeline is {self.phase}: a stage can be restarted while it is running")
        if state.actual is Actual.EXITED:
            raise control.ControlError(f"{stage} has finished its work: there is nothing to restart")
        self.log.info("restart", stage=name, by=who)
        self._apply(name, supervision.Restart())
        if not any(s.actual is Actual.FATAL for s in self.states.values()):
            self.exit_code = EXIT_OK
        return {"stage": name, "was": state.incarnation, "actual": self.states[name].actual.value}
