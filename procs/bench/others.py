"""What others do, measured beside ours where it is installed: what Python programs use between processes (`bench ring`), and
FastMM, a whole engine (`bench hops`).

The former move the same 64-byte records one at a time from Python, as a Python program would, each with the same check of every
word; our own Python ends (ringbuf.endpoint) are measured the same way beside them, one record at a time and in batches.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.bench.pair import run_pair
from procs.cli import processes
from procs.cli.staging import child_environment
from procs.cli.table import span
from ringbuf.endpoint import create_ring, open_reader, open_writer

MISSING: Final = "not installed: pip install scalper[bench]"
RECORD: Final = np.dtype([("body", "i8", 7), ("seq", "i8")])
COUNT: Final = 10_000
CAPACITY: Final = 1024
BATCH: Final = 256
LIMIT_S: Final = 10

Result = dict[str, Any]
Cores = tuple[int, int]


def _record(n: int) -> bytes:
    return np.arange(n, n + 8, dtype=np.int64).tobytes()


_PAYLOADS: Final = [_record(n) for n in range(COUNT)]


def _plain(got: list[bytes]) -> list[bytes]:
    return got


def _timed(
    send: Callable[[], int | None],
    receive: Callable[[], list[Any]],
    cores: Cores,
    unpack: Callable[[list[Any]], list[bytes]] = _plain,
) -> Result:
    """Rate of moving all payloads; they are compared, every byte, after the clock has stopped. `send` may tell when it began."""

    def first() -> int:
        start = time.monotonic_ns()
        return send() or start

    def second() -> tuple[int, int]:
        got = receive()
        end = time.monotonic_ns()
        return end, sum(a != b for a, b in zip(unpack(got), _PAYLOADS, strict=True))

    # no real-time priority: some of these have threads of their own, which would starve
    start, (end, wrong) = run_pair(first, second, cores, urgent=False, limit_s=LIMIT_S)
    return {"records_s": round(COUNT / (end - start) * 1e9), "wrong": wrong}


def our_ends(cores: Cores, batch: int) -> Result:
    """Our ring from Python, `batch` records a call."""
    name = f"/scalper.bench{os.getpid()}.ring"
    segment = create_ring(name, RECORD, CAPACITY)
    records = np.frombuffer(b"".join(_PAYLOADS), RECORD)

    def send() -> None:
        with open_writer(name, RECORD) as writer:
            for n in range(0, COUNT, batch):
                writer.push(records[n : n + batch])

    def receive() -> list[bytes]:
        got: list[Any] = []
        count = 0
        with open_reader(name, RECORD) as reader:
            while count < COUNT:
                reader.wait()
                got.append(reader.poll(batch))
                count += len(got[-1])
        return got

    def unpack(got: list[Any]) -> list[bytes]:
        all_ = np.concatenate(got)
        assert (all_["seq"] == np.arange(2, COUNT + 2)).all()  # one was sent to compile with
        all_["seq"] = all_["body"][:, 0] + 7  # the ring's own word, where the others have payload
        return [rec.tobytes() for rec in all_]

    try:
        with open_writer(name, RECORD) as writer, open_reader(name, RECORD) as reader:  # compile
            writer.push(records[:1])
            writer.wait_room(1)
            reader.wait()
            reader.poll()
        return _timed(send, receive, cores, unpack)
    finally:
        segment.unlink()
        segment.close()


def multiprocessing_queue(cores: Cores) -> Result:
    """multiprocessing.Queue of the standard library."""
    queue: Any = multiprocessing.Queue(CAPACITY)

    def send() -> None:
        for payload in _PAYLOADS:
            queue.put(payload)
        queue.close()
        queue.join_thread()

    return _timed(send, lambda: [queue.get() for _ in range(COUNT)], cores)


def pyzmq(cores: Cores) -> Result:
    """ZeroMQ PUSH/PULL over ipc://."""
    zmq: Any = importlib.import_module("zmq")
    address = f"ipc:///tmp/scalper-bench-{os.getpid()}"

    def send() -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.connect(address)
            for payload in _PAYLOADS:
                socket.send(payload)

    def receive() -> list[bytes]:
        with zmq.Context() as context, context.socket(zmq.PULL) as socket:
            socket.bind(address)
            return [socket.recv() for _ in range(COUNT)]

    try:
        return _timed(send, receive, cores)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(address.removeprefix("ipc://"))


