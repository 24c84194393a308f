"""A run's report as one page of plain text: at most 100 columns, no colours, no escape codes.

`sim.report.build` computes the report from records; this module lays it out. A missing figure shows its reason, never a dash that
could be read as zero, and every figure stands beside its sample.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from sim.report.model import BookStats, HopLatency, Kpis, Money, OrderCounts, Ran, Report, RingStats
from sim.spans import span
from trading.results.kpis import Figure

WIDTH: Final = 100
_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN: Final = str.maketrans("─═±…▁▂▃▄▅▆▇█", "-=~._.-=+*%#")


# ---- figures as text --------------------------------------------------------------------------------------------------


def instant(ts_ns: int) -> str:
    """A time as "2024-08-08 14:00:01" UTC."""
    return datetime.fromtimestamp(ts_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def sparkline(values: Sequence[float]) -> str:
    """The values as one line of bars; flat values give a flat line in the middle."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if high == low:
        return _BARS[3] * len(values)
    return "".join(_BARS[min(int((value - low) / (high - low) * len(_BARS)), len(_BARS) - 1)] for value in values)


def _money(value: float, digits: int, signed: bool = False) -> str:
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    return text.replace("-", "", 1) if float(text.replace(",", "")) == 0 else text  # no "-0.00"


def _quantity(value: float) -> str:
    if not value:
        return "flat"
    text = f"{value:+,.{max(8 - len(str(int(abs(value)))) + 1, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _figure(figure: Figure, form: str) -> str:
    if figure.value is None:
        return "no figure"
    text = form.format(figure.value)
    return text if figure.error is None else f"{text} ± {form.format(figure.error).lstrip('+')}"


def _span(figure: Figure) -> str:
    return "no figure" if figure.value is None else span(figure.value)


# ---- layout -----------------------------------------------------------------------------------------------------------


def _heading(title: str, remark: str = "") -> list[str]:
    text = f"{title}  {remark} " if remark else f"{title} "
    return ["", text + "─" * max(WIDTH - len(text), 0)]


def _fields(rows: Sequence[tuple[str, str]]) -> list[str]:
    """`name  text`, the text wrapped in its own column."""
    width = max(len(name) for name, _ in rows) + 2
    out: list[str] = []
    for name, text in rows:
        first, *more = textwrap.wrap(text, WIDTH - 2 - width, break_on_hyphens=False) or [""]
        out += [f"  {name:<{width}}{first}", *(" " * (2 + width) + line for line in more)]
    return out


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns as wide as their widest cell; the first `left` are left-aligned; an over-long first column is cut."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    gap = 3 if sum(widths) + 3 * (len(widths) - 1) + 2 <= WIDTH else 2 if sum(widths) + 2 * len(widths) <= WIDTH else 1
    over = sum(widths) + gap * (len(widths) - 1) + 2 - WIDTH
    if over > 0:
        widths[0] = max(widths[0] - over, 4)
    out = []
    for row in cells:
        name = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
        aligned = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip([name, *row[1:]], widths, strict=True))
        ]
        out.append(("  " + (" " * gap).join(aligned)).rstrip())
    return out


