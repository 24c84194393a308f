"""The options of every command of `scalperctl`: what each understands after its name. Parsing only.

A function here adds one command's options to its parser; procs.cli.arguments has the table of the commands.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

from procs.cli.outcome import USAGE, CliError
from procs.topology import STAGES
from trading.venues.names import CCXT, DEFAULT, NATIVE

PROGRAM: Final = "scalperctl"
BENCHES: Final = ("ring", "wake", "decode", "frames", "link", "features", "pipeline", "hops", "start", "restart", "gateway")
SHELLS: Final = ("bash", "zsh", "fish")
STAGE_NAMES: Final = tuple(stage.name for stage in STAGES)


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one sentence with a remedy, raised instead of printed; a near word is suggested."""

    def error(self, message: str) -> NoReturn:
        """Raise a usage error."""
        if found := _UNKNOWN_OPTION.search(message):
            message += near(found[1].partition("=")[0], self._option_string_actions)
        elif found := _UNKNOWN_CHOICE.search(message):
            hint = near(found[1], [word.strip(" '") for word in found[2].split(",")])
            if hint:  # else the list is what helps
                message = message.replace(found[0], found[0].partition(" (choose")[0]) + hint
        raise CliError(f"{message}: see `{self.prog} --help`", USAGE)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse's, but what is not understood is the command's complaint, which knows that command's options."""
        found, more = self.parse_known_args(args, namespace)
        if more:
            self._deepest(args).error(f"unrecognized arguments: {' '.join(more)}")
        return found

    def _deepest(self, args: Any) -> Parser:
        """The parser of the command, or of its part, that the words name."""
        parser, words = self, list(args or [])
        for word in words:
            for action in parser._actions:
                if isinstance(action.choices, dict) and word in action.choices:
                    parser = action.choices[word]
                    break
        return parser


_UNKNOWN_OPTION: Final = re.compile(r"unrecognized arguments: (--?\S+)")
_UNKNOWN_CHOICE: Final = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


