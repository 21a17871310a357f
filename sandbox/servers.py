"""Any ASGI app on a loopback port, in a thread of this process."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from lifecycle.errors import UsageError
from lifecycle.processes import NEVER

_PATIENCE_SECONDS = 30


@contextmanager
def serve(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """The app's address, `http://127.0.0.1:…`, while the block runs; 0 is any free port.

    Raises UsageError when the port is taken.
    """
    listener = _listen(port)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    with listener:
        thread.start()
        try:
            _wait_until_up(server, thread)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_PATIENCE_SECONDS)


def _listen(port: int) -> socket.socket:
    if port == NEVER:
        raise UsageError(f"port {port} is not for servers of this project; choose another port")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise UsageError(
            f"port {port} on 127.0.0.1 is taken; stop the program that listens there or choose another port"
        ) from None
    return listener


def _wait_until_up(server: uvicorn.Server, thread: threading.Thread) -> None:
    waited_until = time.monotonic() + _PATIENCE_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > waited_until:
            raise RuntimeError("the server did not start; its log on stderr says why")
        time.sleep(0.01)
