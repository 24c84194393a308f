"""The supervisor's log: structlog to stderr, coloured lines on a terminal, one JSON object a line anywhere else."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

TAIL_BYTES: Final = 4096


class _Tolerant:
    """A text file whose loss is borne: a closed terminal or a full disk must not end the pipeline."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()


def supervisor_log(instance: str, file: TextIO | None = None) -> Any:
    """A bound structlog logger with the instance's name in each entry."""
    out = sys.stderr if file is None else file
    tty = out.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=tty) if tty else structlog.processors.JSONRenderer()
    return structlog.wrap_logger(
        structlog.PrintLogger(_Tolerant(out)),  # type: ignore[arg-type]  # only write and flush are used
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.BoundLogger,
    ).bind(instance=instance)


def last_line(path: Path) -> str:
    """The last line of a stage's log that holds text, at most 300 characters; "" if there is none."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        lines = [line.strip() for line in file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")[-300:]
    return ""
