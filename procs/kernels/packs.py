"""Kernels that come with the program: a pack is one zip file of numba's cache for one level of CPU, and a manifest beside it.

    procs/kernels/x86-64-v3-py3.11.zip      machine code, as numba keeps it
    procs/kernels/x86-64-v3-py3.11.json     {"level", "sources", "compilers", "sha256", "kernels"}

`scripts/build-wheel` makes them, a clone has none. A pack serves only the very sources and compilers that it was made with, numba
without settings of the user's (procs.kernels.choice sees to that), and a CPU that has its level. Its SHA-256 is compared before
anything is taken out of it: numba runs what it finds in its cache.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from procs.kernels import keys

PACKS: Final = Path(__file__).resolve().parent
COMPLETE: Final = "complete"
OF_ENGINE: Final = "-engine"
"""Added to COMPLETE: the mark of a cache that holds all that a backtest calls."""
"""This file stands in a cache folder that holds the kernels of every stage."""
KEPT: Final = (".nbi", ".nbc")


class Manifest(msgspec.Struct, frozen=True):
    """What a pack is."""

    level: str
    sources: str  # procs.kernels.keys.sources_key
    compilers: dict[str, str]
    sha256: str
    kernels: int


class PackError(ValueError):
    """A pack cannot be used; the message says why."""


def _stem(level: str) -> str:
    return f"{level}-py{sys.version_info[0]}.{sys.version_info[1]}"


def make(cache: Path, level: str, into: Path) -> Manifest:
    """Pack what numba keeps in this cache folder; the same code gives the same bytes. The caller says for which level it is."""
    import zipfile

    files = sorted(file for file in cache.rglob("*") if file.suffix in KEPT and not file.is_symlink())
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as packed:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(cache).as_posix())  # dated 1980, as all others are
            packed.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    manifest = Manifest(
        level=level,
        sources=keys.sources_key(),
        compilers=keys.compilers(),
        sha256=hashlib.sha256(raw.getvalue()).hexdigest(),
        kernels=sum(file.suffix == ".nbc" for file in files),
    )
    (into / f"{_stem(level)}.zip").write_bytes(raw.getvalue())
    (into / f"{_stem(level)}.json").write_bytes(msgspec.json.encode(manifest))
    return manifest


def any_in(packs: Path) -> bool:
    """Whether kernels came with the program, fit or not."""
    return any(packs.glob("x86-64-*.json"))


def fit(packs: Path, sources: str, levels: Sequence[str]) -> tuple[str, str]:
    """(the first of these levels whose pack serves here, else why none does); ("", "") where no kernels came with the program."""
    why = ""
    for level in levels:
        try:
            found = msgspec.json.decode((packs / f"{_stem(level)}.json").read_bytes(), type=Manifest)
        except OSError:
            continue
        except msgspec.MsgspecError:
            why = why or "their manifest cannot be read"
            continue
        if found.sources != sources:
            why = why or "they were compiled from other sources"
        elif found.compilers != (here := keys.compilers()):
            other = next(name for name in here if found.compilers.get(name) != here[name])
            why = why or f"they were compiled with {other} {found.compilers.get(other)}, here is {here[other]}"
        else:
            return level, ""
    if not why and any_in(packs):
        why = "they are for other versions of Python" if levels else "they are for other CPUs (x86-64-v3 and better)"
    return "", why


def unpack(packs: Path, level: str, into: Path) -> int:
    """Put a pack's kernels into a folder that does not exist yet, all or nothing; their number. Raises PackError, OSError."""
    import zipfile  # what only starts from a cache does without it

    path = packs / f"{_stem(level)}.zip"
    try:
        manifest = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Manifest)
        raw = path.read_bytes()
    except (OSError, msgspec.MsgspecError) as error:
        raise PackError(f"{path} cannot be read ({error})") from None
    if hashlib.sha256(raw).hexdigest() != manifest.sha256:
        raise PackError(f"{path} is damaged: its SHA-256 is not its manifest's")
    fresh = into.with_name(f".{into.name}-{os.getpid()}")
    try:
        fresh.mkdir(mode=0o700)
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:
            packed.extractall(fresh)
        for mark in (COMPLETE, COMPLETE + OF_ENGINE):
            (fresh / mark).touch()
        try:
            fresh.rename(into)
        except OSError:
            if not into.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest.kernels


if __name__ == "__main__":  # CACHE LEVEL INTO, for scripts/build-wheel, whose own sources may be others
    print(msgspec.json.encode(make(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))).decode())
