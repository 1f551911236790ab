"""The proposals that one ask considers, and the choice among them by gain per cost.

Does NOT cover what a proposal is expected to gain (`judge`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.sampling.candidates import anywhere, mutants
from search.sampling.encoding import Array, Params
from search.sampling.gain import unbeaten
from search.sampling.judge import Judge
from search.sampling.past import Past, Told
from search.sampling.surrogate import Prior, Surrogate

START = 6  # trials, those that run among them, before predictions are worth anything
START_POOL = 32  # rows that a starting proposal is chosen from
START_HASTE = 0.5  # power of the cost that its novelty is divided by
SPREAD, NEAR_FRONT, NEAR_BEST = 128, 192, 96  # rows from all over; near the front; near the best so far, each round
ROUNDS = 2
PARENTS = 16  # of mutants, at most
PRICED = 16  # rows that are priced to learn what makes a plan dear, and as many of the best at the end
FLOOR = 0.02  # a cost is at least this share of the median one: a plan that costs nothing is not worth everything


@dataclass(frozen=True)
class Prices:
    """What rows cost: asked where it matters, guessed elsewhere."""

    cost: Callable[[Params], float] | None
    haste: float

    def of(self, params: Sequence[Params]) -> Array:
        """Costs [n] that were asked for; infinite where the plan must not be proposed."""
        return np.ones(len(params)) if self.cost is None else np.array([float(self.cost(one)) for one in params])


class Pool:
    """Proposals for one ask."""

    def __init__(self, past: Past, told: Told, pending: Array, *, prices: Prices, rng: np.random.Generator) -> None:
        """`pending`: rows of trials that run."""
        self._past, self._told, self._prices, self._rng = past, told, prices, rng
        self._encoding = past.view.encoding
        self._prior = Prior(past.view.axis_of, len(past.view.leading))
        self._pending = past.features(pending)[0]
        self._seen = {row.tobytes() for row in (*told.features, *self._pending)}
        self._rows = np.zeros((0, len(self._encoding.axes)))
        self._features = np.zeros((0, len(past.view.axis_of)))
        self._gains, self._costs = np.zeros(0), np.zeros(0)  # NaN: not asked for

    @property
    def is_a_start(self) -> bool:
        """Whether there is too little to predict from."""
        told = self._told
        return len(told) + len(self._pending) < START or not told.ended.any() or not self._encoding.axes

    def first(self) -> Array:
        """A row to begin with: unlike the others, and cheap."""
        self._rows = anywhere(self._encoding, START_POOL, self._rng)
        self._features, _ = self._past.features(self._rows)
        costs = self._priced(np.arange(START_POOL))
        others = np.concatenate([self._told.features, self._pending])
        novelty = np.ones(START_POOL)
        if len(others):
            novelty = Surrogate(self._prior.kernel(), others, np.zeros(len(others))).predict(self._features)[1]
        fresh = np.array([row.tobytes() not in self._seen for row in self._features])
        scores = np.where(fresh, novelty, 0.0) / self._floored(costs) ** START_HASTE
        return self._row(int(np.argmax(scores)))

    def best(self, drawn: Array, judge: Judge) -> Array:
        """The row of most gain per cost, from those that the base has drawn and its own."""
        self._add(drawn, judge)
        self._add(anywhere(self._encoding, SPREAD, self._rng), judge)
        self._add(self._mutants(self._parents(), NEAR_FRONT), judge)
        guessed = self._guess()
        for _ in range(ROUNDS):
            top = np.argsort(-self._scores(guessed(self._features)), kind="stable")[:PARENTS]
            self._add(self._mutants(self._rows[top], NEAR_BEST), judge)
        order = np.argsort(-self._scores(guessed(self._features)), kind="stable")[:PRICED]
        scores = self._gains[order] / self._floored(self._priced(order)) ** self._prices.haste
        return self._row(order[int(np.argmax(scores))] if scores.max() > 0.0 else 0)

    def _row(self, index: int) -> Array:
        row: Array = self._rows[index]
        return row

    def _parents(self) -> Array:
        """The front, or the feasible trials nearest to one."""
        told = self._told
        good = told.only(told.feasible) if told.feasible.any() else told.only(told.ended)
        front = unbeaten(good.losses)
        parents: Array = good.rows[front[self._rng.permutation(len(front))[: 2 * PARENTS]]]
        return parents

    def _mutants(self, parents: Array, count: int) -> Array:
        active = self._encoding.active(self._encoding.params(parents))
        return mutants(self._encoding, parents, active, count, self._rng, ruling=self._past.view.ruling)

    def _add(self, rows: Array, judge: Judge) -> None:
        features, known = self._past.features(rows)
        gains = judge.gain(features, known)
        gains[[row.tobytes() in self._seen for row in features]] = 0.0
        self._rows = np.concatenate([self._rows, rows])
        self._features = np.concatenate([self._features, features])
        self._gains = np.concatenate([self._gains, gains])
        self._costs = np.concatenate([self._costs, np.full(len(rows), math.nan)])

    def _guess(self) -> Callable[[Array], Array]:
        """Costs from features, learnt from some rows of some gain."""
        if self._prices.cost is None:
            return lambda features: np.ones(len(features))
        order = np.argsort(-self._gains, kind="stable")
        asked = order[np.linspace(0, len(order) // 2, PRICED).astype(np.int64)]
        costs = self._priced(asked)
        possible = np.isfinite(costs)
        if not possible.any():
            return lambda features: np.ones(len(features))
        logs = np.log(self._floored(costs[possible]))
        model = Surrogate(self._prior.kernel(), self._features[asked[possible]], logs)
        return lambda features: np.exp(model.predict(features)[0])

    def _priced(self, chosen: NDArray[np.int64]) -> Array:
        if len(self._costs) < len(self._rows):
            self._costs = np.full(len(self._rows), math.nan)
        unasked = chosen[np.isnan(self._costs[chosen])]
        self._costs[unasked] = self._prices.of(self._encoding.params(self._rows[unasked]))
        return self._costs[chosen]

    def _scores(self, guessed: Array) -> Array:
        costs = np.where(np.isnan(self._costs), guessed, self._costs)
        return self._gains / self._floored(costs) ** self._prices.haste

    @staticmethod
    def _floored(costs: Array) -> Array:
        possible = costs[np.isfinite(costs)]
        floor = FLOOR * float(np.median(possible)) if len(possible) else 0.0
        return np.maximum(costs, floor if floor > 0.0 else 1e-300)
