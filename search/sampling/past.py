"""What the trials of a study teach, as arrays: read once each, in the order of their numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.sampling.encoding import NEUTRAL, Array, Encoding, Params
from search.sampling.gain import unbeaten
from search.sampling.surrogate import Prior

Scale = Literal["linear", "log"]
Known = Mapping[int, Callable[[Params], float | None]]
Covariates = Callable[[Params | None], Sequence[float]]
DESIGN = 64  # rows that the ranges of covariates and of known objectives are taken from
USEFUL = 2 / 3  # share of a capped history that lies near the front; the rest are the newest
FRONT = 64  # points that distances to the front are taken to, at most
SMALLEST = 1e-12  # a loss on a logarithmic scale is at least this


class View:
    """A study as the models see it: features of rows, losses of values, objectives that the parameters decide."""

    def __init__(
        self,
        encoding: Encoding,
        directions: Sequence[StudyDirection],
        scales: Mapping[int, Scale],
        known: Known,
        covariates: Covariates | None = None,
    ) -> None:
        self.encoding, self._known = encoding, known
        self._covariates: Covariates = covariates or (lambda params: ())
        self._signs = np.array([-1.0 if one == StudyDirection.MAXIMIZE else 1.0 for one in directions])
        self._logs = np.array([scales.get(index) == "log" for index in range(len(self._signs))])
        design = encoding.drawn(np.random.default_rng(0).random((DESIGN, len(encoding.axes))))
        params = encoding.params(design)
        losses = self.known(params)
        self.leading = [i for i in range(len(self._signs)) if _varies(losses[:, i])]
        self._place = _Places(losses[:, self.leading])
        beside = np.array([self._covariates(one) for one in params], dtype=np.float64)
        self._varying = [i for i in range(beside.shape[1]) if _varies(beside[:, i])]
        self._place_beside = _Places(beside[:, self._varying])
        axes, told = len(encoding.axes), len(self._varying) + len(self.leading)
        self.axis_of = np.append(encoding.axis_of, np.arange(axes, axes + told)).astype(np.int64)
        self.ruling = [index for index in range(axes) if self._rules(index, design[:4], losses[:4])]

    @property
    def prior(self) -> Prior:
        """What is believed of a metric's kernel before there are values."""
        return Prior(self.axis_of, len(self.leading), covariates=len(self._varying))

    @property
    def objectives(self) -> int:
        """How many there are."""
        return len(self._signs)

    def losses(self, values: Sequence[float]) -> Array:
        """Objective values [..., m] so that less is better, on the scale that is asked for."""
        given = np.asarray(values, dtype=np.float64)
        return self._signs * np.where(self._logs, np.log(np.maximum(given, SMALLEST)), given)

    def known(self, params: Sequence[Params]) -> Array:
        """Losses [n, m] that follow from the parameters; NaN where only a trial tells."""
        values = np.full((len(params), self.objectives), np.nan)
        for index, function in self._known.items():
            told = [function(one) for one in params]
            values[:, index] = [math.nan if value is None else value for value in told]
        return self.losses(values)  # type: ignore[arg-type]

    def features(self, rows: Array, params: Sequence[Params], known: Array) -> Array:
        """What the models see of rows [n, axes]: settings, covariates, and the objectives known beforehand."""
        own = self.encoding.features(rows, self.encoding.active(params))
        leading = np.nan_to_num(self._place(known[:, self.leading]), nan=NEUTRAL)
        return np.concatenate([own, self._beside(params), leading], axis=1)

    def limit_features(self, losses: Array) -> Array:
        """Features of losses [n, m] that do not hang on the settings: those are neutral, choices all left open.

        Covariates that lie beyond those of all settings count as the last of them.
        """
        made = np.full((len(losses), len(self.encoding.axis_of)), NEUTRAL)
        choices = [index for index, axis in enumerate(self.encoding.axes) if axis.choices]
        made[:, np.isin(self.encoding.axis_of, choices)] = 0.0
        beside = self._beside([None] * len(losses)).clip(0.0, 1.0)
        return np.concatenate([made, beside, self._place(losses[:, self.leading])], axis=1)

    def _beside(self, params: Sequence[Params | None]) -> Array:
        """Where covariates lie in their ranges [n, varying]."""
        if not self._varying or not params:
            return np.zeros((len(params), len(self._varying)))
        return self._place_beside(np.array([self._covariates(one) for one in params])[:, self._varying])

    def _rules(self, axis: int, rows: Array, losses: Array) -> bool:
        """Whether moving along the axis alone moves an objective that is known."""
        for place in (0.05, 0.95):
            moved = rows.copy()
            moved[:, axis] = self.encoding.axes[axis].drawn(np.full(len(rows), place))
            if not np.array_equal(self.known(self.encoding.params(moved)), losses, equal_nan=True):
                return True
        return False


