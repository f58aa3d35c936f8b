"""The `glimpse` command: what to do with runs after training."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from glimpse.errors import UserError
from glimpse.runs import report as runs_report

app = typer.Typer(
    help="Look at runs of `python train.py`.", no_args_is_help=True, add_completion=False
)


@app.callback()
def main() -> None:
    """Look at runs of `python train.py`."""


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
    table = Table(box=None, pad_edge=False)
    for name in runs_report.COLUMNS:
        table.add_column(name, overflow="fold")
    for row in runs_report.rows(runs):
        table.add_row(*map(Text, row))  # brackets are no markup
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    path = folder / "report.html"
    path.write_text(runs_report.page(runs, folder.resolve()), encoding="utf-8")
    print(f"page: {path}")
