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

from procs.kernels.keys import NO_KERNELS

ROOT = Path(__file__).resolve().parents[1]

RINGS = "shm ringbuf "
STAGES_NEED = RINGS + "trading* sim* procs procs/profiles procs/memory "
MAY_IMPORT = {
    room: set(others.split())
    for room, others in {
        "shm": "",
        "ringbuf": "shm",
        "trading": "",
        "trading/wire": "trading",
        "trading/books": "trading trading/wire",
        "trading/features": "trading",
        "trading/models": "trading trading/features",
        "trading/own_signals": "trading trading/features",
        "trading/scoring": "trading trading/features trading/models trading/own_signals",
        "trading/quoting": "trading trading/features",
        "trading/orders": "trading",
        "trading/risk": "trading trading/orders",
        "trading/results": "trading",
        "trading/venues": "trading trading/wire",
        "sim": "trading*",
        "sim/market": "sim trading*",
        "sim/report": "sim trading*",
        "sim/recordings": "sim trading*",
        "sim/exchange": "sim trading*",
        "sim/backtest": "sim sim/exchange sim/market sim/recordings trading*",
        "sim/local_venue": "sim sim/market sim/recordings trading*",
        "sim/worlds": "sim sim/exchange sim/local_venue trading*",
        "procs": RINGS + "trading*",
        "procs/kernels": "procs",
        "procs/profiles": "sim trading* procs",
        "procs/journal": RINGS + "trading* procs",
        "procs/memory": RINGS + "trading* procs procs/profiles",
        "procs/fold": STAGES_NEED,
        "procs/supervision": STAGES_NEED + "procs/kernels",
        "procs/recordings": "procs procs/profiles procs/journal sim* trading*",
        "procs/archives": "procs/recordings sim* trading*",
        "procs/learning": STAGES_NEED + "procs/fold procs/journal procs/recordings",
        "procs/research": STAGES_NEED + "procs/fold procs/journal procs/recordings procs/learning",
        "procs/stages": STAGES_NEED + "procs/fold procs/journal procs/recordings procs/learning procs/research",
        "procs/gateway": STAGES_NEED + "procs/fold",
        "procs/receiver": STAGES_NEED + "procs/recordings",
        "procs/prices": "sim/recordings trading* procs procs/profiles procs/receiver",
        "procs/cli": RINGS + "trading* sim* procs*",
        "procs/bench": RINGS + "trading* sim* procs*",
    }.items()
}
"""What the modules of each room may import besides those of their own room; `sim*`: every room of sim. A folder without a line
of its own is no room: give it one, with what it may know."""

LEAVES = {"trading/venues/names.py": "trading"}
"""Modules that count as another room's than their folder's. The table of venues lies beside the venues, whose place it names, and
is read by every room that reads trading's records; it imports nothing of ours, so no circle can lead through it."""

DOORS = {("trading/user_signals.py", "trading/features"), ("trading/user_signals.py", "trading/own_signals")}
"""One module at the top of trading is the door for users' files, and leads into the rooms behind it."""

NOT_FROM_CLI_OR_BENCH = {("procs/cli", "procs/stages"), ("procs/cli", "procs/bench")}
"""The command line starts stages, it does not know them; what it measures with stays behind its own command."""

MAX_MODULES = 20
MANY_COMMANDS = {"procs/cli"}
"""The command line has one file a command, so that --help and completion load no other's; it may have more than 20."""

PACKAGES = ("shm", "ringbuf", "trading", "sim", "procs")

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
    return python_in(*PACKAGES)


def room_of(path: Path) -> str:
    """The folder of a module, or the room that LEAVES gives it."""
    return LEAVES.get(place(path), folder_of(path))


def folder_of(path: Path) -> str:
    """The folder of a module."""
    return str(path.relative_to(ROOT).parent)


@cache
def room_named(name: str) -> str:
    """The room in which a dotted name of ours lives: its longest part that is a folder with a module in it; "" for others'."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return ""
    for n in range(len(parts), 0, -1):
        if (module := (ROOT / Path(*parts[:n])).with_suffix(".py")).is_file():
            return room_of(module)
        if (ROOT / Path(*parts[:n]) / "__init__.py").is_file():
            return "/".join(parts[:n])
    return parts[0]


@cache
def edges() -> tuple[tuple[str, str, str], ...]:
    """(place, room, room that it imports) of every import that leaves its room, imports within functions included."""
    found = []
    for path in modules():
        for line, name in imports(path):
            other = room_named(name)
            if other and other != room_of(path):
                found.append((place(path, line), room_of(path), other))
    return tuple(found)


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of the parsed module."""
    return tuple(ast.walk(tree_of(path)))


def place(path: Path, line: int = 0) -> str:
    """The path as a reader of the project knows it, with the line if there is one."""
    return str(path.relative_to(ROOT)) + (f":{line}" if line else "")


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, wherever in it; relative imports made absolute."""
    found = []
    for node in nodes_of(path):
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


@cache
def calls(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of every call by a plain or dotted name."""
    return [(node.lineno, ast.unparse(node.func)) for node in nodes_of(path)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)]  # fmt: skip


