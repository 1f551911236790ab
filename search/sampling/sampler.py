"""An Optuna sampler that proposes what is expected to add most to the front for what it still costs.

Does NOT cover what a trial costs (whoever makes the sampler says), nor asks that are replayed (`repeatable`).
"""

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from search.sampling.bases import base_named, drawn, seed_generators
from search.sampling.encoding import Active, Array, Encoding, Params
from search.sampling.judge import Judge, Kernels
from search.sampling.past import Covariates, Known, Past, Scale, View, states_of
from search.sampling.pool import Pool
from search.sampling.prices import Prices

DRAWS = 1  # of the base, per proposal
START = 4  # trials, those that run among them, before predictions are worth anything
START_HASTE = 0.5  # share of the haste while proposals are chosen for being unlike the others


class GainPerCost(BaseSampler):
    """Proposes by expected hypervolume gain per remaining cost.

    Candidates come from a base sampler, from all over the space and from around the front. A Gaussian process predicts
    what is not known of them; running trials count as if they had ended as predicted. The first proposals are cheap,
    far apart, and high in covariates. A proposal is a function of the seed and of the study's trials, in the order of
    their numbers.
    """

    def __init__(
        self,
        base: BaseSampler | str = "tpe",
        *,
        space: Mapping[str, BaseDistribution] | None = None,
        cost: Callable[[Params], float] | None = None,
        known: Known | None = None,
        active: Active | None = None,
        scales: Mapping[int, Scale] | None = None,
        reference: Callable[[], Sequence[float | None]] | None = None,
        limit: Callable[[], Sequence[float | None]] | None = None,
        covariates: Covariates | None = None,
        seed: int | None = None,
        history: int = 256,
        haste: float = 1.0,
    ) -> None:
        """`space`: every parameter, where it is known before the first trial; else what all trials have in common.

        `cost(params)`: what running it would still cost, in any unit; infinite where it must not be proposed.
        `known[i](params)`: objective i where the parameters decide it, None where they do not. `active(params)`: names
        of the parameters that matter beside the others. `scales[i]`: how differences of objective i count.
        `reference()`: objective values beyond which nothing counts, None for one that the trials themselves decide.
        `limit()`: objective values that every proposal comes near to as its known ones come near to theirs, as a
        network comes near to the whole one the less is cut; None for one that nobody knows yet.
        `covariates(params)`: numbers that follow from the parameters and say more of the outcome than those do, the
        more the better; of None, those that belong to the limit.
        `history`: trials that a proposal is predicted from, at most. `haste`: power of the cost that the gain is
        divided by, where no other trial runs; with n at once it is divided by the root of n.
        """
        self.base = base_named(base) if isinstance(base, str) else base
        self._space, self._cost, self._known, self._active = space, cost, known or {}, active
        self._scales, self._reference, self._limit = scales or {}, reference, limit
        self._covariates = covariates
        self._history, self._haste = history, haste
        self._kernels = Kernels()
        self._memories: weakref.WeakKeyDictionary[Study, _Memory] = weakref.WeakKeyDictionary()
        self._rng = np.random.default_rng(seed)
        if seed is not None:
            self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """The next proposal depends on this and on the study alone."""
        self._rng = np.random.default_rng(seed)
        seed_generators(self.base, int(self._rng.integers(2**32)))

    def reseed_rng(self) -> None:
        """As Optuna asks for where several threads share a sampler."""
        self._rng = np.random.default_rng()
        self.base.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters that are known to be in every trial."""
        return dict(self._space) if self._space is not None else self._memory(study).common.calculate(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal."""
        if not search_space:
            return {}
        # Many small products of matrices: threads only get into each other's way, and into that of the trials.
        with _threads().limit(limits=1, user_api="blas"):
            return self._proposal(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The base's, for a parameter that not all trials have."""
        return self.base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the base."""
        self.base.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the base."""
        self.base.after_trial(study, trial, state, values)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is read again from the study."""
        return {**self.__dict__, "_memories": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._memories = weakref.WeakKeyDictionary()

    def _proposal(self, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        past = self._past(study, space)
        encoding = past.view.encoding
        finished, running = states_of(study, trial)
        told, (pending, known) = past.told(finished), past.features(past.rows_of(running))
        starts = len(told) + len(pending) < START or not told.ended.any()
        # Of many at once none is waited for alone: the search takes as long as its rounds, however cheap each trial.
        haste = self._haste / math.sqrt(1 + len(pending))
        prices = Prices(self._cost, past.view.prior, START_HASTE * haste if starts else haste)
        pool = Pool(past, told, pending, prices=prices, rng=self._rng)
        if starts:
            row = pool.first()
        else:
            useful = told.most_useful(self._history)
            shown = past.chosen(finished, useful) + running
            rows = [encoding.row(drawn(self.base, study, trial, space, shown)) for _ in range(DRAWS)]
            judge = Judge(
                past.view,
                told,
                pending,
                reference=self._least(past.view),
                limit=self._limit_of(past.view),
                useful=useful,
                kernels=self._kernels,
                rng=self._rng,
            )
            judge.believe(known)
            row = pool.best(np.stack(rows), judge)
        return encoding.params(row[None])[0]

    def _memory(self, study: Study) -> "_Memory":
        return self._memories.setdefault(study, _Memory())

    def _past(self, study: Study, space: dict[str, BaseDistribution]) -> Past:
        """What was read of the study, unless there is more to know of objectives than when it was read."""
        memory = self._memory(study)
        encoding = Encoding(space, self._active)
        example = encoding.params(np.zeros((1, len(encoding.axes))))[0]
        known = {index: function for index, function in self._known.items() if function(example) is not None}
        if memory.past is None or memory.of != (space, set(known)):
            memory.past = Past(View(encoding, study.directions, self._scales, known, self._covariates))
            memory.of = (dict(space), set(known))
        return memory.past

    def _least(self, view: View) -> Array:
        """The reference as losses [m]; NaN where the trials themselves decide."""
        reference = [None] * view.objectives if self._reference is None else self._reference()
        return view.losses([math.nan if value is None else value for value in reference])

    def _limit_of(self, view: View) -> Array:
        """The limit as losses [1, m]; [0, m] where it is not known, or no objective is known before a trial."""
        values = [None] if self._limit is None or not view.leading else self._limit()
        if None in values:
            return np.zeros((0, view.objectives))
        return view.losses([values])  # type: ignore[list-item]


class _Memory:
    """What was read of one study."""

    def __init__(self) -> None:
        self.common = IntersectionSearchSpace(include_pruned=True)
        self.past: Past | None = None
        self.of: tuple[dict[str, BaseDistribution], set[int]] = ({}, set())


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
