"""`help`, and `scalperctl` without a word: what to do first, then every command with a sentence; `help COMMAND` is its --help."""

from __future__ import annotations

import argparse
import textwrap
from typing import Final

from procs.cli.arguments import COMMANDS, PROGRAM, parser
from procs.cli.options import near
from procs.cli.outcome import OK, USAGE, CliError

WIDTH: Final = 80
GROUPS: Final = (
    ("a first look", ("demo", "doctor", "backtest")),
    ("run a pipeline", ("start", "status", "top", "stop", "restart", "halt", "report", "runs", "clean")),
    ("look closer", ("signals", "stats", "latency", "lines", "trace", "replay", "topology")),
    ("market data", ("record", "data", "prices", "venue")),
    ("research", ("features", "calibrate", "model", "bench")),
    ("about this program", ("help", "version", "completion")),
)
"""Every command once, in the order in which a newcomer needs them."""


def guide(args: argparse.Namespace) -> int:
    """The command."""
    if args.of is None:
        print("\n".join(short()))
        return OK
    if args.of not in COMMANDS:
        raise CliError(f"there is no command {args.of!r}{near(args.of, COMMANDS)}: see `{PROGRAM} help`", USAGE)
    parser(args.of).parse_args([args.of, "--help"])
    return OK


def short() -> list[str]:
    """The guide, at most WIDTH columns wide."""
    lines = [f"usage: {PROGRAM} COMMAND [options]", ""]
    for title, names in GROUPS:
        lines.append(f"{title}:")
        for name in names:
            first, *more = textwrap.wrap(COMMANDS[name].sentence, WIDTH - 14)
            lines += [f"  {name:<12}{first}", *(" " * 14 + line for line in more)]
        lines.append("")
    return [*lines, f"`{PROGRAM} COMMAND --help` has a command's options, examples and exit codes."]
