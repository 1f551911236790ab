"""What to try next: Optuna behind ask and tell, so that proposal n depends on (study seed, n, log) and nothing else.

Does NOT cover when a proposal may run, nor where (`search.driver`).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from search.bounds import excess
from search.foreknowledge import Foreknowledge
from search.sampling.bases import base_named
from search.sampling.repeatable import RepeatableSampler, distribution_of, from_optuna, seed_of
from search.sampling.sampler import GainPerCost
from spaces.domains import Value
from spaces.metrics import METRICS
from spaces.plan import Plan
from spaces.study import Study

ATTEMPTS = 200  # asks for one proposal before the space counts as used up
TIMELESS = ("prune.criterion", "prune.allocation")  # settings that say what is cut, and neither when nor what follows
REMEMBERED = 4096  # covariates: a sampler asks for hundreds of plans each time, and many differ in what is cut alone
LEAST_RETRAINING = 0.01  # of a whole training: less counts as so much
PLAN = "plan"  # the constraint that a plan breaks which cannot be run as it stands


@dataclass(frozen=True)
class PassedOver:
    """What the sampler offered and nobody ran: a plan proposed before, or one that cannot be run as it stands."""

    choices: Mapping[str, Any]
    same_as: int | None = None  # number of the proposal with this plan, which shares its result
    obstacle: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For the event log."""
        reason = {"same_as": self.same_as} if self.same_as is not None else {"obstacle": self.obstacle}
        return {"choices": dict(self.choices), **reason}


