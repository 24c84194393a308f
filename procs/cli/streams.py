"""The three standard streams as daemons, cron, old terminals and full disks leave them: closed, ASCII only, or full.

    make_safe()    once, before anything is printed or opened
    give_up()      at the end, or after a write has failed: what a broken stream still holds goes nowhere
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Final, TextIO

STREAMS: Final = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))
NAMES: Final = {"stdout": "standard output", "stderr": "standard error"}


class _Named(io.TextIOWrapper):
    """Output whose errors name it, so that they are told from those of a command's files."""

    title = ""

    def write(self, text: str) -> int:
        """As TextIOWrapper's."""
        with self._named():
            return super().write(text)

    def flush(self) -> None:
        """As TextIOWrapper's."""
        with self._named():
            super().flush()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = self.title
            raise


def make_safe() -> None:
    """Let every standard stream exist, and no character be too much for it.

    A closed stream leads nowhere: else the next file that is opened would take its number, and be written to by whoever means the
    stream. A sign that the stream cannot show is printed as a question mark.
    """
    for number, (name, flags) in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, flags)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        stream: TextIO | None = getattr(sys, name)
        if stream is None or stream.closed:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))
        elif name in NAMES and isinstance(stream, io.TextIOWrapper):
            if stream is getattr(sys, f"__{name}__") and not isinstance(stream, _Named):
                encoding, by_line = stream.encoding, stream.line_buffering
                stream = _Named(stream.detach(), encoding, line_buffering=by_line)
                stream.title = NAMES[name]
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)
            stream.reconfigure(errors="replace")


def give_up() -> None:
    """Drop what waits in a stream that takes nothing more; Python would complain of it when it ends."""
    for name in NAMES:
        stream: TextIO = getattr(sys, name)
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
                stream.flush()
