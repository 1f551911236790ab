"""How much training it takes to find what others find: the races as figures."""

import atexit
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.figures import Figure, Target, spread
from benchmarks.report import RESULTS
from benchmarks.search.ours import GUIDED, OURS, WAYS
from benchmarks.search.plot import save_plot
from benchmarks.search.races import PLAIN, Course, Race, by_way, middle, races, shares
from search.driver import Outlook
from search.outlook import TorchOutlook
from search.record import Laps, Record, beside
from search.simulation import RecordOutlook
from search.trained import TrainedRecord
from spaces.study import Study

SPACES = Path(__file__).parents[2] / "spaces"
GRID = SPACES / "digits_grid.yaml"
CLOTHES = Path(__file__).with_name("clothes.yaml")


def recorded(study: Study) -> tuple[Laps, Outlook]:
    """The record beside the study's file."""
    record = Record.load(beside(study.file))
    record.check(study)
    return record, RecordOutlook(record)


def trained(study: Study) -> tuple[Laps, Outlook]:
    """Plans trained when they are asked for, in a folder that goes with the process; foreseen as a real search does."""
    torch.set_num_threads(1)
    folder = tempfile.TemporaryDirectory(prefix="prunefront-races-")
    atexit.register(folder.cleanup)
    return TrainedRecord(Path(folder.name)), TorchOutlook()


def grid_course(*, quick: bool) -> Course:
    """All strategies on the full factorial space."""
    setup = Record.load(beside(GRID)).setup_seconds
    return Course(GRID, (), recorded, trials=60 if quick else 100, seeds=4 if quick else 20, setup_seconds=setup)


def grid_figures(*, quick: bool, processes: int) -> list[Figure]:
    """On the recorded grid, one worker: every opponent, ours, and ours with one part left out or put in."""
    course = grid_course(quick=quick)
    found = by_way(races(course, processes=processes))
    if not quick:
        drawn = {name: found[name] for name in (OURS.name, "ours without sharing", *_opponents(found))}
        save_plot(RESULTS / "search.svg", f"{course.trials} trials each, {course.seeds} seeds, one worker", drawn)
    where = f"recorded grid, {course.trials} trials, {course.seeds} seeds, 1 worker"
    return [*against(found, where), *parts(found, where), _reuse(found, where)]


def digits_figures(*, quick: bool, processes: int) -> list[Figure]:
    """On digits, with real training: every opponent, ours, and ours with guidance by FLOPs utilization ratios."""
    course = Course(SPACES / "digits.yaml", (), trained, trials=12 if quick else 24, seeds=2 if quick else 5)
    found = by_way(races(course, ways=(*WAYS, GUIDED), processes=processes))
    where = f"real training on digits, {course.trials} trials, {course.seeds} seeds, 1 worker"
    return [*against(found, where), *parts(found, where)]


def clothes_figures(*, quick: bool, processes: int, data: Path | None) -> list[Figure]:
    """On Fashion-MNIST at 14x14, 2,000 images, with real training: the plain search and ours."""
    if data is None:
        how = "needs Fashion-MNIST: --data ROOT, the folder that has FashionMNIST/raw"
        return [
            Figure(
                f"training MACs to the final hypervolume of {PLAIN}, clothes", None, "x", how, Target("at most", 0.2)
            )
        ]
    overrides = (f"data.root={data}",)
    course = Course(CLOTHES, overrides, trained, trials=8 if quick else 24, seeds=1 if quick else 3)
    found = by_way(races(course, opponents=(PLAIN,), ways=(OURS,), processes=processes))
    return against(
        found, f"real training on Fashion-MNIST 14x14, {course.trials} trials, {course.seeds} seeds, 1 worker"
    )


def against(found: Mapping[str, Sequence[Race]], where: str) -> list[Figure]:
    """Training MACs of ours over those of each opponent, to the hypervolume that the opponent ended with."""
    ours = found[OURS.name]
    each = {name: shares(ours, found[name]) for name in _opponents(found)}
    figures = [
        _share(f"training MACs to the final hypervolume of {PLAIN}", each.pop(PLAIN), Target("at most", 0.2), where)
    ]
    if each:
        hardest = max(each, key=lambda name: middle(each[name]))
        target = Target("at most", round(1 / 3, 3))
        figures.append(_share(f"the same against the best other: {hardest}", each.pop(hardest), target, where))
    return figures + [_share(f"the same against {name}", values, None, where) for name, values in each.items()]


def parts(found: Mapping[str, Sequence[Race]], where: str) -> list[Figure]:
    """What each part is worth: how ours does without it, or with it, by the plain search's training MACs."""
    figures = []
    for name, theirs in found.items():
        if not name.startswith("ours"):
            continue
        ratios = shares(theirs, found[PLAIN])
        ends = f"hypervolume in the end {fmean(race.final for race in theirs):.4f}"
        plain = f"the plain search's {fmean(race.final for race in found[PLAIN]):.4f}"
        spent = fmean(race.macs / other.macs for race, other in zip(theirs, found[PLAIN], strict=True))
        how = f"{_told(ratios)}; {ends}, {plain}; all its trials cost {spent:.2f} of the plain search's; {where}"
        figures.append(Figure(f"part by part: {name}", middle(ratios), "x of plain", how))
    return figures


def scaled_figures(*, quick: bool, processes: int) -> list[Figure]:
    """The same search with more workers: nobody may pay for shared stages with waiting."""
    figures = []
    for workers, target in ((1, 1.0), (8, round(1 / 3, 3)), (64, 1.0)):
        course = replace(grid_course(quick=quick), workers=workers, seeds=3 if quick else 20)
        found = by_way(races(course, opponents=(PLAIN,), ways=(OURS,), processes=processes))
        pairs = list(zip(found[OURS.name], found[PLAIN], strict=True))
        ratios = [one.seconds_to(other.final) / other.seconds_to(other.final) for one, other in pairs]
        where = f"recorded grid, {course.trials} trials, {course.seeds} seeds, {workers} workers"
        figures.append(
            Figure(
                f"wall time and worker-seconds to the final hypervolume of {PLAIN}, {workers} workers",
                middle(ratios),
                "x",
                f"{_told(ratios)}; virtual time, idle workers charged, so that both are in one proportion; {where}",
                Target("at most", target),
            )
        )
        # Of networks this small a narrow one takes as long as a wide one: what time says elsewhere, these say.
        macs = shares(found[OURS.name], found[PLAIN])
        figures.append(_share(f"training MACs to the same, {workers} workers", macs, None, where))
    return figures


def _opponents(found: Mapping[str, Sequence[Race]]) -> list[str]:
    return [name for name in found if not name.startswith("ours")]


def _share(figure: str, ratios: Sequence[float], target: Target | None, where: str) -> Figure:
    return Figure(figure, middle(ratios), "x", f"{_told(ratios)}; {where}", target)


def _reuse(found: Mapping[str, Sequence[Race]], where: str) -> Figure:
    reuse = [race.reuse for race in found[OURS.name]]
    how = f"{spread(reuse)}; {where}; the same trials, every boundary computed once"
    return Figure(
        "training MACs executed over the lowest possible", spread(reuse).middle, "x", how, Target("at most", 1.05)
    )


def _told(ratios: Sequence[float]) -> str:
    never = sum(ratio == float("inf") for ratio in ratios)
    told = str(spread(ratios))
    return f"{told}; {never} of {len(ratios)} seeds never got there" if never else told
