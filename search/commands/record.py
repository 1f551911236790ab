"""`prunefront record STUDY`: train every plan of a finite space, so that searches over it can be simulated."""

import shlex
from pathlib import Path

import click

from spaces.errors import UserError


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a value of the study.")
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="FILE", help="Default: STUDY.record.json.gz.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, metavar="N")
def command(study: Path, overrides: tuple[str, ...], target: Path | None, processes: int) -> None:
    """Train every plan of STUDY once and write what each boundary took and measured.

    Stages that plans share are trained once. Run again after a kill, it goes on where it was.
    """
    from search.counting import counted
    from search.record import beside
    from spaces.load import load_study

    checked = load_study(study, overrides)
    file = target or beside(study)
    if file.exists():
        raise UserError("there is a record already; remove it, or write --to another file", file=file)
    from search.recording import record_study  # imports torch

    options = [part for override in overrides for part in ("--set", override)]
    told = shlex.join(["prunefront", "record", str(study), *options, "--processes", str(processes)])
    with counted("plans") as progress:
        record_study(checked, file, processes=processes, command=told, progress=progress)
    click.echo(f"written to {file}; now: prunefront simulate {study} --workers 8")
