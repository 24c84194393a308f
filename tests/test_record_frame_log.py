"""Raw recordings on disk: whatever interrupts the writer, what is read back is what was taken, once and in order."""

from __future__ import annotations

import base64
import errno
import gzip
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from procs.recordings.frame_log import FrameLog, FrameLogBusy, FrameLogError, FrameLogFull, Policy, segments, stamp_of
from procs.recordings.frame_log_format import (
    HEADER_BYTES,
    Came,
    Member,
    Taken,
    came_of,
    head_of,
    is_sound,
    member,
    members,
    parse_member,
    raw_flags,
)
from procs.stages.recorder import FramesTrack
from trading.records import Kind
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import plain_frame

T0 = 1_723_161_253_937_085_768
NAMES = (("binance_spot", "BTCUSDT"), ("binance_spot", "ETHUSDT"))
PLAIN = Policy(sync="never")


def frames(count: int, seed: int, first: int = 0, step_ns: int = 50_000_000) -> list[Taken]:
    """Frames of two symbols and of none, with an event now and then."""
    rng = random.Random(seed)
    found = []
    for seq in range(first, first + count):
        kind = rng.choices((Kind.FRAME, Kind.RAW, Kind.LOST, Kind.LINE_UP, Kind.LINE_DOWN), (90, 4, 2, 2, 2))[0]
        raw = b'{"n":%d,"x":"%s"}' % (seq, rng.randbytes(rng.randrange(60)).hex().encode())
        found.append(Taken(seq, T0 + seq * step_ns, kind, rng.choice((-1, 0, 0, 1)), rng.randrange(2), raw))
    return found


def text_of(folder: Path) -> bytes:
    """What `zcat` prints of a symbol's files."""
    return b"".join(gzip.decompress(path.read_bytes()) for path in segments(folder))


def folders(base: Path) -> dict[int, Path]:
    """The folder of each symbol's index."""
    return {-1: base / "_connection", **{i: base / market / name for i, (market, name) in enumerate(NAMES)}}


def expected(taken: list[Taken]) -> dict[int, bytes]:
    """The text that the frames are to become, by symbol, written plainly."""
    lines: dict[int, list[bytes]] = {-1: [], 0: [], 1: []}
    for frame in taken:
        about = f',"s":"{NAMES[frame.symbol][1]}"' if frame.symbol >= 0 else ""
        if frame.kind in (Kind.FRAME, Kind.RAW):
            said = frame.raw.decode()
        elif frame.kind == Kind.LOST:
            said = f'{{"scalper":"lost"{about}}}'
        else:
            up = str(frame.kind == Kind.LINE_UP).lower()
            said = f'{{"scalper":"line"{about},"line":{frame.line},"up":{up}}}'
        if frame.kind == Kind.LOST and frame.symbol < 0:
            for symbol, (_, name) in enumerate(NAMES):
                lines[symbol].append(f'{frame.ts_ns} {{"scalper":"lost","s":"{name}"}}\n'.encode())
        lines[frame.symbol].append(f"{frame.ts_ns} {said}\n".encode())
    return {symbol: b"".join(of) for symbol, of in lines.items()}


def assert_holds(base: Path, taken: list[Taken]) -> None:
    """Every file's text is exactly that of the frames."""
    for symbol, text in expected(taken).items():
        assert text_of(folders(base)[symbol]) == text


