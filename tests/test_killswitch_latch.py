"""The kill switch's latch: it holds, survives, fails closed, and only a reason removes it."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import msgspec
import pytest

from procs import rundir
from procs.supervision import killswitch
from procs.supervision.halting import RETRY_NS, Halting
from procs.supervision.killswitch import KillSwitchError, reset, status, trip


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State directory of instance "t"."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr(rundir, "SYSTEM_STATE", tmp_path / "system")
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    return rundir.state_dir("t")


def history(folder: Path) -> list[dict[str, object]]:
    """The history's entries."""
    return [msgspec.json.decode(line) for line in (folder / "halts.log").read_bytes().splitlines()]


def test_trip_and_reset(state: Path) -> None:
    """Tripped: halted with its words; reset: free again; both stand in the history."""
    assert status("t") is None and reset("t", "me", "just in case") is None
    latch = trip("t", "risk", "drawdown 9 %\nover 8 %")
    assert (latch.who, latch.reason, latch.pid) == ("risk", "drawdown 9 % over 8 %", os.getpid())
    assert status("t") == latch and "halted by risk at 20" in latch.in_words()
    assert (state / "halt.json").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in state.iterdir()) == ["halt.json", "halts.log"], "no temporary file stays"
    assert reset("t", "me", "limits reviewed") == latch
    assert not status("t")
    assert [(e["what"], e["who"], e["reason"]) for e in history(state)] == [
        ("trip", "risk", "drawdown 9 % over 8 %"),
        ("reset", "me", "limits reviewed"),
    ]


def test_the_first_words_hold(state: Path) -> None:
    """A second trip does not overwrite why it began; the history has both."""
    trip("t", "risk", "first")
    assert trip("t", "operator", "second").reason == "first"
    assert [e["reason"] for e in history(state)] == ["first", "second"]


@pytest.mark.parametrize("words", ["", "  ", "\n"])
def test_no_reason_no_reset(state: Path, words: str) -> None:
    """Reset and trip want a name and a reason; without, the latch stays as it is."""
    trip("t", "risk", "x")
    for who, reason in ((words, "r"), ("w", words)):
        with pytest.raises(ValueError, match="the kill switch wants a"):
            reset("t", who, reason)
        with pytest.raises(ValueError, match="the kill switch wants a"):
            trip("t", who, reason)
    assert status("t")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"who": 5}', b"x" * 100_000])
def test_a_damaged_latch_is_a_latch(state: Path, raw: bytes) -> None:
    """Any bytes in the file: halted, and the reset works."""
    (state / "halt.json").write_bytes(raw)
    latch = status("t")
    assert latch is not None and "is damaged" in latch.reason and str(state) in latch.in_words()
    assert trip("t", "a", "b") == latch
    reset("t", "me", "disk replaced")
    assert not status("t")


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.symlink_to("/dev/null"), lambda p: os.mkfifo(p)])
def test_whatever_stands_there_is_a_latch(state: Path, make: object) -> None:
    """A folder, a link or a pipe in the latch's place: halted, without waiting."""
    make(state / "halt.json")  # type: ignore[operator]
    assert status("t")


