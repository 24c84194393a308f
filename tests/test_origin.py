"""Whose code runs: a package of our name from elsewhere is named and refused, by commands, stages and users' own programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from procs.origin import intruder, is_own_program, refuse_intruders

ROOT = Path(__file__).resolve().parents[1]


def python(*words: str, cwd: Path, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python in this folder, ours found by PYTHONPATH behind `first`."""
    path = os.pathsep.join(str(place) for place in (first, ROOT) if place)
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=120
    )


def test_ours_are_ours() -> None:
    """In this process every package is where it belongs."""
    assert intruder() == ""
    refuse_intruders()


@pytest.mark.parametrize("planted", ["trading/__init__.py", "sim.py", "shm/__init__.py"])
def test_a_planted_package_is_named(planted: str, tmp_path: Path) -> None:
    """A command and a stage's process end with 2 and the file's name; nothing of the file runs, and there is no traceback."""
    file = tmp_path / planted
    file.parent.mkdir(exist_ok=True)
    file.write_text("print('INTRUDER RAN')\n")
    for module in ("procs.cli.main", "procs.supervision.zygote", "procs.cli.staging"):
        ran = python("-P", "-m", module, "version", cwd=tmp_path, first=tmp_path)
        assert ran.returncode == 2 and str(file) in ran.stderr and "rename or move it" in ran.stderr
        assert "INTRUDER" not in ran.stdout and "Traceback" not in ran.stderr


def test_in_the_working_directory(tmp_path: Path) -> None:
    """`python -m` without -P finds the working directory first: named as well. With -P it is not looked at."""
    (tmp_path / "trading.py").write_text("print('INTRUDER RAN')\n")
    ran = python("-m", "procs.cli.main", "version", cwd=tmp_path)
    assert ran.returncode == 2 and str(tmp_path / "trading.py") in ran.stderr and "INTRUDER" not in ran.stdout
    assert python("-P", "-m", "procs.cli.main", "version", cwd=tmp_path).returncode == 0


def test_a_folder_without_init_cannot_be_merged(tmp_path: Path) -> None:
    """A mere folder of our package's name adds no module to it: every one of ours is a regular package."""
    (tmp_path / "trading").mkdir()
    (tmp_path / "trading" / "planted.py").write_text("")
    assert python("-P", "-m", "procs.cli.main", "version", cwd=tmp_path, first=tmp_path).returncode == 0
    ran = python("-P", "-c", "import procs, trading.planted", cwd=tmp_path, first=tmp_path)
    assert "No module named 'trading.planted'" in ran.stderr


def test_a_users_program_gets_an_import_error(tmp_path: Path) -> None:
    """A program of the user's own, which may catch it, gets the sentence as an ImportError."""
    (tmp_path / "sim.py").write_text("")
    code = "try:\n    import procs.prices\nexcept ImportError as error:\n    print('caught', error)"
    ran = python("-P", "-c", code, cwd=tmp_path, first=tmp_path)
    assert ran.returncode == 0 and ran.stdout.startswith(f"caught {tmp_path / 'sim.py'} is found in place of")


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ("python -P -m procs.cli.main start", True), ("python -X faulthandler -m procs.cli.main", True),
        ("python /opt/bin/scalperctl status", True), ("python bot.py procs", False), ("python -m pytest tests", False),
        ("python -c import:procs", False), ("python", False), ("python -m", False),
    ],
)  # fmt: skip
def test_which_programs_are_ours(words: str, ours: bool) -> None:
    """Ours end with a sentence; of others nothing is ended."""
    assert is_own_program(words.split()) is ours
