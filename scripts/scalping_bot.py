#!/usr/bin/env python
"""A scalping bot in one file: several symbols of the embedded market, signals with their reasons, paper trading, a report.

    scripts/scalping_bot.py                                  60 s, three symbols, the market twenty times as fast as the clock
    scripts/scalping_bot.py --seconds 300 --symbols BTCUSDT,ETHUSDT --speed 1
    scripts/scalping_bot.py --config ./mine.yaml             with the settings and signals of a profile of your own

It starts a pipeline of its own, whose ensemble, risk and router trade; it ranks the opportunities that the features process sees,
says why each is taken or held back, follows positions and money, stops the pipeline in order, and prints the run's report.
Nothing here can reach a real venue.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from procs import rundir
from procs.cli import last_run, report, running, signal_view, streams
from procs.cli.main import exit_code_of, sentence_of
from procs.cli.observe import Markets, Orders
from procs.cli.outcome import INTERRUPTED, OK, UNHEALTHY, USAGE, CliError
from procs.cli.progress import Progress
from procs.cli.signal_view import Shown
from procs.cli.starting import Launch, refuse_if_running
from procs.cli.symbols import of_profile
from procs.memory.segments import Memory, attach
from procs.profiles.config import load_profile, parse_override
from procs.profiles.schema import Profile

INSTANCE = "scalping-bot"
REASONS_SHOWN = 3
EXAMPLES = """examples:
  scripts/scalping_bot.py
  scripts/scalping_bot.py --seconds 300 --symbols BTCUSDT,ETHUSDT --speed 1
  scripts/scalping_bot.py --config ./mine.yaml --every 5

exit codes:
  0    it ran, traded (at least one fill), and ended well
  1    it failed
  2    the command line or the profile is wrong
  4    a bot is running already
  5    it ran, but had no fill, or did not end well
  130  interrupted by Ctrl-C
"""


def worth(shown: Shown) -> float:
    """How far from neutral, by how much the signals agree: what the list is sorted by."""
    found = shown.decision
    return abs(found.score - 50.0) * found.confidence if found is not None else -1.0


def lines_of(shown: Shown) -> list[str]:
    """What the ensemble makes of one symbol, for people: the signal that leads first among its reasons."""
    found = shown.decision
    if found is None:
        return [f"  {shown.symbol.name:9} waiting for its first record"]
    active = [word for word in found.signals if word.state == "active"]
    active.sort(key=lambda word: word.key != found.leading)
    told = [f"{word.key}: {word.reason}" for word in active[:REASONS_SHOWN]]
    told += [f"{word.key} is {word.reason}" for word in found.signals if word.state == "off"]
    score = "-" if shown.microstructure is None else f"{shown.microstructure:.0f}"
    return [
        f"  {shown.symbol.name:9} {found.side:4} score {found.score:5.1f}  confidence {found.confidence:.2f}  "
        f"urgency {found.urgency:3.0f}  microstructure {score:>3}",
        f"            {'; '.join(told) or 'every signal is silent'}",
        f"            {found.gate.sentence}",
    ]


class Bot:
    """A pipeline of its own, watched until its time is over."""

    def __init__(self, config: str, symbols: Sequence[str], speed: str, every_s: float) -> None:
        names = ", ".join(f"{{name: {name}}}" for name in symbols)
        wishes = [f"symbols=[{names}]", f"source.speed={speed}", f"instance={INSTANCE}", "pipeline.journal=true"]
        self.profile = load_profile(config, dict(parse_override(wish) for wish in wishes))
        if self.profile.source.kind != "generated" or self.profile.world != "paper":
            raise CliError(f"{config}: the bot trades on the embedded market: name a profile like paper", USAGE)
        self.words = ["--config", config, *(word for wish in wishes for word in ("--set", wish))]
        self.symbols = of_profile(self.profile)
        self.every_s = every_s

    def run(self, seconds: float) -> int:
        """Start, watch, stop, report; the exit code."""
        refuse_if_running(INSTANCE)
        note = Progress()
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
        running_by: Profile = running.running_profile(INSTANCE) or self.profile  # with what the user's files declare
        markets, orders = Markets(len(self.symbols)), Orders(self.symbols, running.journal_folder(INSTANCE))
        end = time.monotonic() + seconds
        while launched.ended() is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(self.every_s, left))
            markets.look(memory.ring("market"))
            orders.look(memory.ring("reports"))
            print(self._money(markets, orders, seconds - max(0.0, end - time.monotonic())))
            shown = signal_view.collect(memory, self.symbols, range(len(self.symbols)), running_by, time.monotonic_ns())
            for one in sorted(shown, key=worth, reverse=True):
                print("\n".join(lines_of(one)))
            sys.stdout.flush()

    def _money(self, markets: Markets, orders: Orders, elapsed_s: float) -> str:
        realised = sum(a.realised - a.fees for a in orders.accounts)
        open_ = sum(a.unrealised(s, top.mid_ticks) for a, s, top in zip(orders.accounts, self.symbols, markets.tops, strict=True))
        held = ", ".join(
            f"{s.name} {a.position_lots * s.lot_size:+.5f}"
            for a, s in zip(orders.accounts, self.symbols, strict=True) if a.position_lots
        )  # fmt: skip
        fills = sum(a.fills for a in orders.accounts)
        return f"{elapsed_s:4.0f} s  {fills} fills  realised {realised:+.2f}  open {open_:+.2f}  positions {held or 'none'}"

    def _report(self, launched: Launch) -> int:
        told = report.build(report.told_by(last_run.wanted(INSTANCE)))
        print()
        report.show(told, False)
        fills = told.orders.fills
        ended_well = launched.ended() == 0 and not rundir.holder(INSTANCE)
        print(f"\n{fills:,} fills; {'ended in order' if ended_well else f'did not end well: see {launched.log}'}")
        return OK if fills and ended_well else UNHEALTHY


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A scalping bot on the embedded market, on paper.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--config", default="paper", metavar="PROFILE", help="a profile's name or a path with a slash (paper)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it trades (default 60)")
    parser.add_argument("--symbols", default="BTCUSDT,ETHUSDT,SOLUSDT", help="comma between them")
    parser.add_argument("--speed", default="20", help="times as fast as the clock (default 20; 1: the market's own pace)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks (default 10)")
    streams.make_safe()
    args = parser.parse_args(argv)
    try:
        report.use_kernel_cache()
        return Bot(args.config, args.symbols.split(","), args.speed, args.every).run(args.seconds)
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
