"""`prunefront ui` as a process: a server on loopback that is gone when the command is."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tracking.connection import default_uri

ROOT = Path(__file__).parent.parent


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2.0).close()
    except OSError:
        return False
    return True


def within(seconds: float, happened: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return True
        time.sleep(0.2)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_goes_with_the_command(tmp_path: Path, number: signal.Signals) -> None:
    MlflowClient(default_uri(str(tmp_path))).search_experiments()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "search", "ui", "--storage", str(tmp_path), "--port", str(port)]
    ui = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert within(90.0, lambda: answers(port))
    finally:
        ui.send_signal(number)
    assert ui.wait(30.0) == 0
    assert within(30.0, lambda: not answers(port))