def near(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """", did you mean 'x'?" where one of the known words is near, else `otherwise`. Letters that changed places are nearest."""
    found = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    found.sort(key=lambda one: sorted(one) != sorted(word))
    return f", did you mean {found[0]!r}?" if found else otherwise


def examples(lines: Sequence[str]) -> str:
    """The examples below a command's options."""
    return "\n".join(["examples:", *(f"  {PROGRAM} {line}" for line in lines)])


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


def none_or_more(text: str) -> int:
    """A whole number of 0 or more."""
    return 0 if text == "0" else whole(text)


def order_id(text: str) -> int:
    """A client order id; 0 for the word `last`."""
    return 0 if text == "last" else whole(text)


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


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", metavar="ID", help="this run of `scalperctl runs` (or its folder of journals), not the last one")


def runs(p: argparse.ArgumentParser) -> None:
    """Of `runs`."""
    p.add_argument("--instance", metavar="NAME", help="only this one's")
    only_json(p)


def only_json(parser: argparse.ArgumentParser) -> None:
    """--json alone, or among others."""
    parser.add_argument("--json", action="store_true", help="figures for programs")


def _window(parser: argparse.ArgumentParser, default: float) -> None:
    parser.add_argument(
        "--window",
        metavar="S",
        type=positive,
        default=default,
        help=f"seconds to measure over (default {default:g}; 0: no rates)",
    )


def start(p: argparse.ArgumentParser) -> None:
    """Of `start`."""
    _profile_options(p)
    _instance(p)
    p.add_argument("--foreground", action="store_true", help="stay in this process (systemd, containers)")
    p.add_argument("--timeout", metavar="S", type=positive, default=900.0, help="give up waiting after this long (default 900)")


def stop(p: argparse.ArgumentParser) -> None:
    """Of `stop`."""
    _instance(p)
    p.add_argument("--timeout", metavar="S", type=positive, default=30.0, help="give up waiting after this long (default 30)")


def restart(p: argparse.ArgumentParser) -> None:
    """Of `restart`."""
    p.add_argument("stage", choices=STAGE_NAMES, metavar="STAGE", help=", ".join(STAGE_NAMES))
    _instance(p)
    p.add_argument("--timeout", metavar="S", type=positive, default=20.0, help="give up waiting after this long (default 20)")


def status(p: argparse.ArgumentParser) -> None:
    """Of `status`."""
    _instance(p)
    only_json(p)
    _window(p, 0.2)


def stats(p: argparse.ArgumentParser) -> None:
    """Of `stats`."""
    _instance(p)
    _run(p)
    only_json(p)
    _window(p, 0.2)
    p.add_argument("--watch", action="store_true", help="again and again until Ctrl-C")


def latency(p: argparse.ArgumentParser) -> None:
    """Of `latency`."""
    lines(p)
    _run(p)


def lines(p: argparse.ArgumentParser) -> None:
    """Of `lines`."""
    _instance(p)
    only_json(p)


def top(p: argparse.ArgumentParser) -> None:
    """Of `top`."""
    _instance(p)
    p.add_argument("--interval", metavar="S", type=positive, default=1.0, help="seconds between two frames (default 1)")
    p.add_argument("--frames", metavar="N", type=whole, default=0, help="end after this many frames")
    p.add_argument("--width", metavar="N", type=whole, default=0, help="columns (default: the terminal's)")


def trace(p: argparse.ArgumentParser) -> None:
    """Of `trace`."""
    p.add_argument("order", metavar="ORDER", type=order_id, help="client order id, as the report's LAST ORDERS show it, or: last")
    _instance(p)
    _run(p)
    only_json(p)
    p.add_argument("--journal", metavar="DIR", help="a folder of journals, instead of the last run's")


def replay(p: argparse.ArgumentParser) -> None:
    """Of `replay`."""
    p.add_argument("session", metavar="SESSION", help="a run of `scalperctl runs`, its folder, or an instance: its last run")
    p.add_argument("--verify", action="store_true", help="compare every ring, record for record; exit code 1 where one differs")
    only_json(p)


def signals(p: argparse.ArgumentParser) -> None:
    """Of `signals`."""
    p.add_argument("symbol", metavar="SYMBOL", nargs="?", help="this one alone, e.g. BTCUSDT")
    _instance(p)
    only_json(p)
    p.add_argument("--watch", action="store_true", help="again and again until Ctrl-C")
    p.add_argument("--interval", metavar="S", type=positive, default=1.0, help="watch: seconds between two looks (default 1)")


def topology(p: argparse.ArgumentParser) -> None:
    """Of `topology`."""
    kind = p.add_mutually_exclusive_group()
    kind.add_argument("--dot", action="store_true", help="as a Graphviz digraph")
    kind.add_argument("--mermaid", action="store_true", help="as a Mermaid flowchart")
    only_json(p)


def bench(p: argparse.ArgumentParser) -> None:
    """Of `bench`."""
    p.add_argument("what", choices=BENCHES, help="what to measure")
    only_json(p)
    p.add_argument(
        "--recording", metavar="FILE", nargs="+", help="pipeline, hops, decode, features, gateway: measure with these recordings"
    )
    p.add_argument(
        "--seconds",
        metavar="S",
        type=positive,
        help="pipeline: of the embedded market's time (default 600); link: of each latency (default 10); hops: to measure "
        "(default 10); gateway: with load, and as many without (default 60)",
    )
    p.add_argument(
        "--rate", metavar="R", type=positive, help="hops: messages a second (default 3000; a recording: its own pace)"
    )
    p.add_argument("--wait", choices=("block", "yield", "spin"), help="hops: how stages wait (default block)")
    p.add_argument("--set", metavar="KEY=VALUE", action="append", help="hops: over the profile (repeatable)")
    p.add_argument(
        "--rounds",
        metavar="N",
        type=whole,
        help="decode, features: medians of so many (default 7, 9); gateway: windows with load, as many without (default 6)",
    )
    p.add_argument("--wheel", metavar="FILE", help="start: also with the kernels that this wheel carries (scripts/build-wheel)")
    p.add_argument("--warm", action="store_true", help="start: leave out the start that compiles everything, which takes minutes")
    p.add_argument(
        "--records", metavar="N", type=whole, help="wake: only so many single records into a group that sleeps (else 20000)"
    )
    p.add_argument("--kills", metavar="N", type=whole, help="restart: SIGKILLs a stage (default 20)")
    p.add_argument(
        "--placement", choices=("separate", "grouped"), help="pipeline, hops, restart: who shares a process (default separate)"
    )


def halt(p: argparse.ArgumentParser) -> None:
    """Of `halt`."""
    p.add_argument("what", choices=("trip", "reset", "status"), help="trip: cancel all, open nothing; reset: a person's go-ahead")
    p.add_argument("--reason", metavar="TEXT", help="why, in a few words (trip and reset want one)")
    _instance(p)
    only_json(p)


def report(p: argparse.ArgumentParser) -> None:
    """Of `report`."""
    _instance(p)
    _run(p)
    only_json(p)


def demo(p: argparse.ArgumentParser) -> None:
    """Of `demo`."""
    _profile_options(p)
    _instance(p)
    p.add_argument("--seconds", metavar="S", type=positive, default=20.0, help="how long the embedded market runs (default 20)")
    only_json(p)


def backtest(p: argparse.ArgumentParser) -> None:
    """Of `backtest`."""
    _profile_options(p, speed=False)
    only_json(p)


def venue(p: argparse.ArgumentParser) -> None:
    """Of `venue`."""
    p.add_argument("--port", metavar="N", type=int, default=9000, help="port on loopback (default 9000; 0: any free one)")
    p.add_argument("--recording", metavar="FILE", nargs="+", help="serve recorded frames instead of the embedded market")
    p.add_argument("--symbols", metavar="A,B", help="of the embedded market (default BTCUSDT,ETHUSDT, or those of --rules)")
    p.add_argument("--rules", metavar="FILE", help="JSON: symbols of the embedded market with their tick, step and price")
    p.add_argument("--seed", metavar="N", type=whole, default=7, help="of the embedded market and of the faults (default 7)")
    markets = ("spot", "usdm", "coinm", "both", "all")
    p.add_argument("--market", choices=markets, help="of the embedded market (default both: spot and usdm)")
    p.add_argument("--speed", metavar="N", type=positive, default=1.0, help="times as fast as the market's own pace (default 1)")
    p.add_argument("--loop", action="store_true", help="begin a recording anew when it ends")
    p.add_argument("--time", choices=("now", "recorded"), default="now", help="what the venue's clock shows (default now)")
    p.add_argument("--fault", metavar="KIND:KEY=VALUE", action="append", help="such as drop:p=0.01 (repeatable)")
    p.add_argument("--faults", metavar="FILE", help="a schedule of faults, YAML")
    p.add_argument("--seconds", metavar="S", type=positive, default=0.0, help="end after this long (default: at Ctrl-C)")
    only_json(p)


def record(p: argparse.ArgumentParser) -> None:
    """Of `record`."""
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
    only_json(p)


def _parts(p: argparse.ArgumentParser) -> Callable[..., argparse.ArgumentParser]:
    """What makes the parts of a command, by name, sentence and examples."""
    parts = p.add_subparsers(metavar="WHAT", dest="what", required=True, parser_class=Parser)

    def part(name: str, sentence: str, *lines: str) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = parts.add_parser(
            name, help=sentence, description=sentence[0].upper() + sentence[1:] + ".", epilog=examples(lines),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        return found

    return part


def data(p: argparse.ArgumentParser) -> None:
    """Of `data`."""
    part = _parts(p)
    ls = part("ls", "recordings with venue, symbol, span, frames and size", "data ls ./recordings")
    ls.add_argument("paths", metavar="PATH", nargs="*", default=["."], help="files, or folders with files (default: here)")
    only_json(ls)
    check = part("check", "prove recordings right: sequences, checksums, books, clocks", "data check day1.gz day2.gz --json")
    check.add_argument("paths", metavar="PATH", nargs="+", help="files or folders; files of one symbol are joined")
    whose = "whose frames they are, where they do not tell, e.g. okx"
    check.add_argument("--venue", metavar="VENUE", default="", help=whose)
    only_json(check)
    cat = part("cat", "decoded records, one a line", "data cat day1.gz --kind trade --limit 20")
    cat.add_argument("path", metavar="FILE", help="a recording or a journal; it may still be written to")
    cat.add_argument("--symbol", metavar="S", default="", help="of this symbol alone")
    kinds = "depth, trade, bbo, snapshot, stale, mark, level; of a journal what its ring holds: signal, new, cancel, report, ..."
    cat.add_argument("--kind", metavar="K,K", default="", help=kinds)
    cat.add_argument("--venue", metavar="VENUE", default="", help=whose)
    cat.add_argument("--from", dest="from_time", metavar="T", default="", help="ISO 8601 (UTC), or Unix time in s, ms, us or ns")
    cat.add_argument("--to", dest="to_time", metavar="T", default="", help="the same")
    cat.add_argument("--limit", metavar="N", type=whole, default=0, help="end after so many records")
    only_json(cat)
    convert = part("convert", "from one form into another", "data convert day1.gz day2.gz --to parquet --out ./parquet")
    convert.add_argument("paths", metavar="IN", nargs="+", help="recordings, journals, npz, CSV, or files of docs/recording.md")
    targets = ("parquet", "npz", "csv", "recording", "candles")
    convert.add_argument("--to", required=True, choices=targets, help="what to make of it")
    convert.add_argument("--out", metavar="PATH", required=True, help="a file, or a folder for parquet and csv")
    convert.add_argument("--force", action="store_true", help="write over files of the same names; others stay")
    convert.add_argument("--venue", metavar="VENUE", default="", help=whose)
    convert.add_argument("--symbol", metavar="S", default="", help="of this symbol alone; an npz does not say its own")
    convert.add_argument("--market", choices=NATIVE, default="", help="whose frames a recording gets")
    convert.add_argument("--tick", metavar="SIZE", default="", help="price step, where the numbers do not tell it")
    convert.add_argument("--lot", metavar="SIZE", default="", help="quantity step, the same")
    convert.add_argument("--size", metavar="SIZE", default="", help="candles: 1m, 1h, ... (default 1m, or the source's own)")
    convert.add_argument("--base-latency-ns", metavar="N", type=whole, default=0, help="npz: added where clocks are put right")
    convert.add_argument("--after", metavar="FILE", nargs="+", default=[], help="parquet: files whose books IN goes on with")
    only_json(convert)


def features(p: argparse.ArgumentParser) -> None:
    """Of `features`."""
    p.add_argument("files", metavar="RECORDING", nargs="+", help="recorded frames, plain or .gz, of any number of symbols")
    p.add_argument("--out", metavar="FILE", required=True, help="what to write: a name that ends with .parquet or .csv")
    p.add_argument("--config", metavar="PROFILE", help="whose settings and signals of your own (default replay)")
    p.add_argument("--set", metavar="KEY=VALUE", action="append", help="over the profile, e.g. features.bar_ms=500 (repeatable)")
    p.add_argument("--force", action="store_true", help="write over what is there")
    only_json(p)


def calibrate(p: argparse.ArgumentParser) -> None:
    """Of `calibrate`."""
    p.add_argument("files", metavar="RECORDING", nargs="+", help="recorded frames, plain or .gz, of any number of symbols")
    p.add_argument("--beyond", metavar="BPS", type=positive, default=0.0, help="only what reaches so far from the mid counts")
    p.add_argument("--rule", choices=("avellaneda_stoikov", "glft"), help="name this quoting rule in the lines too")
    p.add_argument("--config", metavar="PROFILE", help="whose features.bar_ms the volatility is of (default replay)")
    p.add_argument("--set", metavar="KEY=VALUE", action="append", help="over the profile, e.g. features.bar_ms=500 (repeatable)")
    only_json(p)


def model(p: argparse.ArgumentParser) -> None:
    """Of `model`."""
    part = _parts(p)
    only_json(part("ls", "the models on disk, and which may vote", "model ls"))
    train = part("train", "train a model on recordings, judged out of sample", "model train edge --recording day1.gz day2.gz")
    train.add_argument("name", metavar="NAME", help="its name; a new version each time")
    train.add_argument("--kind", choices=("trees", "linear", "online", "garch", "microprice"), default="trees",
                       help="what to train (default trees); garch and microprice are fitted for the features")  # fmt: skip
    train.add_argument("--symbol", metavar="NAME", help="of recordings that hold several: the one to train on")
    train.add_argument("--barrier", action="store_true", help="label by the triple barrier, not by the mid at the horizon")
    train.add_argument("--promote", action="store_true", help="let it vote, if it beat the baseline")
    _profile_options(train, speed=False)
    only_json(train)
    promote = part("promote", "let a model vote; refused if it did not beat the baseline out of sample", "model promote edge@3")
    promote.add_argument("name", metavar="NAME[@VERSION]", help="the latest version unless one is named")
    only_json(promote)
    publish = part("publish", "give a promoted model to a running pipeline", "model publish edge --instance paper")
    publish.add_argument("name", metavar="NAME[@VERSION]", help="the version promoted last unless one is named")
    _instance(publish)
    publish.add_argument("--timeout", metavar="S", type=positive, default=5.0, help="wait so long for it to be taken (default 5)")
    only_json(publish)
    report = part(
        "report",
        "figures of a model, of recordings, or of markets with a known edge",
        "model report edge",
        "model report edge --recording day3.gz",
        "model report --recording day1.gz day2.gz --set ml.horizon_ms=1000",
        "model report --synthetic --seeds 5",
    )
    report.add_argument("name", metavar="NAME[@VERSION]", nargs="?", default="", help="a model; with recordings: its drift")
    report.add_argument("--synthetic", action="store_true", help="learn on markets with and without an edge, and print the rates")
    report.add_argument("--seeds", metavar="N", type=whole, default=20, help="synthetic: markets of each sort (default 20)")
    _profile_options(report, speed=False)
    only_json(report)


def guide(p: argparse.ArgumentParser) -> None:
    """Of `help`."""
    p.add_argument("of", metavar="COMMAND", nargs="?", help="one command's options; without it the short guide")


def clean(p: argparse.ArgumentParser) -> None:
    """Of `clean`."""
    which = p.add_mutually_exclusive_group()
    which.add_argument("--instance", metavar="NAME", help="only what this one left")
    which.add_argument("--all", action="store_true", help="what any instance left (the default)")
    p.add_argument("--journals", action="store_true", help="remove journals of runs that have ended, instead of shared memory")
    p.add_argument("--keep", metavar="N", type=none_or_more, help="journals: of so many last runs an instance stay (default 3)")
    p.add_argument("--dry-run", action="store_true", help="journals: say what would be removed, and remove nothing")
    only_json(p)


def prices(p: argparse.ArgumentParser) -> None:
    """Of `prices`."""
    p.add_argument("symbols", metavar="SYMBOL", nargs="+", help="as the venue or ccxt writes it: BTCUSDT, BTC/USDT")
    p.add_argument("--timeframe", metavar="SIZE", help="candles of this size (1s, 1m, 5m, 1h ...) instead of last prices")
    p.add_argument("--limit", metavar="N", type=whole, default=20, help="candles, at most 1000 (default 20)")
    p.add_argument("--venue", metavar="NAME", default=DEFAULT.label, help=f"{DEFAULT.label} (default), okx, ... or {CCXT}<id>")
    p.add_argument(
        "--endpoint",
        metavar="WHERE",
        action="append",
        help="rest=http://host:port (another address of the venue) or ccxt:<id> (another venue); several are asked in this order",
    )
    p.add_argument("--recording", metavar="FILE", nargs="+", help="trades to build from when no endpoint answers")
    p.add_argument("--timeout", metavar="S", type=positive, default=10.0, help="give a request up after this long (default 10)")
    _instance(p)
    only_json(p)


def completion(p: argparse.ArgumentParser) -> None:
    """Of `completion`."""
    p.add_argument("shell", choices=SHELLS)
