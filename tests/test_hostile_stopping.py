"""Full disks, squatted names, planted code, dead supervisors, against whole pipelines. As root, since it mounts; else skipped."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTANCE = "hostile-stop"
PATIENCE_S = 120.0
NOBODY = 65534
UNKNOWN = 4_000_123
CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
pytestmark = [pytest.mark.hostile, pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems and changes owners")]


class Place:
    """Folders of one instance, each on a file system of its own where a test wants that, and `scalperctl` in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounted: list[Path] = []
        systemd = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY")
        self.environment = {key: value for key, value in os.environ.items() if key not in systemd}
        self.environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": CACHE}
        for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state"), ("SCALPER_SHM_DIR", "shm")):
            (folder / name).mkdir(mode=0o700)
            self.environment[variable] = str(folder / name)

    def mount(self, name: str, megabytes: int) -> Path:
        """A tmpfs of this size at one of the folders."""
        place = self.folder / name
        place.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(place)], check=True)
        self.mounted.append(place)
        return place

    def ctl(self, *words: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """One command; its output never holds a traceback."""
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "procs.cli.main", *words], env=self.environment | more, capture_output=True, text=True,
            cwd=cwd or self.folder, timeout=900,
        )  # fmt: skip
        assert "Traceback" not in ran.stderr + ran.stdout, ran.stderr
        return ran

    def start(self, *words: str) -> None:
        """A pipeline that runs."""
        ran = self.ctl("start", "--instance", INSTANCE, *words)
        assert ran.returncode == 0, ran.stderr

    def status(self) -> dict[str, Any]:
        """What `status --json` says."""
        told: dict[str, Any] = json.loads(self.ctl("status", "--instance", INSTANCE, "--json", "--window", "0").stdout)
        return told

    def log(self) -> str:
        """The supervisor's log."""
        return (self.folder / "run" / "scalper" / INSTANCE / "log" / "supervisor.log").read_text()

    def end(self) -> None:
        """No process, no mount is left."""
        for _ in range(2):
            ran = self.ctl("stop", "--instance", INSTANCE)
            if ran.returncode == 3:
                break
        self.ctl("clean", "--instance", INSTANCE)
        for place in reversed(self.mounted):
            subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Folders, ended well."""
    it = Place(tmp_path)
    yield it
    it.end()


def until(what: str, is_so: Callable[[], bool]) -> None:
    """Asks again and again, each time by a command that takes its time itself, for PATIENCE_S at most."""
    limit = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < limit, f"never: {what}"


def fill(folder: Path) -> Path:
    """A file that takes the last byte of a file system."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_halt_on_a_full_disk_holds(place: Place) -> None:
    """The state's disk is full to the last byte: `halt trip` latches all the same, and the next start does not trade."""
    state = place.mount("state", 64)
    place.start("--set", "pipeline.journal=false")
    ballast = fill(state)
    ran = place.ctl("halt", "trip", "--instance", INSTANCE, "--reason", "on a full disk")
    assert ran.returncode == 0 and "on a full disk" in ran.stdout and "NOT" not in ran.stdout
    assert place.ctl("stop", "--instance", INSTANCE).returncode == 0
    said = place.ctl("halt", "status", "--instance", INSTANCE)
    assert said.returncode == 5 and "on a full disk" in said.stdout
    place.start("--set", "pipeline.journal=false")
    assert "on a full disk" in place.status()["halted"] and "starts halted" in place.log()
    ballast.unlink()
    assert place.ctl("halt", "reset", "--instance", INSTANCE, "--reason", "room again").returncode == 0


