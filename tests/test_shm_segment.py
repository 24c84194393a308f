"""Segments: made whole or not at all, checked before use, closed without pulling memory from under anybody."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from segment_world import INSTANCE, NAME, make, open_fds, run_child

from shm import backing
from shm.cleanup import State, clean, inspect, list_segments
from shm.errors import (
    LayoutMismatch,
    NotASegment,
    RoleHeld,
    SegmentClosed,
    SegmentError,
    SegmentExists,
    SegmentLeftBehind,
    SegmentMissing,
    SegmentNameInvalid,
    SegmentPermission,
    SegmentReadOnly,
)
from shm.layout import HEADER_BYTES, MAX_PAYLOAD_BYTES
from shm.owner import claim, current_identity
from shm.segment import Segment


def test_create_then_attach_shares_bytes(place: Path) -> None:
    """What one mapping writes the other reads; header and payload say what was asked for."""
    with make() as writer, Segment.attach(NAME, layout_hash=77, kind=1) as reader:
        assert writer.payload.shape == (8192,) and writer.payload.dtype == np.uint8
        assert writer.words.shape == (1024,) and writer.words.dtype == np.int64
        assert writer.payload.ctypes.data % 64 == 0 and reader.payload.ctypes.data % 64 == 0
        assert not writer.payload.any()
        writer.words[:] = np.arange(1024)
        assert (reader.words == np.arange(1024)).all()
        head = reader.header
        assert (head.kind, head.layout_hash, head.segment_id, head.epoch) == (1, 77, 5, 0)
        assert (head.payload_bytes, head.total_bytes) == (8192, 8192 + HEADER_BYTES)
        assert head.creator.identity == current_identity()
        assert reader.path == place / NAME[1:] and not reader.readonly
        assert writer.unlink() and not writer.unlink()
    with pytest.raises(SegmentMissing, match=r"scalper\..*no such segment; start the pipeline"):
        Segment.attach(NAME)


def test_a_child_sees_the_parents_memory(place: Path) -> None:
    """The memory is shared between processes, not copied."""
    with make() as segment:
        assert run_child(lambda: Segment.attach(NAME).words.__setitem__(3, 42)) == 0
        assert segment.words[3] == 42
        segment.unlink()


@pytest.mark.parametrize("payload", [0, -8, 12, MAX_PAYLOAD_BYTES + 8])
def test_bad_sizes_are_the_callers_mistake(payload: int) -> None:
    """A size that is no positive multiple of 8 within the limit is a ValueError, and nothing is made."""
    with pytest.raises(ValueError, match="payload_bytes"):
        make(payload_bytes=payload)
    assert inspect(NAME) is None


@pytest.mark.parametrize(
    "wrong", [{"kind": -1}, {"kind": 1 << 16}, {"segment_id": -1}, {"layout_hash": 1 << 63}, {"mode": 0o700}]
)
def test_numbers_out_of_range_are_the_callers_mistake(wrong: dict[str, int]) -> None:
    """No header is written that attach would refuse."""
    with pytest.raises(ValueError):
        make(**wrong)
    assert inspect(NAME) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "ring",
        "/scalper",
        "/scalper.a",
        "/scalper..b",
        "/scalper.a.",
        "/scalper.a.b/c",
        "/scalper.a./etc",
        "/scalper.a...",
        "/scalper.../x",
        "/scalper.a.b\n",
        "/scalper.a.\0b",
        "/scalper.a.\u0662",
        "/scalper.-a.b",
        "/other.a.b",
        "/scalper.a." + "b" * 128,
    ],
)
def test_names_are_strict(name: str) -> None:
    """Whatever is not /scalper.<instance>.<what> is refused before any file is touched."""
    for act in (lambda: make(name), lambda: Segment.attach(name), lambda: inspect(name)):
        with pytest.raises(SegmentNameInvalid, match="use /scalper"):
            act()


def test_segment_name_round_trip() -> None:
    """segment_name and split_name are each other's inverse; a dot is allowed in what, not in an instance."""
    assert backing.split_name(backing.segment_name("paper-1", "ring.market_a")) == ("paper-1", "ring.market_a")
    with pytest.raises(SegmentNameInvalid):
        backing.segment_name("a b", "x")


def test_second_creator_is_refused(place: Path) -> None:
    """A name that a living pipeline holds is refused, and its segment is untouched."""
    with make() as first:
        first.words[0] = 9
        with pytest.raises(
            SegmentExists, match=f"a living pipeline holds it.*pid {os.getpid()}.*choose another instance"
        ) as caught:
            make()
        assert not isinstance(caught.value, SegmentLeftBehind)
        assert Segment.attach(NAME).words[0] == 9
        first.unlink()


def test_one_of_many_simultaneous_creators_wins(place: Path) -> None:
    """Eight processes that create one name at once: exactly one gets it, all others are told that it exists."""
    go_read, go_write = os.pipe()
    end_read, end_write = os.pipe()
    answer_read, answer_write = os.pipe()
    children = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            os.close(go_write), os.close(end_write)
            os.read(go_read, 1)
            try:
                kept = make()  # noqa: F841 - stays alive until the parent has heard from all
                word = b"w"
            except SegmentExists as error:
                word = b"x" if not isinstance(error, SegmentLeftBehind) else b"l"
            except BaseException:
                word = b"?"
            os.write(answer_write, word)
            os.read(end_read, 1)
            os._exit(0)
        children.append(pid)
    os.close(go_write)
    answers = b"".join(os.read(answer_read, 1) for _ in children)
    os.close(end_write)
    for pid in children:
        os.waitpid(pid, 0)
    for fd in (go_read, end_read, answer_read, answer_write):
        os.close(fd)
    assert sorted(answers) == sorted(b"wxxxxxxx")
    assert clean(INSTANCE) == [NAME]


