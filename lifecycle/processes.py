"""Starts and stops processes of our own, each by its own process id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from lifecycle.errors import TernError

Env = Mapping[str, str]
NEVER = 2024


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port != NEVER:
            return port


def port_is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@contextmanager
def process(arguments: Sequence[str], env: Env, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process in the background; its output goes to `log`. Ended at the end, gently first."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, *arguments], env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(url: str, child: subprocess.Popen[bytes], log: Path, *, seconds: float = 120) -> None:
    """Until `url` answers 200. Raises TernError with the end of the log when it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.poll() is None:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    tail = log.read_text(errors="replace").splitlines()[-5:]
    raise TernError(f"{url} did not come up; the end of {log}:\n" + "\n".join(tail))


def run(arguments: Sequence[str], env: Env) -> None:
    """A Python process in the foreground. Raises TernError when it fails; its own words stand above."""
    done = subprocess.run([sys.executable, *arguments], env={**os.environ, **env}, check=False)
    if done.returncode:
        raise TernError(f"`{' '.join(arguments)}` ended with exit code {done.returncode}; see above")


def in_background(
    stack: ExitStack, name: str, arguments: Sequence[str], env: Env, logs: Path, *, ready: str | None = None
) -> None:
    """A process until `stack` is left, its output in `<logs>/<name>.log`; returns once `ready` answers 200."""
    log = logs / f"{name}.log"
    child = stack.enter_context(process(arguments, env, log))
    if ready:
        wait_for(ready, child, log)
