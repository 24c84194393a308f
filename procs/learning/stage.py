"""The learner's process: it trains now and then on what this run has recorded, at the lowest priority.

It reads the journal that the recorder writes and stands in no ring's table, so that no writer waits for it. It is not
essential: when it is killed, cannot start or is given up, the pipeline goes on with the models that it has.

The main thread shows the heartbeat and hears signals; one worker trains. A stop does not wait for the worker: what it leaves
is what a kill would leave, and that is always whole (procs.learning.learner).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from procs import topology
from procs.learning.packages import missing
from procs.logs import stage_log
from procs.memory import board
from procs.memory import segments as pipeline
from procs.profiles.schema import Profile
from procs.scheduling import step_back
from shm.errors import SegmentError

NAME: Final = "learner"
LOG: Final = stage_log(NAME)
BEAT_S: Final = 0.1
FAULT_START: Final = 1
EXIT_OK: Final = 0
EXIT_FAILED: Final = 1


def _work(profile: Profile, runtime: Mapping[str, Any], page: Any, stop: threading.Event) -> None:
    """Rounds until told to stop."""
    from procs.learning import learner, publishing, registry

    with contextlib.suppress(ImportError):
        importlib.import_module("threadpoolctl").threadpool_limits(1)
    names, journals = publishing.names_of(profile, runtime.get("spool")), str(runtime["journal_dir"])
    publish = learner.publisher(profile, names) if profile.ml.learner.publish else None
    registry.tidy()
    if publish is not None:
        learner.resume(profile, journals, names, publish, LOG.info)
    page[board.READY] = 1
    while not stop.wait(learner.wait_s(profile, journals, names, time.time())):
        try:
            page[board.WORK_POLLS] += len(learner.round_of(profile, journals, names, publish, LOG.info))
        except OSError as error:
            LOG.error("nothing was kept of this round", problem=str(error))
        if stop.wait(BEAT_S):  # a round that tells nothing (no journal yet) is asked again, but not at once
            return


def main(profile: Profile, runtime: Mapping[str, Any]) -> int:
    """One incarnation of the learner; returns the exit code."""
    opened = pipeline.attach(runtime["instance"], rings=())
    page = board.page(opened.board_words, topology.stage_id(NAME))
    page[board.PID], page[board.INCARNATION] = os.getpid(), int(runtime.get("incarnation", 0))
    page[board.CORE], page[board.STARTED_NS], page[board.FAULT] = -1, time.monotonic_ns(), 0
    stop, failed = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    step_back()
    absent = missing(profile)
    if absent:
        page[board.FAULT] = FAULT_START
        LOG.error("cannot start", problem=absent)
        return EXIT_FAILED

    def work() -> None:
        try:
            _work(profile, runtime, page, stop)
        except (SegmentError, ValueError) as error:
            LOG.error("cannot go on", problem=str(error))
            failed.set()
        except Exception:  # the process ends with it, and the supervisor begins another
            LOG.error("the worker died", exc_info=True)
            failed.set()

    worker = threading.Thread(target=work, name=NAME, daemon=True)
    worker.start()
    while worker.is_alive() and not stop.wait(BEAT_S):
        page[board.HEARTBEAT] += 1
        if page[board.STOP]:
            stop.set()
    return EXIT_FAILED if failed.is_set() else EXIT_OK


def warm(profile: Profile) -> None:
    """Compile or load what a round computes before it trains: the features and labels of two made-up records."""
    import numpy as np

    from procs.learning.datasets import History, data_set, mids
    from trading.records import MARKET_RECORD
    from trading.settings import Strategy

    past = History("WARM", "", np.zeros(2, MARKET_RECORD))
    data_set(past, Strategy(ml=profile.ml))
    mids(past, Strategy(ml=profile.ml))
