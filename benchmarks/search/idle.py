"""Searches of trials that train nothing: ours, and Ray Tune's own. `python -m benchmarks.search.idle SIDE TRIALS`.

Each runs in a process of its own and prints one JSON line: seconds per trial once the first has begun, and the
driver's memory in MB when the first trial and when the last one ended.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from search.stages import Step
from spaces.load import load_study
from spaces.plan import Plan
from spaces.study import Study
from tracking.events import Event
from trainables.store import StageStore

STUDY = Path(__file__).parent / "idle.yaml"
WORKERS = 2
DENSE = 1_000_000  # MACs


class IdleTrial:
    """Takes a plan's epochs without training, and stores what a trial stores: an event and its end."""

    def __init__(
        self,
        plan: Plan,
        *,
        home: str,
        stages: Mapping[str, Any],
        device: str,
        saves: frozenset[int],
        latency_batch: int | None,
    ) -> None:
        self._plan, self._saves, self._epoch = plan, saves, 0
        self._store = StageStore(Path(home) / "store")
        self._path = IdleOutlook().path(plan)
        for step in reversed(self._path):
            if self._store.has(step.key):
                self._epoch = step.epochs
                break
        self.inherited_epochs = self._epoch

    @property
    def done(self) -> bool:
        """Whether the last epoch lies behind."""
        return self._epoch >= self._plan.train.epochs

    def step(self) -> dict[str, Any]:
        """One epoch's metrics, from the plan alone."""
        before = self._epoch
        self._epoch = min(self._epoch + 1, self._plan.train.epochs)
        for step in self._path:
            due = before < step.epochs <= self._epoch or before == self._epoch
            if due and (step.events or step.epochs in self._saves or self.done):
                self._store.put(step.key, lambda folder: (folder / "state.json").write_text("{}"))
        keep = 1.0 if self._plan.prune is None else self._plan.prune.amount.keep_macs or 1.0
        return {
            "epoch": self._epoch,
            "accuracy": accuracy_of(keep),
            "macs": int(keep * DENSE),
            "keep_macs": keep,
            "params": int(keep * 1000),
            "events": sum(step.events > 0 and step.epochs <= self._epoch for step in self._path),
            "training_macs": 3 * DENSE * (self._epoch - self.inherited_epochs),
            "inherited_epochs": self.inherited_epochs,
        }


def accuracy_of(keep: float) -> float:
    """A front: less kept, less right."""
    return 0.95 - 0.2 * (1.0 - keep) ** 4


class IdleOutlook:
    """The way of a plan that prunes once: epochs of the trunk, the event, epochs of its own."""

    def check(self, study: Study) -> None:
        """Everything can be run."""

    def problem(self, plan: Plan) -> str | None:
        """No plan has one."""
        return None

    def path(self, plan: Plan) -> tuple[Step, ...]:
        """Keys by plan hash."""
        dense, epochs = plan.dense().hash, plan.train.epochs
        if plan.prune is None:
            return tuple(Step(f"{dense}-{epoch}", epoch, 0, 3 * DENSE) for epoch in range(1, epochs + 1))
        after = int(plan.prune.schedule.settings["after"])
        trunk = [Step(f"{dense}-{epoch}", epoch, 0, 3 * DENSE) for epoch in range(1, after + 1)]
        own = [Step(f"{plan.hash}-{epoch}", epoch, 1, 3 * DENSE) for epoch in range(after + 1, epochs + 1)]
        return (*trunk, Step(f"{plan.hash}-event", after, 1, 0), *own)

    def retraining(self, plan: Plan) -> float:
        """The epochs of its own, all at one learning rate."""
        return 1.0 if plan.prune is None else 1.0 - int(plan.prune.schedule.settings["after"]) / plan.train.epochs


class _Meter:
    """When trials ended, and how large the driver was."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._memory: list[float] = []

    def ended(self) -> None:
        self._ends.append(time.monotonic())
        self._memory.append(_resident())

    def told(self) -> dict[str, float]:
        apart = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return {"seconds": apart, "before": self._memory[0], "after": self._memory[-1], "trials": len(self._ends)}


def _resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def ours(trials: int, meter: _Meter) -> None:
    """`prunefront search` with its log and its store; no MLflow, as Ray Tune's own has none either."""
    from search.runner import Workload, run_search

    class Recorder:
        def record(self, event: Event) -> None:
            if event.kind == "finished":
                meter.ended()

        def upload_checkpoint(self, plan_hash: str, directory: Path) -> None:
            """Nowhere."""

    with tempfile.TemporaryDirectory() as storage:
        run_search(
            load_study(STUDY, [f"resources.storage={storage}"]),
            workload=Workload("benchmarks.search.idle:IdleTrial", IdleOutlook()),
            recorder=lambda spool, warn: nullcontext(Recorder()),
            console=Console(quiet=True),
            trials=trials,
            mode="new",
        )


def as_shipped(trials: int, meter: _Meter) -> None:
    """A function trainable under Ray Tune's defaults: an actor per trial, its loggers."""
    from ray import tune

    def train(config: dict[str, Any]) -> None:
        for epoch in range(1, 6):
            tune.report(
                {"epoch": epoch, "accuracy": accuracy_of(config["keep_macs"]), "keep_macs": config["keep_macs"]}
            )

    _tuned(train, trials, meter, reuse=None)


def with_reused_actors(trials: int, meter: _Meter) -> None:
    """A class trainable whose actors are reused, without loggers: as quick as Ray Tune goes."""
    from ray import tune

    class Train(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._keep, self._epoch = new_config["keep_macs"], 0
            return True

        def step(self) -> dict[str, Any]:
            self._epoch += 1
            done = self._epoch == 5
            return {"epoch": self._epoch, "accuracy": accuracy_of(self._keep), "keep_macs": self._keep, "done": done}

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            return {}

        def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
            """Nothing to load."""

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    _tuned(Train, trials, meter, reuse=True)


def _tuned(trainable: Any, trials: int, meter: _Meter, *, reuse: bool | None) -> None:
    import optuna
    import ray
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {
        "criterion": CategoricalDistribution(("l1", "l2", "taylor")),
        **{f"keeps{layer}": FloatDistribution(0.2, 1.0) for layer in range(6)},
        "after": CategoricalDistribution((1, 2)),
        "keep_macs": FloatDistribution(0.05, 0.8, log=True),
        "recover": CategoricalDistribution(("continue", "cosine")),
        "peak": FloatDistribution(0.1, 1.0, log=True),
    }

    class Listener(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            meter.ended()

    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as storage:
            sampler = optuna.samplers.TPESampler(multivariate=True, seed=0)
            search = OptunaSearch(space, metric=["accuracy", "keep_macs"], mode=["max", "min"], sampler=sampler)
            tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1}),
                tune_config=tune.TuneConfig(
                    search_alg=search, num_samples=trials, max_concurrent_trials=WORKERS, reuse_actors=reuse
                ),
                run_config=tune.RunConfig(storage_path=storage, callbacks=[Listener()], verbose=0),
            ).fit()
    finally:
        ray.shutdown()


SIDES: dict[str, Callable[[int, _Meter], None]] = {
    "ours": ours,
    "as_shipped": as_shipped,
    "with_reused_actors": with_reused_actors,
}


def main() -> None:
    """One side, one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("trials", type=int)
    given = parser.parse_args()
    meter = _Meter()
    SIDES[given.side](given.trials, meter)
    print(json.dumps(meter.told()), flush=True)


if __name__ == "__main__":
    main()
