"""A study's parameters as other libraries write them; a choice goes by its position, as they know no lists.

The space is flat: every parameter has a value every time, also where the plan does not depend on it.
"""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution

from search.sampling.repeatable import distribution_of, from_optuna
from spaces.domains import Choices, Domain, Value
from spaces.study import Study


def optuna_space(study: Study) -> dict[str, BaseDistribution]:
    """For Optuna, and for Ray Tune's OptunaSearch, which takes the same."""
    return {parameter.path: distribution_of(parameter.domain) for parameter in study.parameters}


def syne_tune_space(study: Study) -> dict[str, Any]:
    """For Syne Tune."""
    return {parameter.path: _syne_tune_domain(parameter.domain) for parameter in study.parameters}


def choices_of(study: Study, offered: Mapping[str, Any]) -> dict[str, Value]:
    """What a library offered, as values of the study's parameters."""
    return {p.path: from_optuna(p.domain, offered[p.path]) for p in study.parameters}


def _syne_tune_domain(domain: Domain) -> Any:
    from syne_tune import config_space

    if isinstance(domain, Choices):
        return config_space.choice(list(range(len(domain.values))))
    if domain.step is not None and not (domain.whole and domain.step == 1.0):
        size = round((domain.high - domain.low) / domain.step) + 1
        return config_space.finrange(domain.low, domain.high, size, cast_int=domain.whole)
    if domain.whole:
        kind = config_space.lograndint if domain.log else config_space.randint
        return kind(int(domain.low), int(domain.high))
    return (config_space.loguniform if domain.log else config_space.uniform)(domain.low, domain.high)
