"""The gateway's process: one event loop that serves HTTP and looks at the rings a hundred times a second.

It maps the rings read-only and stands in no reader table, and it runs at a lower priority than the pipeline, so a load on it is
never felt there. It is not essential: when it cannot start (the port is taken), or is given up, the pipeline goes on.
Only its page on the board is written to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs import topology
from procs.fold.plan import Plan, load_recording, plan_of
from procs.gateway.answers import Answers
from procs.gateway.bearer import read_token
from procs.gateway.front import Application, Front, known_hosts
from procs.gateway.market_view import MarketView
from procs.gateway.packages import missing
from procs.gateway.pulse import Pulse
from procs.logs import stage_log
from procs.memory import board
from procs.memory import segments as pipeline
from procs.memory.board import Words
from procs.profiles.schema import GatewaySettings, Profile
from procs.scheduling import step_back
from ringbuf import layout
from shm.errors import SegmentError
from trading.features.vector import VERSION
from trading.own_signals.guard import GUARD_WORDS
from trading.records import Kind, Side

NAME: Final = "gateway"
LOG: Final = stage_log(NAME)
KINDS: Final = {"market": Kind.TRADE, "signals": Kind.SIGNAL, "vectors": Kind.VECTOR}
"""What stands on the rings that it looks at."""
RINGS: Final = tuple(KINDS)
WARM: Final = {
    "ts_ns": 1, "flags": 1, "ts_exchange_ns": 1, "price_ticks": 1, "qty_lots": 1, "side": int(Side.BUY), "version": VERSION,
    "bid_ticks": 1, "bid_lots": 1, "ask_ticks": 2, "ask_lots": 1,
}  # fmt: skip
"""A record of the smallest market, by field."""
TICK_S: Final = 0.01
BACKLOG: Final = 256
FAULT_START: Final = 1
EXIT_OK: Final = 0
EXIT_FAILED: Final = 1


class GatewayError(RuntimeError):
    """The gateway cannot start; the message names the remedy."""


def listening(settings: GatewaySettings) -> socket.socket:
    """A socket that listens where the profile says. Raises GatewayError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # the protocol is named: else asyncio sets no TCP_NODELAY, and an answer waits 40 ms for an acknowledgement
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((settings.host, settings.port))
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise GatewayError(
            f"cannot listen on {settings.host} port {settings.port} ({(error.strerror or str(error)).lower()}): "
            "choose another with gateway.port, 0 for any free one"
        ) from None
    found.setblocking(False)
    return found


def answers_of(
    profile: Profile,
    plan: Plan,
    board_words: Words,
    rings: Mapping[str, Words],
    clock: Callable[[], int] = time.monotonic_ns,
) -> Answers:
    """The answers over a run's memory."""
    view = MarketView(rings["market"], rings["signals"], rings["vectors"], plan.instruments, plan.names, profile)
    order = [stage.name for stage in topology.Run.of(profile).start_order if stage.essential]
    limit_ns = profile.supervisor.heartbeat_timeout_ms * 1_000_000
    pulse = Pulse(board_words, order, limit_ns, clock())
    guard = board.page(board_words, topology.stage_id("features"))[board.USER_GUARD :][:GUARD_WORDS]
    return Answers(profile.instance, profile, view, pulse, guard, profile.gateway.stale_after_ms, clock)


