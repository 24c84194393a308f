"""`scalperctl record` on the local venue: its recorder killed eleven times, once while its disk was full, and what is on disk
then."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import live_world as lw
import numpy as np
import pytest

from procs import topology
from procs.cli import last_run
from procs.cli.staging import child_environment
from procs.memory import board
from procs.memory import segments as pipeline
from procs.recordings.folding import Folded
from procs.recordings.frame_log import segments
from procs.recordings.frame_log_format import CONNECTION, members
from procs.recordings.instruments import noted
from procs.stages.recorder import FAULT_DISK_FULL
from ringbuf import layout
from shm.errors import SegmentError
from sim.local_venue import generated
from sim.recordings.recording import stage
from sim.worlds.served import ServedVenue
from trading.records import MARKET_RECORD, Kind, identity_words

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
KEYS = [("binance_spot", "BTCUSDT"), ("binance_spot", "ETHUSDT")]
INSTANCE = lw.own_name("record")
KILLS = 10
DISK_MB = 24
LEFT_BYTES = 64 << 10


class Disk:
    """A small disk at `place`, where one may be mounted; else a limit on the size of the recorder's files."""

    def __init__(self, place: Path) -> None:
        self.place, self._filler = place, place / "filler"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "scalper-test", str(place)]
        self.mounted = os.geteuid() == 0 and subprocess.run(words, capture_output=True, check=False).returncode == 0

    def fill(self, pid: int) -> None:
        """From now on there is next to no room."""
        if not self.mounted:
            largest = max((p.stat().st_size for p in self.place.rglob("*") if p.is_file()), default=0)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest + 1, resource.RLIM_INFINITY))
            return
        free = os.statvfs(self.place)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - LEFT_BYTES)

    def still(self, pid: int) -> None:
        """A successor of the process has no more room than it had."""
        if not self.mounted:
            self.fill(pid)

    def free(self, pid: int) -> None:
        """There is room again."""
        if not self.mounted:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take it away."""
        if self.mounted:
            subprocess.run(["umount", str(self.place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that can be full."""
    found = Disk(tmp_path / "disk")
    yield found
    found.remove()


