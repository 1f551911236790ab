"""Trials through shared stages against the same plans run alone: the metrics must be the same to the last bit."""

import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Target
from search.trunk import forks_of
from spaces.load import load_study
from trainables.costing import Costing
from trainables.store import StageStore
from trainables.trial import Trial

STUDY = Path(__file__).parents[2] / "spaces" / "digits_grid.yaml"
SPENT = ("seconds", "training_macs", "inherited_epochs", "checkpoint", "checkpoint_bytes")
"""What a trial reports of its own run; everything else it measured."""


def figures(*, quick: bool) -> list[Figure]:
    """Random plans and neighbours of theirs, one after the other in one store; each of them again from nothing."""
    study, costing = load_study(STUDY, []), Costing()
    rng = random.Random(0)
    plans = [study.baseline()]
    while len(plans) < (5 if quick else 25):
        choices = study.sample(rng)
        neighbour = {**choices, "recover": rng.choice(["continue", "cosine", "damage_aware"])}
        plans += [plan for plan in map(study.plan, (choices, neighbour)) if costing.problem(plan) is None]
    forks = forks_of(study, problem=costing.problem, path=costing.path)
    differing, inherited, epochs = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        store = StageStore(folder)
        for plan in plans:
            shared = Trial(plan, store=store, saves=forks)
            inherited, epochs = inherited + shared.inherited_epochs, epochs + plan.train.epochs
            differing += _end(shared) != _end(Trial(plan))
    how = f"{len(plans)} plans of the grid, trained on a CPU; {inherited} of {epochs} epochs were inherited"
    return [
        Figure(
            "trials whose metrics differ from the same plan's run alone", differing, "trials", how, Target("at most", 0)
        )
    ]


def _end(trial: Trial) -> dict[str, Any]:
    metrics = trial.step()
    while not trial.done:
        metrics = trial.step()
    return {name: value for name, value in metrics.items() if name not in SPENT}
