"""What the driver may know of a plan before it is trained, from the schedules and the traced dense network."""

from search.trunk import forks_of
from spaces.path import Path
from spaces.plan import Plan
from spaces.study import Study
from trainables.costing import Costing
from trainables.data import load_data
from trainables.foresight import retraining

REMEMBERED = 512  # paths, those asked for last: the forks' random plans, and what samplers come back to


class TorchOutlook:
    """Answers from `trainables.costing`; what the plans of a study have in common is built once."""

    def __init__(self) -> None:
        self._costing = Costing()
        self._paths: dict[str, Path] = {}  # by plan hash, the one asked for last at the end

    def check(self, study: Study) -> None:
        """Load the baseline's data, and look at plans: nobody should wait for Ray to hear that a folder is missing."""
        load_data(study.baseline().data, device="cpu")
        forks_of(study, problem=self.problem, path=self.path)

    def problem(self, plan: Plan) -> str | None:
        """No event, or an amount out of reach. Raises UserError where the data is not there."""
        return self._costing.problem(plan)

    def path(self, plan: Plan) -> Path:
        """The boundaries that the plan will pass, and what they cost."""
        name = plan.hash
        path = self._paths.pop(name, None) or self._costing.path(plan)
        self._paths[name] = path
        if len(self._paths) > REMEMBERED:
            del self._paths[next(iter(self._paths))]
        return path

    def retraining(self, plan: Plan) -> float:
        """The learning rates after a cut, summed, the mean over what is cut; 1 is the whole training at the largest."""
        return retraining(plan)
