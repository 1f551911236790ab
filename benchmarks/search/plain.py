"""A plain search in virtual time: an opponent proposes, K workers train every trial from nothing, all is charged.

The workers and their clock are those of `search.simulator`, so that both sides are timed and charged alike. In favour
of the opponents: what cannot be run as it stands (an amount out of reach, no event) costs nothing and does not count
as a trial; and no dense baseline is charged to them.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.search.opponents import Opponent
from search.driver import Answer, Assignment, Verdict
from search.record import Laps
from search.simulated_run import OwnShelf
from search.simulated_workers import Clock, Conditions
from search.simulator import Result, Simulator
from spaces.errors import UserError
from spaces.plan import Plan
from spaces.study import Study

ATTEMPTS = 1000  # proposals in a row that cannot be run before an opponent counts as done


class PlainSearch:
    """Gives an opponent's proposals to workers as they become free; it waits for nobody and shares nothing."""

    def __init__(self, study: Study, opponent: Opponent, source: Laps, *, trials: int, macs: int | None) -> None:
        """Until `trials` were begun, or training MACs `macs` were executed."""
        self._study, self._opponent, self._source = study, opponent, source
        self._left, self._macs = trials, macs
        self._asked = 0
        self._given: dict[int, Assignment] = {}
        self._spent: dict[int, int] = {}  # training MACs by trial
        self.stopped_at: dict[int, int] = {}  # trial: the epoch

    def next_trial(self, workers: int) -> Assignment | Answer:
        """The opponent's next proposal that can be run."""
        if self._left < 1 or (self._macs is not None and sum(self._spent.values()) >= self._macs):
            return "over"
        for _ in range(ATTEMPTS):
            choices = self._opponent.ask()
            if choices is None:
                break
            number, self._asked = self._asked, self._asked + 1
            plan = self._runnable(choices)
            if plan is not None:
                self._left -= 1
                self._given[number] = Assignment(number, plan, frozenset())
                return self._given[number]
            self._opponent.tell(number, None)
        self._left = 0
        return "over"

    def _runnable(self, choices: Mapping[str, Any]) -> Plan | None:
        try:
            plan = self._study.plan(choices)
        except UserError:
            return None
        return None if self._source.problem(plan) is not None else plan

    def assignment(self, number: int) -> Assignment:
        """As it was given: nothing is saved that a next attempt could begin at."""
        return self._given[number]

    def started(self, number: int, *, node: str, from_epoch: int) -> None:
        """Nothing to note."""

    def reported(self, number: int, metrics: Mapping[str, Any]) -> Verdict:
        """Whether to go on is the opponent's to say; a stopped trial is over for good."""
        self._spent[number] = metrics["training_macs"]
        verdict = self._opponent.report(number, metrics["epoch"], metrics)
        if verdict == "stop":
            self.stopped_at[number] = metrics["epoch"]
            self._opponent.tell(number, metrics)
        return verdict

    def finished(self, number: int, metrics: Mapping[str, Any]) -> None:
        """The last epoch is reported like every other."""
        self._spent[number] = metrics["training_macs"]
        self._opponent.report(number, metrics["epoch"], metrics)
        self._opponent.tell(number, metrics)

    def failed(self, number: int, *, epoch: int, reason: str) -> None:
        """The trial broke."""
        self._opponent.tell(number, None)


def run_plain(
    study: Study,
    opponent: Opponent,
    source: Laps,
    *,
    trials: int,
    conditions: Conditions,
    macs: int | None = None,
) -> Result:
    """Search the study as the opponent would; `finishes` of the result are its full-length trials, in order.

    An opponent that stops trials early may be given more of them, and `macs`, training MACs after which none is begun.
    """
    search = PlainSearch(study, opponent, source, trials=trials, macs=macs)
    return Simulator(search, source, conditions, clock=Clock(), shelf=OwnShelf()).run()
