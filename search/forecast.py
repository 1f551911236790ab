"""What a study's search will do and cost, from random plans of it: none is trained, and no data is read."""

import random
import re
from collections import Counter
from dataclasses import dataclass

from search.bounds import plan_problem
from search.stages import Path, lowest, shared
from spaces.domains import Value
from spaces.errors import UserError
from spaces.plan import Plan
from spaces.study import Study
from trainables.costing import Costing

SAMPLES = 256
NEIGHBOURHOODS = 8  # plans whose neighbours are looked at
NUMBER = re.compile(r"\d+(\.\d+)?")
OUTPUT = "network output"  # what the graph says of layers that make logits: of course they stay


@dataclass(frozen=True)
class Forecast:
    """Estimates of a whole search: `budget.trials` random plans and the dense baseline."""

    dense_macs: int  # of one sample's forward pass
    dense_params: int
    least_keep: float | None  # of what the amount counts; None where nothing is pruned or filters are counted
    alone: int  # training MACs, were every trial to start from nothing
    measuring: int  # MACs of the passes that measure utilization ratios, which `alone` and `shared` leave out
    shared: int  # training MACs when every boundary is computed once
    least_share: float  # of a plan's own training MACs that are left when all it may share exists: the lowest met
    forks: dict[int, int]  # epochs of the baseline that random plans start from: how many plans do
    refused: dict[str, int]  # why random plans would not be proposed, an example of each reason: how many would not
    left_alone: dict[str, str]  # layers whose channels cannot be removed safely, and why; outputs not among them


@dataclass(frozen=True)
class _Drawn:
    """A random plan."""

    choices: dict[str, Value]
    plan: Plan
    path: Path


def forecast(study: Study) -> Forecast:
    """Trace the dense network and price random plans. Raises UserError when no plan of the study can be run."""
    costing = Costing()
    baseline = study.baseline()
    trunk = costing.path(baseline)
    refused, plans = _drawn(study, costing)
    if not plans:
        raise UserError(f"no plan of this study can be run: {refused.most_common(1)[0][0]}", file=study.file)
    paths = [drawn.path for drawn in plans]
    forks = [path[common - 1].epochs if (common := shared(path, trunk)) else 0 for path in paths]
    count = study.budget.trials
    # A budget below the number of plans drawn takes that many of them; one above repeats their mean.
    taken, scale = paths[:count], max(1.0, count / len(paths))
    network = costing.network(baseline)
    prune = study.plan(study.defaults()).prune
    return Forecast(
        dense_macs=network.macs,
        dense_params=network.params,
        least_keep=None if prune is None or prune.amount.filters_per_event else network.least_keep(prune),
        alone=lowest([trunk]) + round(scale * sum(_macs(path) for path in taken)),
        measuring=(count + 1) * costing.measuring_macs(baseline),
        shared=lowest([trunk]) + round(scale * (lowest([trunk, *taken]) - lowest([trunk]))),
        least_share=_least_share(study, plans[:NEIGHBOURHOODS], costing),
        forks=dict(sorted(Counter(forks).items())),
        refused=dict(refused.most_common()),
        left_alone={layer: reason for layer, reason in network.traced.graph.left_alone.items() if reason != OUTPUT},
    )


def _drawn(study: Study, costing: Costing) -> tuple[Counter[str], list[_Drawn]]:
    """Random plans: why some cannot run, and those that can."""
    rng = random.Random(study.budget.seed)
    refused: Counter[str] = Counter()
    examples: dict[str, str] = {}  # reasons that differ in their numbers alone count as one, told by the first met
    plans = []
    for _ in range(SAMPLES):
        choices = study.sample(rng)
        plan = study.plan(choices)
        problem = costing.problem(plan) or plan_problem(study, plan)
        if problem is None:
            plans.append(_Drawn(choices, plan, costing.path(plan)))
        else:
            refused[examples.setdefault(NUMBER.sub("#", problem), problem)] += 1
    return refused, plans


def _macs(path: Path) -> int:
    return sum(step.macs for step in path)


def _least_share(study: Study, plans: list[_Drawn], costing: Costing) -> float:
    """What of a plan's training MACs is its own when it shares all it can with a plan that differs in one choice.

    The mean over a few plans: no order of trials makes a search of this space cheaper than that.
    """
    rng = random.Random(f"neighbours {study.budget.seed}")  # not the numbers that the plans were drawn with
    shares = []
    for drawn in plans:
        common = 0
        for parameter in study.parameters:
            other = study.plan({**drawn.choices, parameter.path: parameter.domain.sample(rng)})
            if other.hash != drawn.plan.hash:
                common = max(common, shared(drawn.path, costing.path(other)))
        shares.append(_macs(drawn.path[common:]) / max(1, _macs(drawn.path)))
    return sum(shares) / len(shares)
