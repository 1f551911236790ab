"""Reads a search back from MLflow: the front as it stands there, and a run's checkpoint."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces.errors import UserError, unknown
from tracking.connection import in_our_voice, readable
from tracking.front import Point, front, hypervolume, is_feasible
from tracking.ledger import TAG
from tracking.result import Front

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun


def read_front(uri: str, experiment: str) -> Front:
    """The front of the newest search in an experiment, computed from its runs.

    Raises UserError when the store does not answer, or has no such experiment, or no search in it.
    """
    client = readable(uri)
    with in_our_voice(uri):
        experiment_id = _experiment_id(client, uri, experiment)
        search = _newest_search(client, uri, experiment, experiment_id)
        runs = _children(client, experiment_id, search.info.run_id)
        points = [point for run in runs if (point := _point(client, run)) is not None]
    objectives = json.loads(search.data.tags[f"{TAG}objectives"])
    constraints = json.loads(search.data.tags.get(f"{TAG}constraints", "{}"))
    baseline = next((point for point in points if point.trial == 0), None)
    feasible = [point for point in points if is_feasible(point, constraints)]
    outcomes = [run.data.tags.get(f"{TAG}outcome") for run in runs]
    return Front(
        experiment=experiment,
        hypervolume=hypervolume(feasible, baseline.accuracy) if baseline else None,
        baseline=baseline,
        front=front(points, objectives, constraints),
        points=points,
        trials={how: outcomes.count(how) for how in ("finished", "stopped", "failed")},
        objectives=objectives,
        search_run_id=search.info.run_id,
    )


@dataclass(frozen=True)
class Told:
    """A finished trial as a sampler learns of it: the value of every parameter that varied, and its metrics."""

    choices: Mapping[str, Any]
    metrics: Mapping[str, float]


def read_told(uri: str, experiment: str) -> list[Told]:
    """The finished trials of the newest search in an experiment. Raises UserError as `read_front` does."""
    client = readable(uri)
    with in_our_voice(uri):
        experiment_id = _experiment_id(client, uri, experiment)
        search = _newest_search(client, uri, experiment, experiment_id)
        runs = _children(client, experiment_id, search.info.run_id)
    finished = [run for run in runs if run.data.tags.get(f"{TAG}outcome") == "finished"]
    choices = [json.loads(run.data.tags.get(f"{TAG}choices", "{}")) for run in finished]
    return [Told(chosen, run.data.metrics) for chosen, run in zip(choices, finished, strict=True) if chosen]


def read_point(uri: str, run_id: str) -> Point:
    """One finished trial by its run's id. Raises UserError when there is no such run, or it is no finished trial."""
    from mlflow.exceptions import MlflowException

    client = readable(uri)
    with in_our_voice(uri):
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise UserError(f"no run '{run_id}' in {uri}") from error
            raise
        point = _point(client, run)
    if point is None:
        outcome = run.data.tags.get(f"{TAG}outcome", "is no trial of a search")
        raise UserError(f"run '{run_id}' is no finished trial: {outcome}")
    return point


def download_checkpoint(uri: str, run_id: str, to: Path) -> Path:
    """The folder, below `to`, with the files of a run's checkpoint. Raises UserError when the run has none."""
    client = readable(uri)
    with in_our_voice(uri):
        if not any(item.path == "checkpoint" for item in client.list_artifacts(run_id)):
            raise UserError(f"run '{run_id}' has no checkpoint; only trials that were once on the front keep theirs")
        return Path(client.download_artifacts(run_id, "checkpoint", str(to)))


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is None:
        names = [experiment.name for experiment in client.search_experiments() if experiment.name != "Default"]
        raise UserError(f"{unknown('experiment', name, names)} (in {uri})")
    if known.lifecycle_stage == "deleted":
        raise UserError(f"experiment '{name}' was deleted in {uri}; restore it there")
    return str(known.experiment_id)


def _newest_search(client: "MlflowClient", uri: str, experiment: str, experiment_id: str) -> "StoredRun":
    asked = f"tags.`{TAG}kind` = 'search'"
    found = client.search_runs([experiment_id], asked, order_by=["attributes.start_time DESC"], max_results=1)
    if not found:
        raise UserError(f"experiment '{experiment}' in {uri} holds no search")
    return found[0]


def _children(client: "MlflowClient", experiment_id: str, parent: str) -> list["StoredRun"]:
    runs: list[StoredRun] = []
    token, asked = None, f"tags.`mlflow.parentRunId` = '{parent}'"
    while True:
        found = client.search_runs([experiment_id], asked, max_results=1000, page_token=token)
        runs += found
        token = found.token
        if not token:
            return sorted(runs, key=lambda run: int(run.data.tags.get(f"{TAG}trial", 0)))


def _point(client: "MlflowClient", run: "StoredRun") -> Point | None:
    tags, metrics = run.data.tags, run.data.metrics
    if tags.get(f"{TAG}outcome") != "finished":
        return None
    if not all(math.isfinite(metrics.get(name, math.nan)) for name in ("accuracy", "keep_macs")):
        return None
    return Point(
        plan_hash=tags[f"{TAG}plan_hash"],
        metrics=dict(metrics),
        trial=int(tags.get(f"{TAG}trial", 0)),
        run_id=run.info.run_id,
        name=run.info.run_name,
        plan=_plan(client, run),
    )


def _plan(client: "MlflowClient", run: "StoredRun") -> dict[str, Any]:
    written = run.data.tags.get(f"{TAG}plan")
    if written is None:  # too long for a tag
        written = Path(client.download_artifacts(run.info.run_id, "plan.json")).read_text()
    plan: dict[str, Any] = json.loads(written)
    return plan
