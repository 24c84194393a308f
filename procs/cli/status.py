"""`status`: every process with its state, restarts, memory and CPU; what the supervisor says joined with what /proc shows.

`collect` gathers, `rows` and `sentences` lay out. Of stages that share a process the first has its memory and CPU; the others say
with whom they run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import Any, Final

from msgspec import convert, to_builtins

from procs import topology
from procs.cli import journals, processes, running
from procs.cli.outcome import OK, UNHEALTHY
from procs.cli.table import Cell, Column, Paint, clean_text, clip, count, megabytes, paint_for, span, table, wrapped
from procs.learning import registry
from procs.memory import board
from procs.memory import segments as pipeline
from shm.errors import SegmentError
from trading.own_signals.guard import Health, health_of

COLUMNS: Final = (
    Column("PROCESS", right=False),
    Column("PID"),
    Column("STATE", right=False),
    Column("READY", right=False, keep=6),
    Column("STARTS", keep=2),
    Column("CRASHES", keep=5),
    Column("BEAT", keep=3),
    Column("CORE", keep=4),
    Column("CPU %"),
    Column("PSS MB"),
)
STATE_STYLES: Final = {
    "RUNNING": "green", "EXITED": "dim", "STOPPED": "dim", "STARTING": "yellow", "BACKOFF": "yellow", "STOPPING": "yellow",
    "FATAL": "red bold",
}  # fmt: skip


def collect(instance: str, window_s: float) -> dict[str, Any]:
    """The whole status as JSON values. Raises control.ControlError if the supervisor does not answer."""
    said = running.ask(instance, {"do": "status"})
    entries = {entry["name"]: entry for entry in said["stages"]}
    pids = {name: int(entry["pid"]) for name, entry in entries.items() if entry["pid"]}
    pids["supervisor"] = int(said["pid"])
    waiting: list[int] = said.get("standbys", [])
    pids |= {f"standby {pid}": pid for pid in waiting}
    cpu = processes.cpu_percent(pids.values(), window_s)
    pss = {pid: processes.pss_kb(pid) for pid in set(pids.values())}
    cores = _cores(instance)
    stages: list[dict[str, Any]] = []
    for stage in topology.STAGES:
        if stage.name in entries:
            row = _process(entries[stage.name], pss, cpu) | {"core": cores.get(stage.name)}
            first = next((one["name"] for one in stages if one["process"] == row["process"]), None)
            stages.append(row | {"with": first, "pss_kb": None, "cpu_pct": None} if first else row | {"with": None})
    return {
        "instance": said["instance"],
        "world": said["world"],
        "phase": said["phase"],
        "uptime_s": said["uptime_s"],
        "halted": said["halted"],
        "unlatched": said.get("unlatched"),
        "trouble": said.get("trouble"),
        "warm": said["warm"],
        "progress": said["progress"],
        "supervisor": _aside(pids["supervisor"], pss, cpu),
        "zygote": _process(entries["zygote"], pss, cpu) if "zygote" in entries else None,
        "standbys": [_aside(pid, pss, cpu) for pid in waiting],
        "stages": stages,
        "total_pss_kb": int(processes.total(pss.values())),
        "cpu_pct_total": round(processes.total(cpu.values()), 2) if window_s > 0 else None,
        "window_s": window_s,
        "user_signals": [{"name": name, **one.figures, "problem": one.sentence} for name, one in _user_signals(instance).items()],
        "learner": [to_builtins(one) for one in registry.attempts(instance)] if "learner" in entries else None,
        "healthy": not unhealthy(said),
    }


def unhealthy(said: dict[str, Any]) -> list[str]:
    """What is wrong, a clause each, from the supervisor's answer or `collect`'s."""
    found = []

    def then(words: str) -> str:
        return running.command_for(said.get("instance", ""), words)

    hosts: dict[str, dict[str, Any]] = {}
    for entry in said["stages"]:
        hosts.setdefault(entry["process"], entry)
    for host, entry in hosts.items():  # once for all stages of a process
        state = entry.get("state") or entry.get("actual")
        if state == "FATAL":
            ended = f" ({clean_text(entry['last_end'])})" if entry.get("last_end") else ""
            restart = then(f"restart {entry['name']}")
            found.append(f"{host} was given up{ended}: see {entry['log']}, then `{restart}`")
        elif state == "BACKOFF":
            found.append(f"{host} crashed and waits to be started again: see {entry['log']}")
    if said.get("trouble"):
        found.append(clean_text(said["trouble"]))
    if said.get("unlatched"):
        found.append(f"the kill switch is NOT latched, it is tried again until it is: {clean_text(said['unlatched'])}")
    if said["halted"]:
        found.append(f"{clean_text(said['halted'])}: `{then('halt reset --reason TEXT')}` lets it trade again")
    return found


def _process(entry: dict[str, Any], pss: dict[int, int | None], cpu: dict[int, float | None]) -> dict[str, Any]:
    return {
        "name": entry["name"],
        "process": entry["process"],
        "pid": entry["pid"],
        "state": entry["actual"],
        "wanted": entry["wanted"],
        "ready": entry["ready"],
        "incarnation": entry["incarnation"],
        "restarts": entry["restarts"],
        "crashes": entry["crashes"],
        "since_s": entry["since_s"],
        "heartbeat_age_ms": entry["silent_ms"],
        "last_end": entry["last_end"],
        "log": entry["log"],
        "pss_kb": pss.get(entry["pid"]) if entry["pid"] else None,
        "cpu_pct": cpu.get(entry["pid"]) if entry["pid"] else None,
    }


def _aside(pid: int, pss: dict[int, int | None], cpu: dict[int, float | None]) -> dict[str, Any]:
    """A process that the supervisor has no state of: itself, and the children that wait to become a stage or the zygote."""
    return {"pid": pid, "pss_kb": pss[pid], "cpu_pct": cpu[pid]}


def _cores(instance: str) -> dict[str, int | None]:
    """The core that each stage is pinned to; empty while there is no board, None where a stage is not pinned."""
    try:
        memory = pipeline.attach(instance, rings=(), readonly=True)
    except SegmentError:
        return {}
    found: dict[str, int | None] = {}
    for stage in topology.STAGES:
        page = board.page(memory.board_words, stage.stage_id)
        started, core = int(page[board.STARTED_NS]), int(page[board.CORE])
        found[stage.name] = core if started and core >= 0 and stage.hot else None
    del page
    memory.close()
    return found


def _user_signals(instance: str) -> dict[str, Health]:
    """What became of each of the user's signals; empty while that cannot be read."""
    profile = running.running_profile(instance)
    if profile is None or not profile.signals.user:
        return {}
    try:
        memory = pipeline.attach(instance, rings=(), readonly=True)
    except SegmentError:
        return {}
    guard = board.page(memory.board_words, topology.stage_id("features"))[board.USER_GUARD :].copy()
    memory.close()
    return {one.name: health_of(guard, k) for k, one in enumerate(profile.signals.user)}


