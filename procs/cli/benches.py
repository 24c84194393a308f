"""`bench`: runs one of procs.bench's measurements and prints it. Each has `run(...) -> dict` and `format(result) -> str`."""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

from procs.cli.outcome import OK, UNHEALTHY
from procs.cli.report import use_kernel_cache


def bench(args: argparse.Namespace) -> int:
    """The command."""
    use_kernel_cache()
    module: Any = importlib.import_module(f"procs.bench.{args.what}")
    wishes: dict[str, Any] = {}
    if args.what == "pipeline":
        wishes = {"files": args.recording or (), "seconds": args.seconds or 600.0, "placement": args.placement}
    elif args.what in ("decode", "features"):
        wishes = {"files": args.recording or ()}
    elif args.what == "hops":
        wishes = {
            "files": args.recording or (), "seconds": args.seconds or 10.0, "rate": args.rate, "wait": args.wait,
            "overrides": args.set or (),
        }  # fmt: skip
    elif args.what == "link":
        wishes = {"seconds": args.seconds or 10.0}
    elif args.what == "gateway":
        wishes = {"files": args.recording or (), "seconds": args.seconds or 60.0}
    elif args.what == "start":
        wishes = {"wheel": args.wheel or "", "compiling": not args.warm}
    elif args.what == "restart":
        wishes = {"kills": args.kills, "placement": args.placement}
    if args.rounds and args.what in ("decode", "features", "gateway"):
        wishes["rounds"] = args.rounds
    result = module.run(**wishes)
    print(json.dumps(result, indent=2) if args.json else str(module.format(result)).rstrip("\n"))
    return UNHEALTHY if result.get("complaints") else OK
