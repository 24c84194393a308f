"""The control socket: requests, refusals, and any bytes at all. The server lives in this test's own selector."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procs import rundir
from procs.kernels import choice
from procs.supervision import control
from procs.supervision.control import ControlError, ControlServer, NotRunningError, answer, decode

LIMIT_S = 120.0
SAID: dict[str, dict[str, Any]] = {
    "Ping": {"instance": "t", "pid": 1, "phase": "running"},
    "Status": {
        "instance": "t", "world": "paper", "pid": 1, "phase": "running", "uptime_s": 1.0, "halted": None, "warm": {},
        "progress": 1, "stages": [],
    },
    "StopPipeline": {"pid": 1, "phase": "draining"},
    "RestartStage": {"stage": "x", "was": 1, "actual": "RUNNING"},
    "Halt": {"halted": "words"},
    "Resume": {"was": None},
}  # fmt: skip
"""An answer to each request in the shape that is due."""


class Served:
    """A ControlServer served by a thread until closed; records what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[Any, int, int]] = []
        self.fail: Exception | None = None
        self.selector = selectors.DefaultSelector()
        self.server = ControlServer(folder, self.selector, self.respond)
        self._stop, self._stopped = os.pipe()
        self.selector.register(self._stop, selectors.EVENT_READ, None)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def respond(self, request: Any, uid: int, pid: int) -> dict[str, Any]:
        """Echoes, or fails as told."""
        self.asked.append((request, uid, pid))
        if self.fail is not None:
            raise self.fail
        return {"did": type(request).__name__, **SAID[type(request).__name__]}

    def _serve(self) -> None:
        while True:
            for key, _ in self.selector.select(LIMIT_S):
                if key.data is None:
                    return
                key.data()

    def close(self) -> None:
        """Ends the thread and the server."""
        os.write(self._stopped, b".")
        self.thread.join(LIMIT_S)
        self.server.close()
        self.selector.close()
        os.close(self._stop)
        os.close(self._stopped)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server of instance "t"."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    served = Served(rundir.run_dir("t"))
    yield served
    served.close()


