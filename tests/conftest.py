"""What every test stands on: the recordings, a cache of compiled kernels that is never stale, and proof that nothing leaks.

Not a place for fakes or builders of test objects: those ship with the packages that they imitate.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import warm_kernels
from own_command import Run, run_here
from segment_world import INSTANCE

from procs import rundir, topology
from procs.kernels import choice
from procs.kernels.packs import OF_ENGINE
from procs.profiles.config import load_profile
from procs.supervision import compiling
from shm import backing

ROOT = Path(__file__).resolve().parents[1]
SHM = Path("/dev/shm")
SECOND_HALF_FROM = {"": "test_p", "slow": "test_m", "hostile": "test_hostile_s"}
"""`scripts/test` runs two halves of the files side by side, cut by name: by default, and of one marker. Move a cut when one
of its halves takes much longer."""
PATIENCE_S = 30.0
"""For a segment that a test run beside this one is about to remove."""
CACHES_KEPT = 8
DAY_S = 86_400
"""Caches of compiled kernels beyond CACHES_KEPT go when unused for a day: a younger one may be another run's."""


def imported_sources(starts: list[Path]) -> list[Path]:
    """Every project file that the given files import, directly or not, themselves included; sorted."""
    found: set[Path] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue  # pytest itself reports it, with the line
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                base = ROOT.joinpath(*name.split("."))
                waiting += [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()]
    return sorted(found)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--half first` and `--half second` are the two runs of `scripts/test`."""
    parser.addoption("--half", choices=("first", "second"), help="only this half of the test files, as scripts/test runs them")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of the other half, and of one marker alone those that do not name it: importing all takes long."""
    half, name, mark = config.getoption("half"), collection_path.name, config.getoption("markexpr")
    if not half or not name.startswith("test_"):
        return None
    mark = mark if mark in SECOND_HALF_FROM else ""
    others = (name >= SECOND_HALF_FROM[mark]) != (half == "second")
    return True if others or mark and f"mark.{mark}" not in collection_path.read_text(encoding="utf-8") else None


def compiled_stages() -> Path:
    """The cache of the pipelines of these very sources, filled as their first start would fill it: on all cores. With it what
    many tests call besides.

    Tests of one process each would compile the same kernels one after the other. numba must not have been imported yet.
    """
    folder = choice.chosen().folder
    with compiling.locked(str(folder), lambda: None):
        if not compiling.is_complete(str(folder)):
            profile = load_profile("paper")
            stages = {stage.name: stage.module for stage in topology.Run.of(profile).essential}
            print("tests: compiling the kernels of these sources, once", file=sys.stderr, flush=True)
            compiling.compile_all(stages, profile, str(folder), lambda stage, seconds: None, parts=True)
            compiling.mark_complete(str(folder))
        if not compiling.is_complete(str(folder), OF_ENGINE):
            compiling.compile_all(compiling.ENGINE, load_profile("paper"), str(folder), lambda part, seconds: None)
            compiling.mark_complete(str(folder), OF_ENGINE)
        if not (folder / warm_kernels.COMPLETE).exists():
            warm_kernels.compile_shared(folder)
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Key numba's cache by the sources that these tests import: numba does not see an edited *imported* kernel.

    Only files that name a kernel decorator count, so that editing the CLI recompiles nothing; and no test, for nobody imports a
    test's kernels, and numba sees an edited file's own.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a script's background: children would not hear it either
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    chosen = [Path(arg.split("::")[0]).resolve() for arg in config.args]
    starts = [path for path in chosen if path.is_file()]
    whole = len(starts) != len(chosen) or not chosen
    if whole:
        starts = sorted(ROOT.glob("tests/**/*.py"))
    key = hashlib.sha256(platform.python_version().encode())  # numba itself looks at its version and the CPU
    for path in imported_sources(starts):
        source = path.read_bytes() if path.parent != ROOT / "tests" else b""
        if b"kernel" in source or b"intrinsic" in source or b"njit" in source:
            key.update(source)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalper" / "numba-tests"
    # each half has a cache of its own: numba's is not made for two writers (procs.supervision.compiling)
    half = config.getoption("half")
    ours = home / (key.hexdigest()[:16] + (f"-{half}" if half else ""))
    if not ours.exists():
        home.mkdir(parents=True, exist_ok=True)
        # what pipelines of these very sources have compiled need not be compiled again; numba replaces files, so links do
        with tempfile.TemporaryDirectory(dir=home) as fresh:
            seed = compiled_stages() if whole else choice.chosen().folder
            shutil.copytree(seed, fresh, copy_function=os.link, dirs_exist_ok=True)
            with contextlib.suppress(OSError):  # another run of tests was first
                Path(fresh).rename(ours)
    ours.mkdir(exist_ok=True)
    ours.touch()
    os.environ.update(choice.numba_variables(ours))
    by_age = sorted(home.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_age[CACHES_KEPT:]:
        if old.stat().st_mtime < ours.stat().st_mtime - DAY_S:
            shutil.rmtree(old, ignore_errors=True)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recorded market data: SCALPER_DATA, else ../shared/data beside the project; skips without it."""
    folder = Path(os.environ.get("SCALPER_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no recordings: {folder} is not a folder; set SCALPER_DATA to the one that holds them")
    return folder


def segments() -> set[str]:
    """The names of all scalper segments that exist now."""
    return {path.name for path in SHM.glob("scalper.*")}


def mapped_by_strangers(names: set[str]) -> set[str]:
    """Those segments that a living process outside this test run has mapped: another pipeline's, not a leak of ours."""
    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    theirs = set()
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            maps = Path(f"/proc/{process.pid}/maps").read_text()
        except OSError:
            continue  # gone meanwhile, or not ours to look into
        theirs |= {name for name in names if f"/dev/shm/{name}" in maps}
    return theirs


@pytest.fixture(scope="session", autouse=True)
def nothing_left_in_shared_memory() -> Iterator[None]:
    """Fails the run when a segment that it created still exists at its end."""
    before = segments()
    yield
    left = segments() - before
    limit = time.monotonic() + PATIENCE_S
    while (left := (left & segments()) - mapped_by_strangers(left)) and time.monotonic() < limit:
        pass
    assert not left, f"left in {SHM} by this test run: {sorted(left)}"


@pytest.fixture
def own_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run and state directories of this test's own; short ones, for a socket's path has an end."""
    with tempfile.TemporaryDirectory(prefix="scalper-test.") as folder:
        for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
            path = Path(folder) / name[4:].lower()
            path.mkdir(mode=0o700)
            monkeypatch.setenv(name, str(path))
        yield


@pytest.fixture
def closed_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tmp_path, with run and state directories below it, and no place of a system service anywhere."""
    for variable, name in (("XDG_RUNTIME_DIR", "r"), ("XDG_STATE_HOME", "s")):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(tmp_path / name))
    for variable in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(rundir, "SYSTEM_STATE", tmp_path / "no-system")
    monkeypatch.setattr(rundir, "SYSTEM_RUN", tmp_path / "system")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`scalperctl` in this process."""
    return run_here(capsys)


@pytest.fixture(params=["posix", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Both kinds of place: /dev/shm, and a directory by environment. What a test leaves there is removed."""
    monkeypatch.delenv(backing.DIRECTORY_VARIABLE, raising=False)
    if request.param == "directory":
        monkeypatch.setenv(backing.DIRECTORY_VARIABLE, str(tmp_path))
        yield tmp_path
    else:
        yield backing.SHM_DIRECTORY
    for left in backing.SHM_DIRECTORY.glob(f"scalper.{INSTANCE}.*"):
        left.unlink()
