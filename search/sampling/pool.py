"""The proposals that one ask considers, and the choice among them by gain per cost.

Does NOT cover what a proposal is expected to gain (`judge`), nor what it costs (`prices`).
"""

import math

import numpy as np
from numpy.typing import NDArray

from search.sampling.candidates import anywhere, mutants
from search.sampling.encoding import Array
from search.sampling.judge import Judge
from search.sampling.past import Past, Told
from search.sampling.prices import Prices
from search.sampling.surrogate import Surrogate, drifted

START_POOL = 32  # rows that a starting proposal is chosen from
SPREAD, NEAR_FRONT, NEAR_BEST = 128, 192, 96  # rows from all over; near the front; near the best so far, each round
ROUNDS = 2
PARENTS = 16  # of mutants, at most; twice as many of the front
PRICED = 16  # rows that are asked about to learn what makes a plan dear, and of the best ones, each time
BATCHES = 4  # of the best, until one of them is possible


class Pool:
    """Proposals for one ask."""

    def __init__(self, past: Past, told: Told, pending: Array, *, prices: Prices, rng: np.random.Generator) -> None:
        """`pending`: features of trials that run."""
        self._past, self._told, self._prices, self._rng = past, told, prices, rng
        self._pending = pending
        self._encoding = past.view.encoding
        self._running = {row.tobytes() for row in pending}
        self._rows = np.zeros((0, len(self._encoding.axes)))
        self._features = np.zeros((0, len(past.view.axis_of)))
        self._gains, self._asked = np.zeros(0), np.zeros(0)  # what was asked for of prices; else NaN

    def first(self) -> Array:
        """A row to begin with: unlike the others, expected to do well, and cheap."""
        rows = anywhere(self._encoding, START_POOL, self._rng)
        features, _ = self._past.features(rows)
        prior = self._past.view.prior
        others = np.concatenate([self._told.features, self._pending])
        novelty = np.ones(len(rows))
        if len(others):
            kernel = prior.kernel()
            novelty = Surrogate(kernel, others, np.zeros(len(others))).predict(features)[1]
        self._add(rows, features, novelty * np.exp(-drifted(features, prior.drift)))
        return self._best(np.arange(START_POOL))

    def best(self, drawn: Array, judge: Judge) -> Array:
        """The row of most gain per cost, from those that the base has drawn and its own."""
        self._judge(drawn, judge)
        self._judge(anywhere(self._encoding, SPREAD, self._rng), judge)
        front = self._rng.permutation(self._told.front)[: 2 * PARENTS]
        self._judge(self._mutants(self._told.rows[front], NEAR_FRONT), judge)
        order = np.argsort(-self._gains, kind="stable")
        self._ask(order[np.linspace(0, len(order) // 2, PRICED).astype(np.int64)])
        for _ in range(ROUNDS):
            self._judge(self._mutants(self._rows[self._promising(PARENTS)], NEAR_BEST), judge)
        for _ in range(BATCHES):
            chosen = self._promising(PRICED)
            self._ask(chosen)
            if np.isfinite(self._asked[chosen]).any():
                break
        return self._best(chosen)

    def _best(self, chosen: NDArray[np.int64]) -> Array:
        """Of rows whose prices are asked for; of all rows the first, where none of them is possible."""
        self._ask(chosen)
        possible = chosen[np.isfinite(self._asked[chosen])]
        row: Array = self._rows[possible[np.argmax(self._scores()[possible])] if len(possible) else 0]
        return row

    def _promising(self, count: int) -> NDArray[np.int64]:
        """Indices of the rows that look best for what they are taken to cost."""
        return np.argsort(-self._scores(), kind="stable")[:count]

    def _scores(self) -> Array:
        unasked = np.isnan(self._asked)
        prices = self._asked.copy()
        if unasked.any():
            prices[unasked] = self._prices.guessed(self._features[unasked])
        return self._gains / prices

    def _ask(self, chosen: NDArray[np.int64]) -> None:
        new = chosen[np.isnan(self._asked[chosen])]
        self._prices.ask(self._features[new], self._encoding.params(self._rows[new]))
        self._asked[new] = self._prices.told(len(new))

    def _mutants(self, parents: Array, count: int) -> Array:
        active = self._encoding.active(self._encoding.params(parents))
        return mutants(self._encoding, parents, active, count, self._rng, ruling=self._past.view.ruling)

    def _judge(self, rows: Array, judge: Judge) -> None:
        features, known = self._past.features(rows)
        self._add(rows, features, judge.gain(features, known))

    def _add(self, rows: Array, features: Array, gains: Array) -> None:
        """What was proposed before gains nothing."""
        names = [row.tobytes() for row in features]
        fresh = [name not in self._past.seen and name not in self._running for name in names]
        self._rows = np.concatenate([self._rows, rows])
        self._features = np.concatenate([self._features, features])
        self._gains = np.concatenate([self._gains, np.where(fresh, gains, 0.0)])
        self._asked = np.concatenate([self._asked, np.full(len(rows), math.nan)])
