"""`start`: in this process (--foreground), or in a new session in the background with progress until it is ready.

The background start runs `scalperctl start --foreground` with the same words and follows its log, so that both ways are one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from procs import rundir
from procs.cli import arrival, figures, last_run, latencies, running
from procs.cli.limits import refuse_low_limits
from procs.cli.outcome import ALREADY_RUNNING, FAILED, INTERRUPTED, OK, UNHEALTHY, USAGE, CliError
from procs.cli.progress import Progress
from procs.cli.provenance import digests
from procs.cli.running import command_for
from procs.cli.signal_check import with_signals
from procs.cli.staging import child_environment, rules_apart, stage_apart
from procs.cli.table import clean_text, paint_for, span
from procs.gateway.bearer import read_token
from procs.gateway.packages import missing
from procs.kernels.choice import chosen, compiled
from procs.learning.packages import missing as learner_missing
from procs.memory.segments import Memory
from procs.profiles.config import profile_json
from procs.profiles.schema import Profile
from procs.supervision.instance import Instance

LOG: Final = "supervisor.log"
POLL_S: Final = 0.05


def start(args: argparse.Namespace) -> int:
    """The command."""
    profile = running.profile_for(args)
    refuse_without_packages(profile)
    if args.foreground:  # the lock decides; it may have been handed to us
        return foreground(profile)
    refuse_if_running(profile.instance)
    launched = Launch(profile, own_words(args))
    note = Progress()
    try:
        code = launched.wait_ready(args.timeout, note)
    except KeyboardInterrupt:
        note.end()
        launched.give_up()
        print(f"interrupted: {profile.instance} is stopped", file=sys.stderr)
        return INTERRUPTED
    note.end()
    if code is not None:
        return launched.explain(code)
    paint = paint_for(sys.stdout)
    print(f"{paint(profile.instance, 'bold')} runs as pid {launched.pid} after {span(launched.elapsed_ns())}")
    print(f"  watch it: {command_for(profile.instance, 'top')}      end it: {command_for(profile.instance, 'stop')}")
    print(f"  log: {launched.log}")
    for text, style in arrival.told(profile, launched.ended):
        print(paint(f"  {text}", style))
    return OK


def refuse_if_running(instance: str) -> None:
    """CliError ALREADY_RUNNING if a pipeline has that name."""
    pid = rundir.holder(instance)
    if pid:
        raise CliError(
            f"instance {instance!r} already runs as pid {pid}: stop it with `scalperctl stop --instance {instance}`, "
            "or give this one another name with --instance NAME",
            ALREADY_RUNNING,
        )


def refuse_without_packages(profile: Profile) -> None:
    """CliError USAGE if the profile wants the gateway or the learner and its packages are not installed; TokenError."""
    problem = missing() if profile.gateway.enabled and profile.world != "record" else ""
    problem = problem or learner_missing(profile)
    if problem:
        raise CliError(problem, USAGE)
    if profile.gateway.enabled and profile.gateway.token_file:
        read_token(profile.gateway.token_file)


def own_words(args: argparse.Namespace) -> list[str]:
    """The command line's words about the profile, for the process that runs it."""
    words = ["--config", args.config] if args.config else []
    words += ["--speed", args.speed] if args.speed else []
    words += ["--instance", args.instance] if args.instance else []
    for text in args.set or []:
        words += ["--set", text]
    return words + (["--recording", *map(os.path.abspath, args.recording)] if args.recording else [])


# ---- in this process --------------------------------------------------------------------------------------------------


def journal_folder_for(profile: Profile, now: float) -> Path:
    """A new folder for this run's journals, named by time and pid."""
    base = Path(profile.pipeline.journal_dir) if profile.pipeline.journal_dir else rundir.state_dir(profile.instance) / "journal"
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    folder = base / f"{stamp}-{os.getpid()}"
    if profile.pipeline.journal:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CliError(
                f"{folder}: {(error.strerror or str(error)).lower()}; name another folder as pipeline.journal_dir", FAILED
            ) from None
    return folder


def foreground(profile: Profile) -> int:
    """Run the supervisor here until the pipeline ends; returns a CLI exit code.

    Raises CliError, InstanceBusyError and RunDirError.
    """
    refuse_low_limits(profile)
    with rundir.InstanceLock(profile.instance) as lock:  # before any file of the run is touched
        return _supervise(profile, lock)


