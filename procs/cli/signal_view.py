"""`signals`: what the features process makes of each symbol right now, in words, read from its ring. No gateway is needed.

A symbol of which the ring holds no record is shown as waiting: the pipeline has just started, or the symbol is silent.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from procs import rundir, topology
from procs.cli import running
from procs.cli.observe import Symbol
from procs.cli.options import near
from procs.cli.outcome import NOT_RUNNING, OK, USAGE, CliError
from procs.cli.progress import writes_over
from procs.cli.symbols import symbols_of
from procs.cli.table import Cell, Column, Paint, clip, paint_for, span, table, wrapped
from procs.gateway.explain import decision_of, finite, health_by_name, patterns_of, warm
from procs.gateway.shapes import Decision
from procs.memory import board
from procs.memory.segments import Memory
from ringbuf.plain import latest
from trading.own_signals.guard import Health
from trading.records import Kind
from trading.settings import Strategy

COLUMNS: Final = (
    Column("SIGNAL", right=False),
    Column("STATE", right=False, keep=1),
    Column("STRENGTH"),
    Column("REASON", right=False),
)
SIDE_STYLES: Final = {"BUY": "green bold", "SELL": "red bold", "NONE": "dim"}
STATE_STYLES: Final = {"active": "bold", "warming": "yellow", "off": "red bold"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One symbol's latest record in words; `decision` is None while there is none, a figure while it is not warm."""

    symbol: Symbol
    decision: Decision | None = None
    age_ms: float = 0.0
    ts_ns: int = 0
    mid: float = 0.0
    spread_bps: float = 0.0
    volatility: float = 0.0
    atr: float = 0.0
    microprice: float | None = None
    microstructure: float | None = None
    vpin: float | None = None
    order_flow: float = 0.0
    patterns: tuple[str, ...] = ()


def collect(memory: Memory, symbols: Sequence[Symbol], chosen: Sequence[int], strategy: Strategy, now_ns: int) -> list[Shown]:
    """The chosen symbols (indices), each by its last record that the ring still holds. `now_ns`: CLOCK_MONOTONIC."""
    entry = topology.RING["signals"]
    recs = latest(memory.ring(entry.name), entry.record, entry.capacity)
    recs = recs[recs["kind"] == Kind.SIGNAL]
    guard = board.page(memory.board_words, topology.stage_id("features"))[board.USER_GUARD :]
    health = health_by_name(strategy, guard)
    return [_shown(symbols[number], recs[recs["symbol"] == number][-1:], strategy, health, now_ns) for number in chosen]


def _shown(symbol: Symbol, recs: Any, strategy: Strategy, health: dict[str, Health], now_ns: int) -> Shown:
    if not len(recs):
        return Shown(symbol)
    record = recs[0]
    return Shown(
        symbol=symbol,
        decision=decision_of(record, strategy, health),
        age_ms=(now_ns - int(record["ts_publish_mono_ns"])) / 1e6,
        ts_ns=int(record["ts_ns"]),
        mid=finite(record["mid"]) * symbol.tick_size,
        spread_bps=finite(record["spread_bps"]),
        volatility=finite(record["volatility"]),
        atr=finite(record["atr_ticks"]) * symbol.tick_size,
        microprice=finite(record["microprice"]) * symbol.tick_size or None,
        microstructure=warm(record["microstructure"]),
        vpin=warm(record["vpin"]),
        order_flow=finite(record["order_flow"]),
        patterns=tuple(patterns_of(record)),
    )


def as_json(shown: Shown) -> dict[str, Any]:
    """One symbol for --json."""
    if shown.decision is None:
        return {"symbol": shown.symbol.name, "state": "waiting"}
    found: dict[str, Any] = {"symbol": shown.symbol.name, "state": "live", "ts_ns": shown.ts_ns, "age_ms": round(shown.age_ms, 3)}
    names = ("mid", "microprice", "spread_bps", "volatility", "atr", "microstructure", "vpin", "order_flow", "patterns")
    market = {name: getattr(shown, name) for name in names}
    return found | msgspec.to_builtins(shown.decision) | market


