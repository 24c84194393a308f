"""The supervisor's side of the kill switch: latch on disk, word to the pipeline, and each told until it has heard.

The latch's file decides: another process that sets it halts this pipeline at the next check, and a person's reset of it
resumes it. Where the disk refuses the latch, the pipeline is halted all the same, and the latch is tried again until it holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from procs.supervision import killswitch
from procs.supervision.contract import Pipeline
from procs.supervision.killswitch import Latch

RETRY_NS: Final = 1_000_000_000
"""How soon a latch that the disk refused is tried again."""


class Halting:
    """Kill switch of one running instance. `reason`: "" while it is not halted; `unlatched`: why the latch does not hold."""

    def __init__(self, instance: str, pipeline: Pipeline, log: Any, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._instance, self._pipeline, self._log, self._clock = instance, pipeline, log, clock
        self._places = killswitch.places(instance)
        self.reason = ""
        self.unlatched = ""
        self._due: Latch | None = None  # what the disk has refused
        self._retry_ns = 0
        self._why_resumed = ""
        self._told = True

    def start(self) -> None:
        """Before any stage runs: a latch from an earlier life holds."""
        latch = killswitch.status_in(self._places)
        if latch is not None:
            self._log.warning("starts halted", latch=latch.in_words(), remedy="scalperctl halt reset")
            self._set(latch.in_words())

    def trip(self, who: str, reason: str) -> str:
        """Latches and halts; returns the words of the latch that holds. Raises only for empty words (ValueError)."""
        mine = killswitch.new_latch(who, reason)
        try:
            if self._due is not None:  # what the disk refused before goes first: its words stay
                killswitch.latch(self._instance, self._due)
            words = killswitch.trip(self._instance, who, reason).in_words()
            self.unlatched, self._due = "", None
        except OSError as e:
            words = self.reason or mine.in_words()
            self._due = self._due or mine
            self._refused(e)
        self._set(words)
        self._log.error("halted", reason=words, latched=not self.unlatched)
        return words

    def reset(self, who: str, reason: str) -> str:
        """A person's reset; returns what the latch said, "" if there was none. Raises OSError or ValueError."""
        was = self.reason
        latch = killswitch.reset(self._instance, who, reason)
        self.unlatched, self._due = "", None
        if was:
            self._clear(reason)
        return latch.in_words() if latch is not None else was

    def check(self) -> None:
        """Several times a second: follows the file, tells the pipeline what it has not heard, latches what was refused."""
        if not self._told:
            self._tell()
        if self._due is not None and self._clock() >= self._retry_ns:
            try:
                killswitch.latch(self._instance, self._due)
            except OSError as e:
                self._refused(e)
            else:
                self.unlatched, self._due = "", None
                self._log.warning("the kill switch is latched now", reason=self.reason)
        latch = killswitch.status_in(self._places)
        if latch is not None and not self.reason:
            self._set(latch.in_words())
            self._log.error("halted", reason=latch.in_words())
        elif latch is None and self.reason and self._due is None:
            self._clear("the latch was reset")

    def _refused(self, error: OSError) -> None:
        self._retry_ns = self._clock() + RETRY_NS
        if str(error) != self.unlatched:
            self.unlatched = str(error)
            self._log.error("kill switch not latched", problem=f"{error}; it is tried again until it holds")

    def _set(self, words: str) -> None:
        self.reason = words
        self._tell()

    def _clear(self, why: str) -> None:
        self.reason, self._why_resumed = "", why
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
