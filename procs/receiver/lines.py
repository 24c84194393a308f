"""One connection ("line") as a state machine without sockets or clocks: events and the time in, actions out.

              start             permitted              opened                 all confirmed
    IDLE ----------> BACKOFF ------------> CONNECTING --------> SUBSCRIBING ----------------> UP
      ^                 ^                       |                    |                         |
      |                 |                       | refused, too late  | refused, too late       | silent, told to
      | not wanted      | wanted                v                    v                         v
      +-----------------+------------------- closed <---------------- CLOSING <----------------+

"Permitted" is the venue's connect budget (procs.receiver.venue_lines), which also replaces lines before their end. A line is UP
only when the venue has confirmed what it subscribed, or has nothing to confirm (the address says it all); symbols that it
names one by one are told up one by one. A line that is being closed is down at once: what it still brings is not looked at.

Times are ns of one monotonic clock. Waiting after failures doubles from `backoff_min_ns` to `backoff_max_ns`, of which a random
half is taken off, so that lines cut together do not come back together.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from procs.pacing import SECOND, Pace, SlidingWindow, backoff
from trading.venues.protocol import RESUBSCRIBE, ConnectionPlan, Limits, Refused, Subscribed

MOST_QUEUED: Final = 512
"""Messages that wait for the venue's message rate; more means that something asks without end."""


class LineState(StrEnum):
    """Where a line stands."""

    IDLE = "IDLE"
    BACKOFF = "BACKOFF"
    CONNECTING = "CONNECTING"
    SUBSCRIBING = "SUBSCRIBING"
    UP = "UP"
    CLOSING = "CLOSING"


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a socket for this line; answer with `opened` or `closed`."""

    line: int
    path: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message now; it is within the venue's rate."""

    line: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Ping the venue now, as it wants to be pinged."""

    line: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer the venue's ping now, with its payload: to the venue it is a message like any other."""

    line: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket (`abort`: without ceremony) and answer with `closed`; nothing it brings from now on counts."""

    line: int
    why: str
    abort: bool = False


@dataclass(frozen=True, slots=True)
class Up:
    """The streams of these symbols on this line are subscribed."""

    line: int
    symbols: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Down:
    """They are not any more."""

    line: int
    symbols: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Gap:
    """The streams that these symbols' books are made of are on no line, others of theirs are: the books are not to be trusted."""

    line: int
    symbols: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Worth a line in the log."""

    line: int
    text: str


Action = Connect | Send | Ping | Pong | Close | Up | Down | Gap | Note


@dataclass(frozen=True, slots=True)
class LinePolicy:
    """Limits of one venue's lines, ns. 0 for `ping_ns` and `rotate_ns`: never."""

    backoff_min_ns: int = SECOND // 4
    backoff_max_ns: int = 30 * SECOND
    silence_ns: int = 60 * SECOND
    message_gap_ns: int = SECOND // 5
    messages_shared: bool = False  # the gap holds between messages of all lines
    requests: int = 0  # of subscribing, within `request_window_ns` on one connection; 0: no limit
    request_window_ns: int = 3600 * SECOND
    ping_ns: int = 0
    rotate_ns: int = 23 * 3600 * SECOND
    connect_ns: int = 10 * SECOND  # from Connect to opened
    subscribe_ns: int = 15 * SECOND  # from the last message sent to the last confirmation
    close_ns: int = 5 * SECOND  # from Close to closed
    stable_ns: int = 10 * SECOND  # a line that was up for so long has failed for the first time
    overlap_ns: int = 5 * SECOND  # a replaced line goes on for so long
    turn_ns: int = 60 * SECOND  # so long may a replacement take while another line of the same streams waits for its turn

    def __post_init__(self) -> None:
        assert 0 < self.backoff_min_ns <= self.backoff_max_ns and self.message_gap_ns >= 0
        assert min(self.silence_ns, self.connect_ns, self.subscribe_ns, self.close_ns, self.turn_ns) > 0
        assert self.rotate_ns == 0 or self.rotate_ns > self.overlap_ns >= 0


MARGIN: Final = 1.05
"""Messages are sent this much slower than the venue allows: they do not arrive as evenly as they leave."""


PINGS_IN_SILENCE: Final = 2.5


