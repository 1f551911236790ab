"""A study: what is searched, what may vary, what counts as better, how long, and on what."""

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from spaces.domains import Choices, Value
from spaces.errors import Misfit, UserError, unknown
from spaces.metrics import METRICS
from spaces.plan import Plan, Section, digest
from spaces.refusal import refuse
from spaces.size import Size
from spaces.template import Parameter, Template

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _metric(name: str) -> str:
    if name not in METRICS:
        raise Misfit(unknown("metric", name, METRICS))
    return name


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise Misfit(f"the objective '{name}' stands twice")
    return names


def _rising(fractions: tuple[float, ...]) -> tuple[float, ...]:
    for earlier, later in itertools.pairwise(fractions):
        if later <= earlier:
            raise Misfit(f"the fractions of the rungs rise; {later:g} comes after {earlier:g}")
    return fractions


def _a_side(bounds: dict[str, float]) -> dict[str, float]:
    if not bounds:
        raise Misfit("a constraint has min, max or both")
    if "min" in bounds and "max" in bounds and bounds["min"] > bounds["max"]:
        raise Misfit(f"min {bounds['min']:g} is above max {bounds['max']:g}")
    return bounds


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Misfit(f"a study's name is letters, digits, '.', '_' and '-'; got {name!r}")
    return name


MetricName = Annotated[str, AfterValidator(_metric)]
Bounds = Annotated[dict[Literal["min", "max"], float], AfterValidator(_a_side)]


class Budget(Section):
    """When the search ends, and who proposes."""

    trials: Annotated[int, Field(ge=1, description="pruned trials, beside the dense baseline")] = 32
    minutes: Annotated[
        float | None, Field(gt=0.0, description="no new trial is begun after this long; null: no limit")
    ] = None
    sampler: Annotated[
        Literal["tpe", "nsga2", "random", "gain"],
        Field(description="gain: by expected hypervolume gain per training MACs that a plan still costs"),
    ] = "gain"
    base: Annotated[
        Literal["tpe", "nsga2", "random"], Field(description="where sampler gain takes candidates from, beside its own")
    ] = "tpe"
    haste: Annotated[
        float, Field(ge=0.0, le=1.0, description="power of the cost that sampler gain divides by; 0: cost is no matter")
    ] = 0.5
    seed: Annotated[int, Field(ge=0, description="of the proposals; the training seed is train.seed")] = 0


class Stopping(Section):
    """When a trial that does poorly ends early. No plan depends on it: it may change when a search is resumed."""

    name: Annotated[
        Literal["none", "front"], Field(description="front: the best at each rung go on, by constraints, front, spread")
    ] = "none"
    reduction: Annotated[float, Field(gt=1.0, description="of this many trials at a rung, one goes on")] = 1.5
    fractions: Annotated[
        tuple[Annotated[float, Field(ge=0.5, lt=1.0)], ...],
        Field(min_length=1, description="of the recovery, after which there is a rung; none before half of it"),
        AfterValidator(_rising),
    ] = (0.5, 0.75)
    grace: Annotated[int, Field(ge=1, description="trials that a rung has seen before it stops one")] = 6


class Resources(Section):
    """What one trial needs, how many run at once, and where their files go."""

    cpus: Annotated[float, Field(gt=0.0, description="per trial")] = 1.0
    gpus: Annotated[float, Field(ge=0.0, description="per trial; a fraction shares a GPU between trials")] = 0.0
    workers: Annotated[int | None, Field(ge=1, description="trials at once; null: as many as fit")] = None
    latency_batch: Annotated[int, Field(ge=1, description="images per batch where latency_ms is measured")] = 1
    storage: Annotated[
        str, Field(min_length=1, description="folder or URI (s3://bucket/runs) of checkpoints and the event log")
    ] = "runs"
    store: Annotated[
        str | None,
        Field(min_length=1, description="folder or URI of the stage store, for studies to share; null: in the storage"),
    ] = None
    store_bytes: Annotated[
        Size, Field(description="most that the stage store may hold, such as 20 GB or 1.5 TiB; null: no limit")
    ] = None


class Tracking(Section):
    """Where MLflow runs are written."""

    uri: Annotated[str | None, Field(description="MLflow tracking URI; null: a SQLite file under the storage")] = None
    experiment: Annotated[str | None, Field(description="null: the study's name")] = None


class Adjust(Section):
    """Network adjustment: instead of a search over plans, widths that move to where MACs do more, at equal MACs."""

    layers: Annotated[int, Field(ge=0, description="channel groups that grow, and as many that shrink, at first")] = 6
    layers_decay: Annotated[float, Field(ge=0.0, description="fewer of them after each trial")] = 0.5
    step: Annotated[float, Field(gt=0.0, le=1.0, description="fraction of its first width by which a group moves")] = (
        0.15
    )
    step_decay: Annotated[float, Field(ge=0.0, description="less for each rank behind the extreme one")] = 0.01


class Settings(Section):
    """The sections of a study file beside those of the plan."""

    name: Annotated[str, AfterValidator(_named)]
    objectives: Annotated[tuple[MetricName, ...], Field(min_length=1), AfterValidator(_each_once)]
    constraints: Annotated[dict[MetricName, Bounds], Field(default_factory=dict)]
    budget: Budget = Budget()
    stopper: Stopping = Stopping()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    adjust: Annotated[
        Adjust | None, Field(description="trials adjust the widths of the one before; null: a sampler proposes")
    ] = None