def test_a_latch_that_is_refused_is_tried_again(place: Place) -> None:
    """A state disk that has become read-only: NOT latched, exit 5, and latched by itself once it can be written again."""
    state = place.mount("state", 64)
    place.start("--set", "pipeline.journal=false")
    subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
    ran = place.ctl("halt", "trip", "--instance", INSTANCE, "--reason", "odd fills")
    assert ran.returncode == 5 and "NOT latched" in ran.stdout and "Read-only" in ran.stdout
    assert place.status()["healthy"] is False and "halt.json" in place.status()["unlatched"]
    assert "kill switch not latched" in place.log()
    subprocess.run(["mount", "-o", "remount,rw", str(state)], check=True)
    until("latched", lambda: place.status()["unlatched"] is None)
    assert (state / "scalper" / INSTANCE / "halt.json").read_bytes().startswith(b'{"who"')


def test_a_disk_full_of_journals_is_told(place: Place) -> None:
    """The journals' disk fills up: `status` ends with 5 and says so, the log too, the latch beside them holds; room mends it."""
    state = place.mount("state", 96)
    place.start()
    ballast = fill(state)
    until("told", lambda: bool(place.status()["trouble"]))
    ran = place.ctl("status", "--instance", INSTANCE, "--window", "0")
    assert ran.returncode == 5 and "no room left on its disk" in ran.stdout
    assert '"stands still"' in place.log()
    halted = place.ctl("halt", "trip", "--instance", INSTANCE, "--reason", "full")
    assert halted.returncode == 0 and "NOT" not in halted.stdout
    ballast.unlink()
    until("mended", lambda: not place.status()["trouble"])
    assert "goes on again" in place.log()
    assert place.ctl("halt", "reset", "--instance", INSTANCE, "--reason", "room").returncode == 0


def test_shared_memory_without_room(place: Place) -> None:
    """A /dev/shm that is too small refuses the start in a sentence; one that fills up later keeps no halt from holding."""
    place.mount("shm", 2)
    ran = place.ctl("start", "--instance", INSTANCE)
    assert ran.returncode == 1 and "bytes do not fit" in ran.stderr, ran.stderr
    assert list((place.folder / "shm").iterdir()) == [], "nothing is left behind"
    subprocess.run(["umount", str(place.mounted.pop())], check=True)
    shm = place.mount("shm", 512)
    place.start()
    fill(shm)
    ran = place.ctl("halt", "trip", "--instance", INSTANCE, "--reason", "memory is full")
    assert ran.returncode == 0 and "memory is full" in ran.stdout
    assert place.status()["halted"]


def test_a_run_directory_without_room(place: Place) -> None:
    """Where not even the log can be written the start says which folder is full."""
    run = place.mount("run", 1)
    (run / "scalper" / INSTANCE / "log").mkdir(parents=True, mode=0o700)
    for folder in (run / "scalper", run / "scalper" / INSTANCE):
        folder.chmod(0o700)
    (run / "scalper" / INSTANCE / "lock").write_bytes(b" " * 31 + b"\n")
    fill(run)
    ran = place.ctl("start", "--instance", INSTANCE)
    assert ran.returncode == 1 and str(run / "scalper" / INSTANCE) in ran.stderr, ran.stderr


def test_a_run_outlives_its_supervisor(place: Place) -> None:
    """kill -9 of the supervisor: the run is listed, reported and traced from its journals, by id and as the last one."""
    place.start()
    until("orders", lambda: place.status()["progress"] > 20_000)
    supervisor = os.pidfd_open(place.status()["supervisor"]["pid"])
    signal.pidfd_send_signal(supervisor, signal.SIGKILL)
    select.select([supervisor], [], [], PATIENCE_S)
    os.close(supervisor)
    until("gone", lambda: place.ctl("status", "--instance", INSTANCE).returncode == 3)
    runs = json.loads(place.ctl("runs", "--instance", INSTANCE, "--json").stdout)
    assert [run["ended"] for run in runs] == ["it died"]
    ran = place.ctl("report", "--run", runs[0]["run"], "--json")
    assert ran.returncode == 0 and "its journals alone" in ran.stderr
    told = json.loads(ran.stdout)
    assert json.loads(place.ctl("report", "--instance", INSTANCE, "--json").stdout) == told
    assert place.ctl("report", "--run", runs[0]["journals"], "--json").returncode == 0
    assert place.ctl("trace", "1", "--run", runs[0]["run"]).returncode in (0, 1)
    ran = place.ctl("stats", "--run", runs[0]["run"])
    assert ran.returncode == 3 and "has no figures" in ran.stderr


