"""The `glimpse` command: look at datasets before training (cli_data.py), at what a network learned
(cli_insight.py), and at runs beside each other (cli_runs.py)."""

import typer

from glimpse import cli_data, cli_insight, cli_runs

app = typer.Typer(
    help="Look at datasets, and at runs of `python train.py`.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_insight.app)  # without a name: `glimpse evaluate`
app.add_typer(cli_runs.app)
