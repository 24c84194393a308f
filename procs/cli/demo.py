"""`demo`: a first look. Start, watch, end, report; and say plainly whether all was well.

It runs an instance of its own, `demo`, so that it meets no pipeline that is already there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
from typing import Any, Final, cast

from procs import rundir
from procs.cli import last_run, pace, pipeline_end, report, running
from procs.cli.figures import Snapshot, complaints
from procs.cli.outcome import FAILED, INTERRUPTED, OK, UNHEALTHY, CliError
from procs.cli.progress import Progress, writes_over
from procs.cli.starting import Launch, own_words, refuse_if_running
from procs.cli.symbols import symbols_of
from procs.cli.table import clip, paint_for, span, wrapped
from procs.cli.top import CLEAR_BELOW, CLEAR_LINE, HOME, Watcher, screen
from procs.cli.view import View, compact, frame
from procs.memory.segments import Memory, attach
from procs.profiles.schema import Profile
from procs.supervision import control
from shm.errors import SegmentError

INSTANCE: Final = "demo"
GENERATED_SPEED: Final = 20.0
"""Times as fast as the clock: twenty seconds show nearly seven minutes of the embedded market, with entries and exits."""
STOP_TIMEOUT_S: Final = 60.0
RECORDING_LIMIT_S: Final = 3600.0


def demo(args: argparse.Namespace) -> int:
    """The command."""
    args.instance = args.instance or INSTANCE
    if not args.recording and not args.config and not args.speed:
        args.set = [f"source.speed={GENERATED_SPEED:g}", *(args.set or [])]
    profile = running.profile_for(args)
    refuse_if_running(profile.instance)
    if profile.instance == INSTANCE and profile.pipeline.journal_dir is None:
        # the last demo's journals: this one's report is of this one
        shutil.rmtree(rundir.state_dir(INSTANCE) / "journal", ignore_errors=True)
    note = Progress()
    note(f"starting {profile.instance}")
    launched = Launch(profile, own_words(args))
    demonstration = Demonstration(launched, profile, args.seconds, quiet=args.json)
    try:
        code = demonstration.run(note)
    except KeyboardInterrupt:
        note.end()
        launched.give_up()
        print("interrupted: the demo is stopped", file=sys.stderr)
        return INTERRUPTED
    except BaseException:
        launched.give_up()
        raise
    if code is not None:
        return launched.explain(code)
    return demonstration.conclude(args.json)


class Demonstration:
    """One demo: from a launched supervisor to its last figures."""

    def __init__(self, launched: Launch, profile: Profile, seconds: float, *, quiet: bool) -> None:
        self.launched, self.profile, self.seconds, self.quiet = launched, profile, seconds, quiet
        self.endless = profile.source.kind == "generated"
        self._memory: Memory | None = None
        self._watcher: Watcher | None = None
        self._last: View | None = None
        self.exit_code = 0

    def _attach(self) -> None:
        """Open the memory as soon as it is there: a short recording may be over before anybody says "ready"."""
        if self._memory is None:
            with contextlib.suppress(SegmentError):
                self._memory = attach(self.profile.instance, readonly=True)

    def run(self, note: Progress) -> int | None:
        """Until the pipeline has ended; the exit code if it never ran."""
        code = self.launched.wait_ready(900.0, note, self._attach)
        note.end()
        self._attach()
        if code is not None:
            return code
        if not self.quiet:
            how = f"for {self.seconds:g} s" if self.endless else "to the end of the recording"
            print(f"{self.profile.instance} runs after {span(self.launched.elapsed_ns())}; watching it {how}", flush=True)
        if self._memory is not None:
            name = self.profile.instance
            self._watcher = Watcher(self._memory, symbols_of(name), running.journal_folder(name), pace.note(self.profile))
        if writes_over(sys.stdout) and not self.quiet:
            with screen():
                self._watch(living=True)
        else:
            self._watch(living=False)
        return None

    def _watch(self, *, living: bool) -> None:
        """A frame (or a line) a second; at the end of the time an orderly stop; then wait for the end."""
        started = time.monotonic()
        limit = self.seconds if self.endless else RECORDING_LIMIT_S
        asked = False
        pause = 0.25
        while self.launched.ended() is None:
            self._show(living)
            if not asked and time.monotonic() - started >= limit:
                asked = True
                with contextlib.suppress(control.ControlError):
                    running.ask(self.profile.instance, {"do": "stop"})
            if asked and time.monotonic() - started > limit + STOP_TIMEOUT_S:
                self.launched.give_up()
            until = time.monotonic() + pause
            while self.launched.ended() is None and time.monotonic() < until:
                time.sleep(0.02)
            pause = 1.0
        self.exit_code = self.launched.ended() or 0
        self._show(living)

    def _show(self, living: bool) -> None:
        if self._watcher is None:
            return
        self._last = self._watcher.view(with_status=self.launched.ended() is None)
        if living:
            size = shutil.get_terminal_size((120, 40))
            lines = frame(self._last, size.columns, size.lines, paint_for(sys.stdout), note=" Ctrl-C ends the demo")
            sys.stdout.write(HOME + (CLEAR_LINE + "\n").join(lines) + CLEAR_LINE + CLEAR_BELOW)
            sys.stdout.flush()
        elif not self.quiet:
            print(clip(compact(self._last), 80), flush=True)

    def conclude(self, as_json: bool) -> int:
        """Print the report and the verdict; returns the exit code."""
        run = last_run.load(self.profile.instance)
        if run is None or not run.figures:
            raise CliError(f"the demo left no figures: see {self.launched.log}", FAILED)
        figures = cast(Snapshot, run.figures)
        wrong = complaints(figures, ended=True) + self._own_complaints(figures)
        told = report.build(report.told_by(run))
        if as_json:
            whole: dict[str, Any] = json.loads(_report_json(told))
            print(
                json.dumps(
                    {"report": whole, "figures": figures, "hops": run.hops, "complaints": wrong, "ok": not wrong}, indent=2
                )
            )
        else:
            print()
            report.show(told, False)
            print()
            self._verdict(figures, wrong)
        return UNHEALTHY if wrong else OK

    def _own_complaints(self, figures: Snapshot) -> list[str]:
        found = (
            [] if self.exit_code == 0 else [f"the supervisor ended with exit code {self.exit_code} (log: {self.launched.log})"]
        )
        if rundir.holder(self.profile.instance):
            found.append("the supervisor is still there")
        return found + pipeline_end.leftovers(self.profile.instance)

    def _verdict(self, figures: Snapshot, wrong: list[str]) -> None:
        paint, width = paint_for(sys.stdout), shutil.get_terminal_size((80, 24)).columns
        if wrong:
            for text in wrong:
                print("\n".join(paint(line, "red") for line in wrapped(f"! {text}", width)))
            print("not all was well: the lines above say what")
            return
        readers = sum(reader["gating"] for ring in figures["rings"] for reader in ring["readers"])
        records = sum(ring["tail"] for ring in figures["rings"])
        for text, style in (
            (f"all well: {records:,} records on {len(figures['rings'])} rings, all {readers} readers at the tail, "
             "0 overruns, every book comparison equal, nothing left behind", "green"),
            (pace.verdict(self.profile, figures), "dim"),
            ("next: scalperctl start, scalperctl top, scalperctl stop; config/paper.yaml explains every setting", ""),
        ):  # fmt: skip
            if text:
                print("\n".join(paint(line, style) if style else line for line in wrapped(text, width)))


def _report_json(told: Any) -> str:
    from sim.report.build import render_json

    return render_json(told)
