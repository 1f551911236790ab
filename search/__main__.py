"""The console command: `prunefront VERB`, the same as `python -m search VERB`.

A verb's module is imported only when it is called, so that `--help` answers without torch, Ray or MLflow.
Nothing that workers run may live here: under `python -m` this module has another name there.
"""

import signal
import sys
from importlib import import_module

import click

from spaces.errors import PrunefrontError, UserError

VERBS = {
    "check": "Validate a study; say what varies and what it will cost.",
    "search": "Run a study's search, here or on a Ray cluster.",
    "train": "Run one plan: no Ray, no MLflow.",
    "simulate": "Run a study's search in virtual time, on recorded trials.",
    "record": "Train every plan of a finite study once, for `simulate`.",
    "front": "Print the front of an experiment as a table, JSON, CSV, a picture or a page.",
    "ui": "Open the MLflow UI on the right store, on loopback.",
    "export": "Write the best point under a budget to a directory, verified.",
    "verify": "Check an exported directory again.",
    "demo": "Search on digits, export the best point: what `make demo` runs.",
}


class Verbs(click.Group):
    """The verbs by name; each is the `command` of `search.commands.VERB`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb that was asked for."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"search.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prunefront", prog_name="prunefront")
def cli() -> None:
    """Find how to prune a network: when, by which criterion, how much per layer, how to retrain."""


def main() -> None:
    """Run a verb; 0 on success, 2 for a mistake its user can mend, 1 for a failure inside, 130 for Ctrl-C."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"prunefront: {error.format_message()}", err=True)
        sys.exit(2)
    except UserError as error:
        click.echo(f"prunefront: {error}", err=True)
        sys.exit(2)
    except PrunefrontError as error:
        click.echo(f"prunefront: {error}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second one would print what exit hooks it broke
        sys.exit(130)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)


if __name__ == "__main__":
    main()
