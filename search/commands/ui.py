"""`prunefront ui`: the MLflow UI on the right store, on loopback."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from types import FrameType

import click

from spaces.errors import UserError
from tracking.connection import artifact_folder, database, default_uri


@click.command(short_help="Open the MLflow UI on the right store.")
@click.option("--tracking-uri", metavar="URI", help="Store to show; a server shows itself.")
@click.option("--storage", metavar="DIR", default="runs", show_default=True, help="Where the default store lies.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def command(tracking_uri: str | None, storage: str, port: int) -> None:
    """Show the store in the MLflow UI until Ctrl-C; only this machine can reach it."""
    uri = tracking_uri or default_uri(storage)
    if uri.startswith(("http://", "https://")):
        raise UserError(f"{uri} is a server with a UI of its own: open it in a browser")
    path = database(uri)
    if path is not None and not path.exists():
        raise UserError(f"no tracking store at {path}; give --storage or --tracking-uri, or run a search first")
    _check_free(port)
    click.echo(f"the MLflow UI of {uri}: http://127.0.0.1:{port} (Ctrl-C ends it)")
    sys.exit(_serve(server_command(uri, port)))


def _serve(command: list[str]) -> int:
    """The server's exit status. It is several processes, so whatever ends this one must end all of them."""
    server = subprocess.Popen(command, start_new_session=True)

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    status = server.wait()
    return 0 if status == -signal.SIGTERM else status


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just closed is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} is taken; give another with --port") from error


def server_command(uri: str, port: int) -> list[str]:
    """How MLflow is started. One worker: with more, every kept-alive request costs 40 ms (uvicorn#3149)."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    folder = artifact_folder(uri)
    return command if folder is None else [*command, "--artifacts-destination", folder.as_uri()]
