"""Every plan of a study whose space is finite: choices, whole numbers, and ranges with steps."""

from collections.abc import Iterator

from spaces.domains import Choices, Domain, Value
from spaces.errors import UserError
from spaces.plan import Plan, digest
from spaces.study import Study


def every_plan(study: Study) -> Iterator[Plan]:
    """The dense baseline, then each plan of the space once. Raises UserError where a parameter has no end of values."""
    seen = set()
    for plan in (study.baseline(), *map(study.plan, _choices(study, {}))):
        if plan.hash not in seen:
            seen.add(plan.hash)
            yield plan


def space_digest(study: Study) -> str:
    """16 hex digits that two studies have in common whose spaces are written alike, whatever their budgets."""
    parameters = [[p.path, type(p.domain).__name__, p.domain.model_dump(mode="json")] for p in study.parameters]
    return digest([parameters, [study.plan(choices).hash for choices in study.corners()]])[:16]


def _choices(study: Study, chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
    """`chosen` with a value for every further parameter; one that no plan depends on stays at its default."""
    if len(chosen) == len(study.parameters):
        yield chosen
        return
    parameter = study.parameters[len(chosen)]
    values = _values(study, parameter.path, parameter.domain)
    is_active = all(chosen[path] == value for path, value in parameter.when)  # what it depends on stands before it
    for value in values if is_active else (parameter.domain.default,):
        yield from _choices(study, {**chosen, parameter.path: value})


def _values(study: Study, path: str, domain: Domain) -> tuple[Value, ...]:
    if isinstance(domain, Choices):
        return domain.values
    step = domain.step or (1.0 if domain.whole else None)
    if step is None:
        raise UserError(
            f"'{path}' is any {domain}: only choices, whole numbers and steps can be gone through one by one",
            file=study.file,
        )
    return tuple(
        domain.taken(domain.low + step * index) for index in range(round((domain.high - domain.low) / step) + 1)
    )