def _supervise(profile: Profile, lock: rundir.InstanceLock) -> int:
    from procs.logs import supervisor_log
    from procs.supervision.supervisor import EXIT_BUSY, EXIT_CRASH_LOOP, EXIT_FAILED, EXIT_OK, EXIT_UNCLEAN, Supervisor

    log = supervisor_log(profile.instance)
    started = time.time()
    folder = rundir.run_dir(profile.instance)
    spool = folder / f"recording.{os.getpid()}.spool"
    notes = folder / running.RUN_NAME
    kept: dict[str, Any] = {}
    journals: Path | None = None

    def at_end(memory: Memory) -> None:
        kept["figures"] = figures.snapshot(memory)
        kept["hops"] = latencies.hops(memory.board_words)

    try:
        symbols: list[dict[str, Any]] = []
        recordings: list[dict[str, Any]] = []
        if profile.source.kind == "recording":
            recordings = digests(profile.source.files)
            symbols = stage_apart(
                profile, spool, lambda done, total: log.info("staging", done=done, total=total),
                lambda note: log.info("recording", note=note),
            )  # fmt: skip
            log.info("staged", symbols=[entry["name"] for entry in symbols], frames=sum(e["n_frames"] for e in symbols))
        elif profile.source.kind == "live" and profile.live.fetch_rules:
            log.info("fetching rules", symbols=[symbol.name for symbol in profile.symbols])
            profile = rules_apart(profile)
        profile = with_signals(profile, lambda text: log.warning("user signal", problem=text))
        kernels = chosen()
        if kernels.why and not compiled(kernels.folder):
            log.warning("own kernels", note=kernels.why)
        journals = journal_folder_for(profile, started)
        whereabouts = {"pid": os.getpid(), "journal_dir": str(journals), "spool": str(spool) if symbols else None}
        running.write_note(notes, whereabouts | {"recordings": recordings})
        instance = Instance(profile, str(journals), str(spool) if symbols else None, at_end, log)
        run = last_run.LastRun(
            instance=profile.instance, profile=msgspec.Raw(profile_json(profile)), journal_dir=str(journals),
            symbols=symbols, recordings=recordings, started=started,
        )  # fmt: skip
        with contextlib.suppress(OSError):  # a full disk must not make a good run a failed one
            last_run.note(run)
        code = Supervisor(profile, instance, log=log, lock=lock).run()
        if kept:
            counters = next(s["counters"] for s in kept["figures"]["stages"] if s["name"] == "feed")
            run = msgspec.structs.replace(
                run, frames=counters["frames"], ended=time.time(), exit_code=code,
                figures=cast(dict[str, Any], kept["figures"]), hops=cast(list[dict[str, Any]], kept["hops"]),
            )  # fmt: skip
            with contextlib.suppress(OSError):
                last_run.save(run)
            with contextlib.suppress(OSError):
                last_run.note(run)
    finally:
        if journals is not None:
            last_run.forget_empty(profile.instance, journals)
        spool.unlink(missing_ok=True)
        if running.read_note(notes).get("pid") == os.getpid():
            notes.unlink(missing_ok=True)
    codes = {EXIT_OK: OK, EXIT_FAILED: FAILED, EXIT_CRASH_LOOP: UNHEALTHY, EXIT_BUSY: ALREADY_RUNNING, EXIT_UNCLEAN: UNHEALTHY}
    return codes.get(code, FAILED)


# ---- in the background ------------------------------------------------------------------------------------------------


def step_of(line: str) -> str:
    """A log line as a step of progress; "" if it is none."""
    said = _said(line)
    match said.get("event"):
        case "staging":
            return f"reading the recordings: {said['done'] * 100 // max(said['total'], 1)}%"
        case "recording" | "own kernels":
            return clean_text(str(said.get("note", "")))
        case "fetching rules":
            return f"asking the venue for the rules of {', '.join(said['symbols'])}"
        case "staged":
            return f"staged {said['frames']:,} frames of {', '.join(said['symbols'])}"
        case "waiting":
            return "another process compiles the kernels, waiting for it"
        case "starting":
            of = f" of {len(said['stages'])} stages" if said.get("stages") else ""
            return f"loading the kernels{of} (the first time compiles them: some minutes)"
        case "kernels":
            return f"kernels {said['of']}: {said['stage']} {said['how']} in {said['seconds']:.1f} s"
        case "user signal":
            return clean_text(f"user signal {said.get('signal', '')}".rstrip() + f": {said.get('problem', '')}")
        case "state" if said.get("now") == "RUNNING":
            return f"{said['stage']} is ready"
        case "crash":
            why = said.get("last_line") or said.get("ended_by")
            then = "is given up" if said.get("now") == "FATAL" else f"is started again ({said.get('crashes')})"
            return clean_text(f"{said.get('stage')} has ended and {then}: {why}")
    return ""


def problem_of(line: str) -> str:
    """What a log line says went wrong, "" if nothing."""
    from procs.logs import sentence_of

    said = _said(line)
    if not said:
        text = clean_text(line.strip())
        return text.removeprefix("scalperctl: ")
    if said.get("level") in ("error", "critical") or said.get("event") == "crash":
        return clean_text(sentence_of(line))
    return ""


