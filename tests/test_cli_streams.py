"""Standard streams that are closed, full, or take ASCII only: a sentence at most, never a traceback, and the right exit code."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from procs.cli.outcome import FAILED, OK, USAGE

T0 = 1_723_000_000_000_000_000
SNAPSHOT = {"lastUpdateId": 100, "bids": [["10.01", "1.00000000"]], "asks": [["10.02", "1.00000000"]]}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small recording whose name is not ASCII."""
    path = tmp_path_factory.mktemp("streams") / "dír-✓.gz"
    frames = [SNAPSHOT]
    for n in range(101, 120):
        levels = [["10.01", f"{n}.00000000"]]
        data = {"e": "depthUpdate", "E": T0 // 10**6 + n, "s": "ABUSDT", "U": n, "u": n, "b": levels, "a": []}
        frames.append({"stream": "abusdt@depth@100ms", "data": data})
    with gzip.open(path, "wt") as file:
        for n, frame in enumerate(frames):
            file.write(f"{T0 + n * 10**8} {json.dumps(frame, separators=(',', ':'))}\n")
    return path


def shell(redirections: str, *words: object, **environment: str) -> tuple[int, str, str]:
    """scalperctl with the shell's redirections (`>&-` closes); exit code and what came on the streams left."""
    command = " ".join(f"'{word}'" for word in (sys.executable, "-P", "-m", "procs.cli.main", *words))
    done = subprocess.run(
        ["sh", "-c", f"{command} {redirections}"], capture_output=True, timeout=280, env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed: str, sound: Path) -> None:
    """What is well ends with 0, a wrong command line with 2; nothing is said where nothing listens, and no traceback anywhere."""
    for words, code in ((("version",), OK), (("data", "ls", sound), OK), (("nonsense",), USAGE)):
        got, out, err = shell(closed, *words)
        assert (got, "Traceback" in out + err) == (code, False), (words, err)


def test_a_file_that_is_opened_takes_no_closed_streams_number(sound: Path, tmp_path: Path) -> None:
    """With all three closed, a command's files hold what is theirs alone."""
    script = f"import sys; from procs.cli import streams; streams.make_safe(); f = open({str(tmp_path / 'mine')!r}, 'w')\n"
    script += "print('to stdout'); print('to stderr', file=sys.stderr); f.write('mine'); f.close()"
    subprocess.run(["sh", "-c", f'{sys.executable} -P -c "$0" <&- >&- 2>&-', script], check=True, timeout=280)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_stream_is_a_sentence_and_a_failure(sound: Path) -> None:
    """Not all was printed: exit code 1, and standard error says of which stream; a full standard error changes no code."""
    for words in (("version",), ("data", "ls", sound), ("data", "ls", sound, "--json"), ("--help",)):
        code, _, err = shell(">/dev/full", *words)
        assert (code, err) == (FAILED, "scalperctl: standard output: no space left on device: not all was printed\n"), words
    assert shell("2>/dev/full", "data", "ls", sound)[0] == OK
    assert shell("2>/dev/full", "nonsense")[0] == USAGE
    assert shell(">/dev/full 2>/dev/full", "version")[0] == FAILED


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, C_LOCALE])
def test_ascii_streams_show_a_question_mark(environment: dict[str, str], sound: Path) -> None:
    """Signs that the stream has no code for are replaced; JSON stays whole."""
    code, out, err = shell("", "data", "ls", sound, **environment)
    assert code == OK and out.isascii() and "r-?" in out and "Traceback" not in err, err
    code, out, _ = shell("", "data", "ls", sound, "--json", **environment)
    assert code == OK and json.loads(out)
    code, _, err = shell("", "data", "ls", sound.with_name("fehlt-ß.gz"), **environment)
    assert code == USAGE and "fehlt-" in err and "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error(sound: Path) -> None:
    """`| head -1`: exit code 0 and no complaint."""
    code, out, err = shell("| head -1", "--help")
    assert code == OK and out.count("\n") == 1 and err == ""
