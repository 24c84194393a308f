"""The on-disk form of a ring: nothing doubled, nothing lost, nothing foreign taken for a journal."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procs.journal.file import (
    HEADER_BYTES,
    JournalBusy,
    JournalDamaged,
    JournalError,
    JournalFormatError,
    JournalFull,
    JournalMismatch,
    JournalReader,
    JournalSequenceError,
    JournalWriter,
    journal_path,
)
from procs.journal.format import describe_dtype, dtype_of
from trading import records

ALL_RECORDS = [value for name, value in vars(records).items() if name.endswith("_RECORD")]
CONTROL = records.CONTROL_RECORD
ROOT = Path(__file__).resolve().parents[1]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def slots(first: int, count: int, dtype: np.dtype = CONTROL) -> np.ndarray:
    """Whole slots of sequences first..first+count-1, their contents a function of the sequence."""
    made = np.zeros(count, dtype)
    made["ts_ns"] = np.arange(first, first + count) * 1000 + 7
    made["kind"] = records.Kind.HALT
    made["seq"] = np.arange(first, first + count) + 1
    return made


def opened(path: Path, **more: int) -> JournalWriter:
    """The writer of a control ring's journal at `path`."""
    return JournalWriter.open(path, "control", CONTROL, "test", **more)


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """The kernel refuses writes behind `limit` bytes with EFBIG, after a short write up to it: a full disk of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("dtype", ALL_RECORDS, ids=lambda dtype: str(dtype.itemsize))
def test_every_record_comes_back_as_it_went_in(tmp_path: Path, dtype: np.dtype) -> None:
    """Slots of every layout are on disk byte for byte, in order, with the header saying whose they are."""
    path = journal_path(tmp_path, "r")
    given_slots = slots(0, 100, dtype)
    with JournalWriter.open(path, "r", dtype, "paper") as writer:
        assert writer.next_sequence == 0
        assert writer.append(given_slots[:60]) == 60
        assert writer.append(memoryview(given_slots[60:]).cast("B")) == 40
        assert writer.append(given_slots[:0]) == 0
    reader = JournalReader(path, dtype)
    assert reader.records().tobytes() == given_slots.tobytes()
    assert reader.check() == 100 and reader.gaps() == []
    assert (reader.header.ring, reader.header.instance, reader.header.record_bytes) == ("r", "paper", dtype.itemsize)
    assert not reader.records().flags.writeable
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_header_alone_is_enough_to_read_it(tmp_path: Path) -> None:
    """Any tool with numpy reads a journal from the JSON on its first page."""
    path = tmp_path / "m.journal"
    with JournalWriter.open(path, "m", records.MARKET_RECORD, "x") as writer:
        writer.append(slots(0, 3, records.MARKET_RECORD))
    said = json.loads(path.read_bytes()[:HEADER_BYTES].split(b"\n")[1])
    layout = said["dtype"]
    formats = [f if isinstance(f, str) else (f[0], tuple(f[1])) for f in layout["formats"]]
    dtype = np.dtype({"names": layout["names"], "formats": formats, "offsets": layout["offsets"], "itemsize": layout["itemsize"]})
    recs = np.memmap(path, dtype, "r", offset=said["header_bytes"])
    assert recs["ts_ns"].tolist() == [7, 1007, 2007]
    assert recs["bid_ticks"].shape == (3, records.LEVELS)
    assert said["ring"] == "m" and said["created_ns"] > 0


@pytest.mark.parametrize("dtype", ALL_RECORDS, ids=lambda dtype: str(dtype.itemsize))
def test_layout_description_is_exact(dtype: np.dtype) -> None:
    """A layout written as JSON and read again has the same names, types, offsets and hash."""
    again = dtype_of(json.loads(json.dumps(describe_dtype(dtype))))
    assert records.layout_hash(again) == records.layout_hash(dtype) and again.itemsize == dtype.itemsize


@pytest.mark.parametrize("told", [",", "3,<i8", "O", "<i8,<i8", "i", "<i99999", "M8[ns]", ["O", [2]], [",", [2]]])
def test_a_layout_is_plain_numbers(told: object) -> None:
    """Formats that numpy would evaluate as an expression, objects and lists of fields are refused, not tried."""
    described = {"names": ["a"], "formats": [told], "offsets": [0], "itemsize": 64}
    with pytest.raises(TypeError):
        dtype_of(described)



@QUICK
@given(whole=st.integers(0, 40), cut=st.integers(1, 63), more=st.integers(0, 20), first=st.integers(0, 2**40))
def test_a_kill_in_mid_slot_loses_and_doubles_nothing(tmp_path: Path, whole: int, cut: int, more: int, first: int) -> None:
    """A cut slot is cut off on re-opening; writing goes on at the sequence that is not whole."""
    path = tmp_path / "k.journal"
    path.unlink(missing_ok=True)
    opened(path, first_sequence=first).close()
    every = slots(first, whole + more + 1)
    with path.open("ab") as file:
        file.write(every[:whole].tobytes() + every[whole : whole + 1].tobytes()[:cut])
    assert len(JournalReader(path).records()) == whole  # a reader never sees the cut slot
    with opened(path) as writer:
        assert writer.next_sequence == first + whole and writer.cut_bytes == cut
        writer.append(every[whole:])
    reader = JournalReader(path)
    assert reader.records().tobytes() == every.tobytes() and reader.check() == len(every)
    assert reader.index_of(first + whole) == whole and reader.index_of(first - 1) == -1


@pytest.mark.parametrize("kept", [0, 1, 17, 18, 200, 4095])
def test_a_kill_while_the_header_is_written_starts_anew(tmp_path: Path, kept: int) -> None:
    """A file whose header was cut short (it can hold no slot) is begun again; a zero page as well."""
    path = tmp_path / "h.journal"
    opened(path).close()
    page = path.read_bytes()
    for left in (page[:kept], bytes(kept)):
        path.write_bytes(left)
        with opened(path) as writer:
            assert writer.next_sequence == 0
            writer.append(slots(0, 2))
        assert JournalReader(path).check() == 2
        path.unlink()


def test_slots_that_a_power_failure_left_unwritten_are_cut_off(tmp_path: Path) -> None:
    """Trailing slots of zeros (size grew, contents never came) do not count, however many."""
    path = tmp_path / "p.journal"
    with opened(path) as writer:
        writer.append(slots(0, 5))
    with path.open("ab") as file:
        file.write(bytes(64 * 20_000 + 11))
    with opened(path) as writer:
        assert writer.next_sequence == 5 and writer.cut_bytes == 64 * 20_000 + 11
    assert JournalReader(path).check() == 5


def test_a_broken_chain_is_told_not_repaired(tmp_path: Path) -> None:
    """A wrong sequence in the middle is damage: the writer refuses, the reader names the place, the rest stays readable."""
    path = tmp_path / "d.journal"
    with opened(path) as writer:
        writer.append(slots(0, 10))
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + 4 * 64 + 56)
        file.write((99).to_bytes(8, "little"))
    size = path.stat().st_size
    with pytest.raises(JournalDamaged, match=r"d\.journal.*sequence 4 carries 98"):
        opened(path)
    assert path.stat().st_size == size
    reader = JournalReader(path)
    assert reader.gaps() == [(4, 98), (99, 5)]
    with pytest.raises(JournalDamaged, match="sequence 4 is due, 98"):
        reader.check()
    assert reader.index_of(7) == 7


@QUICK
@given(
    whole=st.integers(0, 40), vouched=st.integers(0, 50), torn=st.integers(0, 63), zeros=st.integers(0, 5),
    wrong=st.integers(-1, 40), first=st.integers(0, 9),
)  # fmt: skip
def test_what_a_predecessor_vouches_for_is_not_read_again(
    tmp_path: Path, whole: int, vouched: int, torn: int, zeros: int, wrong: int, first: int
) -> None:
    """Behind the last vouched slot all is as ever: damage is told, what is torn or unwritten cut off. Before it nothing is read.

    A file that is shorter than what is vouched for, or has nothing at its place, is read as if nobody had vouched.
    """
    path = tmp_path / f"{whole}.{vouched}.{torn}.{zeros}.{wrong}.{first}.journal"
    if not path.exists():
        opened(path, first_sequence=first).close()
    width = CONTROL.itemsize
    raw = slots(first, whole)
    if 0 <= wrong < whole:
        raw["seq"][wrong] = 77_777
    with path.open("r+b") as file:
        file.truncate(HEADER_BYTES)
        file.seek(HEADER_BYTES)
        file.write(raw.tobytes() + bytes(zeros * width) + b"x" * min(torn, width - 1))
    known = max(vouched - 1, 0) if vouched - 1 < whole else 0
    if known <= wrong < whole:
        with pytest.raises(JournalDamaged):
            opened(path, vouched=first + vouched)
        return
    with opened(path, vouched=first + vouched) as writer:
        assert writer.next_sequence == first + whole
        assert writer.append(slots(first + whole, 3)) == 3
    assert len(JournalReader(path).records()) == whole + 3


def test_append_takes_only_what_continues(tmp_path: Path) -> None:
    """A repeated, skipped, cut or foreign slot is refused whole; the journal stays as it was."""
    with opened(tmp_path / "a.journal") as writer:
        writer.append(slots(0, 4))
        for wrong in (slots(3, 2), slots(5, 1), slots(4, 3)[[0, 2]]):
            with pytest.raises(JournalSequenceError, match="is due"):
                writer.append(wrong)
        with pytest.raises(JournalSequenceError, match="whole slots"):
            writer.append(slots(4, 1).tobytes()[:-1])
        with pytest.raises(JournalSequenceError, match="256 bytes"):
            writer.append(slots(4, 1, records.MARKET_RECORD))
        assert writer.next_sequence == 4
        assert writer.append(slots(4, 8)[::1]) == 8
    assert JournalReader(tmp_path / "a.journal").check() == 12
    with pytest.raises(JournalError, match="closed"):
        writer.append(slots(12, 1))


def test_a_journal_has_one_writer_and_one_owner(tmp_path: Path) -> None:
    """A second writer, another ring, layout or instance are each refused by name, and the lock goes with the writer."""
    path = tmp_path / "o.journal"
    writer = opened(path)
    with pytest.raises(JournalBusy, match="another process"):
        opened(path)
    writer.append(slots(0, 1))
    writer.close()
    with pytest.raises(JournalMismatch, match="ring control, not of orders"):
        JournalWriter.open(path, "orders", CONTROL, "test")
    with pytest.raises(JournalMismatch, match="another record layout"):
        JournalWriter.open(path, "control", records.INTAKE_RECORD, "test")
    with pytest.raises(JournalMismatch, match="instance 'test', this is 'live'"):
        JournalWriter.open(path, "control", CONTROL, "live")
    with pytest.raises(JournalMismatch, match="another record layout"):
        JournalReader(path, records.INTAKE_RECORD)
    with opened(path) as again:
        assert again.next_sequence == 1


def test_a_reader_follows_a_growing_file(tmp_path: Path) -> None:
    """Each look of a reader shows all whole slots of that moment, and older looks stay valid."""
    path = tmp_path / "g.journal"
    with opened(path) as writer:
        reader = JournalReader(path)
        looks = [reader.records()]
        for n in range(1, 6):
            writer.append(slots(writer.next_sequence, n))
            looks.append(reader.records())
    assert [len(look) for look in looks] == [0, 1, 3, 6, 10, 15]
    assert all(np.array_equal(look["seq"], np.arange(len(look)) + 1) for look in looks)


def test_a_full_disk_keeps_what_is_whole_and_can_go_on(tmp_path: Path) -> None:
    """At the limit: a typed error naming path and remedy, whole slots kept, readers undisturbed, then no slot missing."""
    path = tmp_path / "f.journal"
    every = slots(0, 100)
    with opened(path) as writer:
        writer.append(every[:10])
        with file_size_limit(HEADER_BYTES + 64 * 25 + 30):
            with pytest.raises(JournalFull, match=r"f\.journal.*sequence 24: free disk space") as caught:
                writer.append(every[10:50])
            assert caught.value.appended == 15 and writer.next_sequence == 25
            with pytest.raises(JournalFull):
                writer.append(every[25:])
            assert JournalReader(path).check() == 25
            assert path.stat().st_size == HEADER_BYTES + 64 * 25
        writer.append(every[writer.next_sequence :])
    assert JournalReader(path).records().tobytes() == every.tobytes()


def test_no_room_for_a_header(tmp_path: Path) -> None:
    """A disk without room for one page is an error naming the path; the next start succeeds."""
    path = tmp_path / "n.journal"
    with file_size_limit(100), pytest.raises(JournalFull, match=r"no room for the journal .*n\.journal"):
        opened(path)
    opened(path).close()
    assert JournalReader(path).check() == 0


@pytest.mark.parametrize("every", [0, 1, 8])
def test_sync_policies_write_the_same_bytes(tmp_path: Path, every: int) -> None:
    """How often the file is synced changes nothing in it."""
    path = tmp_path / "s.journal"
    with opened(path, sync_every=every) as writer:
        for start in range(0, 30, 3):
            writer.append(slots(start, 3))
        writer.sync()
    assert JournalReader(path).records().tobytes() == slots(0, 30).tobytes()


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder, a FIFO, a link and a missing folder: each one sentence with the path."""
    folder, fifo, link = tmp_path / "folder", tmp_path / "fifo", tmp_path / "link"
    folder.mkdir()
    os.mkfifo(fifo)
    opened(tmp_path / "real.journal").close()
    link.symlink_to(tmp_path / "real.journal")
    wrong = {tmp_path / "none": "does not exist", folder: "no regular file", fifo: "no regular file", link: "symbolic link"}
    for path, word in wrong.items():
        with pytest.raises(JournalError, match=word) as caught:
            JournalReader(path)
        assert str(path) in str(caught.value)
    for path in (tmp_path / "missing" / "x.journal", folder, fifo, link):
        with pytest.raises(JournalError) as caught:
            opened(path)
        assert str(path) in str(caught.value)