def _counts(counts: Mapping[str, int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return _table(("reason", "count"), [(reason, f"{count:,}") for reason, count in ordered])


def _ran(ran: Ran) -> list[str]:
    lines = [ran.title, "═" * WIDTH]
    if ran.market_records:
        whole = ran.last_ts_ns - ran.first_ts_ns
        period = f"{instant(ran.first_ts_ns)} to {instant(ran.last_ts_ns)} UTC: {span(whole)}"
        if ran.observed_ns < whole:
            period += f", of which {span(ran.observed_ns)} with market data"
    else:
        period = "no market record"
    raw = f"{ran.messages:,} raw, " if ran.messages else ""  # a run that was cut off has no count of them
    work = f"{raw}{ran.market_records:,} market records, in {span(ran.wall_s * 1e9)} of wall time"
    if ran.wall_s > 0 and ran.observed_ns:
        work += f" ({ran.observed_ns / 1e9 / ran.wall_s:,.3g}x recorded speed)"
    rows = [("profile", ran.profile), ("source", ", ".join(ran.sources) or "none"), ("symbols", ", ".join(ran.symbols))]
    rows += [("span", period), ("messages", work)]
    rows += [("assumed" if n == 0 else "", text) for n, text in enumerate(ran.assumptions)]
    if ran.order_digest or ran.fill_digest:
        rows.append(("digests", f"orders {ran.order_digest or 'none'}, fills {ran.fill_digest or 'none'}"))
    return [*lines, *_heading("WHAT RAN"), *_fields(rows)]


def _orders(orders: OrderCounts, currency: str) -> list[str]:
    columns = (
        (("sent", orders.sent), ("filled whole", orders.filled_whole), ("cancels sent", orders.cancels_sent)),
        (("acknowledged", orders.acknowledged), ("filled in part", orders.filled_partly), ("canceled", orders.canceled)),
        (("rejected", orders.rejected), ("fills", orders.fills), ("cancel rejects", orders.cancel_rejects)),
        (("open at the end", orders.open_at_end), ("partial fills", orders.partial_fills), ("expired", orders.expired)),
    )
    lines = _heading("ORDERS")
    lines += ["  " + "        ".join(f"{name:<15}{count:>9,}" for name, count in row) for row in columns]
    rate, share = orders.fill_rate, orders.maker_share
    lines += [""]
    lines += _fields(
        [
            ("fill rate", f"{rate.value:.1%} of {rate.sample:,} accepted orders" if rate.value is not None else rate.note),
            ("maker share", f"{share.value:.1%} of the turnover" if share.value is not None else share.note),
        ]
    )
    if orders.by_purpose:
        rows = [
            (row.purpose, f"{row.sent:,}", f"{row.filled_orders:,}", f"{row.fills:,}", _money(row.turnover, 2))
            for row in orders.by_purpose
        ]
        lines += ["", *_table(("purpose", "sent", "filled", "fills", f"turnover {currency}".rstrip()), rows)]
    if orders.rejects_by_reason:
        lines += ["", "  Rejected by the venue:", *_counts(orders.rejects_by_reason)]
    return lines


def _money_lines(money: Money) -> list[str]:
    largest = max(abs(money.gross), abs(money.fees), money.drawdown.money)
    digits = 0 if largest >= 1e5 else 2 if largest >= 10 or largest == 0 else 4 if largest >= 0.1 else 8
    currency = money.currency
    unit = f" {currency}" if currency else ""
    start = money.start_equity
    fall = money.drawdown
    fall_text = f"{_money(fall.money, digits)}{unit} ({fall.share:.3%} of the peak), {span(fall.under_ns)} under it"
    net, gross, realised, unrealised = (
        _money(value, digits, True) for value in (money.net, money.gross, money.realised, money.unrealised)
    )
    growth = f" ({money.net / start:+.3%})" if start > 0 else ""
    multiple = f", {money.turnover / start:.2f}x the equity" if start > 0 else ""
    rate = f"; fees are {money.fees / money.turnover * 1e4:.2f} bps of it" if money.turnover > 0 else ""
    rows = [
        ("net", f"{net}{unit} = gross {gross} - fees {_money(money.fees, digits)}"),
        ("gross", f"{gross}{unit} = realised {realised} + unrealised {unrealised}, open positions marked at the mid"),
        ("equity", f"{_money(start, digits)} to {_money(money.end_equity, digits)}{growth}"),
        ("turnover", f"{_money(money.turnover, 2)}{unit}{multiple}{rate}"),
        ("drawdown", "none" if not fall.share else fall_text + (", recovered" if fall.recovered else ", not recovered")),
    ]
    lines = _heading("MONEY", f"in {currency}" if currency else "in the quote currency") + _fields(rows)
    if len(money.curve) > 1:
        low, high = min(money.curve), max(money.curve)
        lines += ["", f"  {sparkline(money.curve)}"]
        lines += [f"  equity over observed time, between {_money(low, digits)} and {_money(high, digits)}"]
    if money.symbols:
        head = ("symbol", "position", "entry", "mark", "realised", "unrealised", "fees", "net", "turnover")
        table = [
            (
                *(row.symbol, _quantity(row.position)),
                *("" if price is None else f"{price:,.8g}" for price in (row.entry_price, row.mark_price)),
                *(_money(value, digits, True) for value in (row.realised, row.unrealised)),
                _money(row.fees, digits),
                _money(row.net, digits, True),
                _money(row.turnover, 0),
            )
            for row in money.symbols
        ]
        lines += ["", *_table(head, table)]
    if not money.one_currency:
        lines += ["", *_note("These symbols have different quote currencies: the sums above add unlike money. Read the table.")]
    return lines


def _kpis(kpis: Kpis, unit: str) -> list[str]:
    period = span(kpis.period_ns)
    short = kpis.shortfall
    returns = "returns"
    rows: list[tuple[str, Figure, str, str]] = [
        (f"Sharpe, {period} period", kpis.sharpe, _figure(kpis.sharpe, "{:+.4f}"), returns),
        ("Sharpe, year of 365 d", kpis.sharpe_year, _figure(kpis.sharpe_year, "{:+.2f}"), returns),
        (f"Sortino, {period} period", kpis.sortino, _figure(kpis.sortino, "{:+.4f}"), returns),
        ("Sortino, year of 365 d", kpis.sortino_year, _figure(kpis.sortino_year, "{:+.2f}"), returns),
        ("Calmar", kpis.calmar, _figure(kpis.calmar, "{:+.2f}"), "points of equity"),
        ("deflated Sharpe", kpis.deflated_sharpe, _figure(kpis.deflated_sharpe, "{:.1%}"), _trials(kpis.trials)),
        ("win rate", kpis.win_rate, _figure(kpis.win_rate, "{:.1%}"), "round trips, after fees"),
        ("profit factor", kpis.profit_factor, _figure(kpis.profit_factor, "{:.2f}"), "round trips, after fees"),
        ("mean trade duration", kpis.holding_ns, _span(kpis.holding_ns), "round trips"),
        ("implementation shortfall", short.bps, _figure(short.bps, "{:+.2f} bps"), "orders, quotes left out"),
        ("decision to ack, p50", kpis.ack_p50_ns, _span(kpis.ack_p50_ns), "orders, in the run's own time"),
        ("decision to ack, p99", kpis.ack_p99_ns, _span(kpis.ack_p99_ns), "orders, in the run's own time"),
        ("decision to ack, max", kpis.ack_max_ns, _span(kpis.ack_max_ns), "orders, in the run's own time"),
    ]
    days = f"{kpis.observed_days:.3g} days ({span(kpis.observed_days * 86_400e9)})"
    lines = _heading("KEY FIGURES", f"over {days} of market and {kpis.round_trips:,} round trips")
    for name, figure, text, of in rows:
        remark = figure.note if figure.value is None else f"over {figure.sample:,} {of}"
        first, *more = textwrap.wrap(remark, WIDTH - 53)
        lines += [f"  {name:<26}{text:>22}   {first}", *(" " * 53 + line for line in more)]
    if short.orders:
        parts = ((short.execution, "what was filled"), (short.opportunity, "what was not"), (short.fees, "fees"))
        said = ", ".join(f"{_money(value, 2, True)} {of}" for value, of in parts)
        left = f"; {short.skipped:,} orders without a mid are left out" if short.skipped else ""
        total = _money(short.total, 2, True)
        lines += ["", *_note(f"Shortfall in money{unit}, a cost is positive: {said}; {total} in all{left}.")]
    return lines


def _trials(trials: int) -> str:
    return "returns, 1 trial" if trials == 1 else f"returns, best of {trials:,} trials"


def _markouts(report: Report) -> list[str]:
    lines = _heading("MARKOUTS", "bps from fill to later mid, fees left out; negative: the market went against us")
    head = ("fills", "count", *(f"{ns / 1e9:g} s" for ns in report.horizons_ns))
    rows = []
    for row in report.markouts:
        cells = [_figure(f, "{:+.2f}") if f.value is not None else f"too few ({f.sample})" for f in row.figures]
        rows.append((row.group, f"{row.fills:,}", *cells))
    return lines + _table(head, rows)


def _latency(latency: Mapping[str, HopLatency]) -> list[str]:
    lines = _heading("LATENCY", "per hop, of this machine's clock")
    if not latency:
        return [*lines, "  Not measured in this run."]
    rows = [
        (hop, f"{of['count']:,}", *(span(ns) for ns in (of["p50_ns"], of["p99_ns"], of["p999_ns"], of["max_ns"])))
        for hop, of in latency.items()
    ]
    return lines + _table(("hop", "count", "p50", "p99", "p99.9", "max"), rows)


def _rings(rings: Mapping[str, RingStats]) -> list[str]:
    lines = _heading("RINGS", "lag: of the slowest reader; full: how often the writer had to wait")
    if not rings:
        return [*lines, "  No rings in this run: one process called the kernels in turn."]
    rows = []
    for name, ring in rings.items():
        slowest = min(ring["readers"].items(), key=lambda item: item[1]["head"], default=None)
        lag = f"{ring['tail'] - slowest[1]['head']:,}" if slowest else ""
        overruns = sum(reader["overruns"] for reader in ring["readers"].values())
        counts = (f"{ring['capacity']:,}", f"{ring['tail']:,}", lag, f"{ring['backpressure']:,}", f"{overruns:,}")
        rows.append((name, slowest[0] if slowest else "", *counts))
    return lines + _table(("ring", "slowest reader", "capacity", "tail (write)", "lag", "full", "overruns"), rows, left=2)


def _books(books: Mapping[str, BookStats]) -> list[str]:
    lines = _heading("BOOKS", "against the venue's own best bid and offer at the same update id")
    if not books:
        return [*lines, "  Not checked in this run."]
    rows = []
    for symbol, book in books.items():
        checked, equal = book["oracle_checked"], book["oracle_equal"]
        verdict = "nothing to compare" if not checked else "all equal" if equal == checked else f"{checked - equal:,} DIFFER"
        rows.append((symbol, f"{equal:,} of {checked:,}", verdict, f"{book['gaps']:,}", f"{book['resyncs']:,}"))
    return lines + _table(("symbol", "equal", "verdict", "gaps", "resyncs"), rows)


def _note(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - 2, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _caveat(report: Report) -> list[str]:
    trips, days = report.kpis.round_trips, report.kpis.observed_days
    sample = f"These figures rest on {trips:,} round trips, {report.orders.fills:,} fills and {days:.3g} days."
    if report.ran.simulated:
        text = (
            f"{sample} The fills are simulated: they are assumptions about queue, latency and fees (see 'assumed' above) that no "
            "market has confirmed, and our orders moved no price. Past figures, simulated ones above all, promise no profit."
        )
    else:
        text = f"{sample} Past figures promise no profit."
    return [*_heading("READ WITH CARE"), *_note(text)]


def render_text(report: Report, *, ascii_only: bool = False) -> str:
    """The report as text, lines of at most WIDTH characters, ending in a newline; ascii_only for terminals without UTF-8."""
    currency = report.money.currency
    lines = [
        *_ran(report.ran),
        *_orders(report.orders, currency),
        *_money_lines(report.money),
        *_kpis(report.kpis, f" ({currency})" if currency else ""),
        *_markouts(report),
        *_heading("REFUSALS", "orders that risk did not let pass"),
        *(_counts(report.refusals) if report.refusals else ["  None."]),
        *_latency(report.latency),
        *_rings(report.rings),
        *_books(report.books),
        *_caveat(report),
    ]
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    return text.replace("±", "+-").translate(_PLAIN) if ascii_only else text
