"""Progress for people, on stderr: one line that is written over on a terminal, a line every few seconds anywhere else.

    note = Progress(sys.stderr)
    note("reading 2 recordings")                 a step: shown at once
    note.now("51,200 frames of 99,574")          what changes all the time: as often as somebody can read it
    with note.working("kernels 1/7: feed"):      what takes long in silence: its seconds are counted
        ...
    note.end()                                   the line is cleared, for the result
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, TextIO

from procs.cli.table import clean_text, clip
from sim.spans import span

LIVELY_S: Final = 0.1
"""Between two looks of a line on a terminal."""

PATIENT_S: Final = 5.0
"""Between two lines in a pipe or a log."""


def writes_over(out: TextIO) -> bool:
    """Whether a line on `out` can be written over: a terminal that knows escape codes."""
    return out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class Progress:
    """Steps and progress on `out`. `clock` counts seconds."""

    def __init__(self, out: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out if out is not None else sys.stderr
        self.over = writes_over(self._out)
        self._every = LIVELY_S if self.over else PATIENT_S
        self._clock = clock
        self._last = ""
        self._due = clock() + (0.0 if self.over else self._every)  # what is quickly done needs no word in a log
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        """Show a step, unless it stands there already."""
        with self._lock:
            self._show(text)

    def now(self, text: str) -> None:
        """Show how far something has come, if it is time to look again."""
        with self._lock:
            if self._clock() >= self._due:
                self._show(text)

    @contextlib.contextmanager
    def working(self, text: str, every_s: float | None = None) -> Iterator[None]:
        """Show a step, and how long it lasts, until the body ends; `every_s`: a second on a terminal, else PATIENT_S."""
        self(text)
        ended, began = threading.Event(), self._clock()
        pause = every_s or (1.0 if self.over else PATIENT_S)

        def count() -> None:
            said = 0
            while not ended.wait(pause * (1 if self.over else 1 + min(said // 3, 5))):  # in a log less and less often
                said += 1
                self(f"{text}, {span(max(round(self._clock() - began), 1) * 1e9)}")

        thread = threading.Thread(target=count, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def end(self) -> None:
        """Clear the line."""
        with self._lock:
            self._last = ""
            if self.over:
                self._write("\r\x1b[K")

    def _show(self, text: str) -> None:
        text = clean_text(text)
        if text == self._last:
            return
        self._last, self._due = text, self._clock() + self._every
        # a line that is wider than the terminal cannot be written over
        width = shutil.get_terminal_size((80, 24)).columns if self.over else 0
        self._write(f"\r\x1b[K{clip(text, width - 1)}" if self.over else f"{text}\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody looks any more: the work goes on
            self._out.write(text)
            self._out.flush()
