"""Runs fuzz targets under atheris, each in a process of its own; `scripts/fuzz --help` says how.

The fuzzer sees the branches of Python code that a target names, and of compiled code the target's features: each distinct
tuple calls one of many empty functions that the fuzzer watches. Inputs are changed half by libFuzzer's mutations, half by the
target's own, which know the structure. A crash (a signal included), a hang or a broken property leaves the input behind.

What this module is not: a test; tests/test_fuzz_smoke.py runs the same properties without atheris.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fuzz_target import SCRATCH

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "worlds")]
COUNTERS = 4096
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where inputs become files: the fuzzer ends its process without a clean-up, so who starts it removes the folder."""
HANG_S = 10
GRACE_S = 600
"""For imports, the compiling of kernels and the last input, beyond the time that was asked for."""
FOUND, MISSING = 1, 3


def use_kernel_cache() -> None:
    """The pipeline's cache of compiled kernels; before numba is imported."""
    from procs.kernels.choice import use

    use()


def names() -> list[str]:
    """All targets."""
    from fuzz_list import TARGETS

    return list(TARGETS)


# ---- one target, in this process -----------------------------------------------------------------------------------------


def fuzz_one(name: str, seconds: float, folder: Path) -> None:
    """Fuzz until the time is over or something is found; ends the process."""
    import atheris
    from fuzz_list import TARGETS

    with atheris.instrument_imports(include=list(TARGETS[name].instrument)):
        for module in TARGETS[name].instrument:
            for loaded in [key for key in sys.modules if key == module or key.startswith(f"{module}.")]:
                for member in vars(sys.modules[loaded]).values():
                    _watch(atheris, member, module)
    target = TARGETS[name]()
    source = "\n".join(f"def f{i}():\n    return {i}" for i in range(COUNTERS))
    watched: dict[str, Any] = {}
    exec(compile(source, "features", "exec"), watched)
    doors = [atheris.instrument_func(watched[f"f{i}"]) for i in range(COUNTERS)]
    pool = target.seeds()
    corpus = folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in pool:
        target.run(seed)  # what is compiled at the first call is no slow input
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)

    def one_input(raw: bytes) -> None:
        features = target.run(raw)
        digest = hashlib.blake2b(repr(features).encode(), digest_size=4).digest()
        doors[int.from_bytes(digest, "little") % COUNTERS]()

    def mutate(raw: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(raw, most))
        return target.mutate(raw, rng, pool)[:most]

    crashes = folder / "crashes" / name
    crashes.mkdir(parents=True, exist_ok=True)
    words = [sys.argv[0], str(corpus), f"-artifact_prefix={crashes}/", f"-max_total_time={max(1, round(seconds))}",
             f"-max_len={target.max_bytes}", f"-timeout={HANG_S}", "-rss_limit_mb=4096",
             "-print_final_stats=1", "-seed=1"]  # fmt: skip
    atheris.Setup(words, one_input, custom_mutator=mutate)
    atheris.Fuzz()


def _watch(atheris: Any, member: Any, module: str) -> None:
    """Instrument what was imported before: functions, and methods of classes."""
    import types

    if isinstance(member, types.FunctionType) and str(member.__module__).startswith(module):
        atheris.instrument_func(member)
    elif isinstance(member, type) and str(member.__module__).startswith(module):
        for part in vars(member).values():
            if isinstance(part, types.FunctionType):
                atheris.instrument_func(part)


def reproduce(name: str, path: Path) -> int:
    """Run one input; 0 if the property holds."""
    from fuzz_list import TARGETS

    target = TARGETS[name]()
    try:
        print(f"{name}: holds, features {target.run(path.read_bytes())}")
    finally:
        target.close()
    return 0


# ---- all of them ----------------------------------------------------------------------------------------------------------


def fuzz_all(wanted: list[str], seconds: float, folder: Path) -> int:
    """Each target for its share of the time; a line each, and how to repeat what was found."""
    found = 0
    for name in wanted:
        share = seconds / len(wanted)
        before = set((folder / "crashes" / name).glob("*"))
        started = time.monotonic()
        with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="scalper-fuzz-", dir=MEMORY) as scratch:
            command = [sys.executable, __file__, "--one", name, "--seconds", str(share), "--folder", str(folder)]
            child = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, SCRATCH: scratch})
            try:
                code: int | None = child.wait(share + GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                code = None
            log.seek(0)
            said = log.read().decode("utf-8", "replace").splitlines()
        stats = dict(line[6:].replace(" ", "").split(":", 1) for line in said if line.startswith("stat::"))
        runs = stats.get("number_of_executed_units", "?")
        new = sorted(path for path in set((folder / "crashes" / name).glob("*")) - before if not path.name.startswith("slow-"))
        good = code == 0 and not new
        took = time.monotonic() - started
        print(f"{name:<18}{runs:>10} inputs in {took:5.1f} s   {'nothing found' if good else 'FOUND'}", flush=True)
        if good:
            continue
        found += 1
        tail = [line for line in said if line.strip()]
        trouble = [line for line in tail if "Error" in line or "Broken" in line or "SUMMARY" in line or "ALARM" in line]
        for line in (trouble or tail[-12:])[:12]:
            print(f"    {line[:300]}")
        for path in new:
            print(f"    again: scripts/fuzz --run {name} {path}", flush=True)
        if not new:
            print(f"    it ended with {'no answer in time' if code is None else f'exit code {code}'} and left no input")
    print(f"corpora and findings: {folder}")
    return FOUND if found else 0


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description="Feed every reader of foreign bytes what nobody meant it to read.",
        epilog="examples:\n  scripts/fuzz                         all targets, 10 minutes\n"
        "  scripts/fuzz --seconds 20            a smoke\n"
        "  scripts/fuzz --seconds 300 journals  one target\n  scripts/fuzz --run journals FILE     one input again",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("target", nargs="*", metavar="TARGET", help="which (default: all; --list names them)")
    parser.add_argument("--seconds", type=float, default=600.0, metavar="S", help="for all targets together (default 600)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for corpora and findings (default: .fuzz in the project)")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--run", nargs=2, metavar=("TARGET", "FILE"), help="run one input again")
    parser.add_argument("--one", metavar="TARGET", help=argparse.SUPPRESS)
    args = parser.parse_args()
    use_kernel_cache()
    folder = (args.folder or ROOT / ".fuzz").resolve()
    if args.list:
        from fuzz_list import TARGETS

        for name, kind in TARGETS.items():
            print(f"{name:<18}{kind.meaning}")
        return 0
    wrong = [name for name in [*args.target, *([args.run[0]] if args.run else [])] if name not in names()]
    if wrong:
        parser.error(f"no target {wrong[0]!r}: one of {', '.join(names())}")
    if args.run:
        return reproduce(args.run[0], Path(args.run[1]))
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("scripts/fuzz needs atheris, which is not installed here: pip install -e '.[fuzz]'", file=sys.stderr)
        return MISSING
    if args.one:
        fuzz_one(args.one, args.seconds, folder)
    return fuzz_all(args.target or names(), args.seconds, folder)


if __name__ == "__main__":
    sys.exit(main())
