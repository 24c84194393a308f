"""The control socket: how `scalperctl` and operators speak to a living supervisor.

AF_UNIX, SOCK_SEQPACKET: one packet is one request, one packet its answer, so that no framing can go wrong. A request is
a JSON object with `do`; an answer is a JSON object with `ok`, and `error` where it is false. Only the same user and root
are answered (SO_PEERCRED; the folder is 0700 anyhow). A client believes only a folder that nobody else can have put there
(procs.trust), there only the caller, root or the folder's owner, and an answer only where it has the shape that is due.
Inspection does not come here: it reads shared memory.

    {"do": "ping"} | {"do": "status"} | {"do": "stop"} | {"do": "restart", "stage": NAME}
    {"do": "halt", "reason": TEXT} | {"do": "resume", "reason": TEXT}

Whatever bytes arrive, the server answers with an error or hangs up; it never raises and never waits for a client.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from procs import rundir

SOCKET_NAME: Final = "control.sock"
MAX_REQUEST: Final = 16_384
MAX_REPLY: Final = 262_144
MAX_CLIENTS: Final = 16
BACKLOG: Final = 128  # a full one refuses connects at once instead of letting them wait
MAX_PATH: Final = 107  # of sockaddr_un

NOT_OURS: Final = "it is another version, or no supervisor; end that process, or ask with the version that started it"

Reason = Annotated[str, Meta(min_length=1, max_length=500)]


class ControlError(RuntimeError):
    """No answer, or a refusal; the message says which, and what to do."""


class NotRunningError(ControlError):
    """Nobody serves this instance."""


class Request(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    """Base of all requests. `uid` and `pid` of the sender are added by the server."""


class Ping(Request, frozen=True, tag="ping"):
    """Are you there?"""


class Status(Request, frozen=True, tag="status"):
    """Everything about every process."""


class StopPipeline(Request, frozen=True, tag="stop"):
    """Orderly end; answered before it is done (`wait_stopped` waits)."""


class RestartStage(Request, frozen=True, tag="restart"):
    """A new incarnation of one stage; leaves FATAL."""

    stage: Annotated[str, Meta(min_length=1, max_length=32)]


class Halt(Request, frozen=True, tag="halt"):
    """Trip the kill switch."""

    reason: Reason


class Resume(Request, frozen=True, tag="resume"):
    """Reset the kill switch."""

    reason: Reason


class StageSaid(TypedDict):
    """A process, as `status` tells it."""

    name: str
    wanted: str
    actual: str
    ready: bool
    pid: int | None
    incarnation: int
    restarts: int
    crashes: int
    since_s: float | None
    silent_ms: int | None
    last_end: str | None
    log: str


class Pinged(TypedDict):
    """To `ping`."""

    instance: str
    pid: int
    phase: str


class StatusSaid(TypedDict):
    """To `status`."""

    instance: str
    world: str
    pid: int
    phase: str
    uptime_s: float
    halted: str | None
    unlatched: NotRequired[str | None]
    trouble: NotRequired[str | None]
    warm: dict[str, Any]
    standbys: NotRequired[list[int]]
    progress: int
    stages: list[StageSaid]


class Stopping(TypedDict):
    """To `stop`."""

    pid: int
    phase: str


class Restarting(TypedDict):
    """To `restart`."""

    stage: str
    was: int
    actual: str


class Halted(TypedDict):
    """To `halt`: the latch's words, and why it does not hold on disk, if it does not."""

    halted: str
    unlatched: NotRequired[str | None]


class Resumed(TypedDict):
    """To `resume`: what the latch said, if it was set."""

    was: str | None


REPLIES: Final[dict[str, Any]] = {
    "ping": Pinged, "status": StatusSaid, "stop": Stopping, "restart": Restarting, "halt": Halted, "resume": Resumed,
}  # fmt: skip
"""The shape that an answer has, by the request's `do`; what else it holds is passed over."""

