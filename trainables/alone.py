"""One device, many trials: whoever measures a latency has the device alone, whoever trains shares it.

Two lock files per device on this machine. Trainers pass the gate before they share the device; who wants it alone holds
the gate shut first, so that trainers finish their epoch and no new one begins.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sharing(device: str) -> Iterator[None]:
    """Use the device beside others; waits while somebody has it alone."""
    with _locked(device, "gate", fcntl.LOCK_SH):
        pass
    with _locked(device, "use", fcntl.LOCK_SH):
        yield


@contextmanager
def alone(device: str) -> Iterator[None]:
    """Use the device with nobody beside; waits until those who share it have finished their epoch."""
    with _locked(device, "gate", fcntl.LOCK_EX), _locked(device, "use", fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(device: str, what: str, kind: int) -> Iterator[None]:
    """A lock that the system lets go of when its holder dies."""
    # A worker sees its GPUs under numbers of its own: the visible ones tell workers of different GPUs apart.
    name = f"{os.getuid()} {device} {os.environ.get('CUDA_VISIBLE_DEVICES', '') if device != 'cpu' else ''}"
    path = Path(tempfile.gettempdir()) / f"prunefront-{hashlib.sha256(name.encode()).hexdigest()[:16]}-{what}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