def application(answers: Answers, settings: GatewaySettings) -> Application:
    """The whole ASGI application (imports FastAPI). Raises TokenError."""
    from procs.gateway.document import described

    token = read_token(settings.token_file) if settings.token_file else None

    def fault(error: Exception) -> None:
        logging.getLogger("uvicorn.error").error("an answer failed", exc_info=error)

    return Front(answers, known_hosts(settings.host, settings.hosts), described(answers).router, token, fault)


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed: an answer takes half as much of a core from the pipeline's neighbours."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def serve(app: Application, listener: socket.socket, answers: Answers, page: Words, stop: list[bool]) -> None:
    """Serve until told to stop by the list, by the board, or by a signal."""
    import uvicorn

    from procs.gateway.bounds import KEEP_ALIVE_S, FewLines, bounded

    said = FewLines(time.monotonic_ns)
    logging.getLogger("uvicorn.error").addFilter(said)
    config = uvicorn.Config(
        app, lifespan="off", log_level="warning", log_config=None, access_log=False, server_header=False, ws="none",
        interface="asgi3", timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=1, http=bounded(),
    )  # fmt: skip
    server: Any = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not serving.done():
        work = answers.look()
        page[board.RECORDS] += work
        page[board.WORK_POLLS] += int(work > 0)
        page[board.HEARTBEAT] += 1
        if server.started and not page[board.READY]:
            page[board.PORT], page[board.READY] = listener.getsockname()[1], 1
        if stop[0] or page[board.STOP]:
            server.should_exit = True
        await asyncio.wait((serving,), timeout=TICK_S)
    await serving
    logging.getLogger("uvicorn.error").removeFilter(said)


def main(profile: Profile, runtime: Mapping[str, Any]) -> int:
    """One incarnation of the gateway; returns the exit code."""
    opened = pipeline.attach(runtime["instance"], rings=())
    memory = pipeline.attach(runtime["instance"], rings=RINGS, readonly=True)
    page = board.page(opened.board_words, topology.stage_id(NAME))
    page[board.PID], page[board.INCARNATION] = os.getpid(), int(runtime.get("incarnation", 0))
    page[board.CORE], page[board.STARTED_NS], page[board.PORT] = -1, time.monotonic_ns(), 0
    stop = [False]
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn sends itself again what it has caught
        signal.signal(number, lambda *_: stop.__setitem__(0, True))
    step_back()
    try:
        absent = missing()
        if absent:
            raise GatewayError(absent)
        spool = runtime.get("spool")
        plan = plan_of(profile, load_recording(Path(spool) if spool else None))
        answers = answers_of(profile, plan, memory.board_words, {name: memory.ring(name) for name in RINGS})
        app = application(answers, profile.gateway)
        listener = listening(profile.gateway)
    except (GatewayError, SegmentError, ValueError) as error:
        page[board.FAULT] = FAULT_START
        LOG.error("cannot start", problem=str(error))
        return EXIT_FAILED
    page[board.FAULT] = 0
    with listener:
        host = f"[{profile.gateway.host}]" if ":" in profile.gateway.host else profile.gateway.host
        LOG.info("listening", url=f"http://{host}:{listener.getsockname()[1]}/docs")
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(serve(app, listener, answers, page, stop))
    page[board.PORT] = 0
    return EXIT_OK


def warm(profile: Profile) -> None:
    """Compile or load what the gateway calls: one signal asked for over rings on the heap."""
    from procs.fold.warm import warm_plan
    from procs.memory.segments import aligned_words

    plan, now = warm_plan(profile), time.monotonic_ns()
    rings = {}
    for name in RINGS:
        entry = topology.RING[name]
        words = rings[name] = aligned_words(layout.payload_bytes(2, entry.record) // 8)
        layout.format_ring(words, entry.record, 2)
        ctl, slots, recs = layout.views(words, entry.record)
        for field, value in {**WARM, "ts_publish_mono_ns": now, "kind": int(KINDS[name])}.items():
            if field in (recs.dtype.names or ()):
                recs[0][field] = value
        slots[0, -1] = ctl[layout.TAIL] = 1
    answers = answers_of(profile, plan, np.zeros(board.BOARD_WORDS, np.int64), rings, lambda: now)
    for symbol in plan.names[:1]:
        for path in (f"/signal/{symbol}", f"/book/{symbol}", f"/features/{symbol}"):
            reply = answers.get(path, {})
            assert reply is not None and reply[0] == 200, reply
