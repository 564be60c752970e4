"""Which process something belongs to that outlives it, such as a container, and whether that process still is."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

_BOOT_DIGITS = 12
"""Digits that are kept, of 32: they are part of the path of a socket, which may not be long."""

_FORM = re.compile(r"\bu(\d+)-p(\d+)-s(\d+)-b([0-9a-f]+)-n(\d+)\b")


@dataclass(frozen=True)
class Owner:
    """A process, as no other is called.

    Attributes:
        user: Its user's number.
        pid: Its process id.
        start: When it began, in ticks since the machine has: an id is given again, to a process that begins later.
        boot: The machine since it was started last. No other one's processes can be looked for here.
        namespace: In which that process id counts. A container's process 7 is not its host's.
    """

    user: int
    pid: int
    start: int
    boot: str
    namespace: int

    def __str__(self) -> str:
        return f"u{self.user}-p{self.pid}-s{self.start}-b{self.boot}-n{self.namespace}"

    def is_dead(self) -> bool:
        """Whether it is known to be a process that has ended, of this user's and on this machine."""
        own = this_process()
        if (self.user, self.boot, self.namespace) != (own.user, own.boot, own.namespace):
            return False
        return _start_of(self.pid) != self.start

    def signal(self, number: int) -> bool:
        """Send a signal to the process, if it is known to be the one that is meant.

        Returns:
            Whether it was sent; False where the process has ended, or is not one of this user's on this machine.
        """
        own = this_process()
        if (self.user, self.boot, self.namespace) != (own.user, own.boot, own.namespace) or not self.start:
            return False
        descriptor: int | None = None
        try:
            # Held from before the look, so that no other process can have got the id between look and signal.
            if hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"):
                with contextlib.suppress(OSError):  # as a kernel before 5.3, or a sandbox, has it
                    descriptor = os.pidfd_open(self.pid)
            if _start_of(self.pid) != self.start:
                return False
            if descriptor is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            if descriptor is not None:
                os.close(descriptor)
        return True


def find_owner(text: str) -> Owner | None:
    """The first owner that a text names, such as the labels of a container; None if it names none."""
    found = _FORM.search(text)
    if found is None:
        return None
    user, pid, start, boot, namespace = found.groups()
    return Owner(int(user), int(pid), int(start), boot, int(namespace))


def this_process() -> Owner:
    """The owner of what this process starts.

    Where the system has no ``/proc`` it is one that nobody knows to be dead.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text("ascii").replace("-", "")[:_BOOT_DIGITS]
        namespace = (PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return Owner(user, os.getpid(), 0, secrets.token_hex(_BOOT_DIGITS // 2), 0)
    return Owner(user, os.getpid(), _start_of(os.getpid()) or 0, boot, namespace)


def _start_of(pid: int) -> int | None:
    """When a process began; None if there is none, or it has ended and is only waited for."""
    try:
        # After the name, which is in parentheses and may hold anything.
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
