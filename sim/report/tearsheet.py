"""A run's report as one page of plain text: at most 80 columns, no colours, no escape codes.

`sim.report.build` computes the report from records; this module lays it out. A missing figure shows its reason, never a dash that
could be read as zero, and every figure stands beside its sample.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from sim.report.model import BookStats, Decisions, HopLatency, Kpis, Money, OrderCounts, OrderRow, Ran, Report, RingStats
from sim.report.shares import share_text
from sim.spans import span
from trading.results.kpis import Figure

WIDTH: Final = 80
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


def _settled_text(value: float, inverse: bool, digits: int, *, signed: bool = True) -> str:
    """An amount of a settlement asset: coins to their last digit, the quote currency as the sums are."""
    return _money(value, 8 if inverse else digits, signed)


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


def _share(figure: Figure) -> str:
    """A share with its interval, as narrow as a column: "41.2% (35.1-47.6%)"."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "no figure"
    return f"{figure.value:.1%} ({100 * figure.low:.1f}-{figure.high:.1%})"


def _span(figure: Figure) -> str:
    return "no figure" if figure.value is None else span(figure.value)


# ---- layout -----------------------------------------------------------------------------------------------------------


def _heading(title: str, remark: str = "") -> list[str]:
    text = f"{title}  {remark} " if remark and len(title) + len(remark) + 4 <= WIDTH else f"{title} "
    below = _note(remark) if remark and remark not in text else []
    return ["", text + "─" * (WIDTH - len(text)), *below]


def _fields(rows: Sequence[tuple[str, str]]) -> list[str]:
    """`name  text`, the text wrapped in its own column."""
    width = max(len(name) for name, _ in rows) + 2
    out: list[str] = []
    for name, text in rows:
        first, *more = textwrap.wrap(text, WIDTH - 2 - width, break_on_hyphens=False) or [""]
        out += [f"  {name:<{width}}{first}", *(" " * (2 + width) + line for line in more)]
    return out


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns as wide as their widest cell; the first `left` are left-aligned. What is too wide goes on below, with the first
    column again; an over-long first column is cut."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    room = WIDTH - 2
    if sum(widths) + len(widths) - 1 > room:
        widths[0] = min(widths[0], max(room - sum(widths[1:]) - len(widths) + 1, 12))
    fitting = len(widths)
    while fitting > left + 1 and sum(widths[:fitting]) + fitting - 1 > room:
        fitting -= 1
    if fitting < len(widths):
        rest = [[row[0], *row[fitting:]] for row in cells]
        return [*_table(head[:fitting], [row[:fitting] for row in rows], left), "", *_table(rest[0], rest[1:])]
    gap = 3 if sum(widths) + 3 * (len(widths) - 1) <= room else 2 if sum(widths) + 2 * (len(widths) - 1) <= room else 1
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
    rows += [("span", period if ran.whole else f"{period}; it was ended before its market had"), ("messages", work)]
    rows += [("assumed" if n == 0 else "", text) for n, text in enumerate(ran.assumptions)]
    if ran.order_digest or ran.fill_digest:
        rows += [("digests", f"orders {ran.order_digest or 'none'}"), ("", f"fills  {ran.fill_digest or 'none'}")]
    for n, file in enumerate(ran.recordings):
        rows.append(("sha256" if n == 0 else "", f"{file.name}, {file.bytes:,} bytes:"))
        rows.append(("", file.sha256))
    if ran.version:
        rows.append(("version", ran.version))
    rows += [
        ("settings" if n == 0 else "", f"{setting.key}: {setting.value} (default {setting.default})")
        for n, setting in enumerate(ran.settings)
    ] or [("settings", "the defaults")]
    return [*lines, *_heading("WHAT RAN"), *_fields(rows)]


