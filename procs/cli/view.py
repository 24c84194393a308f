"""One frame of `top` as lines of text: header, stages, rings, books, orders and money. Pure: a View in, lines out.

What this module is not: it reads nothing and knows no terminal; procs.cli.top does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from procs.cli.figures import RingFigures, Snapshot
from procs.cli.latencies import ORDER, Hop, deciding, row_of, ways
from procs.cli.observe import Account, Counts, Symbol, Top
from procs.cli.status import STATE_STYLES
from procs.cli.table import Cell, Column, Paint, bar, clean_text, clip, count, rate, share, span, table, visible

STAGE_COLUMNS: Final = (
    Column("STAGE", right=False),
    Column("PID", keep=7),
    Column("STATE", right=False),
    Column("STARTS", keep=6),
    Column("CPU %", keep=5),
    Column("BUSY", keep=4),
    Column("RECORDS/S"),
    Column("INPUT", right=False, keep=1),
    Column("HOP P50"),
    Column("HOP P99", keep=2),
    Column("FROM FRAME P50", keep=3),
    Column("P99", keep=3),
)
RING_COLUMNS: Final = (
    Column("RING", right=False),
    Column("TAIL (WRITE)"),
    Column("/S", keep=2),
    Column("SLOWEST READER", right=False),
    Column("HEAD (READ)"),
    Column("LAG"),
    Column("FULL", right=False, keep=1),
    Column("STALLS", keep=3),
    Column("OVERRUNS", keep=4),
)
BOOK_COLUMNS: Final = (
    Column("BOOK", right=False),
    Column("BID QTY", keep=2),
    Column("BID"),
    Column("ASK"),
    Column("ASK QTY", keep=2),
    Column("SPREAD", keep=1),
    Column("LAST", keep=3),
    Column("STATE", right=False),
)
MONEY_COLUMNS: Final = (
    Column("POSITION", right=False),
    Column("QTY"),
    Column("ENTRY", keep=3),
    Column("REALISED", keep=1),
    Column("UNREALISED", keep=1),
    Column("FEES", keep=2),
    Column("NET"),
    Column("FILLS"),
    Column("TURNOVER", keep=4),
)
BAR: Final = 12


@dataclass(slots=True)
class View:
    """Everything that one frame shows. `status`: as procs.cli.status.collect gives it, None once the supervisor is gone."""

    instance: str
    figures: Snapshot
    hops: list[Hop]
    symbols: list[Symbol] = field(default_factory=list)
    tops: list[Top] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    since_start: bool = True
    pace: str = ""  # what the replay's own pace does to rings and hops (procs.cli.pace.note)
    status: dict[str, Any] | None = None


def feed_counters(figures: Snapshot) -> dict[str, int]:
    """The feed's counters by key."""
    return next(stage["counters"] for stage in figures["stages"] if stage["name"] == "feed")


def progress_share(figures: Snapshot) -> float | None:
    """How much of the recording has been read, None where the source has no known end."""
    counters = feed_counters(figures)
    expected = counters["frames_expected"]
    return counters["frames"] / expected if expected else None


def net(view: View) -> float:
    """Realised and unrealised profit less fees, of all symbols."""
    total = 0.0
    for symbol, account, top in zip(view.symbols, view.accounts, view.tops, strict=False):
        total += account.realised + account.unrealised(symbol, top.mid_ticks) - account.fees
    return total


def signed(value: float, digits: int = 2) -> Cell:
    """Money with its sign, green above and red below zero."""
    text = f"{value:+,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return f"{0:.{digits}f}"
    return text, "green" if value > 0 else "red"


def header(view: View, width: int, paint: Paint) -> list[str]:
    """The first lines: who, in which phase, how far."""
    status, counters = view.status, feed_counters(view.figures)
    phase = status["phase"] if status else "ended"
    left = f" {view.instance}  {phase}"
    if status:
        left += f" for {span(status['uptime_s'] * 1e9)}"
    feed_rate = next((ring.get("rate") for ring in view.figures["rings"] if ring["name"] == "market"), None)
    right = f"{count(counters['frames'])} frames  {rate(feed_rate)} records/s "
    if status and status["cpu_pct_total"] is not None:
        right = f"{status['cpu_pct_total']:.0f}% cpu  {status['total_pss_kb'] / 1024:.0f} MB  " + right
    gap = max(width - visible(left) - visible(right), 1)
    lines = [paint(clip(left + " " * gap + right, width), "bold")]
    done = progress_share(view.figures)
    if done is not None:
        room = max(width - 10, 10)
        lines.append(f" {bar(done, room)} {done:>6.1%}")
    for one in status.get("user_signals", ()) if status else ():
        if one["problem"]:
            lines.append(paint(clip(f" user signal {clean_text(one['name'])}: {clean_text(one['problem'])}", width), "yellow"))
    if status and status["halted"]:
        lines.append(paint(clip(f" HALTED  {clean_text(status['halted'])}", width), "red bold"))
    return lines


