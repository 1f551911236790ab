"""A trial without torch, and searches of it (`python -m tests.standin STORAGE`).

It has the face of `trainables.trial.Trial`; metrics are computed from the plan, boundaries are empty files.

STANDIN_SECONDS sleeps that long in every epoch; STANDIN_BREAKS names a criterion whose trials fail once they have two
epochs, STANDIN_CRASHES one whose trials raise an error of no known kind; with STANDIN_DIES the first worker that saves
a pruned boundary dies before it tells of it. Every epoch run is noted in HOME/ran.jsonl.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from search.runner import Ending, Workload, mlflow_recorder, run_search
from search.summary import print_summary
from spaces.errors import TrialFailed, UserError
from spaces.load import load_study
from spaces.path import Step
from spaces.plan import Plan
from spaces.study import Study
from tracking.events import Event

STUDY = Path(__file__).parent / "standin.yaml"
DENSE_MACS, DENSE_PARAMS = 1_000_000, 10_000


class StandIn:
    def __init__(
        self,
        plan: Plan,
        *,
        home: str,
        stages: Mapping[str, Any],
        device: str,
        saves: frozenset[int],
        latency_batch: int | None,
    ) -> None:
        self.plan, self.home, self.epoch = plan, Path(home), 0
        self._saves, self._seconds = saves, float(os.environ.get("STANDIN_SECONDS", "0"))
        self._store = self.home / "store"
        self._store.mkdir(parents=True, exist_ok=True)
        for epoch in range(plan.train.epochs, 0, -1):
            if self._boundary(epoch).exists():
                self.epoch = epoch
                break
        self.inherited_epochs = self.epoch

    @property
    def done(self) -> bool:
        return self.epoch >= self.plan.train.epochs

    def step(self) -> dict[str, Any]:
        criterion = "" if self.plan.prune is None else self.plan.prune.criterion.name
        if not self.done:
            time.sleep(self._seconds)
            if criterion == os.environ.get("STANDIN_BREAKS") and self.epoch >= 2:
                raise TrialFailed("loss is nan", epoch=self.epoch)
            if criterion == os.environ.get("STANDIN_CRASHES"):
                raise ZeroDivisionError("division by zero")
            self.epoch += 1
            with (self.home / "ran.jsonl").open("a") as file:
                line = {"plan": self.plan.hash, "epoch": self.epoch, "pid": os.getpid()}
                file.write(json.dumps(line) + "\n")
            if self.done or self.epoch in self._saves or self.epoch % 4 == 0:
                self._boundary(self.epoch).touch()
                if not self.done and self.epoch > fork_of(self.plan) and os.environ.get("STANDIN_DIES"):
                    self._die_once()
        return self._metrics()

    def catch_up(self) -> dict[str, Any]:
        return self._metrics()

    def _die_once(self) -> None:
        try:
            (self.home / "died").touch(exist_ok=False)
        except FileExistsError:
            return
        os._exit(1)

    def _boundary(self, epoch: int) -> Path:
        return self._store / boundary_of(self.plan, epoch)

    def _metrics(self) -> dict[str, Any]:
        keep = 1.0
        if self.plan.prune is not None and self.epoch > fork_of(self.plan):
            keep = self.plan.prune.amount.keep_macs or 1.0
        learned = self.epoch / self.plan.train.epochs
        return {
            "epoch": self.epoch,
            "accuracy": round(learned * (0.95 - 0.1 * (1.0 - keep) ** 4), 6),
            "loss": 1.0 - learned,
            "macs": int(keep * DENSE_MACS),
            "params": int(keep * DENSE_PARAMS),
            "keep_macs": keep,
            "keep_params": keep,
            "training_macs": 3 * DENSE_MACS * (self.epoch - self.inherited_epochs),
            "inherited_epochs": self.inherited_epochs,
            "seconds": self._seconds,
            **({"checkpoint": self._boundary(self.epoch).name, "checkpoint_bytes": 0} if self.done else {}),
        }


def fork_of(plan: Plan) -> int:
    """Plans of the stand-in prune after half of their epochs."""
    return plan.train.epochs if plan.prune is None else plan.train.epochs // 2


def boundary_of(plan: Plan, epoch: int) -> str:
    """Before the first event a plan's boundaries are those of its dense plan."""
    return f"{(plan.dense() if epoch <= fork_of(plan) else plan).hash}-{epoch}"


class StandInOutlook:
    def check(self, study: Study) -> None:
        if os.environ.get("STANDIN_REFUSES"):
            raise UserError("the stand-in refuses")

    def problem(self, plan: Plan) -> str | None:
        return None

    def path(self, plan: Plan) -> tuple[Step, ...]:
        """Boundaries as the stand-in names them, and the event of a plan that prunes."""
        path = [Step(boundary_of(plan, epoch), epoch, 0, 3 * DENSE_MACS) for epoch in range(1, fork_of(plan) + 1)]
        if plan.prune is not None:
            path.append(Step(f"{plan.hash}-event", fork_of(plan), 1, 0))
            left = range(fork_of(plan) + 1, plan.train.epochs + 1)
            path += [Step(boundary_of(plan, epoch), epoch, 1, 3 * DENSE_MACS) for epoch in left]
        return tuple(path)

    def retraining(self, plan: Plan) -> float:
        return 1.0 - fork_of(plan) / plan.train.epochs


def epochs_run(home: Path) -> Counter[tuple[str, int]]:
    """How often each epoch of each plan was run."""
    lines = (home / "ran.jsonl").read_text().splitlines()
    return Counter((ran["plan"], ran["epoch"]) for ran in map(json.loads, lines))


def stand_in_study(storage: Path, *overrides: str) -> Study:
    return load_study(STUDY, [f"resources.storage={storage}", *overrides])


class Unrecorded:
    def record(self, event: Event) -> None:
        pass

    def upload_checkpoint(self, plan_hash: str, directory: Path) -> None:
        pass


def search(
    study: Study,
    *,
    mode: Literal["new", "resume"] = "new",
    address: str | None = None,
    console: Console | None = None,
    uri: str | None = None,
) -> Ending:
    return run_search(
        study,
        workload=Workload("tests.standin:StandIn", StandInOutlook()),
        recorder=mlflow_recorder(uri, study.name) if uri else lambda spool, warn: nullcontext(Unrecorded()),
        console=console or Console(quiet=True),
        trials=study.budget.trials,
        mode=mode,
        address=address,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("storage", type=Path)
    parser.add_argument("--mode", default="new")
    parser.add_argument("--uri")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    console = Console()
    try:
        ending = search(stand_in_study(given.storage, *given.set), mode=given.mode, console=console, uri=given.uri)
    except UserError as error:
        sys.exit(f"prunefront: {error}")
    print_summary(console, ending.board, why_ended=ending.why_ended)
    if ending.was_interrupted:
        print("interrupted")


if __name__ == "__main__":
    main()
