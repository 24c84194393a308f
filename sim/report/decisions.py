"""What became of every signal record: which gate held it back, and what part each signal had in the decisions that remained.

A Tally takes SIGNAL_RECORDs piece by piece, so that a long run's need not be held in memory. A decision is a record that asks for
a side after all gates. A signal's part in the decisions is the sum of its votes (weight times strength) for the sides asked
for, less those against them, over all votes for them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sim.report.model import Decisions, GateRow, SignalRow
from trading.features.signals import Voice
from trading.jit import Recs
from trading.records import MAX_SIGNALS, Kind, Side
from trading.scoring.ensemble import GATE_SENTENCES, Gate
from trading.settings import Strategy
from trading.user_signals import signal_table

PIECE: Final = 65_536
"""Records that `take_all` looks at at once."""


class Tally:
    """Counts SIGNAL_RECORDs of a run by a strategy."""

    def __init__(self, strategy: Strategy) -> None:
        self._table = signal_table(strategy)
        own = [one.weight for one in strategy.signals.user]
        built_in = [float(getattr(strategy.weights, spec.key)) for spec in self._table[: len(self._table) - len(own)]]
        self._weights = np.zeros(MAX_SIGNALS)
        self._weights[: len(self._table)] = [*built_in, *own]
        # a confirming signal says whether to act at all: its vote is for the side, whichever that is
        self._turns = np.ones(MAX_SIGNALS, bool)
        self._turns[: len(self._table)] = [spec.voice != Voice.CONFIRMING for spec in self._table]
        self.records = 0
        self._gates = np.zeros(max(Gate) + 1, np.int64)
        self._asked = {Side.BUY: 0, Side.SELL: 0}
        self._warm, self._active, self._led = (np.zeros(MAX_SIGNALS, np.int64) for _ in range(3))
        self._votes_for, self._votes_against = np.zeros(MAX_SIGNALS), np.zeros(MAX_SIGNALS)

    def __call__(self, recs: Recs) -> None:
        """Take records in order, shape (n,)."""
        recs = recs[recs["kind"] == Kind.SIGNAL]
        self.records += len(recs)
        known = recs["gate"][(recs["gate"] >= 0) & (recs["gate"] < len(self._gates))]
        self._gates += np.bincount(known, minlength=len(self._gates))
        for k in range(len(self._table)):
            self._warm[k] += int(((recs["ready_mask"] >> k) & 1).sum())
            self._active[k] += int(((recs["active_mask"] >> k) & 1).sum())
        asked = recs[recs["side"] != Side.NONE]
        for side in self._asked:
            self._asked[side] += int((asked["side"] == side).sum())
        self._led += np.bincount(np.clip(asked["reason"], 0, MAX_SIGNALS), minlength=MAX_SIGNALS + 1)[1:]
        active = (asked["active_mask"][:, None] >> np.arange(MAX_SIGNALS)) & 1
        votes = self._weights * asked["strength"].astype(np.float64) * active
        votes = np.where(self._turns, votes * asked["side"][:, None], votes)
        self._votes_for += np.maximum(votes, 0.0).sum(axis=0)
        self._votes_against += np.maximum(-votes, 0.0).sum(axis=0)

    def take_all(self, recs: Recs) -> None:
        """Take many records, some at a time: they may be a mapped file that is larger than memory."""
        for at in range(0, len(recs), PIECE):
            self(recs[at : at + PIECE])

    def found(self) -> Decisions:
        """What was counted; the gates in their order, those that held nothing back left out."""
        whole = float(self._votes_for.sum())
        decided = sum(self._asked.values())
        gates = [
            GateRow(gate=gate.name, records=int(self._gates[gate]), sentence=GATE_SENTENCES[gate])
            for gate in Gate if gate != Gate.NONE and self._gates[gate]
        ]  # fmt: skip
        signals = [
            SignalRow(
                signal=spec.key,
                weight=float(self._weights[k]),
                warm=int(self._warm[k]),
                active=int(self._active[k]),
                led=int(self._led[k]),
                votes_for=float(self._votes_for[k]),
                votes_against=float(self._votes_against[k]),
                part=float(self._votes_for[k] - self._votes_against[k]) / whole if whole > 0 else None,
            )
            for k, spec in enumerate(self._table)
        ]
        return Decisions(
            records=self.records,
            asked_to_buy=self._asked[Side.BUY],
            asked_to_sell=self._asked[Side.SELL],
            undecided=int(self._gates[Gate.NONE]) - decided,
            gates=tuple(gates),
            signals=tuple(signals),
        )
