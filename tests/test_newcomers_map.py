"""The newcomer's map is right: each file that a table of `question | file | function` names defines that function or class."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| (?P<what>[^|]+) \| `(?P<file>[\w/]+\.py)` \| `(?P<name>[\w.]+)` \|$", re.M)
LEAST_QUESTIONS = 30


def rows_of(document: str) -> list[tuple[str, str, str]]:
    """(question, file, function) of every row of such a table."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [(row["what"], row["file"], row["name"]) for row in ROW.finditer(text)]


@cache
def defined_in(path: Path) -> frozenset[str]:
    """The functions and classes at the top of a module, and the methods of its classes as `Class.method`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
        if isinstance(node, kinds):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, kinds)}
    return frozenset(found)


@pytest.mark.parametrize("document", ["docs/map.md", "ARCHITECTURE.md"])
def test_every_place_that_is_named_exists(document: str) -> None:
    """Each file of the table is there and defines the function or class beside it."""
    rows = rows_of(document)
    assert rows, f"{document} has no such table any more"
    missing = [f"{file} is not there" for _, file, _ in rows if not (ROOT / file).is_file()]
    there = [(file, name) for _, file, name in rows if (ROOT / file).is_file()]
    missing += [f"{file} does not define {name}" for file, name in there if name not in defined_in(ROOT / file)]
    assert missing == []


def test_the_map_answers_many_questions_once_each() -> None:
    """There are at least LEAST_QUESTIONS, no two of them alike, and every line of a table is a row that was checked."""
    rows = rows_of("docs/map.md")
    questions = [question for question, _, _ in rows]
    assert len(questions) >= LEAST_QUESTIONS
    assert len(set(questions)) == len(questions)
    lines = [line for line in (ROOT / "docs/map.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    heads = [line for line in lines if line == "| question | file | function |"]
    assert len(lines) - len(heads) == len(rows)
