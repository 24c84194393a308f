"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procs.whole_files import whole_file, write_whole


def names(folder: Path) -> list[str]:
    """All that is there, hidden names too."""
    return sorted(os.listdir(folder))


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """Until the block ends well the old bytes stand there; a block that fails leaves them and nothing else."""
    path = tmp_path / "it"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"tw")
        raise ZeroDivisionError
    assert path.read_bytes() == b"one" and names(tmp_path) == ["it"]
    write_whole(path, b"three", sync=True)
    assert path.read_bytes() == b"three" and names(tmp_path) == ["it"]


def test_a_name_that_is_taken_is_refused_on_demand(tmp_path: Path) -> None:
    """`replace=False`: who was first stays, and the second one hears of it."""
    write_whole(tmp_path / "it", b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "it", b"second", replace=False, sync=True)
    assert (tmp_path / "it").read_bytes() == b"first" and names(tmp_path) == ["it"]


def test_what_a_full_disk_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error before the rename is the caller's, with the old file as it was; a link at the place is replaced, not followed."""
    (tmp_path / "other").write_bytes(b"other")
    path = tmp_path / "it"
    path.symlink_to("other")
    write_whole(path, b"one", mode=0o640)
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "other").read_bytes() == b"other"

    def full(fd: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"two", sync=True)
    assert path.read_bytes() == b"one" and names(tmp_path) == ["it", "other"]
