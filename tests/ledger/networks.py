"""Hosts for tests: network namespaces of this machine, each with one cable that can be pulled."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Host:
    """`address`: of this machine, as the host sees it. `command`: what a program on it is started with."""

    def __init__(self, number: int) -> None:
        self._name, self._cable = f"tern{os.getpid()}-{number}", f"tern{os.getpid() % 10_000}x{number}"
        self.address, self._own = f"10.213.{number}.1", f"10.213.{number}.2"
        self.command = ["ip", "netns", "exec", self._name]

    def set_up(self) -> None:
        """Raises CalledProcessError where the kernel does not allow it."""
        inner = f"{self._cable}i"
        for words in (
            f"netns add {self._name}",
            f"link add {self._cable} type veth peer name {inner}",
            f"link set {inner} netns {self._name}",
            f"addr add {self.address}/24 dev {self._cable}",
            f"link set {self._cable} up",
            f"-n {self._name} addr add {self._own}/24 dev {inner}",
            f"-n {self._name} link set {inner} up",
            f"-n {self._name} link set lo up",
        ):
            _ip(words)

    def tear_down(self) -> None:
        for words in (f"link del {self._cable}", f"netns del {self._name}"):
            with suppress(subprocess.CalledProcessError):
                _ip(words)

    def pull_cable(self) -> None:
        _ip(f"link set {self._cable} down")

    def put_cable_back(self) -> None:
        _ip(f"link set {self._cable} up")


@contextmanager
def host(number: int) -> Iterator[Host]:
    made = Host(number)
    try:
        made.set_up()
        yield made
    finally:
        made.tear_down()


def can_make() -> bool:
    """Whether this machine lets us: as root, with the program ip, and not in every container."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with host(9):
            return True
    except subprocess.CalledProcessError:
        return False


@contextmanager
def relay(address: str, to: str | tuple[str, int]) -> Iterator[int]:
    """A port on `address` behind which a server of this machine is reached: a socket file, or host and port."""
    listener = socket.create_server((address, 0))
    threading.Thread(target=_accept, args=(listener, to), daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def _accept(listener: socket.socket, to: str | tuple[str, int]) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX) if isinstance(to, str) else socket.socket()
        far.connect(to)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)
