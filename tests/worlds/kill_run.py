"""A pipeline of processes run to its end, undisturbed or under a seeded killer, and everything that must be true afterwards.

    python tests/worlds/kill_run.py [--kills N] [--seed S] [--usdm] [--seconds T]

The yardstick is the backtest: the same stages in one process, which nobody kills. The source is paced so that the run lasts
about T seconds; kills are spread over its frames, so all of them happen before the end, however fast stages come back.
Without recordings a generated market takes their place. `scripts/test-kill` runs this; tests use its parts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tests" / "worlds"):
    sys.path.insert(0, str(folder))

from procs import topology  # noqa: E402
from procs.cli import last_run, running  # noqa: E402
from procs.cli.figures import complaints  # noqa: E402
from procs.cli.starting import Launch  # noqa: E402
from procs.journal.file import JournalReader, journal_path  # noqa: E402
from procs.kernels.choice import chosen  # noqa: E402
from procs.memory import board  # noqa: E402
from procs.memory import segments as pipeline  # noqa: E402
from procs.profiles.config import load_profile  # noqa: E402
from shm import cleanup  # noqa: E402
from shm.errors import SegmentError  # noqa: E402

RECORDED = {
    "spot": (("spot_btcusdt_20240808", "spot_btcusdt_20240809"), 1072),
    "usdm": (("usdm_btcusdt_20240808",), 629),
}
SETTINGS: dict[str, Any] = {
    "pipeline.journal": True,
    "pipeline.journal_vectors": True,
    "supervisor.max_restarts": 1_000_000,
    "supervisor.backoff_min_ms": 0,
    "supervisor.backoff_max_ms": 0,
    "supervisor.heartbeat_timeout_ms": 20_000,
}
GENERATED_S = 600.0
ASIDE_SHARE = {"zygote": 0.06, "standby": 0.03}
"""Of all kills, those of processes that are no stages."""
KILLS_UNTIL = 0.96
LIMIT_S = 900.0
LOOKS = 200  # at what the supervisor holds open before the first kill
POLL_S = 0.0005
"""Between two looks of the killer, who times restarts."""
PATIENT_S = 0.01
"""Between two looks of everybody else: whoever looks more often takes the cores from the pipeline."""


Held = tuple[str, ...]
"""What a process's descriptors lead to, sorted."""


@dataclass
class Source:
    """What runs: overrides of the profile, and the spool where it is a recording."""

    profile: str
    overrides: dict[str, Any]
    files: tuple[Path, ...] = ()
    oracle: int | None = None


def source(market: str) -> Source:
    """The recordings of `market`, else a generated market."""
    data = Path(os.environ.get("SCALPER_DATA") or ROOT.parent / "shared" / "data") / "hftbacktest_binance"
    names, oracle = RECORDED[market]
    files = tuple(data / f"{name}.gz" for name in names)
    if all(file.is_file() for file in files):
        return Source("replay", {"source.kind": "recording", "source.files": [str(file) for file in files]}, files, oracle)
    return Source("paper", {"generator.duration_s": GENERATED_S})


def isolate(folder: Path) -> None:
    """Run and state directories of this run's own; the cache of kernels stays the user's."""
    os.environ.update(chosen().variables())
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        path = folder / name.lower()
        path.mkdir(mode=0o700)
        os.environ[name] = str(path)


def yardstick(chosen: Source, folder: Path) -> tuple[dict[str, Any], int, float]:
    """The backtest's identities, how many frames there are, and their span in virtual seconds."""
    from fold_world import identities

    from procs.fold.plan import plan_of
    from procs.research import backtest
    from sim.recordings.recording import stage

    staged = stage(list(chosen.files), folder / "spool") if chosen.files else None
    profile = load_profile(chosen.profile, {**chosen.overrides, "source.speed": "max"})
    run = backtest.run(plan_of(profile, staged), keep=tuple(entry.name for entry in topology.RINGS))
    feed = board.page(run.world.board, topology.stage_id("feed"))
    span = (staged.last_recv_ns - staged.first_recv_ns) / 1e9 if staged else float(profile.generator.duration_s)
    return identities(run.kept), int(feed[board.FRAMES]), span


