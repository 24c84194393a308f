"""What is installed where: the pins of a machine that trades, and a source distribution that is the whole repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from procs.cli.arguments import COMMANDS, option_names

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
NO_SOURCE = {".git", ".venv", "build", "dist"}


def name_of(text: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", text).lower()


def pins(file: str) -> dict[str, str]:
    """Name to the whole line (version and hashes) of each package of a file of pins."""
    text = (ROOT / file).read_text().replace("\\\n", " ")
    lines = [" ".join(line.split()) for line in text.splitlines() if "==" in line]
    return {name_of(line.partition("==")[0]): line for line in lines}


def reached(requirements: list[str]) -> set[str]:
    """What these requirements bring with this Python, by what is installed here."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        one = waiting.pop()
        key = name_of(one.name), tuple(sorted(one.extras))
        extras = ["", *one.extras]
        if key in found or (one.marker is not None and not any(one.marker.evaluate({"extra": extra}) for extra in extras)):
            continue
        found.add(key)
        for text in metadata.distribution(one.name).requires or []:
            below = Requirement(text)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(below)
    return {name for name, _ in found}


CORE = SETTINGS["project"]["dependencies"] + SETTINGS["build-system"]["requires"]
WEB = SETTINGS["project"]["optional-dependencies"]["web"]


def test_the_core_pins_are_the_core() -> None:
    """All that the engine needs and what builds it, of the versions and hashes that the tests run with, and no more: the files
    agree with pyproject.toml and with constraints.txt."""
    core, web, every = pins("constraints-core.txt"), pins("constraints-web.txt"), pins("constraints.txt")
    assert reached(CORE) <= set(core)
    assert reached(CORE + WEB) <= set(core) | set(web) and not set(core) & set(web)
    for file in (core, web):
        assert file and {name: every[name] for name in file} == file
        assert all("--hash=sha256:" in line for line in file.values())
    others = {"pytest", "hypothesis", "atheris", "lightgbm", "scikit-learn", "pyarrow", "polars", "ruff", "mypy", "pyzmq"}
    assert not others & (set(core) | set(web)) and others <= set(every)


def test_a_service_installs_the_core_alone() -> None:
    """The steps of systemd/README.md take the core's pins, and not those of the tests."""
    text = (ROOT / "systemd" / "README.md").read_text()
    assert "-r constraints-core.txt" in text and "-r constraints.txt" not in text


def sources() -> set[str]:
    """Every file of the checkout that is no product of a tool."""
    ignored = [line.strip() for line in (ROOT / ".gitignore").read_text().splitlines() if line.strip()]
    folders = NO_SOURCE | {line.strip("/") for line in ignored if line.endswith("/") and "*" not in line}
    endings = tuple(line.strip("*/") for line in ignored if line.startswith("*"))
    found = set()
    for place, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in folders and not name.endswith(endings)]
        found |= {str((Path(place) / name).relative_to(ROOT)) for name in names if not name.endswith((*endings, ".pyc"))}
    return {name for name in found if name != ".git"}  # a file in a worktree


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a copy of the checkout, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    copy = folder / "checkout"
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    program = "import sys; from setuptools import build_meta as b; print(b.build_sdist(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-P", "-c", program, str(folder)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(folder / done.stdout.splitlines()[-1]) as archive:
        archive.extractall(folder / "out", filter="data")
    return next((folder / "out").iterdir())


def test_the_source_distribution_is_the_repository(unpacked: Path) -> None:
    """Every source file is in it with its mode: tests, scripts, documents, profiles, units, pins; and nothing that is none."""
    there = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert sources() - there == set()
    made = {"PKG-INFO", "setup.cfg"}
    assert {name for name in there - sources() if not name.startswith("scalper.egg-info/")} <= made
    assert os.access(unpacked / "scripts" / "test", os.X_OK) and os.access(unpacked / ".ci" / "run", os.X_OK)


@pytest.mark.slow
def test_the_tests_of_the_source_distribution_are_found(unpacked: Path) -> None:
    """pytest collects the same tests there as here."""

    def collected(folder: Path) -> list[str]:
        words = [sys.executable, "-P", "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
        done = subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
        return [line for line in done.stdout.splitlines() if "::" in line]

    assert collected(unpacked) == collected(ROOT) != []


def test_the_services_command_knows_which_commands_take_an_instance() -> None:
    """scalper-service adds --instance to all commands but those that have no such option, or only in some of their parts."""
    text = (ROOT / "systemd" / "scalper-service").read_text()
    (listed,) = re.findall(r"^ +(topology \|.*) \| -\*\) ;;$", text, re.M)
    assert set(listed.split(" | ")) == {name for name in COMMANDS if "--instance" not in option_names(name)} | {"model"}
