"""`prunefront train PLAN`: one trial in this process, with torch alone."""

import json
from pathlib import Path

import click

from spaces.errors import UserError

LINE = "{epoch:>5}  {accuracy:>8.4f}  {loss:>8.4f}  {learning_rate:>9.6f}  {keep_macs:>9.4f}  {params:>10}"
HEAD = f"{'epoch':>5}  {'accuracy':>8}  {'loss':>8}  {'rate':>9}  {'keep_macs':>9}  {'params':>10}"


@click.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a value of the plan.")
@click.option("--store", help="Stage store to start from and to save boundaries in: a folder or an address.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda[:N].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per epoch.")
def command(plan: Path, overrides: tuple[str, ...], store: str | None, device: str, as_json: bool) -> None:
    """Run the trial of PLAN, a YAML or JSON file with every choice made.

    With --store, a run that was interrupted goes on from its last saved boundary.
    """
    from spaces.load import load_plan
    from trainables.costing import Costing
    from trainables.store import StageStore
    from trainables.training.numerics import require_device
    from trainables.trial import Metrics, run_trial

    def report(metrics: Metrics) -> None:
        if as_json:
            click.echo(json.dumps(metrics))
        else:
            rate = metrics["learning_rate"] if metrics["learning_rate"] is not None else float("nan")
            click.echo(LINE.format(**{**metrics, "learning_rate": rate}))

    loaded = load_plan(plan, overrides)
    require_device(device)
    problem = Costing().problem(loaded)
    if problem is not None:
        raise UserError(problem, file=plan)
    stages = None if store is None else StageStore(store)
    if not as_json:
        click.echo(HEAD)
    run_trial(loaded, store=stages, report=report, device=device)