class Wire:
    """A FrameSource over a list: what is not released can be taken again by the next incarnation."""

    def __init__(self, taken: list[Taken]) -> None:
        self.all, self.head, self.released = taken, 0, 0

    def take(self, most: int) -> list[Taken]:
        """As procs.recordings.frame_log.FrameSource."""
        found = self.all[self.head : self.head + most]
        self.head += len(found)
        return found

    def release(self, seq: int) -> None:
        """As procs.recordings.frame_log.FrameSource."""
        assert self.released <= seq <= self.head
        self.released = seq

    def die(self) -> None:
        """The process is gone: the next one begins at the ring's cursor."""
        self.head = self.released


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow over `size` bytes: a disk that is full in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_hold_every_line_once_and_in_order(tmp_path: Path) -> None:
    """Random batches of frames and events: each symbol's files, put together, are its lines; members say what they hold."""
    taken = frames(2000, 1)
    log = FrameLog(tmp_path, NAMES, 7, PLAIN)
    rng, at = random.Random(2), 0
    while at < len(taken):
        n = rng.randrange(1, 300)
        log.take(taken[at : at + n])
        at = min(at + n, len(taken))
        assert log.flush() == at
    log.close()
    assert_holds(tmp_path, taken)
    for folder in folders(tmp_path).values():
        (path,) = segments(folder)
        assert path.name.startswith(f"{folder.name}_2024080")
        with path.open("rb") as file:
            found = list(members(file.fileno()))
            assert all(is_sound(file.fileno(), m) for m in found)
        assert sum(m.size for m in found) == path.stat().st_size
        assert sum(m.lines for m in found) == text_of(folder).count(b"\n")
        assert all(a.end <= b.first and a.last_ns <= b.first_ns for a, b in zip(found, found[1:], strict=False))


def test_a_member_cut_at_any_byte_is_taken_back(tmp_path: Path) -> None:
    """The last member cut to every length from nothing to one byte short: the next incarnation ends with the same text."""
    taken = [Taken(seq, T0 + seq, Kind.FRAME, 0, 0, b'{"n":%d}' % seq) for seq in range(30)]
    log = FrameLog(tmp_path, NAMES, 7, PLAIN)
    log.take(taken[:20])
    log.flush()
    (path,) = segments(folders(tmp_path)[0])
    whole = path.stat().st_size
    log.take(taken[20:])
    log.flush()
    log.close()
    full = path.read_bytes()
    for size in range(whole, len(full)):
        path.write_bytes(full[:size])
        again = FrameLog(tmp_path, NAMES, 7, PLAIN)
        assert again.cut_bytes == size - whole
        assert again.take(taken[15:]) == 10  # the ring's cursor may stand anywhere before what was written
        again.flush()
        again.close()
        assert path.read_bytes() == full


def test_a_first_member_cut_at_any_byte_leaves_no_file(tmp_path: Path) -> None:
    """A file whose only member was cut short is begun anew; an empty file is no recording."""
    taken = [Taken(seq, T0 + seq, Kind.FRAME, 0, 0, b'{"n":%d}' % seq) for seq in range(5)]
    log = FrameLog(tmp_path, NAMES, 7, PLAIN)
    log.take(taken)
    log.flush()
    log.close()
    (path,) = segments(folders(tmp_path)[0])
    full = path.read_bytes()
    for size in range(len(full)):
        path.write_bytes(full[:size])
        again = FrameLog(tmp_path, NAMES, 7, PLAIN)
        assert not path.exists()
        again.take(taken)
        again.flush()
        again.close()
        assert path.read_bytes() == full


def test_a_damaged_last_member_is_written_again(tmp_path: Path) -> None:
    """A power failure can leave a member whole in length and wrong in content: it is found out and written again."""
    taken = frames(40, 3)
    log = FrameLog(tmp_path, NAMES, 7, PLAIN)
    for part in (taken[:30], taken[30:]):
        log.take(part)
        log.flush()
    log.close()
    path = segments(folders(tmp_path)[0])[0]
    raw = bytearray(path.read_bytes())
    raw[-60:] = bytes(60)
    path.write_bytes(raw)
    again = FrameLog(tmp_path, NAMES, 7, PLAIN)
    again.take(taken[30:])
    again.flush()
    again.close()
    assert_holds(tmp_path, taken)


