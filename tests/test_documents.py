"""What the documents say is what the program is: the diagram, the commands, the exit codes, the files that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from procs import topology
from procs.cli.arguments import COMMANDS, option_names
from procs.cli.outcome import MEANINGS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "systemd/README.md",
    "docs/recording.md", "docs/local-venue.md", "docs/add-a-venue.md", "docs/http.md", "docs/learning.md",
    "docs/testing-a-strategy.md", "docs/user-signals.md",
)  # fmt: skip
ROOMS = ("shm", "ringbuf", "trading", "sim", "procs", "config", "scripts", "systemd", "tests")


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
        wrong += [f"scalperctl {command} {option}" for option in re.findall(r"--[a-z]+", rest) if option not in known]
    assert wrong == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_files_that_exist(name: str) -> None:
    """Every path below the project's folders that a document puts between backticks is there."""
    named = set(re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./@-]*)`", text_of(name)))
    named -= {path for path in named if re.search(rf"`{re.escape(path)}` \(the example\)", text_of(name))}
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_architecture_has_a_paragraph_for_every_room() -> None:
    """ARCHITECTURE.md describes each folder of the project that holds something of ours."""
    text = text_of("ARCHITECTURE.md")
    assert [room for room in ROOMS if f"**{room}/** " not in text] == []