def faster_fifo(cores: Cores) -> Result:
    """faster_fifo.Queue, one record a put, whatever is there a get."""
    module: Any = importlib.import_module("faster_fifo")
    # bytes as they are, instead of its pickler
    queue = module.Queue(max_size_bytes=CAPACITY * 80, loads=bytes, dumps=bytes)

    def send() -> None:
        for payload in _PAYLOADS:
            while True:
                try:
                    queue.put(payload, timeout=5.0)
                    break
                except module.Full:
                    continue

    def receive() -> list[bytes]:
        got: list[bytes] = []
        while len(got) < COUNT:
            with contextlib.suppress(module.Empty):
                got += queue.get_many(max_messages_to_get=BATCH, timeout=5.0)
        return got

    return _timed(send, receive, cores)


class _Slot(ctypes.Structure):
    """A record as iceoryx2 wants it."""

    _fields_ = (("words", ctypes.c_int64 * 8),)


def iceoryx2(cores: Cores) -> Result:
    """iceoryx2 publish-subscribe, blocking when the subscriber's buffer is full."""
    iox: Any = importlib.import_module("iceoryx2")
    iox.set_log_level(iox.LogLevel.Fatal)
    name = f"scalper-bench-{os.getpid()}"
    created, tell = os.pipe()

    def service() -> Any:
        node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)
        builder = node.service_builder(iox.ServiceName.new(name)).publish_subscribe(_Slot)
        return node, (builder.subscriber_max_buffer_size(CAPACITY).enable_safe_overflow(False).history_size(0).open_or_create())

    def send() -> int:
        os.read(created, 1)
        node, port = service()
        publisher = port.publisher_builder().backpressure_strategy(iox.BackpressureStrategy.RetryUntilDelivered).create()
        while not port.dynamic_config.number_of_subscribers:
            publisher.update_connections()
        start = time.monotonic_ns()
        for payload in _PAYLOADS:
            while publisher.send_copy(_Slot.from_buffer_copy(payload)) == 0:  # it reached nobody: the buffer was full
                os.sched_yield()
        os.read(created, 1)  # what it lent must outlive the reader
        del node
        return start

    def receive() -> list[bytes]:
        node, port = service()
        subscriber = port.subscriber_builder().buffer_size(CAPACITY).create()
        os.write(tell, b"c")
        got: list[bytes] = []
        while len(got) < COUNT:
            sample = subscriber.receive()
            if sample is not None:
                got.append(bytes(sample.payload().contents))
                sample.delete()
        os.write(tell, b"d")
        subscriber.delete()
        del node
        return got

    before = _iceoryx_files()
    try:
        return _timed(send, receive, cores)
    finally:
        os.close(created)
        os.close(tell)
        left = _iceoryx_files() - before
        if not before and all(path.name.endswith(".global_mgmt") for path in left):
            for path in left:  # its book-keeping, which it never removes; nobody else uses it
                path.unlink(missing_ok=True)


def _iceoryx_files() -> set[Path]:
    return set(Path("/dev/shm").glob("iox2_*"))


OTHERS: Final[dict[str, tuple[str | None, Callable[[Cores], Result]]]] = {
    "multiprocessing.Queue": (None, multiprocessing_queue),
    "pyzmq": ("zmq", pyzmq),
    "faster-fifo": ("faster_fifo", faster_fifo),
    "iceoryx2": ("iceoryx2", iceoryx2),
}


def run(cores: Cores, say: Callable[[str], None]) -> dict[str, Result]:
    """Rates from Python; a library that is missing or fails says so instead of a figure."""
    found: dict[str, Result] = {}
    for key, batch in (("ours, one a call", 1), (f"ours, {BATCH} a call", BATCH)):
        say(key)
        found[key] = our_ends(cores, batch)
    for key, (module, measure) in OTHERS.items():
        say(key)
        if module is not None and importlib.util.find_spec(module) is None:
            found[key] = {"note": MISSING}
            continue
        try:
            found[key] = measure(cores)
        except Exception as error:  # a foreign library: its trouble is a line in the table, not our end
            found[key] = {"note": f"failed: {type(error).__name__}: {error}"}
    return found


def lines(found: dict[str, Result]) -> list[str]:
    """The table's lines."""
    rows = [f"from Python, 64 B, thousand records/s ({COUNT:,} records each)"]
    for key, result in found.items():
        figure = result.get("note") or f"{result['records_s'] / 1e3:.0f}" + (
            f"  {result['wrong']} WRONG" if result["wrong"] else ""
        )
        rows.append(f"  {key:<26}{figure}")
    return rows


# ---- FastMM -----------------------------------------------------------------------------------------------------------

MISSING_PEER: Final = "not installed: pip install scalper[peers]"
LEAST_S: Final = 5.0
START_S: Final = 60.0
_TOLD: Final = re.compile(r"tick_to_trade p50=(\d+) ns p99=(\d+) ns")
_COUNTED: Final = re.compile(r"events=(\d+) .*?orders=(\d+)")


