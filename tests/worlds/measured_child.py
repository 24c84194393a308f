"""scalperctl in a child process whose memory and processor time are measured. Holds no tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = (
    "import resource, sys\n"
    "from procs.cli.main import main\n"
    "code = main(sys.argv[1:])\n"
    "used = resource.getrusage(resource.RUSAGE_SELF)\n"
    "peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
    "print(f'USED {int(peak) << 10} {used.ru_utime + used.ru_stime}')\n"
    "sys.exit(code)\n"
)
"""Not ru_maxrss: a process that another one has started counts its parent's size in it."""


def run(*words: str | Path) -> tuple[int, str, float, int]:
    """`scalperctl`: (exit code, what it said, seconds of the processor, bytes of memory at its peak)."""
    done = subprocess.run([sys.executable, "-P", "-c", CODE, *map(str, words)], capture_output=True, text=True, timeout=600)
    said, _, used = done.stdout.rpartition("USED ")
    peak, seconds = used.split()
    return done.returncode, said + done.stderr, float(seconds), int(peak)