AnyRequest = Ping | Status | StopPipeline | RestartStage | Halt | Resume
_decoder: Final[msgspec.json.Decoder[AnyRequest]] = msgspec.json.Decoder(AnyRequest)

Respond = Callable[[AnyRequest, int, int], Mapping[str, Any]]
"""(request, uid, pid of the sender) -> answer without `ok`; a ControlError becomes {"ok": false, "error": ...}."""


def decode(raw: bytes) -> AnyRequest:
    """The request in a packet. Raises ControlError for any other bytes."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise ControlError(f"not a request: {e}") from None


def answer(raw: bytes, respond: Respond, uid: int, pid: int) -> bytes:
    """The reply packet to a request packet. Never raises for what `raw` holds."""
    try:
        reply = {"ok": True, **respond(decode(raw), uid, pid)}
    except ControlError as e:
        reply = {"ok": False, "error": str(e)}
    except Exception as e:  # a request must not end the pipeline, whatever it meets
        reply = {"ok": False, "error": f"the request failed: {type(e).__name__}: {e}"}
    packet = msgspec.json.encode(reply)
    if len(packet) > MAX_REPLY:
        return msgspec.json.encode({"ok": False, "error": f"the answer has {len(packet)} bytes, more than a packet holds"})
    return packet


def _peer(connection: socket.socket) -> tuple[int, int]:
    """(uid, pid) of the process at the other end, by the kernel's word."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid, pid


def _checked_path(path: Path) -> str:
    text = str(path)
    if len(os.fsencode(text)) > MAX_PATH:
        raise rundir.RunDirError(f"{text}: longer than the {MAX_PATH} bytes that a socket's path may have; "
                                 "set XDG_RUNTIME_DIR to a shorter folder")  # fmt: skip
    return text


class ControlServer:
    """Listens in a folder; lives in the owner's selector, never blocks. Close it to remove the socket."""

    def __init__(self, folder: Path, selector: selectors.BaseSelector, respond: Respond) -> None:
        self.path = folder / SOCKET_NAME
        self._selector = selector
        self._respond = respond
        self._clients: dict[int, socket.socket] = {}
        text = _checked_path(self.path)
        self.path.unlink(missing_ok=True)  # the instance lock is ours, so whoever made it is dead
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            mask = os.umask(0o177)
            try:
                self._listener.bind(text)
            finally:
                os.umask(mask)
            self._listener.listen(BACKLOG)
        except OSError as e:
            self._listener.close()
            raise rundir.RunDirError(f"{text}: cannot listen ({e.strerror}); check the folder") from None
        selector.register(self._listener, selectors.EVENT_READ, self._on_connect)

    def _on_connect(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again, or no descriptors left: the next event tries again
            return
        try:
            uid, _ = _peer(connection)
            allowed = uid in (os.geteuid(), 0)
        except OSError:
            allowed = False
        if not allowed:
            connection.close()
            return
        if len(self._clients) >= MAX_CLIENTS:  # the oldest has had its time: idle clients must not lock operators out
            self._drop(next(iter(self._clients)))
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REPLY)
        self._clients[connection.fileno()] = connection
        self._selector.register(connection, selectors.EVENT_READ, partial(self._on_request, connection.fileno()))

    def _on_request(self, fd: int) -> None:
        connection = self._clients.get(fd)
        if connection is None:
            return
        try:
            raw, _, flags, _ = connection.recvmsg(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            self._drop(fd)
            return
        if not raw:
            self._drop(fd)
            return
        try:
            if flags & socket.MSG_TRUNC:
                packet = msgspec.json.encode({"ok": False, "error": f"a request has at most {MAX_REQUEST} bytes"})
            else:
                packet = answer(raw, self._respond, *_peer(connection))
            connection.send(packet, socket.MSG_NOSIGNAL)
        except OSError:  # a client that does not read its answers is let go
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        connection = self._clients.pop(fd, None)
        if connection is not None:
            self._selector.unregister(connection)
            connection.close()

    def close(self) -> None:
        """Hangs up on everybody and removes the socket."""
        for fd in list(self._clients):
            self._drop(fd)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._listener)
        self._listener.close()
        self.path.unlink(missing_ok=True)


