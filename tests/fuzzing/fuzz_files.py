"""Fuzz targets of everything that is read from files: profiles, journals, recordings, gzip members.

Each reader either takes the bytes or raises its own error with a sentence; nothing else may escape, and what it takes must be
what an independent reading of the same bytes finds.

Short reads and full disks have tests of their own.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import re
import tempfile
import zlib
from pathlib import Path

import numpy as np
from fuzz_target import ROOT, SCRATCH, Features, Target, claim, mutate_bytes, mutate_text, recordings

from procs.bench.market_frames import generated
from procs.journal.file import HEADER_BYTES, JournalReader, JournalWriter
from procs.journal.format import MAGIC, VERSION, JournalError
from procs.profiles.config import ConfigError, load_profile, profile_from_json, profile_json
from sim.recordings.recording import RecordingError, open_spool, stage
from sim.recordings.spool import OUT_END, OUT_RECV_NS, OUT_START, OUT_WORDS, next_frame
from trading.records import CONTROL_RECORD, MARKET_RECORD


class FileTarget(Target):
    """A target whose input is a file."""

    suffix = ""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="input-", dir=os.environ.get(SCRATCH))
        self.path = Path(self.folder.name, f"input{self.suffix}")

    def write(self, raw: bytes) -> None:
        """The input as the file."""
        self.path.write_bytes(raw)

    def close(self) -> None:
        """Remove the folder."""
        self.folder.cleanup()


class Profiles(FileTarget):
    """YAML profiles."""

    name = "profiles"
    meaning = "YAML profiles through the strict loader"
    instrument = ("procs.profiles.strict_yaml", "procs.profiles.config", "procs.profiles.relations")
    suffix = ".yaml"

    def seeds(self) -> list[bytes]:
        """The shipped ones."""
        return [path.read_bytes() for path in sorted((ROOT / "config").glob("*.yaml"))] + [
            b"instance: x\nsource: {kind: live}\nlive: {venue: okx}\nsymbols: [{name: BTCUSDT, venue_name: BTC-USDT}]\n",
            b"symbols:\n  - name: BTCUSDT\n    tick_size: '0.1'\nrisk: &r {equity: 1e5}\npipeline: {cores: [0, 1]}\n",
        ]

    def run(self, raw: bytes) -> Features:
        """A profile that survives its own JSON, or ConfigError."""
        self.write(raw)
        try:
            profile = load_profile(self.path)
        except ConfigError as error:
            claim(str(error).strip(), "a refusal without a word")
            return (0, len(str(error).split()) % 16)
        claim(profile_from_json(profile_json(profile)) == profile, "a profile that its own JSON changes")
        return (1, len(profile.symbols))


class Journals(FileTarget):
    """A journal's header page and slots. Mutations mostly mend the checksum, or nothing behind it would be seen."""

    name = "journals"
    meaning = "journal headers and slots"
    instrument = ("procs.journal.file", "procs.journal.format")
    suffix = ".journal"

    def seeds(self) -> list[bytes]:
        """Two layouts, with slots and without."""
        found = []
        for ring, record, slots in (("market", MARKET_RECORD, 2), ("control", CONTROL_RECORD, 0), ("control", CONTROL_RECORD, 3)):
            self.path.unlink(missing_ok=True)
            with JournalWriter.open(self.path, ring, record, "fuzz") as journal:
                rows = np.zeros(slots, record)
                rows["seq"] = np.arange(1, slots + 1)
                journal.append(rows)
            found.append(self.path.read_bytes())
        self.path.unlink()
        return found

    def mutate(self, raw: bytes, rng: random.Random, pool: list[bytes]) -> bytes:
        """Change the JSON and mend its checksum, or change bytes anywhere."""
        line, newline, rest = raw[:HEADER_BYTES].partition(b"\n")
        if rng.random() < 0.3 or not newline:
            return mutate_bytes(raw, rng, pool)[: self.max_bytes]
        body = rest.rstrip(b" \n")
        for _ in range(rng.randint(1, 3)):
            body = mutate_text(body, rng, [])
        if rng.random() < 0.2:
            body = body.replace(b"0", rng.choice((b"1e999", b"-Infinity", b"-1", b"99999999999999999999", b"[]", b"true")), 1)
        body = body.rstrip(b" \n")[: HEADER_BYTES - 128]
        page = b"%s %d %s\n%s" % (MAGIC, VERSION, hashlib.blake2b(body, digest_size=16).hexdigest().encode(), body)
        return (page + b" " * (HEADER_BYTES - 1 - len(page)) + b"\n" + raw[HEADER_BYTES:])[: self.max_bytes]

    def run(self, raw: bytes) -> Features:
        """Read it, and open it to go on writing: JournalError or whole slots."""
        self.write(raw)
        try:
            reader = JournalReader(self.path)
            rows = reader.records()
            claim(len(rows) * reader.header.record_bytes <= max(len(raw) - HEADER_BYTES, 0), "more slots than bytes")
            gaps = len(reader.gaps())
        except JournalError as error:
            claim(str(error).strip(), "a refusal without a word")
            rows, gaps = np.zeros(0), -1
        wrote = 0
        try:
            with JournalWriter.open(self.path, "control", CONTROL_RECORD, "fuzz") as journal:
                wrote = 1 + journal.next_sequence % 4
        except JournalError:
            wrote = 0
        return (min(len(rows), 4), min(gaps, 3), wrote)


