"""Lets a killed stage be dead at once: what takes long, unmapping its memory, is done later, in the exit of another process.

The kernel tells of a death after it has unmapped the memory, which for a stage is a third of the time until its next incarnation
consumes. It unmaps when the last process goes that has the memory. So a stage has a second process beside it that shares its
memory (CLONE_VM), runs no line of Python, writes nothing, and sleeps with all signals blocked. The kernel signals it when the
stage's main thread dies; it lets the next incarnation begin, and ends, 100 ms later, as a child of the subreaper.

Nothing else is different: a stage that is reaped has no thread left that could touch a ring.

    stage ---clone(CLONE_VM)---> remains: prctl(PR_SET_PDEATHSIG, SIGUSR1)
                                          while (getppid() == stage) sigtimedwait({SIGUSR1}, NULL, NULL)
                                          nanosleep(100 ms)
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import signal
from typing import Final

CLONE_VM: Final = 0x100
STACK_BYTES: Final = 4096
NICENESS: Final = 19
_CODE: Final = bytes.fromhex(
    "89fb"  # mov ebx, edi: the stage's pid
    "bf01000000be0a000000"  # mov edi, PR_SET_PDEATHSIG; mov esi, SIGUSR1
    "31d24531d24531c0b89d0000000f05"  # xor edx, edx; xor r10d, r10d; xor r8d, r8d; mov eax, SYS_prctl; syscall
    "b86e0000000f05"  # again: mov eax, SYS_getppid; syscall
    "39d8751a"  # cmp eax, ebx; jne gone
    "488d3d2500000031f631d241ba08000000"  # lea rdi, signals; xor esi, esi; xor edx, edx; mov r10d, 8
    "b8800000000f05ebdb"  # mov eax, SYS_rt_sigtimedwait; syscall; jmp again
    "488d3d1300000031f6"  # gone: lea rdi, span; xor esi, esi
    "b8230000000f05"  # mov eax, SYS_nanosleep; syscall
    "c390"  # ret, upon which clone's caller in libc exits
    "0002000000000000"  # signals: SIGUSR1
    "000000000000000000e1f50500000000"  # span: 0 s, 100,000,000 ns
)
"""For x86-64. Everything that it reads stands in its registers and in itself."""
_made: Final[list[mmap.mmap]] = []
_libc: Final = ctypes.CDLL(None, use_errno=True)


def ready() -> bool:
    """Have the code and its stack made, ahead of need; False where it cannot be had."""
    if not _made and platform.machine() == "x86_64":
        private, may = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
        with contextlib.suppress(OSError):  # a system that lets nobody make code
            _made[:] = mmap.mmap(-1, len(_CODE), private, may | mmap.PROT_EXEC), mmap.mmap(-1, STACK_BYTES, private, may)
            _made[0].write(_CODE)
            _made[1].write(bytes(STACK_BYTES))
    return bool(_made)


def keep() -> int:
    """Start the process that has this one's memory, too; its pid, 0 where there is none (then dying takes its time)."""
    if not ready():
        return 0
    code, stack = (ctypes.addressof(ctypes.c_char.from_buffer(made)) for made in _made)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid: int = _libc.clone(
            ctypes.c_void_p(code), ctypes.c_void_p(stack + STACK_BYTES), CLONE_VM | signal.SIGCHLD, ctypes.c_void_p(os.getpid())
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if pid <= 0:
        return 0
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
    return pid
