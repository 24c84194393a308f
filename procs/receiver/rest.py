"""One REST client a venue: every request is counted against the venue's budget before it leaves, and every answer is a value.

    Answered     200; the body, and our clock before and after
    Denied       the venue says no (4xx): asking again the same way is useless
    Unreached    no answer that could be used, after all tries

429 and 418 stop *all* requests of the venue until its Retry-After (or ban) is over; 5xx, timeouts and lost connections are tried
again with growing, jittered pauses. What this module is not: it judges no body; snapshots and rules are their callers'.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from procs.pacing import SECOND, backoff
from procs.receiver.budget import WeightBudget
from trading.venues.protocol import RestRequest

TIMEOUT_S: Final = 10.0
TRIES: Final = 5
PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 15.0
MAX_BODY: Final = 64 << 20
RETRY_AFTER_S: Final = {429: 60.0, 418: 120.0}
"""Where the venue names no time."""
MOST_RETRY_AFTER_S: Final = 3 * 24 * 3600.0  # the longest ban that Binance gives
_BANNED_UNTIL: Final = re.compile(rb"until (\d{13})\b")
_USED: Final = re.compile(r"x-mbx-used-weight-1m", re.I)


@dataclass(frozen=True, slots=True)
class Answered:
    """The venue answered. Times are Unix ns of our clock."""

    body: bytes
    sent_ns: int
    received_ns: int


@dataclass(frozen=True, slots=True)
class Denied:
    """The venue understood and refused."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Unreached:
    """No usable answer; `why` is the last try's."""

    why: str


Outcome = Answered | Denied | Unreached


class RestClient:
    """Requests to one venue. `sleep` and the clocks are arguments, so that tests need not wait."""

    def __init__(
        self,
        base_url: str,
        budget: WeightBudget,
        rng: random.Random,
        *,
        timeout_s: float = TIMEOUT_S,
        tries: int = TRIES,
        longest_wait_s: float = math.inf,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.base_url: Final = base_url.rstrip("/")
        self.budget: Final = budget
        self._rng, self._tries, self._longest_wait_s = rng, tries, longest_wait_s
        self._mono, self._wall, self._sleep = mono_ns, wall_ns, sleep
        self._timeout: Final = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self.requests = self.limited = self.failed = 0
        self.last_failure = ""

    async def close(self) -> None:
        """Close the connections. Again is allowed."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def blocked_s(self) -> float:
        """How long the venue wants to hear nothing of us."""
        return self.budget.held_ns(self._mono()) / SECOND

    async def get(self, request: RestRequest) -> Outcome:
        """One request, tried until it is answered or refused, or the tries are used up. Waits for the budget, if not too long."""
        last = "not tried"
        for attempt in range(self._tries):
            wait_s = await self._admitted(request.weight)
            if wait_s > 0:
                last = f"the venue is to be left alone for another {wait_s:.0f} s, by its limits or a ban; last: {last}"
                break
            try:
                status, headers, body, sent, received = await self._once(request)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                last = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                self._note_weight(headers)
                if status == 200:
                    return Answered(body, sent, received)
                last = f"HTTP {status}: {_start_of(body)}"
                if status in RETRY_AFTER_S:
                    self._hold(status, headers, body)
                    continue
                if 400 <= status < 500:
                    self.failed, self.last_failure = self.failed + 1, last
                    return Denied(status, _start_of(body))
            if attempt + 1 < self._tries:
                await self._sleep(backoff(attempt + 1, PAUSE_S, LONGEST_PAUSE_S, self._rng.random()))
        self.failed, self.last_failure = self.failed + 1, last
        return Unreached(last)

    async def _admitted(self, weight: int) -> float:
        """0 when nothing forbids a request of this weight, which is counted; else how long it would have to wait, s."""
        while True:
            now = self._mono()
            wait = self.budget.admit(now, weight)
            if wait <= 0:
                self.requests += 1
                return 0.0
            if wait > self._longest_wait_s * SECOND:
                return wait / SECOND
            await self._sleep(wait / SECOND + 0.001)

    async def _once(self, request: RestRequest) -> tuple[int, Mapping[str, str], bytes, int, int]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, auto_decompress=True)
        sent = self._wall()
        async with self._session.get(self.base_url + request.path, params=dict(request.params)) as response:
            received = self._wall()  # the venue's clock was read before its headers came
            body = await response.content.read(MAX_BODY) if response.content_length != 0 else b""
            while not response.content.at_eof():
                if len(body) >= MAX_BODY:
                    raise ValueError(f"an answer of more than {MAX_BODY} bytes")
                body += await response.content.read(MAX_BODY - len(body))
            return response.status, response.headers, body, sent, received

    def _note_weight(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            if _USED.fullmatch(name) and value.isdigit():
                self.budget.observe(self._mono(), int(value))

    def _hold(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.limited += 1
        seconds = retry_after_s(status, headers.get("Retry-After", ""))
        until = _BANNED_UNTIL.search(body)
        if until:  # Binance says in its message when a ban ends
            seconds = max(seconds, int(until[1]) / 1000 - self._wall() / 1e9)
        seconds = min(seconds, MOST_RETRY_AFTER_S)
        now = self._mono()
        self.budget.hold(now, now + int(seconds * SECOND))


def retry_after_s(status: int, header: str) -> float:
    """Seconds to keep quiet after an answer with this status and Retry-After header; 0 where it asks for nothing."""
    if status not in RETRY_AFTER_S:
        return 0.0
    try:
        return min(max(float(header), 1.0), MOST_RETRY_AFTER_S)
    except ValueError:  # missing, or a date
        return RETRY_AFTER_S[status]


def _start_of(body: bytes) -> str:
    return " ".join(body[:300].decode("utf-8", "replace").split())
