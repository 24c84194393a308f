"""`scalperctl`: finds the command, runs it, and turns every operating error into one sentence and an exit code.

An error of this program itself (a defect) still shows its traceback: hiding it would help nobody.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from procs.cli import streams
from procs.cli.arguments import COMMANDS, PROGRAM, parser
from procs.cli.outcome import ALREADY_RUNNING, FAILED, INTERRUPTED, NOT_RUNNING, USAGE, CliError

ERRORS: Final[tuple[tuple[str, str, int], ...]] = (
    ("procs.profiles.strict_yaml", "ConfigError", USAGE),
    ("procs.fold.plan", "PlanError", USAGE),
    ("sim.recordings.spool", "RecordingError", USAGE),
    ("sim.local_venue.source", "SourceError", USAGE),
    ("sim.local_venue.faults", "FaultError", USAGE),
    ("sim.local_venue.server", "VenueError", FAILED),
    ("trading.scoring.params", "StrategyError", USAGE),
    ("trading.user_signals", "SignalError", USAGE),
    ("trading.instruments", "InstrumentError", USAGE),
    ("procs.recordings.output", "RecordingsError", USAGE),
    ("procs.supervision.control", "NotRunningError", NOT_RUNNING),
    ("procs.supervision.control", "ControlError", FAILED),
    ("procs.rundir", "InstanceBusyError", ALREADY_RUNNING),
    ("procs.rundir", "RunDirError", FAILED),
    ("procs.supervision.killswitch", "KillSwitchError", FAILED),
    ("procs.gateway.bearer", "TokenError", USAGE),
    ("procs.prices.answer", "UnknownSymbol", USAGE),
    ("procs.prices.answer", "UnknownTimeframe", USAGE),
    ("procs.prices.answer", "PriceError", FAILED),
    ("trading.venues.protocol", "VenueError", USAGE),
    ("shm.errors", "SegmentExists", ALREADY_RUNNING),
    ("shm.errors", "SegmentMissing", NOT_RUNNING),
    ("shm.errors", "SegmentError", FAILED),
    ("ringbuf.layout", "RingLayoutError", FAILED),
    ("procs.journal.format", "JournalError", FAILED),
    ("procs.journal.order_trace", "TraceError", FAILED),
    ("procs.research.backtest", "BacktestStalled", FAILED),
    ("procs.research.engine", "EngineFull", FAILED),
    ("procs.recordings.raw_frames", "RawFramesError", FAILED),
    ("procs.learning.extras", "LearningError", FAILED),
    ("procs.bench.pair", "BenchError", FAILED),
)
"""Operating errors: (module, class, exit code), first match counts. Modules that nobody imported raised nothing."""


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an operating error, None for a defect."""
    if isinstance(error, CliError):
        return error.code
    for module, name, code in ERRORS:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return code
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return FAILED
    return None


def sentence_of(error: BaseException) -> str:
    """The error on one line."""
    if isinstance(error, OSError) and error.filename in streams.NAMES.values():
        return f"{error.filename}: {str(error.strerror).lower()}: not all was printed"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}; check the path and its permissions"
    return " ".join(str(error).split()) or type(error).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    streams.make_safe()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            code = _run(words)
        except SystemExit as end:  # argparse's --help and its refusals
            code = end.code if isinstance(end.code, int) else USAGE
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe has seen enough
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        code_or_none = exit_code_of(error)
        if code_or_none is None:
            raise
        with contextlib.suppress(OSError):
            print(f"{PROGRAM}: {sentence_of(error)}", file=sys.stderr, flush=True)
        return code_or_none
    finally:
        streams.give_up()


def _run(words: list[str]) -> int:
    args = parser(words[0] if words and words[0] in COMMANDS else None).parse_args(words or ["help"])
    if getattr(args, "version", False):
        return _run(["version"])
    module, _, function = args.function.partition(":")
    command: Callable[[Any], int] = getattr(importlib.import_module(f"procs.cli.{module}"), function)
    return command(args)


if __name__ == "__main__":
    sys.exit(main())
