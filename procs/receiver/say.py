"""What the receiver says in its log: one entry an event, and of events that repeat one in a while, with how often."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from procs.logs import stage_log

QUIET_NS: Final = 10_000_000_000
MOST_KEYS: Final = 256


class Say:
    """Makes entries in the stage's log."""

    def __init__(self, who: str, mono_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._log, self._mono = stage_log(who), mono_ns
        self._seen: dict[str, tuple[int, int]] = {}  # when it was last written, how often it was not since

    def __call__(self, text: str, key: str = "") -> None:
        """One entry; with a `key`, at most one such entry in QUIET_NS."""
        held = 0
        if key:
            now = self._mono()
            last, held = self._seen.get(key, (-QUIET_NS, 0))
            if now - last < QUIET_NS:
                self._seen[key] = last, held + 1
                return
            if len(self._seen) >= MOST_KEYS:
                self._seen.clear()
            self._seen[key] = now, 0
        self._log.info(text, **({"more_like_it": held} if held else {}))
