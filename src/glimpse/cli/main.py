"""The `glimpse` command.

Its subcommands inspect datasets before training (cli/data.py), show what a network has learned
(cli/insight.py), and compare runs (cli/runs.py).
"""

import sys

import typer

from glimpse.cli import data as cli_data
from glimpse.cli import insight as cli_insight
from glimpse.cli import runs as cli_runs
from glimpse.streams import keep_printing
from glimpse.threads import spin_briefly

app = typer.Typer(
    help="Inspect datasets and the runs of `python train.py`.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_insight.app)  # without a name: `glimpse evaluate`
app.add_typer(cli_runs.app)


def main() -> int:
    """Run the command given on the command line.

    Returns:
        0 on success, 1 after an error, 2 if the command line is invalid. Errors print one line.
    """
    keep_printing()
    spin_briefly()
    try:
        return app(standalone_mode=False) or 0
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        if message:  # it is empty when no command was given: typer has then printed the help
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "glimpse"
            print(
                f"error: {message.rstrip('.')}: type {command} --help for an example",
                file=sys.stderr,
            )
        return error.exit_code
