"""`prunefront verify DIR`: an exported directory, checked again."""

from pathlib import Path

import click


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--data-root", metavar="FOLDER", help="Where the data lies, if not where the plan says.")
def command(directory: Path, data_root: str | None) -> None:
    """Check an exported directory again.

    Every file against its checksum; model.pt2 and model.onnx for anything that would run code; then each form in a
    fresh process on the validation split: equal outputs, and the recorded accuracy.
    """
    from search.counting import counted
    from trainables.export.verify import verify

    with counted("validation images") as progress:
        done = verify(directory, data_root=data_root, say=lambda line: click.echo(line, err=True), progress=progress)
    for form, correct in done.correct.items():
        difference = done.largest.get(form, 0.0)
        click.echo(
            f"{form:<12} {correct} of {done.images} right ({correct / done.images:.4f}), differs by {difference:.1e}"
        )
    click.echo(f"{directory}: verified")
