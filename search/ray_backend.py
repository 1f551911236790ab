"""The driver's decisions carried out by Ray Tune: a searcher that asks it, a callback that tells it.

Tune keeps no state of ours: its snapshots lie in a temporary folder and are never read (`search.driver` has the log).
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any, Protocol

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from search.cluster import Capacity
from search.driver import RETRIES, Assignment, Driver
from search.places import Places
from search.trainable import ASSIGNMENT, PHASE, TrialActor
from spaces.errors import PrunefrontError
from spaces.study import Study


class Watch(Protocol):
    """Who looks on while trials run."""

    def between(self) -> None:
        """Called several times a second, when nothing is half done; may raise KeyboardInterrupt to leave."""
        ...

    def lost(self, number: int) -> None:
        """A trial's worker died; the trial is started again."""
        ...


class _Backend(Callback):
    """Both ends of the wire between Tune's trials and the driver's."""

    def __init__(
        self, driver: Driver, work: Callable[[Assignment], dict[str, str]], capacity: Capacity, watch: Watch
    ) -> None:
        self._driver, self._work, self._capacity, self._watch = driver, work, capacity, watch
        self._numbers: dict[str, int] = {}  # Tune's trial id: ours

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of it goes into Tune's snapshots."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, str] | str | None:
        """The next trial's config; None to be asked again; FINISHED for good."""
        answer = self._driver.next_trial(self._capacity.workers(time.monotonic()))
        if isinstance(answer, Assignment):
            self._numbers[trial_id] = answer.number
            return self._work(answer)
        return None if answer == "wait" else str(Searcher.FINISHED)

    def heard(self, trial_id: str, result: dict[str, Any]) -> bool:
        """What a worker said; whether its trial is to end here."""
        number = self._numbers[trial_id]
        match result.get(PHASE):
            case "started":
                self._driver.started(number, node=result["node"], from_epoch=result["from_epoch"])
            case "reported":
                return self._driver.reported(number, result["metrics"]) == "stop"
            case "finished":
                self._driver.finished(number, result["metrics"])
            case "failed":
                self._driver.failed(number, epoch=result["epoch"], reason=result["reason"])
        return False

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A worker died once too often."""
        error = trial.get_error()
        reason = "its worker died again and again" if error is None else f"{type(error).__name__}: {error}"
        epoch = int((trial.last_result or {}).get("metrics", {}).get("epoch", 0))
        self._driver.failed(self._numbers[trial.trial_id], epoch=epoch, reason=reason.splitlines()[0][:500])

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A worker died, say with its node; Tune starts the trial again, and it goes on from its last boundary."""
        number = self._numbers[trial.trial_id]
        trial.config = self._work(self._driver.assignment(number))
        self._watch.lost(number)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Nothing is half done here, so this is where a search may be left."""
        self._watch.between()


class _Stopper(Stopper):
    """Tune's way of hearing of a result in time to end its trial."""

    def __init__(self, backend: _Backend) -> None:
        self._backend = backend

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of it goes into Tune's snapshots."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial ends with this result."""
        return self._backend.heard(trial_id, result)

    def stop_all(self) -> bool:
        """Whether every trial ends: the driver says so by proposing none."""
        return False


class _Searcher(Searcher):
    """Tune's way of asking."""

    def __init__(self, backend: _Backend) -> None:
        super().__init__()
        self._backend = backend

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of it goes into Tune's snapshots."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """A config, None or FINISHED, whatever Tune's own signature says."""
        return self._backend.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Told by the callback already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the event log is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the event log is the state."""


def run_on_ray(driver: Driver, study: Study, *, places: Places, trial: str, grows: bool, watch: Watch) -> None:
    """Run trials until the driver says it is over, or `watch` raises KeyboardInterrupt.

    `trial`: dotted path, `package.module:function`, of what makes a trial on a worker. Tune cleans up slowly after an
    Exception, but not after a KeyboardInterrupt.
    """
    shared = {
        "trial": trial,
        "home": str(places.home),
        "stages": places.stages,
        "cwd": os.getcwd(),
        "gpus": study.resources.gpus,
        "objectives": list(study.objectives),
        "latency_batch": study.resources.latency_batch if study.times_networks else None,
    }

    def work(assignment: Assignment) -> dict[str, str]:
        own = {
            "number": assignment.number,
            "plan": assignment.plan.model_dump(mode="json"),
            "saves": sorted(assignment.saves),
            "heard": assignment.heard,
        }
        return {ASSIGNMENT: json.dumps({**shared, **own})}

    backend = _Backend(driver, work, Capacity(study.resources, grows=grows), watch)
    per_trial = {"cpu": study.resources.cpus, "gpu": study.resources.gpus}
    with tempfile.TemporaryDirectory(prefix="prunefront-", ignore_cleanup_errors=True) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, per_trial),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(backend),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                callbacks=[backend],
                stop=_Stopper(backend),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the stage store has it already
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            raise _ours(error) from None


def _ours(error: BaseException) -> BaseException:
    """The project's own error inside one of Tune's, which knows only its text; else the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PrunefrontError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error
