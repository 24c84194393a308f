"""How long a first and a later start take: to the first record that risk takes, and to a backtest's first report.

    compiling    from an empty cache, for this very CPU
    warm         with that cache (or, where compiling is left out, with the one that is there)
    wheel        from an empty cache, with the kernels that a wheel carries

Each is a process of its own with a cache folder of its own; CPU is that of all its processes, from the launch to the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from procs import topology
from procs.bench.pair import BenchError
from procs.cli.staging import child_environment
from procs.cli.table import Column, count, span, table
from procs.kernels.choice import WISH
from procs.memory import board
from procs.memory.segments import attach
from shm.errors import SegmentError

INSTANCE: Final = "bench-start"
SIMULATED_S: Final = 60
LIMIT_S: Final = 1_800.0
POLL_S: Final = 0.002
SCALPERCTL: Final = (sys.executable, "-P", "-m", "procs.cli.main")
PIPELINE: Final = ("start", "--foreground", "--config", "paper", "--instance", INSTANCE, "--set", "pipeline.journal=false")
BACKTEST: Final = ("backtest", "--config", "paper", "--set", f"generator.duration_s={SIMULATED_S}", "--json")


def run(wheel: str = "", warm: bool = False) -> dict[str, Any]:
    """Start and backtest each way. Raises BenchError with what a process said that failed."""
    here = child_environment()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scalper-bench-") as folder:
        scratch = Path(folder)
        if wheel:
            try:
                with zipfile.ZipFile(wheel) as packed:
                    packed.extractall(scratch / "site")
            except (OSError, zipfile.BadZipFile) as error:
                raise BenchError(f"{wheel} is no wheel that can be read ({error}): make one with scripts/build-wheel") from None
        if not warm:
            here = {name: text for name, text in here.items() if not name.startswith("NUMBA_")} | {WISH: "compile"}
            alone = here | {"XDG_CACHE_HOME": str(scratch / "alone")}
            report = _report(scratch, "compiling", alone)
            here |= {"XDG_CACHE_HOME": str(scratch / "compiled")}
            found.append({"name": "compiling", "start": _start(scratch, here), "report": report})
        found.append({"name": "warm", "start": _start(scratch, here), "report": _report(scratch, "warm", here)})
        if wheel:
            bare = {name: text for name, text in here.items() if not name.startswith(("NUMBA_", "SCALPER_KERNELS"))}
            theirs = bare | {"PYTHONPATH": str(scratch / "site")}
            # each from an empty cache: what the first has unpacked must not serve the second
            started, reported = ({**theirs, "XDG_CACHE_HOME": str(scratch / name)} for name in ("wheel-start", "wheel-report"))
            row = {"name": "wheel", "start": _start(scratch, started), "report": _report(scratch, "wheel", reported)}
            found.append(row)
    digests = {row["report"]["digest"] for row in found}
    complaints = [] if len(digests) == 1 else ["the reports differ in orders or fills"]
    if any(row["name"] == "wheel" and row["start"]["compiled"] for row in found):
        complaints.append("the wheel's kernels were not used")
    return {"bench": "start", "cores": len(os.sched_getaffinity(0)), "ways": found, "complaints": complaints}


@contextmanager
def _child(words: tuple[str, ...], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours whose output goes to `log`, ended at the end whatever comes."""
    with open(log, "wb") as out, open(log.with_suffix(".err"), "wb") as err:
        child = subprocess.Popen([*SCALPERCTL, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(30.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _ended(child: subprocess.Popen[bytes]) -> float:
    """Wait for its end; CPU seconds of it and of all its children."""
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def _said(log: Path) -> str:
    lines = [*log.read_text(errors="replace").splitlines(), *log.with_suffix(".err").read_text(errors="replace").splitlines()]
    return lines[-1] if lines else "nothing"


def _start(scratch: Path, environment: dict[str, str]) -> dict[str, Any]:
    """A pipeline until risk has taken a record: seconds to that, CPU to its end, what each stage's kernels took."""
    log = scratch / "start.log"
    began = time.monotonic()
    with _child(PIPELINE, log, environment) as child:
        while not _consumes():
            if child.poll() is not None:
                raise BenchError(f"the pipeline ended before its first record: {_said(log)}")
            if time.monotonic() - began > LIMIT_S:
                raise BenchError(f"the pipeline had no record after {LIMIT_S:g} s: {_said(log)}")
            time.sleep(POLL_S)
        wall = time.monotonic() - began
        child.send_signal(signal.SIGTERM)
        cpu = _ended(child)
    compiled, loaded = _kernels(log)
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "compiled": compiled, "loaded": loaded}


def _consumes() -> bool:
    """Whether the pipeline's risk has taken a record."""
    try:
        memory = attach(INSTANCE, readonly=True)
    except (SegmentError, OSError, ValueError):
        return False
    return int(board.page(memory.board_words, topology.stage_id("risk"))[board.RECORDS]) > 0


def _kernels(log: Path) -> tuple[dict[str, float], dict[str, float]]:
    """(seconds of compiling, seconds of loading) by stage, from the supervisor's log."""
    took: dict[str, dict[str, float]] = {"compiled": {}, "loaded": {}}
    for text in log.read_text(errors="replace").splitlines() + log.with_suffix(".err").read_text(errors="replace").splitlines():
        if '"kernels"' in text and (said := json.loads(text)).get("event") == "kernels":
            took[said["how"]][said["stage"]] = said["seconds"]
    return took["compiled"], took["loaded"]


def _report(scratch: Path, name: str, environment: dict[str, str]) -> dict[str, Any]:
    """A backtest of a minute of the embedded market: seconds and CPU until its report is there, and what was decided."""
    log = scratch / f"report-{name}.log"
    began = time.monotonic()
    with _child(BACKTEST, log, environment) as child:
        cpu = _ended(child)
        if child.returncode != 0:
            raise BenchError(f"the backtest failed: {_said(log)}")
    wall = time.monotonic() - began
    ran = json.loads(log.read_text())["ran"]
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "digest": f"{ran['order_digest']} {ran['fill_digest']}"}


def format(result: dict[str, Any]) -> str:
    """The result as text."""
    columns = (Column("KERNELS", right=False), *(Column(name) for name in ("FIRST RECORD", "CPU", "FIRST REPORT", "CPU")))
    rows = []
    for way in result["ways"]:
        seconds = [way[what][key] for what in ("start", "report") for key in ("wall_s", "cpu_s")]
        rows.append([way["name"], *(span(value * 1e9) for value in seconds)])
    lines = [f"from the command to the first record and the first report, {result['cores']} cores", ""]
    lines += table(columns, rows, 100)
    for way in result["ways"]:
        took = way["start"]["compiled"]
        if took:
            each = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in sorted(took.items(), key=lambda one: -one[1]))
            lines += ["", f"{way['name']}, {count(len(took))} stages: {each}"]
    lines += [f"! {text}" for text in result["complaints"]] or ["", "orders and fills are the same each way"]
    return "\n".join(lines)
