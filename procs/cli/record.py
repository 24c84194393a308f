"""`record`: record a venue's market data in the foreground, with a living view, until Ctrl-C; then a summary.

It runs an instance of its own, `record`: receiver, feed and recorder, nothing that trades. The feed is there to watch the
books: gaps and resyncs are seen while they happen.

What this module is not: it writes no frame; `procs.recordings.frame_log` does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from procs import rundir
from procs.cli import last_run, running
from procs.cli.figures import Snapshot, complaints, snapshot
from procs.cli.observe import Markets, Symbol
from procs.cli.outcome import FAILED, OK, UNHEALTHY, USAGE, CliError
from procs.cli.progress import Progress
from procs.cli.staging import child_environment
from procs.cli.starting import Launch, refuse_if_running
from procs.cli.symbols import of_profile
from procs.cli.table import clean_text, count, paint_for, rate, span
from procs.memory.segments import Memory, attach
from procs.profiles.config import load_profile, parse_override
from procs.profiles.schema import Profile
from procs.recordings.frame_log import WITHOUT_FRAMES, segments
from procs.recordings.frame_log_format import CONNECTION, SUFFIX
from procs.supervision import control
from shm.errors import SegmentError
from trading.venues.names import DEFAULT

INSTANCE: Final = "record"
STOP_TIMEOUT_S: Final = 60.0
LOW_PRIORITY: Final = 19


def record(args: argparse.Namespace) -> int:
    """The command."""
    words = words_of(args)
    profile = profile_of(args, words)
    folder = folder_of(profile)
    if args.parquet:
        from procs.recordings.parquet import arrow

        arrow()
    refuse_if_running(profile.instance)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(f"{folder}: {(error.strerror or str(error)).lower()}; name another folder with --out", USAGE) from None
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # ended by a service manager: in order as well
    note = Progress()
    note(f"starting {profile.instance}")
    launched = Launch(profile, [*(["--config", args.config] if args.config else []), *_as_options(words)])
    session = Session(launched, profile, folder, Converter(folder, args.parquet), quiet=args.json)
    try:
        code = launched.wait_ready(900.0, note)
        note.end()
        if code is not None:
            return launched.explain(code)
        session.watch(args.seconds)
    except KeyboardInterrupt:
        note.end()
        session.stop()
    except BaseException:
        launched.give_up()
        raise
    return session.conclude(args.json)


# ---- what is wanted


def words_of(args: argparse.Namespace) -> dict[str, str]:
    """The command line as overrides of a profile, each value YAML."""
    found = {"world": "record", "source.kind": "live", "source.files": "[]"}
    if not args.config:
        found |= {"instance": INSTANCE, "pipeline.journal": "false"}
        if not args.symbols:
            raise CliError("nothing to record: give --symbols BTCUSDT,ETHUSDT, or a profile with --config", USAGE)
    if args.instance:
        found["instance"] = args.instance
    if args.venue:
        found["live.venue"] = f'"{args.venue}"'
    if args.symbols:
        names = [name.strip().upper() for name in args.symbols.split(",") if name.strip()]
        found["symbols"] = json.dumps([{"name": name, **({"market": args.venue} if args.venue else {})} for name in names])
    if args.out:
        found["record.folder"] = json.dumps(os.path.abspath(args.out))
    if args.endpoint:
        found["live.endpoints"] = json.dumps([{"venue": args.venue or DEFAULT.label, **_addresses(args.endpoint)}])
    for text in args.set or []:
        key, _, value = text.partition("=")
        found[key.strip()] = value
    return found


def _addresses(text: str) -> dict[str, str]:
    found = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key not in ("stream", "rest") or not equals:
            raise CliError(f"--endpoint {part!r} is no address: write stream=ws://HOST:PORT,rest=http://HOST:PORT", USAGE)
        found[key] = value
    return found


def _as_options(words: dict[str, str]) -> list[str]:
    return [word for key, value in words.items() for word in ("--set", f"{key}={value}")]


def profile_of(args: argparse.Namespace, words: dict[str, str]) -> Profile:
    """The profile that the pipeline will run by. Raises ConfigError, and CliError for a venue that sends no frames of its own."""
    profile = load_profile(args.config or "paper", dict(parse_override(f"{key}={value}") for key, value in words.items()))
    markets = {symbol.market or profile.live.venue for symbol in profile.symbols}
    if without := sorted(market for market in markets if market.startswith(WITHOUT_FRAMES)):
        raise CliError(f"{without[0]} cannot be recorded: ccxt hands on no frames of the venue's; name another venue", USAGE)
    return profile


def folder_of(profile: Profile) -> Path:
    """Where the files go: as procs.stages.recorder has it, without loading a kernel."""
    return Path(profile.record.folder) if profile.record.folder else rundir.state_dir(profile.instance) / "recordings"


# ---- Parquet of finished files


class Converter:
    """Converts each finished file in a child at low priority, one at a time. A file goes on with the books of those before it."""

    def __init__(self, folder: Path, wanted: bool) -> None:
        self.folder, self.wanted = folder, wanted
        self.failed: list[str] = []
        self.done = 0
        self._before = set(self._files())
        self._taken: set[Path] = set()
        self._child: subprocess.Popen[str] | None = None
        self._path: Path | None = None

    def _files(self) -> list[Path]:
        return [path for path in sorted(self.folder.glob(f"*/*/*_*{SUFFIX}")) if path.parent.name != CONNECTION]

    def step(self, *, ended: bool = False) -> bool:
        """Begin or reap a conversion; whether there is more to do. `ended`: the newest files are finished, too."""
        if not self.wanted:
            return False
        if self._child is not None:
            if self._child.poll() is None:
                return True
            said = self._child.stderr.read().strip() if self._child.stderr else ""
            if self._child.returncode:
                self.failed.append(f"{self._path}: {said.splitlines()[-1] if said else 'no reason given'}")
            else:
                self.done += 1
            self._child = None
        for path in self._files():
            own = [p for p in segments(path.parent) if p not in self._before]
            if path in self._before or path in self._taken or not own or (path == own[-1] and not ended):
                continue
            self._begin(path, own[: own.index(path)])
            return True
        return False

    def _begin(self, path: Path, after: Sequence[Path]) -> None:
        self._taken.add(path)
        self._path = path
        command = [sys.executable, "-P", "-m", "procs.cli.main", "data", "convert", str(path), "--to", "parquet"]
        command += ["--out", str(self.folder / "parquet"), *(["--after", *map(str, after)] if after else [])]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=child_environment(),
            start_new_session=True,  # Ctrl-C is for the recording: a conversion ends its file
        )  # fmt: skip
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._child.pid, LOW_PRIORITY)

    def finish(self) -> None:
        """All that is left, to the end."""
        while self.step(ended=True):
            if self._child is not None:
                self._child.wait()


# ---- one recording


class Session:
    """One recording: from a pipeline that runs to its summary."""

    def __init__(self, launched: Launch, profile: Profile, folder: Path, converter: Converter, *, quiet: bool) -> None:
        self.launched, self.profile, self.folder, self.converter, self.quiet = launched, profile, folder, converter, quiet
        self.symbols: list[Symbol] = of_profile(profile)
        self._markets = Markets(len(self.symbols))
        self._memory: Memory | None = None
        self._before = {path: path.stat().st_size for path in self._files()}
        self._began = time.monotonic()
        self._last = (0, 0.0)
        self.code = 0
        self.stopped = False

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob(f"*_*{SUFFIX}") if path.is_file() and not path.name.startswith("."))

    def written(self) -> tuple[int, int]:
        """(files, bytes) that this recording has written."""
        found = {path: path.stat().st_size for path in self._files()}
        grown = {path: size - self._before.get(path, 0) for path, size in found.items() if size != self._before.get(path, 0)}
        return len(grown), sum(grown.values())

    def watch(self, seconds: float) -> None:
        """A line a second (on a terminal: written over) until the end; after `seconds`, if not 0, it is told to end."""
        paint = paint_for(sys.stdout)
        if not self.quiet:
            names = ", ".join(symbol.name for symbol in self.symbols)
            print(f"recording {names} of {self.profile.live.venue} to {self.folder}; Ctrl-C ends it", flush=True)
        self._began = time.monotonic()
        while self.launched.ended() is None:
            if seconds and time.monotonic() - self._began >= seconds:
                self.stop()
                return
            self._show(paint)
            self.converter.step()
            until = time.monotonic() + 1.0
            if seconds:
                until = min(until, self._began + seconds)
            while self.launched.ended() is None and time.monotonic() < until:
                time.sleep(0.02)
        self.code = self.launched.ended() or 0

    def stop(self) -> None:
        """End in order, and wait for it; Ctrl-C again gives up."""
        self.stopped = True
        if not self.quiet:
            print("\nending the recording ..." if sys.stdout.isatty() else "ending the recording ...", flush=True)
        limit, asked = time.monotonic() + STOP_TIMEOUT_S, 0.0
        try:
            while self.launched.ended() is None and time.monotonic() < limit:
                if time.monotonic() - asked > 2.0:  # it may still be starting
                    asked = time.monotonic()
                    with contextlib.suppress(control.ControlError):
                        running.ask(self.profile.instance, {"do": "stop"})
                time.sleep(0.02)
        except KeyboardInterrupt:
            pass
        if self.launched.ended() is None:
            self.launched.give_up()
        self.code = self.launched.ended() or 0

    def _look(self) -> Snapshot | None:
        if self._memory is None:
            with contextlib.suppress(SegmentError):
                self._memory = attach(self.profile.instance, rings=None, readonly=True)
        if self._memory is None:
            return None
        self._markets.look(self._memory.ring("market"))
        return snapshot(self._memory)

    def _show(self, paint: Any) -> None:
        figures = None if self.quiet else self._look()
        if figures is None:
            return
        line = self.line(figures, paint)
        if sys.stdout.isatty():
            sys.stdout.write(f"\r\x1b[K{line}")
            sys.stdout.flush()
        else:
            print(line, flush=True)

    def line(self, figures: Snapshot, paint: Any) -> str:
        """The living view."""
        feed = next(stage["counters"] for stage in figures["stages"] if stage["name"] == "feed")
        frames = next(ring["tail"] for ring in figures["rings"] if ring["name"] == "frames")
        now = time.monotonic()
        pace = (frames - self._last[0]) / max(now - self._last[1], 1e-3) if self._last[1] else None
        self._last = (frames, now)
        files, size = self.written()
        books = " ".join(
            paint(symbol.name, "green") if top.valid else paint(f"{symbol.name} stale", "yellow")
            for symbol, top in zip(self.symbols, self._markets.tops, strict=True)
        )
        return (
            f"{span((now - self._began) * 1e9)}  {count(frames)} frames ({rate(pace)}/s)  {size / 1e6:.1f} MB in {files} files  "
            f"{feed['gaps']} gaps  {feed['resyncs']} resyncs  {books}"
        )

    def conclude(self, as_json: bool) -> int:
        """Print the summary; returns the exit code."""
        if self._memory is not None:
            with contextlib.suppress(SegmentError, BufferError):
                self._memory.close()
        self.converter.finish()
        run = last_run.load(self.profile.instance)
        files, size = self.written()
        figures: Any = run.figures if run is not None else None
        wrong = [f"the pipeline ended with exit code {self.code} (log: {self.launched.log})"] if self.code else []
        wrong += self.converter.failed
        feed: dict[str, int] = {}
        frames = 0
        if figures:
            wrong += complaints(figures, ended=True)
            feed = next(stage["counters"] for stage in figures["stages"] if stage["name"] == "feed")
            frames = next(ring["tail"] for ring in figures["rings"] if ring["name"] == "frames")
        else:
            wrong.append(f"the run left no figures: see {self.launched.log}")
        said = {
            "folder": str(self.folder), "venue": self.profile.live.venue, "symbols": [s.name for s in self.symbols],
            "seconds": round(time.monotonic() - self._began, 3), "frames": frames, "files": files, "bytes": size,
            "gaps": feed.get("gaps", 0), "resyncs": feed.get("resyncs", 0), "unknown": feed.get("unknown", 0),
            "malformed": feed.get("malformed", 0), "oracle_checked": feed.get("oracle_checked", 0),
            "oracle_equal": feed.get("oracle_equal", 0), "parquet_files": self.converter.done,
            "complaints": wrong, "ok": not wrong,
        }  # fmt: skip
        if as_json:
            print(json.dumps(said, indent=2))
        else:
            print(f"recorded {frames:,} frames, {size / 1e6:.1f} MB in {files} files: {self.folder}")
            print(f"  {said['gaps']} gaps, {said['resyncs']} resyncs, {said['unknown']} unknown, {said['malformed']} malformed, "
                  f"book == bbo {said['oracle_equal']}/{said['oracle_checked']}")  # fmt: skip
            for text in wrong:
                print(paint_for(sys.stdout)(f"! {clean_text(text)}", "red"))
            print(f"check it: scalperctl data check {self.folder}")
        if self.code and not self.stopped:
            return self.code if self.code > 0 else FAILED
        return UNHEALTHY if wrong else OK
