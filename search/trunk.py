"""Where plans leave the training of the dense network, and when the rest of that training is worth its cost."""

import random
from collections import Counter
from collections.abc import Callable, Iterable

from search.stages import Path, Stages, shared
from spaces.errors import UserError
from spaces.plan import Plan
from spaces.study import Study

SAMPLES = 256  # random plans of a study: enough to meet every fork that a search is likely to propose
ASIDE = 0.3  # the rest of the trunk is due when it costs this much of what the other trials cost so far


class Trunk:
    """The way of the baseline, which others fork from; `forks`: after how many epochs."""

    def __init__(self, forks: frozenset[int], path: Path) -> None:
        self.forks, self._path = forks, path
        self._branched = 0  # training MACs of the ways of ended trials, from where they left it

    def left_by(self, path: Path) -> None:
        """A trial that went this way is over."""
        self._branched += sum(step.macs for step in path[shared(path, self._path) :])

    def is_rest_due(self, stages: Stages) -> bool:
        """Whether what is left of it is little beside what the others have cost."""
        return sum(step.macs for step in self._path[stages.start(self._path) :]) <= ASIDE * self._branched

    def is_awaited(self, waiting: Iterable[Path], stages: Stages) -> bool:
        """Whether one of these ways leaves it beyond what is stored."""
        return any(stages.start(path) < shared(path, self._path) for path in waiting)


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
