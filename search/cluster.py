"""Where trials run: a Ray of this machine's own, up for one search, or a running cluster joined by its address.

Ray reads its environment when it is imported, so this module imports it late and nothing else may import it before.
"""

import logging
import math
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spaces.errors import UserError
from spaces.study import Resources

ROOT = Path(__file__).resolve().parent.parent
OBJECT_STORE_BYTES = 200 * 2**20  # results are small, and /dev/shm often is too

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a header at any verbosity
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own waits for running steps, then advises its own way to resume
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # the driver says how many run; Tune's default starts one at a time
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # its snapshots are never read: the event log is what a resume reads
    "TUNE_WARN_THRESHOLD_S": "60",
}


def prepare_environment() -> None:
    """What Ray is to find when it is imported; a variable that the user has set stays as it is."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"ray\..*")


@contextmanager
def connected(address: str | None, resources: Resources) -> Iterator[None]:
    """Ray is up inside; outside it is gone again, or left as it was where it was running before."""
    prepare_environment()
    import ray

    _start(ray, address, resources)
    try:
        yield
    finally:
        ray.shutdown()


def _start(ray: Any, address: str | None, resources: Resources) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        _check_fits(resources)
        ray.init(
            address="local",  # never a cluster that happens to be near: RAY_ADDRESS is not read
            num_cpus=local_cpus(resources),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
        _check_gpus(ray, resources)
    else:
        address = _found(address)
        _check_answers(address)
        try:
            ray.init(address=address, runtime_env={"working_dir": str(ROOT)}, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"cannot join the Ray cluster at '{address}': {str(error).splitlines()[0]}") from error
    _hush()


def _hush() -> None:
    """No log lines of Ray between ours. Where it prints pages about a lost node, the progress has a line."""
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Not public, and no setting reaches it: where it is missing, Ray is merely louder.
    worker = sys.modules.get("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        setattr(worker, "print_to_stdstream", lambda *args, **kwargs: None)  # noqa: B010


def local_cpus(resources: Resources) -> int:
    """What Ray is told this machine has: its cores, or more where the study asks for so many workers."""
    asked = math.ceil((resources.workers or 1) * resources.cpus)
    return max(os.cpu_count() or 1, asked)


def _check_fits(resources: Resources) -> None:
    cores = os.cpu_count() or 1
    if resources.cpus > cores:
        raise UserError(f"resources.cpus is {resources.cpus:g} per trial; this machine has {cores}")


def _found(address: str) -> str:
    """Where `auto` points. Ray itself would also join what another search started for itself, and die with it."""
    if address != "auto":
        return address
    from ray._private.utils import read_ray_address  # not public: the note that `ray start` leaves

    found: str | None = os.environ.get("RAY_ADDRESS") or read_ray_address()
    if not found or found == "auto":
        raise UserError(
            "no Ray cluster runs on this machine (ray start --head begins one); or give --address HOST:PORT"
        )
    return found


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes, and print pages."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # auto, or a name that Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at '{address}': {error.strerror or error}") from error


def _check_gpus(ray: Any, resources: Resources) -> None:
    found = ray.cluster_resources().get("GPU", 0)
    if resources.gpus > found:
        raise UserError(
            f"resources.gpus is {resources.gpus:g} per trial; this machine has {found:g} "
            "(--set resources.gpus=0 trains on CPUs, --address joins a cluster)"
        )


class Capacity:
    """How many trials may be under way at once."""

    def __init__(self, resources: Resources, *, grows: bool) -> None:
        """`grows`: on a cluster one trial always waits for room, which is what makes an autoscaler add a node."""
        self._resources, self._grows = resources, grows
        self._known: tuple[float, int] = (-math.inf, 1)

    def workers(self, now: float) -> int:
        """The study's own number; else as many as fit on the nodes that are up, looked up every two seconds."""
        if self._resources.workers is not None:
            return self._resources.workers
        when, count = self._known
        if now - when > 2.0:
            count = self._fitting()
            self._known = (now, count)
        return count

    def _fitting(self) -> int:
        import ray

        fits = 0
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if node["Alive"]:
                has, need = node["Resources"], self._resources
                room = [has.get("CPU", 0.0) / need.cpus] if need.cpus else []
                room += [has.get("GPU", 0.0) / need.gpus] if need.gpus else []
                fits += int(min(room) + 1e-9) if room else 1
        return max(1, fits + 1 if self._grows else fits)
