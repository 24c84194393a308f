"""What somebody who has just started a pipeline must know: that it is halted, where its gateway listens or why it does not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from procs import topology
from procs.cli import running
from procs.cli.table import clean_text
from procs.logs import last_line
from procs.memory import board
from procs.memory import segments as pipeline
from procs.profiles.schema import Profile
from procs.supervision import control
from shm.errors import SegmentError

GATEWAY: Final = "gateway"
PATIENCE_S: Final = 15.0
"""The gateway starts after the pipeline, and imports its framework first."""
POLL_S: Final = 0.05


def told(profile: Profile, ended: Callable[[], int | None]) -> list[tuple[str, str]]:
    """Lines with their style. `ended`: the supervisor's exit code once it is gone, after which nobody can be asked."""
    found: list[tuple[str, str]] = []
    try:
        halted = running.ask(profile.instance, {"do": "status"})["halted"]
        if halted:
            reset = running.command_for(profile.instance, "halt reset --reason TEXT")
            found.append((f"HALTED, it opens nothing: {clean_text(halted)}; `{reset}` lets it trade", "red bold"))
        if profile.gateway.enabled and profile.world != "record":
            found.append(gateway_line(profile, ended))
    except control.ControlError:
        pass  # it has just ended: a short recording
    return found


def gateway_line(profile: Profile, ended: Callable[[], int | None], patience_s: float = PATIENCE_S) -> tuple[str, str]:
    """Where the gateway of a running pipeline listens, or why it does not."""
    until = time.monotonic() + patience_s
    entry: dict[str, Any] = {}
    while ended() is None and time.monotonic() < until:
        port = listening_port(profile.instance)
        if port:
            host = f"[{profile.gateway.host}]" if ":" in profile.gateway.host else profile.gateway.host
            return f"gateway: http://{host}:{port}/docs", ""
        said = running.ask(profile.instance, {"do": "status"})
        entry = next((one for one in said["stages"] if one["name"] == GATEWAY), {})
        if entry.get("actual") in ("BACKOFF", "FATAL", "EXITED"):
            break
        time.sleep(POLL_S)
    why = last_line(Path(str(entry["log"]))) if entry.get("log") else ""
    why = clean_text(why or "it has not said so yet")
    return f"gateway: does not listen: {why} (log: {entry.get('log', 'none')}); the pipeline runs without it", "yellow"


def listening_port(instance: str) -> int:
    """Where an instance's gateway listens, 0 while it does not."""
    with contextlib.suppress(SegmentError):
        memory = pipeline.attach(instance, rings=(), readonly=True)
        try:
            page = board.page(memory.board_words, topology.stage_id(GATEWAY))
            port = int(page[board.PORT]) if page[board.READY] else 0
            del page
            return port
        finally:
            memory.close()
    return 0