def _orders(orders: OrderCounts, currency: str) -> list[str]:
    columns = (
        (("sent", orders.sent), ("filled whole", orders.filled_whole), ("cancels sent", orders.cancels_sent)),
        (("acknowledged", orders.acknowledged), ("filled in part", orders.filled_partly), ("canceled", orders.canceled)),
        (("rejected", orders.rejected), ("fills", orders.fills), ("cancel rejects", orders.cancel_rejects)),
        (("open at the end", orders.open_at_end), ("partial fills", orders.partial_fills), ("expired", orders.expired)),
    )
    lines = _heading("ORDERS")
    lines += ["  " + "   ".join(f"{name:<15}{count:>9,}" for name, count in row) for row in columns]
    rate, share = orders.fill_rate, orders.maker_share
    lines += [""]
    lines += _fields(
        [
            ("fill rate", f"{share_text(rate)} of the accepted orders" if rate.value is not None else rate.note),
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


def _last_orders(rows: Sequence[OrderRow]) -> list[str]:
    lines = _heading("LAST ORDERS", "and last filled; `scalperctl trace ORDER` tells one's whole way")
    if not rows:
        return [*lines, "  None."]
    several = len({row.symbol for row in rows}) > 1
    which = ["symbol"] if several else []
    head = ("order", "sent (UTC)", *which, "side", "for", "filled", "of", "price", "average", "ended as")
    table = [
        (
            *(str(row.order_id), instant(row.ts_ns)[11:], *([row.symbol] if several else []), row.side, row.purpose),
            *(f"{row.filled:.8g}", f"{row.quantity:.8g}", row.kind if row.price is None else f"{row.price:,.10g}"),
            *("" if row.average is None else f"{row.average:,.10g}", row.status),
        )
        for row in rows
    ]
    return [*lines, *_table(head, table)]


def _decisions(decisions: Decisions | None) -> list[str]:
    if decisions is None or not decisions.records:
        return [*_heading("DECISIONS"), "  No signal record of this run is kept."]
    whole = decisions.records
    asked = decisions.asked_to_buy + decisions.asked_to_sell
    lines = _heading("DECISIONS", f"what became of {whole:,} signal records, in the order of the gates")
    rows = [(row.gate, row.records, row.sentence) for row in decisions.gates]
    rows += [("no side", decisions.undecided, "no gate held it back; the score lies between the thresholds")]
    rows += [("asked for a side", asked, f"{decisions.asked_to_buy:,} to buy, {decisions.asked_to_sell:,} to sell")]
    for name, records, sentence in rows:
        first, *more = textwrap.wrap(sentence, WIDTH - 40, break_on_hyphens=False)
        lines += [f"  {name:<16}{records:>11,}{records / whole:>8.1%}   {first}", *(" " * 40 + line for line in more)]
    head = ("signal", "weight", "warm", "votes", "leads", "for the side", "against", "part")
    table = [
        (
            *(row.signal, f"{row.weight:g}", f"{row.warm / whole:.1%}", f"{row.active:,}", f"{row.led:,}"),
            *(f"{row.votes_for:,.1f}", f"{row.votes_against:,.1f}", "" if row.part is None else f"{row.part:+.1%}"),
        )
        for row in sorted(decisions.signals, key=lambda row: -abs(row.part or 0.0))
        if row.weight and (row.warm or row.active)
    ]
    if not table:
        return lines
    lines += ["", *_note(
        "Each signal's part: in how many records it was warm and voted; of those that asked for a side, how many it led, its "
        "votes (weight times strength) for and against that side, and what they come to of all votes for it."
    )]  # fmt: skip
    return [*lines, *_table(head, table)]


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
    coins = [part for part in money.settled if part.inverse]
    for n, part in enumerate(money.settled if coins or len(money.settled) > 1 else ()):
        amounts = (_settled_text(value, part.inverse, digits) for value in (part.net, part.realised, part.unrealised, -part.fees))
        total, realised, unrealised, fees = amounts
        worth = f", worth {_money(part.quoted, digits, True)}{unit} at the last mark" if part.inverse else ""
        said = f"net {total} {part.asset} = realised {realised}, unrealised {unrealised}, fees {fees}{worth}"
        rows.append(("settled" if n == 0 else "", said))
    lines = _heading("MONEY", f"in {currency}" if currency else "in the quote currency") + _fields(rows)
    if len(money.curve) > 1:
        low, high = min(money.curve), max(money.curve)
        lines += ["", f"  {sparkline(money.curve)}"]
        lines += [f"  equity over observed time, between {_money(low, digits)} and {_money(high, digits)}"]
    if money.symbols:
        shown = tuple(row.asset for row in money.symbols) if coins else ()
        of = ["in"] if coins else []
        head = ["symbol", "position", "entry", "mark", "realised", "unrealised", "fees", "net", *of, "turnover"]
        table = [
            (
                *(row.symbol, _quantity(row.position)),
                *("" if price is None else f"{price:,.8g}" for price in (row.entry_price, row.mark_price)),
                *(_settled_text(value, row.inverse, digits) for value in (row.realised, row.unrealised)),
                _settled_text(row.fees, row.inverse, digits, signed=False),
                _settled_text(row.net, row.inverse, digits),
                *shown[n : n + 1],
                _money(row.turnover, 0),
            )
            for n, row in enumerate(money.symbols)
        ]
        lines += ["", *_table(head, table)]
    if coins:
        said = "Positions of inverse contracts are in contracts, their profit and fees in the coin. The sums above are in the "
        said += "quote currency: coins are converted at the last mark, along the equity curve at the mark of the time."
        lines += ["", *_note(said)]
    if not money.one_currency:
        lines += ["", *_note("These symbols have different quote currencies: the sums above add unlike money. Read the table.")]
    return lines


def _kpis(kpis: Kpis, unit: str, simulated: bool) -> list[str]:
    period = span(kpis.period_ns)
    short = kpis.shortfall
    returns = "returns"
    answered = "orders, simulated delay" if simulated else "orders, venue's delay and ours"
    rows: list[tuple[str, Figure, str, str]] = [
        (f"Sharpe, {period} period", kpis.sharpe, _figure(kpis.sharpe, "{:+.4f}"), returns),
        ("Sharpe, year of 365 d", kpis.sharpe_year, _figure(kpis.sharpe_year, "{:+.2f}"), returns),
        (f"Sortino, {period} period", kpis.sortino, _figure(kpis.sortino, "{:+.4f}"), returns),
        ("Sortino, year of 365 d", kpis.sortino_year, _figure(kpis.sortino_year, "{:+.2f}"), returns),
        ("Calmar", kpis.calmar, _figure(kpis.calmar, "{:+.2f}"), "points of equity"),
        ("deflated Sharpe", kpis.deflated_sharpe, _figure(kpis.deflated_sharpe, "{:.1%}"), _trials(kpis.trials)),
        ("win rate", kpis.win_rate, _share(kpis.win_rate), "round trips, after fees"),
        ("profit factor", kpis.profit_factor, _figure(kpis.profit_factor, "{:.2f}"), "round trips, after fees"),
        ("mean trade duration", kpis.holding_ns, _span(kpis.holding_ns), "round trips"),
        ("implementation shortfall", short.bps, _figure(short.bps, "{:+.2f} bps"), "orders, quotes left out"),
        ("decision to ack, p50", kpis.ack_p50_ns, _span(kpis.ack_p50_ns), answered),
        ("decision to ack, p99", kpis.ack_p99_ns, _span(kpis.ack_p99_ns), answered),
        ("decision to ack, max", kpis.ack_max_ns, _span(kpis.ack_max_ns), answered),
    ]
    days = f"{kpis.observed_days:.3g} days ({span(kpis.observed_days * 86_400e9)})"
    lines = _heading("KEY FIGURES", f"over {days} of market and {kpis.round_trips:,} round trips")
    if kpis.win_rate.value is not None:
        lines += _note(f"Won round trips, after fees: {share_text(kpis.win_rate)}.")
    for name, figure, text, of in rows:
        remark = figure.note if figure.value is None else f"over {figure.sample:,} {of}"
        first, *more = textwrap.wrap(remark, WIDTH - 48, break_on_hyphens=False)
        lines += [f"  {name:<25}{text:>18}   {first}", *(" " * 48 + line for line in more)]
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


def _latency(report: Report) -> list[str]:
    lines = _heading("LATENCY", "of this machine's clock, up to the order's leaving")
    head = ("hop", "count", "p50", "p99", "p99.9", "max")

    def rows(hops: Mapping[str, HopLatency]) -> list[tuple[str, ...]]:
        return [
            (hop, f"{of['count']:,}", *(span(ns) for ns in (of["p50_ns"], of["p99_ns"], of["p999_ns"], of["max_ns"])))
            for hop, of in hops.items()
        ]

    lines += _table(head, rows(report.latency)) if report.latency else ["  Not measured in this run."]
    if report.venue:
        whose = "the simulated venue's delay" if report.ran.simulated else "the venue's delay"
        lines += _heading("OVER THE VENUE AND BACK", f"{whose} is in these, not in the above")
        lines += _table(head, rows(report.venue))
    return lines


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
        if not book["resyncs"] and not checked:
            verdict = "NO BOOK, so no signal and no order"
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
        *_last_orders(report.last_orders),
        *_decisions(report.decisions),
        *_money_lines(report.money),
        *_kpis(report.kpis, f" ({currency})" if currency else "", report.ran.simulated),
        *_markouts(report),
        *_heading("REFUSALS", "orders that risk did not let pass"),
        *(_counts(report.refusals) if report.refusals else ["  None."]),
        *_latency(report),
        *_rings(report.rings),
        *_books(report.books),
        *_caveat(report),
    ]
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    return text.replace("± ", "+-").translate(_PLAIN) if ascii_only else text
