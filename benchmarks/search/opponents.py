"""Whom the search is compared with: their own samplers and schedulers, unchanged, behind one face.

Each is called as its own library calls it, and told what its own library tells it; where we could choose, we chose for
them and say so. None knows constraints or shared stages. Does NOT cover time and cost (`benchmarks.search.plain`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from benchmarks.search.foreign import choices_of, optuna_space, syne_tune_space
from search.driver import Verdict
from search.sampling.bases import POPULATION
from spaces.domains import Value
from spaces.errors import UserError
from spaces.metrics import METRICS
from spaces.study import Study

Metrics = Mapping[str, Any]


class Opponent(Protocol):
    """A strategy that knows a flat space, and trains every trial from nothing."""

    name: str

    def ask(self) -> Mapping[str, Value] | None:
        """Values for every parameter of the study, for the trial with the next number (from 0); None: no more."""
        ...

    def report(self, number: int, epoch: int, metrics: Metrics) -> Verdict:
        """An epoch is over, be it the last."""
        ...

    def tell(self, number: int, metrics: Metrics | None) -> None:
        """The trial is over: its last report, also where it was stopped; None where it broke or could not be run."""
        ...


class RandomChoices:
    """Random search."""

    name = "random"

    def __init__(self, study: Study, *, seed: int) -> None:
        self._study, self._rng = study, Random(seed)

    def ask(self) -> Mapping[str, Value]:
        return self._study.sample(self._rng)

    def report(self, number: int, epoch: int, metrics: Metrics) -> Verdict:
        return "go on"

    def tell(self, number: int, metrics: Metrics | None) -> None:
        pass


class RayOptuna:
    """Ray Tune's OptunaSearch on all objectives, as its documentation has it: the default sampler, TPE."""

    name = "Ray Tune + OptunaSearch (TPE)"

    def __init__(self, study: Study, *, seed: int) -> None:
        self._study = study
        self._asked = 0
        self._search = self._made(seed)

    def _made(self, seed: int, **more: Any) -> Any:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        modes = ["max" if METRICS[name].direction == "maximize" else "min" for name in self._study.objectives]
        space = optuna_space(self._study)
        return OptunaSearch(space, metric=list(self._study.objectives), mode=modes, **(more or {"seed": seed}))

    def ask(self) -> Mapping[str, Value]:
        offered = self._search.suggest(str(self._asked))
        self._asked += 1
        return choices_of(self._study, offered)

    def report(self, number: int, epoch: int, metrics: Metrics) -> Verdict:
        self._search.on_trial_result(str(number), {**metrics, "training_iteration": epoch})
        return "go on"

    def tell(self, number: int, metrics: Metrics | None) -> None:
        result = None if metrics is None else dict(metrics)
        self._search.on_trial_complete(str(number), result=result, error=metrics is None)


class RayNsga(RayOptuna):
    """The same with NSGA-II, in generations of 20 like ours: Optuna's own 50 would leave it few."""

    name = "Ray Tune + OptunaSearch (NSGA-II)"

    def _made(self, seed: int, **more: Any) -> Any:
        from optuna.samplers import NSGAIISampler

        return super()._made(seed, sampler=NSGAIISampler(population_size=POPULATION, seed=seed))


