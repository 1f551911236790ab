"""A plan: one trial's complete, frozen configuration. What a study varies is decided here and stays decided.

Does NOT cover: what may vary (`spaces.study`), nor what the plug-ins named here do (`trainables`).
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spaces.catalogue import catalogue, prunes_weights
from spaces.errors import Misfit
from spaces.plugin import Data, Model, Plugin, Setting, freeze, of

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """A frozen part of a plan or a study; an unknown key is an error, and so is `"30"` where 30 is meant."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        return freeze(value)


class Train(Section):
    """The training recipe."""

    epochs: Annotated[int, Field(ge=1, description="epochs in all, recovery included")]
    batch_size: Annotated[int, Field(ge=1)] = 128
    learning_rate: Positive = 0.1
    optimizer: Annotated[Plugin, of("optimizer")] = Plugin(name="sgd")
    decay: Annotated[Plugin, of("decay")] = Plugin(name="cosine")
    warmup_epochs: NotNegative = 0.0
    weight_decay: NotNegative = 5e-4
    weight_decay_on: Annotated[Literal["all", "weights"], Field(description="weights: none on norms and biases")] = (
        "all"
    )
    loss: Annotated[Plugin, of("loss")] = Plugin(name="cross_entropy")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    clip_norm: Annotated[Positive | None, Field(description="largest gradient norm; null: no clipping")] = None
    precision: Annotated[
        Literal["float32", "bfloat16", "float64"], Field(description="bfloat16: autocast, weights in float32")
    ] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    algorithms: Annotated[
        Literal["deterministic", "fast"],
        Field(description="deterministic: resumed = uninterrupted, bit for bit"),
    ] = "deterministic"
    threads: Annotated[int, Field(ge=1, description="CPU threads; part of the key of every boundary")] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    checkpoint_minutes: Annotated[NotNegative, Field(description="at most this much work is ever lost")] = 10.0


class Amount(Section):
    """How far pruning goes: a target for the end, or a paper's own units per event. Exactly one is given."""

    keep_macs: Annotated[Fraction | None, Field(description="fraction of the dense MACs to end at or under")] = None
    keep_channels: Annotated[Fraction | None, Field(description="fraction of prunable filters to keep")] = None
    keep_weights: Annotated[
        Fraction | None, Field(description="fraction of the weights that may be pruned; granularity: weights")
    ] = None
    filters_per_event: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"give exactly one of {known}; got {', '.join(given) or 'none'}")
        return self


class Prune(Section):
    """What is cut, when, by which criterion, and how much each layer gives."""

    granularity: Annotated[
        Literal["channels", "weights"], Field(description="channels are cut out; weights are masked, at no fewer MACs")
    ] = "channels"
    criterion: Annotated[Plugin, of("criterion")] = Plugin(name="l1")
    allocation: Annotated[Plugin, of("allocation")] = Plugin(name="global")
    schedule: Annotated[Plugin, of("schedule")] = Plugin(name="once")
    amount: Amount
    width_multiple: Annotated[int, Field(ge=1, description="widths end on multiples of this")] = 1
    pattern: Annotated[
        str | None,
        Field(pattern=r"^[1-9][0-9]*:[1-9][0-9]*$", description='N:M weights stay in each M along the inputs: "2:4"'),
    ] = None
    protect: Annotated[tuple[str, ...], Field(description="patterns of channel groups left alone")] = ()
    regularizer: Annotated[
        Annotated[Plugin, of("regularizer")] | None,
        Field(description="pressure until the last event; null: none"),
    ] = None
    gate: Annotated[
        Annotated[Plugin, of("gate")] | None,
        Field(description="learned factors on channels until the last event; null: none"),
    ] = None
    pressure_start: Annotated[
        int, Field(ge=0, description="epochs of training before regularizer and gate begin to act")
    ] = 0
    regrowth: Annotated[
        Annotated[Plugin, of("regrowth")] | None,
        Field(description="masked weights that come back at an event; null: none"),
    ] = None
    compensation: Annotated[
        Annotated[Plugin, of("compensation")] | None, Field(description="what is repaired at an event; null: nothing")
    ] = None
    recalibrate_batches: Annotated[
        int, Field(ge=0, description="training batches that renew BatchNorm statistics after each event")
    ] = 0


class Utilization(Section):
    """How the FLOPs utilization ratio of every channel group is measured, once training is over."""

    drop: Annotated[
        float, Field(gt=0.0, le=0.5, description="of the mean group's channels; of others at equal MACs")
    ] = 0.05
    repeats: Annotated[int, Field(ge=1, description="draws of what drops out")] = 5
    samples: Annotated[int, Field(ge=0, description="images of the validation split; 0: all")] = 0


