"""What a run's report holds: plain values that any layout can show and JSON can carry.

`sim.report.build` fills it from records, `sim.report.tearsheet` lays it out as text. Nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from trading.results.kpis import Drawdown, Figure, Shortfall


class HopLatency(TypedDict):
    """One hop's latency, ns, of this machine's clock."""

    count: int
    p50_ns: float
    p99_ns: float
    p999_ns: float
    max_ns: float


class ReaderStats(TypedDict):
    """Where one reader of a ring stands."""

    head: int
    overruns: int


class RingStats(TypedDict):
    """One ring at the end of the run. `backpressure`: how often its writer found it full."""

    capacity: int
    tail: int
    backpressure: int
    readers: Mapping[str, ReaderStats]


class BookStats(TypedDict):
    """One symbol's book: comparisons with the venue's own best bid and offer, and what its sequence said."""

    oracle_checked: int
    oracle_equal: int
    gaps: int
    resyncs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting that differs from its default, both as they are written in a profile."""

    key: str
    value: str
    default: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFile:
    """One file of a recording: its name, its size, and the SHA-256 of its bytes."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What ran. Times are Unix ns; `observed_ns` leaves out silences; `settings`: what differs from the defaults; `whole`:
    False where it was ended before its market had."""

    title: str
    profile: str
    sources: tuple[str, ...]
    symbols: tuple[str, ...]
    first_ts_ns: int
    last_ts_ns: int
    observed_ns: int
    messages: int
    market_records: int
    wall_s: float
    simulated: bool
    assumptions: tuple[str, ...]  # fees, latency, seed, queue model: one short sentence each
    order_digest: str
    fill_digest: str
    version: str = ""
    settings: tuple[Setting, ...] = ()
    recordings: tuple[RecordingFile, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One gate: how many signal records it, the first of all, held back."""

    gate: str
    records: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRow:
    """One signal: in how many records it was warm and voted; of those that asked for a side, how many it led, and its votes
    (weight times strength) for and against these sides; `part`: for less against, over all signals' votes for, None without any.
    """

    signal: str
    weight: float
    warm: int
    active: int
    led: int
    votes_for: float
    votes_against: float
    part: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What became of the signal records: each asked for a side, was held back by a gate, or (undecided) did neither."""

    records: int
    asked_to_buy: int
    asked_to_sell: int
    undecided: int
    gates: tuple[GateRow, ...]
    signals: tuple[SignalRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """One order and what became of it. In units; `price`: None for a market order; `average`: of its fills."""

    order_id: int
    ts_ns: int
    symbol: str
    side: str
    purpose: str
    kind: str
    quantity: float
    price: float | None
    filled: float
    average: float | None
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PurposeRow:
    """Orders of one purpose."""

    purpose: str
    sent: int
    filled_orders: int
    fills: int
    turnover: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCounts:
    """What became of the orders. Counts of orders, except `fills`, `partial_fills` and `cancel_rejects` (of reports)."""

    sent: int
    acknowledged: int
    rejected: int
    rejects_by_reason: dict[str, int]
    cancels_sent: int
    canceled: int
    cancel_rejects: int
    expired: int
    filled_whole: int
    filled_partly: int
    open_at_end: int
    fills: int
    partial_fills: int
    fill_rate: Figure
    maker_share: Figure
    by_purpose: tuple[PurposeRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolRow:
    """One symbol's money. `position` in units of the base currency, or in contracts where `inverse`, signed; prices and turnover
    in the quote currency, the rest in `asset`, what the symbol is settled in ("": not known by its name)."""

    symbol: str
    asset: str
    inverse: bool
    fills: int
    turnover: float
    position: float
    entry_price: float | None
    mark_price: float | None
    realised: float
    unrealised: float
    fees: float
    net: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What all symbols that are settled in one asset came to, in that asset. `quoted`: the net in the quote currency, coins
    (where `inverse`) at each symbol's last mark."""

    asset: str
    inverse: bool
    realised: float
    unrealised: float
    fees: float
    net: float
    quoted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Money in the quote currency, coins of inverse contracts at the last mark. gross = realised + unrealised, before fees; net =
    gross - fees. `settled`: the same by asset, nothing converted."""

    currency: str
    one_currency: bool
    start_equity: float
    end_equity: float
    gross: float
    fees: float
    net: float
    realised: float
    unrealised: float
    turnover: float
    drawdown: Drawdown
    settled: tuple[Settled, ...]
    curve: tuple[float, ...]  # equity, evenly spaced in observed time, a few dozen points
    symbols: tuple[SymbolRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpis:
    """Figures over returns of `period_ns` and over round trips; `trials`: strategies tried before this one was shown."""

    period_ns: int
    observed_days: float
    round_trips: int
    trials: int
    sharpe: Figure
    sharpe_year: Figure
    sortino: Figure
    sortino_year: Figure
    calmar: Figure
    deflated_sharpe: Figure
    win_rate: Figure
    profit_factor: Figure
    holding_ns: Figure
    shortfall: Shortfall
    ack_p50_ns: Figure
    ack_p99_ns: Figure
    ack_max_ns: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkoutRow:
    """Markouts in bps of one group of fills, in the order of `Report.horizons_ns`."""

    group: str
    fills: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it: plain values, as JSON in `sim.report.build.render_json`."""

    ran: Ran
    orders: OrderCounts
    money: Money
    kpis: Kpis
    horizons_ns: tuple[int, ...]
    markouts: tuple[MarkoutRow, ...]
    refusals: dict[str, int]
    decisions: Decisions | None
    last_orders: tuple[OrderRow, ...]
    latency: dict[str, HopLatency]  # of this machine
    venue: dict[str, HopLatency]  # over the venue and back: its delay, simulated or not, is in it
    rings: dict[str, RingStats]
    books: dict[str, BookStats]
