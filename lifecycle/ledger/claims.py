"""Fencing tokens: who holds a batch, written so that anybody can tell whether the holder still lives.

`<host>:<boot id>:<process id>:<start of the process>:<random>`
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import psutil  # type: ignore[import-untyped]


def new_claim() -> str:
    """A token that no other drain has, also of this process."""
    return f"{_place()}:{os.getpid()}:{_started(os.getpid()) or 0:.0f}:{secrets.token_hex(8)}"


def is_orphan(claim: str) -> bool:
    """True where the claim was taken on this machine, since it started, by a process that is gone.

    False also means: nobody can tell from here; then the lease decides.
    """
    parts = claim.rsplit(":", 3)
    if len(parts) != 4 or parts[0] != _place() or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return False
    started = _started(int(parts[1]))
    # A process id is used again; the start is known to the second and moves a little when the clock is set.
    return started is None or abs(started - int(parts[2])) > 2


def is_here(claim: str) -> bool:
    """Taken on this machine since it started, where its processes can be seen from here."""
    return claim.rsplit(":", 3)[0] == _place()


def same_boot(claim: str) -> bool:
    """The claim was taken on this machine since it started, in whatever container."""
    parts = claim.rsplit(":", 4)
    return len(parts) == 5 and parts[1].partition(".")[0] == _place().rpartition(":")[2].partition(".")[0]


def _started(process_id: int) -> float | None:
    """Seconds since 1970, or None for a process that is gone or only waits to be buried."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(process_id)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.create_time()
    return None


@lru_cache(maxsize=1)
def _place() -> str:
    """Host and boot. Processes in another process namespace cannot be seen, so it is part of the boot."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    boot_id = boot.read_text().strip() if boot.exists() else f"{psutil.boot_time():.0f}"
    inside = f".{namespace.stat().st_ino}" if namespace.exists() else ""
    return f"{socket.gethostname()}:{boot_id}{inside}"
