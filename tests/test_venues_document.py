"""docs/add-a-venue.md is true: its module and its test run as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "add-a-venue.md"


def test_the_worked_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's module is imported, and the document's test passes on it."""
    module, test = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    corner = ModuleType("corner")
    monkeypatch.setitem(sys.modules, "corner", corner)  # msgspec looks the annotations up there
    exec(compile(module, "corner.py", "exec"), corner.__dict__)
    exec(compile(test, "test_corner.py", "exec"), corner.__dict__)
    assert (corner.__doc__ or "").startswith("Corner")


def test_the_document_names_what_exists() -> None:
    """Each path that the document names is in the repository, but for the example's own and the receiver's table."""
    text = DOCUMENT.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:trading|tests|sim)/[\w/]+\.py)`", text)) - {"trading/venues/corner.py"}
    assert len(named) >= 5
    assert [path for path in named if not (DOCUMENT.parents[1] / path).is_file()] == []
