"""What MLflow should hold of a search, from its events, and what of that it has not been told yet. Pure; no MLflow.

Hearing and telling are separate, so that a server may be away at any moment: what was told is ticked off, the rest
stays due, and being told twice does no harm.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from tracking.events import Event
from tracking.names import flat_params, trial_name
from tracking.standing import Standing, numbers

TAG = "prunefront."
LONGEST_TAG = 8000  # characters; MLflow refuses more
OVER = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True)
class Measurement:
    """One value of one metric at one step; the same one written twice counts once."""

    name: str
    value: float
    step: int
    time: int  # milliseconds since 1970


@dataclass
class Run:
    """One MLflow run: what it is known by, and what is due to it."""

    identity: dict[str, str]  # the tags it is found by
    name: str
    began: int  # milliseconds since 1970
    run_id: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Measurement] = field(default_factory=list)
    status: str | None = None
    ended: int | None = None
    plan_file: str | None = None  # a plan too long for a tag
    over_since: int | None = None  # the store has everything up to this time
    last: tuple[int, dict[str, float]] = (-1, {})  # the latest epoch and its metrics

    @property
    def is_due(self) -> bool:
        """Whether the store lacks anything."""
        return bool(self.run_id is None or self.params or self.tags or self.metrics or self.status or self.plan_file)

    def forget(self) -> None:
        """Nothing is due any more: the store has it, or will not take it."""
        self.params, self.tags, self.metrics, self.status, self.plan_file = {}, {}, [], None, None


class Ledger:
    """Hears events in order; holds the runs that are due."""

    def __init__(self, experiment: str) -> None:
        self.experiment = experiment
        self.standing = Standing()
        self.search: Run | None = None
        self.trials: dict[str, Run] = {}  # by plan hash
        self.front_is_due = False
        self._choices: dict[str, dict[str, Any]] = {}  # by plan hash, of trials that have no run yet

    def hear(self, event: Event) -> None:
        """Take one event in."""
        front_changed = self.standing.hear(event)
        if event.kind == "opened":
            self._open(event)
        elif event.kind == "closed" and self.search is not None:
            self._close(event)
        elif event.kind == "proposed" and event.plan_hash is not None:
            self._choices[event.plan_hash] = event.body.get("choices") or {}
        elif event.plan_hash is not None:
            run = self.trials.get(event.plan_hash) or self._new_trial(event.plan_hash, event)
            if run.over_since is None or _milliseconds(event) > run.over_since:
                self._hear_of_trial(run, event)
        if event.kind in OVER and self.search is not None:
            self._count(self.search, event)
        self.front_is_due |= front_changed

    def _open(self, event: Event) -> None:
        if self.search is None:
            fingerprint = str(event.body.get("fingerprint", ""))
            # A log opened anew is another search, be its study the same.
            identity = {f"{TAG}study_fingerprint": fingerprint, f"{TAG}opened": str(_milliseconds(event))}
            self.search = Run(identity, self.standing.study or "search", _milliseconds(event))
            self.search.tags = {
                f"{TAG}kind": "search",
                f"{TAG}objectives": json.dumps(dict(self.standing.objectives)),
                f"{TAG}constraints": json.dumps(self.standing.constraints),
                "mlflow.note.content": _note(self.experiment),
            }
            self.search.params = {
                "study": self.standing.study,
                "objectives": ", ".join(f"{way} {name}" for name, way in self.standing.objectives.items()),
                "constraints": json.dumps(self.standing.constraints) if self.standing.constraints else "none",
                "seed": str(event.body.get("seed")),
            }
        else:
            self.search.status, self.search.ended = "RUNNING", None

    def _close(self, event: Event) -> None:
        assert self.search is not None
        was_interrupted = event.body.get("reason") == "interrupted"
        self.search.status, self.search.ended = "KILLED" if was_interrupted else "FINISHED", _milliseconds(event)
        for run in self.trials.values():
            if run.ended is None and run.over_since is None:
                run.status, run.ended = "KILLED", _milliseconds(event)
                run.tags[f"{TAG}outcome"] = "interrupted"

    def _new_trial(self, plan_hash: str, event: Event) -> Run:
        trial, plan = self.standing.proposal(plan_hash) or (event.trial or 0, {})
        run = Run({f"{TAG}plan_hash": plan_hash}, trial_name(trial, plan), _milliseconds(event))
        kind = "baseline" if trial == 0 else "trial"
        run.tags = {f"{TAG}kind": kind, f"{TAG}trial": str(trial)}
        run.params = flat_params(plan)
        choices = json.dumps(self._choices.pop(plan_hash, {}), separators=(",", ":"))
        if 2 < len(choices) <= LONGEST_TAG:
            run.tags[f"{TAG}choices"] = choices
        written = json.dumps(plan, separators=(",", ":"))
        if len(written) <= LONGEST_TAG:
            run.tags[f"{TAG}plan"] = written
        else:
            run.plan_file = written
        self.trials[plan_hash] = run
        return run

    def _hear_of_trial(self, run: Run, event: Event) -> None:
        run.over_since = None
        match event.kind:
            case "started":
                run.status, run.ended = "RUNNING", None
                run.tags |= {
                    f"{TAG}outcome": "running",
                    f"{TAG}attempt": str(event.body.get("attempt", 1)),
                    f"{TAG}node": str(event.body.get("node", "")),
                    f"{TAG}from_epoch": str(event.body.get("from_epoch", 0)),
                }
            case "reported":
                self._measure(run, event)
            case "finished" | "stopped" | "failed":
                self._measure(run, event)
                run.status, run.ended = OVER[event.kind], _milliseconds(event)
                run.tags[f"{TAG}outcome"] = event.kind
                for name in ("reason", "checkpoint"):
                    if event.body.get(name) is not None:
                        key = "reason" if name == "reason" else "checkpoint_key"
                        run.tags[TAG + key] = str(event.body[name])[:LONGEST_TAG]

    def _measure(self, run: Run, event: Event) -> None:
        epoch, metrics = int(event.body.get("epoch", 0)), numbers(event.body)
        before_at, before = run.last
        if event.kind == "reported" and epoch <= before_at:
            return  # a second attempt repeats what was measured before
        # The last report and the end say the same of the same epoch.
        new = {name: value for name, value in metrics.items() if epoch != before_at or before.get(name) != value}
        run.metrics += [Measurement(name, value, epoch, _milliseconds(event)) for name, value in new.items()]
        run.last = (epoch, metrics)

    def _count(self, search: Run, event: Event) -> None:
        counts = self.standing.counts
        values: dict[str, Any] = {f"trials_{how}": count for how, count in counts.items()}
        values |= {"front_size": len(self.standing.front), "hypervolume": self.standing.hypervolume}
        step = sum(counts.values())
        search.metrics += [
            Measurement(name, float(value), step, _milliseconds(event))
            for name, value in values.items()
            if value is not None
        ]


def _milliseconds(event: Event) -> int:
    return int(event.time * 1000)


def _note(experiment: str) -> str:
    return (
        "The front is in the artifacts: `front.html` to look at, `front.csv` and `front.json` to read.\n\n"
        "Trials on the front have the tag `prunefront.front = true`; each trial is a run nested in this one.\n\n"
        f"`prunefront export {experiment} --to DIR` writes the best of them as files that run elsewhere."
    )