def lines_of(shown: Shown, width: int, paint: Paint) -> list[str]:
    """One symbol as lines: the decision, the gate, the market, then a table of its signals."""
    name, decision = shown.symbol.name, shown.decision
    if decision is None:
        return [clip(f"{paint(name, 'bold')}  waiting for the first record", width)]
    digits = shown.symbol.price_digits
    minute = 100.0 * shown.volatility * math.sqrt(60.0)
    rest = (
        f"score {decision.score:.1f}  confidence {decision.confidence:.2f}  urgency {decision.urgency:.0f}  "
        f"regime {decision.regime.name.lower()}  {span(max(shown.age_ms, 0.0) * 1e6)} old"
    )
    first, *more = wrapped(f"{name}  {decision.side}  {rest}", width)
    painted = f"{paint(name, 'bold')}  {paint(decision.side, SIDE_STYLES[decision.side])}"
    head = [first.replace(f"{name}  {decision.side}", painted, 1), *more]
    gate = f"gate {decision.gate.name}: {decision.gate.sentence}"
    if decision.long_threshold > 0.0:
        gate += f" (buys from {decision.long_threshold:.1f}, sells from {decision.short_threshold:.1f})"
    market = (
        f"mid {shown.mid:,.{digits + 1}f}  spread {shown.spread_bps:.2f} bps  volatility {minute:.3f} % a minute  "
        f"ATR {shown.atr:,.{digits}f}"
    )
    flow = (
        f"microstructure {_figure(shown.microstructure, '.0f')}  microprice {_figure(shown.microprice, f',.{digits + 1}f')}  "
        f"VPIN {_figure(shown.vpin, '.2f')}  OFI {shown.order_flow:+.2f}  patterns {', '.join(shown.patterns) or 'none'}"
    )
    leading = f"led by {decision.leading}" if decision.leading else "no signal has a side"
    rows: list[list[Cell]] = []
    for word in decision.signals:
        style = STATE_STYLES.get(word.state, "dim")
        strength = "-" if word.state in ("warming", "off") else f"{word.strength:+.2f}"
        tone = "green" if word.strength > 0 else "red"
        value: Cell = (strength, tone) if word.state == "active" else (strength, "dim")
        rows.append([(word.key, style), (word.state, style), value, word.reason])
    held = decision.gate.name != "NONE"
    return [
        *head, *(paint(line, "yellow" if held else "dim") for line in wrapped(f"{gate}; {leading}", width)),
        *(paint(line, "dim") for line in wrapped(market, width)), *(paint(line, "dim") for line in wrapped(flow, width)),
        *table(COLUMNS, rows, width, paint),
    ]  # fmt: skip


def _figure(value: float | None, form: str) -> str:
    """A figure that may not be warm yet."""
    return "-" if value is None else format(value, form)


def lay_out(found: Sequence[Shown], width: int, paint: Paint) -> list[str]:
    """All symbols, an empty line between two."""
    lines: list[str] = []
    for shown in found:
        lines += ["", *lines_of(shown, width, paint)]
    return lines[1:]


def _chosen(symbols: Sequence[Symbol], wanted: str | None) -> list[int]:
    names = [symbol.name for symbol in symbols]
    if wanted is None:
        return list(range(len(names)))
    if wanted.upper() not in names:
        raise CliError(f"no symbol {wanted!r} in this run{near(wanted.upper(), names)}: there are {', '.join(names)}", USAGE)
    return [names.index(wanted.upper())]


def signals(args: argparse.Namespace) -> int:
    """The command."""
    instance = running.instance_for(args)
    with running.looking_at(instance) as memory:
        profile = running.running_profile(instance)
        symbols = symbols_of(instance)
        if profile is None or not symbols:
            raise CliError(f"instance {instance!r} does not say its symbols (it is starting or ending): try again", NOT_RUNNING)
        if profile.world == "record":
            raise CliError(f"instance {instance!r} only records: it makes no signals", USAGE)
        chosen, paint = _chosen(symbols, args.symbol), paint_for(sys.stdout)
        while True:
            found = collect(memory, symbols, chosen, profile, time.monotonic_ns())
            if args.json:
                print(json.dumps({"instance": instance, "symbols": [as_json(shown) for shown in found]}), flush=True)
            else:
                if args.watch and writes_over(sys.stdout):
                    sys.stdout.write("\x1b[H\x1b[2J")
                print("\n".join(lay_out(found, shutil.get_terminal_size((120, 40)).columns, paint)), flush=True)
            if not args.watch or not rundir.holder(instance):
                return OK
            time.sleep(args.interval)