def fastmm(seconds: float) -> dict[str, Any]:
    """FastMM beside `bench hops`: its starter project live against its own simulated exchange, as its quick start runs it.

    Both are its programs, in processes of their own, sleeping between messages as it does by default. Its figure is its own:
    `tick_to_trade`, from a market message read to the order handed to its sender. Rate and strategy are its starter's, so this
    says what a way through it takes on this machine, no more. Figures of `seconds` (ns, cores, MB), or {"missing": why}.
    """
    if importlib.util.find_spec("fastmm_live") is None:
        return {"missing": MISSING_PEER}
    with tempfile.TemporaryDirectory(prefix="scalper-bench-") as folder:
        try:
            return _session(Path(folder), max(seconds, LEAST_S))
        except (OSError, subprocess.SubprocessError, ValueError) as problem:
            return {"missing": f"its session failed: {problem}"}


def _session(folder: Path, seconds: float) -> dict[str, Any]:
    environment = child_environment()
    environment["NUMBA_CACHE_DIR"] = str(folder)
    name = f"peer-{os.getpid()}"
    home = folder / name
    environment["PYTHONPATH"] += os.pathsep + str(home)  # where it finds its strategy
    base = [sys.executable, "-P", "-m", "fastmm"]
    subprocess.run([*base, "init", name], cwd=folder, check=True, capture_output=True, timeout=START_S, env=environment)
    port, config = _free_port(), home / "sim.toml"
    config.write_text(config.read_text().replace(":9080", f":{port}"))
    strategy = re.findall(r'^name = "(strategy:\w+)"', config.read_text(), re.MULTILINE)[0]
    exchange = subprocess.Popen(
        [*base, "sim", "--port", str(port), "--no-tls"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment,
    )  # fmt: skip
    session = None
    try:
        _listening(port)
        with open(folder / "log", "wb") as log:
            session = subprocess.Popen(
                [*base, "run", strategy, "--config", "sim.toml", "--duration", f"{seconds:.0f}s"],
                cwd=home, stdout=log, stderr=log, env=environment,
            )  # fmt: skip
            used, pss = _watched(session, folder / "log", seconds)
            session.wait(START_S)
    finally:
        for child in filter(None, (session, exchange)):
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10.0)
            if child.poll() is None:
                child.kill()
                child.wait()
        Path(f"/dev/shm/fastmm-{name}-sim.status").unlink(missing_ok=True)  # what it leaves there
    return {**fastmm_said((folder / "log").read_text(errors="replace"), seconds), "cpu_cores": used, "pss_mb": pss}


def fastmm_said(log: str, seconds: float) -> dict[str, Any]:
    """The figures with which its session ends. ValueError where it says none."""
    told, counted = _TOLD.search(log), _COUNTED.search(log)
    if told is None or counted is None:
        raise ValueError(log.strip().splitlines()[-1][-200:] if log.strip() else "it said nothing")
    return {
        "tick_to_trade_p50_ns": int(told[1]), "tick_to_trade_p99_ns": int(told[2]), "orders": int(counted[2]),
        "events_per_s": round(int(counted[1]) / seconds, 1),
    }  # fmt: skip


def _watched(session: subprocess.Popen[bytes], log: Path, seconds: float) -> tuple[float | None, float | None]:
    """(cores, MB) of the session between its first orders and its end."""
    limit = time.monotonic() + START_S
    while b"orders are sent from now on" not in log.read_bytes() and session.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    before, started = processes.cpu_ns(session.pid), time.monotonic_ns()
    time.sleep(max(seconds - 2.0, 1.0))
    after, elapsed, pss = processes.cpu_ns(session.pid), time.monotonic_ns() - started, processes.pss_kb(session.pid)
    used = None if before is None or after is None else round((after - before) / elapsed, 4)
    return used, None if pss is None else round(pss / 1024, 1)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listening(port: int) -> None:
    """Until somebody listens there. TimeoutError."""
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise TimeoutError("its simulated exchange does not listen")


def fastmm_told(found: dict[str, Any]) -> str:
    """FastMM's figures in one line."""
    if "missing" in found:
        return f"FastMM: {found['missing']}"
    cores = "" if found["cpu_cores"] is None else f", {found['cpu_cores']:.2f} cores"
    size = "" if found["pss_mb"] is None else f", {found['pss_mb']:.0f} MB"
    return (
        f"FastMM, live against its simulator, tick to trade: {span(found['tick_to_trade_p50_ns'])} / "
        f"{span(found['tick_to_trade_p99_ns'])} ({found['orders']} orders, {found['events_per_s']:g} events/s{cores}{size})"
    )
