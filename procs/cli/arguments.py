"""What `scalperctl` understands: every command with its options, a sentence, and examples. Parsing only.

A command names the function that does it as `module:function` below procs.cli; procs.cli.main imports that module alone.
Its options are in procs.cli.options.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from procs.cli import options
from procs.cli.options import PROGRAM, STAGE_NAMES, Parser, examples
from procs.cli.outcome import explained

__all__ = ["COMMANDS", "PROGRAM", "STAGE_NAMES", "Command", "Parser", "option_names", "parser"]


class Command(NamedTuple):
    """One command: `module:function` below procs.cli, a sentence, examples, and what adds its options."""

    function: str
    sentence: str
    examples: tuple[str, ...]
    options: Callable[[argparse.ArgumentParser], None]


COMMANDS: Final[dict[str, Command]] = {
    "start": Command(
        "starting:start",
        "bring a pipeline up",
        (
            "start",
            "start --config replay --recording day1.gz day2.gz --speed max",
            "start --set risk.equity=5000 --instance second",
        ),
        options.start,
    ),
    "stop": Command(
        "stopping:stop", "end it in order: nothing is lost", ("stop", "stop --instance replay --timeout 60"), options.stop
    ),
    "restart": Command("stopping:restart", "give one stage a new process", ("restart risk",), options.restart),
    "status": Command(
        "status:status", "every process: state, restarts, memory, CPU", ("status", "status --json --window 10"), options.status
    ),
    "stats": Command(
        "stats:stats",
        "every ring: tail (write), heads (read), lag, rates, backpressure",
        ("stats", "stats --watch", "stats --json"),
        options.stats,
    ),
    "latency": Command(
        "stats:latency",
        "every input of every stage: since its publishing, since its frame came in",
        ("latency", "latency --json"),
        options.latency,
    ),
    "top": Command("top:top", "a living view; q quits", ("top", "top --frames 1 --width 120"), options.top),
    "signals": Command(
        "signal_view:signals",
        "each symbol's decision, and every signal with its strength and reason",
        ("signals", "signals BTCUSDT --watch", "signals --json"),
        options.signals,
    ),
    "trace": Command(
        "tracing:trace",
        "the whole way of one order, from frame to fill",
        ("trace last", "trace 42", "trace 42 --journal ./journal"),
        options.trace,
    ),
    "lines": Command(
        "lines:lines",
        "the venue's connections: messages, gaps, resyncs, clock",
        ("lines", "lines --instance live-paper --json"),
        options.lines,
    ),
    "topology": Command(
        "drawing:topology",
        "the table of rings and stages, or a drawing of it",
        ("topology", "topology --mermaid", "topology --dot | dot -Tsvg > topology.svg"),
        options.topology,
    ),
    "doctor": Command(
        "doctor:doctor", "what this machine gives and lacks, with the remedies", ("doctor", "doctor --json"), options.only_json
    ),
    "bench": Command(
        "benches:bench",
        "measure this machine",
        (
            "bench ring --json",
            "bench wake",
            "bench wake --records 1000000 --json",
            "bench decode --rounds 3",
            "bench link --seconds 5",
            "bench features --recording spot_btcusdt_20240808.gz",
            "bench pipeline",
            "bench hops --rate 3000 --wait block --json",
            "bench start --wheel dist/scalper-0.1.0-py3-none-any.whl",
            "bench restart --kills 50",
            "bench gateway --seconds 30 --rounds 3",
            "bench gateway --recording spot_btcusdt_20240808.gz --seconds 60",
        ),
        options.bench,
    ),
    "halt": Command(
        "halt:halt",
        "the kill switch",
        ('halt trip --reason "prices look wrong"', "halt status", 'halt reset --reason "feed was fixed"'),
        options.halt,
    ),
    "report": Command(
        "report:report",
        "what the last (or living) run did: orders, money, figures of merit",
        ("report", "report --instance replay --json", "report --run 20240808T000000Z-4711"),
        options.report,
    ),
    "replay": Command(
        "replaying:replay",
        "fold a session again from its journals: its report, or every ring compared",
        ("replay paper --verify", "replay 20240808T000000Z-4711 --verify --json", "replay live-paper"),
        options.replay,
    ),
    "runs": Command(
        "runs:runs", "the runs whose journals are there, with the ids that --run takes", ("runs", "runs --instance paper --json"),
        options.runs,
    ),
    "demo": Command(
        "demo:demo",
        "start, watch, end and report: a first look",
        ("demo", "demo --recording spot_btcusdt_20240808.gz"),
        options.demo,
    ),
    "backtest": Command(
        "backtesting:backtest",
        "the same decisions in one process, then the report",
        ("backtest", "backtest --recording day1.gz day2.gz", "backtest --set generator.duration_s=3600 --json"),
        options.backtest,
    ),
    "venue": Command(
        "venue:venue",
        "a local server that speaks Binance's protocol, to test against",
        (
            "venue",
            "venue --symbols BTCUSDT,ETHUSDT,SOLUSDT --seed 3 --market usdm --port 0",
            "venue --rules listed.json --market spot",
            "venue --recording spot_btcusdt_20240808.gz --speed 10 --loop --fault disconnect:every=30s",
        ),
        options.venue,
    ),
    "record": Command(
        "record:record",
        "record a real venue's market data, frame by frame",
        (
            "record --venue binance_spot --symbols BTCUSDT,ETHUSDT --out ./recordings",
            "record --venue binance_usdm --symbols BTCUSDT --seconds 60 --parquet",
        ),
        options.record,
    ),
    "data": Command(
        "data_tools:tools",
        "recordings: list, check, read and convert them",
        ("data ls", "data check ./recordings", "data cat day1.gz --limit 20", "data convert day1.gz --to npz --out day1.npz"),
        options.data,
    ),
    "features": Command(
        "features_frame:features",
        "every signal and feature over a recording, as columns of a Parquet or CSV file",
        (
            "features spot_btcusdt_20240808.gz --out btc.parquet",
            "features day1.gz day2.gz --config ./mine.yaml --set features.bar_ms=500 --out days.csv",
        ),
        options.features,
    ),
    "calibrate": Command(
        "calibrating:calibrate",
        "how often orders are taken by their distance (A, k) and the volatility of a recording, as lines for a profile",
        ("calibrate spot_btcusdt_20240808.gz", "calibrate day1.gz day2.gz --beyond 1 --rule glft --json"),
        options.calibrate,
    ),
    "prices": Command(
        "prices:prices",
        "last prices and candles from a venue's REST interface, with their source and age",
        (
            "prices BTCUSDT ETHUSDT",
            "prices BTCUSDT --timeframe 1m --limit 20 --json",
            "prices BTCUSDT --endpoint rest=http://127.0.0.1:8080 --endpoint ccxt:kraken",
            "prices BTCUSDT --timeframe 5s --recording spot_btcusdt_20240808.gz",
        ),
        options.prices,
    ),
    "model": Command(
        "model:tools",
        "models that learn: train, judge, promote and publish them",
        (
            "model ls",
            "model train edge --recording day1.gz day2.gz --set ml.horizon_ms=1000",
            "model promote edge",
            "model report --recording day1.gz day2.gz",
            "model report --synthetic --json",
        ),
        options.model,
    ),
    "clean": Command(
        "stopping:clean",
        "remove what dead pipelines left in memory, or journals of old runs",
        ("clean", "clean --instance paper", "clean --journals --dry-run", "clean --journals --keep 1 --instance paper"),
        options.clean,
    ),
    "help": Command(
        "guide:guide", "the short guide, or what one command understands", ("help", "help backtest"), options.guide
    ),
    "version": Command(
        "drawing:version", "versions of this program and what it stands on", ("version --json",), options.only_json
    ),
    "completion": Command(
        "completion:completion",
        "a completion script for your shell",
        ("completion bash > ~/.local/share/bash-completion/completions/scalperctl",),
        options.completion,
    ),
}
"""By name."""


def _add(parsers: Any, name: str, command: Command) -> None:
    parser = parsers.add_parser(
        name,
        help=command.sentence,
        description=command.sentence[0].upper() + command.sentence[1:] + ".",
        epilog=f"{examples(command.examples)}\n\nexit codes:\n{explained()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.options(parser)
    parser.set_defaults(function=command.function, command=name)


def parser(only: str | None = None) -> Parser:
    """The parser. With `only`, that command's options alone are built: most of the start-up time is here."""
    found = Parser(
        prog=PROGRAM,
        description="Runs, watches and measures scalper pipelines.",
        epilog=examples(("demo", "start", "top", "stop")) + f"\n\nexit codes:\n{explained()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action="store_true", help="the version, as the command `version` says it")
    parsers = found.add_subparsers(metavar="COMMAND", parser_class=Parser, required=False)
    for name, command in COMMANDS.items():
        if only is None or name == only:
            _add(parsers, name, command)
    return found


def option_names(name: str) -> list[str]:
    """The options and choices of one command, those of its parts among them, for completion scripts."""
    probe = Parser(prog=PROGRAM)
    COMMANDS[name].options(probe)
    return list(dict.fromkeys(_words_of(probe)))


def _words_of(probe: argparse.ArgumentParser) -> list[str]:
    words: list[str] = []
    for action in probe._actions:  # argparse has no public list
        if isinstance(action.choices, dict):
            words += [word for part in action.choices.values() for word in _words_of(part)]
        words += [option for option in action.option_strings if option.startswith("--")]
        if not action.option_strings and action.choices:
            words += [str(choice) for choice in action.choices]
    return words
