"""`prunefront export EXPERIMENT`: the best point under a budget as files that run elsewhere, verified."""

import math
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spaces.errors import UserError

if TYPE_CHECKING:
    from tracking.front import Budget, Point
    from tracking.result import Front

SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


@click.command()
@click.argument("experiment")
@click.option("--max-macs", metavar="X", help="At most this many MACs: 0.4 (of dense), 3M, 1.2G.")
@click.option("--max-params", metavar="X", help="At most this many parameters: 0.4 (of dense), 300K.")
@click.option("--max-latency", metavar="MS", type=float, help="At most this many milliseconds.")
@click.option("--min-accuracy", metavar="X", type=float, help="At least this accuracy: 0.93.")
@click.option("--knee", is_flag=True, help="Where the front bends most.")
@click.option("--run", "run_id", metavar="ID", help="This run, by its id or the beginning of it.")
@click.option("--to", "target", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Where to write.")
@click.option("--tracking-uri", metavar="URI", help="MLflow server or store; default: the one in --storage.")
@click.option("--storage", metavar="FOLDER", default="runs", show_default=True, help="Where searches keep their files.")
@click.option("--data-root", metavar="FOLDER", help="Where the data lies, if not where the plan says.")
def command(
    experiment: str,
    max_macs: str | None,
    max_params: str | None,
    max_latency: float | None,
    min_accuracy: float | None,
    knee: bool,
    run_id: str | None,
    target: Path,
    tracking_uri: str | None,
    storage: str,
    data_root: str | None,
) -> None:
    """Write the best point of EXPERIMENT's front under a budget to a directory, and prove it.

    Without a budget: the fewest MACs within one standard error of the dense accuracy, else the knee of the front.
    """
    from tracking.connection import default_uri
    from tracking.read import read_front

    limits = (max_macs, max_params, max_latency, min_accuracy)
    if sum([any(limit is not None for limit in limits), knee, run_id is not None]) > 1:
        raise UserError("give a budget, or --knee, or --run; not several of them")
    uri = tracking_uri or default_uri(storage)
    front = read_front(uri, experiment)
    budget = budget_of(
        front, max_macs=max_macs, max_params=max_params, max_latency=max_latency, min_accuracy=min_accuracy
    )
    point = run_of(front, run_id) if run_id else _knee(front) if knee else best_point(front, budget)
    export_point(point, target, uri=uri, experiment=experiment, data_root=data_root)


def budget_of(
    front: "Front",
    *,
    max_macs: str | None = None,
    max_params: str | None = None,
    max_latency: float | None = None,
    min_accuracy: float | None = None,
) -> "Budget":
    """What the options ask for, in absolute numbers. Raises UserError in the option's name."""
    from tracking.front import Budget

    if min_accuracy is not None and not 0 <= min_accuracy <= 1:
        raise UserError(f"--min-accuracy {min_accuracy:g}: expected a fraction from 0 to 1")
    if max_latency is not None and not any("latency_ms" in point.metrics for point in front.front):
        raise UserError("--max-latency: no trial measured its latency; name latency_ms among the study's objectives")
    return Budget(
        max_macs=_amount("--max-macs", max_macs, front, "macs"),
        max_params=_amount("--max-params", max_params, front, "params"),
        max_latency_ms=max_latency,
        min_accuracy=min_accuracy,
    )


def best_point(front: "Front", budget: "Budget") -> "Point":
    """The best point of the front under a budget; the recommended one where the budget is empty."""
    from tracking.front import best_within, recommended

    if not budget.limits and budget.min_accuracy is None:
        return recommended(front.front, front.baseline)
    return best_within(front.front, budget)


def run_of(front: "Front", run_id: str) -> "Point":
    """The full-length trial with that run id, or the one whose id begins so."""
    found = [point for point in front.points if point.run_id and point.run_id.startswith(run_id)]
    if len(found) != 1:
        listed = ", ".join(point.run_id for point in front.front if point.run_id)
        how_many = "no" if not found else f"{len(found)}"
        raise UserError(
            f"{how_many} finished runs of '{front.experiment}' begin with '{run_id}'; on the front: {listed}"
        )
    return found[0]


def export_point(
    point: "Point", target: Path, *, uri: str, experiment: str, data_root: str | None = None
) -> dict[str, Any]:
    """Fetch the point's checkpoint, export it to `target`, and say what came of it; returns `metrics.json`."""
    from search.counting import counted
    from tracking.front import described
    from tracking.read import download_checkpoint
    from trainables.export.write import check_target, export

    check_target(target)
    click.echo(f"exporting {described(point)}")
    if point.run_id is None:
        raise UserError(f"{point.name} has no run in the tracking store")
    origin: dict[str, Any] = {"experiment": experiment, "run_id": point.run_id, "name": point.name}
    origin["plan_hash"] = point.plan_hash
    if "latency_ms" in point.metrics:
        origin["latency_ms"] = point.metrics["latency_ms"]
    with tempfile.TemporaryDirectory(prefix="prunefront-export-") as scratch:
        folder = download_checkpoint(uri, point.run_id, Path(scratch))
        with counted("validation images") as progress:
            metrics = export(folder, target, data_root=data_root, origin=origin, say=click.echo, progress=progress)
    _report(metrics, target)
    return metrics


def _report(metrics: dict[str, Any], target: Path) -> None:
    verified = metrics["verified"]
    for form, size in zip(("onnx", "pt2", "safetensors"), metrics["bytes"].items(), strict=True):
        difference, correct = verified["largest_difference"][form], verified["correct"][form]
        click.echo(
            f"  {size[0]:<18} {size[1]:>12,} bytes   {correct} of {verified['images']} right"
            f"   outputs differ by {difference:.0e}"
        )
    click.echo(
        f"verified: accuracy {metrics['accuracy']:.4f} ± {metrics['standard_error']:.4f} on the validation split"
    )
    click.echo(f"written to {target}; to check it again: prunefront verify {target}")


def _knee(front: "Front") -> "Point":
    point = front.knee
    if point is None:
        raise UserError(f"the front of '{front.experiment}' is empty: no trial has finished")
    return point


def _amount(option: str, text: str | None, front: "Front", metric: str) -> float | None:
    """An absolute amount: as it stands with a suffix or above 1, else that fraction of the dense network's."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d*\.?\d+(?:[eE][+-]?\d+)?)([kKmMgG]?)", text.strip())
    if match is None or not 0 < float(match[1]) < math.inf:
        raise UserError(f"{option} {text}: expected a fraction up to 1, or a number with K, M or G")
    number, suffix = float(match[1]), match[2].lower()
    if suffix or number > 1:
        return number * SUFFIXES[suffix]
    if front.baseline is None or metric not in front.baseline.metrics:
        raise UserError(f"{option} {text}: a fraction of the dense network, which has not finished; give a number")
    # A point at exactly the fraction is within it, whatever the last bit of the product.
    return number * front.baseline.metrics[metric] * (1 + 1e-12)
