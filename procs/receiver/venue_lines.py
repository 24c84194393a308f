"""All lines of one venue: the connect budget that they share, redundant copies (A/B), and replacement without a gap.

A *strand* is a connection that is to exist for ever: one plan of the venue, once a copy. It owns two line numbers and uses one of
them, except while it replaces its line (before the venue's 24 h, or when the venue says that it will close):

    STEADY -- due, or told so, and the turn is free --> REPLACING -- the new line is UP --> RETIRING -- overlap over --> STEADY
                                                            | the old line ends: the new one takes its place

During the overlap both lines bring everything, and the feed drops what it has; so nothing is missing whichever is ahead. Of the
strands of one plan at most one replaces at a time; one that gets nowhere gives up its turn.

What this module is not: it opens nothing and knows no frame. Line numbers are small: they travel in `flags` of frame records.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from procs.pacing import Pace
from procs.receiver.budget import ConnectBudget
from procs.receiver.lines import Action, Close, Down, Gap, Line, LinePolicy, LineState, Note
from trading.venues.protocol import ConnectionPlan, Refused, Subscribed

SPREAD: Final = 0.03
"""Replacements are due up to this part of the time earlier, so that lines opened together are not replaced together."""


class Phase(StrEnum):
    """What a strand is doing."""

    STEADY = "STEADY"
    REPLACING = "REPLACING"
    RETIRING = "RETIRING"


@dataclass(slots=True)
class Strand:
    """One connection that is always wanted."""

    plan: int
    copy: int
    pair: tuple[Line, Line]
    rotate_ns: int  # age at which its line is replaced; 0: never
    current: int = 0
    phase: Phase = Phase.STEADY
    since_ns: int = 0  # of the phase
    not_before_ns: int = 0  # a turn that was given up
    replaced: int = 0

    @property
    def line(self) -> Line:
        """The line in use."""
        return self.pair[self.current]

    @property
    def other(self) -> Line:
        """The line that replaces it, or was replaced by it."""
        return self.pair[1 - self.current]

    def enter(self, phase: Phase, now: int) -> None:
        """Into a phase."""
        self.phase, self.since_ns = phase, now

    def swap(self) -> None:
        """The other line is the one in use."""
        self.current = 1 - self.current


class VenueLines:
    """The lines of one venue. Every method answers what is to be done; times are monotonic ns."""

    def __init__(
        self,
        plans: Sequence[ConnectionPlan],
        copies: int,
        policy: LinePolicy,
        connects: ConnectBudget,
        rng: random.Random,
        first_line: int = 0,
    ) -> None:
        self.policy: Final = policy
        self.connects: Final = connects
        self.blocked_ns = 0  # the venue wants no connect before
        self.stopping = False
        self.strands: Final[list[Strand]] = []
        self.lines: Final[dict[int, Line]] = {}
        self._strand: Final[dict[int, Strand]] = {}
        pace = Pace(policy.message_gap_ns) if policy.messages_shared else None
        number = first_line
        for index, plan in enumerate(plans):
            for copy in range(copies):
                pair = (Line(number, plan, policy, rng, pace), Line(number + 1, plan, policy, rng, pace))
                strand = Strand(index, copy, pair, int(policy.rotate_ns * (1 - SPREAD * rng.random())))
                self.strands.append(strand)
                for line in pair:
                    self.lines[line.number], self._strand[line.number] = line, strand
                number += 2
        self.next_line: Final = number
        count: dict[int, int] = {}
        for plan in plans:
            for symbol in set(plan.symbols):
                count[symbol] = count.get(symbol, 0) + 1
        self._split: Final = frozenset(symbol for symbol, plans_of_it in count.items() if plans_of_it > 1)
        """Symbols whose streams come over several connections: one may be down while the symbol still has a line."""

    def start(self, now: int) -> list[Action]:
        """Want everything up."""
        for strand in self.strands:
            strand.line.start(now)
        return self.tick(now)

    def stop(self, now: int) -> list[Action]:
        """Want everything down."""
        self.stopping = True
        return [action for line in self.lines.values() for action in line.close(now, "stopped")]

    def is_open(self, number: int) -> bool:
        """Whether what this line brings counts."""
        return self.lines[number].state in (LineState.SUBSCRIBING, LineState.UP)

    def up_lines(self, symbol: int) -> list[int]:
        """Lines on which this symbol's book is subscribed."""
        return [line.number for line in self.lines.values() if line.plan.book and symbol in line.told]

    def covered(self, symbol: int) -> bool:
        """Whether the streams of this symbol's book are all subscribed: a snapshot has something to connect to."""
        plans = {strand.plan for strand in self.strands if strand.line.plan.book and symbol in strand.line.plan.symbols}
        return plans <= {strand.plan for strand in self.strands if any(symbol in line.told for line in strand.pair)}

    # --- events -------------------------------------------------------------------------------------------------------

    def opened(self, number: int, now: int) -> list[Action]:
        """The socket of a line stands."""
        return self._watched(number, now, lambda line: line.opened(now))

    def subscribed(self, number: int, said: Subscribed, now: int) -> list[Action]:
        """The venue confirmed on this line."""
        return self._watched(number, now, lambda line: line.subscribed(said, now))

    def refused(self, number: int, said: Refused, now: int) -> list[Action]:
        """The venue refused on this line."""
        return self._watched(number, now, lambda line: line.refused(said, now))

    def closing(self, number: int, text: str, now: int) -> list[Action]:
        """The venue will end this line's connection soon."""
        line = self.lines[number]
        if line.ends_soon or not self.is_open(number):
            return []
        line.ends_soon = text or "the venue ends it"
        return [Note(number, f"it is to be replaced: {line.ends_soon}"), *self.tick(now)]

    def ping(self, number: int, payload: bytes, now: int) -> list[Action]:
        """The venue pings on this line."""
        return self.lines[number].ping(payload, now)

    def send(self, number: int, messages: Sequence[bytes], now: int, *, first: bool = False) -> list[Action]:
        """Queue messages on a line."""
        return self.lines[number].send(messages, now, first=first)

    def closed(self, number: int, why: str, now: int, retry_after_s: float = 0.0) -> list[Action]:
        """A socket is gone or could not be opened; `retry_after_s`: the venue wants no connect for so long, by any line."""
        if retry_after_s > 0:
            self.blocked_ns = max(self.blocked_ns, now + int(retry_after_s * 1e9))
        line, strand = self.lines[number], self._strand[number]
        if line.state in (LineState.IDLE, LineState.BACKOFF):
            return []
        is_current = line is strand.line
        # a current line whose replacement is on its way is not opened again, nor is one that was replaced
        again = not self.stopping and is_current is not (strand.phase is Phase.REPLACING)
        actions = self._completed(line.closed(now, why, again=again))
        if strand.phase is Phase.REPLACING and is_current:
            strand.swap()
            strand.enter(Phase.STEADY, now)
        elif strand.phase is Phase.RETIRING and is_current:
            if strand.other.state is LineState.UP:  # the old line still lives: back to it
                strand.swap()
                strand.enter(Phase.REPLACING, now)
            else:
                strand.enter(Phase.STEADY, now)
        elif strand.phase is Phase.RETIRING:
            strand.enter(Phase.STEADY, now)
        return actions

    def tick(self, now: int) -> list[Action]:
        """Whatever is due, on all lines."""
        actions: list[Action] = []
        for line in self.lines.values():
            if line.state is LineState.CLOSING and now >= line.deadline_ns:
                actions.append(Close(line.number, line.last_end, abort=True))
                actions += self.closed(line.number, line.last_end, now)
            elif line.state is not LineState.IDLE:
                actions += self._watched(line.number, now, lambda line: line.tick(now))
        if self.stopping:
            return actions
        for strand in self.strands:
            actions += self._rotate(strand, now)
        for line in self.lines.values():
            if line.state is LineState.BACKOFF and now >= max(line.deadline_ns, self.blocked_ns):
                if self.connects.wait_ns(now):
                    break
                self.connects.take(now)
                actions += line.connect(now)
        return actions

    # --- inside -------------------------------------------------------------------------------------------------------

    def _watched(self, number: int, now: int, step: Callable[[Line], list[Action]]) -> list[Action]:
        line, strand = self.lines[number], self._strand[number]
        before = line.state
        actions = self._completed(step(line))
        if line.state is LineState.UP and before is not LineState.UP and strand.phase is Phase.REPLACING and line is strand.other:
            strand.swap()
            strand.replaced += 1
            strand.enter(Phase.RETIRING, now)
        return actions

    def _completed(self, actions: list[Action]) -> list[Action]:
        """Adds a Gap behind a Down that takes a symbol's book and leaves it other streams.

        The loss of the others alone is no Gap: nothing of the book is missing, and prints have ids that go on.
        """
        found = list(actions)
        for action in actions:
            if isinstance(action, Down) and self._split:
                plan = self._strand[action.line].plan
                siblings = [line for strand in self.strands if strand.plan == plan for line in strand.pair]
                bare = tuple(s for s in action.symbols if s in self._split and not any(s in line.told for line in siblings))
                if bare and self.lines[action.line].plan.book:
                    found.append(Gap(action.line, bare))
                elif bare:
                    found.append(Note(action.line, f"prints of {len(bare)} symbols are missing meanwhile; their books live on"))
        return found

    def _turn_taken(self, strand: Strand) -> bool:
        return any(s is not strand and s.plan == strand.plan and s.phase is not Phase.STEADY for s in self.strands)

    def _due(self, strand: Strand, now: int) -> bool:
        line = strand.line
        if line.state is not LineState.UP or now < strand.not_before_ns:
            return False
        return bool(line.ends_soon) or (strand.rotate_ns > 0 and now - line.opened_ns >= strand.rotate_ns)

    def _rotate(self, strand: Strand, now: int) -> list[Action]:
        if strand.phase is Phase.RETIRING and now - strand.since_ns >= self.policy.overlap_ns:
            return self._completed(strand.other.close(now, "replaced"))
        if strand.phase is Phase.REPLACING and now - strand.since_ns >= self.policy.turn_ns:
            waiting = [s for s in self.strands if s is not strand and s.plan == strand.plan and self._due(s, now)]
            if waiting:
                strand.enter(Phase.STEADY, now)
                strand.not_before_ns = now + self.policy.turn_ns
                return self._completed(strand.other.close(now, "its turn to replace is over"))
        if strand.phase is Phase.STEADY and strand.other.state is LineState.IDLE and self._due(strand, now):
            if not self._turn_taken(strand):
                strand.enter(Phase.REPLACING, now)
                strand.other.start(now)
        return []
