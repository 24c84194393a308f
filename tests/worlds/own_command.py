"""`scalperctl` in the tests' own process. Holds no tests; the fixture `run` (conftest) hands it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]
"""Takes the words of a command line; (exit code, stdout, stderr)."""


def run_here(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, whose output the fixture catches."""
    from procs.cli.main import main

    def call(*words: Any) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call