def rows(status: dict[str, Any]) -> list[list[Cell]]:
    """The table's rows: stages in the order of the topology, then zygote, standbys and supervisor."""
    found: list[list[Cell]] = []
    for entry in [*status["stages"], *([status["zygote"]] if status["zygote"] else [])]:
        beat = entry["heartbeat_age_ms"]
        cpu = entry["cpu_pct"]
        found.append([
            entry["name"],
            str(entry["pid"] or "-"),
            (entry["state"], STATE_STYLES.get(entry["state"], "")),
            "yes" if entry["ready"] else ("no", "yellow"),
            str(entry["incarnation"]),
            (str(entry["crashes"]), "yellow") if entry["crashes"] else "0",
            "-" if beat is None else f"{beat} ms",
            "-" if entry.get("core") is None else str(entry["core"]),
            "-" if cpu is None else f"{cpu:.1f}",
            (f"with {entry['with']}", "dim") if entry.get("with") else megabytes(entry["pss_kb"]),
        ])  # fmt: skip
    for name, own in (*(("standby", one) for one in status["standbys"]), ("supervisor", status["supervisor"])):
        cpu, waits = own["cpu_pct"], name == "standby"
        state = ("WAITING", "dim") if waits else ("RUNNING", "green")
        found.append([name, str(own["pid"]), state, "-" if waits else "yes", "-" if waits else "1", "0", "-", "-",
                      "-" if cpu is None else f"{cpu:.1f}", megabytes(own["pss_kb"])])  # fmt: skip
    return found


def sentences(status: dict[str, Any]) -> str:
    """The first line: what runs, in which phase, for how long, and the sums."""
    total = f"{status['total_pss_kb'] / 1024:.0f} MB"
    cpu = f", {status['cpu_pct_total']:.1f}% of a core" if status["cpu_pct_total"] is not None else ""
    return (
        f"{status['instance']} ({status['world']}): {status['phase']} for {span(status['uptime_s'] * 1e9)}, "
        f"{count(status['progress'])} records, {total}{cpu}"
    )


def lay_out(status: dict[str, Any], width: int, paint: Paint) -> list[str]:
    """The status as lines."""
    first = [paint(line, "bold") for line in wrapped(sentences(status), width)]
    lines = [*first, "", *table(COLUMNS, rows(status), width, paint)]
    wrong = unhealthy({**status, "stages": [*status["stages"], *([status["zygote"]] if status["zygote"] else [])]})
    own = [f"user signal {one['name']}: {one['problem'] or 'all is well'}" for one in status.get("user_signals", ())]
    bad = [bool(one["problem"]) for one in status.get("user_signals", ())]
    lines += [""] if own else []
    lines += [clip(paint(clean_text(text), "yellow" if odd else "dim"), width) for text, odd in zip(own, bad, strict=True)]
    if status.get("learner") is not None:
        told = [f"  {clean_text(convert(one, registry.Attempt).sentence)}" for one in status["learner"]]
        lines += ["", "learner, last training:", *(told or ["  none yet"])]
    return lines + ([""] if wrong else []) + [paint(line, "red") for text in wrong for line in wrapped("! " + text, width)]


def status(args: argparse.Namespace) -> int:
    """The command."""
    instance = running.instance_for(args)
    found = collect(instance, args.window)
    found["state"] = journals.figures(instance)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        width = shutil.get_terminal_size((120, 40)).columns
        print("\n".join(lay_out(found, width, paint_for(sys.stdout))))
        if takes := journals.sentence(instance):
            print("\n" + "\n".join(wrapped(takes, width)))
    return OK if found["healthy"] else UNHEALTHY
