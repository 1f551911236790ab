"""What another search found, as far as it answers for this one's plans: a warm start.

Its trials teach the sampler; they are no trials of this search, and the front does not have them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spaces.domains import Value
from spaces.errors import UserError
from spaces.study import Study
from tracking.log import read_events
from tracking.read import Told, read_told


@dataclass(frozen=True)
class Warmth:
    """Trials of another search that this one's sampler can learn from; `seen`: how many there were."""

    source: str
    trials: tuple[Told, ...]
    seen: int

    def to_json(self) -> dict[str, Any]:
        """For the event log."""
        trials = [{"choices": dict(one.choices), "metrics": dict(one.metrics)} for one in self.trials]
        return {"source": self.source, "trials": trials}


def warmth_from(source: str, study: Study, *, uri: str) -> Warmth:
    """Finished trials of a search's folder (`runs/NAME`), or of an experiment in the MLflow store `uri`.

    Raises UserError when there is no such search, or none of its trials says anything of this study's plans.
    """
    if study.adjust is not None:
        raise UserError(f"study '{study.name}' adjusts widths: it has no choices that another search could tell of")
    folder = Path(source)
    found = tuple(_from_log(folder) if (folder / "events").is_dir() else read_told(uri, source))
    wanted = {*study.objectives, *study.constraints, "accuracy", "keep_macs", "macs"}
    fitting = []
    for told in found:
        choices = fitted(told.choices, study)
        if choices is not None and all(math.isfinite(told.metrics.get(name, math.nan)) for name in study.objectives):
            metrics = {name: float(value) for name, value in told.metrics.items() if name in wanted}
            fitting.append(Told(choices, metrics))
    if not fitting:
        raise UserError(
            f"none of the {len(found)} finished trials of '{source}' fits study '{study.name}': a trial fits when "
            "every choice that its plan takes up is one of this study's, under the same path"
        )
    return Warmth(source, tuple(fitting), len(found))


def fitted(choices: Mapping[str, Any], study: Study) -> dict[str, Value] | None:
    """The choices as this study has them, its defaults for what is not taken up; None where they say too little."""
    whole = study.defaults()
    given = set()
    for parameter in study.parameters:
        if parameter.path not in choices:
            continue
        try:
            whole[parameter.path] = parameter.domain.taken(choices[parameter.path])
        except ValueError:
            continue
        given.add(parameter.path)
    return whole if given and set(study.active(whole)) <= given else None


def _from_log(folder: Path) -> Iterable[Told]:
    choices: dict[int, Mapping[str, Any]] = {}
    for event in read_events(folder):
        if event.trial is None:
            continue
        if event.kind == "proposed":
            choices[event.trial] = event.body.get("choices", {})
        elif event.kind == "finished" and choices.get(event.trial):
            yield Told(choices[event.trial], event.body)
