"""The ring benchmark's comparison with what Python programs use between processes, where it is installed.

All move the same 64-byte records one at a time from Python, as a Python program would, each with the same check of every
word; our own Python ends (ringbuf.endpoint) are measured the same way beside them, one record at a time and in batches.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.bench.pair import run_pair
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
