"""`scalperctl venue`: what it prints, how it ends, and what it says when it cannot begin."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = '{"lastUpdateId":10,"bids":[["9.00","1.00"]],"asks":[["11.00","2.00"]]}'
EVENT = '{{"e":"depthUpdate","E":{ms},"s":"ABCUSDT","U":{u},"u":{u},"b":[["9.00","{qty}.00"]],"a":[]}}'
DIFF = f'{{{{"stream":"abcusdt@depth@100ms","data":{EVENT}}}}}'


def begun(*words: str) -> subprocess.Popen[str]:
    """The command, started."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "procs.cli.main", "venue", *words], cwd=ROOT, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A tiny recording: a snapshot and ten diffs, 100 ms apart."""
    file = tmp_path / "abc.txt"
    lines = [f"{10**18} {SNAPSHOT}"]
    lines += [f"{10**18 + n * 10**8} {DIFF.format(ms=10**12 + n * 100, u=10 + n, qty=n)}" for n in range(1, 11)]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_it_is_told_to_stop(recording: Path, number: int) -> None:
    """The first line says where and with which settings; it answers there; a signal ends it well, with its figures."""
    process = begun("--port", "0", "--json", "--recording", str(recording), "--loop")
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    (endpoint,) = told["settings"]["live"]["endpoints"]
    assert endpoint == {"venue": "binance_spot", "stream": told["streams"]["spot"], "rest": told["rest"]}
    with urllib.request.urlopen(f"{told['rest']}/api/v3/depth?symbol=ABCUSDT", timeout=120) as answer:
        assert json.load(answer)["asks"] == [["11.00", "2.00"]]
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    last = json.loads(out)
    assert (process.returncode, err) == (0, "")
    assert last["event"] == "stopped" and last["requests"] == {"/api/v3/depth": 1} and last["statuses"] == {"200": 1}


def test_ends_by_itself_and_says_what_to_paste(recording: Path) -> None:
    """With --seconds it ends alone; without --json the settings stand there as YAML."""
    process = begun("--port", "0", "--seconds", "0.2", "--recording", str(recording), "--fault", "drop:p=0.5")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "in a profile:\n  live:\n    endpoints:\n      - {venue: binance_spot, stream:" in out
    assert out.splitlines()[-1].startswith("stopped: 0 connections")


def test_a_taken_port_is_named_with_the_remedy(recording: Path) -> None:
    """Exit code 1 and one sentence."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = begun("--port", str(port), "--recording", str(recording))
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    said = f"port {port} on 127.0.0.1 is taken by another program; choose another port, or 0 for any free one"
    assert err == f"scalperctl: {said}\n"


@pytest.mark.parametrize(("words", "said"), [
    (("--fault", "dorp:p=1"), "did you mean drop"), (("--port", "70000"), "is no port"), (("--speed", "0"), "stand still"),
    (("--recording", "none.gz"), "none.gz: No such file or directory; check the path"),
    (("--recording", "x.gz", "--symbols", "BTCUSDT"), "leave them out"), (("--symbols", "BTC/USDT"), "write e.g. BTCUSDT"),
    (("--faults", "none.yaml"), "none.yaml: No such file"), (("--market", "margin"), "invalid choice"),
])  # fmt: skip
def test_mistakes_are_one_sentence(words: tuple[str, ...], said: str) -> None:
    """Exit code 2, nothing but one sentence on stderr."""
    process = begun(*words)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert said in err and err.count("\n") == 1
