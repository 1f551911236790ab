"""The record's twin that trains: a plan is run when it is first asked for, and remembered on disk.

For searches in virtual time over spaces that have no end, with real trials.
"""

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from search.record import Recorded
from search.recorded_lines import RecordedLines
from spaces.errors import TrialFailed
from spaces.lap import Lap
from spaces.plan import Plan, digest
from spaces.study import Study
from trainables.costing import Costing
from trainables.data import load_data
from trainables.keys import sources_digest
from trainables.lapped import LappedTrial
from trainables.store import StageStore


def train_laps(plan: Plan, store: StageStore, *, knows: Callable[[str], bool] = lambda key: True) -> Recorded:
    """Train the plan from its deepest stored boundary that `knows`, and say what it took.

    A plan that never prunes saves every epoch: others leave its way there.
    """
    began, failure = time.process_time(), None
    saves = frozenset(range(plan.train.epochs)) if plan.prune is None else frozenset()
    trial = LappedTrial(plan, store=store, saves=saves)
    while not trial.begins_anew and not knows(trial.begin.key):
        store.discard(trial.begin.key)
        trial = LappedTrial(plan, store=store, saves=saves)
    setup = time.process_time() - began
    try:
        while not trial.done:
            trial.step()
    except TrialFailed as error:
        failure = error.reason
    return Recorded(plan.hash, None if trial.begins_anew else trial.begin.key, tuple(trial.laps), setup, failure)


class TrainedRecord:
    """As `search.record.Record`, for any plan. Its folder holds the stages and a line for every trial."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where the folder cannot be written, or holds trials of other sources than today's."""
        self._store = StageStore(folder / "stages")
        self._lines = RecordedLines(folder / "trials.jsonl", digest([sources_digest(), version("torch")]))
        self._costing = Costing()
        self._ways: dict[str, tuple[Lap, ...]] = {}  # by boundary: all laps up to and including it
        self._ends: dict[str, tuple[Lap, ...]] = {}  # by plan
        for trial in self._lines.trials.values():
            self._take(trial)

    def __len__(self) -> int:
        return len(self._ends)

    def check(self, study: Study) -> None:
        """Raises UserError where the study's data is not there."""
        load_data(study.baseline().data, device="cpu")

    def problem(self, plan: Plan) -> str | None:
        """Why the plan cannot be run as it stands; None where it can."""
        return self._costing.problem(plan)

    def laps(self, plan: Plan) -> tuple[Lap, ...]:
        """Every boundary of the plan after boundary 0, in order; trained now if it never was, its trunk too."""
        if plan.hash not in self._ends:
            if plan.prune is not None:
                self.laps(plan.dense())
            trial = train_laps(plan, self._store, knows=self._ways.__contains__)
            self._lines.append(trial)
            self._take(trial)
        return self._ends[plan.hash]

    def failure(self, plan: Plan) -> str | None:
        """Why the trial broke after its last lap; None where it came to its end."""
        self.laps(plan)
        return self._lines.trials[plan.hash].failure

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()

    def _take(self, trial: Recorded) -> None:
        way = () if trial.begin is None else self._ways[trial.begin]
        for lap in trial.laps:
            way = self._ways.setdefault(lap.key, (*way, lap))
        self._ends[trial.plan_hash] = way
