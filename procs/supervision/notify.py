"""What the service tells systemd: READY, STATUS, WATCHDOG, STOPPING (sd_notify(3)). Silent without systemd.

The environment's variables are taken out when read, so that no child can speak in the supervisor's name.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Self


class Notifier:
    """One datagram socket to $NOTIFY_SOCKET. A lost message is never an error: systemd's timeouts judge."""

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self._socket: socket.socket | None = None
        self.watchdog_ns = watchdog_us * 1000 if address else 0
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            with contextlib.suppress(OSError):
                self._socket.connect("\0" + address[1:] if address.startswith("@") else address)

    @classmethod
    def from_environment(cls) -> Self:
        """For this process if systemd addressed it ($WATCHDOG_PID), and takes the variables away."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return cls()
        mine = not pid or pid == str(os.getpid())
        return cls(address, int(microseconds) if mine and microseconds.isdigit() else 0)

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(text.encode("utf-8", "replace"))

    def ready(self, status: str) -> None:
        """Start-up is complete."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(status)}")

    def watchdog(self) -> None:
        """The pipeline made progress. Call it for no other reason."""
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Start or stop takes longer than usual (kernels compile): at least `seconds` more."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def close(self) -> None:
        """Closes the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
