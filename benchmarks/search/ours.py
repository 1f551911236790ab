"""Our own search in virtual time, whole and with one part left out at a time."""

from dataclasses import dataclass

from search.driver import Outlook
from search.record import Laps
from search.simulated_run import OwnShelf, Shelf
from search.simulated_workers import Clock, Conditions
from search.simulation import simulate
from search.simulator import Result
from search.stages import Path, Step
from spaces.plan import Plan
from spaces.study import Study


@dataclass(frozen=True)
class Way:
    """One way to search: what it changes in a study, and whether trials find each other's boundaries."""

    name: str
    overrides: tuple[str, ...] = ()
    stages: str = "shared"  # or "own"


GAIN = "budget.sampler=gain"
OURS = Way("ours", (GAIN,))
WAYS = (
    OURS,
    Way("ours without sharing", (GAIN,), "own"),
    Way("ours without a model (TPE proposes)", ("budget.sampler=tpe",)),
    Way("ours blind to cost", (GAIN, "budget.haste=0")),
    Way("ours at full haste", (GAIN, "budget.haste=1")),
    Way("ours with stopping", (GAIN, "stopper.name=front")),
)
KEEPS = "keeps: {from: 0.4, to: 1.0, size: 4}"
FUR = f"{{name: fur, strength: {{from: 0.0, to: 1.0}}, reprobe: 1.0, {KEEPS}}}"
GUIDED = Way(
    "ours guided by utilization ratios",
    (GAIN, f"prune.allocation={{choices: [global, uniform, {{name: given, {KEEPS}}}, {FUR}]}}"),
)


class OwnStages:
    """An outlook that sees no boundary of one plan in another."""

    def __init__(self, outlook: Outlook) -> None:
        self._outlook = outlook
        self.check, self.problem, self.retraining = outlook.check, outlook.problem, outlook.retraining

    def path(self, plan: Plan) -> Path:
        """The way, under keys that are the plan's alone."""
        return tuple(Step(f"{plan.hash} {s.key}", s.epochs, s.events, s.macs) for s in self._outlook.path(plan))


def run_ours(study: Study, way: Way, source: Laps, outlook: Outlook, *, trials: int, conditions: Conditions) -> Result:
    """Search with `trials` pruned trials beside the dense baseline, which is charged as well.

    `study` has the overrides of the way.
    """
    shelf: Shelf | None = None
    if way.stages == "own":
        outlook, shelf = OwnStages(outlook), OwnShelf()
    return simulate(study, source, conditions, outlook=outlook, trials=trials, clock=Clock(), shelf=shelf).result
