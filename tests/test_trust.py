"""Who is believed: folders that nobody else can have made, and what the commands say of those that others took."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from pathlib import Path

import pytest

from procs import rundir
from procs.cli.main import main
from procs.cli.outcome import FAILED, NOT_RUNNING, OK, USAGE
from procs.supervision import killswitch
from procs.trust import distrust

OTHER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to another user")


@pytest.fixture
def base(closed_places: Path) -> Path:
    """A closed folder, which holds the run and state directories."""
    return closed_places


def made(path: Path, mode: int = 0o755, owner: int = -1) -> Path:
    """A folder with this mode, whatever the umask."""
    path.mkdir(parents=True)
    path.chmod(mode)
    if owner >= 0:
        os.chown(path, owner, owner)
    return path


def test_our_own_folders_are_believed(base: Path) -> None:
    """Ours below ours, below a sticky folder, through a link of ours; also where nothing stands."""
    assert not distrust(made(base / "a" / "b"))
    assert not distrust(made(made(base / "sticky", 0o1777) / "mine", 0o700))
    (base / "link").symlink_to("a")
    assert not distrust(base / "link" / "b")
    assert not distrust(base / "nothing" / "there")


def test_what_others_can_write_is_not(base: Path) -> None:
    """A folder above, or the folder itself, that all or a group may write: named, with its mode and the remedy."""
    inner = made(made(base / "open", 0o777) / "mine", 0o700)
    assert f"{base / 'open'} can be written by others (mode 0777)" in distrust(inner)
    assert "chmod go-w" in distrust(made(base / "loose", 0o777))
    assert "can be written by others" in distrust(made(base / "sticky", 0o1777)), "sticky helps what is in it, not itself"
    if os.geteuid() == 0:
        group = made(base / "group", 0o775)
        os.chown(group, 0, OTHER)
        assert "can be written by others" in distrust(made(group / "mine", 0o700))


def test_a_link_in_its_place_is_not(base: Path) -> None:
    """The folder itself must be no link, wherever that leads; a file is no folder; links in a ring end."""
    made(base / "real")
    (base / "link").symlink_to("real")
    assert "is a symbolic link" in distrust(base / "link")
    (base / "file").write_text("")
    assert "is no folder" in distrust(base / "file")
    (base / "ring").symlink_to("ring")
    assert "is a symbolic link" in distrust(base / "ring" / "x")


@needs_root
def test_another_users_folders_are_not(base: Path) -> None:
    """Root believes no folder below another user's, and no link of another's; one that root alone can have put there, it does."""
    theirs = made(base / "theirs", 0o755, OTHER)
    assert f"{theirs} belongs to uid {OTHER}, neither to root nor to us (uid 0)" in distrust(made(theirs / "mine", 0o700))
    assert not distrust(theirs), "a service's folder: its parent is root's and closed"
    squatted = made(made(base / "sticky", 0o1777) / "scalper-0", 0o755, OTHER)
    assert f"belongs to uid {OTHER}" in distrust(squatted)
    made(base / "real" / "x")
    (base / "sticky" / "link").symlink_to(base / "real")
    os.chown(base / "sticky" / "link", OTHER, OTHER, follow_symlinks=False)
    assert f"belongs to uid {OTHER}" in distrust(base / "sticky" / "link" / "x")


@needs_root
def test_a_squatted_name_is_told(base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Another user holds our name, with a lock and a profile: no command believes it, each names it; a halt goes to the disk."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made(base / "sticky", 0o1777)))
    monkeypatch.setattr(rundir, "run_base", lambda: base / "sticky" / "scalper")
    folder = made(made(base / "sticky" / "scalper", 0o755, OTHER) / "t", 0o755, OTHER)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    os.write(lock, b"1\n")
    try:
        assert rundir.holder("t") == 0 and "t" not in rundir.instances()
        named = f"{base / 'sticky' / 'scalper'} belongs to uid {OTHER}"
        for words in (["status", "--instance", "t"], ["stop", "--instance", "t"], ["top", "--instance", "t"], ["status"]):
            assert main(words) == NOT_RUNNING and named in capsys.readouterr().err, words
        assert main(["halt", "trip", "--instance", "t", "--reason", "odd"]) == OK
        said = capsys.readouterr()
        assert "halted by operator" in said.out and named in said.err and "nobody was asked there" in said.err
        assert killswitch.status("t")
        assert main(["halt", "trip", "--reason", "odd"]) == USAGE and named in capsys.readouterr().err
        with pytest.raises(rundir.RunDirError, match=f"belongs to uid {OTHER}"):
            rundir.InstanceLock("t")
        assert main(["start", "--instance", "t"]) == FAILED and f"belongs to uid {OTHER}" in capsys.readouterr().err
    finally:
        os.close(lock)


def test_a_lock_is_handed_on(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever inherits the descriptor holds the name without a moment between; a number that is another file is passed over."""
    first = rundir.InstanceLock("t")
    inherited = os.dup(first.fd)
    first.hand_over()
    assert rundir.holder("t") == os.getpid()
    monkeypatch.setenv(rundir.HANDED_LOCK, str(inherited))
    with rundir.InstanceLock("u") as other:
        assert other.fd != inherited and rundir.HANDED_LOCK not in os.environ
    with pytest.raises(rundir.InstanceBusyError):
        rundir.InstanceLock("t")
    monkeypatch.setenv(rundir.HANDED_LOCK, str(inherited))
    with rundir.InstanceLock("t") as second:
        assert second.fd == inherited and rundir.holder("t") == os.getpid()
    assert rundir.holder("t") == 0


def test_of_starts_at_once_one_has_the_name(base: Path) -> None:
    """Eight threads take one name: one gets it, the others are told whose it is, and its file's size never changes."""
    won: list[rundir.InstanceLock] = []
    lost: list[int] = []
    begin = threading.Barrier(8)

    def take() -> None:
        begin.wait()
        try:
            won.append(rundir.InstanceLock("t"))
        except rundir.InstanceBusyError as error:
            lost.append(error.pid)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(lost) == 7 and set(lost) <= {os.getpid(), 0}
    assert won[0].path.stat().st_size == 32
    won[0].release()
    assert won[0].path.stat().st_size == 32 and rundir.holder("t") == 0