@QUICK
@given(garbage=st.binary(min_size=1, max_size=6000))
def test_garbage_is_never_a_journal(tmp_path: Path, garbage: bytes) -> None:
    """Any bytes that are not a journal: a format error naming the file, and the writer leaves them untouched."""
    path = tmp_path / "x.journal"
    path.write_bytes(garbage)
    with pytest.raises(JournalFormatError, match=r"x\.journal"):
        JournalReader(path)
    if garbage.strip(b"\0") and garbage[:1] != b"S":  # else it may be a header cut short
        with pytest.raises(JournalFormatError, match=r"x\.journal"):
            opened(path)
        assert path.read_bytes() == garbage


@QUICK
@given(at=st.integers(0, HEADER_BYTES - 1), flip=st.integers(1, 255))
def test_a_flipped_header_byte_is_noticed(tmp_path: Path, at: int, flip: int) -> None:
    """One wrong byte in what the header says is a clear error; in its padding it does no harm."""
    path = tmp_path / "b.journal"
    path.unlink(missing_ok=True)
    with opened(path) as writer:
        writer.append(slots(0, 3))
    raw = bytearray(path.read_bytes())
    meant = len(bytes(raw[:HEADER_BYTES]).rstrip(b" \n"))
    raw[at] ^= flip
    path.write_bytes(raw)
    if at < meant:
        with pytest.raises(JournalFormatError, match=r"b\.journal"):
            JournalReader(path)
    try:
        assert JournalReader(path).check() == 3
    except JournalFormatError:
        pass


def test_a_killed_writer_process_is_followed_by_another(tmp_path: Path) -> None:
    """SIGKILL to a process in the middle of appending: the next writer goes on where the file ends, without gap or repeat."""
    path = tmp_path / "w.journal"
    program = (
        "import sys; sys.path[:0] = ['.', 'tests']\n"
        "from test_journal_file import opened, slots\n"
        "from pathlib import Path\n"
        f"writer = opened(Path({str(path)!r}))\n"
        "while True:\n"
        "    writer.append(slots(writer.next_sequence, 37))\n"
        "    print(writer.next_sequence, flush=True)\n"
    )
    ends = []
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None
        said = [int(child.stdout.readline()) for _ in range(50)]
        child.kill()
        child.wait()
        child.stdout.close()
        ends.append(said[-1])
        assert JournalReader(path).check() >= said[-1]
        assert not ends[:-1] or said[0] > ends[0]
    with opened(path) as writer:
        writer.append(slots(writer.next_sequence, 1))
    recs = JournalReader(path).records()
    assert recs.tobytes() == slots(0, len(recs)).tobytes()