@dataclass
class Killed:
    """What the killer did."""

    kills: Counter[str] = field(default_factory=Counter)
    restart_ms: list[float] = field(default_factory=list)
    pending: dict[str, tuple[float, int, int]] = field(default_factory=dict)  # stage -> when, pid, heartbeat once ready
    before: Counter[Held] = field(default_factory=Counter)  # how often the supervisor held these, before the first kill
    after: Counter[Held] = field(default_factory=Counter)  # and after the last


class Run:
    """One pipeline, from launch to what it left."""

    def __init__(self, instance: str, chosen: Source, overrides: dict[str, Any]) -> None:
        self.instance = instance
        wanted = {**SETTINGS, **chosen.overrides, **overrides}
        words = ["--config", chosen.profile, "--instance", instance]
        for key, value in wanted.items():
            if key in ("source.kind", "source.files"):
                continue
            words += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
        if chosen.files:
            words += ["--recording", *map(str, chosen.files)]
        self.launched = Launch(load_profile(chosen.profile, {**wanted, "instance": instance}), words)
        self.memory: pipeline.Memory | None = None
        self.strays: set[int] = set()
        self._pidfd = -1

    def ready(self) -> None:
        """Wait until it runs."""

        def look() -> None:
            if self.memory is None:
                with contextlib.suppress(SegmentError):
                    self.memory = pipeline.attach(self.instance, readonly=True)

        code = self.launched.wait_ready(LIMIT_S, lambda text: None, look, PATIENT_S)
        look()
        if code is not None:
            self.launched.explain(code)
            raise SystemExit(1)

    def page(self, stage: str) -> Any:
        """A stage's page."""
        assert self.memory is not None
        return board.page(self.memory.board_words, topology.stage_id(stage))

    def frames(self) -> int:
        """Frames that the feed has read."""
        return int(self.page("feed")[board.FRAMES])

    def look_away(self, seconds: float = PATIENT_S) -> None:
        """Until the supervisor ends, but no longer than that."""
        if self._pidfd < 0:
            with contextlib.suppress(ProcessLookupError):
                self._pidfd = os.pidfd_open(self.launched.pid)
        select.select([self._pidfd] if self._pidfd >= 0 else [], [], [], seconds)

    def close(self) -> None:
        """End it, if it has not ended."""
        self.launched.give_up()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def ended(self) -> bool:
        """Whether the supervisor is gone."""
        return self.launched.ended() is not None

    def stop(self) -> None:
        """Ask for the orderly end."""
        running.ask(self.instance, {"do": "stop"})

    def wait_end(self, meanwhile: Callable[[], None] = lambda: None, every_s: float = PATIENT_S) -> int:
        """The supervisor's exit code."""
        limit = time.monotonic() + LIMIT_S
        while not self.ended():
            if time.monotonic() > limit:
                self.launched.give_up()
                raise SystemExit(f"the pipeline did not end within {LIMIT_S:g} s: see {self.launched.log}")
            self.strays |= self.children()
            meanwhile()
            self.look_away(every_s)
        return int(self.launched.ended() or 0)

    # --- the supervisor, seen from outside --------------------------------------------------------------------------

    def children(self) -> set[int]:
        """Pids of the supervisor's children."""
        try:
            text = Path(f"/proc/{self.launched.pid}/task/{self.launched.pid}/children").read_text()
        except OSError:
            return set()
        return {int(word) for word in text.split()}

    def aside(self, name: str) -> int:
        """The pid of the zygote, or of a standby; 0 if there is none."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == f"scalper:{name}":
                    return pid
        return 0

    def descriptors(self) -> Held:
        """What the supervisor has open, but those of its children (one each, while they live); nothing where it has ended."""
        held = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{self.launched.pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    held.append(os.readlink(entry.path))
        return tuple(sorted(name for name in held if name != "anon_inode:[pidfd]"))

    def quiet(self) -> bool:
        """Every stage lives and is ready, or has finished; so does the zygote."""
        alive = self.children()
        for stage in topology.Run().essential:
            page = self.page(stage.name)
            if not page[board.FINISHED] and not (page[board.READY] and int(page[board.PID]) in alive):
                return False
        return self.aside("zygote") != 0

    # --- killing ------------------------------------------------------------------------------------------------------

    def _kill_child(self, pid: int) -> bool:
        """SIGKILL to a child of this supervisor and to nobody else."""
        if pid not in self.children():
            return False
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            if pid not in self.children():
                return False
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def kill(self, rng: random.Random, done: Killed) -> bool:
        """Kill a random stage, now and then the zygote or who may follow it; whether somebody died by it."""
        drawn = rng.random()
        for name, share in ASIDE_SHARE.items():
            if drawn < share:
                killed = self._kill_child(self.aside(name))
                done.kills[name] += killed
                return killed
            drawn -= share
        name = rng.choice([stage.name for stage in topology.Run().essential])
        page = self.page(name)
        pid = int(page[board.PID])
        if page[board.FINISHED] or not self._kill_child(pid):
            return False
        done.kills[name] += 1
        done.pending[name] = (time.perf_counter(), pid, -1)
        return True

    def time_restarts(self, done: Killed) -> None:
        """A stage is back when its next incarnation is ready and its heartbeat has moved since."""
        for name, (began, pid, beat) in list(done.pending.items()):
            page = self.page(name)
            if int(page[board.PID]) == pid or not page[board.READY]:
                continue
            if beat < 0:
                done.pending[name] = (began, pid, int(page[board.HEARTBEAT]))
            elif int(page[board.HEARTBEAT]) != beat:
                done.restart_ms.append((time.perf_counter() - began) * 1e3)
                del done.pending[name]


def harass(run: Run, kills: int, seed: int, frames: int) -> Killed:
    """Kill until `kills` have died, spread over the frames that are left; then wait for the end."""
    rng, done = random.Random(seed), Killed()
    while not run.quiet() and not run.ended():
        run.look_away()
    for _ in range(LOOKS):
        done.before[run.descriptors()] += 1
        run.look_away(POLL_S)
    due = 0
    last = int(frames * KILLS_UNTIL)

    def step() -> None:
        nonlocal due
        run.time_restarts(done)
        now, left = run.frames(), kills - sum(done.kills.values())
        if left > 0:
            if now >= due and run.kill(rng, done):
                due = now + max((last - now) // max(left, 1), 1)
        elif not done.pending and run.quiet():
            done.after[run.descriptors()] += 1

    run.wait_end(step, POLL_S)
    return done


# --- what must be true afterwards ---------------------------------------------------------------------------------------


def journals(run: last_run.LastRun) -> dict[str, Any]:
    """Every ring's records from the journals; raises JournalDamaged where the chain is broken."""
    found = {}
    for entry in topology.RINGS:
        if entry.name == "frames":  # its slots only say where bytes lie: raw recordings are what is kept of it
            continue
        reader = JournalReader(journal_path(Path(run.journal_dir), entry.name), entry.record)
        reader.check()
        found[entry.name] = reader.records()
    return found


