#!/usr/bin/env python
"""A scalping bot in one file: several symbols of the embedded market, signals with their reasons, paper trading, a report.

    scripts/scalping_bot.py                                  60 s, three symbols, the market twenty times as fast as the clock
    scripts/scalping_bot.py --seconds 300 --symbols BTCUSDT,ETHUSDT --speed 1

It starts a pipeline of its own on the paper profile, whose ensemble, risk and router trade; it ranks the opportunities that the
features process sees, says why each is taken or held back, follows positions and money, stops the pipeline in order, and
prints the run's report. Nothing here can reach a real venue. Exit code 0: it ran, traded, and ended well.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from procs import rundir, topology
from procs.cli import last_run, report, running
from procs.cli.main import exit_code_of, sentence_of
from procs.cli.observe import Markets, Orders, Symbol, latest
from procs.cli.outcome import FAILED, INTERRUPTED, OK
from procs.cli.starting import Launch, Note, refuse_if_running
from procs.cli.symbols import of_profile
from procs.config import Profile, load_profile, parse_override
from procs.pipeline import Memory, attach

INSTANCE = "scalping-bot"
SIGNALS_LOOKED_AT = 4096


@dataclass(frozen=True)
class Opportunity:
    """What the ensemble makes of one symbol now."""

    symbol: Symbol
    side: str
    score: float
    confidence: float
    urgency: float
    microstructure: float
    gate: str
    reasons: tuple[str, ...]

    @property
    def worth(self) -> float:
        """How far from neutral, by how much the signals agree: what the list is sorted by."""
        return abs(self.score - 50.0) * self.confidence

    def line(self) -> str:
        """For people."""
        head = f"  {self.symbol.name:9} {self.side:4} score {self.score:5.1f}  confidence {self.confidence:.2f}  "
        head += f"urgency {self.urgency:3.0f}  microstructure {self.microstructure:3.0f}"
        why = "; ".join(self.reasons[:3]) or "every signal is silent"
        return f"{head}\n            {why}\n            {self.gate}"


def opportunities(memory: Memory, symbols: Sequence[Symbol], profile: Profile) -> list[Opportunity]:
    """The latest decision on each symbol, the best opportunity first."""
    from trading.ensemble import GATE_SENTENCES, Gate
    from trading.records import Kind, Side
    from trading.signals import reasons
    from trading.user_signals import signal_table

    recs = latest(memory.ring("signals"), topology.RING["signals"].record, SIGNALS_LOOKED_AT)
    table, found = signal_table(profile), []
    for number, symbol in enumerate(symbols):
        own = recs[(recs["symbol"] == number) & (recs["kind"] == Kind.SIGNAL)]
        if not len(own):
            continue
        r: Any = own[-1]
        found.append(Opportunity(
            symbol, Side(int(r["side"])).name, float(r["score"]), float(r["confidence"]), float(r["urgency"]),
            float(r["microstructure"]), GATE_SENTENCES[Gate(int(r["gate"]))], tuple(reasons(r, profile.features, table)),
        ))  # fmt: skip
    return sorted(found, key=lambda one: one.worth, reverse=True)


class Bot:
    """A pipeline of its own, watched until its time is over."""

    def __init__(self, symbols: Sequence[str], speed: str, every_s: float) -> None:
        names = ", ".join(f"{{name: {name}}}" for name in symbols)
        wishes = [f"symbols=[{names}]", f"source.speed={speed}", f"instance={INSTANCE}"]
        self.profile = load_profile("paper", dict(parse_override(wish) for wish in wishes))
        self.words = ["--config", "paper", *(word for wish in wishes for word in ("--set", wish))]
        self.symbols = of_profile(self.profile)
        self.every_s = every_s

    def run(self, seconds: float) -> int:
        """Start, watch, stop, report; the exit code."""
        refuse_if_running(INSTANCE)
        note = Note(sys.stderr)
        launched = Launch(self.profile, self.words)
        try:
            code = launched.wait_ready(900.0, note)
            note.end()
            if code is not None:
                return launched.explain(code)
            memory = attach(INSTANCE, readonly=True)
            try:
                self._watch(launched, memory, seconds)
            finally:
                memory.close()
        finally:
            note.end()
            if launched.ended() is None:
                launched.give_up()  # SIGTERM: END runs through every stage, orders are cancelled, journals are whole
        return self._report(launched)

    def _watch(self, launched: Launch, memory: Memory, seconds: float) -> None:
        names = ", ".join(symbol.name for symbol in self.symbols)
        print(f"trading {names} on paper for {seconds:g} s", flush=True)
        markets, orders = Markets(len(self.symbols)), Orders(self.symbols, running.journal_folder(INSTANCE))
        end = time.monotonic() + seconds
        while launched.ended() is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(self.every_s, left))
            markets.look(memory.ring("market"))
            orders.look(memory.ring("reports"))
            print(self._money(markets, orders, seconds - max(0.0, end - time.monotonic())))
            for one in opportunities(memory, self.symbols, self.profile):
                print(one.line())
            sys.stdout.flush()

    def _money(self, markets: Markets, orders: Orders, elapsed_s: float) -> str:
        realised = sum(a.realised - a.fees for a in orders.accounts)
        open_ = sum(
            a.unrealised(s, top.mid_ticks) for a, s, top in zip(orders.accounts, self.symbols, markets.tops, strict=True)
        )
        held = ", ".join(
            f"{s.name} {a.position_lots * s.lot_size:+.5f}"
            for a, s in zip(orders.accounts, self.symbols, strict=True) if a.position_lots
        )  # fmt: skip
        fills = sum(a.fills for a in orders.accounts)
        return f"{elapsed_s:4.0f} s  {fills} fills  realised {realised:+.2f}  open {open_:+.2f}  positions {held or 'none'}"

    def _report(self, launched: Launch) -> int:
        run = last_run.wanted(INSTANCE)
        told = report.build(report.told_by(run))
        print()
        report.show(told, False)
        fills = sum(int(ring["tail"]) for ring in (run.figures or {}).get("rings", ()) if ring["name"] == "reports")
        ended_well = launched.ended() == 0 and not rundir.holder(INSTANCE)
        return OK if fills and ended_well else FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="A scalping bot on the embedded market, on paper.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it trades (default 60)")
    parser.add_argument("--symbols", default="BTCUSDT,ETHUSDT,SOLUSDT", help="comma between them")
    parser.add_argument("--speed", default="20", help="times as fast as the clock (default 20; 1: the market's own pace)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks (default 10)")
    args = parser.parse_args(argv)
    try:
        report.use_kernel_cache()
        return Bot(args.symbols.split(","), args.speed, args.every).run(args.seconds)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        print(f"scalping_bot: {sentence_of(error)}", file=sys.stderr)
        return code


if __name__ == "__main__":
    sys.exit(main())
