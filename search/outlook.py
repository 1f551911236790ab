"""What the driver may know of a plan before it is trained, from the schedules and the traced dense network."""

import random
from collections import Counter

from spaces.errors import UserError
from spaces.plan import Plan
from spaces.study import Study
from trainables.costing import Costing, fork_epoch
from trainables.data import load_data

SAMPLES = 256  # random plans of a study: enough to meet every fork that a search is likely to propose


class TorchOutlook:
    """Answers from `trainables.costing`; what the plans of a study have in common is built once."""

    def __init__(self) -> None:
        self._costing = Costing()

    def check(self, study: Study) -> None:
        """Load the baseline's data, and look at plans: nobody should wait for Ray to hear that a folder is missing."""
        load_data(study.baseline().data, device="cpu")
        self.forks(study)

    def problem(self, plan: Plan) -> str | None:
        """No event, or an amount out of reach. Raises UserError where the data is not there."""
        return self._costing.problem(plan)

    def fork(self, plan: Plan) -> int:
        """Epochs before the first event."""
        return fork_epoch(plan)

    def forks(self, study: Study) -> frozenset[int]:
        """Of random plans that share the baseline's training. Raises UserError when no plan can be run."""
        rng = random.Random(study.budget.seed)
        baseline = study.baseline().hash
        problems: Counter[str] = Counter()
        forks = set()
        for _ in range(SAMPLES):
            plan = study.plan(study.sample(rng))
            problem = self.problem(plan)
            if problem is not None:
                problems[problem] += 1
            elif plan.prune is not None and plan.dense().hash == baseline:
                forks.add(fork_epoch(plan))
        if problems.total() == SAMPLES:
            raise UserError(f"no plan of this study can be run: {problems.most_common(1)[0][0]}", file=study.file)
        return frozenset(forks)
