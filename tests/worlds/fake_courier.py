"""An exchange that is no fold: it answers orders at moments of its own, so that what it says enters the pipeline from outside.

What it answers, and after how many of its turns, follows from a seed; how often it gets a turn, from who drives it. It is never
killed: it stands for the world.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pytest
from fold_world import STAGES, Session

from procs import topology
from procs.fold.assembly import LoopSettings
from procs.fold.plan import Plan
from ringbuf.layout import CAPACITY, CURSOR, GATING, TAIL, reader_line, views
from trading.records import REPORT_RECORD, ExecType, Kind, OrderStatus

NAME: Final = "courier"
STAGE: Final = topology.Stage(11, NAME, "fake_courier", ("wire",), "answers orders", hot=False, role=topology.EXCHANGE)
FOLDS: Final = tuple(name for name in STAGES if name != topology.EXCHANGE)


@pytest.fixture
def courier_stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The table of stages with the courier in it."""
    monkeypatch.setattr(topology, "STAGES", (*topology.STAGES, STAGE))
    monkeypatch.setitem(topology.STAGE, NAME, STAGE)
    yield


def with_courier(plan: Plan) -> Plan:
    """The plan with the courier for its exchange."""
    return replace(plan, run=replace(plan.run, exchange=NAME))


@dataclass(slots=True)
class Order:
    """One order at the courier's venue."""

    new: Any
    cum: int = 0
    live: bool = True


class Courier:
    """Reads the wire, writes executions."""

    def __init__(self, session: Session, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.wire, self.wire_slots, self.commands = views(session.world.rings["wire"], topology.RING["wire"].record)
        self.line = reader_line(topology.RING["wire"].reader_index(STAGE.name))
        self.out, self.out_slots, self.answers = views(session.world.rings["executions"], REPORT_RECORD)
        self.readers = [reader_line(n) for n in range(len(topology.RING["executions"].readers))]
        self.head = self.tail = self.turn = self.trade = 0
        self.orders: dict[int, Order] = {}
        self.due: list[tuple[int, int, Any]] = []  # (turn, order id, what comes)
        self.waiting: deque[dict[str, Any]] = deque()
        self.over = self.ended = False

    def poll(self) -> None:
        """One turn: hear what was sent, say what is due."""
        self.turn += 1
        while self.wire_slots[self.head & (int(self.wire[CAPACITY]) - 1), -1] == self.head + 1:
            self._hear(self.commands[self.head & (int(self.wire[CAPACITY]) - 1)].copy())
            self.head += 1
            self.wire[self.line + CURSOR] = self.head
        ready = sorted(one for one in self.due if one[0] <= self.turn or self.over)
        self.due = [one for one in self.due if not (one[0] <= self.turn or self.over)]
        for _, order_id, what in ready:
            self._say(order_id, what)
        if self.over and not self.due and not self.ended:
            for order in self.orders.values():
                if order.live:
                    self._answer(order.new, order, ExecType.EXPIRED, OrderStatus.CANCELED)
            self.waiting.append({"kind": int(Kind.END), "symbol": -1})
            self.ended = True
        while self.waiting and self._room():
            self._write(self.waiting.popleft())

    def _hear(self, said: Any) -> None:
        if said["kind"] == Kind.END:
            self.over = True
        elif said["kind"] == Kind.NEW:
            self.orders[int(said["order_id"])] = Order(said)
            self._later(int(said["order_id"]), "reject" if self.rng.random() < 0.05 else "ack")
        elif said["kind"] == Kind.CANCEL:
            self._later(int(said["target_order_id"]), "cancel")

    def _later(self, order_id: int, what: str) -> None:
        self.due.append((self.turn + int(self.rng.geometric(0.2)), order_id, what))

    def _say(self, order_id: int, what: str) -> None:
        order = self.orders[order_id]
        if what == "cancel":
            kind = ExecType.CANCELED if order.live else ExecType.CANCEL_REJECT
            order.live = False
            self._answer(order.new, order, kind, OrderStatus.CANCELED)
        elif order.live and what == "reject":
            order.live = False
            self._answer(order.new, order, ExecType.REJECT, OrderStatus.REJECTED, refusal=101)
        elif order.live and what == "ack":
            self._answer(order.new, order, ExecType.ACK, OrderStatus.OPEN)
            if self.rng.random() < 0.7:
                self._later(order_id, "fill")
        elif order.live:
            left = int(order.new["qty_lots"]) - order.cum
            lots = left if self.rng.random() < 0.6 else max(left // 2, 1)
            order.cum += lots
            order.live = order.cum < int(order.new["qty_lots"])
            self.trade += 1
            price = int(order.new["price_ticks"]) or int(order.new["decision_ticks"])
            status = OrderStatus.PARTIAL if order.live else OrderStatus.FILLED
            self._answer(order.new, order, ExecType.FILL, status, last_ticks=price, last_lots=lots, trade_id=self.trade, maker=1)
            if order.live:
                self._later(order_id, "fill")

    def _answer(self, new: Any, order: Order, kind: ExecType, status: OrderStatus, **more: int) -> None:
        self.waiting.append({
            "ts_ns": int(self.rng.integers(1, 1 << 60)),  # what the venue thinks the time is decides nothing
            "kind": int(Kind.REPORT), "cause_ring": topology.RING["wire"].ring_id, "cause_seq": int(new["seq"]) - 1,
            "symbol": int(new["symbol"]), "order_id": int(new["order_id"]), "venue_order_id": int(new["order_id"]) + 1000,
            "exec_type": int(kind), "order_status": int(status), "side": int(new["side"]), "purpose": int(new["purpose"]),
            "price_ticks": int(new["price_ticks"]), "cum_lots": order.cum,
            "leaves_lots": int(new["qty_lots"]) - order.cum if order.live else 0, "decision_ticks": float(new["decision_ticks"]),
            "ts_sent_ns": int(new["ts_ns"]), **more,
        })  # fmt: skip

    def _room(self) -> bool:
        return self.tail - min(int(self.out[line + CURSOR]) for line in self.readers) < int(self.out[CAPACITY])

    def _write(self, said: dict[str, Any]) -> None:
        row = self.tail & (int(self.out[CAPACITY]) - 1)
        self.out_slots[row, :] = 0
        for name, value in said.items():
            self.answers[row][name] = value
        self.tail += 1
        self.out_slots[row, -1] = self.tail
        self.out[TAIL] = self.tail


class CourierSession(Session):
    """The stages with the courier in the exchange's place."""

    def __init__(self, plan: Plan, loop: LoopSettings, seed: int, turns: float) -> None:
        """`turns`: the courier's share of all turns."""
        super().__init__(with_courier(plan), loop, names=FOLDS)
        for ring in ("market", "depth"):
            self.world.rings[ring][reader_line(topology.RING[ring].reader_index(topology.EXCHANGE)) + GATING] = 0
        self.courier, self.turns = Courier(self, seed), turns

    def between(self, rng: np.random.Generator) -> None:
        """The courier's turn, now and then."""
        if rng.random() < self.turns:
            self.courier.poll()
