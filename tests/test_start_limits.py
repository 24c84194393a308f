"""Limits that would end a pipeline in the middle are said before anything is started, with the number that is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from procs import topology
from procs.cli import limits
from procs.profiles.config import load_profile

ROOT = Path(__file__).resolve().parents[1]


def start(limit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`scalperctl start` in a shell with this `ulimit`."""
    for name in ("r", "s", "c"):
        (folder / name).mkdir(mode=0o700)
    places = {"XDG_RUNTIME_DIR": "r", "XDG_STATE_HOME": "s", "XDG_CACHE_HOME": "c"}
    unwanted = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    environment |= {key: str(folder / name) for key, name in places.items()} | {"PYTHONPATH": str(ROOT)}
    words = f'{limit}; exec "{sys.executable}" -P -m procs.cli.main start --instance limited'
    return subprocess.run(["bash", "-c", words], env=environment, capture_output=True, text=True, cwd=folder, timeout=120)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("ulimit -n 40", r"the limit of open files is 40, limited needs (\d+): raise it \(`ulimit -n \1`, or LimitNOFILE="),
        ("ulimit -f 1000", r"the limit of the size of a file is \d+, limited needs (\d+): raise it \(`ulimit -f \1`"),
        ("ulimit -v 1500000", r"the limit of address space is 1500000, limited needs (\d+): raise it \(`ulimit -v \1`"),
    ],
)
def test_a_low_limit_is_one_sentence(limit: str, said: str, tmp_path: Path) -> None:
    """Exit 1 at once, one line with the number; no log, no lock, no state: nothing was touched."""
    ran = start(limit, tmp_path)
    assert ran.returncode == 1 and ran.stdout == "" and ran.stderr.count("\n") == 1
    assert re.search(said, ran.stderr), ran.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c", "r", "s"]


def test_what_is_needed_follows_from_the_table() -> None:
    """Symbols over sockets want descriptors of their own; the largest file holds the arena; our own tasks are seen."""
    paper, live = load_profile("paper"), load_profile("live-paper")
    assert limits.files_needed(live) > limits.files_needed(paper) > 2 * len(topology.RINGS)
    assert limits.largest_file(live) >= live.live.arena_mb * limits.MB
    assert limits.tasks_of(os.getuid()) >= 1
