"""The `glimpse` command: look at datasets before training (cli_data.py) and at runs after it."""

import typer

from glimpse import cli_data, cli_runs

app = typer.Typer(
    help="Look at datasets, and at runs of `python train.py`.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_runs.app)  # without a name: `glimpse report`
