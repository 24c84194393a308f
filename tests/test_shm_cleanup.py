"""Clean-up: what the dead left goes, what anybody living holds stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from segment_world import open_fds

from shm import backing
from shm.cleanup import State, clean, inspect, list_segments
from shm.errors import SegmentMissing
from shm.owner import claim, release
from shm.segment import Segment


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plain directory as the place of segments."""
    monkeypatch.setenv(backing.DIRECTORY_VARIABLE, str(tmp_path))
    return tmp_path


def make(name: str) -> Segment:
    """A small segment."""
    return Segment.create(name, 4096, layout_hash=1, kind=4, segment_id=9)


def in_child(work: Callable[[], object], end: int = 0) -> int:
    """Do `work` in a forked child that then leaves by os._exit, or by signal `end`."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            if end:
                os.kill(os.getpid(), end)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == -end
    return pid


@pytest.mark.parametrize("end", [0, signal.SIGKILL, signal.SIGTERM])
def test_segments_of_the_dead_are_removed(end: int) -> None:
    """Whatever way its creator ended, its segments are listed as dead, with the creator, and removed once."""
    pid = in_child(lambda: (make("/scalper.a.one"), make("/scalper.a.two")), end)
    states = list_segments()
    assert [(state.name, state.state) for state in states] == [("/scalper.a.one", State.DEAD), ("/scalper.a.two", State.DEAD)]
    only = states[0]
    assert (only.kind, only.segment_id, only.nbytes) == (4, 9, 8192)
    assert [(holder.role, holder.owner.identity.pid, holder.alive) for holder in only.owners] == [(-1, pid, False)]
    assert clean() == ["/scalper.a.one", "/scalper.a.two"] and clean() == [] and list_segments() == []


def test_living_creator_protects() -> None:
    """A segment whose creator lives is never removed."""
    with make("/scalper.a.one") as segment:
        assert clean() == []
        state = inspect("/scalper.a.one")
        assert state is not None and state.state is State.LIVING and f"creator pid {os.getpid()}" in state.holders()
        assert segment.path.exists()


def test_living_owner_protects_after_the_creators_death() -> None:
    """A dead creator's segment stays as long as one role has a living owner."""
    in_child(lambda: make("/scalper.a.one"), signal.SIGKILL)
    with Segment.attach("/scalper.a.one") as segment:
        claim(segment.header, 5)
        assert clean() == []
        state = inspect("/scalper.a.one")
        assert state is not None and state.state is State.LIVING and state.holders() == f"role 5 pid {os.getpid()}"
        assert state.epoch == 1
        release(segment.header, 5)
        assert clean() == ["/scalper.a.one"]


def test_clean_takes_one_instance_only() -> None:
    """With an instance named, other instances' remains are left alone."""
    in_child(lambda: (make("/scalper.a.x"), make("/scalper.ab.x")))
    assert [state.name for state in list_segments("ab")] == ["/scalper.ab.x"]
    assert clean("ab") == ["/scalper.ab.x"]
    assert [state.name for state in list_segments()] == ["/scalper.a.x"]


def test_strangers_are_left_alone(place: Path) -> None:
    """Files without a segment's name are not even listed; files with one but other content are listed as foreign and kept."""
    (place / "something").write_bytes(bytes(8192))
    (place / "scalper.a").write_bytes(bytes(8192))
    (place / "scalper.a.b~").write_bytes(bytes(8192))
    (place / "scalper.a.text").write_bytes(b"x" * 8192)
    (place / "scalper.a.link").symlink_to(place / "something")
    assert [(state.name, state.state) for state in list_segments()] == [
        ("/scalper.a.link", State.FOREIGN),
        ("/scalper.a.text", State.FOREIGN),
    ]
    assert clean() == [] and len(list(place.iterdir())) == 5


def test_a_claim_in_progress_protects() -> None:
    """While somebody holds the lock of a dead one's segment (it is claiming), clean leaves it alone."""
    in_child(lambda: make("/scalper.a.one"))
    with Segment.attach("/scalper.a.one") as segment, segment.header.locked():
        assert clean() == []
    assert clean() == ["/scalper.a.one"]


def test_claim_after_clean_is_refused() -> None:
    """Who still has a removed segment mapped cannot claim a role in it."""
    in_child(lambda: make("/scalper.a.one"))
    with Segment.attach("/scalper.a.one") as segment:
        assert clean() == ["/scalper.a.one"]
        with pytest.raises(SegmentMissing):
            claim(segment.header, 0)


def test_fifty_deaths_leave_nothing() -> None:
    """Creators killed one after the other, each cleaned up after: no file and no descriptor remains."""
    before = open_fds()
    for _ in range(50):
        in_child(lambda: make("/scalper.a.one"), signal.SIGKILL)
        assert clean() == ["/scalper.a.one"]
    assert open_fds() <= before and list_segments() == []
