"""What a Ray worker runs: one actor that takes trial after trial, keeping the process, the data and the libraries.

Does NOT cover the trial itself: `trainables.trial.Trial`, or a stand-in with the same face, named by dotted path.
"""

import json
import math
import os
import platform
import time
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ray import tune

from spaces.errors import TrialFailed
from spaces.plan import Plan

ASSIGNMENT = "assignment"  # the one key of a Tune config: Tune flattens and prints configs, so it stays one string
PHASE = "phase"  # what a result says: "started" | "reported" | "finished" | "failed"


class RunningTrial(Protocol):
    """What the actor needs of a trial."""

    inherited_epochs: int

    @property
    def done(self) -> bool:
        """Whether the last epoch lies behind."""
        ...

    def step(self) -> dict[str, Any]:
        """One epoch's metrics; raises TrialFailed when it cannot go on."""
        ...

    def catch_up(self) -> dict[str, Any]:
        """The metrics of the last inherited epoch; raises TrialFailed as `step` does."""
        ...


def torch_trial(
    plan: Plan,
    *,
    home: str,
    stages: Mapping[str, Any],
    device: str,
    saves: frozenset[int],
    latency_batch: int | None,
) -> RunningTrial:
    """A real trial; `stages` is what its store is opened with.

    With `latency_batch` its network is timed on batches of that size, alone on the device.
    A search never reads the test split: the loader refuses from here on.
    """
    from trainables.data import forbid_test_split
    from trainables.store import StageStore
    from trainables.timed import TimedTrial
    from trainables.trial import Trial

    forbid_test_split()
    trial = Trial(plan, store=StageStore(**stages), device=device, saves=saves)
    if latency_batch is None:
        return trial
    return TimedTrial(trial, batch_size=latency_batch, cache=Path(home) / "latency")


class TrialActor(tune.Trainable):
    """One trial at a time; each `step` is an epoch. Tune resets it for the next trial instead of starting a new one."""

    def setup(self, config: dict[str, Any]) -> None:
        """Note what is to be done; the work begins with the first step, where its errors belong to the trial."""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Drop the trial that is over and take the next one."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._assignment: dict[str, Any] = json.loads(config[ASSIGNMENT])
        self._trial: RunningTrial | None = None
        self._epoch = 0
        self._is_behind = False  # whether the log lacks the epoch that the trial begins after

    def step(self) -> dict[str, Any]:
        """The first call sets the trial up and says where it starts from; every other call tells of an epoch."""
        try:
            return self._started() if self._trial is None else self._epoch_of(self._trial)
        except TrialFailed as error:
            return self._failed(error.reason, error.epoch)
        except Exception as error:
            if self._device() != "cpu":
                raise  # the device's state may be broken too: Tune tries again in a fresh process
            traceback.print_exc()
            return self._failed(f"{type(error).__name__}: {error}".splitlines()[0][:500], self._epoch)

    def _started(self) -> dict[str, Any]:
        work = self._assignment
        if os.path.isdir(work["cwd"]):
            os.chdir(work["cwd"])  # relative data paths mean the same as where the search was started
        module, _, name = work["trial"].partition(":")
        make = getattr(import_module(module), name)
        plan = Plan.model_validate(work["plan"])
        self._trial = make(
            plan,
            home=work["home"],
            stages=work["stages"],
            device=self._device(),
            saves=frozenset(work["saves"]),
            latency_batch=work["latency_batch"],
        )
        inherited, heard = self._trial.inherited_epochs, work["heard"]
        # A worker that died may have saved an epoch and never told of it.
        self._is_behind = heard is not None and inherited > heard and not self._trial.done
        return {PHASE: "started", "node": platform.node(), "from_epoch": inherited, "clock": time.time()}

    def _epoch_of(self, trial: RunningTrial) -> dict[str, Any]:
        metrics = trial.catch_up() if self._is_behind else trial.step()
        self._is_behind = False
        self._epoch = int(metrics["epoch"])
        if not trial.done:
            return {PHASE: "reported", "metrics": metrics}
        for name in self._assignment["objectives"]:
            if not math.isfinite(metrics.get(name, math.nan)):
                return self._failed(f"{name} is {metrics.get(name, 'missing')}", self._epoch)
        self._trial = None
        return {PHASE: "finished", "metrics": metrics, "done": True}

    def _failed(self, reason: str, epoch: int) -> dict[str, Any]:
        self._trial = None
        return {PHASE: "failed", "reason": reason, "epoch": epoch, "done": True}

    def _device(self) -> str:
        """Ray shows a worker only the GPUs that are its own; a fraction of one is still the first."""
        return "cuda" if self._assignment["gpus"] > 0 else "cpu"

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any] | None:
        """Nothing of its own: what a trial has done lies in the stage store, by boundary."""
        return {"epoch": self._epoch}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to do: the trial begins at its deepest stored boundary."""

    def cleanup(self) -> None:
        """Let go of the network, so that a shared device has its memory back."""
        self._trial = None
