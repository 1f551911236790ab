"""`prunefront front EXPERIMENT`: the front as a table, JSON, CSV, a picture or a page."""

import json
import sys
from pathlib import Path

import click

from spaces.errors import UserError
from tracking.connection import default_uri
from tracking.front import short
from tracking.result import Front


@click.command(short_help="Print the front of an experiment.")
@click.argument("experiment")
@click.option("--tracking-uri", metavar="URI", help="MLflow server or store.")
@click.option("--storage", metavar="DIR", default="runs", show_default=True, help="Where the default store lies.")
@click.option("--json", "form", flag_value="json", help="Print it as JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print it as CSV.")
@click.option("--plot", metavar="FILE", type=click.Path(path_type=Path), help="Save a picture: .png, .svg or .pdf.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Save an interactive page.")
def command(
    experiment: str,
    tracking_uri: str | None,
    storage: str,
    form: str | None,
    plot: Path | None,
    html: Path | None,
) -> None:
    """Print the front of EXPERIMENT's newest search: the full-length trials that no other beats.

    What is saved with --plot or --html is told on stderr, so that --json and --csv can be piped.
    """
    from tracking.read import read_front

    result = read_front(tracking_uri or default_uri(storage), experiment)
    if plot is not None:
        from tracking.picture import save_picture

        save_picture(result, plot)
        click.echo(f"wrote {plot}", err=True)
    if html is not None:
        from tracking.page import page

        _save(html, page(result))
        click.echo(f"wrote {html}", err=True)
    if form == "json":
        click.echo(json.dumps(result.to_json(), indent=2, allow_nan=False))
    elif form == "csv":
        click.echo(result.to_csv(), nl=False)
    elif plot is None and html is None:
        _print(result)


def _save(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write '{file}': {error.strerror or error}") from error


def _print(result: Front) -> None:
    from rich.console import Console
    from rich.table import Table

    from tracking.page import RUN_DIGITS, choices

    # Piped, a table must not be folded to some imagined terminal's width.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("trial", "accuracy", "MACs kept", "MACs", "parameters", "recovery", "run", ""):
        table.add_column(name, justify="right" if name in {"accuracy", "MACs kept", "MACs", "parameters"} else "left")
    for point in result.front:
        words = {"knee": result.knee, "recommended": result.recommended, "dense": result.baseline}
        table.add_row(
            point.name,
            f"{point.accuracy:.2%}",
            f"{point.keep_macs:.1%}",
            short(point.metrics.get("macs", float("nan"))),
            short(point.metrics.get("params", float("nan"))),
            choices(point).get("recovery", ""),
            (point.run_id or "")[:RUN_DIGITS],
            ", ".join(word for word, one in words.items() if one == point),
        )
    console.print(table)
    counts = ", ".join(f"{count} {how}" for how, count in result.trials.items())
    volume = "" if result.hypervolume is None else f"; hypervolume {result.hypervolume:.4f}"
    baseline = "" if result.baseline is None else f"; dense baseline {result.baseline.accuracy:.2%}"
    console.print(f"trials: {counts}{baseline}{volume} (1 MAC = 2 FLOPs)", highlight=False)
