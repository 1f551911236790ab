"""What proposals cost: asked where it matters, guessed from what was asked elsewhere.

Costs hold for one proposal alone: with each trial that begins or ends, others share more or less with it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from search.sampling.encoding import Array, Params
from search.sampling.gain import normal_cdf
from search.sampling.surrogate import Prior, Surrogate

SLOT = 0.5  # what a trial costs beside its own cost, in median costs: trials are few too, so none is nearly free


class Prices:
    """What the gain of a proposal is divided by."""

    def __init__(self, cost: Callable[[Params], float] | None, prior: Prior, haste: float) -> None:
        """`cost` may be infinite; `haste` is the power of the cost that counts."""
        self._cost, self._prior, self._haste = cost, prior, haste
        self._features = np.zeros((0, len(prior.axis_of)))
        self._costs = np.zeros(0)

    def ask(self, features: Array, params: Sequence[Params]) -> None:
        """Have the costs of these proposals told."""
        costs = [1.0 if self._cost is None else float(self._cost(one)) for one in params]
        self._features = np.concatenate([self._features, features])
        self._costs = np.concatenate([self._costs, costs])

    def told(self, count: int) -> Array:
        """Prices of the last `count` proposals asked about; infinite for what must not be proposed."""
        return self._divisors(self._costs[len(self._costs) - count :])

    def guessed(self, features: Array) -> Array:
        """Prices of proposals that nobody asked about; dearer, where they may turn out impossible."""
        possible = np.isfinite(self._costs)
        if self._cost is None or not possible.any():
            return self._divisors(np.ones(len(features)))
        logs = np.log(self._divisors(self._costs[possible]))
        kernel = self._prior.kernel()
        prices: Array = np.exp(Surrogate(kernel, self._features[possible], logs).predict(features)[0])
        if not possible.all():
            mean, deviation = Surrogate(kernel, self._features, np.where(possible, 1.0, -1.0)).predict(features)
            prices = prices / np.maximum(normal_cdf(mean / deviation), 1e-6)
        return prices

    def _divisors(self, costs: Array) -> Array:
        possible = self._costs[np.isfinite(self._costs)]
        slot = SLOT * float(np.median(possible)) if len(possible) else 0.0
        divisors: Array = np.maximum(costs + slot, 1e-300) ** self._haste
        return divisors
