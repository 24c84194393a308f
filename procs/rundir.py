"""Where an instance keeps what: run directory (socket, lock, logs), state directory (kill switch, journal), kernel cache.

    run      $RUNTIME_DIRECTORY (systemd), else $XDG_RUNTIME_DIR/scalper, else /tmp/scalper-<uid>      gone after a reboot
    state    $STATE_DIRECTORY (systemd), else $XDG_STATE_HOME/scalper, else ~/.local/state/scalper      kept
    cache    $CACHE_DIRECTORY (systemd), else $XDG_CACHE_HOME/scalper, else ~/.cache/scalper            can be made anew

Each has one folder per instance (a systemd directory that is already called like the instance is that folder).
Folders are 0700 and ours, or they are refused: somebody else's folder in /tmp must not get our socket or our latch. Whoever looks
for a living instance passes over folders that others may have made (procs.trust); `squatted` names them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct
from pathlib import Path
from typing import Final, Self

from procs.trust import distrust

INSTANCE: Final = re.compile(r"[a-z0-9_-]{1,24}")
HANDED_LOCK: Final = "SCALPER_INSTANCE_LOCK"
"""The variable by which `start` hands the lock that it holds, as a descriptor's number, to the supervisor that it starts."""
SYSTEM_RUN: Final = Path("/run/scalper")
SYSTEM_STATE: Final = Path("/var/lib/scalper")


class RunDirError(OSError):
    """A directory cannot be used; the message names it and the remedy."""


class InstanceBusyError(RuntimeError):
    """Another pipeline has this name. `pid` is its supervisor, 0 if unknown."""

    def __init__(self, instance: str, pid: int, lock: Path) -> None:
        self.instance, self.pid = instance, pid
        holder = f"as pid {pid}" if pid else "under an unknown pid"
        super().__init__(
            f"instance {instance!r} already runs {holder} (lock {lock}): stop it with `scalperctl stop --instance {instance}`, "
            "or give this one another `instance:` name in its profile"
        )


def checked_name(instance: str) -> str:
    """The name, if it is one; ValueError otherwise (it becomes part of paths)."""
    if not INSTANCE.fullmatch(instance):
        raise ValueError(f"instance {instance!r}: a name has 1 to 24 of a-z, 0-9, - and _")
    return instance


def own_folder(path: Path) -> Path:
    """`path` as a folder of ours with mode 0700, made if missing. Raises RunDirError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as e:
        raise RunDirError(f"{path}: {e.strerror}; remove what stands there or check the permissions above it") from None
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise RunDirError(f"{path} belongs to uid {found.st_uid}, not to us ({os.geteuid()}); remove it")
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
    return path


def _from_systemd(variable: str) -> Path | None:
    first = os.environ.get(variable, "").split(":")[0]
    return Path(first) if first.startswith("/") else None


def _below_home(variable: str, default: str, kind: str) -> Path:
    value = os.environ.get(variable, "")
    if value.startswith("/"):
        return Path(value) / "scalper"
    home = Path(os.path.expanduser("~"))
    if home.is_absolute() and os.access(home, os.W_OK):
        return home / default / "scalper"
    return Path(f"/tmp/scalper-{kind}-{os.geteuid()}")


def _for_instance(base: Path, instance: str) -> Path:
    return base if base.name == instance else base / checked_name(instance)


def run_base() -> Path:
    """The folder above all run directories of this user (not created)."""
    systemd = _from_systemd("RUNTIME_DIRECTORY")
    if systemd is not None:
        return systemd
    xdg = os.environ.get("XDG_RUNTIME_DIR", "")
    if xdg.startswith("/") and os.access(xdg, os.W_OK) and os.stat(xdg).st_uid == os.geteuid():  # root may write anybody's
        return Path(xdg) / "scalper"
    return Path(f"/tmp/scalper-{os.geteuid()}")


def run_dir(instance: str) -> Path:
    """The instance's run directory, made if missing. Raises RunDirError, also where others could put another in its place."""
    checked_name(instance)
    base = run_base()
    folder = _for_instance(base, instance)
    if folder != base:
        own_folder(base)
    own_folder(folder)
    problem = distrust(folder)
    if problem:
        raise RunDirError(problem)
    return folder


def log_dir(instance: str) -> Path:
    """Where the stages' own output goes, one file a stage."""
    return own_folder(run_dir(instance) / "log")


def _places(instance: str) -> list[Path]:
    """Where an instance of that name may have its run directory: this user's place, then the system service's."""
    checked_name(instance)
    places = [_for_instance(run_base(), instance), SYSTEM_RUN / instance, Path(f"/tmp/scalper-{os.geteuid()}") / instance]
    return list(dict.fromkeys(places))


