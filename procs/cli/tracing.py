"""`trace ORDER`: the whole way of one order through the journals of the living or the last run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from procs import topology
from procs.cli import running
from procs.cli.outcome import FAILED, OK, CliError
from procs.cli.report import plan_for, told_by, use_kernel_cache
from procs.cli.runs import meant

RINGS = {ring.ring_id: (ring.name, ring.record) for ring in topology.RINGS}


def trace(args: argparse.Namespace) -> int:
    """The command."""
    use_kernel_cache()
    from procs.journal.order_trace import format_trace, trace_order

    folder, instruments = _where(args)
    order = args.order or _last(folder)
    found = trace_order(folder, order, RINGS, instruments=instruments)
    if args.json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print(format_trace(found), end="")
    return OK


def _last(folder: Path) -> int:
    """The order that was sent last. CliError where none was."""
    from procs.journal.file import JournalReader, journal_path
    from trading.results.kpis import new_orders

    sent = new_orders(JournalReader(journal_path(folder, "orders"), topology.RING["orders"].record).records())
    if not len(sent):
        raise CliError(f"{folder}: no order was sent in this run: `scalperctl report` says what held them back", FAILED)
    return int(sent[-1]["order_id"])


def _where(args: argparse.Namespace) -> tuple[Path, Any]:
    """(folder of journals, INSTRUMENT table or None)."""
    if args.journal:
        return Path(args.journal), None
    instance, run = meant(args)
    if run is None:
        profile, folder = running.running_profile(instance), running.journal_folder(instance)
        if profile is None or folder is None:
            raise CliError(
                f"instance {instance!r} does not say where its journals are: it is starting or ending, try again", FAILED
            )
        return folder, plan_for(profile, running.spool_of(instance), []).instruments
    told = told_by(run)
    return told.journal_dir, plan_for(told.profile, None, told.symbols).instruments
