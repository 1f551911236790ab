"""A whole search of a recorded study, simulated: driver, log, outlook and workers put together."""

from collections.abc import Iterable
from dataclasses import dataclass

from search.driver import Driver, Listener, Outlook
from search.record import Laps
from search.simulated_run import Shelf
from search.simulated_workers import Clock, Conditions
from search.simulator import Result, Simulator
from spaces.path import Path, Step
from spaces.plan import Plan
from spaces.study import Study
from tracking.memory import MemoryLog
from trainables.foresight import retraining


class RecordOutlook:
    """What the driver may know of a plan beforehand, from what was recorded: its way and what it costs, exactly."""

    def __init__(self, source: Laps) -> None:
        self._source = source
        self._steps: dict[str, Step] = {}  # one object for all plans that pass it
        self._paths: dict[str, Path] = {}  # samplers ask again and again

    def check(self, study: Study) -> None:
        """Raises UserError where a plan of the study is not known."""
        self._source.check(study)

    def problem(self, plan: Plan) -> str | None:
        """Why the plan cannot be run as it stands."""
        return self._source.problem(plan)

    def path(self, plan: Plan) -> Path:
        """The boundaries that the plan passed."""
        name, steps = plan.hash, self._steps
        if name not in self._paths:
            self._paths[name] = tuple(
                steps.get(lap.key) or steps.setdefault(lap.key, Step(lap.key, lap.epochs, lap.events, lap.macs))
                for lap in self._source.laps(plan)
            )
        return self._paths[name]

    def retraining(self, plan: Plan) -> float:
        """The learning rates after a cut, summed, the mean over what is cut; 1 is the whole training at the largest."""
        return retraining(plan)


@dataclass(frozen=True)
class Simulated:
    """A simulated search that is over."""

    result: Result
    why_ended: str | None  # why fewer trials ran than asked for; None where all did


def simulate(
    study: Study,
    source: Laps,
    conditions: Conditions,
    *,
    outlook: Outlook,
    trials: int,
    clock: Clock,
    heard: Iterable[Listener] = (),
    shelf: Shelf | None = None,
) -> Simulated:
    """Search the study with `trials` pruned trials beside the baseline; `clock` shows virtual time to who listens.

    `outlook`: a `RecordOutlook` of the source, or the real one where the source trains. Raises UserError where the
    study cannot be run: not all of it is recorded, say. `shelf`: which boundaries trials find, by default all saved.
    """
    outlook.check(study)
    driver = Driver(study, MemoryLog(), outlook=outlook, trials=trials + 1, heard=heard, clock=clock)
    driver.open()
    result = Simulator(driver, source, conditions, clock=clock, shelf=shelf).run()
    driver.close("budget spent")
    return Simulated(result, driver.why_ended)