@pytest.mark.parametrize("seed", range(10))
def test_ten_random_deaths_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """The writer dies ten times at a random byte of a random file of a batch; after each the next incarnation goes on."""
    rng = random.Random(seed)
    taken = frames(1500, seed)
    wire = Wire(taken)
    sync = rng.choice(("never", "flush", "rotate"))
    policy = Policy(rotate_ns=20 * 10**9, rotate_bytes=1 << 30, sync=sync, level=rng.randint(1, 9))
    deaths = 0
    while wire.released < len(taken):
        log = FrameLog(tmp_path, NAMES, 99, policy)
        for _ in range(rng.randrange(1, 5)):
            log.take(wire.take(rng.randrange(1, 120)))
            if deaths < 10 and rng.random() < 0.5:
                before = {p: p.stat().st_size for f in folders(tmp_path).values() for p in segments(f)}
                log.flush()
                # as if it had been killed within the flush: some file has a part of its member, those after it nothing
                cut = rng.randrange(3)
                for n, folder in enumerate([folders(tmp_path)[0], folders(tmp_path)[1], folders(tmp_path)[-1]]):
                    for path in segments(folder):
                        now, was = path.stat().st_size, before.get(path, 0)
                        if now > was and n >= cut:
                            os.truncate(path, rng.randrange(was, now) if n == cut else was)
                deaths += 1
                break
            wire.release(log.flush())
        log.close()
        wire.die()
    assert deaths == 10
    assert_holds(tmp_path, taken)


def test_a_full_disk_keeps_the_batch_and_the_files_whole(tmp_path: Path) -> None:
    """While a file cannot grow nothing is released and no file has half a member; with room again all is written, in order."""
    taken = frames(600, 5)
    wire = Wire(taken)
    track = FramesTrack(wire, FrameLog(tmp_path, NAMES, 1, PLAIN), 1.0, 4000)
    now, full = 0, 0
    for turn in range(60):
        now += 10**9
        with file_limit(3000 + 250 * turn):
            before = wire.released
            try:
                track.take(now)
            except FrameLogFull as error:
                full += 1
                assert wire.released == before and "free disk space" in str(error)
                with pytest.raises(FrameLogFull):
                    track.take(now)
        for folder in folders(tmp_path).values():
            for path in segments(folder):
                with path.open("rb") as file:
                    assert sum(m.size for m in members(file.fileno())) == path.stat().st_size
    while wire.released < len(taken):
        track.take(now, last=True)
    track.log.close()
    assert full > 3
    assert_holds(tmp_path, taken)


@pytest.mark.parametrize("policy", [Policy(rotate_ns=5 * 10**9, sync="never"), Policy(rotate_bytes=2000, sync="rotate")])
def test_rotation_loses_nothing(tmp_path: Path, policy: Policy) -> None:
    """By time and by size there are several files, named in the order of their frames, and together they hold everything."""
    taken = frames(3000, 6, step_ns=10_000_000)
    log = FrameLog(tmp_path, NAMES, 1, policy)
    for at in range(0, len(taken), 50):
        log.take(taken[at : at + 50])
        log.flush()
    log.close()
    assert all(len(segments(folder)) >= 4 for folder in folders(tmp_path).values())
    assert_holds(tmp_path, taken)


def test_another_run_begins_a_file_of_its_own(tmp_path: Path) -> None:
    """Sequences begin anew with each run: a second run in the same second skips no frame and writes into no file of the first."""
    taken = frames(50, 8)
    for run in (1, 2):
        log = FrameLog(tmp_path, NAMES, run, PLAIN)
        assert log.take(taken) == len(taken)
        log.flush()
        log.close()
    first, second = segments(folders(tmp_path)[0])
    assert first.name.endswith("Z.gz") and second.name.endswith("Z_001.gz")
    assert gzip.decompress(first.read_bytes()) == gzip.decompress(second.read_bytes())


