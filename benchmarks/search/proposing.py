"""What a proposal costs: ask and tell with many finished trials, ours against Optuna's own multivariate TPE."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from benchmarks.figures import Figure, Target, ratio, spread
from search.sampling.sampler import GainPerCost

AXES, RUNNING = 40, 8
FINISHED = 2000
BEYOND = 6000  # trials at which a capped history must still cost what it costs at FINISHED


def figures(*, quick: bool) -> list[Figure]:
    """Proposals of both samplers in turn, each on a study of its own with the same finished trials."""
    rounds = 12 if quick else 60
    ours, theirs = measure(FINISHED, rounds)
    shape = (
        f"{AXES} parameters (half floats, a quarter integers, a quarter categorical), 2 objectives, {RUNNING} running, "
        "costs that take no time"
    )
    compared = ratio(ours, theirs)
    rows = [
        Figure(
            f"propose + tell after {FINISHED} trials, against Optuna's multivariate TPE",
            sum(ours) / sum(theirs),
            "x",
            f"processor time of {rounds} rounds, {1000 * spread(ours).middle:.0f} against "
            f"{1000 * spread(theirs).middle:.0f} ms in the middle; round by round {compared}; {shape}",
            Target("at most", 1.25),
        )
    ]
    if not quick:
        more, _ = measure(BEYOND, rounds)
        rows.append(
            Figure(
                f"propose + tell after {BEYOND} trials, against {FINISHED}",
                spread(more).middle / spread(ours).middle,
                "x",
                f"medians of {rounds}; the history is capped; {shape}",
            )
        )
    return rows


def measure(finished: int, rounds: int) -> tuple[list[float], list[float]]:
    """Processor seconds of each proposal with its tell, ours and TPE's, in turn; the first of each is not counted."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = _space()
    trials = _finished(space, finished)
    known: Mapping[int, Callable[[Mapping[str, Any]], float]] = {1: lambda params: params["f0"]}
    sides = [
        _Side(GainPerCost("tpe", space=space, cost=lambda params: params["f0"], known=known, seed=0), trials, space),
        _Side(TPESampler(multivariate=True, seed=0), trials, space),
    ]
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for side, taken in zip(sides, times, strict=True):
            seconds = side.step()
            if number:
                taken.append(seconds)
    return times


class _Side:
    """A study with running trials, of which one ends whenever another is proposed."""

    def __init__(self, sampler: BaseSampler, trials: list[FrozenTrial], space: dict[str, BaseDistribution]) -> None:
        self._study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        self._study.add_trials(trials)
        self._space = space
        self._running = [self._study.ask(space) for _ in range(RUNNING)]

    def step(self) -> float:
        """Processor seconds to propose one more trial and to hear of another: neither side waits for anything."""
        oldest = self._running.pop(0)
        values = _objectives(oldest.params)
        start = time.process_time()
        self._running.append(self._study.ask(self._space))
        self._study.tell(oldest, values)
        return time.process_time() - start


def _space() -> dict[str, BaseDistribution]:
    floats: dict[str, BaseDistribution] = {f"f{i}": FloatDistribution(0.03, 1.0, log=i == 0) for i in range(AXES // 2)}
    whole: dict[str, BaseDistribution] = {f"i{i}": IntDistribution(1, 8) for i in range(AXES // 4)}
    choices: dict[str, BaseDistribution] = {f"c{i}": CategoricalDistribution(tuple("abcd")) for i in range(AXES // 4)}
    return {**floats, **whole, **choices}


def _objectives(params: Mapping[str, Any]) -> list[float]:
    """An error that falls with what is kept, and what is kept."""
    worse = sum((params[f"f{i}"] - 0.5) ** 2 for i in range(1, AXES // 2)) + 0.05 * sum(
        params[f"c{i}"] != "b" for i in range(AXES // 4)
    )
    return [0.05 - 0.03 * float(np.log(params["f0"])) + 0.02 * worse + 0.002 * params["i0"], params["f0"]]


def _finished(space: Mapping[str, BaseDistribution], count: int) -> list[FrozenTrial]:
    rng = np.random.default_rng(0)
    trials = []
    for _ in range(count):
        params = {name: _drawn(one, rng) for name, one in space.items()}
        trials.append(create_trial(params=params, distributions=dict(space), values=_objectives(params)))
    return trials


def _drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    if isinstance(distribution, IntDistribution):
        return int(rng.integers(distribution.low, distribution.high + 1))
    assert isinstance(distribution, FloatDistribution)
    return float(rng.uniform(distribution.low, distribution.high))
