"""What machine code depends on, as a key: the sources, the compiler, what is asked of it, and the CPU.

    key = hash(sources of all kernels; Python, numba, llvmlite, numpy; NUMBA_* that change code; target)

The target is this very CPU (model and features), or one of LEVELS: what every CPU of that level can run. numba compiles for a
level where NUMBA_CPU_NAME names it and NUMBA_CPU_FEATURES is empty.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("shm", "ringbuf", "trading", "sim", "procs")
NO_KERNELS: Final = (
    "procs/archives", "procs/bench", "procs/cli", "procs/gateway", "procs/kernels", "procs/prices", "procs/receiver",
    "procs/supervision", "sim/local_venue", "sim/report", "sim/worlds", "trading/results",
)  # fmt: skip
"""Rooms that no kernel of another room takes anything from: editing them compiles nothing again."""
COMPILERS: Final = ("numba", "llvmlite", "numpy")
CPU_NAME: Final = "NUMBA_CPU_NAME"
CPU_FEATURES: Final = "NUMBA_CPU_FEATURES"
HARMLESS: Final = {
    "NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES", "NUMBA_DEBUG_CACHE", "NUMBA_NUM_THREADS", CPU_NAME, CPU_FEATURES,
}  # fmt: skip
"""Variables of numba's that change no code, and the two that the target stands for."""
_V3: Final = frozenset("avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split())
LEVELS: Final = {
    "x86-64-v4": _V3 | set("avx512f avx512bw avx512cd avx512dq avx512vl".split()),
    "x86-64-v3": _V3,
}
"""Levels of x86-64 and the features, as /proc/cpuinfo spells them, that a CPU of that level has; the best first."""


def kernel_sources(extra: Iterable[Path] = ()) -> list[Path]:
    """Every source file whose kernels may be compiled: the project's packages and `extra`."""
    files = [
        file
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if file.relative_to(ROOT).parent.as_posix() not in NO_KERNELS
    ]
    return sorted({*files, *extra})


def cpu() -> bytes:
    """Model and features of this CPU, as the kernel tells them (without importing LLVM)."""
    lines = []
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as file:
        for line in file:
            if not line.strip():
                break
            if line.startswith((b"model name", b"flags", b"Features", b"CPU part", b"CPU implementer")):
                lines.append(line)
    return b"".join(lines)


def levels_of(told: bytes) -> list[str]:
    """The levels that a CPU with these lines of /proc/cpuinfo has, the best first."""
    flags = {flag for line in told.decode("ascii", "replace").splitlines() if line.startswith("flags") for flag in line.split()}
    return [level for level, needed in LEVELS.items() if needed <= flags]


def _version(name: str) -> str:
    """A package's version, by its folder's name: importlib.metadata would cost the supervisor 4 MB."""
    spec = find_spec(name)
    if spec is not None and spec.origin is not None:
        for folder in Path(spec.origin).parents[1].glob(f"{name}-*.dist-info"):
            return folder.name.removesuffix(".dist-info").removeprefix(f"{name}-")
    from importlib import metadata

    return metadata.version(name)


def compilers() -> dict[str, str]:
    """What compiles, with versions: another one makes other code, or reads its files otherwise."""
    return {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", **{name: _version(name) for name in COMPILERS}}


def asked_level() -> str:
    """The level that the environment asks numba to compile for; "" if it is this CPU, or something else."""
    level = os.environ.get(CPU_NAME, "")
    return level if level in LEVELS and os.environ.get(CPU_FEATURES) == "" else ""


def asked_of_numba() -> bytes:
    """The settings by which a user changes the code that numba makes, of the environment and of numba's own file; b"" if none."""
    told = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_") and name not in HARMLESS]
    with contextlib.suppress(OSError):
        told.append(Path(".numba_config.yaml").read_text(encoding="utf-8", errors="replace"))
    return "\n".join(told).encode()


def sources_key(extra: Iterable[Path] = ()) -> str:
    """Hex digits that change with any kernel source; the same wherever the sources lie."""
    digest = hashlib.blake2b(digest_size=16)
    for file in kernel_sources(extra):
        raw = file.read_bytes()
        name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name
        digest.update(f"{name}:{len(raw)}:".encode() + raw)
    return digest.hexdigest()


def kernel_key(sources: str, level: str = "") -> str:
    """16 hex digits that change with whatever changes the code: `sources` is their key, `level` "" for this very CPU."""
    digest = hashlib.blake2b(f"{sources};{compilers()};{level};".encode(), digest_size=8)
    digest.update(asked_of_numba())
    if not level:
        digest.update(cpu() + f";{os.environ.get(CPU_NAME)};{os.environ.get(CPU_FEATURES)}".encode())
    return digest.hexdigest()