class RayAsha(RayOptuna):
    """OptunaSearch (TPE) with Ray's ASHA on accuracy, the first objective.

    Ray Tune's controller tells the searcher a stopped trial's last report as if it were a result; so does this.
    """

    name = "Ray Tune + OptunaSearch (TPE) + ASHA on accuracy"

    def __init__(self, study: Study, *, seed: int, grace_period: int = 1) -> None:
        """`grace_period`: epochs before the first rung. Ray's default, 1, unless it is given: on the recorded grid it
        finds more for the same training MACs than half of the epochs or three quarters.
        """
        from ray.tune.schedulers import AsyncHyperBandScheduler

        super().__init__(study, seed=seed)
        epochs = longest(study)
        self._scheduler: Any = AsyncHyperBandScheduler(
            time_attr="epoch", metric="accuracy", mode="max", max_t=epochs, grace_period=grace_period
        )
        self._numpy = _OwnNumpy(seed)
        self._trials: dict[int, SimpleNamespace] = {}
        self._stopped: set[int] = set()

    def ask(self) -> Mapping[str, Value]:
        number, choices = self._asked, super().ask()
        self._trials[number] = SimpleNamespace(trial_id=str(number), config=dict(choices))
        with self._numpy.drawn_from():
            self._scheduler.on_trial_add(None, self._trials[number])
        return choices

    def report(self, number: int, epoch: int, metrics: Metrics) -> Verdict:
        super().report(number, epoch, metrics)
        decision = self._scheduler.on_trial_result(None, self._trials[number], {**metrics, "epoch": epoch})
        if decision == "STOP":
            self._stopped.add(number)
            return "stop"
        return "go on"

    def tell(self, number: int, metrics: Metrics | None) -> None:
        super().tell(number, metrics)
        trial = self._trials.pop(number)
        if metrics is None:
            self._scheduler.on_trial_error(None, trial)
        elif number not in self._stopped:  # the controller does not tell a scheduler what it decided itself
            self._scheduler.on_trial_complete(None, trial, dict(metrics))


class SyneTuneMoasha:
    """Syne Tune's multi-objective ASHA, with its own random proposals."""

    name = "Syne Tune (multi-objective ASHA)"

    def __init__(self, study: Study, *, seed: int, grace_period: int | None = None) -> None:
        """`grace_period`: epochs before the first rung, by default half of them. Its own default, 1, would compare
        networks before any is pruned: all alike, and nearly all stopped. What is to be large is told negated.

        Raises UserError where syne-tune is not installed.
        """
        if find_spec("syne_tune") is None:
            raise UserError("syne-tune is not installed; `make opponents` installs it")
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        self._study = study
        self._trials: dict[int, Any] = {}
        self._stopped: set[int] = set()
        epochs = longest(study)
        self._scheduler = MOASHA(
            syne_tune_space(study),
            metrics=list(study.objectives),
            time_attr="epoch",
            max_t=epochs,
            grace_period=max(1, epochs // 2) if grace_period is None else grace_period,
            random_seed=seed,
        )
        self._numpy = _OwnNumpy(seed)  # its proposals are drawn from numpy's global generator

    def ask(self) -> Mapping[str, Value]:
        from syne_tune.backend.trial_status import Trial

        number = len(self._trials)
        with self._numpy.drawn_from():
            config = self._scheduler.suggest().config
            self._trials[number] = Trial(trial_id=number, config=config, creation_time=datetime.min)
            self._scheduler.on_trial_add(self._trials[number])
        return choices_of(self._study, config)

    def report(self, number: int, epoch: int, metrics: Metrics) -> Verdict:
        with self._numpy.drawn_from():
            decision = self._scheduler.on_trial_result(self._trials[number], self._as_losses(epoch, metrics))
        if decision == "STOP":
            self._stopped.add(number)
            return "stop"
        return "go on"

    def tell(self, number: int, metrics: Metrics | None) -> None:
        trial = self._trials[number]
        if metrics is None:
            self._scheduler.on_trial_error(trial)
        elif number not in self._stopped:
            self._scheduler.on_trial_complete(trial, self._as_losses(int(metrics["epoch"]), metrics))

    def _as_losses(self, epoch: int, metrics: Metrics) -> dict[str, Any]:
        signs = {name: -1.0 if METRICS[name].direction == "maximize" else 1.0 for name in self._study.objectives}
        return {**metrics, **{name: sign * metrics[name] for name, sign in signs.items()}, "epoch": epoch}


class _OwnNumpy:
    """A state of numpy's global generator that is in place only while a library draws from it."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed).get_state()

    @contextmanager
    def drawn_from(self) -> Iterator[None]:
        others = np.random.get_state()
        np.random.set_state(self._state)
        try:
            yield
        finally:
            self._state = np.random.get_state()
            np.random.set_state(others)


def longest(study: Study) -> int:
    """Epochs of the longest training that the study allows: what others call max_t."""
    return max(study.plan(choices).train.epochs for choices in study.corners())
