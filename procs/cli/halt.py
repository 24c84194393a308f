"""`halt`: the kill switch, for a living pipeline through its supervisor, for any other by its latch on disk.

Where the disk refuses the latch, the command says that it is not latched, and ends with exit code 5.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import sys

from procs import rundir
from procs.cli import running
from procs.cli.outcome import OK, UNHEALTHY, USAGE, CliError
from procs.cli.table import clean_text
from procs.supervision import control, killswitch


def halt(args: argparse.Namespace) -> int:
    """The command."""
    instance = _instance(args)
    if args.what == "status":
        return _status(instance, args.json)
    if not (args.reason or "").strip():
        raise CliError(f'halt {args.what} wants a reason: add --reason "..."', USAGE)
    words, unlatched = _trip(instance, args.reason) if args.what == "trip" else (_reset(instance, args.reason), "")
    if args.json:
        said = {"instance": instance, "halted": args.what == "trip", "said": words, "unlatched": unlatched or None}
        print(json.dumps(said, indent=2))
    else:
        print(f"{instance}: {words}" + (f", NOT latched: {unlatched}" if unlatched else ""))
    return UNHEALTHY if unlatched else OK


def _instance(args: argparse.Namespace) -> str:
    """A kill switch may be set for an instance that does not run; the name must then be said."""
    name = running.instance_for(args, must_run=False)
    if not name:
        raise CliError(rundir.squatted() or "no pipeline is running: say which kill switch with --instance NAME", USAGE)
    return name


def _status(instance: str, as_json: bool) -> int:
    latch, unlatched, halted = killswitch.status(instance), "", ""
    if rundir.holder(instance):
        with contextlib.suppress(control.ControlError):  # the latch is on disk, whoever answers
            said = running.ask(instance, {"do": "status"})
            unlatched, halted = clean_text(said.get("unlatched") or ""), clean_text(said["halted"] or "")
    halted = clean_text(latch.in_words()) if latch else halted
    if as_json:
        told = None if latch is None else {"who": latch.who, "reason": latch.reason, "time": latch.time, "path": latch.path}
        whole = {"instance": instance, "halted": bool(halted), "latch": told, "unlatched": unlatched or None}
        print(json.dumps(whole, indent=2))
    else:
        print(f"{instance}: {halted or 'not halted'}" + (f", NOT latched: {unlatched}" if unlatched else ""))
    return UNHEALTHY if halted else OK


def _trip(instance: str, reason: str) -> tuple[str, str]:
    """(the words of the latch that holds, why none holds on disk: "" if it does). Whatever can be halted is."""
    if rundir.holder(instance):
        try:
            reply = running.ask(instance, {"do": "halt", "reason": reason})
            unlatched = clean_text(reply.get("unlatched") or "")
            again = "; the pipeline is halted, and its supervisor tries again until the latch holds"
            return clean_text(reply["halted"]), unlatched + again if unlatched else ""
        except control.NotRunningError:
            pass
        except control.ControlError as error:  # the latch on disk halts it at its next look, or at its next start
            print(f"scalperctl: {clean_text(str(error))}; trying the latch on disk", file=sys.stderr)
    elif problem := rundir.squatted(instance):
        print(f"scalperctl: {problem}; nobody was asked there, trying the latch on disk", file=sys.stderr)
    who = _who()
    try:
        return clean_text(killswitch.trip(instance, who, reason).in_words()), ""
    except killswitch.KillSwitchError as error:
        remedy = "free room on that disk or mend it, then run this again"
        return f"halted by {who}: {clean_text(reason)}", f"{clean_text(str(error))}; {remedy}"


def _reset(instance: str, reason: str) -> str:
    if rundir.holder(instance):
        try:
            was = running.ask(instance, {"do": "resume", "reason": reason})["was"]
            return f"reset; it was {clean_text(was)}" if was else "was not halted"
        except control.NotRunningError:
            pass
    latch = killswitch.reset(instance, _who(), reason)
    return "was not halted" if latch is None else f"reset; it was {clean_text(latch.in_words())}"


def _who() -> str:
    try:
        return f"operator {getpass.getuser()}"
    except (OSError, KeyError):
        return "operator"
