"""The venue's limits, and who has used how much of them: request weight, bans, connection attempts, client messages.

What this is not: the weights of requests; those stand beside the endpoints in sim.local_venue.rest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND


@dataclass(frozen=True, slots=True)
class Limits:
    """The figures that Binance documents; tests take smaller ones."""

    weight_per_minute: dict[str, int] = field(default_factory=lambda: {"spot": 6000, "usdm": 2400, "coinm": 2400})
    ban_after: int = 10
    """Requests answered with 429 within a minute that lead to a ban; the venue tells no figure."""
    ban_s: int = 120
    """Of the first ban; each further one is twice as long, up to three days."""
    longest_ban_s: int = 3 * 86_400
    client_messages_per_s: dict[str, int] = field(default_factory=lambda: {"spot": 5, "usdm": 10, "coinm": 10})
    streams_per_connection: int = 1024
    connects_per_5_minutes: int = 300
    ping_s: float = 20.0
    pong_timeout_s: float = 60.0
    lifetime_s: float = 86_400.0
    shutdown_notice_s: float = 10.0
    """How long before the end of its life a connection is told of it."""
    queue_bytes: int = 16 << 20
    """What may wait for a slow reader."""


@dataclass(slots=True)
class _Caller:
    minute: int = -1
    used: int = 0
    refused: int = 0
    bans: int = 0
    banned_until_ns: int = 0
    connects: deque[int] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request: `status` 200, 429 or 418; weight used in this minute; when to try again."""

    status: int
    used: int
    retry_after_s: int = 0
    banned_until_ns: int = 0


class Budget:
    """Request weight by market and address, in the clock's minutes. Times in ns."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._callers: dict[tuple[str, str], _Caller] = {}
        self.used_max: dict[str, int] = {}
        """The most that any address has used in a minute, by market."""

    def _caller(self, market: str, address: str, now_ns: int) -> _Caller:
        caller = self._callers.setdefault((market, address), _Caller())
        if now_ns // MINUTE != caller.minute:
            caller.minute, caller.used, caller.refused = now_ns // MINUTE, 0, 0
        return caller

    def spend(self, market: str, address: str, weight: int, now_ns: int) -> Verdict:
        """Count a request and judge it."""
        caller = self._caller(market, address, now_ns)
        if now_ns < caller.banned_until_ns:
            return self._banned(caller, now_ns)
        caller.used += weight
        self.used_max[market] = max(self.used_max.get(market, 0), caller.used)
        if caller.used > self._limits.weight_per_minute[market]:
            return self.refuse(market, address, MINUTE - now_ns % MINUTE, now_ns)
        return Verdict(200, caller.used)

    def refuse(self, market: str, address: str, wait_ns: int, now_ns: int) -> Verdict:
        """Answer 429; who goes on all the same is banned."""
        caller = self._caller(market, address, now_ns)
        caller.refused += 1
        if caller.refused > self._limits.ban_after:
            return self.ban(market, address, now_ns)
        return Verdict(429, caller.used, -(-wait_ns // SECOND))

    def ban(self, market: str, address: str, now_ns: int) -> Verdict:
        """Answer 418, for longer each time."""
        caller = self._caller(market, address, now_ns)
        length_s = min(self._limits.ban_s << min(caller.bans, 20), self._limits.longest_ban_s)
        caller.bans += 1
        caller.refused = 0
        caller.banned_until_ns = now_ns + length_s * SECOND
        return self._banned(caller, now_ns)

    @staticmethod
    def _banned(caller: _Caller, now_ns: int) -> Verdict:
        return Verdict(418, caller.used, -(-(caller.banned_until_ns - now_ns) // SECOND), caller.banned_until_ns)

    def may_connect(self, address: str, now_ns: int) -> bool:
        """Count a connection attempt; False: too many within five minutes."""
        connects = self._callers.setdefault(("streams", address), _Caller()).connects
        while connects and connects[0] <= now_ns - 5 * MINUTE:
            connects.popleft()
        connects.append(now_ns)
        return len(connects) <= self._limits.connects_per_5_minutes


class MessageRate:
    """Messages of one client in the last second."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._times: deque[int] = deque()

    def exceeded(self, now_ns: int) -> bool:
        """Count one; True when it was one too many."""
        while self._times and self._times[0] <= now_ns - SECOND:
            self._times.popleft()
        self._times.append(now_ns)
        return len(self._times) > self._per_second