class _Places:
    """Where values [n, columns] lie in the ranges of an example."""

    def __init__(self, example: Array) -> None:
        self._low, self._high = example.min(axis=0), example.max(axis=0)

    def __call__(self, values: Array) -> Array:
        places: Array = (values - self._low) / (self._high - self._low)
        return places


def _varies(values: Array) -> bool:
    return bool(np.isfinite(values).all() and values.max() > values.min())


@dataclass(frozen=True)
class Told:
    """Trials in the order of their numbers; n is how many."""

    rows: Array  # [n, axes]
    features: Array  # [n, features]
    losses: Array  # [n, m]; NaN where a trial could not be run
    violations: Array  # [n, constraints]; at most 0 is feasible, NaN where not told
    ended: NDArray[np.bool_]  # [n]; whether it ran to its end

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which of them may be on the front [n]."""
        return self.ended & ~(self.violations > 0.0).any(axis=1)

    @cached_property
    def front(self) -> NDArray[np.int64]:
        """Indices of the feasible trials that no other beats; of all that ended, where none is feasible."""
        eligible = np.flatnonzero(self.feasible if self.feasible.any() else self.ended)
        return eligible[unbeaten(self.losses[eligible])]

    def __len__(self) -> int:
        return len(self.rows)

    def most_useful(self, limit: int) -> NDArray[np.int64]:
        """Indices of at most `limit` trials: those nearest to the front, and the newest; in their own order."""
        count, near = len(self), round(USEFUL * limit)
        if count <= limit:
            return np.arange(count)
        newest = count - (limit - near)
        order = np.argsort(self._distances_to_front()[:newest], kind="stable")
        return np.append(np.sort(order[:near]), np.arange(newest, count))

    def _distances_to_front(self) -> Array:
        """How far each trial would have to gain in every objective to be beaten no more, in ranges of the objectives.

        Trials that are infeasible or did not end are infinitely far.
        """
        distance, here = np.full(len(self), np.inf), self.feasible
        if not here.any():
            return distance
        losses, front = self.losses[here], self.losses[self.front]
        span = np.maximum(losses.max(axis=0) - losses.min(axis=0), 1e-300)
        if len(front) > FRONT:
            front = front[np.linspace(0, len(front) - 1, FRONT).round().astype(np.int64)]
        ahead = np.full((len(losses), len(front)), np.inf)
        for index in range(losses.shape[1]):  # an array of all three axes at once is several times slower
            np.minimum(ahead, (losses[:, [index]] - front[:, index]) / span[index], out=ahead)
        distance[here] = ahead.max(axis=1)
        return distance


@dataclass(frozen=True)
class _Record:
    row: Array
    features: Array
    losses: Array
    violations: Mapping[str, float]
    ended: bool


class Past:
    """The finished trials of one study. They never change, so each is read once."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.seen: set[bytes] = set()  # features of every trial told
        self._read: set[int] = set()
        self._numbers = np.zeros(0, dtype=np.int64)  # of the trials told, in order
        self._names: tuple[str, ...] = ()  # of the constraints
        axes, features = len(view.encoding.axes), len(view.axis_of)
        self._raw = Told(
            np.zeros((0, axes)),
            np.zeros((0, features)),
            np.zeros((0, view.objectives)),
            np.zeros((0, 0)),
            np.zeros(0, dtype=np.bool_),
        )
        self._told = self._raw

    def told(self, trials: Sequence[FrozenTrial]) -> Told:
        """Those of the trials that are finished, did not fail, and have a value for every parameter."""
        fresh: list[tuple[int, _Record]] = []
        for trial in trials:
            if trial.number not in self._read and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._read.add(trial.number)
                record = self._record(trial)
                if record is not None:
                    fresh.append((trial.number, record))
        if fresh:
            self._take(sorted(fresh, key=lambda one: one[0]))
        return self._told

    def chosen(self, trials: Sequence[FrozenTrial], indices: NDArray[np.int64]) -> list[FrozenTrial]:
        """The trials that stand at these indices of what was told."""
        chosen = set(self._numbers[indices].tolist())
        return [trial for trial in trials if trial.number in chosen]

    def rows_of(self, trials: Sequence[FrozenTrial]) -> Array:
        """Rows [n, axes] of those trials that have a value for every parameter."""
        rows = [row for row in map(self._row, trials) if row is not None]
        return np.stack(rows) if rows else np.zeros((0, len(self.view.encoding.axes)))

    def features(self, rows: Array) -> tuple[Array, Array]:
        """Features of rows, and the losses that are known beforehand."""
        params = self.view.encoding.params(rows)
        known = self.view.known(params)
        return self.view.features(rows, params, known), known

    def _row(self, trial: FrozenTrial) -> Array | None:
        try:
            return self.view.encoding.row(trial.params)
        except (KeyError, ValueError):
            return None

    def _record(self, trial: FrozenTrial) -> _Record | None:
        row = self._row(trial)
        if row is None:
            return None
        features, _ = self.features(row[None])
        return _Record(row, features[0], self._losses(trial), trial.constraints, trial.state == TrialState.COMPLETE)

    def _losses(self, trial: FrozenTrial) -> Array:
        """Of a trial that was pruned for being bad, the last value it showed; of one that could not be run, none."""
        if trial.state == TrialState.COMPLETE:
            return self.view.losses(trial.values)
        broken = any(value > 0.0 for value in trial.constraints.values())
        if self.view.objectives == 1 and trial.intermediate_values and not broken:
            return self.view.losses([trial.intermediate_values[max(trial.intermediate_values)]])
        return np.full(self.view.objectives, np.nan)

    def _take(self, fresh: Sequence[tuple[int, _Record]]) -> None:
        """Insert trials where their numbers say: those before them are not looked at again."""
        numbers, records = np.array([number for number, _ in fresh]), [record for _, record in fresh]
        self._allow({name for record in records for name in record.violations})
        places, raw = np.searchsorted(self._numbers, numbers), self._raw
        violations = [[record.violations.get(name, np.nan) for name in self._names] for record in records]
        self._numbers = np.insert(self._numbers, places, numbers)
        self._raw = Told(
            np.insert(raw.rows, places, [record.row for record in records], axis=0),
            np.insert(raw.features, places, [record.features for record in records], axis=0),
            np.insert(raw.losses, places, [record.losses for record in records], axis=0),
            np.insert(raw.violations, places, np.array(violations).reshape(len(records), -1), axis=0),
            np.insert(raw.ended, places, [record.ended for record in records]),
        )
        self._told = replace(self._raw, losses=_finite(self._raw.losses))
        self.seen.update(record.features.tobytes() for record in records)

    def _allow(self, names: set[str]) -> None:
        """Give constraints that no trial had so far a column."""
        wanted = tuple(sorted(names.union(self._names)))
        if wanted != self._names:
            violations = np.full((len(self._numbers), len(wanted)), np.nan)
            violations[:, [wanted.index(name) for name in self._names]] = self._raw.violations
            self._raw, self._names = replace(self._raw, violations=violations), wanted


def _finite(losses: Array) -> Array:
    """Infinite losses as the worst or best finite ones; NaN stays."""
    if not np.isinf(losses).any():
        return losses
    losses, finite = losses.copy(), np.where(np.isfinite(losses), losses, np.nan)
    for index, column in enumerate(finite.T):
        known = column[np.isfinite(column)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
        losses[:, index] = np.where(np.isposinf(losses[:, index]), high, losses[:, index])
        losses[:, index] = np.where(np.isneginf(losses[:, index]), low, losses[:, index])
    return losses


def states_of(study: Study, current: FrozenTrial) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Finished trials that did not fail, and running ones beside the current; both by number."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    trials = study._get_trials(deepcopy=False, states=states, use_cache=False)
    running = [one for one in trials if one.state == TrialState.RUNNING and one.number != current.number]
    return [one for one in trials if one.state != TrialState.RUNNING], running