def raw_client(served: Served) -> socket.socket:
    """A connected client that may send anything."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(LIMIT_S)
    client.connect(str(served.server.path))
    return client


GOOD: list[tuple[dict[str, Any], str]] = [
    ({"do": "ping"}, "Ping"),
    ({"do": "status"}, "Status"),
    ({"do": "stop"}, "StopPipeline"),
    ({"do": "restart", "stage": "risk"}, "RestartStage"),
    ({"do": "halt", "reason": "fills look odd"}, "Halt"),
    ({"do": "resume", "reason": "they were fine"}, "Resume"),
]


@pytest.mark.parametrize(("message", "name"), GOOD)
def test_requests(served: Served, message: dict[str, Any], name: str) -> None:
    """Every request reaches the responder typed, with the sender's uid and pid by the kernel's word."""
    assert control.request("t", message, LIMIT_S)["did"] == name
    _, uid, pid = served.asked[-1]
    assert (uid, pid) == (os.geteuid(), os.getpid())


BAD: list[bytes] = [
    b"{", b"null", b"[]", b"{}", b'"ping"', b"\xff\xfe", b"\x00", b'{"do": "fly"}', b'{"do": 5}', b'{"do": "restart"}',
    b'{"do": "restart", "stage": ""}', b'{"do": "restart", "stage": 5}', b'{"do": "halt"}', b'{"do": "halt", "reason": ""}',
    b'{"do": "halt", "reason": "' + b"x" * 501 + b'"}', b'{"do": "ping", "x": 1}', b"[" * 9000, b'{"do": "ping"} {"do": "stop"}',
]  # fmt: skip


@pytest.mark.parametrize("raw", BAD, ids=[r[:24].decode("latin-1") for r in BAD])
def test_bad_requests(served: Served, raw: bytes) -> None:
    """Anything else gets an error on the same connection, does nothing, and the connection lives on."""
    with raw_client(served) as client:
        client.send(raw)
        reply = msgspec.json.decode(client.recv(65536))
        assert reply["ok"] is False and "not a request" in reply["error"]
        assert served.asked == []
        client.send(b'{"do": "ping"}')
        assert msgspec.json.decode(client.recv(65536))["ok"] is True


def test_too_long_a_request(served: Served) -> None:
    """A packet beyond the limit is refused, not cut and guessed at."""
    with raw_client(served) as client:
        client.send(b'{"do": "ping"}' + b" " * control.MAX_REQUEST)
        assert "at most" in msgspec.json.decode(client.recv(65536))["error"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    """decode: a request or a ControlError; answer: always a packet with `ok`."""
    try:
        decode(raw)
    except ControlError:
        pass
    assert "ok" in msgspec.json.decode(answer(raw, lambda *_: {}, 0, 0))


def test_refusal_and_failure(served: Served) -> None:
    """A refusal reaches the client in its words; a bug in the responder does too, and the server lives."""
    served.fail = ControlError("no stage 'x': there are a, b")
    with pytest.raises(ControlError, match="no stage 'x': there are a, b"):
        control.request("t", {"do": "restart", "stage": "x"}, LIMIT_S)
    served.fail = ZeroDivisionError("oops")
    with pytest.raises(ControlError, match="the request failed: ZeroDivisionError: oops"):
        control.request("t", {"do": "status"}, LIMIT_S)
    served.fail = None
    assert control.request("t", {"do": "ping"}, LIMIT_S)


def test_an_answer_too_large(served: Served) -> None:
    """An answer that no packet holds becomes an error."""
    reply = msgspec.json.decode(answer(b'{"do": "status"}', lambda *_: {"x": "y" * control.MAX_REPLY}, 0, 0))
    assert reply["ok"] is False and "more than a packet holds" in reply["error"]


def test_clients_that_hang_lock_nobody_out(served: Served) -> None:
    """Silent connections beyond the limit: the oldest goes, a new client is answered."""
    silent = [raw_client(served) for _ in range(control.MAX_CLIENTS + 5)]
    assert control.request("t", {"do": "ping"}, LIMIT_S) ["did"] == "Ping"
    assert silent[0].recv(10) == b"", "the oldest was hung up on"
    for client in silent:
        client.close()


def test_a_client_that_reads_nothing(served: Served) -> None:
    """A client that floods and never reads is let go; the server does not wait for it."""
    with raw_client(served) as deaf:
        try:
            for _ in range(100_000):
                deaf.send(b'{"do": "ping"}')
        except OSError:
            pass
        assert control.request("t", {"do": "ping"}, LIMIT_S) ["did"] == "Ping"


def test_only_ours(served: Served) -> None:
    """The socket is 0600 in a 0700 folder."""
    assert served.server.path.stat().st_mode & 0o777 == 0o600
    assert served.server.path.parent.stat().st_mode & 0o777 == 0o700


def test_strangers_are_not_answered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another uid by SO_PEERCRED is hung up on before it says anything."""
    monkeypatch.setattr(control, "_peer", lambda connection: (os.geteuid() + 1, 1))
    with raw_client(served) as client:
        try:
            client.send(b'{"do": "stop"}')
            assert client.recv(100) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert served.asked == []


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No instance: a NotRunningError that says how to start one; a dead one's socket is no instance either."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    with pytest.raises(NotRunningError, match=r"instance 'none' is not running: start it with"):
        control.request("none", {"do": "ping"})
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead.bind(str(rundir.run_dir("dead") / control.SOCKET_NAME))
    dead.close()
    with pytest.raises(NotRunningError):
        control.request("dead", {"do": "ping"})


def test_a_mute_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer in time, or hangs up: an error with its pid."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
        mute.bind(str(rundir.run_dir("mute") / control.SOCKET_NAME))
        mute.listen()
        with pytest.raises(ControlError, match=rf"pid {os.getpid()}\) did not answer within"):
            control.request("mute", {"do": "ping"}, 0.05)


