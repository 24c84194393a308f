"""What the documents say is what the program is: the diagram, the commands, the exit codes, the files and modules they name."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from procs import topology
from procs.cli.arguments import COMMANDS, option_names
from procs.cli.outcome import MEANINGS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
ROOMS = ("shm", "ringbuf", "trading", "sim", "procs", "config", "scripts", "systemd", "tests")
PACKAGES = ("shm", "ringbuf", "trading", "sim", "procs")
EXAMPLE = re.compile(r"`([^`]+)` \(the example\)")
"""A path that a document makes up says so."""
MOVED = re.compile(r"`([\w.]+)` is now\s+`")
"""A module's name of old stands in the changelog, before the new one."""


def text_of(name: str) -> str:
    """A document's text."""
    return (ROOT / name).read_text(encoding="utf-8")


def test_readme_draws_the_topology() -> None:
    """README's diagram is what `scalperctl topology --mermaid` prints; paste it anew when this fails."""
    drawn = re.search(r"```mermaid\n(.*?)\n```", text_of("README.md"), re.S)
    assert drawn is not None
    assert drawn[1] == topology.diagram("mermaid")


def test_readme_lists_every_exit_code() -> None:
    """README's table of exit codes is the program's, word for word."""
    rows = re.findall(r"^\| (\d+) \| (.*?) \|$", text_of("README.md"), re.M)
    assert [(int(code), meaning) for code, meaning in rows] == list(MEANINGS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_commands_that_exist(name: str) -> None:
    """Every `scalperctl COMMAND --option` written anywhere is one that the parser knows."""
    wrong = []
    for command, rest in re.findall(r"\bscalperctl ([a-z]+)([^\n`#|]*)", text_of(name)):
        if command not in COMMANDS:
            wrong.append(f"scalperctl {command}")
            continue
        known = {*option_names(command), "--help"}
        wrong += [f"scalperctl {command} {option}" for option in re.findall(r"--[a-z-]+", rest) if option not in known]
    assert wrong == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_files_that_exist(name: str) -> None:
    """Every path below the project's folders that a document puts between backticks is there."""
    text = text_of(name)
    named = set(re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./@-]*)`", text)) - set(EXAMPLE.findall(text))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_sources_that_exist(name: str) -> None:
    """Every `folder/module.py` anywhere in a document, in a command too, is a file of the project."""
    text = text_of(name)
    named = set(re.findall(r"(?<![\w./-])(\w[\w-]*(?:/[\w-]+)+\.py)\b", text)) - set(EXAMPLE.findall(text))
    assert sorted(path for path in named if not (ROOT / path).is_file()) == []


@cache
def names_in(module: Path) -> frozenset[str]:
    """What a module defines or imports at its top."""
    found = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return frozenset(found)


def is_ours(name: str) -> bool:
    """Whether a dotted name is a module of the project, or something at the top of one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:n])
        module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if module.is_file():
            return n == len(parts) or parts[n] in names_in(module)
    return False


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_modules_that_exist(name: str) -> None:
    """Every dotted name of one of the packages is a module, or something in one; the changelog may tell what one was called."""
    text = text_of(name)
    named = set(re.findall(rf"(?<![\w./-])((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)(?![\w/])", text))
    made_up = tuple(path.removesuffix(".py").replace("/", ".") for path in EXAMPLE.findall(text))
    named -= {f for f in named if f.startswith(made_up)} if made_up else set()
    named -= set(MOVED.findall(text)) | {f for f in named if re.search(r"\.(py|md|yaml)$", f)}
    assert sorted(dotted for dotted in named if not is_ours(dotted)) == []


def test_architecture_has_a_paragraph_for_every_room() -> None:
    """ARCHITECTURE.md describes each folder of the project that holds something of ours, and each room in it."""
    text = text_of("ARCHITECTURE.md")
    assert [room for room in ROOMS if f"**{room}/** " not in text] == []
    rooms = {f"{path.parent.relative_to(ROOT)}/" for package in PACKAGES for path in (ROOT / package).glob("*/__init__.py")}
    assert sorted(room for room in rooms if f"| `{room}` |" not in text) == []
    starts = re.findall(r"^\| `([a-z_]+/[a-z_]+/)` \|.*\| `(\w+\.py)` \|$", text, re.M)
    assert len(starts) == len(rooms)
    assert [room + start for room, start in starts if not (ROOT / room / start).is_file()] == []


def test_architecture_draws_every_stage() -> None:
    """All stages stand in ARCHITECTURE.md's drawing, and its table has the module and the rings of each."""
    text = text_of("ARCHITECTURE.md")
    drawing = text.split("```")[1]
    assert [stage.name for stage in topology.STAGES if not re.search(rf"\b{stage.name}\b", drawing)] == []
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| `([\w/]+\.py)` \| (.*) \| (.*) \|$", text, re.M)}
    assert set(rows) == set(topology.STAGE)
    for stage in topology.STAGES:
        module, reads, writes = rows[stage.name]
        assert module == stage.module.replace(".", "/") + ".py"
        taken = {ring.name for ring in topology.RINGS if stage.name in ring.readers and not ring.name.startswith("intake.")}
        written = {ring.name for ring in topology.RINGS if ring.writer == stage.name and not ring.name.startswith("intake.")}
        assert set(re.findall(r"`([\w.]+)`", writes)) == written, stage.name
        assert set(re.findall(r"`([\w.]+)`", reads)) == (set() if stage.name == "recorder" else taken), stage.name


def test_the_kernel_of_the_debugging_page_is_stepped_through() -> None:
    """The Python of docs/debugging.md runs as it stands there, and prints what the page says."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", text_of("docs/debugging.md"), re.M | re.S)
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'worlds'}"}
    done = subprocess.run([sys.executable, "-P", "-c", block], env={**os.environ, **paths}, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("BOOK_STALE\n", 0), done.stderr
    assert "this prints `BOOK_STALE`" in text_of("docs/debugging.md")
