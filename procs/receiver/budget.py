"""Budgets that keep us from being banned: how much may go out within a window of time, and how long until more may.

Time is an argument (monotonic ns), so that every rule is a line in a test. The only file here is the connect times': a receiver
that is killed and restarted in a loop must not connect more often than one that lives.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from procs.pacing import MINUTE, SlidingWindow
from procs.whole_files import read_small, write_whole

MAX_KEPT: Final = 10_000
LARGEST: Final = 1 << 20
"""Bytes that a file of times may have."""


class WeightBudget:
    """REST weight a minute: our share of the venue's limit, and never over the whole with what the venue says was used.

    `limit` is the venue's, for everybody at our address; `share` (0..1] what we may use of it. For one that all processes of
    this machine share see procs.receiver.weight.
    """

    def __init__(self, limit: int, share: float) -> None:
        self.limit = limit
        self._share: Final = share
        self.own = SlidingWindow(max(1, int(limit * share)), MINUTE)
        self._seen_at, self._seen = -MINUTE, 0
        self._since_seen = 0
        self._held_until = 0
        self.highest = 0

    def set_limit(self, now_ns: int, limit: int) -> None:
        """The venue says what its limit is; what was taken stays taken."""
        if limit != self.limit:
            taken = self.own.entries()
            self.limit, self.own = limit, SlidingWindow(max(1, int(limit * self._share)), MINUTE)
            self.own.replace(taken)

    def admit(self, now_ns: int, weight: int) -> int:
        """0: a request of this weight goes out now, and is counted. Else how long until it may be asked again."""
        wait = self.wait_ns(now_ns, weight)
        if wait <= 0:
            self.take(now_ns, weight)
        return wait

    def hold(self, now_ns: int, until_ns: int) -> None:
        """The venue wants to hear nothing of us before."""
        self._held_until = max(self._held_until, until_ns)

    def wait_ns(self, now_ns: int, weight: int) -> int:
        """How long until a request of this weight may go out."""
        wait = max(self.own.wait_ns(now_ns, weight), self._held_until - now_ns)
        age = now_ns - self._seen_at
        if age < MINUTE and self._seen + self._since_seen + min(weight, self.limit) > self.limit:
            wait = max(wait, MINUTE - age)  # the venue's minute has begun at most then
        return wait

    def take(self, now_ns: int, weight: int) -> None:
        """Count a request that goes out now."""
        self.own.take(now_ns, weight)
        self._since_seen += weight
        self.highest = max(self.highest, self.own.used(now_ns))

    def observe(self, now_ns: int, used: int) -> None:
        """The venue says that `used` weight went out within its minute."""
        self._seen_at, self._seen, self._since_seen = now_ns, max(used, 0), 0

    def used(self, now_ns: int) -> int:
        """Our own weight within the last minute."""
        return self.own.used(now_ns)

    def held_ns(self, now_ns: int) -> int:
        """How long the venue still wants to hear nothing."""
        return max(0, self._held_until - now_ns)


class ConnectBudget:
    """Connects within a window, for all lines of one venue, over restarts.

    Attempts count, not successes: a venue counts them too. `file`: where the times are kept (Unix s), None: nowhere; `wall_ns`
    is asked only when reading and writing it. A file that cannot be read or written costs the memory of it, nothing else.
    """

    def __init__(self, limit: int, window_ns: int, *, file: Path | None = None, wall_ns: Callable[[], int] | None = None,
                 now_ns: int = 0) -> None:  # fmt: skip
        self._window: Final = SlidingWindow(limit, window_ns)
        self._file: Final = file
        self._wall: Final = wall_ns
        if file is not None and wall_ns is not None:
            here = wall_ns()
            for at in _kept(file):
                age = max(0, here - at)  # a clock that was set back: as if just now
                if age < window_ns:
                    self._window.take(now_ns - age)

    def wait_ns(self, now_ns: int) -> int:
        """How long until another connect is allowed."""
        return self._window.wait_ns(now_ns)

    def take(self, now_ns: int) -> None:
        """Count an attempt that begins now, in the file first."""
        self._window.take(now_ns)
        if self._file is None or self._wall is None:
            return
        shift = self._wall() - now_ns
        text = json.dumps([at + shift for at in self._window.times()][-MAX_KEPT:])
        with contextlib.suppress(OSError):
            write_whole(self._file, text.encode())

    def used(self, now_ns: int) -> int:
        """Attempts within the window."""
        return self._window.used(now_ns)


def _kept(file: Path) -> list[int]:
    """The times in a file, oldest first; none where it is missing or damaged."""
    try:
        found = json.loads(read_small(file, LARGEST))
    except (OSError, ValueError):
        return []
    return sorted(at for at in found if isinstance(at, int))[-MAX_KEPT:] if isinstance(found, list) else []