class Recording:
    """The command, running."""

    def __init__(self, served: ServedVenue, folder: Path) -> None:
        (end,) = (e for e in served.endpoints() if e["venue"] == KEYS[0][0])
        settings = {"pipeline.journal": "true", "supervisor.max_restarts": "100", "supervisor.backoff_min_ms": "0",
                    "supervisor.backoff_max_ms": "0", "record.flush_s": "0.2", "record.rotate_minutes": "0.2"}  # fmt: skip
        words = ["record", "--symbols", ",".join(name for _, name in KEYS), "--venue", KEYS[0][0], "--out", str(folder), "--json",
                 "--instance", INSTANCE, "--endpoint", f"stream={end['stream']},rest={end['rest']}"]  # fmt: skip
        for key, value in settings.items():
            words += ["--set", f"{key}={value}"]
        self.child = subprocess.Popen([sys.executable, "-m", "procs.cli.main", *words], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True, env=child_environment())  # fmt: skip
        self._fd = os.pidfd_open(self.child.pid)
        self.memory: pipeline.Memory | None = None
        self.until("it runs", self._attached, 300)
        assert self.memory is not None
        self.page = board.page(self.memory.board_words, topology.stage_id("recorder"))
        self.feed = board.page(self.memory.board_words, topology.stage_id("feed"))

    def _attached(self) -> bool:
        if self.memory is None:
            with contextlib.suppress(SegmentError):
                self.memory = pipeline.attach(INSTANCE, readonly=True)
        if self.memory is None:
            return False
        pages = [board.page(self.memory.board_words, topology.stage_id(name)) for name in ("recorder", "feed", "receiver")]
        return all(bool(page[board.READY]) for page in pages)

    def until(self, what: str, holds: Callable[[], bool], within_s: float) -> None:
        """Wait for it; fails when the time is over or the command has ended."""
        limit = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < limit, f"not within {within_s:g} s: {what}"
            assert self.child.poll() is None, f"it ended before {what}: {self.child.communicate()}"
            select.select([self._fd], [], [], 0.002)

    def go_on(self, seconds: float) -> None:
        """Let it record."""
        limit = time.monotonic() + seconds
        self.until(f"{seconds:g} s", lambda: time.monotonic() >= limit, seconds + 30)

    def cursor(self, ring: str) -> int:
        """How far the recorder has a ring on disk."""
        assert self.memory is not None
        reader = layout.reader_line(topology.RING[ring].reader_index("recorder"))
        return int(self.memory.ring(ring)[reader + layout.CURSOR])

    def journals_go_on(self) -> None:
        """Until a hundred more market records are on disk."""
        seen = self.cursor("market")
        self.until("journals on another disk go on", lambda: self.cursor("market") > seen + 100, 60)

    def kill_recorder(self) -> None:
        """SIGKILL, and wait for the next incarnation."""
        died = int(self.page[board.INCARNATION])
        os.kill(int(self.page[board.PID]), signal.SIGKILL)
        self.until("the recorder is back", lambda: int(self.page[board.INCARNATION]) > died and self.page[board.READY] == 1, 30)

    def end(self) -> dict[str, Any]:
        """Ctrl-C; the command's own account."""
        if self.memory is not None:
            with contextlib.suppress(BufferError):
                self.memory.close()
        self.child.send_signal(signal.SIGINT)
        out, err = self.child.communicate(timeout=90)
        os.close(self._fd)
        assert self.child.returncode == 0, (out, err)
        found: dict[str, Any] = json.loads(out)
        return found

    def give_up(self) -> None:
        """End it if it has not ended."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.communicate(timeout=60)
            self.child.kill()
            stop = [sys.executable, "-m", "procs.cli.main", "stop", "--instance", INSTANCE]
            subprocess.run(stop, capture_output=True, env=child_environment(), check=False)  # what the dead command had started


@pytest.mark.usefixtures("own_folders")
def test_a_recorder_killed_time_and_again_and_while_its_disk_is_full(disk: Disk) -> None:
    """While the disk of the raw recording is full the journals on another go on, also after a kill. Then: every file is whole
    gzip; the members of all files together hold every record of the frames ring exactly once, up to the last; `data check`
    finds nothing wrong; the files replayed are the market records that the live run had published."""
    folder, rng = disk.place / "raw", random.Random(41)
    with ServedVenue(generated(events_per_s=300.0)) as served:
        recording = Recording(served, folder)
        try:
            recording.until("the books are valid", lambda: int(recording.feed[board.RESYNCS]) == len(KEYS), 60)
            for n in range(KILLS):
                recording.go_on(rng.uniform(0.05, 1.5))
                recording.kill_recorder()
                if n == KILLS // 2:
                    recording.go_on(0.5)
                    pid = int(recording.page[board.PID])
                    disk.fill(pid)
                    recording.until("the disk is full", lambda: int(recording.page[board.FAULT]) == FAULT_DISK_FULL, 60)
                    recording.go_on(0.5)
                    recording.kill_recorder()  # its successor finds the disk full
                    pid = int(recording.page[board.PID])
                    disk.still(pid)
                    recording.until("the disk is found full", lambda: int(recording.page[board.FAULT]) == FAULT_DISK_FULL, 60)
                    recording.journals_go_on()
                    assert int(recording.page[board.FAULT]) == FAULT_DISK_FULL
                    disk.free(pid)
                    recording.until("there is room", lambda: int(recording.page[board.FAULT]) == 0, 30)
            recording.go_on(1.5)
            said = recording.end()
        finally:
            recording.give_up()
        truth = served.truth
    assert said["ok"] and said["gaps"] == 0 and said["oracle_checked"] == said["oracle_equal"] > 0, said
    files = {name: segments(folder / "binance_spot" / name) for _, name in KEYS}
    text, lines, last, count = "", 0, 0, 0
    for place in [*(folder / "binance_spot" / name for _, name in KEYS), folder / CONNECTION]:
        end = 0
        for path in segments(place):
            text = gzip.decompress(path.read_bytes()).decode()
            assert text.endswith("\n")
            with path.open("rb") as file:
                found = list(members(file.fileno()))
            assert sum(m.size for m in found) == path.stat().st_size and sum(m.lines for m in found) == text.count("\n")
            for m in found:
                assert m.first >= end and m.end > m.first
                end = m.end
            lines, count = lines + text.count("\n"), count + 1
        last = max(last, end)
    assert lines == last == said["frames"], "every record of the frames ring once"
    checked = subprocess.run([sys.executable, "-m", "procs.cli.main", "data", "check", str(folder), "--json"],
                             capture_output=True, text=True, env=child_environment(), check=False)  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    kept = last_run.wanted(INSTANCE)
    staged = stage([path for paths in files.values() for path in paths], disk.place / "spool")
    folded = Folded(disk.place / "spool", staged, noted(Path(kept.journal_dir)))
    replayed = np.concatenate([chunk.market for chunk in folded.chunks()])
    mine = lw.records(kept, "market")
    words = [w for w in identity_words(MARKET_RECORD).tolist() if w not in (0, 1, 2)]
    first, second = (r[r["kind"] != Kind.END].copy().view("<i8").reshape(-1, MARKET_RECORD.itemsize // 8)[:, words]
                     for r in (mine, replayed))  # fmt: skip
    assert 500 < len(first) <= len(second) and np.array_equal(first, second[: len(first)])
    compared = lw.compare(lw.records(kept, "depth"), KEYS, lw.scales_of(kept), truth)
    assert compared.wrong == [] and compared.strange == [] and compared.checked > 100
    print(f"{KILLS + 1} kills, one while the disk was full ({'tmpfs' if disk.mounted else 'limit'}): "
          f"{lines} records in {count} files, each once; "
          f"{len(first)} market records the same in the replay; {compared.checked} books")  # fmt: skip
