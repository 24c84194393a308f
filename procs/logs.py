"""The logs of all processes: structlog to stderr, coloured lines on a terminal, one JSON object a line anywhere else.

    supervisor_log(instance)    the supervisor's; each entry has `instance`
    stage_log(stage)            a stage's; each entry has `stage`. Its stderr is the stage's file below the run's folder
    take_over_logging(log)      what libraries say through Python's logging becomes entries of this log, too

An entry has `event`, `level` and `timestamp`; `problem` is a sentence on what went wrong, `exception` a traceback.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TextIO

TAIL_BYTES: Final = 65_536
"""An entry with a traceback is one long line."""


class _Tolerant:
    """A text file whose loss is borne: a closed terminal or a full disk must not end the pipeline. None: stderr."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return (self._file or sys.stderr).write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            (self._file or sys.stderr).flush()


def _log(file: TextIO | None, **bound: str) -> Any:
    import structlog  # it imports asyncio and ssl: stages that have nothing to say do without

    tty = (file or sys.stderr).isatty()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=tty) if tty else structlog.processors.JSONRenderer()
    return structlog.wrap_logger(
        structlog.PrintLogger(_Tolerant(file)),  # type: ignore[arg-type]  # only write and flush are used
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.BoundLogger,
    ).bind(**bound)


def supervisor_log(instance: str, file: TextIO | None = None) -> Any:
    """A bound structlog logger with the instance's name in each entry."""
    return _log(file, instance=instance)


class _WhenSaid:
    """A log that is made when the first entry is written."""

    def __init__(self, **bound: str) -> None:
        self._bound = bound

    @cached_property
    def _log(self) -> Any:
        return _log(None, **self._bound)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def stage_log(stage: str) -> Any:
    """A bound structlog logger with the stage's name in each entry."""
    return _WhenSaid(stage=stage)


class _Entries(logging.Handler):
    """Makes entries of a log of what comes through Python's logging."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = logging.getLevelName(record.levelno).lower()
        say = getattr(self._log, level if level in ("debug", "info", "warning", "error", "critical") else "info")
        say(record.getMessage(), logger=record.name, **({"exc_info": record.exc_info} if record.exc_info else {}))


def take_over_logging(log: Any) -> None:
    """Let everything that is said through Python's logging in this process be an entry of `log`."""
    logging.getLogger().handlers[:] = [_Entries(log)]


def sentence_of(line: str) -> str:
    """What an entry tells people, as one sentence: what went wrong, else the event. A line that is no entry says it itself."""
    try:
        said = json.loads(line)
    except ValueError:
        return line.strip()
    if not isinstance(said, dict):
        return line.strip()
    traceback = str(said.get("exception", "")).strip().splitlines()
    kinds = (said.get("problem"), said.get("last_line"), said.get("reason"), *traceback[-1:], said.get("event"))
    return str(next((found for found in kinds if found), ""))


def last_line(path: Path) -> str:
    """What the last line of a stage's log that holds text says, at most 300 characters; "" if there is none."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        lines = [line.strip() for line in file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()]
        return sentence_of(next((line for line in reversed(lines) if line), ""))[-300:]
    return ""