def stage_rows(view: View) -> list[list[Cell]]:
    """One line a stage, with the latency of the input that leads to an order."""
    found: list[list[Cell]] = []
    entries = {entry["name"]: entry for entry in view.status["stages"]} if view.status else {}
    for stage in view.figures["stages"]:
        entry: dict[str, Any] = entries.get(stage["name"], {})
        hop = deciding(view.hops, stage["name"])
        state = entry.get("state", "-")
        cpu = entry.get("cpu_pct")
        starts = entry.get("incarnation", stage["counters"]["recoveries"] + 1)
        cells: list[Cell] = [
            (stage["name"], "bold"), str(entry.get("pid") or "-"), (state, STATE_STYLES.get(state, "")),
            (str(starts), "yellow" if starts > 1 else ""), "-" if cpu is None else f"{cpu:.1f}",
            share(stage.get("busy")), rate(stage.get("rate")),
        ]  # fmt: skip
        if hop is None:
            cells += ["-"] * 5
        else:
            cells += [
                hop["input"],
                span(hop["hop"]["p50_ns"]),
                span(hop["hop"]["p99_ns"]),
                span(hop["origin"]["p50_ns"]),
                span(hop["origin"]["p99_ns"]),
            ]
        found.append(cells)
    return found


def ring_row(ring: RingFigures, hurried: bool = False) -> list[Cell]:
    """A ring with its slowest gating reader. `hurried`: a full ring is the replay's own pace, nothing to be red about."""
    gating = [reader for reader in ring["readers"] if reader["gating"]] or ring["readers"]
    slowest = max(gating, key=lambda reader: reader["lag"])
    used, overruns = ring["utilisation"], sum(reader["overruns"] for reader in ring["readers"])
    style = "green" if hurried else "red" if used > 0.9 else "yellow" if used > 0.5 else "green"
    return [
        (ring["name"], "bold"), count(ring["tail"]), rate(ring.get("rate")), slowest["name"], count(slowest["head"]),
        count(slowest["lag"]), (bar(used, BAR), style), count(ring["stalls"]), (count(overruns), "red" if overruns else ""),
    ]  # fmt: skip


def coins(quantity: float) -> str:
    """A quantity in at most 12 characters: five decimals, none from a million on, four figures from a thousand million on."""
    size = abs(quantity)
    if size < 1e6:
        return f"{quantity:,.5f}"
    return f"{quantity:,.0f}" if size < 1e9 else f"{quantity / 1e9:,.4g}G" if size < 1e12 else f"{quantity / 1e12:,.4g}T"


def book_rows(view: View) -> list[list[Cell]]:
    """One line a symbol: the top of its book."""
    found: list[list[Cell]] = []
    for symbol, top in zip(view.symbols, view.tops, strict=True):
        digits = symbol.price_digits
        mid = top.mid_ticks
        state: Cell = ("valid", "green") if top.valid else ("stale", "red") if top.ts_ns else ("waiting", "dim")
        if not mid:
            found.append([(clean_text(symbol.name), "bold"), "-", "-", "-", "-", "-", "-", state])
            continue
        found.append([
            (clean_text(symbol.name), "bold"),
            coins(top.bid_lots * symbol.lot_size),
            (f"{top.bid_ticks * symbol.tick_size:,.{digits}f}", "green"),
            (f"{top.ask_ticks * symbol.tick_size:,.{digits}f}", "red"),
            coins(top.ask_lots * symbol.lot_size),
            f"{(top.ask_ticks - top.bid_ticks) / mid * 1e4:.2f} bps",
            f"{top.last_ticks * symbol.tick_size:,.{digits}f}" if top.last_ticks else "-",
            state,
        ])  # fmt: skip
    return found


def money_rows(view: View) -> list[list[Cell]]:
    """One line a symbol that we have traded."""
    found: list[list[Cell]] = []
    for symbol, account, top in zip(view.symbols, view.accounts, view.tops, strict=True):
        if not account.fills:
            continue
        quantity = account.position_lots * symbol.lot_size
        entry = symbol.entry(account.cost, account.position_lots) if account.position_lots and account.cost else 0.0
        digits, unrealised = symbol.money_digits, account.unrealised(symbol, top.mid_ticks)
        net = signed(account.realised + unrealised - account.fees, digits)
        if symbol.inverse:
            net = (f"{net} {symbol.asset}", "") if isinstance(net, str) else (f"{net[0]} {symbol.asset}", net[1])
        found.append([
            (clean_text(symbol.name), "bold"),
            ("+" if quantity > 0 else "") + coins(quantity) if account.position_lots else "flat",
            f"{entry:,.{symbol.price_digits}f}" if account.position_lots else "-",
            signed(account.realised, digits),
            signed(unrealised, digits),
            f"{account.fees:,.{digits}f}",
            net,
            count(account.fills),
            f"{account.turnover:,.0f}",
        ])  # fmt: skip
    return found