@dataclass(frozen=True)
class Proposal:
    """Proposal `number` (0: the dense baseline) and what was passed over on the way to it."""

    number: int
    plan: Plan
    choices: Mapping[str, Any] = field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: the last epoch's metrics, or None when it was stopped or broke.

    `widths`: what is known of one that was stopped because its final widths break a constraint.
    """

    metrics: Mapping[str, float] | None = None
    widths: Mapping[str, float] | None = None


class Proposer:
    """Asks Optuna for plans and tells it how they did, in an order that a log can repeat."""

    def __init__(
        self,
        study: Study,
        *,
        obstacle: Callable[[Plan], str | None] = lambda plan: None,
        remaining: Callable[[Plan], float] = lambda plan: 1.0,
        retraining: Callable[[Plan], float] = lambda plan: 1.0,
    ) -> None:
        """`obstacle`: why a plan cannot be run as it stands (no event, an unreachable target); None where it can.

        Only the sampler `gain` asks for `remaining`, training MACs that a plan would still cost, and for `retraining`,
        how much of its training comes after what it cuts.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study, self._obstacle, self._remaining, self._retraining = study, obstacle, remaining, retraining
        self._domains = {parameter.path: parameter.domain for parameter in study.parameters}
        self._distributions = {path: distribution_of(domain) for path, domain in self._domains.items()}
        self._foreknowledge = Foreknowledge(study)
        self._timing = [path for path in self._domains if not path.startswith(TIMELESS)]
        self._covariates_of: dict[tuple[Any, ...] | None, tuple[float, ...]] = {}
        self._sampler = RepeatableSampler(self._base(), self._domains)
        directions = [METRICS[metric].direction for metric in study.objectives]
        self._optuna = optuna.create_study(directions=directions, sampler=self._sampler)
        self._numbers: dict[str, int] = {}  # plan hash: number
        self._outcomes: dict[int, Outcome] = {}
        self._choices: dict[int, Mapping[str, Any]] = {}  # of proposals that have no result
        self._waiting: dict[int, list[Trial]] = {}  # number: Optuna's trials that will be told how it ended

    def waits(self, number: int) -> bool:
        """Whether proposal `number` cannot be made before another trial ends: never."""
        return False

    def ask(self, number: int) -> Proposal | None:
        """Proposal `number`: the baseline first, then what the sampler says; None when it says nothing new."""
        if number == 0:
            return self.repeat(Proposal(0, self._study.baseline()))
        passed: list[PassedOver] = []
        for attempt in range(ATTEMPTS):
            self._sampler.reseed(seed_of(self._study.budget.seed, number, attempt))
            trial = self._optuna.ask(self._distributions)
            choices = self._choices_of(trial.params)
            plan = self._study.plan(choices)
            offered = self._judged(plan, choices)
            if offered is None:
                self._note(number, plan, choices, trial)
                return Proposal(number, plan, choices, tuple(passed))
            self._pass_over(offered, trial)
            passed.append(offered)
        return None

    @property
    def why_none(self) -> str:
        """Why `ask` had no proposal."""
        return f"the space is used up: {len(self._numbers)} plans were all that could be found"

    def repeat(self, proposal: Proposal) -> Proposal:
        """Take up a proposal that was made before, as a log tells it."""
        for offered in proposal.passed_over:
            self._pass_over(offered, self._asked_again(offered.choices))
        # The baseline lies outside the space, so Optuna does not hear of it.
        trial = self._asked_again(proposal.choices) if proposal.number else None
        self._note(proposal.number, proposal.plan, proposal.choices, trial)
        return proposal

    def tell(self, number: int, outcome: Outcome) -> None:
        """How proposal `number` ended; whoever proposed the same plan is told the same."""
        self._outcomes[number] = outcome
        if outcome.metrics is not None:
            self._foreknowledge.hear(outcome.metrics, dense=number == 0)
        again = number not in self._waiting  # it was stopped, taken up, and has ended now
        for trial in self._waiting.pop(number, ()) if not again else (self._asked_again(self._choices[number]),):
            self._tell(trial, outcome)
        if outcome.metrics is not None:
            self._choices.pop(number, None)

    def watch(self, number: int, metrics: Mapping[str, float]) -> None:
        """How far proposal `number` has come."""
        if number == 0:
            self._foreknowledge.watch(metrics)

    def learn(self, choices: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Take in how a plan did in another study."""
        self._tell(self._asked_again(choices), Outcome(metrics))

    def _base(self) -> BaseSampler:
        budget, foreknowledge = self._study.budget, self._foreknowledge
        if budget.sampler != "gain":
            return base_named(budget.sampler)
        return GainPerCost(
            budget.base,
            space=self._distributions,
            cost=self._cost,
            known=foreknowledge.known,
            active=foreknowledge.active,
            scales=foreknowledge.scales,
            reference=foreknowledge.reference,
            limit=foreknowledge.limit,
            covariates=self._covariates,
            haste=budget.haste,
        )

    def _cost(self, params: Mapping[str, Any]) -> float:
        """Training MACs; infinite for what would only be passed over."""
        choices = self._choices_of(params)
        plan = self._study.plan(choices)
        if self._judged(plan, choices) is not None:
            return math.inf
        return self._remaining(plan) or math.inf  # nothing is left to train where its settings say what others' said

    def _covariates(self, params: Mapping[str, Any] | None) -> tuple[float, ...]:
        """How much of a plan's training follows its cuts, as a logarithm: twice as much is always worth alike.

        The dense network, which every plan comes near to, has all of it.
        """
        values = None if params is None else tuple(params[path] for path in self._timing)
        if values not in self._covariates_of:
            plan = self._study.baseline() if params is None else self._study.plan(self._choices_of(params))
            if len(self._covariates_of) >= REMEMBERED:
                self._covariates_of.clear()
            self._covariates_of[values] = (math.log(self._retraining(plan) + LEAST_RETRAINING),)
        return self._covariates_of[values]

    def _choices_of(self, params: Mapping[str, Any]) -> dict[str, Value]:
        return {path: from_optuna(domain, params[path]) for path, domain in self._domains.items()}

    def _judged(self, plan: Plan, choices: Mapping[str, Any]) -> PassedOver | None:
        if plan.hash in self._numbers:
            return PassedOver(choices, same_as=self._numbers[plan.hash])
        reason = self._obstacle(plan)
        return None if reason is None else PassedOver(choices, obstacle=reason)

    def _asked_again(self, choices: Mapping[str, Any]) -> Trial:
        self._sampler.repeat(choices)
        return self._optuna.ask(self._distributions)

    def _note(self, number: int, plan: Plan, choices: Mapping[str, Any], trial: Trial | None) -> None:
        self._numbers[plan.hash] = number
        self._choices[number] = choices
        self._waiting[number] = [] if trial is None else [trial]

    def _pass_over(self, offered: PassedOver, trial: Trial) -> None:
        if offered.same_as is None:
            self._constrain(trial, {**dict.fromkeys(self._violations(None), 0.0), PLAN: 1.0})
            self._optuna.tell(trial, state=TrialState.PRUNED)
        elif offered.same_as in self._outcomes:
            self._tell(trial, self._outcomes[offered.same_as])
        else:
            self._waiting[offered.same_as].append(trial)

    def _tell(self, trial: Trial, outcome: Outcome) -> None:
        self._constrain(trial, {**self._violations(outcome.metrics or outcome.widths), PLAN: 0.0})
        if outcome.widths is not None:
            self._optuna.tell(trial, state=TrialState.PRUNED)
        elif outcome.metrics is None:
            self._optuna.tell(trial, state=TrialState.FAIL)
        else:
            self._optuna.tell(trial, [float(outcome.metrics[name]) for name in self._study.objectives])

    def _constrain(self, trial: Trial, violations: Mapping[str, float]) -> None:
        """Every told trial carries every constraint: one that lacks them would count as feasible."""
        for name, amount in violations.items():
            trial.set_constraint(name, amount)

    def _violations(self, metrics: Mapping[str, float] | None) -> dict[str, float]:
        """How far each bound is passed, relative to the bound; 0 or less is within, 1 where nothing is known."""
        return dict(self._each_violation(metrics))

    def _each_violation(self, metrics: Mapping[str, float] | None) -> Iterator[tuple[str, float]]:
        for metric, bounds in self._study.constraints.items():
            for side, bound in bounds.items():
                value = None if metrics is None else metrics.get(metric)
                yield f"{metric} {side}", 1.0 if value is None else excess(value, side, bound)
