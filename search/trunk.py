"""Where plans leave the training of the dense network: the boundaries that are worth saving for others."""

import random
from collections import Counter
from collections.abc import Callable

from search.stages import Path, shared
from spaces.errors import UserError
from spaces.plan import Plan
from spaces.study import Study

SAMPLES = 256  # random plans of a study: enough to meet every fork that a search is likely to propose


def forks_of(study: Study, *, problem: Callable[[Plan], str | None], path: Callable[[Plan], Path]) -> frozenset[int]:
    """After how many epochs random plans leave the way of their dense network. 0 is not among them: nothing is saved.

    Raises UserError when no plan of the study can be run.
    """
    rng = random.Random(study.budget.seed)
    problems: Counter[str] = Counter()
    dense: dict[str, Path] = {}
    forks = set()
    for _ in range(SAMPLES):
        plan = study.plan(study.sample(rng))
        reason = problem(plan)
        if reason is not None:
            problems[reason] += 1
            continue
        trunk = plan.dense()
        if trunk.hash not in dense:
            dense[trunk.hash] = path(trunk)
        way = path(plan)
        common = shared(way, dense[trunk.hash])
        if 0 < common < len(way):
            forks.add(way[common - 1].epochs)
    if problems.total() == SAMPLES:
        raise UserError(f"no plan of this study can be run: {problems.most_common(1)[0][0]}", file=study.file)
    return frozenset(forks)