def test_a_clock_that_is_put_back_keeps_the_order_of_the_files(tmp_path: Path) -> None:
    """Frames stamped before the file at hand go into one that sorts behind it."""
    log = FrameLog(tmp_path, NAMES, 1, Policy(rotate_bytes=1, sync="never"))
    for k, back in enumerate((0, 3600, 7200)):
        log.take([Taken(k, T0 - back * 10**9, Kind.FRAME, 0, 0, b'{"n":%d}' % k)])
        log.flush()
    log.close()
    assert [line.split(b" ")[1] for line in text_of(folders(tmp_path)[0]).splitlines()] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


def written_in_parts(base: Path, taken: list[Taken], parts: int, run: int = 7) -> tuple[Path, list[Member]]:
    """The first symbol's one file, with a member for each part, and its members."""
    log = FrameLog(base, NAMES, run, PLAIN)
    size = len(taken) // parts
    for at in range(0, len(taken), size):
        log.take(taken[at : at + size])
        log.flush()
    log.close()
    (path,) = segments(folders(base)[0])
    with path.open("rb") as file:
        return path, list(members(file.fileno()))


@pytest.mark.parametrize("run", [7, 8])
@pytest.mark.parametrize("damage", ["header", "first header", "body", "page", "two"])
def test_a_damaged_part_costs_only_itself(tmp_path: Path, damage: str, run: int) -> None:
    """A power failure has damaged the middle of a file: the sound members behind it stay and can be read, the damaged bytes lie
    beside the file, a line says where something is lost, and recording goes on behind all that."""
    taken = [Taken(seq, T0 + seq, Kind.FRAME, 0, 0, b'{"n":%d,"x":"%d"}' % (seq, seq * 7919 % 104729)) for seq in range(600)]
    path, found = written_in_parts(tmp_path, taken, 6)
    raw = bytearray(path.read_bytes())
    gone = {"header": [2], "first header": [0], "body": [3], "page": [1, 2, 3], "two": [1, 4]}[damage]
    for k in gone:
        begin, size = found[k].offset, found[k].size
        if damage == "page":  # from the middle of one member to the middle of another
            begin, size = (begin + size // 2 if k == 1 else begin), (size // 2 if k == 3 else size)
        raw[begin if damage != "body" else begin + 90 : begin + (size if damage == "page" else 100)] = bytes(
            (size if damage == "page" else 100) - (90 if damage == "body" else 0)
        )
    path.write_bytes(raw[: path.stat().st_size])
    log = FrameLog(tmp_path, NAMES, run, PLAIN)
    if damage == "body" and run == 7:  # of this run, thus none of a power failure: not looked for
        log.close()
        return
    more = [Taken(seq + (0 if run == 8 else 600), T0 + 600 + seq, Kind.FRAME, 0, 0, b'{"m":%d}' % seq) for seq in range(5)]
    assert log.take(more) == 5
    log.flush()
    assert log._logs[0].damaged_bytes == sum(found[k].size for k in gone) and log.cut_bytes == 0
    log.close()
    lines = text_of(folders(tmp_path)[0]).splitlines()
    kept = [taken[k * 100 : k * 100 + 100] for k in range(6)]
    want: list[bytes] = []
    for k, part in enumerate(kept):
        if k not in gone:
            if k - 1 in gone:
                of = sum(found[j].size for j in range(k) if j in gone and all(i in gone for i in range(j, k)))
                want.append(b'%d {"scalper":"lost","s":"BTCUSDT","damaged_bytes":%d}' % (part[0].ts_ns, of))
            want += [b"%d %s" % (frame.ts_ns, frame.raw) for frame in part]
    assert lines == want + [b"%d %s" % (frame.ts_ns, frame.raw) for frame in more]
    beside = sorted(path.parent.glob("*.damaged-*"))
    assert sum(one.stat().st_size for one in beside) == sum(found[k].size for k in gone)
    assert not list(path.parent.glob(".*.partial"))
    FrameLog(tmp_path, NAMES, run, PLAIN).close()
    assert text_of(folders(tmp_path)[0]).splitlines() == lines, "there is nothing more to repair"


def test_a_disk_that_fails_keeps_the_batch_and_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO on one symbol's file: the error names it, the others get their members, nothing is given back; later all is written."""
    taken = frames(300, 11)
    wire = Wire(taken)
    track = FramesTrack(wire, FrameLog(tmp_path, NAMES, 1, PLAIN), 1.0, 4000)
    wire.all = taken[:100]
    track.take(10**9, last=True)
    real, (path,) = os.pwrite, segments(folders(tmp_path)[0])
    number = path.stat().st_ino

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if os.fstat(fd).st_ino == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, data, at)

    wire.all = taken
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        for _ in range(3):
            with pytest.raises(FrameLogError, match="check the disk") as caught:
                track.take(2 * 10**9, last=True)
            assert str(path) in str(caught.value) and not isinstance(caught.value, FrameLogFull) and wire.released == 100
        others = [text_of(folders(tmp_path)[symbol]).count(b"\n") for symbol in (1, -1)]
    while wire.released < len(taken):
        track.take(3 * 10**9, last=True)
    track.log.close()
    assert_holds(tmp_path, taken)
    assert min(others) > 10 + min(expected(taken[:100])[symbol].count(b"\n") for symbol in (1, -1))