def _connect(instance: str, timeout: float) -> socket.socket:
    tried: OSError | None = None
    stranger = ""
    for folder in rundir.run_dir_candidates(instance):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        connection.settimeout(timeout)
        try:
            connection.connect(_checked_path(folder / SOCKET_NAME))
            uid, pid = _peer(connection)
            if uid in (os.geteuid(), 0, os.stat(folder).st_uid):
                return connection
            stranger = f"{folder / SOCKET_NAME} is served by uid {uid} (pid {pid}), not by its owner, and is not believed: end it"
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            pass
        except OSError as e:
            tried = e
        connection.close()
    if stranger:
        raise ControlError(stranger)
    if isinstance(tried, PermissionError):
        raise ControlError(f"instance {instance!r} belongs to another user: ask as that user or as root")
    if tried is not None:
        raise ControlError(f"instance {instance!r} does not answer ({tried}): look at its log")
    problem = rundir.squatted(instance)
    start = f"start it with `scalperctl start --instance {instance}`"
    raise NotRunningError(problem or f"instance {instance!r} is not running: {start}")


def request(instance: str, message: Mapping[str, Any], timeout: float = 5.0) -> dict[str, Any]:
    """The supervisor's answer, without `ok`. Raises NotRunningError, or ControlError for no answer or a refusal."""
    reply, _ = _exchange(instance, message, timeout)
    return reply


def _exchange(instance: str, message: Mapping[str, Any], timeout: float) -> tuple[dict[str, Any], int]:
    with _connect(instance, timeout) as connection:
        _, pid = _peer(connection)
        try:
            connection.send(msgspec.json.encode(message), socket.MSG_NOSIGNAL)
            raw, _, flags, _ = connection.recvmsg(MAX_REPLY)
        except TimeoutError:
            raise ControlError(f"instance {instance!r} (pid {pid}) did not answer within {timeout:g} s") from None
        except OSError as e:
            raise ControlError(f"instance {instance!r} (pid {pid}) hung up ({e.strerror})") from None
    if not raw:
        raise ControlError(f"instance {instance!r} (pid {pid}) hung up: it is ending, or it does not know you")
    if flags & socket.MSG_TRUNC:
        raise ControlError(f"instance {instance!r} (pid {pid}) answered with more than {MAX_REPLY} bytes: {NOT_OURS}")
    try:
        reply = msgspec.json.decode(raw, type=dict[str, Any])
        if reply.pop("ok", False) is True:
            msgspec.convert(reply, REPLIES.get(str(message.get("do")), dict[str, Any]))
            return reply, pid
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise ControlError(f"instance {instance!r} (pid {pid}) answered with something else ({e}): {NOT_OURS}") from None
    said = str(reply.get("error", "refused"))[:MAX_REQUEST]
    raise ControlError("".join(c if c.isprintable() else " " for c in said))  # it must not steer a terminal


def stop_and_wait(instance: str, timeout: float) -> bool:
    """Asks for the orderly end and waits for the supervisor to be gone; False if it is still there after `timeout` s.

    Raises like `request`. The supervisor is watched by pidfd, so an answer that never comes cannot be taken for an end.
    """
    with _connect(instance, timeout) as connection:
        _, pid = _peer(connection)
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        raise ControlError(
            f"the supervisor of instance {instance!r} cannot be seen from here (another container's?): stop it where it runs"
        ) from None
    try:
        with contextlib.suppress(NotRunningError):
            request(instance, {"do": "stop"}, timeout)
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            return bool(selector.select(timeout))
    finally:
        os.close(fd)
