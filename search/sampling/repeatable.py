"""Optuna samplers made repeatable: values as a plan will have them, and asks that can be replayed from a log.

Does NOT cover which trials the sampler learns from (`search.proposer`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.sampling.bases import seed_generators
from search.sampling.sampler import GainPerCost
from spaces.domains import Choices, Domain


def distribution_of(domain: Domain) -> BaseDistribution:
    """A parameter as Optuna sees it; a choice goes by its position, since Optuna knows no lists.

    Three numbers or more that rise or fall are neighbours in that order, and no names.
    """
    if isinstance(domain, Choices):
        last = len(domain.values) - 1
        return IntDistribution(0, last) if _in_order(domain) else CategoricalDistribution(tuple(range(last + 1)))
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def _in_order(domain: Choices) -> bool:
    values = [v for v in domain.values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(values) < max(3, len(domain.values)):
        return False
    return values in (sorted(values), sorted(values, reverse=True))


def to_optuna(domain: Domain, value: Any) -> Any:
    """A value of the domain as its distribution writes it."""
    return domain.values.index(domain.taken(value)) if isinstance(domain, Choices) else domain.taken(value)


def from_optuna(domain: Domain, value: Any) -> Any:
    """The value of the domain that Optuna means."""
    return domain.values[value] if isinstance(domain, Choices) else domain.taken(value)


def seed_of(*what: str | int) -> int:
    """A seed of 32 bits that depends on its arguments alone."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:4], "big")


class RepeatableSampler(BaseSampler):
    """A base sampler that is seeded anew before every ask, or made to say again what it said before.

    Values are settled (six digits, on the grid) before the study stores them: then a study rebuilt from a log is
    the same to the last bit as the one that wrote it.
    """

    def __init__(self, base: BaseSampler, domains: Mapping[str, Domain]) -> None:
        self._base = base
        self._domains = domains
        self._logged: Mapping[str, Any] | None = None

    def reseed(self, seed: int) -> None:
        """Before an ask."""
        self._logged = None
        if isinstance(self._base, GainPerCost):
            self._base.reseed(seed)
        else:
            seed_generators(self._base, seed)

    def repeat(self, choices: Mapping[str, Any]) -> None:
        """Before an ask whose answer is known."""
        self._logged = {path: to_optuna(domain, choices[path]) for path, domain in self._domains.items()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What the base samples jointly; nothing while repeating."""
        return {} if self._logged is not None else self._base.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The base's joint sample, settled."""
        if self._logged is None:
            drawn = self._base.sample_relative(study, trial, search_space)
            return {path: self._settled(path, value) for path, value in drawn.items()}
        genetic = self._base.base if isinstance(self._base, GainPerCost) else self._base
        if isinstance(genetic, NSGAIISampler):
            # A genetic sampler notes at each ask which generation it is in and who its parents are.
            genetic.get_parent_population(study, genetic.get_trial_generation(study, trial))
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The base's sample of one parameter, settled; or what was said before."""
        if self._logged is not None:
            return self._logged[param_name]
        drawn = self._base.sample_independent(study, trial, param_name, param_distribution)
        return self._settled(param_name, drawn)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the base."""
        self._base.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the base."""
        self._base.after_trial(study, trial, state, values)

    def _settled(self, path: str, value: Any) -> Any:
        domain = self._domains[path]
        return to_optuna(domain, from_optuna(domain, value))