def test_frames_that_came_by_another_connection_are_marked(tmp_path: Path) -> None:
    """A venue's file begins with what it is of, an event stands where the connection changes, and after each rotation and each
    death of the writer both are there for whoever reads from that file on."""
    head = head_of("AAAUSD", "kraken", "AAA/USD", "0.01", "0.1", "0.1", 25)
    came = [Came(0, 1, False)] * 3 + [Came(2, 2, True), Came(0, 1, False), Came(2, 2, False), Came(2, 2, False)]
    assert all(came_of(raw_flags(one)) == one for one in [*came, Came(255, 0x3FFFFF, True)])
    taken = [Taken(seq, T0 + seq, Kind.RAW, 0, raw_flags(one), b'{"n":%d}' % seq) for seq, one in enumerate(came)]
    log = FrameLog(tmp_path, [("kraken", "AAAUSD")], 1, Policy(rotate_ns=5, sync="never"), [head])
    for part in (taken[:1], taken[1:4], taken[4:6]):
        log.take(part)
        log.flush()
    log.take(taken[6:])
    log.close()  # killed before it wrote
    again = FrameLog(tmp_path, [("kraken", "AAAUSD")], 1, Policy(rotate_ns=5, sync="never"), [head])
    again.take(taken)
    again.flush()
    again.close()

    def mark(line: int, connection: int, more: str = "") -> str:
        return f'{{"scalper":"on","s":"AAAUSD","line":{line},"connection":{connection}{more}}}'

    one, two = segments(tmp_path / "kraken" / "AAAUSD")
    texts = [gzip.decompress(path.read_bytes()).decode().splitlines() for path in (one, two)]
    first, second = ([line.split(" ", 1)[1] for line in text] for text in texts)
    numbers = [f'{{"n":{n}}}' for n in range(7)]
    assert first[:1] == [head.decode()] == second[:1]
    aside = mark(2, 2, ',"aside":true')
    assert first[1:] == [mark(0, 1), *numbers[:3], aside, numbers[3], mark(0, 1), numbers[4], mark(2, 2), numbers[5]]
    assert second[1:] == [mark(2, 2), numbers[6]]


def test_what_has_no_frames_of_its_own_leaves_no_file(tmp_path: Path) -> None:
    """Symbols by way of ccxt: neither their plain frames nor their lines make a recording; the others are kept."""
    log = FrameLog(tmp_path, [("ccxt:kucoin", "AUSDT"), ("okx", "BUSDT")], 1, PLAIN)
    log.take([Taken(k, T0, Kind.LINE_UP, k, 0, b"") for k in (0, 1)])
    assert log.flush() == 2
    log.close()
    assert [path.parent.name for path in tmp_path.rglob("*.gz")] == ["BUSDT"] and len(list(tmp_path.iterdir())) == 2