def test_three_starts_at_once(place: Place) -> None:
    """One runs, two are refused with 4, and the log that is named is the one that the living supervisor writes to."""
    words = [sys.executable, "-P", "-m", "procs.cli.main", "start", "--instance", INSTANCE]
    starts = [
        subprocess.Popen(words, env=place.environment, cwd=place.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ends = sorted(start.wait(900) for start in starts)
    for start in starts:
        assert start.stderr is not None
        start.stderr.close()
    assert ends == [0, 4, 4]
    pid = place.status()["supervisor"]["pid"]
    log = place.folder / "run" / "scalper" / INSTANCE / "log" / "supervisor.log"
    assert os.readlink(f"/proc/{pid}/fd/1") == str(log) and [p.name for p in log.parent.glob("supervisor*")] == [log.name]


def test_a_stage_that_cannot_run_ends_the_start(place: Place) -> None:
    """A recorder whose journals are another program's is given up: `start` ends with 5, its last line and the kill switch."""
    journals = place.folder / "journals"
    overrides = ["--set", f"pipeline.journal_dir={journals}", "--set", "supervisor.max_restarts=2"]
    log = place.folder / "run" / "scalper" / INSTANCE / "log"
    log.mkdir(parents=True, mode=0o700)
    (log / "recorder.log").mkdir()  # the stage cannot open its own log
    ran = place.ctl("start", "--instance", INSTANCE, *overrides)
    assert ran.returncode == 5 and "recorder ended 3 times" in ran.stderr and "the kill switch is tripped" in ran.stderr
    assert place.ctl("halt", "status", "--instance", INSTANCE).returncode == 5
    assert place.ctl("halt", "reset", "--instance", INSTANCE, "--reason", "mended").returncode == 0


def test_a_squatted_run_directory(place: Place) -> None:
    """Another user serves our socket in a folder of our name: root believes nothing of it, names it, and halts on disk."""
    sticky = Path(tempfile.mkdtemp(dir="/var/tmp"))
    sticky.chmod(0o1777)
    folder = sticky / "scalper" / INSTANCE
    squatter = subprocess.Popen([sys.executable, "-I", "-c", SQUATTER, str(folder), str(NOBODY)], stdout=subprocess.PIPE)
    assert squatter.stdout is not None
    try:
        assert squatter.stdout.readline() == b"ready\n"
        code = (
            "import sys; from pathlib import Path; from procs import rundir; "
            f"rundir.run_base = lambda: Path({str(folder.parent)!r}); "
            "from procs.cli.main import main; sys.exit(main(sys.argv[1:]))"
        )
        for words, expected in (
            (["halt", "trip", "--instance", INSTANCE, "--reason", "odd"], 0), (["status", "--instance", INSTANCE], 3),
            (["stop", "--instance", INSTANCE], 3), (["top", "--instance", INSTANCE], 3), (["start", "--instance", INSTANCE], 1),
        ):  # fmt: skip
            ran = subprocess.run(
                [sys.executable, "-P", "-c", code, *words], env=place.environment, capture_output=True, text=True, timeout=120
            )
            assert ran.returncode == expected and f"belongs to uid {NOBODY}" in ran.stderr, (words, ran.stderr)
        assert place.ctl("halt", "status", "--instance", INSTANCE).returncode == 5
        assert squatter.poll() is None
    finally:
        squatter.kill()
        squatter.wait()
        squatter.stdout.close()
        shutil.rmtree(sticky)


SQUATTER = """
import fcntl, os, socket, struct, sys
folder, user = sys.argv[1], int(sys.argv[2])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
os.makedirs(folder)
lock = os.open(folder + "/lock", os.O_RDWR | os.O_CREAT)
fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
os.write(lock, str(os.getpid()).encode())
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.bind(folder + "/control.sock")
os.chmod(folder + "/control.sock", 0o777)
server.listen()
print("ready", flush=True)
while True:
    client, _ = server.accept()
    client.recv(65536)
    client.send(b'{"ok": true, "halted": "believe me", "unlatched": null}')
"""


def test_a_squatted_segment(place: Place) -> None:
    """Another user's file has our board's name: the start is refused, `clean` leaves the file alone, and both name it."""
    theirs = place.folder / "shm" / f"scalper.{INSTANCE}.board"
    theirs.write_bytes(bytes(1 << 20))
    os.chown(theirs, NOBODY, NOBODY)
    ran = place.ctl("start", "--instance", INSTANCE)
    assert ran.returncode == 1 and str(theirs) in ran.stderr and f"uid {NOBODY}" in ran.stderr
    ran = place.ctl("clean", "--instance", INSTANCE)
    assert str(theirs) in ran.stdout and "not ours to remove" in ran.stdout and theirs.exists()


def test_code_in_the_working_directory_is_not_run(place: Place) -> None:
    """A whole run from a folder full of modules of our names: none of them runs, in no process."""
    planted = place.folder / "planted"
    for name in ("shm", "ringbuf", "trading", "sim", "procs", "numpy", "msgspec"):
        (planted / name).mkdir(parents=True)
        (planted / name / "__init__.py").write_text(f"open({str(place.folder / 'RAN')!r}, 'a').write(__file__)\n")
    ran = place.ctl("start", "--instance", INSTANCE, cwd=planted)
    assert ran.returncode == 0, ran.stderr
    assert place.ctl("stop", "--instance", INSTANCE, cwd=planted).returncode == 0
    assert not (place.folder / "RAN").exists()


def test_a_package_in_site_packages_is_named(place: Place) -> None:
    """A foreign `trading` that is found before ours: the console script says which file, exit 2, and nothing of it ran."""
    site = place.folder / "site-packages"
    (site / "trading").mkdir(parents=True)
    (site / "trading" / "__init__.py").write_text(f"open({str(place.folder / 'RAN')!r}, 'a')\n")
    script = place.folder / "scalperctl"
    script.write_text("import sys\nfrom procs.cli.main import main\nsys.exit(main())\n")
    environment = place.environment | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    ran = subprocess.run([sys.executable, str(script), "version"], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2 and str(site / "trading" / "__init__.py") in ran.stderr and "Traceback" not in ran.stderr
    assert not (place.folder / "RAN").exists()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not here")
def test_a_user_without_an_entry_or_home(place: Place) -> None:
    """A uid that passwd does not know, without HOME: commands answer in a sentence or with their figures, never a traceback."""
    named = "--instance nobody-knows"
    for words, codes in (
        ("version", {0}), ("status", {3}), (f"halt trip {named} --reason x", {0}), (f"halt status {named}", {5}),
        (f"halt reset {named} --reason x", {0}), ("runs", {3}), ("doctor", {0, 5}), ("start --config no-such-profile", {2}),
        ("report", {3}), ("topology", {0}), ("model ls", {0}),
    ):  # fmt: skip
        become = ["setpriv", f"--reuid={UNKNOWN}", f"--regid={UNKNOWN}", "--clear-groups"]
        become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # wherever this Python is installed
        ran = subprocess.run(
            [*become, sys.executable, "-P", "-m", "procs.cli.main", *words.split()], capture_output=True, text=True, timeout=120,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, cwd="/",
        )  # fmt: skip
        assert ran.returncode in codes and "Traceback" not in ran.stderr, (words, ran.returncode, ran.stderr)
    for folder in Path("/tmp").glob(f"scalper-*{UNKNOWN}"):
        shutil.rmtree(folder)
