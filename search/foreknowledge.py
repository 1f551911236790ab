"""What a search knows of a plan's objectives before it is trained, and of how much they may count.

Does NOT cover what a plan costs (`search.stages`), nor how proposals are chosen (`search.sampling`).
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from search.sampling.encoding import Params
from search.sampling.past import Scale
from search.sampling.repeatable import from_optuna, to_optuna
from spaces.domains import Domain, Value
from spaces.study import Study
from spaces.template import Template
from tracking.front import MARGIN

AMOUNTS = {"keep_macs": "keep_macs", "macs": "keep_macs", "keep_weights": "keep_weights"}  # that decide a metric
FRACTIONS = frozenset({"keep_macs", "keep_params", "keep_weights"})  # metrics of which the dense network has 1
LINEAR = frozenset({"accuracy", "loss"})  # metrics that count as they are, and no logarithm of them


class Foreknowledge:
    """Of the plans of one study, by parameters as Optuna writes them."""

    def __init__(self, study: Study) -> None:
        self._objectives = study.objectives
        self._domains = {parameter.path: parameter.domain for parameter in study.parameters}
        self._conditions = {
            parameter.path: [(path, to_optuna(self._domains[path], value)) for path, value in parameter.when]
            for parameter in study.parameters
        }
        self._prune = (study.template.entries or {}).get("prune")
        self._dense: dict[str, float] = {}  # metrics of the dense network, as far as trials told them
        self._most_accurate = -math.inf

    def watch(self, metrics: Mapping[str, float]) -> None:
        """The baseline has come to this, or another trial has: the dense network will hardly end below."""
        self._most_accurate = max(self._most_accurate, metrics.get("accuracy", -math.inf))

    def hear(self, metrics: Mapping[str, float], *, dense: bool) -> None:
        """A trial has ended with these; `dense`: it was the baseline."""
        if dense:
            self._dense.update(metrics)
        if metrics.get("keep_macs") and "macs" in metrics:
            self._dense.setdefault("macs", metrics["macs"] / metrics["keep_macs"])
        self.watch(metrics)

    @property
    def scales(self) -> dict[int, Scale]:
        """How differences of each objective count: as in the hypervolume, error against the logarithm of costs."""
        return {index: "linear" if name in LINEAR else "log" for index, name in enumerate(self._objectives)}

    @property
    def known(self) -> dict[int, Callable[[Params], float | None]]:
        """The objectives that the amount of a plan decides; what it does not reach is not known before."""
        return {index: partial(self._decided, name) for index, name in enumerate(self._objectives) if name in AMOUNTS}

    def reference(self) -> list[float | None]:
        """The hypervolume's reference point; the accuracy lies below the dense network's."""
        whole = self._whole
        known = {**whole, "accuracy": whole["accuracy"] - MARGIN}
        known.pop("loss", None)  # no margin is defined for it
        return self._finite(known)

    def limit(self) -> list[float | None]:
        """The dense network's objectives: every plan comes near to them, the less it cuts."""
        return self._finite(self._whole)

    @property
    def _whole(self) -> dict[str, float]:
        """Of the dense network; until the baseline has ended, the best accuracy that any trial came to is its own."""
        return {"accuracy": self._most_accurate, **self._dense, **dict.fromkeys(FRACTIONS, 1.0)}

    def _finite(self, known: Mapping[str, float]) -> list[float | None]:
        return [known.get(name) if math.isfinite(known.get(name, 0.0)) else None for name in self._objectives]

    def active(self, params: Params) -> Collection[str]:
        """Names of the parameters that the plan takes up."""
        return [
            path
            for path, conditions in self._conditions.items()
            if all(params[parent] == value for parent, value in conditions)
        ]

    def _decided(self, metric: str, params: Params) -> float | None:
        """The metric, where the amount says it; the amount is a bound that is come as near to as whole units allow."""
        whole = self._dense.get("macs") if metric == "macs" else 1.0
        amount = self._within(self._within(self._prune, "amount", params), AMOUNTS[metric], params)
        if amount is None or whole is None:
            return None
        kept = amount.resolve(_Choices(self._domains, params))
        return None if kept is None else whole * float(kept)

    def _within(self, place: Template | None, key: str, params: Params) -> Template | None:
        """The entry `key` of a place of the plan; None where there is none."""
        if place is not None and place.options and place.parameter is not None:
            chosen = from_optuna(place.parameter.domain, params[place.parameter.path])
            place = place.options[chosen]
        return None if place is None else (place.entries or {}).get(key)


class _Choices(Mapping[str, Value]):
    """Parameters as Optuna writes them, as a plan has them; converted when looked at."""

    def __init__(self, domains: Mapping[str, Domain], params: Params) -> None:
        self._domains, self._params = domains, params

    def __getitem__(self, path: str) -> Value:
        value: Value = from_optuna(self._domains[path], self._params[path])
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)
