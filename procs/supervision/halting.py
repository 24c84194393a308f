"""The supervisor's side of the kill switch: latch on disk, word to the pipeline, and each told until it has heard.

The latch's file decides: another process that makes it halts this pipeline at the next check, and its removal (a person's
reset) resumes it. Where the disk refuses the latch, the pipeline is halted all the same.
"""

from __future__ import annotations

import os
from typing import Any

from procs.supervision import killswitch
from procs.supervision.contract import Pipeline


class Halting:
    """Kill switch of one running instance. `reason` is "" while it is not halted."""

    def __init__(self, instance: str, pipeline: Pipeline, log: Any) -> None:
        self._instance, self._pipeline, self._log = instance, pipeline, log
        self._files = killswitch.latch_paths(instance)
        self.reason = ""
        self._why_resumed = ""
        self._on_disk = False
        self._told = True

    def start(self) -> None:
        """Before any stage runs: a latch from an earlier life holds."""
        latch = killswitch.status(self._instance)
        if latch is not None:
            self._log.warning("starts halted", latch=latch.in_words(), remedy="scalperctl halt reset")
            self._set(latch.in_words(), on_disk=True)

    def trip(self, who: str, reason: str) -> str:
        """Latches and halts; returns the words of the latch that holds. Raises only for empty words (ValueError)."""
        try:
            words, on_disk = killswitch.trip(self._instance, who, reason).in_words(), True
        except OSError as e:
            self._log.error("kill switch not latched", problem=str(e))
            words, on_disk = f"halted by {who}: {reason}", False
        self._set(words, on_disk=on_disk)
        self._log.error("halted", reason=words)
        return words

    def reset(self, who: str, reason: str) -> str:
        """A person's reset; returns what the latch said, "" if there was none. Raises OSError or ValueError."""
        was = self.reason
        latch = killswitch.reset(self._instance, who, reason)
        if was:
            self._clear(reason)
        return latch.in_words() if latch is not None else was

    def check(self) -> None:
        """Several times a second: follows the file, and tells the pipeline what it has not heard."""
        if not self._told:
            self._tell()
        there = any(os.path.lexists(path) for path in self._files)
        if there and not self._on_disk:
            latch = killswitch.status(self._instance)
            if latch is not None:
                self._set(latch.in_words(), on_disk=True)
                self._log.error("halted", reason=latch.in_words())
        elif self._on_disk and not there:
            self._clear("the latch was reset")

    def _set(self, words: str, *, on_disk: bool) -> None:
        self.reason, self._on_disk = words, on_disk
        self._tell()

    def _clear(self, why: str) -> None:
        self.reason, self._on_disk, self._why_resumed = "", False, why
        self._tell()
        self._log.warning("resumed", reason=why)

    def _tell(self) -> None:
        self._told = False
        try:
            if self.reason:
                self._pipeline.halt(self.reason)
            else:
                self._pipeline.resume(self._why_resumed)
            self._told = True
        except Exception as e:  # whatever it is, it must be told: the next check tries again
            self._log.error("the pipeline was not told yet", halted=self.reason or None, problem=str(e))