class Plan(Section):
    """One trial. `prune` is null for the dense baseline, whose boundaries are the trunk the others fork from."""

    data: Data
    model: Model
    train: Train
    prune: Prune | None = None
    recover: Annotated[Plugin, of("recovery")] = Plugin(name="continue")
    utilization: Annotated[
        Utilization | None, Field(description="ratios measured on the finished network; null: none")
    ] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.train.warmup_epochs > self.train.epochs:
            raise Misfit(
                f"{self.train.warmup_epochs:g} warm-up epochs do not fit into {self.train.epochs} epochs",
                "train",
                "warmup_epochs",
            )
        if self.model.settings.get("widths") and self.model.settings.get("shortcut") == "A":
            message = "widths need shortcut B: with A the channels of one stage are part of the next one's"
            raise Misfit(message, "model", "widths")
        if self.prune is not None:
            _check_schedule(self.prune.schedule, self.train.epochs)
            _check_allocation(self.prune.allocation)
            _check_granularity(self.prune)
            _check_pressure(self.prune, self.train.epochs)
        return self

    @property
    def hash(self) -> str:
        """16 hex digits: the same for equal plans, on every machine and in every process.

        What plans could not say at first counts only where it says something, so that logs and records made before
        still answer.
        """
        said = self.model_dump(mode="json", exclude=None if self.utilization else {"utilization"})
        if not said["model"].get("widths"):
            said["model"].pop("widths", None)
        return digest(said)[:16]

    def dense(self) -> "Plan":
        """The baseline of this plan: the same data, model and recipe, never pruned."""
        return self.model_copy(update={"prune": None, "recover": Plugin(name="continue")})


def _check_schedule(schedule: Plugin, epochs: int) -> None:
    """Refuse settings of a schedule that name epochs which never come, or leave no room for an event."""
    settings, place = schedule.settings, ("prune", "schedule")
    for setting in ("after", "start", "until", "delay"):
        value = settings.get(setting)
        if isinstance(value, int) and value >= epochs:
            message = f"{setting} {value} of schedule '{schedule.name}' is not under the {epochs} epochs of training"
            raise Misfit(message, *place, setting)
    interval, until = settings.get("interval"), settings.get("until")
    if isinstance(interval, int) and settings.get("when") != "before":
        begin = max((value for value in (settings.get("start"), settings.get("delay")) if value), default=0)
        end = until if isinstance(until, int) else epochs
        if interval > end - begin:
            message = f"interval {interval} of schedule '{schedule.name}' leaves no event before epoch {end}"
            raise Misfit(message, *place, "interval")


def _check_allocation(allocation: Plugin) -> None:
    if allocation.name == "given" and not allocation.settings["keeps"]:
        message = f"allocation '{allocation.name}' needs its setting 'keeps': one proportion per layer or stretch"
        raise Misfit(message, "prune", "allocation", "keeps")


def _check_granularity(prune: Prune) -> None:
    """Refuse what only means something where the other kind of thing is pruned."""
    weights = prune.granularity == "weights"
    if weights != (prune.amount.keep_weights is not None):
        unit = "keep_weights" if weights else "keep_macs, keep_channels or filters_per_event"
        raise Misfit(f"granularity '{prune.granularity}' needs its amount as {unit}", "prune", "amount")
    if not weights:
        for field in ("pattern", "regrowth"):
            if getattr(prune, field) is not None:
                raise Misfit(f"{field} needs granularity 'weights'", "prune", field)
        return
    for kind, plugin in (("criterion", prune.criterion), ("allocation", prune.allocation)):
        if not plugin.is_users_own and not prunes_weights(kind, plugin.name):
            known = ", ".join(name for name in catalogue()[kind] if prunes_weights(kind, name))
            message = f"{kind} '{plugin.name}' is for channels; for granularity 'weights': {known}"
            raise Misfit(message, "prune", kind)
    for field, unset in (("width_multiple", 1), ("regularizer", None), ("gate", None), ("compensation", None)):
        if getattr(prune, field) != unset:
            raise Misfit(f"{field} needs granularity 'channels'", "prune", field)
    if prune.schedule.name == "when_stable":
        raise Misfit("schedule 'when_stable' compares widths and needs granularity 'channels'", "prune", "schedule")
    if prune.pattern is not None:
        kept, of = map(int, prune.pattern.split(":"))
        if kept >= of:
            raise Misfit(f"pattern '{prune.pattern}' keeps every weight", "prune", "pattern")
        if prune.regrowth is not None:
            raise Misfit("regrowth does not keep to a pattern; leave one of them out", "prune", "regrowth")


def _check_pressure(prune: Prune, epochs: int) -> None:
    """Refuse what waits for pressure that never acts."""
    if prune.criterion.name == "gate" and prune.gate is None:
        raise Misfit("criterion 'gate' needs a gate: prune.gate", "prune", "criterion")
    if prune.schedule.name == "when_finished" and prune.regularizer is None:
        raise Misfit("schedule 'when_finished' needs a regularizer: prune.regularizer", "prune", "schedule")
    if prune.pressure_start >= epochs:
        message = f"pressure_start {prune.pressure_start} is not under the {epochs} epochs of training"
        raise Misfit(message, "prune", "pressure_start")


def digest(value: Any) -> str:
    """SHA-256 of a JSON value written in one canonical way."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


__all__ = ["Amount", "Data", "Model", "Plan", "Plugin", "Prune", "Section", "Setting", "Train", "Utilization", "digest"]