def test_a_disk_that_refuses(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room: KillSwitchError names the file, so that the caller halts by other means."""

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KillSwitchError, match=r"halt\.json: the kill switch could not be latched \(No space left"):
        trip("t", "risk", "x")
    monkeypatch.undo()


def test_a_reset_that_cannot_be_recorded_does_not_happen(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history comes first: without it the latch stays."""
    trip("t", "risk", "x")

    monkeypatch.setattr(killswitch, "_log", refuse)
    with pytest.raises(KillSwitchError, match="could not be reset"):
        reset("t", "me", "fine now")
    assert status("t")


def _trip(n: int) -> str:
    return trip("t", f"process {n}", "race").who


def test_many_at_once_agree(state: Path) -> None:
    """Eight processes trip together: all get the same latch, eight entries are in the history."""
    with multiprocessing.get_context("fork").Pool(8) as pool:
        winners = set(pool.map(_trip, range(8), chunksize=1))
    latch = status("t")
    assert latch is not None and winners == {latch.who}
    assert len(history(state)) == 8


def test_instances_do_not_share(state: Path) -> None:
    """One instance's halt is not another's."""
    trip("t", "risk", "x")
    assert not status("u")


def test_the_services_state_counts_too(state: Path, tmp_path: Path) -> None:
    """Where we may write the system service's state, its latch is ours: trip, status and reset reach both."""
    (tmp_path / "system" / "t").mkdir(parents=True)
    trip("t", "operator", "before the service starts")
    assert (tmp_path / "system" / "t" / "halt.json").exists() and (state / "halt.json").exists()
    (state / "halt.json").unlink()
    assert status("t"), "the service's latch alone halts"
    reset("t", "operator", "checked")
    assert not status("t") and (tmp_path / "system" / "t" / "halt.json").read_bytes().strip() == killswitch.FREE


def test_a_trip_writes_over_what_was_reserved(state: Path) -> None:
    """Reserved, tripped, reset and tripped again: one file, of one size, never replaced, so that no room is asked for."""
    killswitch.reserve("t")
    before = (state / "halt.json").stat()
    assert before.st_size == killswitch.ROOM and before.st_blocks * 512 >= killswitch.ROOM and not status("t")
    for _ in range(2):
        longest = trip("t", "w" * killswitch.MAX_TEXT, "\N{PILE OF POO}" * killswitch.MAX_TEXT)
        assert status("t") == longest and longest.reason.count("\N{PILE OF POO}") == killswitch.MAX_TEXT
        reset("t", "me", "seen")
        assert not status("t")
    after = (state / "halt.json").stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    killswitch.reserve("t")
    trip("t", "risk", "x")
    killswitch.reserve("t")
    assert status("t"), "what is set is not set back by a start"


def test_no_place_for_a_latch(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no room can be reserved, the start is refused with the file and the remedy."""
    monkeypatch.setattr(killswitch, "write_whole", refuse)
    with pytest.raises(KillSwitchError, match=r"halt\.json: no room can be reserved .*No space left.*; free some on that disk"):
        killswitch.reserve("t")


def refuse(*_: object, **__: object) -> None:
    """A full disk."""
    raise OSError(28, "No space left on device")


def test_the_spare_holds_what_the_disk_refuses(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the state's disk: the error says so, and the next start finds the run directory's copy; one reset frees both."""
    rundir.run_dir("t")
    put = killswitch._put

    def broken(folder: Path, words: bytes, *, over: bool) -> None:
        if folder == state:
            refuse()
        put(folder, words, over=over)

    with monkeypatch.context() as full:
        full.setattr(killswitch, "_put", broken)
        with pytest.raises(KillSwitchError, match=r"could not be latched \(No space left"):
            trip("t", "risk", "x")
    found = status("t")
    assert found is not None and found.reason == "x" and found.path == str(rundir.run_dir("t") / "halt.json")
    reset("t", "me", "disk replaced")
    assert not status("t")


class Told:
    """A pipeline and a log that note what they are told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def halt(self, reason: str) -> None:
        """As procs.supervision.contract.Pipeline says."""
        self.said.append("halt")

    def resume(self, reason: str) -> None:
        """As procs.supervision.contract.Pipeline says."""
        self.said.append("resume")

    def _log(self, event: str, **fields: object) -> None:
        self.said.append(event)

    info = warning = error = _log


def test_a_refused_latch_is_tried_until_it_holds(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline is halted at once; the latch, refused, is tried again each second, with the first words, until it holds."""
    now, told = [0], Told()
    killswitch.reserve("t")
    halting = Halting("t", told, told, clock=lambda: now[0])  # type: ignore[arg-type]
    with monkeypatch.context() as full:
        full.setattr(killswitch, "_put", refuse)
        assert "first" in halting.trip("risk", "first") and "could not be latched" in halting.unlatched
        assert told.said == ["kill switch not latched", "halt", "halted"]
        assert "first" in halting.trip("operator", "second"), "the words that hold are the first"
        told.said.clear()
        for _ in range(5):
            halting.check()
            assert told.said == [] and halting.reason and halting.unlatched, "no news, and no resumption for want of a file"
            now[0] += RETRY_NS
    halting.check()
    latch = status("t")
    assert told.said == ["the kill switch is latched now"] and latch is not None
    assert latch.reason == "first" and not halting.unlatched
    halting.reset("me", "disk mended")
    assert told.said[1:] == ["resume", "resumed"] and not status("t")
    halting.check()
    assert not halting.reason and not status("t"), "what was reset is not latched again"
