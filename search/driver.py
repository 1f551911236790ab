"""The decision core of a search: which trial runs next, what its end means; every decision is in the event log first.

Plain Python with ask and tell. It knows nothing of Ray: a backend calls `next_trial` when it has room and says what
became of the trial. A resumed search gives the log to a new driver, which goes on where the old one stopped.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from search.proposer import Outcome, PassedOver, Proposal, Proposer
from spaces.errors import UserError
from spaces.metrics import METRICS
from spaces.plan import Plan
from spaces.study import Study
from tracking.events import Event, Kind
from tracking.log import EventLog

Listener = Callable[[Event], None]
Answer = Literal["wait", "over"]


class Outlook(Protocol):
    """What can be said about a plan before it is trained."""

    def check(self, study: Study) -> None:
        """Raises UserError where the study cannot be run on this machine: its data is not there, say."""
        ...

    def problem(self, plan: Plan) -> str | None:
        """Why the plan must not be proposed; None where it may."""
        ...

    def fork(self, plan: Plan) -> int:
        """How many epochs it shares with the dense baseline; all of its epochs where it never prunes."""
        ...

    def forks(self, study: Study) -> frozenset[int]:
        """The epoch counts at which the baseline of the study must be saved."""
        ...


@dataclass(frozen=True)
class Assignment:
    """A trial for a worker; `saves`: epoch counts after which its boundary is saved for others."""

    number: int
    plan: Plan
    saves: frozenset[int]


class Driver:
    """Hands out trials and hears of them. `open` before the first trial, `close` after the last."""

    def __init__(
        self, study: Study, log: EventLog, *, outlook: Outlook, trials: int, heard: Iterable[Listener] = ()
    ) -> None:
        """`trials`: how many in all, the baseline included; `heard`: told of every event, once the log has it."""
        self._study, self._log, self._outlook = study, log, outlook
        self._trials = trials
        self._listeners = tuple(heard)
        self._proposer = Proposer(study, obstacle=outlook.problem)
        self._baseline = study.baseline()
        self._forks = outlook.forks(study)
        self._plans: list[Plan] = []  # by number
        self._over: set[int] = set()
        self._running: dict[int, Plan] = {}
        self._queue: list[int] = []  # proposed, not yet running: held back, or left over from a killed search
        self._attempts: dict[int, int] = {}
        self._spent: dict[int, int] = {}  # training MACs of a trial so far, those of attempts that died among them
        self._lost: dict[int, int] = {}  # training MACs of a trial's earlier attempts
        self._trunk = 0  # epochs of the baseline that are done
        self._deadline = math.inf
        self._ended: str | None = None

    def open(self) -> None:
        """Rebuild from the log, then write down that this search begins or goes on."""
        past = self._log.events()
        opened = next((event for event in past if event.kind == "opened"), None)
        if opened is not None and opened.body["fingerprint"] != self._study.fingerprint:
            raise UserError(
                f"study '{self._study.name}' was changed since its search began: what has run does not answer it; "
                "give it another name to begin anew"
            )
        for event in past:
            self._recall(event)
            for listener in self._listeners:
                listener(event)
        self._queue = [number for number in range(len(self._plans)) if number not in self._over]
        if self._study.budget.minutes is not None:
            self._deadline = time.monotonic() + 60.0 * self._study.budget.minutes
        self._write("opened", body=self._opening())

    def close(self, reason: Literal["budget spent", "interrupted"]) -> None:
        """Write down that no more trials follow in this run of the search."""
        self._write("closed", body={"reason": reason})

    # ---- what next ------------------------------------------------------------------------------------------------

    def next_trial(self, workers: int) -> Assignment | Answer:
        """A trial to run now on one of `workers`; "wait" until one ends or the baseline gets on; "over" for good."""
        if self._ended is None and time.monotonic() >= self._deadline:
            self._ended = f"{self._study.budget.minutes:g} minutes are over"
        if self._ended is not None:
            return "wait" if self._running else "over"
        while len(self._running) < workers:
            ready = next((number for number in self._queue if self._is_ready(self._plans[number])), None)
            if ready is not None:
                self._queue.remove(ready)
                return self._assign(ready)
            if len(self._running) + len(self._queue) >= workers or not self._propose():
                break
        return "wait" if self._running or self._queue else "over"

    def _propose(self) -> bool:
        number = len(self._plans)
        if number >= self._trials:
            return False
        proposal = self._proposer.ask(number)
        if proposal is None:
            self._ended = f"the space is used up: {number} plans were all that could be found"
            return False
        body = {
            "plan": proposal.plan.model_dump(mode="json"),
            "choices": dict(proposal.choices),
            "passed_over": [offered.to_json() for offered in proposal.passed_over],
        }
        self._plans.append(proposal.plan)
        self._queue.append(number)
        self._write("proposed", number, body)
        return True

    def _is_ready(self, plan: Plan) -> bool:
        """Whether nothing is gained by waiting: the baseline is past the fork, or will never get there.

        The baseline trains the very epochs that this plan would, and is ahead: to wait is never slower than to train
        them again.
        """
        if 0 in self._over or 0 not in self._running or plan.dense().hash != self._baseline.hash:
            return True
        fork = self._outlook.fork(plan)
        return fork not in self._forks or self._trunk >= fork

    def _assign(self, number: int) -> Assignment:
        plan = self._plans[number]
        self._running[number] = plan
        return Assignment(number, plan, self._forks if number == 0 else frozenset({self._outlook.fork(plan)}))

    # ---- what became of it ------------------------------------------------------------------------------------------

    def started(self, number: int, *, node: str, from_epoch: int) -> None:
        """A worker has set the trial up and goes on from a stored boundary."""
        self._attempts[number] = self._attempts.get(number, 0) + 1
        self._lost[number] = self._spent.get(number, 0)
        self._write("started", number, {"attempt": self._attempts[number], "node": node, "from_epoch": from_epoch})

    def reported(self, number: int, metrics: Mapping[str, Any]) -> None:
        """An epoch is over."""
        charged = self._charged(number, metrics)
        self._write("reported", number, charged)
        self._advance(number, charged)

    def finished(self, number: int, metrics: Mapping[str, Any]) -> None:
        """The last epoch is over."""
        charged = self._charged(number, metrics)
        self._write("finished", number, charged)
        self._end(number, Outcome(charged))

    def failed(self, number: int, *, epoch: int, reason: str) -> None:
        """The trial cannot go on; the search does."""
        self._write("failed", number, {"epoch": epoch, "reason": reason})
        self._end(number, Outcome())

    @property
    def is_over(self) -> bool:
        """Whether no trial is left to run."""
        return len(self._over) == len(self._plans) >= self._trials

    @property
    def why_ended(self) -> str | None:
        """Why fewer trials ran than the budget allows; None where they all did."""
        return self._ended

    def _charged(self, number: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Metrics whose training MACs are everything the trial executed, in attempts that died too."""
        spent = metrics.get("training_macs")
        return {**metrics} if spent is None else {**metrics, "training_macs": spent + self._lost.get(number, 0)}

    def _advance(self, number: int, metrics: Mapping[str, Any]) -> None:
        self._spent[number] = int(metrics.get("training_macs", 0))
        if number == 0:
            self._trunk = max(self._trunk, int(metrics["epoch"]))

    def _end(self, number: int, outcome: Outcome) -> None:
        self._running.pop(number, None)
        self._over.add(number)
        self._proposer.tell(number, outcome)

    # ---- the log ----------------------------------------------------------------------------------------------------

    def _write(self, kind: Kind, number: int | None = None, body: Mapping[str, Any] | None = None) -> None:
        plan = None if number is None else self._plans[number]
        event = Event(kind, number, None if plan is None else plan.hash, dict(body or {}))
        if self._log.append(event):  # a retry repeats epochs that were reported before
            for listener in self._listeners:
                listener(event)

    def _recall(self, event: Event) -> None:
        """Take up one fact of an earlier run, exactly as if it happened now."""
        number = event.trial
        if number is None:
            return
        match event.kind:
            case "proposed":
                plan = Plan.model_validate(event.body["plan"])
                passed = tuple(PassedOver(**offered) for offered in event.body.get("passed_over", ()))
                self._plans.append(plan)
                self._proposer.repeat(Proposal(number, plan, event.body["choices"], passed))
            case "started":
                self._attempts[number] = event.body["attempt"]
                self._lost[number] = self._spent.get(number, 0)
            case "reported":
                self._advance(number, event.body)
            case "finished":
                self._end(number, Outcome(event.body))
            case "failed" | "stopped":
                self._end(number, Outcome())

    def _opening(self) -> dict[str, Any]:
        study = self._study
        return {
            "study": study.name,
            "fingerprint": study.fingerprint,
            "objectives": {metric: METRICS[metric].direction for metric in study.objectives},
            "constraints": {metric: dict(bounds) for metric, bounds in study.constraints.items()},
            "seed": study.budget.seed,
        }