def run_dir_candidates(instance: str) -> list[Path]:
    """Where a client may find a living instance, those left out that others may have made. Nothing is created."""
    return [folder for folder in _places(instance) if not distrust(folder)]


def squatted(instance: str = "") -> str:
    """Which run directory of this name (of any, if "") is not believed, and why, as a sentence; "" if there is none."""
    folders = _places(instance) if instance else list(_bases())
    return next((problem for folder in folders if (problem := distrust(folder))), "")


def _bases() -> dict[Path, None]:
    return dict.fromkeys([run_base(), SYSTEM_RUN, Path(f"/tmp/scalper-{os.geteuid()}")])


def instances() -> list[str]:
    """Names that have a run directory here, living or not."""
    found: dict[str, None] = {}
    for base in _bases():
        if distrust(base):
            continue
        with contextlib.suppress(OSError):
            for entry in sorted(base.iterdir()):
                if INSTANCE.fullmatch(entry.name) and (entry / "lock").exists():
                    found[entry.name] = None
            if (base / "lock").exists() and INSTANCE.fullmatch(base.name):
                found[base.name] = None
    return list(found)


def state_base() -> Path:
    """The folder above all state directories of this user (not created)."""
    return _from_systemd("STATE_DIRECTORY") or _below_home("XDG_STATE_HOME", ".local/state", "state")


def state_dir(instance: str) -> Path:
    """The instance's state directory, made if missing."""
    checked_name(instance)
    return own_folder(_for_instance(state_base(), instance))


def venues_dir() -> Path:
    """Where all instances of this user keep what they know of the venues, made if missing; under systemd each its own."""
    return own_folder(state_base() / ".venues")  # no instance has such a name


def kernels_base() -> Path:
    """The folder above this user's caches of compiled kernels (procs.kernels.choice), made if missing. Raises RunDirError."""
    base = _from_systemd("CACHE_DIRECTORY") or _below_home("XDG_CACHE_HOME", ".cache", "cache")
    return own_folder(own_folder(base) / "kernels")


def _flock(kind: int) -> bytes:
    """struct flock over the whole file (pid must be 0 for open-file-description locks)."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _pid_text(pid: int) -> bytes:
    """Always as long, over what stands there: a disk that has become full cannot refuse it. 0: nobody."""
    return f"{pid or '':<31}\n".encode()


def _pid_in(fd: int) -> int:
    text = os.pread(fd, 64, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else 0


class InstanceLock:
    """Held for the life of a pipeline: one supervisor per name. The kernel lets go of it when the holder dies."""

    def __init__(self, instance: str) -> None:
        """Take it, or take over the one that HANDED_LOCK names. Raises InstanceBusyError, RunDirError."""
        self.path = run_dir(instance) / "lock"
        handed = os.environ.pop(HANDED_LOCK, "")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags, 0o600)
        except OSError as e:
            raise RunDirError(f"{self.path}: {e.strerror}; remove what stands there or check the permissions above it") from None
        if handed.isdigit() and _same_file(self._fd, int(handed)):
            os.close(self._fd)
            self._fd = int(handed)
            os.set_inheritable(self._fd, False)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))  # one that is ours already is taken again
        except BlockingIOError:
            pid = _pid_in(self._fd)
            os.close(self._fd)
            raise InstanceBusyError(instance, pid, self.path) from None
        except BaseException:
            os.close(self._fd)
            raise
        try:
            os.pwrite(self._fd, _pid_text(os.getpid()), 0)
        except OSError as e:
            os.close(self._fd)
            raise RunDirError(f"{self.path}: {e.strerror}; free some room there, then start again") from None

    @property
    def fd(self) -> int:
        """The descriptor; whoever inherits it holds the lock as well."""
        return self._fd

    def hand_over(self) -> None:
        """Let go here, without a word in the file: a child has inherited the descriptor and holds the name from now on."""
        os.close(self._fd)
        self._fd = -1

    def release(self) -> None:
        """Let go. The file stays: unlinking a lock file races with the next holder."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, _pid_text(0), 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def holder(instance: str) -> int:
    """Pid of the living supervisor of this instance, 0 if there is none. Only asks: a look must not hold up a start."""
    for folder in run_dir_candidates(instance):
        try:
            fd = os.open(folder / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            # an open-file-description lock can be asked about without taking it; flock(2) cannot
            kind = struct.unpack_from("h", fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK)))[0]
            if kind != fcntl.F_UNLCK:
                return _pid_in(fd)
        finally:
            os.close(fd)
    return 0
