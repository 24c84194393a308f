"""What `scalperctl` understands: every command with its options, a sentence, and examples. Parsing only.

A command names the function that does it as `module:function` below procs.cli; procs.cli.main imports that module alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from procs.cli.outcome import USAGE, CliError, explained
from procs.topology import STAGES

PROGRAM: Final = "scalperctl"
BENCHES: Final = ("ring", "wake", "decode", "frames", "link", "features", "pipeline", "restart", "gateway")
SHELLS: Final = ("bash", "zsh", "fish")
STAGE_NAMES: Final = tuple(stage.name for stage in STAGES)


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one sentence with a remedy, raised instead of printed."""

    def error(self, message: str) -> NoReturn:
        """Raise a usage error."""
        raise CliError(f"{message}: see `{self.prog} --help`", USAGE)


def positive(text: str) -> float:
    """A number of seconds (or of anything) of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1e9")
    return value


def whole(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or not 0 < int(text) < 2**62:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _profile_options(parser: argparse.ArgumentParser, *, speed: bool = True) -> None:
    parser.add_argument("--config", metavar="PROFILE", help="a profile's name (paper, replay) or a path with a slash")
    parser.add_argument(
        "--recording", metavar="FILE", nargs="+", help="recorded frames, plain or .gz; profile replay if none is named"
    )
    if speed:
        parser.add_argument(
            "--speed", metavar="max|N", help="max: as fast as the machine goes; 1: as recorded; 10: ten times that"
        )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", help="over the profile, e.g. risk.equity=5000 (repeatable)"
    )


def _instance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--instance", metavar="NAME", help="which pipeline; else the only one that runs")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="figures for programs")


def _window(parser: argparse.ArgumentParser, default: float) -> None:
    parser.add_argument(
        "--window",
        metavar="S",
        type=positive,
        default=default,
        help=f"seconds to measure over (default {default:g}; 0: no rates)",
    )


def _start(p: argparse.ArgumentParser) -> None:
    _profile_options(p)
    _instance(p)
    p.add_argument("--foreground", action="store_true", help="stay in this process (systemd, containers)")
    p.add_argument("--timeout", metavar="S", type=positive, default=900.0, help="give up waiting after this long (default 900)")


def _stop(p: argparse.ArgumentParser) -> None:
    _instance(p)
    p.add_argument("--timeout", metavar="S", type=positive, default=30.0, help="give up waiting after this long (default 30)")


def _restart(p: argparse.ArgumentParser) -> None:
    p.add_argument("stage", choices=STAGE_NAMES, metavar="STAGE", help=", ".join(STAGE_NAMES))
    _instance(p)
    p.add_argument("--timeout", metavar="S", type=positive, default=20.0, help="give up waiting after this long (default 20)")


def _status(p: argparse.ArgumentParser) -> None:
    _instance(p)
    _json(p)
    _window(p, 0.2)


def _stats(p: argparse.ArgumentParser) -> None:
    _instance(p)
    _json(p)
    _window(p, 0.2)
    p.add_argument("--watch", action="store_true", help="again and again until Ctrl-C")


def _latency(p: argparse.ArgumentParser) -> None:
    _instance(p)
    _json(p)


def _top(p: argparse.ArgumentParser) -> None:
    _instance(p)
    p.add_argument("--interval", metavar="S", type=positive, default=1.0, help="seconds between two frames (default 1)")
    p.add_argument("--frames", metavar="N", type=whole, default=0, help="end after this many frames")
    p.add_argument("--width", metavar="N", type=whole, default=0, help="columns (default: the terminal's)")


def _trace(p: argparse.ArgumentParser) -> None:
    p.add_argument("order", metavar="ORDER", type=whole, help="client order id, as the report and the journals show it")
    _instance(p)
    _json(p)
    p.add_argument("--journal", metavar="DIR", help="a folder of journals, instead of the last run's")


def _signals(p: argparse.ArgumentParser) -> None:
    p.add_argument("symbol", metavar="SYMBOL", nargs="?", help="this one alone, e.g. BTCUSDT")
    _instance(p)
    _json(p)
    p.add_argument("--watch", action="store_true", help="again and again until Ctrl-C")
    p.add_argument("--interval", metavar="S", type=positive, default=1.0, help="watch: seconds between two looks (default 1)")


def _topology(p: argparse.ArgumentParser) -> None:
    kind = p.add_mutually_exclusive_group()
    kind.add_argument("--dot", action="store_true", help="as a Graphviz digraph")
    kind.add_argument("--mermaid", action="store_true", help="as a Mermaid flowchart")
    _json(p)


def _bench(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", choices=BENCHES, help="what to measure")
    _json(p)
    p.add_argument("--recording", metavar="FILE", nargs="+", help="pipeline, decode, features: measure with these recordings")
    p.add_argument(
        "--seconds",
        metavar="S",
        type=positive,
        help="pipeline: of the embedded market's time (default 600); link: of each latency (default 10); "
        "gateway: with and without load (default 60)",
    )
    p.add_argument("--kills", metavar="N", type=whole, default=20, help="restart: SIGKILLs a stage (default 20)")


def _halt(p: argparse.ArgumentParser) -> None:
    p.add_argument("what", choices=("trip", "reset", "status"), help="trip: cancel all, open nothing; reset: a person's go-ahead")
    p.add_argument("--reason", metavar="TEXT", help="why, in a few words (trip and reset want one)")
    _instance(p)
    _json(p)


def _report(p: argparse.ArgumentParser) -> None:
    _instance(p)
    _json(p)


def _demo(p: argparse.ArgumentParser) -> None:
    _profile_options(p)
    _instance(p)
    p.add_argument("--seconds", metavar="S", type=positive, default=20.0, help="how long the embedded market runs (default 20)")
    _json(p)


def _backtest(p: argparse.ArgumentParser) -> None:
    _profile_options(p, speed=False)
    _json(p)


def _venue(p: argparse.ArgumentParser) -> None:
    p.add_argument("--port", metavar="N", type=int, default=9000, help="port on loopback (default 9000; 0: any free one)")
    p.add_argument("--recording", metavar="FILE", nargs="+", help="serve recorded frames instead of the embedded market")
    p.add_argument("--symbols", metavar="A,B", help="of the embedded market (default BTCUSDT,ETHUSDT)")
    p.add_argument("--seed", metavar="N", type=whole, default=7, help="of the embedded market and of the faults (default 7)")
    p.add_argument("--market", choices=("spot", "usdm", "both"), help="of the embedded market (default both)")
    p.add_argument("--speed", metavar="N", type=positive, default=1.0, help="times as fast as the market's own pace (default 1)")
    p.add_argument("--loop", action="store_true", help="begin a recording anew when it ends")
    p.add_argument("--time", choices=("now", "recorded"), default="now", help="what the venue's clock shows (default now)")
    p.add_argument("--fault", metavar="KIND:KEY=VALUE", action="append", help="such as drop:p=0.01 (repeatable)")
    p.add_argument("--faults", metavar="FILE", help="a schedule of faults, YAML")
    p.add_argument("--seconds", metavar="S", type=positive, default=0.0, help="end after this long (default: at Ctrl-C)")
    _json(p)




def _record(p: argparse.ArgumentParser) -> None:
    p.add_argument("--config", metavar="PROFILE", help="a profile's name or a path with a slash (default paper)")
    p.add_argument("--venue", metavar="VENUE", help="of symbols that name none, e.g. binance_spot, okx, ccxt:kucoin")
    p.add_argument("--symbols", metavar="A,B", help="what to record, as scalper names it, e.g. BTCUSDT,ETHUSDT")
    p.add_argument("--out", metavar="DIR", help="folder for the files (default: below the instance's state directory)")
    p.add_argument("--endpoint", metavar="stream=URL,rest=URL", help="other addresses for the venue, e.g. those of a local venue")
    p.add_argument("--seconds", metavar="N", type=positive, default=0.0, help="end after this long (default: at Ctrl-C)")
    p.add_argument("--parquet", action="store_true", help="also make Parquet of each finished file, below DIR/parquet")
    p.add_argument(
        "--set", metavar="KEY=VALUE", action="append", help="over the profile, e.g. record.rotate_minutes=5 (repeatable)"
    )
    _instance(p)
    _json(p)


def _data(p: argparse.ArgumentParser) -> None:
    parts = p.add_subparsers(metavar="WHAT", dest="what", required=True, parser_class=Parser)

    def part(name: str, sentence: str, example: str) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = parts.add_parser(
            name, help=sentence, description=sentence[0].upper() + sentence[1:] + ".", epilog=_examples((example,)),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        return found

    ls = part("ls", "recordings with venue, symbol, span, frames and size", "data ls ./recordings")
    ls.add_argument("paths", metavar="PATH", nargs="*", default=["."], help="files, or folders with files (default: here)")
    _json(ls)
    check = part("check", "prove recordings right: sequences, checksums, books, clocks", "data check day1.gz day2.gz --json")
    check.add_argument("paths", metavar="PATH", nargs="+", help="files or folders; files of one symbol are joined")
    _json(check)
    cat = part("cat", "decoded records, one a line", "data cat day1.gz --kind trade --limit 20")
    cat.add_argument("path", metavar="FILE", help="a recording or a journal; it may still be written to")
    cat.add_argument("--symbol", metavar="S", default="", help="of this symbol alone")
    cat.add_argument("--kind", metavar="K,K", default="", help="depth, trade, bbo, snapshot, stale, mark, level")
    cat.add_argument("--from", dest="from_time", metavar="T", default="", help="ISO 8601 (UTC), or Unix seconds or ns")
    cat.add_argument("--to", dest="to_time", metavar="T", default="", help="the same")
    cat.add_argument("--limit", metavar="N", type=whole, default=0, help="end after so many records")
    _json(cat)
    convert = part("convert", "from one form into another", "data convert day1.gz day2.gz --to parquet --out ./parquet")
    convert.add_argument("paths", metavar="IN", nargs="+", help="recordings, journals, npz, or CSV files")
    convert.add_argument("--to", required=True, choices=("parquet", "npz", "csv", "recording"), help="what to make of it")
    convert.add_argument("--out", metavar="PATH", required=True, help="a file (npz, recording) or a folder (parquet, csv)")
    convert.add_argument("--force", action="store_true", help="write over what is there")
    convert.add_argument("--symbol", metavar="S", default="", help="of this symbol alone; an npz does not say its own")
    convert.add_argument("--market", choices=("binance_spot", "binance_usdm"), default="", help="whose frames a recording gets")
    convert.add_argument("--tick", metavar="SIZE", default="", help="price step, where the numbers do not tell it")
    convert.add_argument("--lot", metavar="SIZE", default="", help="quantity step, the same")
    convert.add_argument("--base-latency-ns", metavar="N", type=whole, default=0, help="npz: added where clocks are put right")
    convert.add_argument("--after", metavar="FILE", nargs="+", default=[], help="parquet: files whose books IN goes on with")
    _json(convert)


def _features(p: argparse.ArgumentParser) -> None:
    p.add_argument("files", metavar="RECORDING", nargs="+", help="recorded frames, plain or .gz, of any number of symbols")
    p.add_argument("--out", metavar="FILE", required=True, help="what to write: a name that ends with .parquet or .csv")
    p.add_argument("--config", metavar="PROFILE", help="whose settings and signals of your own (default replay)")
    p.add_argument("--set", metavar="KEY=VALUE", action="append", help="over the profile, e.g. features.bar_ms=500 (repeatable)")
    p.add_argument("--force", action="store_true", help="write over what is there")
    _json(p)


def _model(p: argparse.ArgumentParser) -> None:
    from procs.cli.model_arguments import parts

    parts(p)


def _clean(p: argparse.ArgumentParser) -> None:
    which = p.add_mutually_exclusive_group()
    which.add_argument("--instance", metavar="NAME", help="only what this one left")
    which.add_argument("--all", action="store_true", help="what any instance left (the default)")
    _json(p)


def _prices(p: argparse.ArgumentParser) -> None:
    p.add_argument("symbols", metavar="SYMBOL", nargs="+", help="as the venue or ccxt writes it: BTCUSDT, BTC/USDT")
    p.add_argument("--timeframe", metavar="SIZE", help="candles of this size (1s, 1m, 5m, 1h ...) instead of last prices")
    p.add_argument("--limit", metavar="N", type=whole, default=20, help="candles, at most 1000 (default 20)")
    p.add_argument("--venue", metavar="NAME", default="binance_spot", help="binance_spot (default), okx, ... or ccxt:<id>")
    p.add_argument(
        "--endpoint",
        metavar="WHERE",
        action="append",
        help="rest=http://host:port (another address of the venue) or ccxt:<id> (another venue); several are asked in this order",
    )
    p.add_argument("--recording", metavar="FILE", nargs="+", help="trades to build from when no endpoint answers")
    p.add_argument("--timeout", metavar="S", type=positive, default=10.0, help="give a request up after this long (default 10)")
    _instance(p)
    _json(p)


def _completion(p: argparse.ArgumentParser) -> None:
    p.add_argument("shell", choices=SHELLS)


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
        _start,
    ),
    "stop": Command("stopping:stop", "end it in order: nothing is lost", ("stop", "stop --instance replay --timeout 60"), _stop),
    "restart": Command("stopping:restart", "give one stage a new process", ("restart risk",), _restart),
    "status": Command(
        "status:status", "every process: state, restarts, memory, CPU", ("status", "status --json --window 10"), _status
    ),
    "stats": Command(
        "stats:stats",
        "every ring: tail (write), heads (read), lag, rates, backpressure",
        ("stats", "stats --watch", "stats --json"),
        _stats,
    ),
    "latency": Command("stats:latency", "every hop: p50, p99, p99.9, max", ("latency", "latency --json"), _latency),
    "top": Command("top:top", "a living view; q quits", ("top", "top --frames 1 --width 120"), _top),
    "signals": Command(
        "signal_view:signals",
        "each symbol's decision, and every signal with its strength and reason",
        ("signals", "signals BTCUSDT --watch", "signals --json"),
        _signals,
    ),
    "trace": Command(
        "tracing:trace", "the whole way of one order, from frame to fill", ("trace 42", "trace 42 --journal ./journal"), _trace
    ),
    "lines": Command(
        "lines:lines",
        "the venue's connections: messages, gaps, resyncs, clock",
        ("lines", "lines --instance live-paper --json"),
        _latency,
    ),
    "topology": Command(
        "drawing:topology",
        "the table of rings and stages, or a drawing of it",
        ("topology", "topology --mermaid", "topology --dot | dot -Tsvg > topology.svg"),
        _topology,
    ),
    "doctor": Command(
        "doctor:doctor", "what this machine gives and lacks, with the remedies", ("doctor", "doctor --json"), _json
    ),
    "bench": Command(
        "benches:bench",
        "measure this machine",
        ("bench ring --json", "bench decode", "bench pipeline", "bench restart --kills 50"),
        _bench,
    ),
    "halt": Command(
        "halt:halt",
        "the kill switch",
        ('halt trip --reason "prices look wrong"', "halt status", 'halt reset --reason "feed was fixed"'),
        _halt,
    ),
    "report": Command(
        "report:report",
        "what the last (or living) run did: orders, money, figures of merit",
        ("report", "report --instance replay --json"),
        _report,
    ),
    "demo": Command(
        "demo:demo",
        "start, watch, end and report: a first look",
        ("demo", "demo --recording spot_btcusdt_20240808.gz"),
        _demo,
    ),
    "backtest": Command(
        "report:backtest",
        "the same decisions in one process, then the report",
        ("backtest --recording day1.gz day2.gz", "backtest --set generator.duration_s=600 --json"),
        _backtest,
    ),
    "venue": Command(
        "venue:venue",
        "a local server that speaks Binance's protocol, to test against",
        (
            "venue",
            "venue --symbols BTCUSDT,ETHUSDT,SOLUSDT --seed 3 --market usdm --port 0",
            "venue --recording spot_btcusdt_20240808.gz --speed 10 --loop --fault disconnect:every=30s",
        ),
        _venue,
    ),
    "record": Command(
        "record:record",
        "record a real venue's market data, frame by frame",
        (
            "record --venue binance_spot --symbols BTCUSDT,ETHUSDT --out ./recordings",
            "record --venue binance_usdm --symbols BTCUSDT --seconds 60 --parquet",
        ),
        _record,
    ),
    "data": Command(
        "data_tools:tools",
        "recordings: list, check, read and convert them",
        ("data ls", "data check ./recordings", "data cat day1.gz --limit 20", "data convert day1.gz --to npz --out day1.npz"),
        _data,
    ),
    "features": Command(
        "features_frame:features",
        "every signal and feature over a recording, as columns of a Parquet or CSV file",
        (
            "features spot_btcusdt_20240808.gz --out btc.parquet",
            "features day1.gz day2.gz --config ./mine.yaml --set features.bar_ms=500 --out days.csv",
        ),
        _features,
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
        _prices,
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
        _model,
    ),
    "clean": Command(
        "stopping:clean", "remove shared memory that dead pipelines left", ("clean", "clean --instance paper"), _clean
    ),
    "version": Command("drawing:version", "versions of this program and what it stands on", ("version --json",), _json),
    "completion": Command(
        "completion:completion",
        "a completion script for your shell",
        ("completion bash > ~/.local/share/bash-completion/completions/scalperctl",),
        _completion,
    ),
}
"""By name."""


def _examples(lines: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  {PROGRAM} {line}" for line in lines)])


def _add(parsers: Any, name: str, command: Command) -> None:
    parser = parsers.add_parser(
        name,
        help=command.sentence,
        description=command.sentence[0].upper() + command.sentence[1:] + ".",
        epilog=f"{_examples(command.examples)}\n\nexit codes:\n{explained()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.options(parser)
    parser.set_defaults(function=command.function, command=name)


def parser(only: str | None = None) -> Parser:
    """The parser. With `only`, that command's options alone are built: most of the start-up time is here."""
    found = Parser(
        prog=PROGRAM,
        description="Runs, watches and measures scalper pipelines.",
        epilog=_examples(("demo", "start", "top", "stop")) + f"\n\nexit codes:\n{explained()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsers = found.add_subparsers(metavar="COMMAND", parser_class=Parser, required=True)
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
