"""Training every plan of a finite space, each stage once, into a record that searches can be simulated from.

Plans that differ in their recovery alone are trained one after another: they branch from the same pruned boundaries,
which are thrown away when the last of them is done. A recording that was killed goes on where it was.

Does NOT cover what a record looks like (`search.record`).
"""

import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from search.record import Provenance, Recorded, write_record
from spaces.errors import TrialFailed, UserError
from spaces.grid import every_plan, space_digest
from spaces.lap import Lap
from spaces.plan import Plan
from spaces.plugin import Plugin
from spaces.study import Study
from trainables.costing import Costing
from trainables.data import load_data
from trainables.keys import sources_digest
from trainables.lapped import LappedTrial
from trainables.store import StageStore


def record_study(
    study: Study, target: Path, *, processes: int, command: str, progress: Callable[[int, int], None]
) -> None:
    """Train every plan of the study and write its record to `target`.

    What is done lies beside it until then, in `target`.partial. Raises UserError where the space has no end, the data
    is missing, or nothing can be written.
    """
    plans = list(every_plan(study))
    costing = Costing()
    problems = {plan.hash: problem for plan in plans if (problem := costing.problem(plan)) is not None}
    load_data(study.baseline().data, device="cpu")
    partial = target.with_name(target.name + ".partial")
    done = _read(partial, space_digest(study))
    left = [plan for plan in plans if plan.hash not in problems and plan.hash not in done]
    with (
        _appending(partial, space_digest(study)) as append,
        tempfile.TemporaryDirectory(prefix="prunefront-") as folder,
    ):
        trunk = _record(study.baseline(), StageStore(folder), saves=range(study.baseline().train.epochs))
        if trunk.plan_hash not in done:
            append(trunk)
        done[trunk.plan_hash] = trunk
        progress(len(done), len(plans) - len(problems))
        for outcome in _outcomes(_groups(left), Path(folder), processes):
            append(outcome)
            done[outcome.plan_hash] = outcome
            progress(len(done), len(plans) - len(problems))
    write_record(target, done.values(), problems, _provenance(study, command))
    partial.unlink()


def _groups(plans: Iterable[Plan]) -> list[list[Plan]]:
    """Plans that differ in their recovery alone stand together."""
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        if plan.prune is not None:
            groups.setdefault(plan.model_copy(update={"recover": Plugin(name="continue")}).hash, []).append(plan)
    return list(groups.values())


def _outcomes(groups: Sequence[Sequence[Plan]], folder: Path, processes: int) -> Iterator[Recorded]:
    if processes == 1:
        for group in groups:
            yield from _record_group(group, folder)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_record_group, group, folder) for group in groups]):
            yield from future.result()


def _record_group(plans: Sequence[Plan], folder: Path) -> list[Recorded]:
    store = StageStore(folder)
    outcomes = [_record(plan, store) for plan in plans]
    for key in {lap.key for outcome in outcomes for lap in outcome.laps}:
        store.discard(key)
    return outcomes


def _record(plan: Plan, store: StageStore, *, saves: Iterable[int] = ()) -> Recorded:
    """Train the plan from its deepest stored boundary on."""
    began, failure = time.process_time(), None
    trial = LappedTrial(plan, store=store, saves=frozenset(saves))
    setup = time.process_time() - began
    try:
        while not trial.done:
            trial.step()
    except TrialFailed as error:
        failure = error.reason
    begin = trial.begin.key if trial.begin.epochs or trial.begin.events else None
    return Recorded(plan.hash, begin, tuple(trial.laps), setup, failure)


def _provenance(study: Study, command: str) -> Provenance:
    return Provenance(
        study=study.name,
        space=space_digest(study),
        torch=version("torch"),
        sources=sources_digest(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}",
        command=command,
    )


# ---- what is done of a recording under way ------------------------------------------------------------------------


@contextmanager
def _appending(partial: Path, space: str) -> Iterator[Callable[[Recorded], None]]:
    try:
        with partial.open("a") as file:
            if not file.tell():
                file.write(json.dumps({"space": space}) + "\n")

            def append(outcome: Recorded) -> None:
                file.write(json.dumps(asdict(outcome)) + "\n")
                file.flush()

            yield append
    except OSError as error:
        raise UserError(f"cannot write {partial}: {error.strerror}") from error


def _read(partial: Path, space: str) -> dict[str, Recorded]:
    """What an earlier run of this recording has done; a line that a kill tore is cut off."""
    if not partial.exists():
        return {}
    whole, outcomes = 0, {}
    for number, line in enumerate(partial.read_bytes().splitlines(keepends=True)):
        if not line.endswith(b"\n"):
            break
        written = json.loads(line)
        if number == 0 and written != {"space": space}:
            raise UserError("it was begun for another space; remove it to begin anew", file=partial)
        if number:
            laps = tuple(Lap(**lap) for lap in written.pop("laps"))
            outcomes[written["plan_hash"]] = Recorded(laps=laps, **written)
        whole += len(line)
    with partial.open("r+b") as file:
        file.truncate(whole)
    return outcomes
