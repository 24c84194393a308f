"""`top`: the living view in a terminal, plain ANSI; one frame where there is no terminal.

The terminal is put back as it was whatever happens: alternate screen, cursor, line mode.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from procs import rundir
from procs.cli import pace, processes, running
from procs.cli import status as status_of
from procs.cli.figures import Snapshot, snapshot, with_rates
from procs.cli.latencies import hops
from procs.cli.observe import Markets, Orders, Symbol
from procs.cli.outcome import OK
from procs.cli.progress import writes_over
from procs.cli.symbols import symbols_of
from procs.cli.table import Paint, paint_for
from procs.cli.view import View, frame
from procs.memory.segments import Memory
from procs.supervision import control

ENTER = "\x1b[?1049h\x1b[?25l"
LEAVE = "\x1b[?25h\x1b[?1049l"
HOME = "\x1b[H"
CLEAR_LINE = "\x1b[K"
CLEAR_BELOW = "\x1b[J"
QUIT_KEYS = ("q", "Q", "\x03", "\x1b")


class Watcher:
    """Takes views of one instance: keeps the last snapshot for rates, and follows market and orders."""

    def __init__(self, memory: Memory, symbols: list[Symbol], journal: Path | None, pace: str = "") -> None:
        self.pace = pace
        self.memory, self.symbols = memory, symbols
        self.markets, self.orders = Markets(len(symbols)), Orders(symbols, journal)
        self._before: Snapshot | None = None
        self._before_ns = 0
        self._cpu: dict[int, int | None] = {}

    def view(self, *, with_status: bool = True) -> View:
        """A view of now, with rates since the last one."""
        now = time.monotonic_ns()
        figures = snapshot(self.memory)
        elapsed = (now - self._before_ns) / 1e9
        current = snapshot(self.memory)
        if self._before is not None:
            figures = with_rates(self._before, figures, elapsed)
        said = self._status(elapsed) if with_status else None
        self._before, self._before_ns = current, now
        self.markets.look(self.memory.ring("market"))
        self.orders.look(self.memory.ring("reports"))
        return View(
            instance=self.memory.instance,
            figures=figures,
            hops=hops(self.memory.board_words),
            symbols=self.symbols,
            tops=self.markets.tops,
            accounts=self.orders.accounts,
            counts=self.orders.counts,
            since_start=self.orders.since_start,
            pace=self.pace,
            status=said,
        )

    def _status(self, elapsed: float) -> dict[str, Any] | None:
        try:
            said = status_of.collect(self.memory.instance, 0.0)
        except control.ControlError:
            return None
        entries = [*said["stages"], said["supervisor"], *([said["zygote"]] if said["zygote"] else [])]
        now = {int(entry["pid"]): processes.cpu_ns(int(entry["pid"])) for entry in entries if entry["pid"]}
        if self._cpu:
            used = processes.shares(self._cpu, now, round(elapsed * 1e9))
            for entry in entries:
                entry["cpu_pct"] = None if entry.get("with") else used.get(entry["pid"])
            said["cpu_pct_total"] = processes.total(used.values())
        self._cpu = now
        return said


@contextlib.contextmanager
def screen() -> Iterator[None]:
    """The alternate screen and key-by-key input, put back at the end; SIGTERM ends as Ctrl-C does."""
    fd = sys.stdin.fileno() if sys.stdin.isatty() else -1
    before = termios.tcgetattr(fd) if fd >= 0 else None
    old = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if fd >= 0:
            tty.setcbreak(fd)
        sys.stdout.write(ENTER)
        yield
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        if before is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, old)


def _pressed(seconds: float) -> str:
    """The key pressed within `seconds`, "" for none."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode("latin-1") if readable else ""


def draw(view: View, note: str) -> None:
    """Put one frame over the last one, without flicker."""
    size = shutil.get_terminal_size((120, 40))
    lines = frame(view, size.columns, size.lines, paint_for(sys.stdout), note=note)
    sys.stdout.write(HOME + (CLEAR_LINE + "\n").join(lines) + CLEAR_LINE + CLEAR_BELOW)
    sys.stdout.flush()


def top(args: argparse.Namespace) -> int:
    """The command."""
    instance = running.instance_for(args)
    with running.looking_at(instance) as memory:
        profile = running.running_profile(instance)
        said = pace.note(profile) if profile is not None else ""
        watcher = Watcher(memory, symbols_of(instance), running.journal_folder(instance), said)
        if not writes_over(sys.stdout):
            width = args.width or shutil.get_terminal_size((120, 40)).columns
            return _printed(watcher, args.frames or 1, args.interval, width, paint_for(sys.stdout))
        with screen():
            shown = 0
            watcher.view()
            time.sleep(min(args.interval, 0.2))
            while True:
                draw(watcher.view(), " q quits")
                shown += 1
                if (args.frames and shown >= args.frames) or _pressed(args.interval) in QUIT_KEYS:
                    return OK
                if not rundir.holder(instance):
                    break
    print(f"{instance} has ended: `{running.command_for(instance, 'report')}` tells what it did")
    return OK


def _printed(watcher: Watcher, frames: int, interval: float, width: int, paint: Paint) -> int:
    """Frames one after another, for a pipe."""
    watcher.view()
    for _ in range(frames):
        time.sleep(min(interval, 1.0))
        print("\n".join(frame(watcher.view(), width, 0, paint)))
    return OK
