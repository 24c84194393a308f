"""Owners: death is proven, a living owner keeps its role, a claim is whole or has not happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm import backing, owner
from shm.errors import RoleHeld, RoleNotHeld, SegmentBusy, SegmentDamaged
from shm.layout import MAX_EPOCH, O_PID, ROLES, W_EPOCH, owner_word
from shm.owner import NOBODY, Identity, claim, current_identity, is_alive, release, start_ticks
from shm.segment import Segment

NAME = "/scalper.owners.ring"
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    """A small segment in a plain directory."""
    with Segment.create(NAME, 4096, layout_hash=1, kind=1, segment_id=1, directory=tmp_path) as made:
        yield made


class Child:
    """A forked process that optionally does something, says "ready" and waits to be killed."""

    def __init__(self, work: object = None) -> None:
        ready, say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if callable(work):
                    work()
                os.write(say, b".")
                signal.pause()
            finally:
                os._exit(1)
        os.close(say)
        assert os.read(ready, 1) == b".", "the child's work raised"
        os.close(ready)
        self.identity = replace(current_identity(), pid=self.pid, start_ticks=start_ticks(self.pid))

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Take its status, so that no zombie stays."""
        os.waitpid(self.pid, 0)


def test_current_identity_is_alive_and_the_childs_own_after_fork() -> None:
    """A process is alive to itself; a forked child does not inherit its parent's identity."""
    me = current_identity()
    assert me.pid == os.getpid() and is_alive(me) and current_identity() is me
    child = Child(lambda: (_ for _ in ()).throw(AssertionError()) if current_identity() == me else None)
    assert is_alive(child.identity) and child.identity != me
    child.kill()
    child.reap()


def test_dead_zombie_stopped_and_recycled() -> None:
    """A stopped process is alive, a zombie is dead, a reaped one is dead, another start time or boot under its pid is dead."""
    child = Child()
    os.kill(child.pid, signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert is_alive(child.identity)
    assert not is_alive(replace(child.identity, start_ticks=child.identity.start_ticks + 1))
    assert not is_alive(replace(child.identity, boot_lo=child.identity.boot_lo ^ 1))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    assert start_ticks(child.pid) == child.identity.start_ticks and not is_alive(child.identity)
    child.reap()
    assert not is_alive(child.identity)


def test_what_cannot_be_judged_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pid namespace, no descriptors left, or a /proc that hides: never taken for dead."""
    me = current_identity()
    assert is_alive(replace(me, pid=1 << 21, pid_namespace=me.pid_namespace + 1))

    def refuse(*_: object) -> int:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert is_alive(me) and not is_alive(replace(me, start_ticks=me.start_ticks + 1))
    monkeypatch.setattr(owner, "start_ticks", refuse)
    assert is_alive(me)
    monkeypatch.undo()
    monkeypatch.setattr(owner, "start_ticks", lambda pid: (_ for _ in ()).throw(FileNotFoundError()))
    assert is_alive(me)


@given(INT64, INT64, INT64, INT64, INT64)
def test_any_words_are_an_identity(pid: int, ticks: int, hi: int, lo: int, namespace: int) -> None:
    """is_alive answers for any words, without an exception; also with this boot's id in them."""
    is_alive(Identity(pid, ticks, hi, lo, namespace))
    me = current_identity()
    assert not is_alive(Identity(pid, ticks, me.boot_hi, me.boot_lo, 0)) or 0 < pid < 1 << 22
    assert not is_alive(NOBODY)


def test_claim_raises_the_epoch_and_release_frees(segment: Segment) -> None:
    """Each claim raises the segment's epoch; a held role is refused, to its own holder too; release frees it."""
    head = segment.header
    assert claim(head, 0) == 1 and claim(head, 7) == 2 and head.epoch == 2
    assert head.owner(0).identity == current_identity() and head.owner(0).epoch == 1 and head.owner(7).epoch == 2
    with pytest.raises(RoleHeld, match="role 0 is held by this process"):
        claim(head, 0)
    release(head, 0)
    assert head.owner(0).identity.pid == 0
    with pytest.raises(RoleNotHeld):
        release(head, 0)
    assert claim(head, 0) == 3
    for role in (-1, ROLES):
        with pytest.raises(ValueError):
            claim(head, role)


def test_living_owner_is_refused_dead_one_replaced(segment: Segment, tmp_path: Path) -> None:
    """A living (also a stopped) owner keeps its role; once it is killed the role can be claimed, even from a zombie."""
    child = Child(lambda: claim(Segment.attach(NAME, directory=tmp_path).header, 3))
    with pytest.raises(RoleHeld, match=f"role 3 is held by pid {child.pid}, which is alive; stop that process"):
        claim(segment.header, 3)
    with pytest.raises(RoleNotHeld):
        release(segment.header, 3)
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(RoleHeld):
        claim(segment.header, 3)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert claim(segment.header, 3) == 2
    child.reap()


def test_one_of_many_simultaneous_claims_wins(segment: Segment) -> None:
    """Eight forked processes that claim one role at once through the inherited mapping: exactly one gets it."""
    answer, say = os.pipe()

    def contend() -> None:
        try:
            claim(segment.header, 0)
            os.write(say, b"w")
        except RoleHeld:
            os.write(say, b"x")

    children = [Child(contend) for _ in range(8)]
    assert sorted(os.read(answer, 8)) == sorted(b"wxxxxxxx")
    assert segment.header.epoch == 1
    for child in children:
        child.kill()
        child.reap()
    os.close(answer), os.close(say)


@pytest.mark.parametrize("store", range(3))
def test_claim_killed_at_any_store_leaves_a_free_role(segment: Segment, monkeypatch: pytest.MonkeyPatch, store: int) -> None:
    """SIGKILL before each ordered store of a claim: the role can be claimed, no epoch falls, the lock is free."""
    plain, count = owner.store_release, iter(range(99))

    def die(words: object, index: int, value: int) -> None:
        if next(count) == store:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(words, index, value)  # type: ignore[arg-type]

    before = claim(segment.header, 2)
    release(segment.header, 2)
    monkeypatch.setattr(owner, "store_release", die)
    pid = os.fork()
    if pid == 0:
        claim(segment.header, 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    monkeypatch.undo()
    assert segment.header.epoch >= before and segment.header.owner(2).epoch <= segment.header.epoch
    assert claim(segment.header, 2) > before
    assert segment.header.owner(2).identity == current_identity()


def test_a_locked_header_is_reported_not_waited_for_ever(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped inside a claim keeps the lock: others are told so after their patience."""
    fd = os.open(segment.path, os.O_RDONLY)
    assert backing.try_lock(fd)
    monkeypatch.setattr(backing.locked.__wrapped__, "__defaults__", (0.0,))  # type: ignore[attr-defined]
    with pytest.raises(SegmentBusy, match="keeps its header locked"):
        claim(segment.header, 0)
    os.close(fd)
    assert claim(segment.header, 0) == 1


def test_epoch_at_its_end_is_an_error(segment: Segment) -> None:
    """An epoch out of bounds in the live header is reported by claim, and nothing is claimed."""
    for epoch in (MAX_EPOCH - 1, (1 << 63) - 1, -5):
        segment.header.words[W_EPOCH] = epoch
        with pytest.raises(SegmentDamaged, match="epoch"):
            claim(segment.header, 1)
        assert segment.header.words[owner_word(1) + O_PID] == 0
