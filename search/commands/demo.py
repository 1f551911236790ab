"""`prunefront demo`: a search on real digits, then the best point exported and verified: what `make demo` runs."""

import shutil
from pathlib import Path

import click

DIGITS = Path(__file__).resolve().parents[2] / "spaces" / "digits.yaml"


@click.command()
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Pruned trials; default: the study's.")
@click.option("--to", "target", metavar="DIR", type=click.Path(path_type=Path), default=Path("exported"))
@click.option(
    "--storage", metavar="FOLDER", default="runs", show_default=True, help="Where the search keeps its files."
)
def command(trials: int | None, target: Path, storage: str) -> None:
    """Search on digits, export the best point, and say where to look. Run again, it goes on where it was."""
    from search.commands.export import best_point, export_point
    from search.commands.search import resume_line, searched
    from spaces.load import load_study
    from tracking.connection import default_uri
    from tracking.front import Budget, described
    from tracking.read import read_front

    overrides = (f"resources.storage={storage}",)
    study = load_study(DIGITS, overrides)
    click.echo(f"searching {study.name}: {study.budget.trials if trials is None else trials} trials and the baseline\n")
    wanted = study.budget.trials if trials is None else trials
    ending = searched(study, trials=wanted, mode="resume", address=None, tracking_uri=None)
    if ending.was_interrupted:
        click.echo(f"interrupted; to go on: prunefront demo, or {resume_line(DIGITS, trials, overrides, None, None)}")
        raise click.Abort
    uri, experiment = study.tracking.uri or default_uri(storage), study.tracking.experiment or study.name
    front = read_front(uri, experiment)
    if front.baseline is not None:
        click.echo(f"\nbaseline: {described(front.baseline)}")
    point = best_point(front, Budget())
    if (target / "architecture.json").is_file():
        shutil.rmtree(target)  # an export of an earlier demo, and nothing else
    export_point(point, target, uri=uri, experiment=experiment)
    where = "" if storage == "runs" else f" --storage {storage}"
    click.echo(
        f"\nthe front in a browser: prunefront ui{where}   (experiment '{experiment}', run '{study.name}', front.html)"
    )
    click.echo(f"as a table: prunefront front {experiment}{where}")
