"""`bench`: runs one of procs.bench's measurements and prints it. Each has `run(...) -> dict` and `format(result) -> str`."""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any, Final

from procs.cli.outcome import OK, UNHEALTHY, USAGE, CliError
from procs.cli.report import use_kernel_cache

NAMES: Final = {"recording": "files", "set": "overrides"}
"""What `run` calls an option, where the name is another."""
TAKES: Final = {
    "decode": ("recording", "rounds"),
    "features": ("recording", "rounds"),
    "gateway": ("recording", "seconds", "rounds"),
    "hops": ("recording", "seconds", "rate", "wait", "set", "placement"),
    "link": ("seconds",),
    "pipeline": ("recording", "seconds", "placement"),
    "restart": ("kills", "placement"),
    "start": ("wheel", "warm"),
    "wake": ("records",),
}
"""The options that each takes; their defaults stand where they are used."""


def bench(args: argparse.Namespace) -> int:
    """The command."""
    takes = TAKES.get(args.what, ())
    known = {name for names in TAKES.values() for name in names}
    given = {name: value for name, value in vars(args).items() if name in known and value}
    for name in given:
        if name not in takes:
            has = "takes " + ", ".join(f"--{one}" for one in takes) if takes else "has no options but --json"
            raise CliError(f"bench {args.what} has no --{name}: it {has}", USAGE)
    use_kernel_cache()
    module: Any = importlib.import_module(f"procs.bench.{args.what}")
    result = module.run(**{NAMES.get(name, name): value for name, value in given.items()})
    print(json.dumps(result, indent=2) if args.json else str(module.format(result)).rstrip("\n"))
    return UNHEALTHY if result.get("complaints") else OK
