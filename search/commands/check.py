"""`prunefront check STUDY`: is the study sound, what varies in it, how will trials share, and what will it cost."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spaces.load import load_study
from spaces.metrics import METRICS
from spaces.study import Study

if TYPE_CHECKING:
    from search.forecast import Forecast

LAYERS_NAMED = 4  # of those that pruning leaves alone; a transformer has dozens for one reason


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a value of the study.")
@click.option("--syntax", is_flag=True, help="Only check the file: no costs, and an answer at once.")
def command(study: Path, overrides: tuple[str, ...], syntax: bool) -> None:
    """Check STUDY, a YAML file; print what varies, how trials share, and what the search will cost.

    Nothing is trained, and the data need not be here. Exit status 2 and one line where something is wrong.
    """
    checked = load_study(study, overrides)
    rows = [*_rows(checked), *([] if syntax else _costs(checked))]  # all of it before a line is printed: it may fail
    click.echo(f"{study} is sound.\n")
    for line in _varies(checked):
        click.echo(line)
    for label, text in rows:
        click.echo(f"{label:<11} {text}")


def _varies(study: Study) -> Iterator[str]:
    """One line per parameter; the numbers of a vector share one."""
    lines: dict[str, tuple[str, int]] = {}
    for parameter in study.parameters:
        path = re.sub(r"\[\d+\]$", "", parameter.path)
        lines[path] = (str(parameter.domain), lines.get(path, ("", 0))[1] + 1)
    if study.adjust is not None:
        yield "The widths of the channel groups move, from one trial to the next.\n"
        return
    if not lines:
        yield "Nothing varies: every trial would be the same.\n"
        return
    width = max(len(path) for path in lines)
    yield f"{len(study.parameters)} parameters vary; those with brackets only where that choice is made:"
    for path, (domain, count) in lines.items():
        yield f"  {path:<{width}}  {domain}{f', {count} times' if count > 1 else ''}"
    yield ""


def _rows(study: Study) -> Iterator[tuple[str, str]]:
    yield "objectives", ", ".join(f"{METRICS[name].direction} {name}" for name in study.objectives)
    for metric, bounds in study.constraints.items():
        yield "constraint", f"{metric} {', '.join(f'{side} {bound:g}' for side, bound in bounds.items())}"
    if study.adjust is not None:
        rule = f"{study.adjust.layers} groups grow and as many shrink by {study.adjust.step:.0%} of their first width"
        yield "adjust", f"at equal MACs, from trial to trial: {rule}, each time fewer"
    minutes = "" if study.budget.minutes is None else f", at most {study.budget.minutes:g} minutes"
    sampler = "" if study.adjust is not None else f"; sampler {study.budget.sampler}"
    yield "budget", f"{study.budget.trials} trials and the dense baseline{minutes}{sampler}"


def _costs(study: Study) -> Iterator[tuple[str, str]]:
    from search.forecast import forecast  # imports torch

    costs, baseline = forecast(study), study.baseline()
    yield (
        "network",
        f"{baseline.model.name}: {costs.dense_macs:,} MACs (1 MAC = 2 FLOPs), {costs.dense_params:,} params",
    )
    if costs.least_keep is not None:
        yield "reach", f"every layer at its floor keeps {costs.least_keep:.3g}"
    for number, layer in enumerate(_named(costs.left_alone)):
        yield "" if number else "left alone", layer
    if study.adjust is not None:
        yield "sharing", "none: every network is trained from scratch"
        yield "cost", f"{_macs(costs.alone)} training MACs, and {_macs(costs.measuring)} to measure the ratios"
    else:
        yield from _shared_costs(costs)
    root = baseline.data.root
    if root is not None and not Path(root).expanduser().is_dir():
        yield "data", f"there is no folder '{root}' here: the search needs it (--set data.root=...)"


def _shared_costs(costs: "Forecast") -> Iterator[tuple[str, str]]:
    runnable = sum(costs.forks.values())
    yield "sharing", _sharing({fork: count for fork, count in costs.forks.items() if fork}, runnable)
    saved = 1 - costs.shared / costs.alone
    yield "cost", f"{_macs(costs.alone)} training MACs alone, {_macs(costs.shared)} with sharing ({saved:.0%} saved)"
    yield "", f"a trial that differs from another in one choice trains at least {costs.least_share:.0%} of its own way"
    yield "", "an estimate from random plans; passes of criteria and probes come on top"
    for reason, count in costs.refused.items():
        share = count / (runnable + sum(costs.refused.values()))
        yield "refused", f"{share:.0%} of random plans would not be proposed, for example: {reason}"


def _named(left_alone: dict[str, str]) -> Iterator[str]:
    for layer, reason in itertools.islice(left_alone.items(), LAYERS_NAMED):
        yield f"{layer}: {reason}"
    if len(left_alone) > LAYERS_NAMED:
        yield f"and {len(left_alone) - LAYERS_NAMED} layers more"


def _sharing(forks: dict[int, int], runnable: int) -> str:
    if not forks:
        return "no trial can start from the baseline"
    part = f"{sum(forks.values()) / runnable:.0%} of trials start from the baseline"
    return f"{part}, after {next(iter(forks))} to {max(forks)} of its epochs ({len(forks)} places)"


def _macs(count: int) -> str:
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
