"""What a command ends with: the exit codes, which scripts may rely on, and the error that carries one.

What this module is not: it prints nothing; procs.cli.main does.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
ALREADY_RUNNING: Final = 4
UNHEALTHY: Final = 5
INTERRUPTED: Final = 130

MEANINGS: Final = (
    (OK, "done, and what was looked at is well"),
    (FAILED, "it failed; one sentence on stderr says why and what to do"),
    (USAGE, "the command line, the profile or a recording is wrong"),
    (NOT_RUNNING, "no pipeline of that name is running"),
    (ALREADY_RUNNING, "a pipeline of that name is running already"),
    (UNHEALTHY, "it runs or ran, but not well: a stage gave up, a check failed, a record was lost"),
    (INTERRUPTED, "interrupted by Ctrl-C"),
)


class CliError(Exception):
    """A command cannot go on. The message is one sentence with the remedy; `code` is the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code: Final = code


def explained() -> str:
    """The exit codes as lines for a help text."""
    return "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS)
