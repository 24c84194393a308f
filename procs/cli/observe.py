"""What the market and our orders look like right now, read from rings and journals without holding anybody up.

Fills come from the reports journal where there is one, because a ring only remembers its last thousands of records; else from
the ring, and then only those since we began to look (`since_start` is False).

What this module is not: no authority. Risk keeps the positions; the report computes them again from the journals.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs import topology
from procs.journal.format import HEADER_BYTES, JournalError, journal_path, open_regular, parse_header
from procs.memory.board import Words
from ringbuf.plain import copied_from, latest
from trading.records import REPORT_RECORD, ExecType, Flag, Kind, layout_hash

Recs = Any
LOOK_BACK: Final = 512
"""Market records looked at for each symbol's last one: a symbol that is quieter than that keeps the last one seen."""
LIVE: Final = (1, 2, 3, 4)
"""OrderStatus that is not final: PENDING_NEW, OPEN, PARTIAL, PENDING_CANCEL."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol as people read it: its name, the size of a tick and of a lot, digits after the point."""

    name: str
    tick_size: float
    lot_size: float
    price_digits: int = 2
    inverse: bool = False  # an inverse contract: quantities are contracts, money is in the coin
    contract_size: float = 1.0
    asset: str = ""  # what it is settled in

    @property
    def money_digits(self) -> int:
        """Digits after the point of its money."""
        return 8 if self.inverse else 2

    def notional(self, ticks: float, lots: float) -> float:
        """Value in the quote currency."""
        return lots * self.lot_size * self.contract_size * (1.0 if self.inverse else ticks * self.tick_size)

    def value(self, ticks: float, lots: float) -> float:
        """Value in what it is settled in."""
        return self.notional(ticks, lots) / (ticks * self.tick_size if self.inverse else 1.0)

    def entry(self, cost: float, lots: int) -> float:
        """The price at which `lots` are worth `cost`."""
        size = abs(lots) * self.lot_size * self.contract_size
        return size / cost if self.inverse else cost / size


@dataclass(slots=True)
class Top:
    """The best bid and ask of one symbol, in ticks and lots; `valid` is False while its book is stale."""

    ts_ns: int = 0
    bid_ticks: int = 0
    bid_lots: int = 0
    ask_ticks: int = 0
    ask_lots: int = 0
    last_ticks: int = 0
    valid: bool = False

    @property
    def mid_ticks(self) -> float:
        """Mid price in ticks, 0 without both sides."""
        return (self.bid_ticks + self.ask_ticks) / 2 if self.bid_ticks and self.ask_ticks else 0.0


@dataclass(slots=True)
class Account:
    """What our fills in one symbol come to. Money in what it is settled in, turnover in the quote currency."""

    position_lots: int = 0
    cost: float = 0.0  # of the open position, >= 0
    realised: float = 0.0
    fees: float = 0.0
    turnover: float = 0.0
    fills: int = 0

    def fill(self, symbol: Symbol, side: int, ticks: int, lots: int, fee: float) -> None:
        """Take one fill of `lots` at `ticks`."""
        value, gain = symbol.value(ticks, lots), -1 if symbol.inverse else 1
        held = abs(self.position_lots)
        closing = min(lots, held) if self.position_lots * side < 0 else 0
        if closing:
            released = self.cost * closing / held
            self.realised += -side * gain * (value * closing / lots - released)
            self.cost -= released
        self.cost += value * (lots - closing) / lots
        self.position_lots += side * lots
        self.fees += fee
        self.turnover += symbol.notional(ticks, lots)
        self.fills += 1

    def unrealised(self, symbol: Symbol, mid_ticks: float) -> float:
        """Value of the open position at the mid, less what it cost; 0 when flat or without a mid."""
        if not self.position_lots or not mid_ticks:
            return 0.0
        gained = symbol.value(mid_ticks, abs(self.position_lots)) - self.cost
        return gained if (self.position_lots > 0) != symbol.inverse else -gained


@dataclass(slots=True)
class Counts:
    """What became of our orders."""

    acks: int = 0
    fills: int = 0
    canceled: int = 0
    rejected: int = 0
    expired: int = 0
    live: dict[int, int] = field(default_factory=dict)  # order id -> symbol