def living(pids: set[int], instance: str) -> list[int]:
    """Those processes that are still there."""
    left = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if "scalper:" in Path(f"/proc/{pid}/comm").read_text():
                left.append(pid)
    return left


def checks(run: Run, expected: dict[str, Any], oracle: int | None) -> list[tuple[str, bool, str]]:
    """(what, whether, how it is) of everything that holds after any complete run."""
    from fold_world import LOGS, identities

    told: list[tuple[str, bool, str]] = []
    kept = last_run.load(run.instance)
    if kept is None or not kept.figures:
        return [("the run left its figures", False, f"see {run.launched.log}")]
    code = run.launched.ended()
    told.append(("the supervisor ends with 0", code == 0, f"exit code {code}"))
    wrong = complaints(kept.figures, ended=True)  # type: ignore[arg-type]
    told.append(("0 overruns, 0 diverged, every gating reader at the tail, no frame missing", not wrong, "; ".join(wrong)))
    records = journals(kept)
    tails = {ring["name"]: ring["tail"] for ring in kept.figures["rings"]}
    records = {name: recs for name, recs in records.items() if name in tails}  # the others carry nothing in this world
    short = {name: (len(recs), tails[name]) for name, recs in records.items() if len(recs) != tails[name]}
    told.append(("the journals hold every record once", not short, f"(journal, tail): {short}" if short else ""))
    found = identities(records)
    for name in expected:
        if name in records and name != "control":
            what = f"{name}: the order of intake" if name in LOGS else f"{name}: {found[name][0]:,} records"
            told.append((f"{what} as undisturbed", found[name] == expected[name], "" if name in LOGS else str(expected[name])))
    if oracle is not None:
        feed = next(stage["counters"] for stage in kept.figures["stages"] if stage["name"] == "feed")
        seen = (feed["oracle_equal"], feed["oracle_checked"])
        told.append((f"the book equals the venue's best bid/ask {oracle} of {oracle} times", seen == (oracle, oracle), f"{seen}"))
    left = cleanup.list_segments(run.instance)
    told.append(("no segment is left", not left, str(left)))
    ghosts = living(run.strays, run.instance)
    told.append(("no process and no zombie is left", not ghosts, str(ghosts)))
    return told


