"""`halt`: the kill switch, for a living pipeline through its supervisor, for any other by its latch on disk."""

from __future__ import annotations

import argparse
import getpass
import json

from procs import rundir
from procs.cli import running
from procs.cli.outcome import OK, UNHEALTHY, USAGE, CliError
from procs.cli.table import clean_text
from procs.supervision import control, killswitch


def halt(args: argparse.Namespace) -> int:
    """The command."""
    instance = _instance(args)
    if args.what == "status":
        latch = killswitch.status(instance)
        if args.json:
            said = None if latch is None else {"who": latch.who, "reason": latch.reason, "time": latch.time, "path": latch.path}
            print(json.dumps({"instance": instance, "halted": latch is not None, "latch": said}, indent=2))
        else:
            print(f"{instance}: {clean_text(latch.in_words()) if latch else 'not halted'}")
        return OK if latch is None else UNHEALTHY
    if not (args.reason or "").strip():
        raise CliError(f'halt {args.what} wants a reason: add --reason "..."', USAGE)
    words = _change(instance, args.what, args.reason)
    if args.json:
        print(json.dumps({"instance": instance, "halted": args.what == "trip", "said": words}, indent=2))
    else:
        print(f"{instance}: {words}")
    return OK


def _instance(args: argparse.Namespace) -> str:
    """A kill switch may be set for an instance that does not run; the name must then be said."""
    name = running.instance_for(args, must_run=False)
    if not name:
        raise CliError("no pipeline is running: say which kill switch with --instance NAME", USAGE)
    return name


def _change(instance: str, what: str, reason: str) -> str:
    verb = "halt" if what == "trip" else "resume"
    if rundir.holder(instance):
        try:
            reply = running.ask(instance, {"do": verb, "reason": reason})
            if what == "trip":
                return clean_text(str(reply["halted"]))
            return f"reset; it was {clean_text(reply['was'])}" if reply.get("was") else "was not halted"
        except control.NotRunningError:
            pass
        except control.ControlError:
            if what == "reset":
                raise
            # it does not answer: the latch on disk halts it at its next look, or at its next start
    who = _who()
    if what == "trip":
        return clean_text(killswitch.trip(instance, who, reason).in_words())
    latch = killswitch.reset(instance, who, reason)
    return "was not halted" if latch is None else f"reset; it was {clean_text(latch.in_words())}"


def _who() -> str:
    try:
        return f"operator {getpass.getuser()}"
    except (OSError, KeyError):
        return "operator"
