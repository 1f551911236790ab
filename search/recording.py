"""Training every plan of a finite space, each stage once, into a record that searches can be simulated from.

Plans that differ in their recovery alone are trained one after another: they branch from the same pruned boundaries,
which are thrown away when the last of them is done. A recording that was killed goes on where it was.

Does NOT cover what a record looks like (`search.record`).
"""

import multiprocessing
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

from search.record import Provenance, Recorded, write_record
from search.recorded_lines import RecordedLines
from search.trained import train_laps
from spaces.grid import every_plan, space_digest
from spaces.plan import Plan
from spaces.plugin import Plugin
from spaces.study import Study
from trainables.costing import Costing
from trainables.data import load_data
from trainables.keys import sources_digest
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
    with (
        RecordedLines(partial, space_digest(study)) as done,
        tempfile.TemporaryDirectory(prefix="prunefront-") as folder,
    ):
        left = [plan for plan in plans if plan.hash not in problems and plan.hash not in done.trials]
        done.append(train_laps(study.baseline(), StageStore(folder)))
        for outcome in _outcomes(_groups(left), Path(folder), processes):
            done.append(outcome)
            progress(len(done.trials), len(plans) - len(problems))
        write_record(target, done.trials.values(), problems, _provenance(study, command))
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
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_end_with_parent) as pool:
        for future in as_completed([pool.submit(_record_group, group, folder) for group in groups]):
            yield from future.result()


def _end_with_parent() -> None:
    """A process of a recording that is killed would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _record_group(plans: Sequence[Plan], folder: Path) -> list[Recorded]:
    store = StageStore(folder)
    outcomes = [train_laps(plan, store) for plan in plans]
    for key in {lap.key for outcome in outcomes for lap in outcome.laps}:
        store.discard(key)
    return outcomes


def _provenance(study: Study, command: str) -> Provenance:
    return Provenance(
        study=study.name,
        space=space_digest(study),
        torch=version("torch"),
        sources=sources_digest(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}",
        command=command,
    )