def mostly(seen: Counter[Held]) -> Held:
    """What was held at most looks: a file that is read and closed again is in few of them, and at the end it closes all."""
    return seen.most_common(1)[0][0] if seen else ()


def kind_of(name: str) -> str:
    """`pipe:[123]` is a pipe, whichever it is; a path stays what it is."""
    return name.partition(":[")[0]


def at(values: list[float], percent: int) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(-(-percent * len(ordered) // 100), 1) - 1] if ordered else 0.0


def killed(chosen: Source, yard: tuple[dict[str, Any], int, float], placement: str, args: argparse.Namespace) -> int:
    """One run under kills, told line by line; how many checks failed."""
    expected, frames, span = yard
    run = Run("test-kill", chosen, {"source.speed": round(span / args.seconds, 3), "pipeline.placement": placement})
    try:
        run.ready()
        began = time.monotonic()
        print(f"{placement}: {frames:,} frames, {args.kills} kills, seed {args.seed}", flush=True)
        done = harass(run, args.kills, args.seed, frames)
    finally:
        run.close()
    seconds = time.monotonic() - began
    told = checks(run, expected, chosen.oracle)
    count = sum(done.kills.values())
    told.append((f"{args.kills} processes killed before the end", count == args.kills, f"{count}"))
    before, after = mostly(done.before), mostly(done.after)
    more = Counter(kind_of(name) for name in after) - Counter(kind_of(name) for name in before)
    same = bool(before and after) and not more
    told.append(("the supervisor holds no more descriptors than before", same, f"{len(before)}, then {len(after)}: {dict(more)}"))
    for what, holds, how in told:
        print(f"{'ok  ' if holds else 'FAIL'} {what}{'' if holds or not how else ': ' + how}")
    print(f"killed in {seconds:.0f} s: " + ", ".join(f"{name} {n}" for name, n in sorted(done.kills.items())))
    print(
        f"SIGKILL to consuming again ({len(done.restart_ms)} measured, waits for a killed zygote included): "
        f"p50 {at(done.restart_ms, 50):.1f} ms, p99 {at(done.restart_ms, 99):.1f} ms, max {at(done.restart_ms, 100):.1f} ms"
    )
    failed = sum(not holds for _, holds, _ in told)
    print(f"{len(told) - failed} passed, {failed} failed")
    return failed


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=70.0, help="how long a paced run takes, about")
    parser.add_argument("--usdm", action="store_true", help="the USD-M recording instead of spot")
    parser.add_argument("--placement", help="pipeline.placement; one run with each of separate and grouped where it is not given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scalper-kill.") as text:
        folder = Path(text)
        isolate(folder)
        chosen = source("usdm" if args.usdm else "spot")
        print(f"undisturbed first: {', '.join(f.name for f in chosen.files) or 'a generated market'}", flush=True)
        yard = yardstick(chosen, folder)
        placements = [args.placement] if args.placement else ["separate", "grouped"]
        failed = [killed(chosen, yard, placement, args) for placement in placements]
    return 1 if any(failed) else 0


if __name__ == "__main__":
    sys.exit(main())
