"""`python -m lifecycle.tracking.serve`: runs the tracking web app until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
from collections.abc import Sequence

import uvicorn

from lifecycle.errors import NotReady, TernError
from lifecycle.tracking.app import create_app
from lifecycle.workplace import open_workplace


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lifecycle.tracking.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8025, help="0: any free one, printed at the start")
    parser.add_argument(
        "--trusted-proxies",
        default="127.0.0.1",
        metavar="IP,IP",
        help="whose X-Forwarded-For is believed; behind a proxy on another host its address belongs here",
    )
    given = parser.parse_args(arguments)
    try:
        serve(given.host, given.port, given.trusted_proxies)
    except TernError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def serve(host: str, port: int, trusted_proxies: str) -> None:
    """Returns when told to stop, after every request in hand is stored and answered. Raises TernError."""
    place = open_workplace()
    app = create_app(place.engine, place.environment, place.config)
    with _listen(host, port) as listener:
        print(f"tracking web app on http://{host}:{listener.getsockname()[1]}", flush=True)
        # No access log: the path of a request is the right to unsubscribe.
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, forwarded_allow_ips=trusted_proxies, server_header=False
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has ended in order
            uvicorn.Server(settings).run(sockets=[listener])
    place.engine.dispose()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        raise NotReady(
            f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}; "
            "end what uses the port or give another one with --port"
        ) from None
    return listener


if __name__ == "__main__":
    sys.exit(main())