def test_imports_run_one_way() -> None:
    """Each room imports its own modules and those of the rooms that its line names; nothing imports tests or config."""
    wrong = [f"{place(path)}: {room_of(path)} has no line in MAY_IMPORT" for path in modules() if room_of(path) not in MAY_IMPORT]
    for where, room, other in edges():
        allowed = MAY_IMPORT.get(room, set())
        if other not in allowed and f"{other.split('/')[0]}*" not in allowed and (where.split(":")[0], other) not in DOORS:
            wrong.append(f"{where}: {room} imports {other}")
    wrong += [
        f"{place(path, line)} imports {name}"
        for path in modules() for line, name in imports(path) if name.split(".")[0] in ("tests", "config")
    ]  # fmt: skip
    wrong += [f"{where}: {room} imports {other}" for where, room, other in edges() if (room, other) in NOT_FROM_CLI_OR_BENCH]
    none(wrong)


def test_no_two_rooms_import_each_other() -> None:
    """Whoever reads one room needs no other that needs it: the rooms can be put in a row, each importing only earlier ones."""
    wants: dict[str, set[str]] = {room_of(path): set() for path in modules()}
    for where, room, other in edges():
        if (where.split(":")[0], other) not in DOORS:
            wants[room].add(other)
    while free := [room for room, others in wants.items() if not others & set(wants)]:
        for room in free:
            del wants[room]
    none([f"{room} imports {' '.join(sorted(others & set(wants)))}" for room, others in sorted(wants.items())])


def test_leaves_import_nothing_of_ours() -> None:
    """What counts as another room's than its folder's reads no module of the project, not even one of that room."""
    none([f"{place(ROOT / leaf, line)} imports {name}" for leaf in LEAVES for line, name in imports(ROOT / leaf)
          if name.split(".")[0] in PACKAGES])  # fmt: skip


def test_rooms_can_be_looked_over() -> None:
    """Two levels of folders, and at most 20 modules in one (the command line excepted)."""
    inside: dict[str, list[str]] = {}
    for path in modules():
        if path.name != "__init__.py":
            inside.setdefault(folder_of(path), []).append(path.stem)
    sizes = {room: len(found) for room, found in inside.items() if room not in MANY_COMMANDS}
    wrong = [f"{room}: {count} modules" for room, count in sizes.items() if count > MAX_MODULES]
    wrong += [f"{room}: a third level of folders" for room in inside if room.count("/") > 1]
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
    wrong |= {f"tests/{name}/: called like a package" for name in PACKAGES if (ROOT / "tests" / name).exists()}
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
        for node in nodes_of(path)
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


def test_scripts_can_be_run() -> None:
    """Each file of scripts/ that names its interpreter may be executed in every clone; one that does not is only read."""
    listed = subprocess.run(["git", "ls-files", "-s", "scripts", ".ci"], cwd=ROOT, capture_output=True, text=True)
    entries = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]  # none where the sources are no clone
    none([name for mode, _, _, name in entries if (mode == "100755") != (ROOT / name).read_bytes().startswith(b"#!")])


def test_children_look_for_modules_in_no_working_directory() -> None:
    """Each Python child is started with -P: else a `procs.py` in the user's folder would run in place of ours."""
    wrong = []
    for path in (*modules(), *python_in("scripts")):
        for node in nodes_of(path):
            if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
                if len(node.elts) < 2 or ast.unparse(node.elts[1]) != "'-P'":
                    wrong.append(place(path, node.lineno))
    none(wrong)


def test_hot_packages_do_not_print() -> None:
    """shm, ringbuf, trading and sim leave speaking to the processes that use them."""
    none([place(path, line) for path in python_in(*HOT) for line, name in calls(path) if name == "print"])


def test_cached_kernels_take_nothing_from_rooms_without_kernels() -> None:
    """The key of the kernels' cache leaves some rooms out: no kernel of another room takes anything from those."""
    decorated = re.compile(r"^@(?:kernel|lean|apart|intrinsic|checked_kernel)\b|= (?:kernel|lean|apart)\(", re.MULTILINE)
    holders = [path for path in modules() if folder_of(path) not in NO_KERNELS and decorated.search(path.read_text())]
    assert len(holders) > 50
    found = [(place(path, line), name) for path in holders for line, name in imports(path)]
    none([f"{where} imports {name}" for where, name in found if room_named(name) in NO_KERNELS])


def test_kernels_are_compiled_alike() -> None:
    """numba's compilers are imported by the modules called jit.py alone; all others use the decorators made there."""
    wrong = [
        f"{place(path, line)} imports {name}"
        for path in modules() if path.name != "jit.py"
        for line, name in imports(path) if name.startswith("numba.") and name.split(".")[-1] in COMPILERS
    ]  # fmt: skip
    wrong += [
        place(path, node.lineno) for path in modules() if path.name != "jit.py" for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and node.attr in COMPILERS and ast.unparse(node.value) in ("numba", "nb")
    ]  # fmt: skip
    none(wrong)
