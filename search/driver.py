"""The decision core of a search: which trial runs next, what its end means; every decision is in the event log first.

Plain Python with ask and tell. It knows nothing of Ray: a backend calls `next_trial` when it has room and says what
became of the trial. A resumed search gives the log to a new driver, which goes on where the old one stopped.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from search.accounts import Accounts
from search.adjustment import AdjustmentProposer
from search.agreement import Agreement
from search.bounds import broken, plan_problem
from search.proposer import Outcome, PassedOver, Proposal, Proposer
from search.stages import Path, Stages, shared
from search.stopper import Verdict, stopper_of
from search.trunk import Trunk, forks_of
from search.warm import Warmth
from spaces.errors import UserError
from spaces.metrics import METRICS
from spaces.plan import Plan
from spaces.study import Study
from tracking.events import Event, Kind

Listener = Callable[[Event], None]
Answer = Literal["wait", "over"]

RETRIES = 5  # of a trial whose worker died, on every backend; a trial that fails by itself is not tried again
UNKNOWN = Outcome()


class Outlook(Protocol):
    """What can be said about a plan before it is trained."""

    def check(self, study: Study) -> None:
        """Raises UserError where the study cannot be run on this machine: its data is not there, say."""
        ...

    def problem(self, plan: Plan) -> str | None:
        """Why the plan must not be proposed; None where it may."""
        ...

    def path(self, plan: Plan) -> Path:
        """The boundaries that the plan will pass, and what they cost."""
        ...

    def retraining(self, plan: Plan) -> float:
        """The learning rates after a cut, summed, the mean over what is cut; 1 is the whole training at the largest."""
        ...


class Log(Protocol):
    """Where facts are written before anyone acts on them: `tracking.log.EventLog`, or its twin in memory."""

    def append(self, event: Event) -> bool:
        """Whether the fact is new."""
        ...

    def events(self) -> tuple[Event, ...]:
        """Every fact so far."""
        ...


@dataclass(frozen=True)
class Assignment:
    """A trial for a worker.

    `saves`: epoch counts after which its boundary is saved for others. `heard`: the epoch count that the log knows it
    to be at, None where it has not begun. A worker that begins beyond that tells first of the epoch it begins after:
    the one before it may have died between saving and telling.
    """

    number: int
    plan: Plan
    saves: frozenset[int]
    heard: int | None = None


class Driver:
    """Hands out trials and hears of them. `open` before the first trial, `close` after the last."""

    def __init__(
        self,
        study: Study,
        log: Log,
        *,
        outlook: Outlook,
        trials: int,
        heard: Iterable[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`trials`: how many in all, the baseline included; `heard`: told of every event, once the log has it."""
        self._study, self._log, self._outlook, self._clock = study, log, outlook, clock
        self._trials = trials
        self._listeners = tuple(heard)
        self._proposer: Proposer | AdjustmentProposer = (
            Proposer(study, obstacle=self._obstacle, remaining=self._remaining, retraining=outlook.retraining)
            if study.adjust is None
            else AdjustmentProposer(study, study.adjust)
        )
        self._stopper = stopper_of(study)
        forks = forks_of(study, problem=self._obstacle, path=outlook.path)
        self._trunk = Trunk(forks, outlook.path(study.baseline()))
        self._stages, self._accounts = Stages(), Accounts()
        self._plans: list[Plan] = []  # by number
        self._hashes: list[str] = []  # of the plans: every event has one
        self._paths: dict[int, Path] = {}  # of trials that are not over
        self._rungs: dict[int, frozenset[int]] = {}  # epochs after which a trial is judged
        self._over: set[int] = set()
        self._running: set[int] = set()
        self._queue: list[int] = []  # proposed, not running: held back, set aside, or left from a killed search
        self._aside = False  # whether the baseline waits for its rest to be worth training
        self._saved: dict[int, frozenset[int]] = {}  # after which epochs a running trial saves
        self._deadline = math.inf
        self._overtime: str | None = None  # why no trial is begun any more
        self._used_up: str | None = None  # why no trial is proposed any more

    def open(self, *, warmth: Warmth | None = None) -> None:
        """Rebuild from the log, then write down that this search begins or goes on.

        `warmth`: what another search found; once is enough.
        """
        past = self._log.events()
        opened = next((event for event in past if event.kind == "opened"), None)
        if opened is not None and opened.body["fingerprint"] != self._study.fingerprint:
            raise UserError(
                f"study '{self._study.name}' was changed since its search began: what has run does not answer it; "
                "give it another name to begin anew"
            )
        said: dict[int, Event] = {}  # the last word of each trial
        for event in past:
            self._recall(event)
            if event.trial is not None:
                said[event.trial] = event
            for listener in self._listeners:
                listener(event)
        for number in sorted(self._running):
            if said[number].kind == "reported":
                self._judge(number, said[number].body)
        for number in self._running:
            self._stages.end(number)
        self._running.clear()
        self._queue = [number for number in range(len(self._plans)) if number not in self._over]
        if self._study.budget.minutes is not None:
            self._deadline = self._clock() + 60.0 * self._study.budget.minutes
        self._write("opened", body=self._opening())
        told = None if warmth is None else warmth.to_json()
        if told is not None and self._write("warmed", body=told):
            self._learn(told["trials"])

    def _learn(self, trials: Iterable[Mapping[str, Any]]) -> None:
        for trial in trials:
            self._proposer.learn(trial["choices"], trial["metrics"])

    def close(self, reason: Literal["budget spent", "interrupted"]) -> None:
        """Write down that no more trials follow in this run of the search."""
        self._write("closed", body={"reason": reason})

    # ---- what next --------------------------------------------------------------------------------------------------

    def next_trial(self, workers: int) -> Assignment | Answer:
        """A trial to run now on one of `workers`; "wait" until one ends or gets on; "over" for good."""
        if self._overtime is None and self._clock() >= self._deadline:
            self._overtime = f"{self._study.budget.minutes:g} minutes are over"
        while self._overtime is None and len(self._running) < workers:
            ready = next((number for number in self._queue if self._is_ready(number)), None)
            if ready is not None:
                return self._assign(ready)
            if len(self._running) + len(self._queue) - self._aside >= workers:
                break
            if not self._propose() and not self._take_up():
                break
        if self._aside and len(self._running) < workers:
            return self._assign(0)  # rather than idle
        return "wait" if self._running else "over"

    def _propose(self) -> bool:
        number = len(self._plans)
        if number >= self._trials or self._used_up is not None or self._proposer.waits(number):
            return False
        proposal = self._proposer.ask(number)
        if proposal is None:
            self._used_up = self._proposer.why_none
            return False
        body = {
            "plan": proposal.plan.model_dump(mode="json"),
            "choices": dict(proposal.choices),
            "passed_over": [offered.to_json() for offered in proposal.passed_over],
        }
        self._take(number, proposal.plan)
        self._queue.append(number)
        self._write("proposed", number, body)
        return True

    def _take(self, number: int, plan: Plan) -> None:
        self._plans.append(plan)
        self._hashes.append(plan.hash)
        self._paths[number] = self._outlook.path(plan)
        self._rungs[number] = self._stopper.enter(number, plan, self._paths[number])

    def _take_up(self) -> bool:
        """Queue a stopped trial that its rung would let go on by now: what is left when all plans were proposed."""
        number = next(iter(self._stopper.revived()), None)
        if number is None:
            return False
        self._reopen(number)
        self._queue.append(number)
        return True

    def _reopen(self, number: int) -> None:
        self._over.discard(number)
        self._paths[number] = self._outlook.path(self._plans[number])
        self._stopper.taken_up(number)

    def _remaining(self, plan: Plan) -> float:
        return self._stages.remaining(self._outlook.path(plan))

    def _obstacle(self, plan: Plan) -> str | None:
        return self._outlook.problem(plan) or plan_problem(self._study, plan)

    def _is_ready(self, number: int) -> bool:
        """Whether nothing is gained by waiting for a boundary that another trial is about to save."""
        if number == 0 and self._aside:
            return self._trunk.is_rest_due(self._stages)
        awaited = self._stages.awaited(self._paths[number])
        if awaited is None:
            return True
        other, theirs, ours = awaited
        return self._accounts.is_late(other, self._clock(), theirs=theirs, ours=ours)

    def _assign(self, number: int) -> Assignment:
        self._queue.remove(number)
        self._running.add(number)
        if number == 0:
            self._aside = False
        self._saved[number] = self._saves(number)
        self._stages.begin(number, self._paths[number], self._saved[number])
        return self.assignment(number)

    def assignment(self, number: int) -> Assignment:
        """What a worker is to do for a running trial; asked again where one died."""
        return Assignment(number, self._plans[number], self._saved[number], self._accounts.epochs(number))

    def _saves(self, number: int) -> frozenset[int]:
        """Where others may leave this trial's way: forks of its trunk, and where plans that wait part from it."""
        path = self._paths[number]
        trunk = [step.epochs for step in path if step.events == 0 and step.epochs in self._trunk.forks]
        parting = [path[common - 1].epochs for other in self._queue if (common := shared(path, self._paths[other]))]
        return frozenset((*trunk, *parting, *self._rungs[number]))

    # ---- what became of it ------------------------------------------------------------------------------------------

    def started(self, number: int, *, node: str, from_epoch: int) -> None:
        """A worker has set the trial up and goes on from a stored boundary."""
        saves = self._saved[number]
        attempt = self._accounts.begin(number, self._clock(), from_epoch=from_epoch)
        self._stages.begin(number, self._paths[number], saves)  # anew, where an attempt died
        body = {"attempt": attempt, "node": node, "from_epoch": from_epoch, "saves": sorted(saves)}
        self._write("started", number, body)

    def reported(self, number: int, metrics: Mapping[str, Any]) -> Verdict:
        """An epoch is over, and not the last. After "stop" the backend ends this run of the trial."""
        charged = self._accounts.charged(number, metrics)
        self._write("reported", number, charged)
        self._advance(number, charged, self._clock())
        return self._judge(number, charged)

    def _judge(self, number: int, charged: Mapping[str, Any]) -> Verdict:
        """What follows from a report in the log; asked again where a killed search did not come to act on it."""
        epoch = int(charged["epoch"])
        verdict = self._stopper.heard(number, epoch, charged)
        if number == 0 and self._may_rest(epoch):
            self._write("paused", 0, {"epoch": epoch, "reason": "no other trial needs the rest of it yet"})
            self._pause()
            return "stop"
        reason = self._broken(number, charged)
        if reason is not None:
            self._write("stopped", number, {**charged, "by": "constraint", "reason": reason})
            self._end(number, Outcome(widths=charged))
            return "stop"
        if verdict == "stop":
            self._write("stopped", number, {**charged, "by": "rank", "reason": "others at its rung are ahead"})
            self._leave(number)
        return verdict

    def finished(self, number: int, metrics: Mapping[str, Any]) -> None:
        """The last epoch is over."""
        charged = self._accounts.charged(number, metrics)
        self._write("finished", number, charged)
        self._advance(number, charged, self._clock())
        self._end(number, Outcome(charged))

    def failed(self, number: int, *, epoch: int, reason: str) -> None:
        """The trial cannot go on; the search does."""
        self._write("failed", number, {"epoch": epoch, "reason": reason})
        self._end(number, Outcome())

    @property
    def is_over(self) -> bool:
        """Whether no trial is left to run."""
        return len(self._over) == len(self._plans) >= self._trials and not self._stopper.revived()

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """How well rungs foretold the end, by recovery; empty where the study has no rung."""
        return self._stopper.rank_correlations()

    @property
    def why_ended(self) -> str | None:
        """Why fewer trials ran than the budget allows; None where they all did."""
        return self._overtime or self._used_up

    def _may_rest(self, epoch: int) -> bool:
        """Whether the baseline is at a fork beyond which no trial waits for it: one that comes later trains that."""
        is_last = len(self._over) + 1 >= self._trials
        if epoch not in self._trunk.forks or is_last or self._trunk.is_rest_due(self._stages):
            return False
        waiting = [path for number, path in self._paths.items() if number not in self._running]
        return not self._trunk.is_awaited(waiting, self._stages)

    def _pause(self) -> None:
        self._stages.end(0)
        self._running.discard(0)
        self._aside = True
        self._queue.insert(0, 0)

    def _broken(self, number: int, metrics: Mapping[str, Any]) -> str | None:
        """The constraint that the trial can meet no more; its widths are final after its last event."""
        path = self._paths[number]
        is_final = number > 0 and metrics.get("events", 0) == path[-1].events
        return broken(self._study, metrics) if is_final else None

    def _advance(self, number: int, metrics: Mapping[str, Any], now: float) -> None:
        self._accounts.report(number, metrics, now)
        self._stages.reach(number, int(metrics["epoch"]))
        self._proposer.watch(number, metrics)

    def _end(self, number: int, outcome: Outcome) -> None:
        """A trial is over for good."""
        if number:
            self._trunk.left_by(self._paths[number])
        self._stopper.ended(number, outcome.metrics)
        self._leave(number, outcome)

    def _leave(self, number: int, outcome: Outcome = UNKNOWN) -> None:
        """A trial is over, unless it is taken up again."""
        self._running.discard(number)
        self._over.add(number)
        self._stages.end(number)
        self._paths.pop(number)
        self._proposer.tell(number, outcome)

    # ---- the log ----------------------------------------------------------------------------------------------------

    def _write(self, kind: Kind, number: int | None = None, body: Mapping[str, Any] | None = None) -> bool:
        """Whether the fact is new."""
        event = Event(kind, number, None if number is None else self._hashes[number], dict(body or {}))
        is_new = self._log.append(event)  # a retry repeats epochs that were reported before
        if is_new:
            for listener in self._listeners:
                listener(event)
        return is_new

    def _recall(self, event: Event) -> None:
        """Take up one fact of an earlier run, exactly as if it happened now."""
        if event.kind == "warmed":
            self._learn(event.body["trials"])
        number = event.trial
        if number is None:
            return
        match event.kind:
            case "proposed":
                plan = Plan.model_validate(event.body["plan"])
                passed = tuple(PassedOver(**offered) for offered in event.body.get("passed_over", ()))
                self._take(number, plan)
                self._proposer.repeat(Proposal(number, plan, event.body["choices"], passed))
            case "started":
                if number in self._over:
                    self._reopen(number)
                self._accounts.begin(number, event.time, from_epoch=int(event.body["from_epoch"]))
                self._stages.begin(number, self._paths[number], event.body.get("saves", ()))
                self._running.add(number)
                self._aside = self._aside and number > 0
            case "reported":
                self._advance(number, event.body, event.time)
                self._stopper.heard(number, int(event.body["epoch"]), event.body)
            case "paused":
                self._pause()
            case "finished":
                self._advance(number, event.body, event.time)
                self._end(number, Outcome(event.body))
            case "stopped" if event.body["by"] == "constraint":
                self._end(number, Outcome(widths=event.body))
            case "stopped":
                self._leave(number)
            case "failed":
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
