"""What a study's search will do and cost, from random plans of it: none is trained, and no data is read."""

import random
import re
from collections import Counter
from dataclasses import dataclass

from spaces.errors import UserError
from spaces.study import Study
from trainables.costing import Costing, fork_epoch

SAMPLES = 256
NUMBER = re.compile(r"\d+(\.\d+)?")
OUTPUT = "network output"  # what the graph says of layers that make logits: of course they stay


@dataclass(frozen=True)
class Forecast:
    """Estimates of a whole search: `budget.trials` random plans and the dense baseline."""

    dense_macs: int  # of one sample's forward pass
    dense_params: int
    least_keep: float | None  # of what the amount counts; None where nothing is pruned or filters are counted
    alone: int  # training MACs, were every trial to start from nothing
    shared: int  # training MACs when trials start from the baseline's boundaries
    forks: dict[int, int]  # epochs of the baseline that random plans start from: how many plans do
    refused: dict[str, int]  # why random plans would not be proposed, an example of each reason: how many would not
    left_alone: dict[str, str]  # layers whose channels cannot be removed safely, and why; outputs not among them


def forecast(study: Study) -> Forecast:
    """Trace the dense network and price random plans. Raises UserError when no plan of the study can be run."""
    costing, rng = Costing(), random.Random(study.budget.seed)
    baseline = study.baseline()
    dense, _ = costing.training_macs(baseline)
    forks: Counter[int] = Counter()
    refused: Counter[str] = Counter()
    examples: dict[str, str] = {}  # reasons that differ in their numbers alone count as one, told by the first met
    alone = shared = 0
    for _ in range(SAMPLES):
        plan = study.plan(study.sample(rng))
        problem = costing.problem(plan)
        if problem is not None:
            refused[examples.setdefault(NUMBER.sub("#", problem), problem)] += 1
            continue
        whole, trunk = costing.training_macs(plan)
        fork = fork_epoch(plan) if plan.dense().hash == baseline.hash else 0
        forks[fork] += 1
        alone += whole
        shared += whole - (trunk if fork else 0)
    runnable = forks.total()
    if not runnable:
        raise UserError(f"no plan of this study can be run: {refused.most_common(1)[0][0]}", file=study.file)
    network = costing.network(baseline)
    prune = study.plan(study.defaults()).prune
    return Forecast(
        dense_macs=network.macs,
        dense_params=network.params,
        least_keep=None if prune is None or prune.amount.filters_per_event else network.least_keep(prune),
        alone=dense + round(study.budget.trials * alone / runnable),
        shared=dense + round(study.budget.trials * shared / runnable),
        forks=dict(sorted(forks.items())),
        refused=dict(refused.most_common()),
        left_alone={layer: reason for layer, reason in network.traced.graph.left_alone.items() if reason != OUTPUT},
    )
