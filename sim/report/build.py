"""A run's report, computed from its records alone: what ran, what became of the orders, and the money.

The same function serves the pipeline (records from its journals) and the backtest (records in memory), so their reports
differ only where the runs do. `render_text` and `render_json` give it to people and to programs.

No sum that a running process kept is trusted: positions, money and counts are computed again here from fills and mids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec
import numpy as np

from sim.report.model import (
    BookStats,
    HopLatency,
    Kpis,
    MarkoutRow,
    Money,
    OrderCounts,
    PurposeRow,
    Ran,
    ReaderStats,
    Report,
    RingStats,
    Settled,
    SymbolRow,
)
from sim.report.tearsheet import render_text
from sim.settings import SimulatedExchange
from trading.contracts import asset_of, quote_of
from trading.jit import Floats, Recs, Words
from trading.records import ExecType, Kind, Purpose, Refusal
from trading.results import kpis
from trading.results.kpis import Figure
from trading.results.marks import Marks, equity_at, event_times, mids, observed_ns, sample_times
from trading.results.round_trips import fills_of, match_fifo, values_e8

__all__ = [
    "BookStats",
    "HopLatency",
    "ReaderStats",
    "Report",
    "RingStats",
    "RunFacts",
    "build_report",
    "render_json",
    "render_text",
    "symbol_names",
]

CURVE_POINTS: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the records do not say. `exchange`: the simulated venue's settings, None for a real one; `trials`: how many
    settings were tried before this run was chosen to be shown; `title`: the report's first line."""

    title: str
    profile: str
    sources: tuple[str, ...]
    messages: int
    wall_s: float
    start_equity: float
    exchange: SimulatedExchange | None
    generator_seed: int | None = None
    trials: int = 1
    order_digest: str = ""
    fill_digest: str = ""
    period_ns: int = 10**9


def symbol_names(instruments: Recs) -> tuple[str, ...]:
    """The names of an INSTRUMENT table, in its order."""
    return tuple(bytes(row["name"][: int(row["name_len"])]).decode("ascii", "replace") for row in instruments)


def build_report(
    run: RunFacts,
    *,
    instruments: Recs,
    market: Recs,
    orders: Recs,
    reports: Recs,
    refusals: Recs,
    latency: Mapping[str, HopLatency] | None = None,
    rings: Mapping[str, RingStats] | None = None,
    books: Mapping[str, BookStats] | None = None,
) -> Report:
    """The report of a run from its records, each shape (n,) in ring order, END records and all.

    instruments: INSTRUMENT table; market: MARKET_RECORDs; orders, refusals: ORDER_RECORDs as risk published them; reports:
    REPORT_RECORDs as the router published them; latency, rings, books: by hop, ring and symbol, None where there are none.
    """
    marks = [mids(market, symbol) for symbol in range(len(instruments))]
    events = event_times(market)
    events = np.sort(events, kind="stable")  # a merged ring is sorted already; two recordings in one run need not be
    fills = fills_of(reports)
    trips, lots = match_fifo(fills, instruments)
    days = observed_ns(events) / kpis.DAY_NS
    end = max(int(events[-1]) if len(events) else 0, int(fills["ts_ns"].max()) if len(fills) else 0)
    every = np.union1d(np.concatenate((events, fills["ts_ns"])), np.array([end], np.int64))
    equity = np.concatenate(([run.start_equity], equity_at(fills, marks, instruments, run.start_equity, every)))
    drawdown = kpis.max_drawdown(equity, np.concatenate((every[:1], every)))
    sampled = equity_at(fills, marks, instruments, run.start_equity, sample_times(events, run.period_ns))
    return Report(
        ran=_ran(run, instruments, events),
        orders=_orders(orders, reports, fills, instruments),
        money=_money(run, fills, trips, lots, marks, instruments, equity, drawdown, sampled),
        kpis=_kpis(run, orders, reports, trips, marks, instruments, equity, sampled, days, drawdown),
        horizons_ns=kpis.MARKOUT_HORIZONS_NS,
        markouts=_markouts(fills, marks, instruments),
        refusals=_by_reason(refusals[refusals["kind"] == Kind.REFUSED]["refusal"]),
        latency=dict(latency or {}),
        rings=dict(rings or {}),
        books=dict(books or {}),
    )