ANSWERS: list[tuple[bytes, str]] = [
    (b"{", "answered with something else"), (b"\xff\xfe", "something else"), (b"[" * 50_000, "something else"),
    (b"null", "something else"), (b'{"ok": true}', "something else"), (b'{"ok": true, "stages": 5}', "something else"),
    (b'{"ok": true, "instance": "t", "world": "paper", "pid": "1"}', "something else"), (b'{"ok": 1, "error": 5}', "^5$"),
    (b'{"ok": false, "error": "\\u001b[2Jgone"}', r"^ \[2Jgone$"), (b"{}", "^refused$"),
    (b" " * (control.MAX_REPLY + 1), "more than 262144 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "problem"), ANSWERS, ids=[r[:20].decode("latin-1") for r, _ in ANSWERS])
def test_any_answer(raw: bytes, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server answers (cut, huge, of another shape, with a terminal's commands in it): one error, no traceback."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as odd:
        odd.bind(str(rundir.run_dir("odd") / control.SOCKET_NAME))
        odd.listen()

        def serve() -> None:
            client, _ = odd.accept()
            with client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * control.MAX_REPLY)
                client.recv(control.MAX_REQUEST)
                client.send(raw)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ControlError, match=problem):
            control.request("odd", {"do": "status"}, LIMIT_S)
        thread.join()


def test_a_stranger_at_our_socket(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is neither the caller nor root nor the folder's owner, by the kernel's word, is not believed, root included."""
    monkeypatch.setattr(control, "_peer", lambda connection: (os.geteuid() + 1, 77))
    with pytest.raises(ControlError, match=rf"served by uid {os.geteuid() + 1} \(pid 77\), not by its owner"):
        control.request("t", {"do": "ping"}, LIMIT_S)


def test_a_path_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run directory whose socket path the kernel cannot hold: the remedy is named."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with selectors.DefaultSelector() as selector, pytest.raises(rundir.RunDirError, match="set XDG_RUNTIME_DIR to a shorter"):
        ControlServer(folder, selector, lambda *_: {})


def test_run_directory_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a file, or a folder of another uid where the run directory belongs is refused; a loose mode is mended."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    base = tmp_path / "scalper"
    (tmp_path / "elsewhere").mkdir()
    base.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(rundir.RunDirError, match=f"{base}: "):
        rundir.run_dir("t")
    base.unlink()
    base.touch()
    with pytest.raises(rundir.RunDirError, match="remove what stands there"):
        rundir.run_dir("t")
    base.unlink()
    base.mkdir(mode=0o755)
    assert rundir.run_dir("t").is_dir() and base.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(rundir.RunDirError, match="belongs to uid"):
        rundir.run_dir("t")
    for bad in ("../x", "", "A", "a" * 25, "a/b", "a\n"):
        with pytest.raises(ValueError, match="a name has 1 to 24"):
            rundir.run_dir(bad)


def test_systemd_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RUNTIME_DIRECTORY goes before all; one that is called like the instance is the instance's folder itself."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}/a:{tmp_path}/b")
    assert rundir.run_dir("t") == tmp_path / "a" / "t"
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}/t")
    assert rundir.run_dir("t") == tmp_path / "t"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/state")
    assert rundir.state_dir("t") == tmp_path / "state" / "t"


def test_instance_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One holder; a look takes nothing; after release the name is free."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert rundir.holder("t") == 0
    with rundir.InstanceLock("t"):
        assert rundir.holder("t") == os.getpid() and "t" in rundir.instances()
        with pytest.raises(rundir.InstanceBusyError, match=rf"instance 't' already runs as pid {os.getpid()} .*scalperctl stop"):
            rundir.InstanceLock("t")
        assert rundir.holder("t") == os.getpid(), "the refused one took nothing away"
    assert rundir.holder("t") == 0
    rundir.InstanceLock("t").release()


def test_kernel_cache_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key changes with any source, is stable otherwise; old caches go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    source = tmp_path / "user_signal.py"
    source.write_text("a = 1\n")
    first = choice.chosen([source]).folder
    assert choice.chosen([source]).folder == first and first.stat().st_mode & 0o777 == 0o700
    found = set()
    for n in range(8):
        source.write_text(f"a = {n + 2}\n")
        found.add(choice.chosen([source]).folder)
    assert len(found) == 8 and first not in found
    assert len(list(first.parent.iterdir())) <= choice.CACHES_KEPT