@dataclass(frozen=True)
class Study:
    """A study file, checked: no parameter can take a value that makes an invalid plan."""

    file: Path
    settings: Settings
    template: Template

    @property
    def name(self) -> str:
        """What runs, folders and the experiment are called after."""
        return self.settings.name

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of metrics; `METRICS` knows which way each is better."""
        return self.settings.objectives

    @property
    def constraints(self) -> Mapping[str, Mapping[Literal["min", "max"], float]]:
        """Bounds by metric, in the metric's own unit."""
        return self.settings.constraints

    @property
    def times_networks(self) -> bool:
        """Whether latency has to be measured: it costs every trial a moment alone on its device."""
        return "latency_ms" in self.objectives or "latency_ms" in self.constraints

    @property
    def adjust(self) -> Adjust | None:
        """How each trial's widths follow from the one before; None where a sampler proposes plans."""
        return self.settings.adjust

    @property
    def budget(self) -> Budget:
        """When the search ends."""
        return self.settings.budget

    @property
    def stopper(self) -> Stopping:
        """What ends a trial early."""
        return self.settings.stopper

    @property
    def resources(self) -> Resources:
        """What one trial needs."""
        return self.settings.resources

    @property
    def tracking(self) -> Tracking:
        """The tracking URI, and the experiment with its default written out."""
        tracking = self.settings.tracking
        return tracking.model_copy(update={"experiment": tracking.experiment or self.name})

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every open value, in the order of the file: the space is flat."""
        return tuple(self.template.parameters())

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change when proposals or plans would: budget, stopper, resources, tracking are none."""
        parameters = [[p.path, type(p.domain).__name__, p.domain.model_dump(mode="json")] for p in self.parameters]
        corners = [self.plan(choices).hash for choices in self.corners()]
        constraints = {metric: dict(bounds) for metric, bounds in self.constraints.items()}
        base = [self.budget.base, self.budget.haste] if self.budget.sampler == "gain" else []
        proposals: list[Any] = [self.objectives, constraints, self.budget.sampler, self.budget.seed, *base]
        if self.adjust is not None:
            proposals = [self.adjust.model_dump(mode="json")]
        return digest([parameters, corners, proposals])[:16]

    def defaults(self) -> dict[str, Value]:
        """A value for every parameter: the first choice, the middle of a range."""
        return {parameter.path: parameter.domain.default for parameter in self.parameters}

    def sample(self, rng: random.Random) -> dict[str, Value]:
        """Random values for every parameter."""
        return {parameter.path: parameter.domain.sample(rng) for parameter in self.parameters}

    def active(self, choices: Mapping[str, Value]) -> tuple[str, ...]:
        """Paths of the parameters that the plan of these choices depends on."""
        return tuple(parameter.path for parameter in self.template.active(choices))

    def plan(self, choices: Mapping[str, Value]) -> Plan:
        """The plan of a value for every parameter. Raises UserError where one is missing, unknown or not allowed."""
        paths = {parameter.path for parameter in self.parameters}
        for path in choices:
            if path not in paths:
                raise UserError(unknown("parameter", path, paths), file=self.file)
        for parameter in self.parameters:
            if parameter.path not in choices:
                raise UserError(f"no value for the parameter '{parameter.path}'", file=self.file)
            try:
                parameter.domain.taken(choices[parameter.path])
            except ValueError as error:
                raise UserError(f"the parameter '{parameter.path}' is {error}", file=self.file) from error
        try:
            return Plan.model_validate(self.template.resolve(choices))
        except ValidationError as error:
            refuse(error, lambda keys: self.template.place_of(keys, choices))

    def baseline(self) -> Plan:
        """Trial 0: what the defaults train, never pruned."""
        return self.plan(self.defaults()).dense()

    def corners(self) -> Iterator[dict[str, Value]]:
        """Choices in which every value that a parameter can take at its extremes occurs, with what it depends on.

        Epochs and schedules are combined with each other: which epochs there are decides which events fit.
        """
        defaults = self.defaults()
        yield defaults
        for parameter in self.parameters:
            for value in parameter.domain.extremes:
                yield {**defaults, **dict(parameter.when), parameter.path: value}
        timing = [p for p in self.parameters if p.path.startswith(("train.epochs", "train.warmup", "prune.schedule"))]
        for label in dict.fromkeys(parameter.when for parameter in timing):
            free = [p for p in timing if p.when in ((), label) and p.path not in dict(label)]
            for values in itertools.product(*(_outermost(p) for p in free)):
                yield {**defaults, **dict(label), **dict(zip((p.path for p in free), values, strict=True))}


def _outermost(parameter: Parameter) -> tuple[Value, ...]:
    """The ends of a range or of numeric choices; every choice where they are no numbers."""
    values = parameter.domain.extremes
    numbers: list[Any] = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if isinstance(parameter.domain, Choices) and len(numbers) < len(values):
        return values
    return (min(numbers), max(numbers))
