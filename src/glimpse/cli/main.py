"""The `glimpse` command: look at datasets before training (cli_data.py), at what a network learned
(cli_insight.py), and at runs beside each other (cli_runs.py)."""

import sys

import typer

from glimpse.cli import data as cli_data
from glimpse.cli import insight as cli_insight
from glimpse.cli import runs as cli_runs
from glimpse.threads import wait_passively

app = typer.Typer(
    help="Look at datasets, and at runs of `python train.py`.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_insight.app)  # without a name: `glimpse evaluate`
app.add_typer(cli_runs.app)


def main() -> int:
    """Run the command that was typed.

    Returns:
        0; 1 after an error, 2 where the command itself was typed wrongly: one line each.
    """
    wait_passively()
    try:
        return app(standalone_mode=False) or 0
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        if message:  # no command at all has printed the help
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "glimpse"
            print(f"error: {message.rstrip('.')}: {command} --help has an example", file=sys.stderr)
        return error.exit_code
