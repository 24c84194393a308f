"""Lines against a simulated, seeded, hostile network: thousands of events, and what must hold after each of them.

Outcomes that must not occur: more connects in a window than the venue allows; messages above its rate; a symbol told up that no
confirmation stands for; an UP or DOWN told twice; two lines of the same streams replaced at once; a symbol without a line
for long while the network is fine; a moment without a line in a run where the network never fails.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque

import pytest

from procs.pacing import SECOND
from procs.receiver.budget import ConnectBudget
from procs.receiver.lines import Action, Close, Connect, Down, LinePolicy, LineState, Ping, Send, Up
from procs.receiver.venue_lines import Phase, VenueLines
from trading.venues.protocol import ConnectionPlan, Subscribed

S = SECOND
CONNECTS, WINDOW = 30, 300 * S
RATE = 5
POLICY = LinePolicy(
    backoff_min_ns=S // 4, backoff_max_ns=20 * S, silence_ns=30 * S, message_gap_ns=int(1.05 * S / RATE), ping_ns=15 * S,
    rotate_ns=600 * S,
)  # fmt: skip
HEALED_NS = 90 * S
"""A healthy network must have every symbol up after this: the longest back-off, a connect and a confirmation that time out, and
again; while the connect budget is used up nothing can."""


class Network:
    """Sockets of a venue that may refuse, hang, cut, swallow and lie still."""

    def __init__(self, seed: int, *, calm: bool = False) -> None:
        self.rng = random.Random(seed)
        self.calm = calm
        self.bad_until = 0
        self.now = 0
        self.events: list[tuple[int, int, str, int, int]] = []  # at, number, what, line, socket
        self.count = 0
        self.sockets: dict[int, int] = {}  # line -> its socket
        self.confirmed: dict[int, set[bytes]] = defaultdict(set)  # by socket
        self.sent: dict[int, deque[int]] = defaultdict(deque)
        self.connects: deque[int] = deque()
        self.told: set[tuple[int, int]] = set()  # (line, symbol) that are up
        plans = [
            ConnectionPlan("/a", (b"a1", b"a2"), (0, 1)),
            ConnectionPlan("/b", (b"b1",), (2,)),
            ConnectionPlan("/c", (), (3,)),
        ]
        self.symbols = (0, 1, 2, 3)
        budget = ConnectBudget(CONNECTS, WINDOW)
        self.lines = VenueLines(plans, 2, POLICY, budget, random.Random(seed + 1))

    def later(self, seconds: float, what: str, line: int, socket: int) -> None:
        """An event to come."""
        self.count += 1
        heapq.heappush(self.events, (self.now + int(seconds * S), self.count, what, line, socket))

    @property
    def bad(self) -> bool:
        """The network fails at the moment."""
        return self.now < self.bad_until

    def perform(self, actions: list[Action]) -> None:
        """What a driver would do, and the checks on it."""
        for action in actions:
            line = self.lines.lines[action.line]
            if isinstance(action, Connect):
                self.connects.append(self.now)
                while self.connects[0] <= self.now - WINDOW:
                    self.connects.popleft()
                assert len(self.connects) <= CONNECTS
                self.count += 1
                socket = self.sockets[action.line] = self.count
                fate = self.rng.random()
                if self.bad and fate < 0.6:
                    self.later(self.rng.random() * 3, "refused", action.line, socket)
                elif not (self.bad and fate < 0.8):  # else it hangs
                    self.later(0.05 + self.rng.random() * 0.2, "opened", action.line, socket)
            elif isinstance(action, Send | Ping):
                socket = self.sockets[action.line]
                times = self.sent[socket]
                times.append(self.now)
                while times[0] <= self.now - S:
                    times.popleft()
                assert len(times) <= RATE
                if isinstance(action, Send) and not (self.bad and self.rng.random() < 0.5):
                    self.later(0.05 + self.rng.random() * 0.3, f"ok {action.message.decode()}", action.line, socket)
            elif isinstance(action, Up):
                socket = self.sockets[action.line]
                assert self.confirmed[socket] == set(line.plan.messages), "up before it was confirmed"
                for symbol in action.symbols:
                    assert (action.line, symbol) not in self.told
                    self.told.add((action.line, symbol))
            elif isinstance(action, Down):
                for symbol in action.symbols:
                    self.told.remove((action.line, symbol))
            elif isinstance(action, Close):
                if not (self.bad and self.rng.random() < 0.3):
                    self.later(self.rng.random(), "closed", action.line, self.sockets[action.line])
        moving = [strand.plan for strand in self.lines.strands if strand.phase is not Phase.STEADY]
        assert len(moving) == len(set(moving))
        for number in {told for told, _ in self.told}:
            assert self.lines.lines[number].state in (LineState.UP, LineState.SUBSCRIBING)

    def happen(self, what: str, line: int, socket: int) -> None:
        """One event; those of sockets that are no more go nowhere."""
        if self.sockets.get(line) != socket:
            return
        if what == "opened":
            self.perform(self.lines.opened(line, self.now))
        elif what in ("refused", "closed"):
            del self.sockets[line]
            retry = 20.0 if what == "refused" and self.rng.random() < 0.1 else 0.0
            self.perform(self.lines.closed(line, what, self.now, retry))
        else:
            message = what.removeprefix("ok ").encode()
            self.confirmed[socket].add(message)
            self.perform(self.lines.subscribed(line, Subscribed(int.from_bytes(message, "little")), self.now))

    def step(self) -> None:
        """A tenth of a second."""
        self.now += S // 10
        while self.events and self.events[0][0] <= self.now:
            _, _, what, line, socket = heapq.heappop(self.events)
            self.happen(what, line, socket)
        for number, heard in self.lines.lines.items():
            if not (self.bad and number % 3 == 0):  # some lie still in bad times
                heard.seen_ns = self.now
        if not self.calm:
            if not self.bad and self.rng.random() < 0.0004:
                self.bad_until = self.now + int(self.rng.expovariate(1 / 40) * S)
            for number in list(self.sockets):
                if self.rng.random() < (0.01 if self.bad else 0.00005):
                    self.happen("closed", number, self.sockets[number])
            if self.rng.random() < 0.001:
                self.perform(self.lines.closing(self.rng.choice(list(self.lines.lines)), "bye", self.now))
        self.perform(self.lines.tick(self.now))

    def bare(self) -> list[int]:
        """Symbols without a line."""
        up = {symbol for _, symbol in self.told}
        return [symbol for symbol in self.symbols if symbol not in up]


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 8))])
def test_hostile_network(seed: int) -> None:
    """Two hours of outages, cuts, hangs, lost replies and notices: every invariant at every event."""
    net = Network(seed)
    net.perform(net.lines.start(0))
    since = dict.fromkeys(net.symbols, 0)  # when each symbol was last served, or the network bad
    used_up = 0
    for _ in range(72_000):
        net.step()
        bare = net.bare()
        if net.lines.connects.wait_ns(net.now):
            used_up = net.now
        for symbol in net.symbols:
            if net.bad or symbol not in bare:
                since[symbol] = net.now
            assert net.now - max(since[symbol], used_up) <= HEALED_NS, symbol
    assert sum(strand.replaced for strand in net.lines.strands) > 10 and used_up > 0
    net.bad_until = 0
    net.calm = True
    for _ in range(int(HEALED_NS + WINDOW) // (S // 10)):
        net.step()
    assert net.bare() == []


@pytest.mark.parametrize("seed", range(3))
def test_a_calm_network_never_leaves_a_symbol_bare(seed: int) -> None:
    """With nothing but rotation going on, every symbol has a line at every moment after the start."""
    net = Network(seed, calm=True)
    net.perform(net.lines.start(0))
    for n in range(40_000):
        net.step()
        assert n < 20 or net.bare() == []
    assert all(strand.replaced >= 5 for strand in net.lines.strands)