def _said(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


class Launch:
    """A supervisor in a session of its own, and its log, followed.

    The instance's name is taken first and handed to the supervisor with the lock: of several starts at once only the one that has
    the name touches a file.
    """

    def __init__(self, profile: Profile, words: list[str]) -> None:
        """Raises CliError for limits that are too low, InstanceBusyError, RunDirError, OSError."""
        refuse_low_limits(profile)
        self.instance = profile.instance
        self._started_ns = time.monotonic_ns()
        with rundir.InstanceLock(profile.instance) as lock:
            self.log = rundir.log_dir(profile.instance) / LOG
            with contextlib.suppress(OSError):
                self.log.replace(f"{self.log}.1")
            fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "procs.cli.main", "start", "--foreground", *words],
                    stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, start_new_session=True, pass_fds=(lock.fd,),
                    env=child_environment() | {rundir.HANDED_LOCK: str(lock.fd)},
                )  # fmt: skip
                lock.hand_over()
            finally:
                os.close(fd)
        self._file = open(self.log, encoding="utf-8", errors="replace")
        self._rest = ""
        self._problem = ""
        self.phase = ""
        self.ran = False

    @property
    def pid(self) -> int:
        """The supervisor's pid."""
        return self._child.pid

    def elapsed_ns(self) -> int:
        """Since the launch."""
        return time.monotonic_ns() - self._started_ns

    def ended(self) -> int | None:
        """Exit code of the supervisor, None while it lives."""
        return self._child.poll()

    def follow(self, note: Callable[[str], None]) -> None:
        """Read what the log says by now; steps go to `note`."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            said = _said(line)
            if said.get("event") == "phase":
                self.phase = str(said.get("phase"))
                self.ran = self.ran or self.phase == "running"
            self._problem = problem_of(line) or self._problem
            step = step_of(line)
            if step:
                note(step)

    def _heard_after(self, note: Callable[[str], None]) -> tuple[Callable[[], None], Callable[[str], None]]:
        """(what counts the seconds of a step that takes long, what hears steps): compiling says nothing for a minute."""
        if not isinstance(note, Progress):
            return lambda: None, note
        said = ["starting"]

        def step(text: str) -> None:
            said[0] = text
            note(text)

        return lambda: note.now(f"{said[0]}; {span(max(self.elapsed_ns() // 10**9, 1) * 10**9)} so far"), step

    def wait_ready(
        self,
        timeout: float,
        note: Callable[[str], None],
        meanwhile: Callable[[], None] = lambda: None,
        poll_s: float = POLL_S,
    ) -> int | None:
        """None once the pipeline runs, else the exit code with which it ended before. CliError after `timeout` seconds."""
        tick, step = self._heard_after(note)
        while self.elapsed_ns() < timeout * 1e9:
            code = self.ended()
            self.follow(step)
            tick()
            if self.ran:  # not "done" alone: a start that fails comes to that, too, before the process has ended
                return None
            if code is not None:
                return code
            meanwhile()
            time.sleep(poll_s)
        self.give_up()
        raise CliError(f"{self.instance} is not ready after {timeout:g} s and was stopped: see {self.log}", FAILED)

    def must_run(self, timeout: float, meanwhile: Callable[[], None] = lambda: None, poll_s: float = POLL_S) -> None:
        """Wait until it runs, without a word. CliError if it does not come to that."""
        code = self.wait_ready(timeout, lambda text: None, meanwhile, poll_s)
        if code is not None:
            self.explain(code)
            raise CliError(f"{self.instance} did not start: see {self.log}", FAILED)

    def until(self, done: Callable[[], bool], problem: str, limit_s: float, poll_s: float = POLL_S) -> None:
        """Wait until `done`. CliError with the problem after `limit_s` seconds, or where it ended without."""
        limit = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > limit or (self.ended() is not None and not done()):
                raise CliError(f"{problem} within {limit_s:g} s: see {self.log}", FAILED)
            time.sleep(poll_s)

    def give_up(self) -> None:
        """End it by signals, in order first."""
        for number, patience in ((signal.SIGTERM, 20.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(patience)
                return

    def explain(self, code: int) -> int:
        """Say on stderr why it ended before it was ready; returns the exit code to end with."""
        if code < 0:
            self._problem = self._problem or f"it was killed by {signal.Signals(-code).name}"
        with contextlib.suppress(OSError):
            if not self._problem and os.statvfs(self.log).f_bavail == 0:
                self._problem = f"{self.log.parent} has no room left, not even for its log; free some there"
        print(
            f"scalperctl: {self.instance} did not start: {self._problem or 'no reason given'} (log: {self.log})", file=sys.stderr
        )
        return code if code > 0 else FAILED
