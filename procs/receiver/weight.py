"""REST weight that all processes of this machine share, over restarts and crashes: one small file for each REST address.

    weight-<host>.json    {"limit": 6000, "held_until": ns, "seen": [ns, used, ours since], "taken": [[ns, weight], ...]}

Times are Unix ns. A venue counts by address, so a receiver that crashed, the look at the venue's rules before a start, and a
second instance all spend from one purse. The file is read, asked and written under its lock for every request, of which there are
few; it also holds what the venue said its limit is, and until when it wants to be left alone (429, 418).

What this is not: a promise. A file that cannot be read, written or locked costs the memory of it, nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

from procs.pacing import MINUTE
from procs.receiver.budget import MAX_KEPT, WeightBudget

MOST_BYTES: Final = 1 << 20
LONGEST_HOLD_NS: Final = 3 * 24 * 60 * MINUTE  # the longest ban that there is
LARGEST_LIMIT: Final = 10_000_000
LOCKED_NS: Final = 2_000_000
"""So long another process may take with the file; then it is asked again."""
MOST_LOCKED: Final = 50
"""So often in a row it may be locked; a holder that was stopped must not stop us."""
FORGOTTEN_S: Final = 7 * 86_400.0


class SharedWeight(WeightBudget):
    """A WeightBudget whose memory is a file. The limit in the file, where there is one, is the venue's own word."""

    def __init__(
        self, limit: int, share: float, file: Path, now_ns: int, *, wall_ns: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__(limit, share)
        self._file: Final = file
        self._wall: Final = wall_ns
        self._locked_out = 0
        self._said = 0  # the limit in the venue's words; 0: it has not said
        self._unsaved: list[tuple[int, int]] = []  # taken while the file could not be had
        with self._shared(now_ns):
            pass

    def set_limit(self, now_ns: int, limit: int) -> None:
        """In the file as well."""
        with self._shared(now_ns):
            self._said = limit
            super().set_limit(now_ns, limit)

    def admit(self, now_ns: int, weight: int) -> int:
        """Asked and counted in one step of all processes."""
        with self._shared(now_ns) as got:
            if not got and self._locked_out < MOST_LOCKED:
                return LOCKED_NS
            wait = super().admit(now_ns, weight)
            if wait <= 0 and not got:
                self._unsaved.append((now_ns, weight))
            return wait

    def observe(self, now_ns: int, used: int) -> None:
        """The venue's own count, for all."""
        with self._shared(now_ns):
            super().observe(now_ns, used)

    def hold(self, now_ns: int, until_ns: int) -> None:
        """For all."""
        with self._shared(now_ns):
            super().hold(now_ns, until_ns)

    @contextlib.contextmanager
    def _shared(self, now_ns: int) -> Iterator[bool]:
        """Memory is the file's from here, the file is memory's afterwards. False: somebody else has it; memory alone."""
        try:
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            self._locked_out = MOST_LOCKED  # there is no file to wait for
            yield False
            return
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._locked_out += 1
                yield False
                return
            self._locked_out = 0
            shift = self._wall() - now_ns
            self._load(_read(fd), now_ns, shift)
            yield True
            text = json.dumps(self._told(shift), separators=(",", ":")).encode() + b"\n"
            with contextlib.suppress(OSError):  # a full disk costs the memory
                os.pwrite(fd, text, 0)  # what may stand behind its line break is not read
                os.ftruncate(fd, len(text))
        finally:
            os.close(fd)

    def _load(self, told: dict[str, Any], now_ns: int, shift: int) -> None:
        """Times to come (a clock that was set back) count as now."""
        limit = told.get("limit")
        if _is_count(limit) and 0 < limit <= LARGEST_LIMIT:
            self._said = limit
            super().set_limit(now_ns, limit)
        taken = told.get("taken")
        if isinstance(taken, list):
            pairs = [pair for pair in taken if isinstance(pair, list) and len(pair) == 2 and all(map(_is_count, pair))]
            known = [(min(at - shift, now_ns), weight) for at, weight in pairs]
            self.own.replace(sorted(known + self._unsaved)[-MAX_KEPT:])
            self._unsaved.clear()
        seen = told.get("seen")
        if isinstance(seen, list) and len(seen) == 3 and all(map(_is_count, seen)):
            self._seen_at, self._seen, self._since_seen = min(seen[0] - shift, now_ns), seen[1], seen[2]
        held = told.get("held_until")
        if _is_count(held):
            self._held_until = max(self._held_until, min(held - shift, now_ns + LONGEST_HOLD_NS))

    def _told(self, shift: int) -> dict[str, Any]:
        now_ns = self._wall() - shift
        self.own.used(now_ns)  # forgets what is old
        return {
            "limit": self._said,
            "held_until": self._held_until + shift if self._held_until > now_ns else 0,
            "seen": [max(0, self._seen_at + shift), self._seen, self._since_seen],
            "taken": [[at + shift, weight] for at, weight in self.own.entries()],
        }


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _read(fd: int) -> dict[str, Any]:
    """What the file's first line says; {} where it is empty or damaged."""
    try:
        found = json.loads(os.pread(fd, MOST_BYTES, 0).partition(b"\n")[0])
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def weight_budget(rest_url: str, limit: int, share: float, folder: Path | None, now_ns: int) -> WeightBudget:
    """The budget of a REST address: shared through `folder`, without one this process's own. `limit`: till the venue tells."""
    if folder is None:
        return WeightBudget(limit, share)
    name = re.sub(r"[^a-z0-9.-]+", "_", urlsplit(rest_url).netloc.rpartition("@")[2].lower())
    file = folder / f"weight-{name or 'nowhere'}.json"
    if not file.exists():
        _forget_old(folder)
    return SharedWeight(limit, share, file, now_ns)


def _forget_old(folder: Path) -> None:
    """Addresses that nobody has asked for a week: a local venue has another port every time."""
    with contextlib.suppress(OSError):
        for file in folder.glob("weight-*.json"):
            if file.stat().st_mtime < time.time() - FORGOTTEN_S:
                file.unlink(missing_ok=True)
