"""Network adjustment as a proposer: trial n + 1 is the network of trial n with its widths moved, trained from scratch.

It asks nobody and draws nothing: what a trial measured decides the next one, so that a log says it all. Trial 0 has
the study's own widths and sets the MACs. Does NOT cover the numbers (`search.widths`).
"""

from collections.abc import Mapping
from typing import Any

from search.proposer import Outcome, Proposal
from search.widths import Measured, Widths, moved, rescaled
from spaces.plan import Plan
from spaces.study import Adjust, Study


class AdjustmentProposer:
    """Proposes one trial after the other, in the same way as `Proposer`."""

    def __init__(self, study: Study, settings: Adjust) -> None:
        self._baseline, self._settings = study.baseline(), settings
        self._measured: dict[int, Measured | None] = {}  # of trials that ended
        self._why = ""

    def waits(self, number: int) -> bool:
        """Whether proposal `number` cannot be made before the trial before it ends."""
        return number > 0 and number - 1 not in self._measured

    def ask(self, number: int) -> Proposal | None:
        """Proposal `number`; None, for good, when no widths follow from the trial before: `why_none` says why."""
        if number == 0:
            return Proposal(0, self._baseline)
        widths = self._widths(number)
        if isinstance(widths, str):
            self._why = widths
            return None
        return Proposal(number, self._with(widths))

    @property
    def why_none(self) -> str:
        """Why the last `ask` had no proposal."""
        return self._why

    def repeat(self, proposal: Proposal) -> Proposal:
        """Take up a proposal that was made before, as a log tells it: how it ended is all that counts."""
        return proposal

    def learn(self, choices: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Nothing: no choice is made here."""

    def watch(self, number: int, metrics: Mapping[str, float]) -> None:
        """Nothing: only the end counts."""

    def tell(self, number: int, outcome: Outcome) -> None:
        """How proposal `number` ended."""
        self._measured[number] = None if outcome.metrics is None else Measured.read(outcome.metrics)

    def _widths(self, number: int) -> Widths | str:
        """What follows from the trial before, or why nothing does."""
        first, last = self._measured[0], self._measured[number - 1]
        if first is None or last is None:
            return f"trial {number - 1} has no utilization ratios, which the next one goes by"
        goal = first.macs(first.widths)
        wanted = moved(last.widths, first.widths, last.ratios, self._settings, done=number - 1)
        if wanted == last.widths:
            return f"after {number} trials no channel group moves any more"
        widths = rescaled(wanted, first.widths, first.macs, goal)
        if widths is None:
            return f"no widths near those that follow from trial {number - 1} cost {goal} MACs within 1 %"
        for known, one in self._measured.items():
            if one is not None and one.widths == widths:
                return f"the widths that follow from trial {number - 1} are those of trial {known}"
        return widths

    def _with(self, widths: Widths) -> Plan:
        model = self._baseline.model
        settings = {**model.settings, "widths": tuple(widths.values())}
        return self._baseline.model_copy(update={"model": model.model_copy(update={"settings": settings})})
