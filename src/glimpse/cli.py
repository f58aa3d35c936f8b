"""The `glimpse` command: look at datasets before training (cli_data.py) and at runs after it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from glimpse import cli_data, cli_insight
from glimpse.errors import UserError
from glimpse.runs import report as runs_report
from glimpse.tables import print_table

app = typer.Typer(
    help="Look at datasets, and at runs of `python train.py`.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(cli_data.app, name="data")
cli_insight.add_to(app)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="where the run folders are")] = Path("outputs"),
) -> None:
    """One table over all runs, and one page: FOLDER/report.html."""
    try:
        runs = runs_report.find_runs(folder.resolve())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print_table(runs_report.COLUMNS, runs_report.rows(runs))
    path = folder / "report.html"
    path.write_text(runs_report.page(runs, folder.resolve()), encoding="utf-8")
    print(f"page: {path}")
