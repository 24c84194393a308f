"""What the receiver says in its log: one line an event, and of events that repeat one line in a while, with how often."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

QUIET_NS: Final = 10_000_000_000
MOST_KEYS: Final = 256


class Say:
    """Writes lines to `out` (the stage's log)."""

    def __init__(self, who: str, out: TextIO | None = None, mono_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._who, self._out, self._mono = who, out, mono_ns
        self._seen: dict[str, tuple[int, int]] = {}  # when it was last written, how often it was not since

    def __call__(self, text: str, key: str = "") -> None:
        """One line; with a `key`, at most one such line in QUIET_NS."""
        if key:
            now = self._mono()
            last, held = self._seen.get(key, (-QUIET_NS, 0))
            if now - last < QUIET_NS:
                self._seen[key] = last, held + 1
                return
            if len(self._seen) >= MOST_KEYS:
                self._seen.clear()
            self._seen[key] = now, 0
            if held:
                text += f" ({held} more like it since)"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        print(f"{stamp} {self._who}: {text}", file=self._out or sys.stderr, flush=True)