def order_line(view: View) -> str:
    """What became of our orders, in one line."""
    counts = view.counts
    sent = next(ring["tail"] for ring in view.figures["rings"] if ring["name"] == "orders")
    refused = next(ring["tail"] for ring in view.figures["rings"] if ring["name"] == "refusals")
    text = (
        f"sent {sent:,}  open {len(counts.live):,}  fills {counts.fills:,}  canceled {counts.canceled:,}  "
        f"rejected {counts.rejected:,}  expired {counts.expired:,}  refused {refused:,}"
    )
    return text if view.since_start else f"{text}  (since this view began)"


def heading(title: str, width: int, paint: Paint) -> str:
    """A section's title on a rule."""
    return paint(clip(f"{title} " + "─" * max(width - len(title) - 1, 0), width), "cyan")


MOST_TELLING: Final = 4
"""Symbols of which a frame tells at least, where there are so many."""


def frame(view: View, width: int, height: int, paint: Paint, *, note: str = "") -> list[str]:
    """The whole frame, at most `height` lines; where there is no room for all, the fullest rings are shown, and the books that
    are wrong or that we have traded."""
    shown = [ring for ring in view.figures["rings"] if not ring["name"].startswith("intake.")]
    # what explains a table stands in its heading: 24 lines have no room for sentences of their own
    fixed: list[str] = [*header(view, width, paint), "", heading(f"stages  {ways(view.hops)}".rstrip(), width, paint)]
    fixed += table(STAGE_COLUMNS, stage_rows(view), width, paint)
    rings = f"rings  {view.pace}".rstrip()
    last = [paint(clip(note, width), "dim")] if note else []
    room = height - len(last) if height > 0 else 0
    every = ["", heading(rings, width, paint), *_ring_lines(list(view.figures["rings"]), width, paint, bool(view.pace))]
    after = _markets(view, width, paint, len(view.symbols))
    if not room or len(fixed) + len(every) + len(after) <= room:
        lines = [*fixed, *every, *after]
    else:
        tight, below = [line for line in fixed if line], [line for line in after if line]
        over = len(tight) + len(below) - room
        if over > 0:  # many symbols: the rings go, and the quiet books
            below = [line for line in _markets(view, width, paint, max(len(view.symbols) - over - 1, MOST_TELLING)) if line]
        places = room - len(tight) - len(below) - 2
        lines = tight
        if places > 0:
            lines += [heading(rings, width, paint), *_ring_lines(_fullest(shown, places), width, paint, bool(view.pace))]
        lines = [*lines, *below][:room]
    return [clip(line, width) for line in [*lines, *last]]


def _markets(view: View, width: int, paint: Paint, books: int) -> list[str]:
    """Books and orders, with that many symbols in each of the two tables."""
    rows, money = book_rows(view), money_rows(view)
    tops, accounts = view.tops, view.accounts
    telling = sorted(range(len(rows)), key=lambda n: (tops[n].valid, not accounts[n].fills))[:books]
    after: list[str] = ["", heading("books", width, paint)]
    after += table(BOOK_COLUMNS, [rows[n] for n in sorted(telling)], width, paint)
    if len(telling) < len(rows):
        valid = sum(tops[n].valid for n in set(range(len(rows))) - set(telling))
        after.append(clip(f"and {len(rows) - len(telling)} more, {valid} of them valid", width))
    counters = feed_counters(view.figures)
    after.append(clip(
        f"equal to the venue's best bid and offer {counters['oracle_equal']:,} of {counters['oracle_checked']:,} times; "
        f"{counters['gaps']:,} gaps, {counters['malformed']:,} malformed", width))  # fmt: skip
    after += ["", heading("orders", width, paint), clip(order_line(view), width)]
    return after + (table(MONEY_COLUMNS, money[:books], width, paint) if money else [])


def _ring_lines(rings: Sequence[RingFigures], width: int, paint: Paint, hurried: bool) -> list[str]:
    return table(RING_COLUMNS, [ring_row(ring, hurried) for ring in rings], width, paint)


def _fullest(rings: Sequence[RingFigures], places: int) -> list[RingFigures]:
    """The fullest rings, in the topology's order; equally full ones as they stand there."""
    chosen = sorted(rings, key=lambda ring: -ring["utilisation"])[:places]
    return [ring for ring in rings if ring in chosen]


def compact(view: View) -> str:
    """One line for a log or a pipe, short enough for 80 columns: how far, how fast, what came of it."""
    counters, done = feed_counters(view.figures), progress_share(view.figures)
    market = next(ring for ring in view.figures["rings"] if ring["name"] == "market")
    fullest = max(ring["utilisation"] for ring in view.figures["rings"])
    order = row_of(view.hops, ORDER)
    parts = [f"{counters['frames']:,} frames" + (f" ({done:.0%})" if done is not None else ""), f"{rate(market.get('rate'))}/s"]
    parts.append(f"rings {fullest:.0%} full")
    if order is not None:
        parts.append(f"order in {span(order['origin']['p50_ns'])}")
    return ", ".join([*parts, f"{view.counts.fills:,} fills", f"net {net(view):+,.2f}"])
