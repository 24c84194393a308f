"""Whether a folder's word may be believed: nobody but root and we can have put there what stands in it.

A folder is believed where it and all folders above it belong to root or to the caller and cannot be written by others. A sticky
folder (/tmp) may be written by everybody, since nobody can replace what is another's in it: there the owner of the next name
decides. A link is followed where it belongs to root or to the caller; the folder itself must be none. A folder of a third user is
believed where root alone can have put it there, as systemd does with a service's: then that user's processes may answer in it.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

MOST_LINKS: Final = 40
WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


def distrust(folder: Path) -> str:
    """Why nothing in this folder is believed, as a sentence with the remedy; "" if it is, or if nothing stands there."""
    me = os.geteuid()
    ours = {_root(), me}
    place, left = Path("/"), list(Path(os.path.abspath(folder)).parts[1:])
    links, vouched = 0, _closed(os.lstat(place))  # vouched: root alone can make a name in `place`
    while left:
        name = left.pop(0)
        here = place / name if name != ".." else place.parent
        try:
            seen = os.lstat(here)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            return f"{here}: {(error.strerror or str(error)).lower()}; check the permissions above it"
        if seen.st_uid not in ours and (left or stat.S_ISLNK(seen.st_mode) or not vouched):
            return (
                f"{here} belongs to uid {seen.st_uid}, neither to root nor to us (uid {me}), and is not believed: "
                "ask as that user, or remove it if that user took the name"
            )
        if stat.S_ISLNK(seen.st_mode):
            links += 1
            if not left or links > MOST_LINKS:
                return f"{here} is a symbolic link, where a folder of our own is expected: remove it"
            target = Path(os.readlink(here))
            left[:0] = target.parts[1:] if target.is_absolute() else target.parts
            place = Path("/") if target.is_absolute() else place
            vouched = _closed(os.lstat(place))
            continue
        if not stat.S_ISDIR(seen.st_mode):
            return f"{here} is no folder: remove it"
        if not _closed(seen, root_only=False) and not (left and seen.st_mode & stat.S_ISVTX):
            return (
                f"{here} can be written by others (mode {stat.S_IMODE(seen.st_mode):04o}), so nothing below it is believed: "
                f"chmod go-w {here}, or set XDG_RUNTIME_DIR to a folder of your own"
            )
        place, vouched = here, _closed(seen)
    return ""


@functools.cache
def _root() -> int:
    """Root as this process sees it: where a user namespace does not know root, the overflow uid has what is root's."""
    with contextlib.suppress(OSError, ValueError):
        ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if not any(int(first) == 0 for first, _, _ in ranges):
            return int(Path("/proc/sys/kernel/overflowuid").read_text())
    return 0


def _closed(seen: os.stat_result, *, root_only: bool = True) -> bool:
    """Whether nobody but root (and, unless `root_only`, its owner) can write into this folder."""
    if root_only and seen.st_uid != _root():
        return False
    if seen.st_mode & stat.S_IWOTH:
        return False
    return not seen.st_mode & stat.S_IWGRP or seen.st_gid == 0 or (not root_only and _alone_in(seen.st_gid))


def _alone_in(gid: int) -> bool:
    """Whether a group is the caller's private one, as many systems give every user: of the same name, with nobody else in it."""
    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}
