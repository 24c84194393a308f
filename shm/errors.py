"""What can go wrong with a segment. Every error names the place and the remedy.

    SegmentError
    |-- SegmentNameInvalid       the name is not /scalper.<instance>.<what>
    |-- SegmentMissing           there is none of that name
    |-- SegmentExists            a living pipeline holds that name
    |   `-- SegmentLeftBehind    a dead one left it: `scalperctl clean` removes it
    |-- SegmentIncomplete        its creator has not finished (or died before it could)
    |-- NotASegment              a file, but not one of ours
    |   `-- SegmentDamaged       ours, but a header word is out of bounds
    |-- LayoutMismatch           another version, kind or record layout
    |-- SegmentSpace             no memory left where segments live
    |-- SegmentPermission        wrong owner, mode too wide, or access denied
    |-- SegmentLimit             no file descriptors or mappings left
    |-- SegmentBusy              another process keeps its header locked
    |-- SegmentReadOnly          a write was asked of a read-only attachment
    |-- SegmentClosed            used after close()
    |-- RoleHeld                 the role's owner is alive
    `-- RoleNotHeld              released by somebody who does not own it

These are operating errors. A caller's own mistake (a negative size, a role number out of range) is a ValueError.
"""

from __future__ import annotations

import errno
from typing import Final

REMEDY_CLEAN: Final = "stop the pipeline that made it and run `scalperctl clean`"
REMEDY_FOREIGN: Final = "move the file away or choose another instance name"
REMEDY_INCOMPLETE: Final = "wait for the start to end; if it died, run `scalperctl clean`"
REMEDY_MISSING: Final = "start the pipeline first, or check the instance name with `scalperctl status`"
REMEDY_USER: Final = "run as the user who owns the pipeline"


class SegmentError(Exception):
    """Base of all: `place` is the segment's path, `problem` one clause, `remedy` what to do about it."""

    def __init__(self, place: str, problem: str, remedy: str) -> None:
        super().__init__(place, problem, remedy)
        self.place: Final = place
        self.problem: Final = problem
        self.remedy: Final = remedy

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}; {self.remedy}"


class SegmentNameInvalid(SegmentError):
    """The name is not of the form /scalper.<instance>.<what>."""


class SegmentMissing(SegmentError):
    """No segment of that name."""


class SegmentExists(SegmentError):
    """A segment of that name exists and a living process holds it."""


class SegmentLeftBehind(SegmentExists):
    """A segment of that name exists, but every process that held it is proven dead."""


class SegmentIncomplete(SegmentError):
    """The segment has no magic yet: its creator is still at work, or died before it finished."""


class NotASegment(SegmentError):
    """The file at that name is not a segment of this program."""


class SegmentDamaged(NotASegment):
    """The magic is right but a header word is out of bounds."""


class LayoutMismatch(SegmentError):
    """The segment was laid out by another version or for another record."""


class SegmentSpace(SegmentError):
    """The file system of the segments has no room left."""


class SegmentPermission(SegmentError):
    """Access denied, a foreign owner, or permission bits wider than allowed."""


class SegmentLimit(SegmentError):
    """This process or system has no file descriptors (or memory mappings) left."""


class SegmentBusy(SegmentError):
    """Another process holds the lock of the segment's header and does not let go."""


class SegmentReadOnly(SegmentError):
    """A write was asked of a read-only attachment."""


class SegmentClosed(SegmentError):
    """The segment was used after close()."""


class RoleHeld(SegmentError):
    """The role has an owner that is not proven dead."""


class RoleNotHeld(SegmentError):
    """The caller does not own the role that it wants to release."""


def from_os_error(place: str, error: OSError) -> SegmentError:
    """The typed error for an OSError raised while working on the segment at `place` (a path)."""
    code = error.errno
    text = (error.strerror or str(error)).lower()
    if code == errno.ENOENT:
        return SegmentMissing(place, "no such segment", REMEDY_MISSING)
    if code == errno.EEXIST:
        return SegmentExists(place, "a segment of this name exists", "stop the other pipeline or choose another instance name")
    if code in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT):
        return SegmentSpace(place, f"no memory left for it ({text})", "run `scalperctl clean`, or give /dev/shm more room")
    if code == errno.ELOOP:
        return SegmentPermission(place, "it is a symbolic link, which is never followed", "remove the link")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SegmentPermission(place, f"access denied ({text})", REMEDY_USER)
    if code in (errno.EMFILE, errno.ENFILE):
        return SegmentLimit(place, f"no file descriptors left ({text})", "raise LimitNOFILE or `ulimit -n`")
    return SegmentError(place, f"the system refused ({text})", "see `scalperctl doctor` for what this machine lacks")