class Markets:
    """The top of each symbol's book, as of the last look."""

    def __init__(self, symbols: int) -> None:
        self.tops = [Top() for _ in range(symbols)]

    def look(self, words: Words) -> None:
        """Read the market ring's last records."""
        self.take(latest(words, topology.RING["market"].record, LOOK_BACK))

    def take(self, recs: Recs) -> None:
        """Take market records in order."""
        for number, top in enumerate(self.tops):
            own = recs[(recs["symbol"] == number) & (recs["kind"] != Kind.END)]
            if not len(own):
                continue
            last = own[-1]
            top.ts_ns, top.valid = int(last["ts_ns"]), bool(int(last["flags"]) & Flag.BOOK_VALID)
            top.bid_ticks, top.ask_ticks = int(last["bid_ticks"][0]), int(last["ask_ticks"][0])
            top.bid_lots, top.ask_lots = int(last["bid_lots"][0]), int(last["ask_lots"][0])
            trades = own[own["kind"] == Kind.TRADE]
            if len(trades):
                top.last_ticks = int(trades[-1]["price_ticks"])


class Orders:
    """Our orders and fills, followed from the reports journal or, without one, from the reports ring."""

    def __init__(self, symbols: list[Symbol], journal: Path | None) -> None:
        self.symbols = symbols
        self.accounts = [Account() for _ in symbols]
        self.counts = Counts()
        self.since_start = True
        self._next = 0
        self._journal = journal_path(journal, "reports") if journal is not None else None

    def look(self, words: Words) -> None:
        """Take all reports that came since the last look."""
        recs = self._from_journal()
        if recs is None:
            recs = self._from_ring(words)
        self.take(recs)

    def _from_journal(self) -> Recs | None:
        if self._journal is None:
            return None
        try:
            fd = open_regular(self._journal, os.O_RDONLY)
        except JournalError:
            return None
        with contextlib.closing(os.fdopen(fd, "rb")) as file:
            try:
                header = parse_header(os.pread(fd, HEADER_BYTES, 0), self._journal)
            except JournalError:
                return None
            if header.layout != layout_hash(REPORT_RECORD):
                return None
            count = max(os.fstat(fd).st_size - HEADER_BYTES, 0) // REPORT_RECORD.itemsize
            if count <= self._next - header.first_sequence:
                return np.zeros(0, REPORT_RECORD)
            mapped = mmap.mmap(file.fileno(), HEADER_BYTES + count * REPORT_RECORD.itemsize, access=mmap.ACCESS_READ)
            recs = np.frombuffer(mapped, REPORT_RECORD, count, HEADER_BYTES)[self._next - header.first_sequence :]
            self._next = header.first_sequence + count
            return recs

    def _from_ring(self, words: Words) -> Recs:
        found, tail = copied_from(words, REPORT_RECORD, self._next)
        if len(found) < tail - self._next:
            self.since_start = False
        self._next = tail
        return found

    def take(self, recs: Recs) -> None:
        """Take REPORT_RECORDs in order."""
        recs = recs[recs["kind"] == Kind.REPORT]
        if not len(recs):
            return
        counts, kinds = self.counts, recs["exec_type"]
        counts.acks += int((kinds == ExecType.ACK).sum())
        counts.canceled += int((kinds == ExecType.CANCELED).sum())
        counts.rejected += int((kinds == ExecType.REJECT).sum())
        counts.expired += int((kinds == ExecType.EXPIRED).sum())
        fills = recs[kinds == ExecType.FILL]
        counts.fills += len(fills)
        for side, ticks, lots, fee, symbol in zip(
            fills["side"].tolist(), fills["last_ticks"].tolist(), fills["last_lots"].tolist(), fills["fee_e8"].tolist(),
            fills["symbol"].tolist(), strict=True,
        ):  # fmt: skip
            if 0 <= symbol < len(self.symbols) and lots > 0 and ticks > 0:
                self.accounts[symbol].fill(self.symbols[symbol], side, ticks, lots, fee / 1e8)
        ids, statuses, of = recs["order_id"].tolist(), recs["order_status"].tolist(), recs["symbol"].tolist()
        for order, status, symbol in zip(ids, statuses, of, strict=True):
            if status in LIVE:
                counts.live[order] = symbol
            else:
                counts.live.pop(order, None)
