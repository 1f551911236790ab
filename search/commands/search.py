"""`prunefront search STUDY`: a study's search, on this machine or on a Ray cluster."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from search.runner import Ending
    from spaces.study import Study


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Pruned trials in all; default: the study's.")
@click.option("--resume", is_flag=True, help="Go on with the study's trials; with --trials also add to them.")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a value of the study.")
@click.option("--address", metavar="ADDRESS", help="A running Ray cluster: auto, or HOST:PORT. Default: this machine.")
@click.option("--tracking-uri", metavar="URI", help="MLflow server or store; default: the study's.")
@click.option(
    "--warm-start", metavar="SEARCH", help="Learn from another search: its folder, runs/NAME, or its MLflow experiment."
)
def command(
    study: Path,
    trials: int | None,
    resume: bool,
    overrides: tuple[str, ...],
    address: str | None,
    tracking_uri: str | None,
    warm_start: str | None,
) -> None:
    """Run the search of STUDY to a front in MLflow. Ctrl-C stops it; --resume goes on where it stopped."""
    from spaces.load import load_study

    loaded = load_study(study, overrides)
    ending = searched(
        loaded,
        trials=loaded.budget.trials if trials is None else trials,
        mode="resume" if resume else "new",
        address=address,
        tracking_uri=tracking_uri,
        warm_start=warm_start,
    )
    if ending.was_interrupted:
        click.echo(f"interrupted; to go on: {resume_line(study, trials, overrides, address, tracking_uri)}")
        raise click.Abort


def searched(
    study: "Study",
    *,
    trials: int,
    mode: Literal["new", "resume"],
    address: str | None,
    tracking_uri: str | None,
    warm_start: str | None = None,
) -> "Ending":
    """Run a search, show it, and print what came of it."""
    from rich.console import Console

    from search.runner import mlflow_recorder, run_search, torch_workload
    from search.summary import print_summary
    from tracking.connection import default_uri, require_answer

    console = Console()
    uri = tracking_uri or study.tracking.uri or default_uri(study.resources.storage)
    require_answer(uri)
    experiment = study.tracking.experiment or study.name
    warmth = None
    if warm_start is not None:
        from search.warm import warmth_from

        warmth = warmth_from(warm_start, study, uri=uri)
        console.print(f"{len(warmth.trials)} of {warmth.seen} trials of '{warm_start}' are known to the sampler")
    ending = run_search(
        study,
        workload=torch_workload(),
        recorder=mlflow_recorder(uri, experiment),
        console=console,
        trials=trials,
        mode=mode,
        address=address,
        warmth=warmth,
    )
    print_summary(console, ending.board, why_ended=ending.why_ended, agreements=ending.agreements)
    click.echo(f"MLflow: experiment '{experiment}' in {uri}")
    return ending


def resume_line(
    study: Path, trials: int | None, overrides: tuple[str, ...], address: str | None, tracking_uri: str | None
) -> str:
    """The command that goes on with an interrupted search."""
    words = ["prunefront", "search", str(study), "--resume"]
    words += [] if trials is None else ["--trials", str(trials)]
    words += [word for override in overrides for word in ("--set", override)]
    words += [] if address is None else ["--address", address]
    words += [] if tracking_uri is None else ["--tracking-uri", tracking_uri]
    return shlex.join(words)