_LINE = re.compile(rb"[ \t]*([0-9]+) +(\{.*\})[ \t\r]*\Z", re.S)


def plain_lines(text: bytes) -> list[tuple[int, bytes]]:
    """(receive time, frame) of each line, by a plain reading."""
    found = []
    for line in text.split(b"\n"):
        if match := _LINE.match(line):
            found.append((int(match[1]), match[2]))
    return found


class Recordings(FileTarget):
    """Recorded text, plain."""

    name = "recordings"
    meaning = "the recordings reader"

    def seeds(self) -> list[bytes]:
        """Generated lines, a snapshot in line, and recorded ones."""
        frames = generated(limit=60, seed=5)
        lines = [b"%d %s\n" % (at, raw) for at, raw in zip(frames.recv.tolist(), frames.all())]
        small = [line for line in lines if len(line) < 2000]
        found = [b"".join(small[:3]), b"".join(small[:20]), b"".join(reversed(small[:6])), small[0].rstrip()]
        folder = recordings()
        path = folder / "hftbacktest_binance" / "usdm_btcusdt_20240718.gz" if folder is not None else None
        if path is not None and path.is_file():
            with gzip.open(path) as text:
                found.append(b"".join(line for line, _ in zip(text, range(12)) if len(line) < 1500))
        return found

    def text_of(self, raw: bytes) -> bytes | None:
        """What the file says, independently; None: not to be told."""
        return None if raw.startswith(b"\x1f\x8b") else raw

    def run(self, raw: bytes) -> Features:
        """RecordingError, or a spool of the very lines."""
        self.write(raw)
        out = Path(self.folder.name, "spool")
        try:
            staged = stage([self.path], out)
        except RecordingError as error:
            claim(str(error).strip(), "a refusal without a word")
            claim(not out.exists(), "a refused recording left a spool")
            return (0, len(str(error).split()) % 16)
        try:
            spool, again = open_spool(out)
            claim(again.n_frames == staged.n_frames and again.symbols == staged.symbols, "the spool says another thing")
            staged.symbols[0].instrument()
            where, at, found = np.zeros(OUT_WORDS, np.int64), 0, []
            while at := next_frame(spool, at, where):
                found.append((int(where[OUT_RECV_NS]), spool[where[OUT_START] : where[OUT_END]].tobytes()))
            claim(len(found) == staged.n_frames, f"{len(found)} frames in a spool of {staged.n_frames}")
            text = self.text_of(raw)
            if text is not None and all(_LINE.match(line) or not line.strip() for line in text.split(b"\n")):
                wanted = plain_lines(text)
                frames = [frame.rstrip(b" \t\r") for _, frame in wanted]
                same = [frame.rstrip(b" \t\r") for _, frame in found] == frames
                claim(same, f"{len(found)} frames, a plain reading has {len(frames)}")
                raised = np.maximum.accumulate(np.array([t for t, _ in wanted], np.int64)).tolist()
                claim([t for t, _ in found] == raised, "other receive times than a plain reading's")
        finally:
            out.unlink(missing_ok=True)
        return (1, min(len(found), 32), int(staged.clamped > 0), len(staged.notes))


class GzipMembers(Recordings):
    """The same as gzip, members one after another; the mutations change text, members, or the packed bytes."""

    name = "gzip-members"
    meaning = "recordings as gzip members"
    suffix = ".gz"

    def seeds(self) -> list[bytes]:
        """One member, two, an empty one between, zeros behind."""
        found = []
        for text in super().seeds():
            lines = text.splitlines(keepends=True)
            half = len(lines) // 2
            one, two = gzip.compress(b"".join(lines[:half]), mtime=0), gzip.compress(b"".join(lines[half:]), mtime=0)
            found += [gzip.compress(text, mtime=0), one + two, one + gzip.compress(b"", mtime=0) + two, one + two + bytes(64)]
        return found

    def mutate(self, raw: bytes, rng: random.Random, pool: list[bytes]) -> bytes:
        """Mostly inside the members."""
        how = rng.randrange(4)
        if how == 0:
            return mutate_bytes(raw, rng, pool)[: self.max_bytes]
        if how == 1:
            return (raw + rng.choice(pool or [raw]))[: self.max_bytes]
        try:
            text = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error):
            return mutate_bytes(raw, rng, pool)[: self.max_bytes]
        text = mutate_text(text, rng, [])[: 4 * self.max_bytes]
        cut = rng.randrange(len(text) + 1)
        return gzip.compress(text[:cut], 1, mtime=0) + gzip.compress(text[cut:], 1, mtime=0)

    def text_of(self, raw: bytes) -> bytes | None:
        """By Python's own gzip, where it takes the whole."""
        try:
            return gzip.decompress(raw)
        except (OSError, EOFError, zlib.error):
            return None


