"""Segments under faults: killed creators, a racing cleaner, a full file system, no descriptors, stray stores."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from segment_world import INSTANCE, NAME, make, open_fds, run_child

from shm import backing, header
from shm.cleanup import State, clean, inspect, list_segments
from shm.errors import (
    SegmentDamaged,
    SegmentExists,
    SegmentIncomplete,
    SegmentLeftBehind,
    SegmentLimit,
    SegmentMissing,
    SegmentSpace,
)
from shm.layout import MAGIC, W_CREATOR
from shm.segment import Segment


def test_the_magic_is_stored_last(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a segment is being made it cannot be attached nor cleaned; every other word is there before the magic."""
    seen: list[np.ndarray] = []
    plain = header.store_release

    def watch(words: np.ndarray, index: int, value: int) -> None:
        seen.append(words.copy())
        with pytest.raises(SegmentIncomplete, match="scalperctl clean"):
            Segment.attach(NAME)
        with pytest.raises(SegmentExists, match="still at work"):
            make()
        state = inspect(NAME)
        assert state is not None and state.state is State.CREATING
        assert clean(INSTANCE) == []
        plain(words, index, value)

    monkeypatch.setattr(header, "store_release", watch)
    with make() as segment:
        assert len(seen) == 1 and seen[0][0] == 0 and segment.header.words[0] == MAGIC
        assert (seen[0][1:] == segment.header.words[1:]).all() and seen[0][W_CREATOR] == os.getpid()
        segment.unlink()


@pytest.mark.parametrize("step", ["open_new", "try_lock", "_reserve", "_settle", "write"])
def test_creator_killed_at_any_step_leaves_something_cleanable(place: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """SIGKILL right after each step of a creation: the rest cannot be attached, is known as abandoned, and is cleaned."""
    import shm.segment as module

    owner = {"open_new": backing, "try_lock": backing, "write": header}.get(step, module)
    plain = getattr(owner, step)

    def then_die(*args: object, **more: object) -> object:
        if step == "write":  # before, not after: after it the segment is complete
            os.kill(os.getpid(), signal.SIGKILL)
        plain(*args, **more)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    monkeypatch.setattr(owner, step, then_die)
    assert run_child(make) == -signal.SIGKILL
    monkeypatch.undo()
    if place != backing.SHM_DIRECTORY:
        monkeypatch.setenv(backing.DIRECTORY_VARIABLE, str(place))
    state = inspect(NAME)
    assert state is not None and state.state is State.ABANDONED
    with pytest.raises(SegmentIncomplete):
        Segment.attach(NAME)
    with pytest.raises(SegmentLeftBehind):
        make()
    assert clean(INSTANCE) == [NAME] and clean(INSTANCE) == []
    make().unlink()


def test_a_cleaner_between_making_and_locking_is_survived(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleaner that takes the creator's still unlocked file for a dead one's costs a second try, never the segment."""
    plain, removed = backing.open_new, []

    def then_clean(name: str, where: Path | None, mode: int) -> int:
        fd = plain(name, where, mode)
        if not removed:
            removed.extend(clean(INSTANCE))
        return fd

    monkeypatch.setattr(backing, "open_new", then_clean)
    with make() as segment:
        assert removed == [NAME]
        Segment.attach(NAME).close()
        assert segment.unlink()


@pytest.fixture
def small_tmpfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tmpfs of 64 KiB as the place of segments."""
    point = tmp_path / "small"
    point.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "scalper-test", point]).returncode
    ):
        pytest.skip("mounting a tmpfs needs root")
    monkeypatch.setenv(backing.DIRECTORY_VARIABLE, str(point))
    yield point
    gc.collect()
    subprocess.run(["umount", "-l", point], check=True)


@pytest.mark.parametrize("options", [{}, {"huge": True}, {"lock": True, "numa_node": 0}])
def test_full_tmpfs(small_tmpfs: Path, options: dict[str, object]) -> None:
    """No room: SegmentSpace with place, figures and remedy; nothing is left behind, what was there still works."""
    with make(payload_bytes=16384) as first:
        before, free = open_fds(), os.statvfs(small_tmpfs).f_bavail
        with pytest.raises(
            SegmentSpace, match=r"second.*69632 bytes do not fit, .*small has 45056 of 65536 free; run `scalperctl clean`"
        ):
            make(f"/scalper.{INSTANCE}.second", 65536, **options)
        assert open_fds() <= before and os.statvfs(small_tmpfs).f_bavail == free
        assert [state.name for state in list_segments()] == [NAME]
        first.words[:] = 1
        make(f"/scalper.{INSTANCE}.third", 32768).close()


def test_attach_to_an_unreserved_page_of_a_full_tmpfs(small_tmpfs: Path) -> None:
    """A half-made (sparse) segment on a full tmpfs is an error for who attaches, not a SIGBUS."""
    path = small_tmpfs / NAME[1:]
    with open(path, "wb") as half:
        half.truncate(8192)
    path.chmod(0o600)
    (small_tmpfs / "filler").write_bytes(bytes(65536))

    def attach() -> None:
        with pytest.raises(SegmentIncomplete):
            Segment.attach(NAME)

    assert run_child(attach) == 0


def test_missing_directory_is_named(tmp_path: Path) -> None:
    """An alternative directory that does not exist is named in the error."""
    with pytest.raises(SegmentMissing, match="nowhere: no such directory; create it, or unset SCALPER_SHM_DIR"):
        make(directory=tmp_path / "nowhere")
    with pytest.raises(SegmentMissing, match="nowhere"):
        clean(directory=tmp_path / "nowhere")


def test_no_descriptors_left(place: Path) -> None:
    """At the descriptor limit creating and attaching give SegmentLimit and leave nothing behind."""
    import resource

    def at_the_limit() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = os.open("/dev/null", os.O_RDONLY)
        for more in (1, 2):  # room for none, then for the file but not for its mapping
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken + more, hard))
            with pytest.raises(SegmentLimit, match="LimitNOFILE"):
                make()
            with pytest.raises((SegmentLimit, SegmentMissing)):
                Segment.attach(NAME)

    assert run_child(at_the_limit) == 0
    assert inspect(NAME) is None


def test_damaged_but_living_segment_is_kept(place: Path) -> None:
    """A header damaged by a stray store: attach refuses, and clean spares it while anybody maps it, then removes it."""
    segment = make()
    segment.header.words[5] = 12345
    segment.header.words[W_CREATOR : W_CREATOR + 8] = 0x5555555555555555
    with pytest.raises(SegmentDamaged, match="total_bytes is 12345"):
        Segment.attach(NAME)
    state = inspect(NAME)
    assert state is not None and state.state is State.LIVING
    assert clean(INSTANCE) == []
    segment.close()
    assert clean(INSTANCE) == [NAME]
