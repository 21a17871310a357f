"""`tern up`: everything that serves, on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import Annotated

import typer

from lifecycle.cli.common import console
from lifecycle.errors import UsageError
from lifecycle.processes import in_background, port_is_free, run
from lifecycle.settings import ROOT, load_environment
from lifecycle.workplace import open_workplace

POOL = "tern"


def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    prefect_port: Annotated[int, typer.Option(help="Prefect's server and UI.")] = 4200,
    tracking_port: Annotated[int, typer.Option(help="Tracking web app.")] = 8025,
) -> None:
    """Serve: Prefect with its UI, a worker with every deployment, the tracking web app. Ends with Ctrl-C.

    Example: `tern up --prefect-port 4201`
    """
    place = open_workplace()
    place.engine.dispose()
    for port, option in ((prefect_port, "--prefect-port"), (tracking_port, "--tracking-port")):
        if not port_is_free(host, port):
            raise UsageError(f"port {port} is in use on {host}; choose another one with {option}")
    data = load_environment().data_dir
    logs = data / "logs"
    env = {
        "PREFECT_HOME": str(data / "prefect"),
        "PREFECT_API_URL": f"http://{host}:{prefect_port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    with ExitStack() as stack:
        server = ["-m", "prefect", "server", "start", "--host", host, "--port", str(prefect_port)]
        in_background(stack, "prefect", server, env, logs, ready=f"http://{host}:{prefect_port}/api/health")
        tracking = ["-m", "lifecycle.tracking.serve", "--host", host, "--port", str(tracking_port)]
        in_background(stack, "tracking", tracking, env, logs, ready=f"http://{host}:{tracking_port}/healthz")
        if place.config.channels_file.bounces.lmtp_port is not None:
            in_background(stack, "bounces", ["-m", "lifecycle.cli.main", "bounces"], env, logs)
        run(["-m", "prefect", "work-pool", "create", POOL, "--type", "process", "--overwrite"], env)
        run(["-m", "prefect", "deploy", "--all", "--prefect-file", str(ROOT / "prefect.yaml")], env)
        in_background(stack, "worker", ["-m", "prefect", "worker", "start", "--pool", POOL], env, logs)
        console.print(
            f"\nPrefect's UI   http://{host}:{prefect_port}\nTracking       http://{host}:{tracking_port}"
        )
        console.print(f"Logs           {logs}\nStop with Ctrl-C.")
        _until_interrupted()


def _until_interrupted() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("Stopping.")


def register(app: typer.Typer) -> None:
    app.command()(up)