def test_a_loss_of_nobody_knows_whom_is_declared_everywhere(tmp_path: Path) -> None:
    """Any file may be the one that misses the bytes, so each says so."""
    log = FrameLog(tmp_path, NAMES, 1, PLAIN)
    log.take([Taken(0, T0, Kind.LOST, -1, 0, b"")])
    assert log.flush() == 1
    log.close()
    assert {text_of(folder) for folder in folders(tmp_path).values()} == {
        b'%d {"scalper":"lost"%s}\n' % (T0, about) for about in (b"", b',"s":"BTCUSDT"', b',"s":"ETHUSDT"')
    }


def test_two_writers_of_one_folder_are_refused(tmp_path: Path) -> None:
    """The second is told which folder, and what to do."""
    log = FrameLog(tmp_path, NAMES, 1, PLAIN)
    with pytest.raises(FrameLogBusy, match="record into another folder"):
        FrameLog(tmp_path, NAMES, 2, PLAIN)
    log.close()
    FrameLog(tmp_path, NAMES, 2, PLAIN).close()


def test_what_is_no_line_of_text_becomes_one(tmp_path: Path) -> None:
    """Line breaks become blanks; what is no text or damaged at an end becomes base64; plain frames are left out."""
    plain = plain_frame(FrameKind.TRADE, 0, T0, np.zeros((0, 2), np.int64))
    taken = [
        Taken(0, T0, Kind.FRAME, 0, 0, plain),
        Taken(1, T0, Kind.RAW, 0, 0, b'{\r\n "a": 1\n}'),
        Taken(2, T0, Kind.RAW, 0, 0, b"\x8b\xff"),
        Taken(3, T0, Kind.FRAME, 0, 0, b'{"e":"depthUpd'),
        Taken(4, T0, Kind.FRAME, 0, 0, b'#"e":"trade"}'),
    ]
    log = FrameLog(tmp_path, NAMES, 1, PLAIN)
    log.take(taken)
    assert log.flush() == 5
    log.close()
    assert text_of(folders(tmp_path)[0]).splitlines() == [
        b'%d {   "a": 1 }' % T0, *(b'%d {"scalper":"bytes","s":"BTCUSDT","base64":"%s"}' % (T0, base64.b64encode(raw))
                                   for raw in (taken[2].raw, taken[3].raw, taken[4].raw))
    ]  # fmt: skip


def test_frames_wait_no_longer_than_they_may(tmp_path: Path) -> None:
    """A frame goes to disk when its time is over, or when enough text waits; until then its slot is not given back."""
    taken = frames(100, 9)
    wire = Wire(taken)
    track = FramesTrack(wire, FrameLog(tmp_path, NAMES, 1, PLAIN), 2.0, 1 << 20)
    wire.all = taken[:10]
    assert track.take(10**9) == 10 and wire.released == 0
    track.take(3 * 10**9 - 1)
    assert wire.released == 0
    track.take(3 * 10**9)
    assert wire.released == 10
    wire.all = taken
    assert track.take(4 * 10**9, last=True) == 90 and wire.released == 100
    track.log.close()
    assert_holds(tmp_path, taken)


def test_a_member_is_found_in_any_bytes_or_none() -> None:
    """Random bytes are no member, and a member of ours is read back as it was made."""
    rng = random.Random(4)
    made = member(b"1 {}\n", 5, 6, 7, 8, 9, 1, 6)
    found = parse_member(made[:HEADER_BYTES], 0)
    assert found is not None and found[1:] == (5, 6, 7, 8, 9, len(made), 1)
    for _ in range(500):
        raw = bytearray(made[:HEADER_BYTES])
        raw[rng.randrange(12)] ^= 1 << rng.randrange(8)
        parse_member(bytes(raw), 0)
        parse_member(rng.randbytes(HEADER_BYTES), 0)
    assert stamp_of(T0) == "20240808T235413Z"