def render_json(report: Report) -> str:
    """The report as indented JSON, one object; a figure without a value is null and carries its note."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def _ran(run: RunFacts, instruments: Recs, events: Words) -> Ran:
    names = symbol_names(instruments)
    said = []
    charged = [(int(it["maker_fee_e6"]), int(it["taker_fee_e6"])) for it in instruments]
    rates = sorted(set(charged))
    for maker, taker in rates:
        own = [name for name, rate in zip(names, charged, strict=True) if rate == (maker, taker)]
        whose = "" if len(rates) == 1 else f" for {', '.join(own)}"
        said.append(f"fees{whose}: maker {maker / 100:g} bps, taker {taker / 100:g} bps of the value")
    for name, it in zip(names, instruments, strict=True):
        size = float(it["contract_size"])
        if it["inverse"]:
            worth = f"{size:g} {quote_of(name) or 'of the quote currency'}"
            said.append(f"{name}: inverse, a contract is worth {worth}, settled in {asset_of(name, True)}")
        elif size != 1.0:
            said.append(f"{name}: a quantity of 1 is {size:g} of the base currency")
    if run.exchange is not None:
        law = run.exchange.latency
        said.append(
            f"venue simulated, seed {run.exchange.seed}: an order takes {law.entry_min_ms:g} to {law.entry_max_ms:g} ms to it, "
            f"its answer {law.response_min_ms:g} to {law.response_max_ms:g} ms back"
        )
        share = run.exchange.taker_depth_share
        said.append(f"queue power {run.exchange.queue_power:g}; a taker gets up to {share:.0%} of the visible quantity")
    if run.generator_seed is not None:
        said.append(f"market generated, seed {run.generator_seed}: no real prices")
    return Ran(
        title=run.title,
        profile=run.profile,
        sources=run.sources,
        symbols=names,
        first_ts_ns=int(events[0]) if len(events) else 0,
        last_ts_ns=int(events[-1]) if len(events) else 0,
        observed_ns=observed_ns(events),
        messages=run.messages,
        market_records=len(events),
        wall_s=run.wall_s,
        simulated=run.exchange is not None,
        assumptions=tuple(said),
        order_digest=run.order_digest,
        fill_digest=run.fill_digest,
    )


def _name(kind: type[IntEnum], value: int) -> str:
    return kind(value).name if value in kind._value2member_map_ else f"{kind.__name__} {value}"


def _by_reason(reasons: Words) -> dict[str, int]:
    return {_name(Refusal, reason): count for reason, count in Counter(reasons.tolist()).most_common()}


def _orders(orders: Recs, reports: Recs, fills: Recs, instruments: Recs) -> OrderCounts:
    answers = reports[reports["kind"] == Kind.REPORT]
    sent = kpis.new_orders(orders)
    ids = sent["order_id"]
    values = values_e8(instruments, fills["symbol"], fills["last_ticks"], fills["last_lots"])

    def ids_of(kind: ExecType) -> Words:
        return np.intersect1d(answers["order_id"][answers["exec_type"] == kind], ids)

    whole = np.intersect1d(fills["order_id"][fills["leaves_lots"] == 0], ids)
    partly = np.setdiff1d(ids_of(ExecType.FILL), whole)
    rejected, canceled, expired = ids_of(ExecType.REJECT), ids_of(ExecType.CANCELED), ids_of(ExecType.EXPIRED)
    over = np.unique(np.concatenate((whole, rejected, canceled, expired)))
    rows = []
    for purpose in np.unique(sent["purpose"]).tolist():
        own = ids[sent["purpose"] == purpose]
        filled = np.isin(fills["order_id"], own)
        rows.append(
            PurposeRow(
                purpose=_name(Purpose, purpose).lower().replace("_", " "),
                sent=len(own),
                filled_orders=len(np.unique(fills["order_id"][filled])),
                fills=int(filled.sum()),
                turnover=int(values[filled].sum()) / 1e8,
            )
        )
    return OrderCounts(
        sent=len(ids),
        acknowledged=len(ids_of(ExecType.ACK)),
        rejected=len(rejected),
        rejects_by_reason=_by_reason(answers["refusal"][answers["exec_type"] == ExecType.REJECT]),
        cancels_sent=int((orders["kind"] == Kind.CANCEL).sum()),
        canceled=len(canceled),
        cancel_rejects=int((answers["exec_type"] == ExecType.CANCEL_REJECT).sum()),
        expired=len(expired),
        filled_whole=len(whole),
        filled_partly=len(partly),
        open_at_end=len(np.setdiff1d(ids, over)),
        fills=len(fills),
        partial_fills=int((fills["leaves_lots"] > 0).sum()),
        fill_rate=kpis.fill_rate(orders, reports),
        maker_share=kpis.maker_share(fills, instruments),
        by_purpose=tuple(rows),
    )


def _quote_currency(names: tuple[str, ...]) -> tuple[str, bool]:
    """(common quote currency or "", whether there is but one) by the usual endings of symbol names."""
    found = {quote_of(name) for name in names}
    return (found.pop(), True) if len(found) == 1 else ("", not found)


def _settled(rows: Sequence[SymbolRow], quoted: Sequence[float]) -> tuple[Settled, ...]:
    """The symbols' money by what they are settled in; `quoted`: each symbol's net in the quote currency."""
    found = []
    for asset, inverse in sorted({(row.asset, row.inverse) for row in rows}):
        own = [n for n, row in enumerate(rows) if (row.asset, row.inverse) == (asset, inverse)]
        realised, unrealised, fees, net = (
            sum(getattr(rows[n], of) for n in own) for of in ("realised", "unrealised", "fees", "net")
        )
        found.append(
            Settled(
                asset=asset, inverse=inverse, realised=realised, unrealised=unrealised, fees=fees, net=net,
                quoted=sum(quoted[n] for n in own),
            )
        )  # fmt: skip
    return tuple(found)


def _money(
    run: RunFacts,
    fills: Recs,
    trips: Recs,
    lots: Recs,
    marks: list[Marks],
    instruments: Recs,
    equity: Floats,
    drawdown: kpis.Drawdown,
    sampled: Floats,
) -> Money:
    names = symbol_names(instruments)
    rows, quoted = [], []
    for symbol, it in enumerate(instruments):
        own, left = fills[fills["symbol"] == symbol], lots[lots["symbol"] == symbol]
        if not len(own):
            continue
        inverse, size = bool(it["inverse"]), float(it["lot_size"]) * float(it["contract_size"])
        unit = float(it["tick_size"]) * size
        open_lots = int((left["side"] * left["qty_lots"]).sum())
        cost = int((left["side"] * left["value_e8"]).sum()) / 1e8
        mark_ticks = float(marks[symbol].mid_ticks[-1]) if len(marks[symbol].mid_ticks) else float(own["last_ticks"][-1])
        realised = int(trips["gross_e8"][trips["symbol"] == symbol].sum()) / 1e8
        mark = mark_ticks * float(it["tick_size"])
        if inverse:
            unrealised, entry = cost - open_lots * size / mark, open_lots * size / cost if open_lots else None
        else:
            unrealised, entry = open_lots * mark_ticks * unit - cost, cost / (open_lots * size) if open_lots else None
        paid = int(own["fee_e8"].sum()) / 1e8
        rows.append(
            SymbolRow(
                symbol=names[symbol],
                asset=asset_of(names[symbol], inverse),
                inverse=inverse,
                fills=len(own),
                turnover=float(kpis.turnover(own, instruments).value or 0.0),
                position=open_lots * float(it["lot_size"]),
                entry_price=entry,
                mark_price=mark if open_lots else None,
                realised=realised,
                unrealised=unrealised,
                fees=paid,
                net=realised + unrealised - paid,
            )
        )
        quoted.append([amount * (mark if inverse else 1.0) for amount in (realised, unrealised, paid)])
    currency, one = _quote_currency(tuple(row.symbol for row in rows) or names)
    realised, unrealised, paid = (sum(amounts) for amounts in zip(*quoted, strict=True)) if quoted else (0.0, 0.0, 0.0)
    picked = np.linspace(0, max(len(sampled) - 1, 0), min(CURVE_POINTS, len(sampled))).astype(np.int64)
    return Money(
        currency=currency,
        one_currency=one,
        start_equity=run.start_equity,
        end_equity=float(equity[-1]),
        gross=realised + unrealised,
        fees=paid,
        net=realised + unrealised - paid,
        realised=realised,
        unrealised=unrealised,
        turnover=sum(row.turnover for row in rows),
        drawdown=drawdown,
        settled=_settled(rows, [realised + unrealised - paid for realised, unrealised, paid in quoted]),
        curve=tuple(sampled[picked].tolist()),
        symbols=tuple(rows),
    )


def _kpis(
    run: RunFacts,
    orders: Recs,
    reports: Recs,
    trips: Recs,
    marks: list[Marks],
    instruments: Recs,
    equity: Floats,
    sampled: Floats,
    days: float,
    drawdown: kpis.Drawdown,
) -> Kpis:
    returns = kpis.period_returns(sampled)
    sharpe, sortino = kpis.sharpe(returns), kpis.sortino(returns)
    acks = kpis.decision_to_ack_ns(orders, reports)
    n = len(acks)
    ack = [
        Figure(float(np.percentile(acks, q, method="higher")), n) if n else Figure(None, 0, "no order was answered")
        for q in (50.0, 99.0, 100.0)
    ]
    return Kpis(
        period_ns=run.period_ns,
        observed_days=days,
        round_trips=len(trips),
        trials=run.trials,
        sharpe=sharpe,
        sharpe_year=kpis.annualised(sharpe, run.period_ns, days),
        sortino=sortino,
        sortino_year=kpis.annualised(sortino, run.period_ns, days),
        calmar=kpis.calmar(equity, days, drawdown),
        deflated_sharpe=kpis.deflated_sharpe(returns, run.trials),
        win_rate=kpis.win_rate(trips),
        profit_factor=kpis.profit_factor(trips),
        holding_ns=kpis.mean_holding_ns(trips),
        shortfall=kpis.implementation_shortfall(orders, reports, marks, instruments),
        ack_p50_ns=ack[0],
        ack_p99_ns=ack[1],
        ack_max_ns=ack[2],
    )


def _markouts(fills: Recs, marks: list[Marks], instruments: Recs) -> tuple[MarkoutRow, ...]:
    groups = (("all", fills), ("as maker", fills[fills["maker"] == 1]), ("as taker", fills[fills["maker"] == 0]))
    return tuple(
        MarkoutRow(
            group=name,
            fills=len(own),
            figures=tuple(kpis.markout_bps(own, marks, instruments, horizon) for horizon in kpis.MARKOUT_HORIZONS_NS),
        )
        for name, own in groups
    )
