"""Tells an MLflow store what a ledger has due: a few coalesced calls per run, each safe to repeat."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.errors import UserError
from tracking.connection import artifact_folder, first_line, in_our_voice, is_passing
from tracking.ledger import OVER, TAG, Ledger, Run
from tracking.page import page
from tracking.result import Front

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

METRICS, PARAMS = 800, 90  # per call; MLflow allows 1000 things, 100 of them parameters
PAGE_SECONDS = 20.0  # the front's page is 5 MB: while a search runs, it is not written more often


FRONT = f"{TAG}front"


class Writer:
    """One store, one experiment. `write` tells all that is due and raises where the store does not take it."""

    def __init__(self, client: "MlflowClient", uri: str, experiment: str) -> None:
        self._client = client
        self._experiment = experiment
        self._tags: dict[str, dict[str, str]] = {}
        self._stored: dict[str, StoredRun] = {}
        self._in_doubt: set[str] = set()  # plans whose run may have been made although the answer never came
        self._page_at = -PAGE_SECONDS
        with in_our_voice(uri):
            self.experiment_id = _experiment_id(client, uri, experiment)

    def write(self, ledger: Ledger, *, refused: Callable[[str], None], page_after: float = PAGE_SECONDS) -> None:
        """Tell everything that is due. What the store refuses for good goes to `refused` and is due no more.

        The front's files are written when `page_after` seconds went by since they were written last.
        """
        search = ledger.search
        if search is None:
            return
        if search.run_id is None:
            self._find_or_create(search, self._search_tags(search), parent=None)
            assert search.run_id is not None
            self._index(search.run_id)
        members = {point.plan_hash for point in ledger.standing.front}
        for plan_hash, run in ledger.trials.items():
            self._guarded(run, search.run_id, refused, mark=self._mark if plan_hash in members else self._unmark)
        if search.is_due:
            self._tell(search)
        if ledger.front_is_due and time.monotonic() - self._page_at >= page_after:
            self._write_front(ledger, search.run_id)

    def upload(self, run: Run, folder: Path) -> None:
        """The folder's files become the run's artifact `checkpoint`; once is enough."""
        assert run.run_id is not None
        if f"{TAG}checkpoint" in self._tags[run.run_id]:
            return
        self._client.log_artifacts(run.run_id, str(folder), "checkpoint")
        self._client.set_tag(run.run_id, f"{TAG}checkpoint", folder.name)
        self._tags[run.run_id][f"{TAG}checkpoint"] = folder.name

    # ---- runs -------------------------------------------------------------------------------------------------------

    def _guarded(
        self, run: Run, parent: str, refused: Callable[[str], None], *, mark: Callable[[Run, str], None]
    ) -> None:
        try:
            if run.run_id is None:
                self._find_or_create(run, run.identity, parent=parent)
            assert run.run_id is not None
            mark(run, run.run_id)
            if run.is_due:
                self._tell(run)
        except Exception as error:
            if is_passing(error):
                raise
            refused(f"MLflow refused what it was told of {run.name}: {first_line(error)}")
            run.forget()

    def _mark(self, run: Run, run_id: str) -> None:
        if FRONT not in self._tags[run_id]:
            run.tags[FRONT] = "true"

    def _unmark(self, run: Run, run_id: str) -> None:
        run.tags.pop(FRONT, None)
        if FRONT in self._tags[run_id]:
            with _already_gone():
                self._client.delete_tag(run_id, FRONT)
            del self._tags[run_id][FRONT]

    def _search_tags(self, search: Run) -> dict[str, str]:
        return search.identity | {f"{TAG}kind": "search"}

    def _find_or_create(self, run: Run, tags: dict[str, str], parent: str | None) -> None:
        plan_hash = run.identity.get(f"{TAG}plan_hash", "")
        if parent is None or plan_hash in self._in_doubt:
            asked = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
            asked += f" and tags.`mlflow.parentRunId` = '{parent}'" if parent else ""
            known = next(iter(self._client.search_runs([self.experiment_id], asked, max_results=1)), None)
        else:
            known = self._stored.pop(plan_hash, None)
        if known is None:
            self._in_doubt.add(plan_hash)
            own = {"mlflow.parentRunId": parent} if parent else {}
            known = self._client.create_run(
                self.experiment_id, start_time=run.began, tags={**tags, **own, **run.tags}, run_name=run.name
            )
            run.tags = {}
            if run.status == "RUNNING":
                run.status = None  # it is made so
        self._in_doubt.discard(plan_hash)
        self._recognise(run, known)

    def _recognise(self, run: Run, known: "StoredRun") -> None:
        run.run_id = known.info.run_id
        tags = self._tags[run.run_id] = dict(known.data.tags)
        if tags.get(f"{TAG}outcome") in OVER and known.info.status != "RUNNING":
            # Everything up to its end was written by an earlier process: nothing of that is due.
            over_since = int(known.info.end_time or 0)
            if run.ended is None or run.ended <= over_since:
                run.over_since = over_since
                run.forget()

    def _index(self, parent: str) -> None:
        """The trials' runs that are in the store already, by one question instead of one per trial."""
        token, asked = None, f"tags.`mlflow.parentRunId` = '{parent}'"
        while True:
            found = self._client.search_runs([self.experiment_id], asked, max_results=1000, page_token=token)
            for known in found:
                self._stored[known.data.tags.get(f"{TAG}plan_hash", "")] = known
            token = found.token
            if not token:
                return

    def _tell(self, run: Run) -> None:
        from mlflow.entities import Metric, Param, RunTag

        assert run.run_id is not None
        tags = [RunTag(name, value) for name, value in run.tags.items()]
        params = [Param(name, value) for name, value in run.params.items()]
        metrics = [Metric(m.name, m.value, m.time, m.step) for m in run.metrics]
        while tags or params or metrics:
            self._client.log_batch(run.run_id, metrics[:METRICS], params[:PARAMS], tags)
            tags, params, metrics = [], params[PARAMS:], metrics[METRICS:]
        if run.plan_file is not None:
            self._client.log_text(run.run_id, run.plan_file, "plan.json")
        if run.status == "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")
        elif run.status is not None:
            # Last: a run that is over in the store has everything.
            self._client.set_terminated(run.run_id, run.status, end_time=run.ended)
        self._tags[run.run_id] |= run.tags
        run.forget()

    # ---- the front --------------------------------------------------------------------------------------------------

    def _write_front(self, ledger: Ledger, run_id: str) -> None:
        result = result_of(ledger, self._experiment)
        self._client.log_text(run_id, json.dumps(result.to_json(), indent=1, allow_nan=False), "front.json")
        self._client.log_text(run_id, result.to_csv(), "front.csv")
        self._client.log_text(run_id, page(result), "front.html")
        self._page_at = time.monotonic()
        ledger.front_is_due = False


def result_of(ledger: Ledger, experiment: str) -> Front:
    """The result so far, with the ids of the runs."""
    standing = ledger.standing
    ids = {plan_hash: run.run_id for plan_hash, run in ledger.trials.items()}
    points = {point.plan_hash: replace(point, run_id=ids.get(point.plan_hash)) for point in standing.points.values()}
    return Front(
        experiment=experiment,
        hypervolume=standing.hypervolume,
        baseline=points.get(standing.baseline.plan_hash) if standing.baseline else None,
        front=[points[point.plan_hash] for point in standing.front],
        points=list(points.values()),
        trials=standing.counts,
        objectives=standing.objectives,
        search_run_id=ledger.search.run_id if ledger.search else None,
    )


@contextmanager
def _already_gone() -> Iterator[None]:
    """What is deleted a second time, because the first answer got lost, is deleted."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None and known.lifecycle_stage == "deleted":
        raise UserError(f"experiment '{name}' was deleted in {uri}; restore it there, or set tracking.experiment")
    if known is not None:
        return str(known.experiment_id)
    folder = artifact_folder(uri)
    return client.create_experiment(name, artifact_location=None if folder is None else folder.as_uri())
