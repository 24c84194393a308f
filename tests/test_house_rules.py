"""The rules that hold the house together, checked on the sources themselves: who imports whom, names, sizes, leftovers.

Each test names every place that breaks its rule. A rule that has to give way is changed here, with the reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "shm": {"shm"},
    "ringbuf": {"ringbuf", "shm"},
    "trading": {"trading"},
    "sim": {"sim", "trading"},
    "procs": {"procs", "sim", "trading", "ringbuf", "shm"},
}
"""The project's packages that each package may import."""

NO_CLOCK_NO_IO = {
    "time", "datetime", "random", "socket", "asyncio", "subprocess", "multiprocessing", "threading", "mmap", "posix_ipc",
}  # fmt: skip
"""What decisions may not know: the same inputs must give the same bytes, in any world."""

HOT = ("shm", "ringbuf", "trading", "sim")
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
COMPILERS = {"jit", "njit", "vectorize", "guvectorize", "cfunc", "stencil"}
BAD_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "handler", "data", "info", "misc", "base", "core"}
BAD_WORDS = {"advanced", "enhanced", "ultra", "fast", "smart", "utils", "common", "helpers", "manager", "handler"}
MAX_LINES = 500

LEFTOVER = re.compile(r"\b(TODO|FIXME|XXX)\b|NotImplementedError")
INDEX = re.compile(r"https?://[^/\s]*(pypi|pythonhosted|debian|npmjs)|--(extra-)?index-url|--find-links|--trusted-host")
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(work|home|Users)/\w|(?<![\w.$}])/root/\w")


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that is, or is about to be, in the repository; outside of one, all but caches."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode == 0:
        names = [name for name in listing.stdout.split("\0") if name]
        return tuple(sorted(ROOT / name for name in names if (ROOT / name).is_file()))
    hidden = (".venv", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")
    return tuple(sorted(path for path in ROOT.rglob("*") if path.is_file() and not set(path.parts) & set(hidden)))


@cache
def python_in(*folders: str) -> tuple[Path, ...]:
    """The Python files below these top-level folders."""
    return tuple(path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders)


def modules() -> tuple[Path, ...]:
    """The Python modules of the packages."""
    return python_in(*MAY_IMPORT)


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, line: int = 0) -> str:
    """The path as a reader of the project knows it, with the line if there is one."""
    return str(path.relative_to(ROOT)) + (f":{line}" if line else "")


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, wherever in it; relative imports made absolute."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = list(path.relative_to(ROOT).parts[: -node.level]) if node.level else []
            module = ".".join([*package, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def lines_that_match(pattern: re.Pattern[str], paths: tuple[Path, ...]) -> list[str]:
    """`place: line` of every match; files that are not text are passed over."""
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = enumerate(text.splitlines(), 1)
        found += [f"{place(path, n)}: {line.strip()[:100]}" for n, line in lines if pattern.search(line)]
    return found


def all_but_this() -> tuple[Path, ...]:
    """All files but this one, which has to spell what it forbids."""
    return tuple(path for path in tracked() if path != Path(__file__).resolve())


def none(wrong: list[str]) -> None:
    """Fails with every place on a line of its own."""
    assert not wrong, "\n" + "\n".join(wrong)


def calls(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of every call by a plain or dotted name."""
    return [(node.lineno, ast.unparse(node.func)) for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)]  # fmt: skip


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    """shm <- ringbuf <- procs and trading <- sim <- procs; nothing imports tests."""
    forbidden = (set(MAY_IMPORT) | {"tests", "config"}) - MAY_IMPORT[package]
    wrong = [
        f"{place(path, line)} imports {name}"
        for path in python_in(package)
        for line, name in imports(path) if name.split(".")[0] in forbidden
    ]  # fmt: skip
    none(wrong)


def test_decisions_know_no_clock_and_no_io() -> None:
    """trading imports nothing that tells time, draws at random, talks, or starts anything."""
    wrong = [
        f"{place(path, line)} imports {name}"
        for path in python_in("trading")
        for line, name in imports(path) if name.split(".")[0] in NO_CLOCK_NO_IO
    ]  # fmt: skip
    wrong += [
        f"{place(path, line)} calls {name}"
        for path in python_in("trading")
        for line, name in calls(path) if name == "open" or name.startswith(("os.", "np.random.", "numpy.random."))
    ]  # fmt: skip
    none(wrong)


def test_names_say_what_is_inside() -> None:
    """No module or folder is called utils, manager or the like, or like a top-level module of the standard library."""
    wrong = set()
    for path in modules():
        parts = path.relative_to(ROOT).with_suffix("").parts
        for part in parts[1:]:
            if part in BAD_NAMES or set(part.split("_")) & BAD_WORDS:
                wrong.add(f"{place(path)}: {part} says nothing")
            if part in sys.stdlib_module_names and not part.startswith("__"):
                wrong.add(f"{place(path)}: {part} is a module of the standard library")
    wrong |= {f"{place(path)}: no packages in tests/" for path in python_in("tests") if path.name == "__init__.py"}
    wrong |= {f"tests/{name}/: called like a package" for name in MAY_IMPORT if (ROOT / "tests" / name).exists()}
    none(sorted(wrong))


def test_every_module_says_what_it_is_for() -> None:
    """Each module, and each module of tests, opens with a docstring."""
    python = [path for path in tracked() if path.suffix == ".py"]
    none([place(path) for path in python if path.stat().st_size and not ast.get_docstring(tree_of(path))])


def test_every_test_states_its_claim() -> None:
    """Each test function has a docstring."""
    wrong = [
        place(path, node.lineno)
        for path in python_in("tests")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]  # fmt: skip
    none(wrong)


def test_modules_stay_readable() -> None:
    """No Python file has more than 500 lines."""
    sizes = [(len(path.read_text(encoding="utf-8").splitlines()), place(path)) for path in tracked() if path.suffix == ".py"]
    none([f"{name}: {lines} lines" for lines, name in sizes if lines > MAX_LINES])


def test_nothing_is_left_open() -> None:
    """No note to do something later, and nothing that only says it is missing."""
    none(lines_that_match(LEFTOVER, all_but_this()))


def test_project_names_no_index_and_no_machine() -> None:
    """No package index or mirror, and no path of one developer's machine: both are the user's to configure."""
    none(lines_that_match(INDEX, all_but_this()) + lines_that_match(MACHINE_PATH, all_but_this()))


def test_dependencies_are_pinned_with_hashes() -> None:
    """Each requirement of constraints.txt has one version and a hash, and all of core, dev and bench are there."""
    text = (ROOT / "constraints.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pinned = {line.split("==")[0] for line in lines if re.fullmatch(r"[\w.-]+==\S+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)}
    assert len(pinned) == len(lines)
    project = (ROOT / "pyproject.toml").read_text()
    wanted = set()
    for key in ("dependencies", "bench", "dev"):
        listed = re.search(rf"^{key} = \[(.*?)\]", project, re.M | re.S)
        assert listed, f"pyproject.toml has no list {key}"
        wanted |= {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r'"([\w.-]+)', listed[1])}
    assert wanted - pinned == set(), "run scripts/pin"


def test_tests_do_not_sleep() -> None:
    """Tests wait for what happens, never for time to pass."""
    wrong = [
        f"{place(path, line)} calls {name}"
        for path in python_in("tests")
        for line, name in calls(path) if name in ("time.sleep", "sleep", "asyncio.sleep", "trio.sleep")
    ]  # fmt: skip
    none(wrong)


def test_no_pickle_at_run_time() -> None:
    """Nothing that a pipeline reads can run code: no package imports a pickler, and no YAML loader but the safe one."""
    wrong = [f"{place(path, line)} imports {name}" for path in modules() for line, name in imports(path)
             if set(name.split(".")) & PICKLES]  # fmt: skip
    wrong += [f"{place(path, line)} calls {name}" for path in modules() for line, name in calls(path)
              if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system")]  # fmt: skip
    none(wrong)


def test_hot_packages_do_not_print() -> None:
    """shm, ringbuf, trading and sim leave speaking to the processes that use them."""
    none([place(path, line) for path in python_in(*HOT) for line, name in calls(path) if name == "print"])


def test_kernels_are_compiled_alike() -> None:
    """numba's compilers are imported by the modules called jit.py alone; all others use the decorators made there."""
    wrong = [
        f"{place(path, line)} imports {name}"
        for path in modules() if path.name != "jit.py"
        for line, name in imports(path) if name.startswith("numba.") and name.split(".")[-1] in COMPILERS
    ]  # fmt: skip
    wrong += [
        place(path, node.lineno) for path in modules() if path.name != "jit.py" for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr in COMPILERS and ast.unparse(node.value) in ("numba", "nb")
    ]  # fmt: skip
    none(wrong)
