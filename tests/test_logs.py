"""The logs of all processes have one shape, and a line of one can be told to people as a sentence."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from procs.logs import last_line, sentence_of, stage_log, supervisor_log, take_over_logging
from procs.receiver.say import QUIET_NS, Say


def entries(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What went to stderr, each line an entry."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_process_writes_the_same_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object a line: who, event, level, time; a traceback is a field, not lines of its own."""
    supervisor_log("paper").info("starting", pid=1)
    try:
        raise ValueError("a defect")
    except ValueError:
        stage_log("risk").error("died", exc_info=True)
    first, second = entries(capsys)
    assert (first["instance"], first["event"], first["level"], first["pid"]) == ("paper", "starting", "info", 1)
    assert (second["stage"], second["event"], second["level"]) == ("risk", "died", "error")
    assert first["timestamp"].endswith("Z") and second["exception"].startswith("Traceback (most recent call last)")


def test_what_libraries_say_becomes_entries(capsys: pytest.CaptureFixture[str]) -> None:
    """Python's logging ends in the same log, with the library's name and its traceback."""
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        take_over_logging(stage_log("gateway"))
        logging.getLogger("asyncio").error("Task %s was destroyed", "x", exc_info=ZeroDivisionError("by zero"))
    finally:
        root.handlers[:] = before
    (entry,) = entries(capsys)
    assert (entry["stage"], entry["logger"], entry["level"]) == ("gateway", "asyncio", "error")
    assert entry["event"] == "Task x was destroyed"
    assert "by zero" in entry["exception"]


def test_a_line_is_told_as_a_sentence(tmp_path: Path) -> None:
    """What went wrong comes first: the problem, a traceback's last line, the event; a line that is no entry says it itself."""
    assert sentence_of('{"event": "cannot start", "problem": "the port is taken"}') == "the port is taken"
    assert sentence_of('{"event": "died", "exception": "Traceback\\n  File\\nValueError: a defect"}') == "ValueError: a defect"
    assert sentence_of('{"event": "listening"}') == "listening"
    assert sentence_of(" Segmentation fault \n") == "Segmentation fault" and sentence_of("[1]") == "[1]" and sentence_of("") == ""
    log = tmp_path / "risk.log"
    log.write_text('{"event": "a"}\n{"event": "died", "problem": "no room"}\n\n')
    assert last_line(log) == "no room" and last_line(tmp_path / "none") == ""


def test_events_that_repeat_are_one_entry_in_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    """The same key again is held back for QUIET_NS and then said with how often it came; without a key each is said."""
    now = [0]
    say = Say("receiver", lambda: now[0])
    for _ in range(4):
        say("a frame was dropped", "drop")
    now[0] = QUIET_NS
    say("a frame was dropped", "drop")
    say("connected")
    say("connected")
    told = [(entry["event"], entry.get("more_like_it", 0)) for entry in entries(capsys)]
    assert told == [("a frame was dropped", 0), ("a frame was dropped", 3), ("connected", 0), ("connected", 0)]
