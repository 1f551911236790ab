"""The samplers of Optuna that others are built on: by name, seeded, and shown a part of a study."""

from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

POPULATION = 20  # of NSGA-II: Optuna's own 50 would leave a search of a hundred trials two generations


def base_named(name: str) -> BaseSampler:
    """The sampler that a study file calls tpe, nsga2 or random."""
    match name:
        case "tpe":
            # Its independent form, the default with several objectives, is several times slower and blind to pairs.
            return TPESampler(multivariate=True)
        case "nsga2":
            return NSGAIISampler(population_size=POPULATION)
        case _:
            return RandomSampler()


def seed_generators(sampler: BaseSampler, seed: int) -> None:
    """Optuna's own `reseed_rng` takes its seed from the clock, so the generators are reached for."""
    for holder in (sampler, getattr(sampler, "_random_sampler", None)):
        state = getattr(holder, "_rng", None)
        if state is not None:
            state.rng.seed(seed)
            seed = (seed + 1) % 2**32  # two generators with one seed would draw the same numbers


class Shown(Study):
    """A study of which only some trials are shown."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._trials = sorted(trials, key=lambda trial: trial.number)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """What Optuna's samplers read trials through."""
        return [trial for trial in self._trials if states is None or trial.state in states]


def drawn(
    base: BaseSampler,
    study: Study,
    trial: FrozenTrial,
    space: dict[str, BaseDistribution],
    trials: Sequence[FrozenTrial],
) -> dict[str, Any]:
    """A value for every parameter, as the base would propose them after these trials."""
    several = {name: one for name, one in sorted(space.items()) if not one.single()}
    shown = study if isinstance(base, NSGAIISampler) else Shown(study, trials)  # generations are never capped
    values = base.sample_relative(shown, trial, several)
    missing = {
        name: base.sample_independent(shown, trial, name, several[name]) for name in several if name not in values
    }
    return {**values, **missing}
