"""`data check`, `cat`, `ls` and `convert` over recordings as other programs write them: pipes, units, blanks, symbols with _."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from own_command import Run
from test_data_check import SOUND, T0, recorded

from procs.cli.outcome import OK, UNHEALTHY, USAGE


def piped(content: bytes, use: Callable[[str], Any]) -> Any:
    """What `use` makes of the path of a pipe that gives this content once, as `<(command)` does."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return use(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        writer.join()


def _as_json(call: Run, word: str, path: str) -> tuple[int, str, str]:
    return call("data", word, path, "--json")


@pytest.mark.parametrize("packed", [True, False])
def test_a_pipe_is_read_as_the_file_would_be(tmp_path: Path, run: Run, packed: bool) -> None:
    """check, ls and cat of a pipe say what they say of the file; an empty pipe is empty; named twice it is refused."""
    path = recorded(tmp_path / "a.gz", SOUND)
    content = path.read_bytes() if packed else gzip.decompress(path.read_bytes())
    code, out, _ = piped(content, lambda pipe: run("data", "check", pipe))
    assert code == OK and out.rstrip().endswith(": ok") and "book == bbo 2/2" in out
    for word in ("cat", "ls"):
        code, out, _ = piped(content, partial(_as_json, run, word))
        wanted, same, _ = run("data", word, path, "--json")
        if word == "cat":
            assert (code, out) == (wanted, same) and out
        else:
            assert [one["frames"] for one in json.loads(out)] == [one["frames"] for one in json.loads(same)] == [8]
    code, _, err = piped(b"", lambda pipe: run("data", "check", pipe))
    assert code == USAGE and "Traceback" not in err
    code, _, err = piped(content, lambda pipe: run("data", "check", pipe, pipe))
    assert code == USAGE and "a pipe can be read only once" in err


@pytest.mark.parametrize(("unit", "scale"), [("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1)])
def test_the_unit_of_stamps_is_said(tmp_path: Path, run: Run, unit: str, scale: int) -> None:
    """check names it, in the line and as JSON; ls knows the span; cat shows the times."""
    start = T0 // 10**9 * 10**9
    text = "".join(f"{(start + k * 10**9) // scale} {frame}\n" for k, frame in enumerate(SOUND))
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(text.encode()))
    code, out, _ = run("data", "check", path)
    assert code == OK and f"stamps in {unit}" in out and "BTCUSDT: tick " in out
    (verdict,) = json.loads(run("data", "check", path, "--json")[1])
    assert verdict["ok"] and f"stamps in {unit}" in verdict["said"] and verdict["first_ns"] == start
    (listed,) = json.loads(run("data", "ls", path, "--json")[1])
    assert (listed["first_ns"], listed["last_ns"]) == (start, start + 7 * 10**9)
    assert json.loads(run("data", "cat", path, "--json")[1].splitlines()[0])["time"].startswith("2024-08-08T23:54:1")


@pytest.mark.parametrize("indent", [None, 1])
def test_json_with_blanks_and_microseconds_is_the_same_recording(tmp_path: Path, run: Run, indent: int | None) -> None:
    """Frames as json.dumps writes them, on one line or many, of a symbol with _, their times in us: nothing differs."""
    spread = [json.dumps(json.loads(f.replace('"BTCUSDT"', '"BTCUSDT_241227"')), indent=indent) for f in SOUND]
    spread = [frame.replace("1723161255208", "1723161255208123") for frame in spread]
    code, out, _ = run("data", "check", recorded(tmp_path / "a.gz", spread))
    assert code == OK and "BTCUSDT_241227" in out and "book == bbo 2/2" in out and "0 unknown" in out
    (verdict,) = json.loads(run("data", "check", tmp_path / "a.gz", "--json")[1])
    assert verdict["symbols"] == ["BTCUSDT_241227"] and verdict["frames"] == len(SOUND)


def test_prints_that_are_no_trades_are_named(tmp_path: Path, run: Run) -> None:
    """A futures' insurance fund: counted by name, no gap, no fault, and no candle's price."""
    def put(number: int, origin: str, price: str) -> str:
        body = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": number, "p": price, "q": "0.5", "T": 1, "X": origin, "m": True}
        return json.dumps({"stream": "btcusdt@trade", "data": body}, separators=(",", ":"))

    frames = [*SOUND, put(7, "INSURANCE_FUND", "1.2345"), put(8, "ADL", "99.00"), put(9, "NA", "0"), put(10, "MARKET", "99.00")]
    code, out, _ = run("data", "check", recorded(tmp_path / "a.gz", frames))
    assert code == OK and "3 prints that are no trades (1 INSURANCE_FUND, 1 ADL, 1 NA)" in out and "tick 0.5 from" in out
    printed = [json.loads(line) for line in run("data", "cat", tmp_path / "a.gz", "--json", "--kind", "trade")[1].splitlines()]
    assert [one["id"] for one in printed] == [5, 6, 10]


def test_a_recording_whose_gzip_is_broken_behind_its_lines_is_checked(tmp_path: Path, run: Run) -> None:
    """Its lines are judged, and what is wrong is said of the gzip data, with the number of whole lines."""
    path = recorded(tmp_path / "a.gz", SOUND)
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    code, out, _ = run("data", "check", path)
    assert code == UNHEALTHY and "book == bbo 2/2" in out
    assert "the gzip data does not fit its checksum; lines 1 to 8 are whole" in out
