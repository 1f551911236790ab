"""`prunefront simulate STUDY`: the same search in virtual time, on trials that were recorded."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from search.simulated_workers import Conditions
    from search.simulator import Result


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, metavar="K", help="Trials at once."
)
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Pruned trials; default: the study's.")
@click.option("--seed", type=click.IntRange(min=0), metavar="S", help="Of proposals and faults; default: the study's.")
@click.option(
    "--stragglers",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    metavar="SHARE",
    help="This share of the workers is slow: 0.25.",
)
@click.option(
    "--slowness", type=click.FloatRange(min=1.0), default=3.0, show_default=True, metavar="X", help="So many times."
)
@click.option(
    "--failures",
    type=click.FloatRange(min=0.0, min_open=True),
    metavar="SECONDS",
    help="Workers die after this long on average, in virtual seconds; default: never.",
)
@click.option(
    "--setup",
    "setup_seconds",
    type=click.FloatRange(min=0.0),
    metavar="SECONDS",
    help="What a worker takes to set a trial up; default: what was recorded.",
)
@click.option(
    "--record", "file", type=click.Path(path_type=Path), metavar="FILE", help="Default: STUDY.record.json.gz."
)
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a value of the study.")
def command(
    study: Path,
    workers: int,
    trials: int | None,
    seed: int | None,
    stragglers: float,
    slowness: float,
    failures: float | None,
    setup_seconds: float | None,
    file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Simulate the search of STUDY on K workers: the decisions are the real ones, trials are looked up in its record.

    Nothing is trained. Every plan of the study must have been recorded: see `prunefront record`.
    """
    import math
    import sys

    from rich.console import Console

    from search.record import Record, beside
    from search.scoreboard import Scoreboard
    from search.simulated_workers import Clock, Conditions
    from search.simulation import RecordOutlook, simulate
    from search.summary import print_summary
    from spaces.load import load_study
    from tracking.events import Event

    loaded = load_study(study, overrides if seed is None else (*overrides, f"budget.seed={seed}"))
    source = Record.load(file or beside(study))
    conditions = Conditions(
        workers=workers,
        stragglers=stragglers,
        slowness=slowness,
        failures=math.inf if failures is None else failures,
        setup_seconds=source.setup_seconds if setup_seconds is None else setup_seconds,
        seed=loaded.budget.seed,
    )
    wanted, clock = loaded.budget.trials if trials is None else trials, Clock()
    board = Scoreboard(wanted + 1, clock=clock)
    board.begin()

    def hear(event: Event) -> None:
        board.hear(event)

    outlook = RecordOutlook(source)
    simulated = simulate(loaded, source, conditions, outlook=outlook, trials=wanted, clock=clock, heard=[hear])
    # Piped, a table must not be folded to some imagined terminal's width.
    print_summary(Console() if sys.stdout.isatty() else Console(width=200), board, why_ended=simulated.why_ended)
    for line in _told(simulated.result, conditions):
        click.echo(line)


def _told(result: "Result", conditions: "Conditions") -> Iterator[str]:
    """What the search took, in virtual time and in training MACs."""
    from search.progress import spell

    count = conditions.workers
    yield f"virtual time: {spell(result.seconds)} on {count} worker{'s' if count > 1 else ''}"
    whole = max(count * result.seconds, 1e-12)
    parts = [f"{result.busy_seconds:,.1f} busy", f"{result.idle_seconds:,.1f} idle ({result.idle_seconds / whole:.0%})"]
    if result.lost_attempts or result.down_seconds:
        parts.append(f"{result.down_seconds:,.1f} down; {result.lost_attempts} attempts were lost with their workers")
    yield f"worker-seconds: {', '.join(parts)}"
    times = result.macs / max(result.lowest_macs, 1)
    least = f"{result.lowest_macs:.4g} is the least that these trials take ({times:.3f} times)"
    yield f"training MACs executed: {result.macs:.4g}; {least}"
    saved = 1.0 - result.macs / max(result.alone_macs, 1)
    yield f"sharing: run alone they take {result.alone_macs:.4g} ({saved:.0%} saved)"