def policy_of(
    limits: Limits, *, backoff_min_ms: int, backoff_max_ms: int, silence_timeout_s: float, rotate_hours: float
) -> LinePolicy:
    """What a venue bears and the profile (`live:`) wants, in one: the stricter of the two."""
    rotate_s = rotate_hours * 3600.0
    if limits.lifetime_s > 0:
        rotate_s = min(rotate_s, limits.lifetime_s * 0.96)  # of 24 h the last 58 minutes
    rotate_ns = int(rotate_s * SECOND)
    silence_s = min(limits.silence_timeout_s, silence_timeout_s)
    ping_s = min(limits.ping_interval_s, silence_s / PINGS_IN_SILENCE)  # a connection that lives must not seem dead
    return LinePolicy(
        backoff_min_ns=backoff_min_ms * 1_000_000,
        backoff_max_ns=max(backoff_max_ms, backoff_min_ms) * 1_000_000,
        silence_ns=int(silence_s * SECOND),
        message_gap_ns=int(SECOND * MARGIN / limits.client_messages_per_s),
        messages_shared=limits.messages_shared,
        requests=limits.requests_per_connection,
        request_window_ns=int(limits.request_window_s * SECOND),
        ping_ns=int(ping_s * SECOND),
        rotate_ns=rotate_ns,
        overlap_ns=min(5 * SECOND, rotate_ns // 4),
    )


class Line:
    """One line. Its driver sets `seen_ns` whenever anything arrives, and hands on every event.

    pace: shared with other lines where the venue counts the messages of all connections together; None: this line's own.
    """

    def __init__(
        self, number: int, plan: ConnectionPlan, policy: LinePolicy, rng: random.Random, pace: Pace | None = None
    ) -> None:
        self.number: Final = number
        self.plan: Final = plan
        self.policy: Final = policy
        self._rng: Final = rng
        self.state = LineState.IDLE
        self.seen_ns = 0  # when anything last arrived
        self.opened_ns = 0
        self.up_ns = 0
        self.deadline_ns = 0  # of BACKOFF (may connect), CONNECTING, SUBSCRIBING and CLOSING (too late)
        self.failures = 0  # since it was last up for a while
        self.connects = 0
        self.downs = 0
        self.told: set[int] = set()  # symbols that were told up
        self.ends_soon = ""  # the venue's word that it will end this connection
        self.last_end = ""
        self._queue: deque[Send | Ping | Pong] = deque()
        self._pace = pace or Pace(policy.message_gap_ns)
        self._pace_is_own: Final = pace is None
        self._requests: SlidingWindow | None = None  # of this connection
        self._ping_at = 0
        self._to_send = 0  # of the plan's messages
        self._answered: set[int] = set()
        self._unnumbered = 0

    # --- what the driver and the group say ----------------------------------------------------------------------------

    def start(self, now: int) -> None:
        """The line is wanted: it waits for permission to connect."""
        if self.state is LineState.IDLE:
            self.state, self.deadline_ns = LineState.BACKOFF, now

    def connect(self, now: int) -> list[Action]:
        """Permission to connect, which has been counted."""
        assert self.state is LineState.BACKOFF and now >= self.deadline_ns
        self.state, self.deadline_ns = LineState.CONNECTING, now + self.policy.connect_ns
        self.connects += 1
        return [Connect(self.number, self.plan.path)]

    def opened(self, now: int) -> list[Action]:
        """The socket stands."""
        if self.state is not LineState.CONNECTING:
            return []
        messages = self.plan.messages
        self.state, self.opened_ns, self.seen_ns = LineState.SUBSCRIBING, now, now
        self.deadline_ns = now + self.policy.subscribe_ns + len(messages) * self.policy.message_gap_ns
        self._queue.clear()
        self._queue.extend(Send(self.number, message) for message in messages)
        self._to_send, self._ping_at = len(messages), now + self.policy.ping_ns
        if self._pace_is_own:
            self._pace = Pace(self.policy.message_gap_ns)
        if self.policy.requests:
            self._requests = SlidingWindow(self.policy.requests, self.policy.request_window_ns)
            self._requests.take(now, self.plan.requests or len(messages))
        self._answered, self._unnumbered, self.ends_soon = set(), 0, ""
        if not messages:
            return self._up(now, self.plan.symbols)
        return self._pump(now)

    def closed(self, now: int, why: str, *, again: bool) -> list[Action]:
        """The socket is gone, or never came to be. `again`: the line is still wanted."""
        if self.state in (LineState.IDLE, LineState.BACKOFF):
            return []
        actions = self._down(now, why)
        if self.state is LineState.CLOSING:
            why = self.last_end
        self.last_end = why
        self._queue.clear()
        if not again:
            self.state = LineState.IDLE
            return actions
        self.failures += 1
        self.state, self.deadline_ns = LineState.BACKOFF, now + self._backoff()
        return actions

    def close(self, now: int, why: str, *, abort: bool = False) -> list[Action]:
        """Close it, wherever it stands; a line without a socket is just not wanted any more."""
        if self.state is LineState.BACKOFF:
            self.state = LineState.IDLE
        if self.state in (LineState.IDLE, LineState.CLOSING):
            return []
        actions = self._down(now, why)
        self._queue.clear()
        self.state, self.deadline_ns, self.last_end = LineState.CLOSING, now + self.policy.close_ns, why
        return [*actions, Close(self.number, why, abort)]

    def subscribed(self, said: Subscribed, now: int) -> list[Action]:
        """The venue confirms. Symbols that it names are up; once every message is answered, so are all."""
        if self.state not in (LineState.SUBSCRIBING, LineState.UP):
            return []
        if said.symbols:
            return self._up(now, said.symbols)
        if said.request_id == 0:
            self._unnumbered += 1
        elif said.request_id < RESUBSCRIBE:
            self._answered.add(said.request_id)
        if self._to_send == 0 and len(self._answered) + self._unnumbered >= len(self.plan.messages):
            return self._up(now, self.plan.symbols)
        return []

    def refused(self, said: Refused, now: int) -> list[Action]:
        """The venue refuses something. While subscribing it is the subscription: without a name it could be any symbol's."""
        note: list[Action] = [Note(self.number, f"refused by the venue: {said.text}")]
        if self.state is LineState.SUBSCRIBING and not self.told:
            return note + self.close(now, f"subscription refused: {said.text}")
        return note

    def send(self, messages: Sequence[bytes], now: int, *, first: bool = False) -> list[Action]:
        """Queue messages (`first`: before all that waits); they go out at the venue's rate."""
        if self.state not in (LineState.SUBSCRIBING, LineState.UP):
            return []
        if len(self._queue) + len(messages) > MOST_QUEUED:
            return [Note(self.number, f"{len(self._queue)} messages wait already, {len(messages)} more are not sent")]
        if self._requests is not None:
            self._requests.take(now, len(messages))
        sends = [Send(self.number, message) for message in messages]
        if first:
            self._queue.extendleft(reversed(sends))
            self._to_send += len(messages) if self._to_send else 0
        else:
            self._queue.extend(sends)
        return self._pump(now)

    def bears(self, count: int, now: int) -> bool:
        """Whether so many requests may be queued now: there is room, and the connection's budget has them left."""
        return len(self._queue) + count <= MOST_QUEUED and not self.used_up(count, now)

    def used_up(self, count: int, now: int) -> bool:
        """Whether this connection's budget of requests does not have `count` left: only a new connection helps."""
        return self._requests is not None and self._requests.wait_ns(now, count) > 0

    def queued_ns(self) -> int:
        """How long what waits takes to be sent, as far as this line knows."""
        return len(self._queue) * self.policy.message_gap_ns

    def ping(self, payload: bytes, now: int) -> list[Action]:
        """The venue pings. The pong goes before all that waits, within the venue's rate; of several the last one counts."""
        if self.state not in (LineState.SUBSCRIBING, LineState.UP):
            return []
        if self._queue and isinstance(self._queue[0], Pong):
            self._queue.popleft()
        else:
            self._to_send += 1 if self._to_send else 0
        self._queue.appendleft(Pong(self.number, payload))
        return self._pump(now)

    def tick(self, now: int) -> list[Action]:
        """Whatever is due: messages, pings, limits of time. Permission to connect is the group's."""
        state = self.state
        if state is LineState.CONNECTING and now >= self.deadline_ns:
            return self.close(now, f"no connection within {self.policy.connect_ns / SECOND:g} s", abort=True)
        if state in (LineState.SUBSCRIBING, LineState.UP):
            if now - self.seen_ns >= self.policy.silence_ns:
                return self.close(now, f"silent for {(now - self.seen_ns) / SECOND:.0f} s", abort=True)
            if self._to_send:  # the time for the confirmation begins when all is sent
                self.deadline_ns = max(self.deadline_ns, now + self.policy.subscribe_ns)
            if state is LineState.SUBSCRIBING and now >= self.deadline_ns:
                if not self.told:
                    return self.close(now, f"no confirmation within {self.policy.subscribe_ns / SECOND:g} s")
                left = sorted(set(self.plan.symbols) - self.told)
                self.state, self.up_ns = LineState.UP, now
                return [Note(self.number, f"the venue confirmed all but the symbols {left}")]
            if self.policy.ping_ns and now >= self._ping_at:
                self._ping_at = now + self.policy.ping_ns
                self._queue.appendleft(Ping(self.number))
                self._to_send += 1 if self._to_send else 0
            return self._pump(now)
        return []

    # --- inside -------------------------------------------------------------------------------------------------------

    def _pump(self, now: int) -> list[Action]:
        if not self._queue or self._pace.wait_ns(now) > 0:
            return []
        message = self._queue.popleft()
        self._to_send -= 1 if self._to_send else 0
        self._pace.take(now)
        return [message]

    def _up(self, now: int, symbols: Sequence[int]) -> list[Action]:
        ours = set(self.plan.symbols)
        fresh = tuple(sorted((set(symbols) & ours) - self.told))
        self.told |= set(fresh)
        actions: list[Action] = [Up(self.number, fresh)] if fresh else []
        if self.state is LineState.SUBSCRIBING and self._to_send == 0 and self.told >= ours:
            self.state, self.up_ns = LineState.UP, now
        return actions

    def _down(self, now: int, why: str) -> list[Action]:
        if self.state is LineState.UP:
            self.downs += 1
            if now - self.up_ns >= self.policy.stable_ns:
                self.failures = 0
        told, self.told = tuple(sorted(self.told)), set()
        return [Down(self.number, told, why)] if told else []

    def _backoff(self) -> int:
        return int(backoff(self.failures, self.policy.backoff_min_ns, self.policy.backoff_max_ns, self._rng.random()))