def test_create_over_a_dead_ones_says_clean(place: Path) -> None:
    """What a dead pipeline left is not taken for a living one: the error names the command that removes it."""
    assert run_child(make) == 0
    with pytest.raises(SegmentLeftBehind, match="scalperctl clean"):
        make()
    assert clean(INSTANCE) == [NAME]
    make().unlink()


def test_foreign_layout_and_kind_are_refused(place: Path) -> None:
    """Attaching with another layout hash or kind is refused with both numbers in the message."""
    with make() as segment:
        with pytest.raises(LayoutMismatch, match="its layout is 77, this program expects 78"):
            Segment.attach(NAME, layout_hash=78)
        with pytest.raises(LayoutMismatch, match="its kind is 1, this program expects 2"):
            Segment.attach(NAME, kind=2, layout_hash=77)
        segment.header.words[1] = 99
        with pytest.raises(LayoutMismatch, match="header version 99"):
            Segment.attach(NAME)
        segment.unlink()


def test_read_only_attachment_cannot_write(place: Path) -> None:
    """A read-only attachment has unwriteable views, and may neither claim nor unlink."""
    with make() as segment, Segment.attach(NAME, readonly=True) as reader:
        assert reader.readonly
        for view in (reader.payload, reader.words, reader.header.words):
            assert not view.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 1
            with pytest.raises(ValueError):
                view.flags.writeable = True
        with pytest.raises(SegmentReadOnly):
            claim(reader.header, 0)
        with pytest.raises(SegmentReadOnly):
            reader.unlink()
        segment.unlink()


def test_close_with_living_views(place: Path) -> None:
    """close() with exported views does not raise; the views stay valid; the descriptor goes with the last of them."""
    before = open_fds()
    segment = make()
    view, part = segment.words, segment.payload[64:128]
    segment.unlink()
    segment.close()
    segment.close()
    assert segment.closed and "closed" in repr(segment)
    view[8] = 0x0102
    assert part[0] == 2
    for use in (lambda: segment.payload, lambda: segment.words, lambda: segment.header, segment.prefault, segment.lock):
        with pytest.raises(SegmentClosed):
            use()
    del view, part
    assert open_fds() <= before


def test_no_descriptor_leaks(place: Path) -> None:
    """A hundred creations, attachments and refusals leave as many descriptors open as before."""
    before = open_fds()
    for _ in range(100):
        with make() as segment:
            with Segment.attach(NAME, readonly=True):
                pass
            with pytest.raises(LayoutMismatch):
                Segment.attach(NAME, layout_hash=1)
            with pytest.raises(SegmentExists):
                make()
            claim(segment.header, 2)
            with pytest.raises(RoleHeld):
                claim(segment.header, 2)
            list_segments(INSTANCE)
            segment.unlink()
        with pytest.raises(SegmentMissing):
            Segment.attach(NAME)
    assert open_fds() <= before


def test_mode_is_exact_and_checked(place: Path) -> None:
    """The file's mode is what was asked, whatever the umask; a wider one is refused on attach unless allowed."""
    old = os.umask(0o077)
    try:
        with make(mode=0o640) as segment:
            assert stat.S_IMODE(os.stat(segment.path).st_mode) == 0o640
            with pytest.raises(SegmentPermission, match="mode 0640 is wider than 0600"):
                Segment.attach(NAME)
            Segment.attach(NAME, mode=0o640).close()
            segment.unlink()
        with make() as segment:
            assert stat.S_IMODE(os.stat(segment.path).st_mode) == 0o600
            segment.unlink()
    finally:
        os.umask(old)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_segment_is_refused(place: Path) -> None:
    """A segment that belongs to another uid is refused, shown as foreign, and never cleaned."""
    with make() as segment:
        os.chown(segment.path, 12345, 12345)
        with pytest.raises(SegmentPermission, match="belongs to uid 12345"):
            Segment.attach(NAME)
        with pytest.raises(NotASegment, match="uid 12345"):
            make()
        state = inspect(NAME)
        assert state is not None and state.state is State.FOREIGN
        assert clean(INSTANCE) == []
        os.chown(segment.path, 0, 0)
        segment.unlink()


def test_links_and_other_files_are_never_followed(place: Path, tmp_path: Path) -> None:
    """A symbolic link, a FIFO, a directory and a plain file under a segment's name: a clear error, no hang, no write."""
    path = place / NAME[1:]
    target = tmp_path / "precious"
    target.write_bytes(b"do not touch" * 1000)

    def refused(*kinds: type[SegmentError]) -> None:
        for readonly in (True, False):
            with pytest.raises(kinds):
                Segment.attach(NAME, readonly=readonly)
        with pytest.raises(NotASegment, match="foreign file"):
            make()
        assert clean(INSTANCE) == []

    path.symlink_to(target)
    refused(SegmentPermission)
    path.unlink()
    os.mkfifo(path, 0o600)
    refused(SegmentPermission)
    path.unlink()
    path.mkdir(0o700)
    refused(SegmentPermission, SegmentError)
    path.rmdir()
    path.write_bytes(target.read_bytes())
    path.chmod(0o600)
    refused(NotASegment)
    path.write_bytes(b"short")
    refused(NotASegment)
    path.unlink()
    assert target.read_bytes() == b"do not touch" * 1000


def test_unlink_spares_a_successor(place: Path) -> None:
    """A segment object whose name was taken by a newer segment does not remove that one."""
    old = make()
    os.unlink(old.path)
    with make() as new:
        assert not old.unlink()
        assert Segment.attach(NAME).header.creator.since_ns == new.header.creator.since_ns
        with pytest.raises(SegmentMissing, match="removed or replaced"):
            claim(old.header, 0)
        new.unlink()
    old.close()
