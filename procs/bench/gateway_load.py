"""A steady load of HTTP requests on loopback: `python -m procs.bench.gateway_load PORT PATH RATE SECONDS CONNECTIONS`.

Requests are sent at fixed times on kept-open connections, in turn, and each response time counts from the time at which its
request was due, so that a server that stalls cannot hide what waited behind the stall. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from typing import Any, Final

from procs.gateway.stage import event_loop
from procs.scheduling import step_back

REQUEST: Final = "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send one request and read its response to the end; the status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def load(port: int, path: str, rate: float, seconds: float, connections: int) -> dict[str, Any]:
    """The load and what came of it: statuses, how many a second, response times in ms."""
    request = REQUEST.format(path=path).encode("latin-1")
    count = max(int(rate * seconds), 1)
    statuses: Counter[int] = Counter()
    times_ns: list[int] = []
    started = time.perf_counter_ns() + 50_000_000

    async def worker(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for number in range(first, count, connections):
                due = started + int(number * 1e9 / rate)
                wait = due - time.perf_counter_ns()
                if wait > 0:
                    await asyncio.sleep(wait / 1e9)
                statuses[await _exchange(reader, writer, request)] += 1
                times_ns.append(time.perf_counter_ns() - due)
        finally:
            writer.close()

    await asyncio.gather(*(worker(first) for first in range(connections)))
    elapsed = (time.perf_counter_ns() - started) / 1e9
    times_ns.sort()

    def at(percent: float) -> float:
        return round(times_ns[min(int(len(times_ns) * percent / 100), len(times_ns) - 1)] / 1e6, 3)

    return {
        "requests": len(times_ns),
        "per_s": round(len(times_ns) / elapsed, 1),
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "p50_ms": at(50),
        "p99_ms": at(99),
        "max_ms": round(times_ns[-1] / 1e6, 3),
    }


def main(arguments: list[str]) -> int:
    """The program."""
    port, path, rate, seconds, connections = arguments
    step_back()
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:  # niceness counts within a session alone
        file.write("19")
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        print(json.dumps(runner.run(load(int(port), path, float(rate), float(seconds), int(connections)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
