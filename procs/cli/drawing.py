"""`topology` and `version`: what the program is made of. Nothing needs to run."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from procs import topology as table_of
from procs.cli.outcome import OK
from procs.cli.table import Cell, Column, count, paint_for, table

PACKAGES: Final = ("numpy", "numba", "llvmlite", "msgspec", "psutil", "posix-ipc", "structlog", "pyyaml")
RING_COLUMNS: Final = (
    Column("ID", keep=4),
    Column("RING", right=False),
    Column("BYTES", keep=3),
    Column("CAPACITY", keep=2),
    Column("WRITER", right=False),
    Column("READERS", right=False),
    Column("WHEN FULL", right=False, keep=6),
    Column("MEANING", right=False, keep=5),
)
STAGE_COLUMNS: Final = (
    Column("STAGE", right=False),
    Column("READS, IN THE ORDER OF EQUAL TIMES", right=False),
    Column("MEANING", right=False, keep=1),
)


def topology(args: argparse.Namespace) -> int:
    """The command `topology`."""
    if args.dot or args.mermaid:
        print(table_of.diagram("dot" if args.dot else "mermaid"))
        return OK
    if args.json:
        rings = [
            {
                "id": r.ring_id, "name": r.name, "record_bytes": r.record.itemsize, "capacity": r.capacity, "writer": r.writer,
                "readers": list(r.readers), "full": r.full, "burst": r.burst, "timed": r.timed, "meaning": r.meaning,
            }
            for r in table_of.RINGS
        ]  # fmt: skip
        stages = [
            {"id": s.stage_id, "name": s.name, "module": s.module, "inputs": list(s.inputs), "hot": s.hot, "meaning": s.meaning}
            for s in table_of.STAGES
        ]
        print(json.dumps({"rings": rings, "stages": stages}, indent=2))
        return OK
    width, paint = shutil.get_terminal_size((120, 40)).columns, paint_for(sys.stdout)
    stage_rows: list[list[Cell]] = [
        [(s.name, "bold"), ", ".join(s.inputs) or ("a market's frames" if s.name == "feed" else "every ring"), s.meaning]
        for s in table_of.STAGES
    ]
    ring_rows: list[list[Cell]] = [
        [
            str(r.ring_id),
            (r.name, "bold"),
            str(r.record.itemsize),
            count(r.capacity),
            r.writer,
            " ".join(r.readers),
            r.full,
            r.meaning,
        ]
        for r in table_of.RINGS
    ]
    print("\n".join([*table(STAGE_COLUMNS, stage_rows, width, paint), "", *table(RING_COLUMNS, ring_rows, width, paint)]))
    return OK


def program_version() -> str:
    """The installed version, or that of the checkout's pyproject.toml."""
    try:
        return metadata.version("scalper")
    except metadata.PackageNotFoundError:
        import tomllib

        file = Path(__file__).resolve().parents[2] / "pyproject.toml"
        try:
            return str(tomllib.loads(file.read_text())["project"]["version"])
        except (OSError, KeyError, ValueError):
            return "unknown"


def versions() -> dict[str, str]:
    """Versions of the program, of Python, of the kernel and of the packages that matter, without importing these."""
    found = {"scalper": program_version(), "python": platform.python_version(), "linux": platform.release()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def version(args: argparse.Namespace) -> int:
    """The command `version`."""
    found = versions()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"scalper {found.pop('scalper')}")
        print(", ".join(f"{name} {text}" for name, text in found.items()))
    return OK
